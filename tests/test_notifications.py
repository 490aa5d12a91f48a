"""Notifications: who is told of what, and reading it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from kit.app import App
from kit.cleaning import clean
from kit.db import ending
from kit.models import now
from models import Notification
from tests.databases import counted_statements, on_both_databases
from tests.people import (
    API,
    LAMP,
    PASSWORD,
    Person,
    Row,
    at_once,
    fields_refused,
    order_for,
    place,
    refusal,
    without_request_id,
)
from tests.routes import Exceptions
from tests.world import World


@pytest.fixture
def zoe(ada: Person, sign_in: Callable[..., Person]) -> Person:
    """Another admin."""
    ada.post("/users", {"email": "zoe@example.com", "full_name": "Zoe", "password": PASSWORD, "role": "admin"})
    return sign_in("zoe@example.com")


@pytest.fixture
def retired(ada: Person, sign_in: Callable[..., Person]) -> int:
    """The id of an admin whose account is inactive."""
    account = {"email": "tom@example.com", "full_name": "Tom", "password": PASSWORD, "role": "admin"}
    user_id = ada.post("/users", account).json()["id"]
    ada.patch(f"/users/{user_id}", {"is_active": False})
    return user_id


@pytest.fixture
def news(max: Person) -> Row:
    """A post of Max's."""
    return max.post("/posts", {"title": "News", "content": "The lamps are here."}).json()


def inbox(person: Person, query: str = "") -> list[Row]:
    return person.get(f"/notifications?limit=100{query}").json()["items"]


def kinds(person: Person) -> list[str]:
    """What somebody was told, the oldest first."""
    return [notification["kind"] for notification in reversed(inbox(person))]


def told(app: App) -> list[tuple[int, str]]:
    """Who was told what, everybody together."""
    with app.state.database.read() as session:
        return sorted((row.user_id, row.kind) for row in session.exec(select(Notification)))


# Who is told


def test_an_order_is_told_to_every_active_admin(
    app: App, ada: Person, zoe: Person, retired: int, max: Person, eva: Person, lamp: Row
) -> None:
    place(max, (lamp, 1))

    assert told(app) == [(ada.id, "order_placed"), (zoe.id, "order_placed")]


def test_an_admin_who_orders_is_not_told(app: App, ada: Person, zoe: Person, lamp: Row) -> None:
    place(ada, (lamp, 9))

    assert told(app) == [(zoe.id, "low_stock"), (zoe.id, "order_placed")]


def test_a_notification_says_what_happened_and_where(ada: Person, max: Person, lamp: Row) -> None:
    order = place(max, (lamp, 1))
    notification = inbox(ada)[0]

    assert notification.pop("created_at").endswith("Z")
    assert notification == {
        "id": 1,
        "kind": "order_placed",
        "message": f"Max placed order {order['id']}.",
        "link": f"{API}/orders/{order['id']}",
        "read_at": None,
    }
    assert ada.client.get(notification["link"], headers={"Authorization": f"Bearer {ada.access_token}"}).json() == order


@pytest.mark.parametrize("status", ["fulfilled", "cancelled"])
def test_the_owner_is_told_what_an_admin_did_with_the_order(
    status: str, app: App, ada: Person, zoe: Person, max: Person, lamp: Row
) -> None:
    place(max, (lamp, 1))
    ada.patch("/orders/1", {"status": status})

    assert kinds(max) == [f"order_{status}"]
    assert told(app) == sorted([(ada.id, "order_placed"), (zoe.id, "order_placed"), (max.id, f"order_{status}")])


def test_nobody_is_told_what_they_did_themselves(app: App, ada: Person, lamp: Row) -> None:
    for status in ("fulfilled", "cancelled"):
        order = place(ada, (lamp, 4))
        ada.patch(f"/orders/{order['id']}", {"status": status})

    assert told(app) == []


def test_a_member_who_cancels_is_not_told(max: Person, lamp: Row) -> None:
    place(max, (lamp, 1))
    max.patch("/orders/1", {"status": "cancelled"})

    assert kinds(max) == []


def test_a_comment_is_told_to_the_creator_of_the_post_alone(
    app: App, ada: Person, max: Person, eva: Person, news: Row
) -> None:
    eva.post("/posts/1/comments", {"content": "Good"})
    max.post("/posts/1/comments", {"content": "Thanks"})
    ada.post("/posts/1/comments", {"content": "Hm"})

    assert told(app) == [(max.id, "comment"), (max.id, "comment")]
    assert inbox(max)[1]["link"] == f"{API}/posts/1/comments/1"


def test_a_changed_comment_is_not_told_again(max: Person, eva: Person, news: Row) -> None:
    eva.post("/posts/1/comments", {"content": "Good"})
    eva.patch("/posts/1/comments/1", {"content": "Better"})
    eva.delete("/posts/1/comments/1")

    assert kinds(max) == ["comment"]


# The lamp has 10 left and a level of 2: quantities that are ordered, and how many warnings follow.
CROSSINGS: list[tuple[list[int], int]] = [([7], 0), ([8], 1), ([10], 1), ([8, 1, 1], 1), ([1, 1, 6], 1), ([1, 9], 1)]


def lamps(ada: Person, number: int) -> Row:
    """Ten lamps of another kind, with a level of 2."""
    return ada.post("/items", LAMP | {"name": f"Lamp {number}"}).json()


def warnings(person: Person, item: Row) -> int:
    """How often somebody was warned of an item."""
    found = [row for row in inbox(person) if (row["kind"], row["link"]) == ("low_stock", f"{API}/items/{item['id']}")]
    return len(found)


def test_an_order_warns_when_it_crosses_the_level(ada: Person, max: Person, subtests: pytest.Subtests) -> None:
    for number, (quantities, expected) in enumerate(CROSSINGS):
        with subtests.test(str(quantities)):
            lamp = lamps(ada, number)
            for quantity in quantities:
                place(max, (lamp, quantity))

            assert warnings(ada, lamp) == expected


def test_each_item_of_an_order_warns_for_itself(ada: Person, max: Person, lamp: Row) -> None:
    desk, pen = (
        ada.post("/items", {"name": name, "price_cents": 1, "quantity": 3, "reorder_level": 3 - left}).json()
        for name, left in (("Desk", 1), ("Pen", 3))
    )
    place(max, (lamp, 8), (desk, 1), (pen, 1))
    warnings = [row for row in inbox(ada) if row["kind"] == "low_stock"]

    assert sorted(row["link"] for row in warnings) == [f"{API}/items/1", f"{API}/items/2"]
    assert "Lamp is low: 2 left, the level is 2." in [row["message"] for row in warnings]


PATCHES: list[tuple[list[Row], int]] = [
    ([{"quantity": 3}], 0),
    ([{"quantity": 2}], 1),
    ([{"quantity": 0}], 1),
    ([{"quantity": 2}, {"quantity": 1}], 1),
    ([{"quantity": 2}, {"quantity": 3}, {"quantity": 2}], 2),
    ([{"quantity": 5, "reorder_level": 5}], 1),
    ([{"reorder_level": 20}], 0),  # the quantity crossed nothing
    ([{"name": "Lantern", "price_cents": 1}], 0),
    ([{"quantity": 1}, {"name": "Oil lamp"}], 1),
]


def test_a_patch_warns_when_it_crosses_the_level(
    ada: Person, zoe: Person, max: Person, subtests: pytest.Subtests
) -> None:
    for number, (patches, expected) in enumerate(PATCHES):
        with subtests.test(str(patches)):
            lamp = lamps(ada, number)
            for patch in patches:
                assert ada.patch(f"/items/{lamp['id']}", patch).status_code == 200

            assert warnings(zoe, lamp) == expected

    assert kinds(ada) == kinds(max) == []


def test_an_import_warns_when_it_crosses_the_level(ada: Person, zoe: Person, max: Person, lamp: Row) -> None:
    for quantity in (5, 2, 1):
        file = f"name,price_cents,quantity\r\nLamp,1200,{quantity}\r\nDesk,1,0\r\n".encode()
        assert ada.post("/items/import", files={"file": file}).status_code == 200

    assert kinds(zoe) == ["low_stock"]
    assert kinds(ada) == kinds(max) == []


def test_an_import_that_does_not_write_tells_nobody(app: App, ada: Person, zoe: Person, lamp: Row) -> None:
    for path, second in (("/items/import?dry_run=true", "Desk,1,0"), ("/items/import", "Desk,0,0")):
        file = f"name,price_cents,quantity\r\nLamp,1200,1\r\n{second}\r\n".encode()
        assert ada.post(path, files={"file": file}).status_code == 200

    assert told(app) == []


def test_a_cancelled_order_warns_of_nothing(ada: Person, zoe: Person, max: Person, lamp: Row) -> None:
    place(max, (lamp, 9))
    ada.patch("/orders/1", {"status": "cancelled"})

    assert kinds(zoe) == ["order_placed", "low_stock"]


def test_what_fails_tells_nobody(app: App, ada: Person, max: Person, eva: Person, lamp: Row) -> None:
    max.post("/orders", order_for((lamp, 9), ({"id": 99}, 1)))
    max.post("/orders", order_for((lamp, 11)))
    ada.patch("/items/1", {"quantity": 0}, headers={"If-Match": '"7"'})
    eva.post("/posts/1/comments", {"content": "Where is it?"})

    assert told(app) == []


def test_an_order_costs_the_same_however_many_admins_are_told(app: App, ada: Person, max: Person, lamp: Row) -> None:
    with counted_statements(app) as alone:
        place(max, (lamp, 1))
    for number in range(30):
        account = {"email": f"a{number}@example.com", "full_name": "A", "password": PASSWORD, "role": "admin"}
        assert ada.post("/users", account).status_code == 201
    with counted_statements(app) as together:
        place(max, (lamp, 1))

    assert len(told(app)) == 1 + 31
    assert len(together) == len(alone)


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


def test_all_are_marked_as_read_at_once(ada: Person, max: Person, three: list[int], lamp: Row) -> None:
    place(max, (lamp, 1))
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
def test_notifications_are_the_same_on_both_databases(
    ada: Person, zoe: Person, max: Person, eva: Person, lamp: Row, news: Row
) -> None:
    at_once(2, lambda _: max.post("/orders", order_for((lamp, 4))))
    eva.post("/posts/1/comments", {"content": "Good"})
    ada.patch("/orders/1", {"status": "fulfilled"})

    assert kinds(ada) == kinds(zoe) == ["order_placed", "order_placed", "low_stock"]
    assert (kinds(max), kinds(eva)) == (["comment", "order_fulfilled"], [])
    assert zoe.patch("/notifications", {"read": True}).json() == {"updated": 3}
    assert inbox(zoe, "&unread=true") == []


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
