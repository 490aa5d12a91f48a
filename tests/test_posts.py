"""Posts and comments: who may change them, finding them, and lists that have no end."""

import json
import re
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
from httpx2 import Response
from pydantic import BaseModel, ValidationError
from sqlmodel import col, func, select

from kit.app import App
from models import Comment, CommentCreate, CommentUpdate, PostCreate, PostUpdate
from tests.databases import on_both_databases
from tests.people import API, Person, Row, refusal, without_request_id
from tests.routes import Exceptions
from tests.world import World


@pytest.fixture
def news(max: Person) -> Row:
    """A post of Max's."""
    return write(max, "News", "The lamps are here.")


def write(person: Person, title: str, content: str = "…") -> Row:
    answer = person.post("/posts", {"title": title, "content": content})
    assert answer.status_code == 201, answer.text
    return answer.json()


def comment(person: Person, post: Row, content: str = "Good") -> Row:
    answer = person.post(f"/posts/{post['id']}/comments", {"content": content})
    assert answer.status_code == 201, answer.text
    return answer.json()


def tag_of(post: Row) -> str:
    """The tag that an answer with this post has: its version, and a checksum of what is not in its own row."""
    beside = f"{post['comment_count']} {post['creator_name']}"
    return f'"{post["version"]}-{crc32(beside.encode()):08x}"'


def path_of(row: Row) -> str:
    """Where a post or a comment is found."""
    return f"/posts/{row['post_id']}/comments/{row['id']}" if "post_id" in row else f"/posts/{row['id']}"


def titles(person: Person, path: str, **query: Any) -> list[str]:
    answer = person.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return [post["title"] for post in answer.json()["items"]]


# Posts


def test_a_post_says_who_wrote_it(max: Person) -> None:
    answer = max.post("/posts", {"title": " News ", "content": " The lamps\nare here. "})
    post = answer.json()

    assert (answer.headers["Location"], answer.headers["ETag"]) == (f"{API}/posts/{post['id']}", tag_of(post))
    assert post["created_at"].endswith("Z")
    assert post.pop("created_at") <= post.pop("updated_at")
    assert post == {
        "id": 1,
        "title": "News",
        "content": "The lamps\nare here.",
        "creator_id": max.id,
        "creator_name": "Max",
        "comment_count": 0,
        "version": 1,
    }


def test_everybody_reads_a_post(ada: Person, eva: Person, news: Row) -> None:
    answers = [person.get(path_of(news)) for person in (ada, eva)]

    assert [(answer.headers["ETag"], answer.json()) for answer in answers] == [(tag_of(news), news)] * 2


def test_a_post_that_did_not_change_is_not_sent_again(eva: Person, news: Row) -> None:
    answer = eva.get(path_of(news), headers={"If-None-Match": tag_of(news)})

    assert (answer.status_code, answer.content) == (304, b"")


def test_the_tag_of_a_post_minds_all_that_the_answer_shows(max: Person, eva: Person, news: Row) -> None:
    def seen(tag: str = "") -> tuple[int, str]:
        answer = eva.get(path_of(news), headers={"If-None-Match": tag})
        return answer.status_code, answer.headers["ETag"]

    _, first = seen()
    said = comment(eva, news)
    commented = seen(first)
    max.patch("/users/me", {"full_name": "Maximilian"})
    renamed = seen(commented[1])
    eva.delete(path_of(said))
    max.patch("/users/me", {"full_name": "Max"})

    assert re.fullmatch('"1-[0-9a-f]{8}"', first)
    assert (commented[0], renamed[0]) == (200, 200)
    assert len({first, commented[1], renamed[1]}) == 3
    assert seen(first) == (304, first)


def test_a_change_minds_the_version_of_a_post_alone(max: Person, eva: Person, news: Row) -> None:
    tag = max.get(path_of(news)).headers["ETag"]
    comment(eva, news)
    changed = max.patch(path_of(news), {"title": "Old"}, headers={"If-Match": tag})
    late = max.patch(path_of(news), {"title": "Older"}, headers={"If-Match": tag})
    wrong = max.patch(path_of(news), {"title": "Older"}, headers={"If-Match": '"2-no"'})

    assert (changed.status_code, changed.headers["ETag"][:3]) == (200, '"2-')
    assert refusal(late) == refusal(wrong) == (412, "VERSION_CONFLICT")


def test_its_creator_changes_a_post(max: Person, news: Row) -> None:
    answer = max.patch(path_of(news), {"title": "Old news"})
    changed = answer.json()

    assert (answer.status_code, answer.headers["ETag"]) == (200, tag_of(changed))
    assert changed == news | {"title": "Old news", "version": 2, "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > news["updated_at"]
    assert max.get(path_of(news)).json() == changed


def test_what_changes_nothing_is_no_new_version(max: Person, news: Row) -> None:
    for body in ({}, {"title": "News"}, {"title": "News", "content": "The lamps are here."}):
        answer = max.patch(path_of(news), body)

        assert (answer.status_code, answer.json(), answer.headers["ETag"]) == (200, news, tag_of(news))
    assert max.get(path_of(news)).json() == news


def test_a_post_shows_the_name_that_its_creator_has_now(max: Person, eva: Person, news: Row) -> None:
    said = comment(max, news)
    max.patch("/users/me", {"full_name": "Maximilian"})

    assert {eva.get(path_of(row)).json()["creator_name"] for row in (news, said)} == {"Maximilian"}


def test_a_post_only_changes_in_the_version_that_was_seen(max: Person, news: Row) -> None:
    for stale in ('"2"', "1"):
        headers = {"If-Match": stale}
        changed = max.patch(path_of(news), {"title": "Old"}, headers=headers)
        assert refusal(changed) == refusal(max.delete(path_of(news), headers=headers)) == (412, "VERSION_CONFLICT")
    assert max.get(path_of(news)).json() == news

    for right in ('"1"', "*"):
        post = write(max, "News")
        changed = max.patch(path_of(post), {"title": "Old"}, headers={"If-Match": right})
        assert (changed.json()["title"], changed.json()["version"]) == ("Old", 2)
        headers = {"If-Match": right.replace("1", "2")}
        assert max.delete(path_of(post), headers=headers).status_code == 204
        assert refusal(max.get(path_of(post))) == (404, "POST_NOT_FOUND")


WRONG_POSTS: list[Any] = [
    None,
    [],
    {},
    {"title": "News"},
    {"content": "News"},
    *({"title": wrong, "content": "x"} for wrong in ("", "  ", "t" * 256, None, 1, True)),
    *({"title": "x", "content": wrong} for wrong in ("", "\n\t", "c" * 20_001, None, 1, True)),
    {"title": "x", "content": "x", "creator_id": 1},
    {"title": "x", "content": "x", "version": 1},
]
WRONG_COMMENTS: list[Any] = [
    None,
    [],
    *({"content": wrong} for wrong in ("", "  ", "c" * 5_001, None, 1, True)),
    {"content": "x", "post_id": 1},
    {"content": "x", "nonsense": 1},
]


OF_A_NEW_POST_ONLY: list[Any] = [{}, {"title": "News"}, {"content": "News"}]
WRONG_BODIES: list[tuple[type[BaseModel], list[Any]]] = [
    (PostCreate, WRONG_POSTS),
    (PostUpdate, [body for body in WRONG_POSTS if body not in OF_A_NEW_POST_ONLY]),
    (CommentCreate, [{}, *WRONG_COMMENTS]),
    (CommentUpdate, WRONG_COMMENTS),
]


def test_what_is_no_post_and_no_comment_is_refused(subtests: pytest.Subtests) -> None:
    for schema, bodies in WRONG_BODIES:
        for body in bodies:
            text = json.dumps(body)
            with subtests.test(schema.__name__, body=text[:50]), pytest.raises(ValidationError):
                schema.model_validate_json(text)


def test_what_is_refused_changes_nothing(max: Person, news: Row, subtests: pytest.Subtests) -> None:
    said = comment(max, news)
    before = max.get("/posts").json()
    for text in ("", "  ", None, "\0", "\ud800"):
        with subtests.test(repr(text)):
            answers = [
                _send(max, "POST", "/posts", {"title": "x", "content": text}),
                _send(max, "PATCH", path_of(news), {"title": "Mine", "content": text}),
                _send(max, "POST", f"{path_of(news)}/comments", {"content": text}),
                _send(max, "PATCH", path_of(said), {"content": text}),
            ]
            assert {refusal(answer) for answer in answers} == {(422, "VALIDATION_ERROR")}

    assert (max.get("/posts").json(), max.get(path_of(said)).json()) == (before, said)


def _send(person: Person, method: str, path: str, body: Any) -> Response:
    return person.request(method, path, content=json.dumps(body), headers={"Content-Type": "application/json"})


def test_the_longest_texts_are_kept_whole(max: Person) -> None:
    post = write(max, "é" * 255, "𝄞" * 20_000)
    said = comment(max, post, "é" * 5_000)

    assert (len(post["title"]), len(post["content"]), len(said["content"])) == (255, 20_000, 5_000)
    assert max.get(path_of(post)).json()["content"] == "𝄞" * 20_000


# Who may change what


def test_nobody_changes_what_another_wrote(ada: Person, max: Person, eva: Person, news: Row) -> None:
    for row in (news, comment(max, news)):
        for person in (eva, ada):
            assert refusal(person.patch(path_of(row), {"content": "Mine"})) == (403, "NOT_OWNER")
        assert max.get(path_of(row)).json()["content"] == row["content"]


def test_a_member_does_not_delete_what_another_wrote(max: Person, eva: Person, news: Row) -> None:
    for row in (news, comment(max, news)):
        assert refusal(eva.delete(path_of(row))) == (403, "NOT_OWNER")
        assert max.get(path_of(row)).status_code == 200


def test_its_creator_and_an_admin_delete_it(ada: Person, max: Person) -> None:
    for person in (max, ada):
        news = write(max, "News")
        for row, code in ((comment(max, news), "COMMENT_NOT_FOUND"), (news, "POST_NOT_FOUND")):
            answer = person.delete(path_of(row))

            assert (answer.status_code, answer.content) == (204, b"")
            assert refusal(max.get(path_of(row))) == (404, code)


def test_the_creator_of_a_post_does_not_own_the_comments_under_it(max: Person, eva: Person, news: Row) -> None:
    said = comment(eva, news)
    answers = [max.patch(path_of(said), {"content": "Mine"}), max.delete(path_of(said))]

    assert [answer.json()["error_code"] for answer in answers] == ["NOT_OWNER", "NOT_OWNER"]


def test_what_is_not_there_is_not_found(ada: Person, news: Row) -> None:
    for path, code in (("/posts/99", "POST_NOT_FOUND"), ("/posts/1/comments/99", "COMMENT_NOT_FOUND")):
        answers = [ada.get(path), ada.patch(path, {"content": "x"}), ada.delete(path)]
        assert [refusal(answer) for answer in answers] == [(404, code)] * 3


# Comments


def test_a_comment_says_who_wrote_it_and_where(eva: Person, news: Row) -> None:
    answer = eva.post(f"{path_of(news)}/comments", {"content": " Good "})
    said = answer.json()

    assert answer.headers["Location"] == API + path_of(said)
    assert eva.get(path_of(said)).json() == said
    assert said["created_at"].endswith("Z")
    assert said.pop("created_at") <= said.pop("updated_at")
    assert said == {
        "id": 1,
        "post_id": news["id"],
        "content": "Good",
        "creator_id": eva.id,
        "creator_name": "Eva",
    }


def test_its_creator_changes_a_comment(eva: Person, news: Row) -> None:
    said = comment(eva, news)
    changed = eva.patch(path_of(said), {"content": "Better"}).json()

    assert changed == said | {"content": "Better", "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > said["updated_at"]
    assert eva.get(path_of(said)).json() == changed


def test_a_comment_that_stays_the_same_keeps_its_time(eva: Person, news: Row) -> None:
    said = comment(eva, news)

    assert [eva.patch(path_of(said), body).json() for body in ({}, {"content": "Good"})] == [said, said]


def test_comments_change_nothing_of_their_post_but_their_count(max: Person, eva: Person, news: Row) -> None:
    first, _ = comment(eva, news), comment(max, news)
    two = max.get(path_of(news)).json()
    eva.patch(path_of(first), {"content": "Better"})
    eva.delete(path_of(first))
    one = max.get(path_of(news)).json()

    assert (two, one) == (news | {"comment_count": 2}, news | {"comment_count": 1})


def test_each_post_counts_its_own_comments(max: Person, eva: Person, news: Row) -> None:
    other = write(eva, "Other")
    for row, times in ((news, 3), (other, 1)):
        for _ in range(times):
            comment(eva, row)

    assert [post["comment_count"] for post in max.get("/posts").json()["items"]] == [1, 3]
    assert [post["comment_count"] for post in max.get(f"/users/{max.id}/posts").json()["items"]] == [3]
    assert max.patch(path_of(news), {"title": "Old"}).json()["comment_count"] == 3


def test_comments_go_with_their_post(app: App, max: Person, eva: Person, news: Row) -> None:
    said, kept = comment(eva, news), comment(eva, write(eva, "Other"))
    max.delete(path_of(news))

    assert eva.get(path_of(said)).json()["error_code"] == "COMMENT_NOT_FOUND"
    with app.state.database.read() as session:
        assert session.exec(select(Comment.id)).all() == [kept["id"]]


def test_a_comment_is_not_found_under_another_post(max: Person, news: Row) -> None:
    said = comment(max, news)
    elsewhere = path_of(said | {"post_id": write(max, "Other")["id"]})
    nowhere = path_of(said | {"post_id": 99})
    for method in ("GET", "PATCH", "DELETE"):
        body = {"content": "x"} if method == "PATCH" else None
        answers = [max.request(method, path, json=body) for path in (elsewhere, nowhere)]

        assert [refusal(answer) for answer in answers] == [(404, "COMMENT_NOT_FOUND")] * 2
        assert without_request_id(answers[0]) == without_request_id(answers[1])
    assert max.get(path_of(said)).json() == said


def test_there_are_no_comments_where_there_is_no_post(max: Person) -> None:
    answers = [max.get("/posts/99/comments"), max.post("/posts/99/comments", {"content": "x"})]

    assert [refusal(answer) for answer in answers] == [(404, "POST_NOT_FOUND")] * 2


# Whoever leaves


def test_what_somebody_wrote_goes_with_their_account(
    app: App, ada: Person, max: Person, eva: Person, news: Row
) -> None:
    other = write(eva, "Other")
    comment(eva, news)
    comment(max, news)
    comment(max, other)
    kept = comment(ada, other)

    assert ada.delete(f"/users/{max.id}").status_code == 204
    assert titles(ada, "/posts") == ["Other"]
    with app.state.database.read() as session:
        assert session.exec(select(Comment.id)).all() == [kept["id"]]


# Finding posts


FOUND = {
    "lamp": ["Lamps"],
    "LAMP": ["Lamps"],
    "ÉTAGÈRE": ["Étagère"],
    "étagère": ["Étagère"],
    "strasse": ["Straße"],
    "STRASSE": ["Straße"],
    "москва": ["Склад"],
    "%": ["50% off"],
    "_": ["snake_case"],
    "\\": ["back\\slash"],
    "0%": ["50% off"],
    "  lamp  ": ["Lamps"],
    "here": ["back\\slash", "Lamps"],
    "nothing": [],
    "": ["back\\slash", "snake_case", "50% off", "Склад", "Straße", "Étagère", "Lamps"],
}


@pytest.fixture
def library(max: Person) -> None:
    """Posts with words that are hard to find."""
    for title, content in [
        ("Lamps", "They are HERE"),
        ("Étagère", "x"),
        ("Straße", "5"),
        ("Склад", "Москва"),
        ("50% off", "x"),
        ("snake_case", "x"),
        ("back\\slash", "x here"),
    ]:
        write(max, title, content)


@pytest.mark.usefixtures("library")
def test_q_is_a_part_of_the_title_or_the_content_without_case(eva: Person) -> None:
    assert {q: titles(eva, "/posts", q=q) for q in FOUND} == FOUND


def test_a_changed_post_is_found_by_its_new_words_only(max: Person, news: Row) -> None:
    max.patch(path_of(news), {"content": "The DESKS are here."})

    assert (titles(max, "/posts", q="desks"), titles(max, "/posts", q="lamps")) == (["News"], [])
    assert titles(max, "/posts", q="news") == ["News"]


# Endless lists


def test_posts_come_newest_first_and_comments_oldest_first(max: Person, news: Row) -> None:
    write(max, "Newer")
    said = [comment(max, news, content)["content"] for content in ("one", "two", "three")]

    assert titles(max, "/posts") == ["Newer", "News"]
    assert [row["content"] for row in max.get(f"{path_of(news)}/comments").json()["items"]] == said


def test_the_posts_of_somebody_are_a_list_of_their_own(ada: Person, max: Person, eva: Person, news: Row) -> None:
    write(eva, "Of Eva")
    write(max, "Newer")

    assert titles(eva, f"/users/{max.id}/posts") == ["Newer", "News"]
    assert titles(eva, f"/users/{ada.id}/posts") == []
    assert eva.get("/users/99/posts").json()["error_code"] == "USER_NOT_FOUND"


def _walk(
    person: Person, path: str, limit: int, meanwhile: Callable[[], None] | None = None, **filters: str
) -> list[list[int]]:
    """The ids of every stretch of an endless list; `meanwhile` happens after the first one."""
    stretches: list[list[int]] = []
    query: dict[str, Any] = {"limit": limit, **filters}
    for _ in range(10):  # more than any list here has: one that does not end must not keep the tests
        answer = person.get(path, params=query).json()
        assert set(answer) == {"items", "next_cursor"}
        stretches.append([row["id"] for row in answer["items"]])
        if meanwhile is not None and len(stretches) == 1:
            meanwhile()
        if answer["next_cursor"] is None:
            break
        query["cursor"] = answer["next_cursor"]
    return stretches


def test_a_list_is_walked_to_its_end(max: Person) -> None:
    for number in range(5):
        write(max, f"{number}")

    for path in ("/posts", f"/users/{max.id}/posts"):
        assert _walk(max, path, 1) == [[5], [4], [3], [2], [1]]
        assert _walk(max, path, 2) == [[5, 4], [3, 2], [1]]
        assert _walk(max, path, 5) == _walk(max, path, 100) == [[5, 4, 3, 2, 1]]


def test_an_empty_list_has_no_next_cursor(max: Person, news: Row) -> None:
    for path in (f"{path_of(news)}/comments", "/posts?q=nothing"):
        assert max.get(path).json() == {"items": [], "next_cursor": None}


def test_20_rows_are_the_usual_stretch(max: Person) -> None:
    for number in range(21):
        write(max, f"{number}")
    answer = max.get("/posts").json()

    assert (len(answer["items"]), answer["items"][0]["title"]) == (20, "20")
    assert answer["next_cursor"] is not None


def test_posts_that_come_and_go_meanwhile_move_nothing(max: Person) -> None:
    ids = [write(max, f"{number}")["id"] for number in range(6)]

    def meanwhile() -> None:
        write(max, "New")
        for gone in (5, 3):  # the last one that was seen, and one that was not
            max.delete(f"/posts/{gone}")

    assert _walk(max, "/posts", 2, meanwhile) == [ids[:3:-1], [4, 2], [1]]


def test_comments_that_come_and_go_meanwhile_move_nothing(max: Person, news: Row) -> None:
    for _ in range(4):
        comment(max, news)

    def meanwhile() -> None:
        comment(max, news)
        for gone in (2, 3):
            max.delete(f"{path_of(news)}/comments/{gone}")

    assert _walk(max, f"{path_of(news)}/comments", 2, meanwhile) == [[1, 2], [4, 5]]


def test_a_cursor_goes_on_in_the_same_search(max: Person) -> None:
    for number in range(6):
        write(max, "odd" if number % 2 else "even")

    assert _walk(max, "/posts", 2, q="odd") == [[6, 4], [2]]


WRONG_CURSORS = [
    *(f"limit={wrong}" for wrong in ("0", "-1", "101", "x", "1.0", "", f"{2**63}")),
    *(f"cursor={wrong}" for wrong in ("", "x", "%00", "%C3%A9", "!!!!", "UG9zdDow", "UG9zdDotMQ", "a" * 101)),
    "cursor=UG9zdDo5OTk5OTk5OTk5OTk5OTk5OTk5OTk",  # an id beyond 2^63
    "cursor=VXNlcjox",  # of users, which are no endless list
    "page=1",
    "sort=id",
]


@pytest.mark.usefixtures("news")
def test_a_wrong_cursor_or_limit_is_refused(ada: Person, subtests: pytest.Subtests) -> None:
    for query in WRONG_CURSORS:
        with subtests.test(query[:50]):
            for path in ("/posts", "/posts/1/comments", "/users/1/posts", "/notifications", "/audit"):
                assert refusal(ada.get(f"{path}?{query}")) == (422, "VALIDATION_ERROR"), path


def test_a_cursor_of_another_list_or_a_changed_one_is_refused(max: Person, news: Row) -> None:
    for _ in range(2):
        comment(max, news)
    write(max, "Newer")
    of_posts, of_comments = (
        max.get(f"{path}?limit=1").json()["next_cursor"] for path in ("/posts", "/posts/1/comments")
    )
    answers = [
        max.get("/posts", params={"cursor": of_comments}),
        max.get("/posts/1/comments", params={"cursor": of_posts}),
        *(
            max.get("/posts", params={"cursor": changed})
            for changed in (of_posts + "=", of_posts[:-1], f" {of_posts}x")
        ),
    ]

    assert [answer.status_code for answer in answers] == [422] * 5
    assert answers[0].json()["errors"][0]["loc"] == ["query", "cursor"]


@on_both_databases
@pytest.mark.usefixtures("library")
def test_posts_and_comments_are_the_same_on_both_databases(
    app: App, ada: Person, max: Person, eva: Person, news: Row
) -> None:
    said = [comment(person, news) for person in (max, eva, ada)]
    changed = max.patch(path_of(news), {"title": "Old news"}, headers={"If-Match": '"1"'}).json()
    refused = eva.delete(path_of(said[0]))
    found = {q: titles(eva, "/posts", q=q, limit=1) for q in ("ÉTAGÈRE", "strasse", "%", "_", "\\", "OLD NEWS")}

    assert (changed["version"], changed["comment_count"], refused.json()["error_code"]) == (2, 3, "NOT_OWNER")
    assert found == {
        "ÉTAGÈRE": ["Étagère"],
        "strasse": ["Straße"],
        "%": ["50% off"],
        "_": ["snake_case"],
        "\\": ["back\\slash"],
        "OLD NEWS": ["Old news"],
    }
    assert _walk(eva, "/posts", 3) == [[8, 7, 6], [5, 4, 3], [2, 1]]
    assert _walk(eva, f"{path_of(news)}/comments", 2) == [[1, 2], [3]]
    assert ada.delete(f"/users/{max.id}").status_code == 204
    with app.state.database.read() as session:
        assert session.exec(select(func.count(col(Comment.id)))).one() == 0


# What the sweeps cannot know


def _post_with_comments(world: World) -> int:
    post_id = world.make("post_id")["id"]
    for name in (world.creator, "member"):
        world.people[name].post(f"/posts/{post_id}/comments", {"content": "Good"}).raise_for_status()
    return post_id


SWEEP = Exceptions(
    statuses={
        "PATCH /posts/{post_id}": {"member": 403, "admin": 403},
        "DELETE /posts/{post_id}": {"member": 403},
        "PATCH /posts/{post_id}/comments/{comment_id}": {"member": 403, "admin": 403},
        "DELETE /posts/{post_id}/comments/{comment_id}": {"member": 403},
    },
    rows={"post_id": _post_with_comments},
    costs={
        "POST /posts": (1, 5),
        "PATCH /posts/{post_id}": (1, 5),
        "DELETE /posts/{post_id}": (1, 6),
        "POST /posts/{post_id}/comments": (1, 5),
    },
)
