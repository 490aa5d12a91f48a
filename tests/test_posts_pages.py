"""The pages of posts and their comments."""

from collections.abc import Callable

import pytest

from tests.people import Person, Row
from tests.visitors import Visitor

Visit = Callable[[Person], Visitor]


@pytest.fixture
def post(max: Person) -> Row:
    """A post of Max."""
    return max.post("/posts", {"title": "Printing", "content": "It is out of paper.\nAgain."}).json()


def comments_on(post: Row, person: Person, amount: int) -> list[Row]:
    """So many comments, the oldest first."""
    texts = [f"Comment number {number}." for number in range(1, amount + 1)]
    return [person.post(f"/posts/{post['id']}/comments", {"content": text}).json() for text in texts]


# The list


def test_an_empty_list_says_what_posts_are_for(visit: Visit, max: Person) -> None:
    view = visit(max).get("/posts")

    assert "a note that everybody here can read" in view.text
    assert "/posts/new" in view.links


def test_the_list_says_who_wrote_what_and_how_much_was_said(visit: Visit, max: Person, eva: Person, post: Row) -> None:
    comments_on(post, eva, 2)

    view = visit(eva).get("/posts")

    assert "Printing It is out of paper. Again. Max" in view.text
    assert "2 comments" in view.text
    assert "<time datetime=" in view.html


def test_the_newest_posts_come_first_and_older_ones_follow(visit: Visit, max: Person) -> None:
    for number in range(21):
        max.post("/posts", {"title": f"Note {number:02}", "content": "Read this."})
    visitor = visit(max)

    view = visitor.get("/posts")
    older = visitor.get(next(link for link in view.links if "cursor=" in link))

    assert view.text.index("Note 20") < view.text.index("Note 01")
    assert "Note 00" not in view.text
    assert "Note 00" in older.text


def test_posts_are_found_by_a_part_of_their_text(visit: Visit, max: Person, post: Row) -> None:
    visitor = visit(max)

    assert "Printing" in visitor.get("/posts?q=PAPER").text
    assert "Nothing was found" in visitor.get("/posts?q=ink").text


def test_only_the_first_lines_of_a_long_post_are_in_the_list(visit: Visit, max: Person) -> None:
    max.post("/posts", {"title": "Long", "content": "word " * 4000})

    assert len(visit(max).get("/posts").html) < 10_000


# Writing


def test_somebody_writes_a_post_and_sees_it_with_its_lines(visit: Visit, max: Person) -> None:
    visitor = visit(max)
    visitor.get("/posts/new")
    view = visitor.send(title="Hello", content="One\r\ntwo <b>three</b>")

    assert view.path == "/posts/1"
    assert "Your post is there for everybody to read." in view.text
    assert "One<br>two &lt;b&gt;three&lt;/b&gt;" in view.html


def test_a_post_that_lacks_something_keeps_what_was_typed(visit: Visit, max: Person) -> None:
    visitor = visit(max)
    visitor.get("/posts/new")
    view = visitor.send(title=" ", content="Read this.")

    assert view.status == 422
    assert "Fill this in" in view.text
    assert view.form()["content"] == "Read this."


@pytest.mark.parametrize("fields", [{"title": "a\0b", "content": "x"}, {}, {"title": "x" * 256, "content": "x"}])
def test_what_cannot_be_posted_is_shown_again(visit: Visit, max: Person, fields: dict[str, str]) -> None:
    assert visit(max).post("/posts/new", fields).status == 422
    assert max.get("/posts").json()["items"] == []


# Changing


def test_its_creator_changes_a_post(visit: Visit, max: Person, post: Row) -> None:
    visitor = visit(max)
    visitor.get("/posts/1/edit")
    view = visitor.send(content="There is paper again.")

    assert (view.path, view.status) == ("/posts/1", 200)
    assert "Your post was saved." in view.text
    assert "edited" in view.text


def test_nobody_else_changes_a_post(visit: Visit, ada: Person, post: Row) -> None:
    visitor = visit(ada)

    assert "/posts/1/edit" not in visitor.get("/posts/1").links
    assert visitor.get("/posts/1/edit").status == 403
    assert visitor.post("/posts/1/edit", {"title": "Mine"}).status == 403


def test_two_windows_that_change_different_fields_both_succeed(visit: Visit, max: Person, post: Row) -> None:
    first, second = visit(max), visit(max)
    first.get("/posts/1/edit")
    second.get("/posts/1/edit")
    first.send(title="Paper")

    assert second.send(content="Somebody took it.").status == 200
    assert max.get("/posts/1").json()["title"] == "Paper"


def test_two_windows_that_change_one_field_see_both_values(visit: Visit, max: Person, post: Row) -> None:
    first, second = visit(max), visit(max)
    first.get("/posts/1/edit")
    second.get("/posts/1/edit")
    first.send(title="Paper")
    view = second.send(title="Ink")

    assert view.status == 412
    assert view.form()["title"] == "Ink"
    assert "Changed to Paper meanwhile; it was Printing." in view.text
    assert second.send(title="Ink").status == 200


def test_its_creator_and_admins_delete_a_post(visit: Visit, ada: Person, max: Person, eva: Person, post: Row) -> None:
    assert "Delete this post?" in visit(max).get("/posts/1").text
    assert "Delete this post?" not in visit(eva).get("/posts/1").text
    assert visit(eva).post("/posts/1/delete").status == 403

    visitor = visit(ada)
    visitor.get("/posts/1")
    view = visitor.send("/posts/1/delete")

    assert view.path == "/posts"
    assert "The post was deleted." in view.text
    assert max.get("/posts/1").status_code == 404


def test_only_admins_see_who_changed_a_post(visit: Visit, ada: Person, max: Person, post: Row) -> None:
    max.patch("/posts/1", {"title": "Paper"})

    view = visit(ada).get("/posts/1")

    assert "History" not in visit(max).get("/posts/1").text
    assert "Max changed the title" in view.text
    assert "Title was Printing is now Paper" in view.text


# Comments


def test_who_comments_lands_on_their_comment(visit: Visit, eva: Person, post: Row) -> None:
    visitor = visit(eva)
    visitor.get("/posts/1")
    answer = visitor.request("POST", "/posts/1/comments", data={"content": "Bring some."})

    assert answer.headers["location"] == "/posts/1#comment-1"
    assert "1 comment Eva" in visitor.get("/posts/1").text


def test_comments_come_with_the_oldest_first_and_later_ones_follow(visit: Visit, eva: Person, post: Row) -> None:
    comments_on(post, eva, 45)
    visitor = visit(eva)

    view = visitor.get("/posts/1")
    later = visitor.get(next(link for link in view.links if "cursor=" in link))

    assert view.text.index("number 1.") < view.text.index("number 20.")
    assert "number 21." in later.text
    assert "Earlier comments" in later.text
    assert "number 21." not in visitor.get(next(link for link in later.links if link == "/posts/1#comments")).text


@pytest.mark.parametrize("number", [1, 20, 21, 33, 45])
def test_the_address_of_a_comment_leads_to_where_it_stands(visit: Visit, eva: Person, post: Row, number: int) -> None:
    comment = comments_on(post, eva, 45)[number - 1]
    visitor = visit(eva)

    place = visitor.request("GET", f"/posts/1/comments/{comment['id']}").headers["location"]

    assert place.partition("#")[2] == f"comment-{comment['id']}"
    assert f'id="comment-{comment["id"]}"' in visitor.get(place).html


def test_one_reads_back_from_the_last_comment_to_the_first(visit: Visit, eva: Person, post: Row) -> None:
    comments_on(post, eva, 45)
    visitor = visit(eva)

    view = visitor.get("/posts/1/comments/45")
    middle = visitor.get(next(link for link in view.links if "#comments" in link))
    first = visitor.get(next(link for link in middle.links if "#comments" in link))

    assert "number 26." in view.text
    assert "number 25." in middle.text
    assert "number 6." in middle.text
    assert "number 1." in first.text


def test_a_comment_that_says_nothing_is_asked_for_again_on_the_post(visit: Visit, eva: Person, post: Row) -> None:
    visitor = visit(eva)
    visitor.get("/posts/1")
    view = visitor.send("/posts/1/comments", content="  ")

    assert view.status == 422
    assert "Fill this in" in view.text
    assert "It is out of paper." in view.text


def test_a_comment_that_is_too_long_keeps_its_text(visit: Visit, eva: Person, post: Row) -> None:
    view = visit(eva).post("/posts/1/comments", {"content": "x" * 5001})

    assert view.status == 422
    assert "Use at most 5000 characters" in view.text
    assert view.form("/posts/1/comments")["content"] == "x" * 5001


def test_ones_own_comment_is_changed(visit: Visit, eva: Person, post: Row) -> None:
    comments_on(post, eva, 1)
    visitor = visit(eva)
    visitor.get("/posts/1/comments/1/edit")
    view = visitor.send(content="I brought some.")

    assert view.path == "/posts/1"
    assert "I brought some." in view.text
    assert "Your comment was saved." in view.text


def test_two_windows_that_change_one_comment_see_both_texts(visit: Visit, eva: Person, post: Row) -> None:
    comments_on(post, eva, 1)
    first, second = visit(eva), visit(eva)
    first.get("/posts/1/comments/1/edit")
    second.get("/posts/1/comments/1/edit")
    first.send(content="Mine.")
    view = second.send(content="Mine, too.")

    assert view.status == 412
    assert "Changed to Mine. meanwhile" in view.text


def test_nobody_else_changes_a_comment(visit: Visit, ada: Person, eva: Person, post: Row) -> None:
    comments_on(post, eva, 1)
    visitor = visit(ada)

    assert visitor.get("/posts/1/comments/1/edit").status == 403
    assert visitor.post("/posts/1/comments/1/edit", {"content": "Mine"}).status == 403


def test_its_creator_and_admins_delete_a_comment(
    visit: Visit, ada: Person, max: Person, eva: Person, post: Row
) -> None:
    comments_on(post, eva, 2)
    visitor = visit(ada)
    visitor.get("/posts/1")

    assert "Delete this comment?" not in visit(max).get("/posts/1").text
    assert visit(max).post("/posts/1/comments/1/delete").status == 403
    assert "The comment was deleted." in visitor.send("/posts/1/comments/1/delete").text
    assert eva.get("/posts/1/comments/1").status_code == 404


def test_a_list_of_comments_that_ended_leads_back(visit: Visit, eva: Person, post: Row) -> None:
    comments_on(post, eva, 21)
    cursor = eva.get("/posts/1/comments").json()["next_cursor"]
    eva.delete("/posts/1/comments/21")

    view = visit(eva).get(f"/posts/1?cursor={cursor}")

    assert view.status == 200
    assert "Back to the first comments" in view.text


# Who may, and what is not there


PATHS = ["/posts", "/posts/new", "/posts/1", "/posts/1/edit", "/posts/1/comments/1", "/posts/1/comments/1/edit"]


@pytest.mark.parametrize("path", PATHS)
def test_whoever_is_not_signed_in_signs_in_first(client: object, visit: Visit, max: Person, path: str) -> None:
    visitor = visit(max)
    visitor.cookies.clear()

    assert visitor.request("GET", path).headers["location"].startswith("/sign-in?next=%2Fposts")


@pytest.mark.parametrize("path", ["/posts/9", "/posts/x", "/posts/0", f"/posts/{2**63}", "/posts/1/comments/9"])
@pytest.mark.parametrize("end", ["", "/edit"])
def test_what_is_not_there_is_a_page_that_says_so(visit: Visit, max: Person, post: Row, path: str, end: str) -> None:
    view = visit(max).get(path + end)

    assert view.status == 404
    assert "Not found" in view.text


@pytest.mark.parametrize(
    "path", ["/posts/9/delete", "/posts/9/comments", "/posts/1/comments/9/delete", "/posts/x/edit"]
)
def test_what_is_not_there_is_not_changed(visit: Visit, max: Person, post: Row, path: str) -> None:
    assert visit(max).post(path, {"content": "x"}).status == 404


def test_a_comment_stands_under_its_own_post_only(visit: Visit, max: Person, post: Row) -> None:
    comments_on(post, max, 1)
    max.post("/posts", {"title": "Other", "content": "x"})

    assert visit(max).get("/posts/2/comments/1").status == 404
    assert visit(max).post("/posts/2/comments/1/delete").status == 404
