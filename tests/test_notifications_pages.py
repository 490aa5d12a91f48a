"""The page of notifications."""

from collections.abc import Callable

import pytest

from tests.people import Person, Row
from tests.visitors import Visitor

Visit = Callable[[Person], Visitor]


@pytest.fixture
def told(max: Person, eva: Person) -> Row:
    """What Max is told: that Eva commented on his post."""
    max.post("/posts", {"title": "Printing", "content": "It is out of paper."})
    eva.post("/posts/1/comments", {"content": "Bring some."})
    return max.get("/notifications").json()["items"][0]


def test_an_empty_list_says_what_will_be_there(visit: Visit, max: Person) -> None:
    view = visit(max).get("/notifications")

    assert "when somebody comments on your posts" in view.text
    assert "Mark all as read" not in view.text


def test_what_is_unread_is_counted_in_the_menu_and_said_in_the_list(visit: Visit, max: Person, told: Row) -> None:
    view = visit(max).get("/notifications")

    assert "Notifications 1 new" in view.text
    assert "Unread: Eva on 'Printing'." in view.text
    assert '<li class="unread">' in view.html


def test_one_click_opens_what_it_tells_of_and_marks_it_read(visit: Visit, max: Person, told: Row) -> None:
    visitor = visit(max)
    visitor.get("/notifications")
    view = visitor.send(f"/notifications/{told['id']}")

    assert (view.path, view.status) == ("/posts/1", 200)
    assert "Bring some." in view.text
    assert max.get("/notifications?unread=true").json()["items"] == []
    assert "Unread: " not in visitor.get("/notifications").text


def test_what_it_tells_of_may_be_gone(visit: Visit, max: Person, told: Row) -> None:
    max.delete("/posts/1")
    visitor = visit(max)
    visitor.get("/notifications")

    assert visitor.send(f"/notifications/{told['id']}").status == 404


def test_all_are_read_at_once(visit: Visit, max: Person, eva: Person, told: Row) -> None:
    eva.post("/posts/1/comments", {"content": "And ink."})
    visitor = visit(max)
    visitor.get("/notifications")
    view = visitor.send("/notifications")

    assert "2 notifications were marked as read." in view.text
    assert max.get("/notifications?unread=true").json()["items"] == []


def test_the_unread_ones_have_a_tab(visit: Visit, max: Person, eva: Person, told: Row) -> None:
    visitor = visit(max)
    eva.post("/posts/1/comments", {"content": "And ink."})
    max.patch(f"/notifications/{told['id']}", {"read": True})

    assert visitor.get("/notifications").html.count('class="opens"') == 2
    assert visitor.get("/notifications?unread=true").html.count('class="opens"') == 1
    max.patch("/notifications", {"read": True})
    assert "You have read everything" in visitor.get("/notifications?unread=true").text


def test_older_ones_follow(visit: Visit, max: Person, eva: Person, told: Row) -> None:
    for _ in range(20):
        eva.post("/posts/1/comments", {"content": "And ink."})
    visitor = visit(max)

    view = visitor.get("/notifications")
    older = visitor.get(next(link for link in view.links if "cursor=" in link))

    assert view.html.count('class="opens"') == 20
    assert f'action="/notifications/{told["id"]}"' in older.html


def test_one_is_deleted(visit: Visit, max: Person, told: Row) -> None:
    visitor = visit(max)
    visitor.get("/notifications")
    view = visitor.send(f"/notifications/{told['id']}/delete")

    assert "The notification was deleted." in view.text
    assert max.get("/notifications").json()["items"] == []


@pytest.mark.parametrize("end", ["", "/delete"])
def test_nobody_opens_what_another_person_is_told(visit: Visit, max: Person, ada: Person, told: Row, end: str) -> None:
    assert visit(ada).post(f"/notifications/{told['id']}{end}").status == 404
    assert max.get("/notifications?unread=true").json()["items"] != []


@pytest.mark.parametrize(
    "path", ["/notifications/9", "/notifications/x", f"/notifications/{2**63}", "/notifications/0"]
)
def test_what_is_not_there_is_a_page_that_says_so(visit: Visit, max: Person, path: str) -> None:
    assert visit(max).post(path).status == 404


def test_whoever_is_not_signed_in_signs_in_first(visit: Visit, max: Person) -> None:
    visitor = visit(max)
    visitor.cookies.clear()

    assert visitor.request("GET", "/notifications").headers["location"] == "/sign-in?next=%2Fnotifications"
    assert visitor.request("POST", "/notifications").headers["location"] == "/sign-in"
