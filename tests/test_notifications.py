"""Notifications: who is told of what, and reading it."""

from datetime import timedelta
from typing import Any

import pytest

from kit.app import App
from kit.cleaning import clean
from kit.db import ending
from kit.models import now
from models import Notification
from tests.databases import on_both_databases
from tests.inboxes import inbox, kinds, told
from tests.people import API, Person, Row, fields_refused, refusal, without_request_id
from tests.routes import Exceptions
from tests.world import World


@pytest.fixture
def news(max: Person) -> Row:
    """A post of Max's."""
    return max.post("/posts", {"title": "News", "content": "The lamps are here."}).json()


# Who is told


def test_a_comment_is_told_to_the_creator_of_the_post_alone(
    app: App, ada: Person, max: Person, eva: Person, news: Row
) -> None:
    eva.post("/posts/1/comments", {"content": "Good"})
    max.post("/posts/1/comments", {"content": "Thanks"})
    ada.post("/posts/1/comments", {"content": "Hm"})

    assert told(app) == [(max.id, "comment"), (max.id, "comment")]
    assert inbox(max)[1]["link"] == f"{API}/posts/1/comments/1"


def test_a_notification_says_what_happened_and_where(max: Person, eva: Person, news: Row) -> None:
    comment = eva.post("/posts/1/comments", {"content": "Good"}).json()
    notification = inbox(max)[0]

    assert notification.pop("created_at").endswith("Z")
    assert notification == {
        "id": 1,
        "kind": "comment",
        "message": "Eva on 'News'.",
        "link": f"{API}/posts/1/comments/1",
        "read_at": None,
    }
    found = max.client.get(notification["link"], headers={"Authorization": f"Bearer {max.access_token}"})
    assert found.json() == comment


def test_what_fails_tells_nobody(app: App, max: Person, eva: Person, news: Row) -> None:
    eva.post("/posts/1/comments", {"content": ""})
    eva.post("/posts/9/comments", {"content": "Where is it?"})

    assert told(app) == []


def test_a_changed_comment_is_not_told_again(max: Person, eva: Person, news: Row) -> None:
    eva.post("/posts/1/comments", {"content": "Good"})
    eva.patch("/posts/1/comments/1", {"content": "Better"})
    eva.delete("/posts/1/comments/1")

    assert kinds(max) == ["comment"]


# Reading them


@pytest.fixture
def three(max: Person, eva: Person, news: Row) -> list[int]:
    """The ids of three notifications of Max's, the oldest first."""
    for content in ("one", "two", "three"):
        eva.post("/posts/1/comments", {"content": content})
    return [row["id"] for row in reversed(inbox(max))]


def test_notifications_come_newest_first_and_have_no_end(max: Person, three: list[int]) -> None:
    first = max.get("/notifications?limit=2").json()
    rest = max.get("/notifications", params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [row["id"] for row in first["items"] + rest["items"]] == three[::-1]
    assert rest["next_cursor"] is None


def test_one_is_marked_as_read_and_as_unread_again(max: Person, three: list[int]) -> None:
    path = f"/notifications/{three[0]}"
    read = max.patch(path, {"read": True})
    twice = max.patch(path, {"read": True}).json()
    unread = max.patch(path, {"read": False}).json()

    assert read.status_code == 200
    assert read.json()["read_at"].endswith("Z")
    assert twice == read.json()
    assert unread == read.json() | {"read_at": None}
    assert [row["read_at"] for row in inbox(max)] == [None] * 3


def test_unread_leaves_out_what_was_read(max: Person, three: list[int]) -> None:
    max.patch(f"/notifications/{three[1]}", {"read": True})
    found = [[row["id"] for row in inbox(max, query)] for query in ("", "&unread=false", "&unread=true")]

    assert found == [three[::-1], three[::-1], [three[2], three[0]]]


def test_all_are_marked_as_read_at_once(ada: Person, max: Person, three: list[int]) -> None:
    post = ada.post("/posts", {"title": "Hello", "content": "I am back."}).json()
    max.post(f"/posts/{post['id']}/comments", {"content": "Good"})
    early = max.patch(f"/notifications/{three[0]}", {"read": True}).json()
    answers = [max.patch("/notifications", {"read": True}) for _ in range(2)]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"updated": 2}), (200, {"updated": 0})]
    assert inbox(max, "&unread=true") == []
    assert inbox(max)[2] == early
    assert len(inbox(ada, "&unread=true")) == 1


def test_what_does_not_say_read_is_refused(max: Person, three: list[int], subtests: pytest.Subtests) -> None:
    wrong: list[Any] = [{}, {"read": None}, {"read": 1}, {"read": "true"}, {"read": True, "x": 1}, [], None]
    for body in wrong:
        with subtests.test(str(body)):
            answers = [max.patch(path, body) for path in ("/notifications", f"/notifications/{three[0]}")]
            assert [answer.status_code for answer in answers] == [422, 422]

    assert max.patch("/notifications", {"read": False}).status_code == 422  # of all at once this makes no sense
    assert len(inbox(max, "&unread=true")) == 3


def test_a_wrong_query_of_notifications_is_refused(max: Person) -> None:
    for query in ("unread=maybe", "unread=", "kind=comment", "user_id=2"):
        assert fields_refused(max.get(f"/notifications?{query}")) == [["query", query.partition("=")[0]]]


def test_those_of_another_do_not_exist(ada: Person, max: Person, eva: Person, three: list[int]) -> None:
    answers = [person.patch(f"/notifications/{three[0]}", {"read": True}) for person in (eva, ada)]
    gone = eva.patch("/notifications/99", {"read": True})

    assert [refusal(answer) for answer in answers] == [(404, "NOTIFICATION_NOT_FOUND")] * 2
    assert str(without_request_id(answers[0])).replace(f" {three[0]} ", " 99 ") == str(without_request_id(gone))
    assert answers[0].headers.keys() == gone.headers.keys()
    assert (inbox(eva), len(inbox(max, "&unread=true"))) == ([], 3)


def test_one_is_deleted_by_its_reader_alone(ada: Person, max: Person, eva: Person, three: list[int]) -> None:
    path = f"/notifications/{three[0]}"
    refused = [refusal(person.delete(path)) for person in (eva, ada)]
    gone = max.delete(path)

    assert refused == [(404, "NOTIFICATION_NOT_FOUND")] * 2
    assert (gone.status_code, gone.content) == (204, b"")
    assert refusal(max.delete(path)) == (404, "NOTIFICATION_NOT_FOUND")
    assert sorted(notification["id"] for notification in inbox(max)) == sorted(three[1:])


def test_what_was_read_a_year_ago_is_cleaned(app: App, max: Person, three: list[int]) -> None:
    with ending(app.state.database.write()) as session:
        long_ago, lately, unread = (session.get_one(Notification, row_id) for row_id in three)
        long_ago.read_at = now() - timedelta(days=366)
        lately.read_at = now() - timedelta(days=364)
        unread.created_at = now() - timedelta(days=1_000)
    clean(app.state.database)

    assert sorted(notification["id"] for notification in inbox(max)) == sorted(three[1:])


def test_notifications_go_with_their_reader(app: App, ada: Person, max: Person, three: list[int]) -> None:
    ada.delete(f"/users/{max.id}")

    assert told(app) == []


@on_both_databases
def test_notifications_are_the_same_on_both_databases(app: App, max: Person, eva: Person, news: Row) -> None:
    for content in ("Good", "Better"):
        eva.post("/posts/1/comments", {"content": content})
    max.post("/posts/1/comments", {"content": "Thanks"})

    assert told(app) == [(max.id, "comment"), (max.id, "comment")]
    assert max.patch("/notifications", {"read": True}).json() == {"updated": 2}
    assert inbox(max, "&unread=true") == []


# What the sweeps cannot know


def _comment_by_another(world: World) -> None:
    path = f"/posts/{world.id('post_id')}/comments"
    world.another.post(path, {"content": "Good"}).raise_for_status()


def _notification(world: World) -> int:
    _comment_by_another(world)
    return world.people[world.creator].get("/notifications").json()["items"][0]["id"]


SWEEP = Exceptions(
    statuses={
        f"{method} /notifications/{{notification_id}}": {"member": 404, "admin": 404} for method in ("PATCH", "DELETE")
    },
    rows={"notification_id": _notification},
    lists={"GET /notifications": lambda world, _number: _comment_by_another(world)},
    plans={"/notifications": "id", "/notifications?unread=true": "id"},
)
