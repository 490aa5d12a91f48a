"""What waits for somebody: who is told of what, reading it, and the numbers of the dashboard."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event
from sqlmodel import col, select, update

from app import Stockroom
from kit.db import ending
from models import Notification, Order, now
from tests.conftest import PASSWORD, Person
from tests.databases import on_both_databases
from tests.people import at_once, order_for, place, without_request_id

Row = dict[str, Any]


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


def told(app: Stockroom) -> list[tuple[int, str]]:
    """Who was told what, everybody together."""
    with app.state.database.read() as session:
        return sorted((row.user_id, row.kind) for row in session.exec(select(Notification)))


# Who is told


def test_an_order_is_told_to_every_active_admin(
    app: Stockroom, ada: Person, zoe: Person, retired: int, max: Person, eva: Person, lamp: Row
) -> None:
    place(max, (lamp, 1))

    assert told(app) == [(ada.id, "order_placed"), (zoe.id, "order_placed")]


def test_an_admin_who_orders_is_not_told(app: Stockroom, ada: Person, zoe: Person, lamp: Row) -> None:
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
        "link": f"/api/v1/orders/{order['id']}",
        "read_at": None,
    }
    assert ada.client.get(notification["link"], headers={"Authorization": f"Bearer {ada.access_token}"}).json() == order


@pytest.mark.parametrize("status", ["fulfilled", "cancelled"])
def test_the_owner_is_told_what_an_admin_did_with_the_order(
    status: str, app: Stockroom, ada: Person, zoe: Person, max: Person, lamp: Row
) -> None:
    place(max, (lamp, 1))
    ada.patch("/orders/1", {"status": status})

    assert kinds(max) == [f"order_{status}"]
    assert told(app) == sorted([(ada.id, "order_placed"), (zoe.id, "order_placed"), (max.id, f"order_{status}")])


@pytest.mark.parametrize("status", ["fulfilled", "cancelled"])
def test_nobody_is_told_what_they_did_themselves(status: str, app: Stockroom, ada: Person, lamp: Row) -> None:
    place(ada, (lamp, 9))
    ada.patch("/orders/1", {"status": status})

    assert told(app) == []


def test_a_member_who_cancels_is_not_told(max: Person, lamp: Row) -> None:
    place(max, (lamp, 1))
    max.patch("/orders/1", {"status": "cancelled"})

    assert kinds(max) == []


def test_a_comment_is_told_to_the_creator_of_the_post_alone(
    app: Stockroom, ada: Person, max: Person, eva: Person, news: Row
) -> None:
    eva.post("/posts/1/comments", {"content": "Good"})
    max.post("/posts/1/comments", {"content": "Thanks"})
    ada.post("/posts/1/comments", {"content": "Hm"})

    assert told(app) == [(max.id, "comment"), (max.id, "comment")]
    assert inbox(max)[1]["link"] == "/api/v1/posts/1/comments/1"


def test_a_changed_comment_is_not_told_again(max: Person, eva: Person, news: Row) -> None:
    eva.post("/posts/1/comments", {"content": "Good"})
    eva.patch("/posts/1/comments/1", {"content": "Better"})
    eva.delete("/posts/1/comments/1")

    assert kinds(max) == ["comment"]


# The lamp has 10 left and a level of 2.
CROSSINGS = [([7], 0), ([8], 1), ([10], 1), ([8, 1, 1], 1), ([1, 1, 6], 1), ([1, 9], 1)]


@pytest.mark.parametrize(("quantities", "warnings"), CROSSINGS)
def test_an_order_warns_when_it_crosses_the_level(
    quantities: list[int], warnings: int, ada: Person, max: Person, lamp: Row
) -> None:
    for quantity in quantities:
        place(max, (lamp, quantity))

    assert kinds(ada).count("low_stock") == warnings


def test_each_item_of_an_order_warns_for_itself(ada: Person, max: Person, lamp: Row) -> None:
    desk, pen = (
        ada.post("/items", {"name": name, "price_cents": 1, "quantity": 3, "reorder_level": 3 - left}).json()
        for name, left in (("Desk", 1), ("Pen", 3))
    )
    place(max, (lamp, 8), (desk, 1), (pen, 1))
    warnings = [row for row in inbox(ada) if row["kind"] == "low_stock"]

    assert sorted(row["link"] for row in warnings) == ["/api/v1/items/1", "/api/v1/items/2"]
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
    ([{"quantity": 1}, {"name": "Lantern"}], 1),
]


@pytest.mark.parametrize(("patches", "warnings"), PATCHES)
def test_a_patch_warns_when_it_crosses_the_level(
    patches: list[Row], warnings: int, ada: Person, zoe: Person, max: Person, lamp: Row
) -> None:
    for patch in patches:
        assert ada.patch("/items/1", patch).status_code == 200

    assert kinds(zoe) == ["low_stock"] * warnings
    assert kinds(ada) == kinds(max) == []


def test_an_import_warns_when_it_crosses_the_level(ada: Person, zoe: Person, max: Person, lamp: Row) -> None:
    for quantity in (5, 2, 1):
        file = f"name,price_cents,quantity\r\nLamp,1200,{quantity}\r\nDesk,1,0\r\n".encode()
        assert ada.post("/items/import", files={"file": file}).status_code == 200

    assert kinds(zoe) == ["low_stock"]
    assert kinds(ada) == kinds(max) == []


def test_a_dry_run_of_an_import_tells_nobody(app: Stockroom, ada: Person, zoe: Person, lamp: Row) -> None:
    ada.post("/items/import?dry_run=true", files={"file": b"name,price_cents,quantity\r\nLamp,1200,1\r\n"})

    assert told(app) == []


def test_a_cancelled_order_warns_of_nothing(ada: Person, zoe: Person, max: Person, lamp: Row) -> None:
    place(max, (lamp, 9))
    ada.patch("/orders/1", {"status": "cancelled"})

    assert kinds(zoe) == ["order_placed", "low_stock"]


def test_what_fails_tells_nobody(app: Stockroom, ada: Person, max: Person, eva: Person, lamp: Row) -> None:
    max.post("/orders", order_for((lamp, 9), ({"id": 99}, 1)))
    max.post("/orders", order_for((lamp, 11)))
    ada.patch("/items/1", {"quantity": 0}, headers={"If-Match": '"7"'})
    eva.post("/posts/1/comments", {"content": "Where is it?"})

    assert told(app) == []


def test_an_order_costs_the_same_however_many_admins_are_told(
    app: Stockroom, ada: Person, max: Person, lamp: Row
) -> None:
    with counted_statements(app) as alone:
        place(max, (lamp, 1))
    for number in range(30):
        account = {"email": f"a{number}@example.com", "full_name": "A", "password": PASSWORD, "role": "admin"}
        assert ada.post("/users", account).status_code == 201
    with counted_statements(app) as together:
        place(max, (lamp, 1))

    assert len(told(app)) == 1 + 31
    assert len(together) == len(alone)


@contextmanager
def counted_statements(app: Stockroom) -> Generator[list[str]]:
    """The statements that reach the database while it lasts."""
    engine, statements = app.state.database.engine, list[str]()

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", count)


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


@pytest.mark.parametrize(("query", "found"), [("", [3, 2, 1]), ("&unread=false", [3, 2, 1]), ("&unread=true", [3, 1])])
def test_unread_leaves_out_what_was_read(query: str, found: list[int], max: Person, three: list[int]) -> None:
    max.patch(f"/notifications/{three[1]}", {"read": True})

    assert [three.index(row["id"]) + 1 for row in inbox(max, query)] == found


def test_all_are_marked_as_read_at_once(ada: Person, max: Person, three: list[int], lamp: Row) -> None:
    place(max, (lamp, 1))
    early = max.patch(f"/notifications/{three[0]}", {"read": True}).json()
    answers = [max.patch("/notifications", {"read": True}) for _ in range(2)]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"updated": 2}), (200, {"updated": 0})]
    assert inbox(max, "&unread=true") == []
    assert inbox(max)[2] == early
    assert len(inbox(ada, "&unread=true")) == 1


@pytest.mark.parametrize("path", ["/notifications", "/notifications/1"])
@pytest.mark.parametrize("body", [{}, {"read": None}, {"read": 1}, {"read": "true"}, {"read": True, "x": 1}, [], None])
def test_what_does_not_say_read_is_refused(body: Any, path: str, max: Person, three: list[int]) -> None:
    assert max.patch(path, body).status_code == 422
    assert len(inbox(max, "&unread=true")) == 3


def test_all_cannot_be_marked_as_unread(max: Person, three: list[int]) -> None:
    assert max.patch("/notifications", {"read": False}).status_code == 422


@pytest.mark.parametrize("query", ["unread=maybe", "unread=", "kind=comment", "user_id=2"])
def test_a_wrong_query_of_notifications_is_refused(query: str, max: Person) -> None:
    assert max.get(f"/notifications?{query}").status_code == 422


def test_those_of_another_do_not_exist(ada: Person, max: Person, eva: Person, three: list[int]) -> None:
    answers = [person.patch(f"/notifications/{three[0]}", {"read": True}) for person in (eva, ada)]
    gone = eva.patch("/notifications/99", {"read": True})

    assert [answer.status_code for answer in answers] == [404, 404]
    assert without_request_id(answers[0])["error_code"] == "NOTIFICATION_NOT_FOUND"
    assert str(without_request_id(answers[0])).replace(f" {three[0]} ", " 99 ") == str(without_request_id(gone))
    assert answers[0].headers.keys() == gone.headers.keys()
    assert (inbox(eva), len(inbox(max, "&unread=true"))) == ([], 3)


def test_notifications_go_with_their_reader(app: Stockroom, ada: Person, max: Person, three: list[int]) -> None:
    ada.delete(f"/users/{max.id}")

    assert told(app) == []


# The dashboard


def dashboard(person: Person) -> Row:
    answer = person.get("/dashboard")
    assert answer.status_code == 200, answer.text
    return answer.json()


def move(app: Stockroom, order_id: int, at: datetime) -> None:
    """Pretend that an order was placed at another time."""
    with ending(app.state.database.write()) as session:
        session.exec(update(Order).where(col(Order.id) == order_id).values(created_at=at))


def days_with_orders(person: Person) -> dict[int, tuple[int, int]]:
    """Count and total of each day that has any, by how many days ago it is."""
    days = reversed(dashboard(person)["orders_per_day"])
    return {ago: (day["count"], day["total_cents"]) for ago, day in enumerate(days) if day["count"]}


@pytest.fixture
def midnight() -> datetime:
    """When today began, in UTC."""
    return now().replace(hour=0, minute=0, second=0, microsecond=0)


def test_an_empty_company_has_an_empty_dashboard(ada: Person) -> None:
    shown = dashboard(ada)
    days = shown.pop("orders_per_day")

    assert shown == {
        "profile": ada.get("/users/me").json(),
        "unread_notifications": 0,
        "recent_orders": [],
        "stock": {"items": 0, "units": 0, "value_cents": 0, "low_stock": []},
    }
    assert {(day["count"], day["total_cents"]) for day in days} == {(0, 0)}


def test_the_days_are_the_last_30_the_oldest_first(ada: Person, midnight: datetime) -> None:
    dates = [day["date"] for day in dashboard(ada)["orders_per_day"]]

    assert dates == [(midnight - timedelta(days=ago)).date().isoformat() for ago in range(29, -1, -1)]


def test_a_day_begins_at_midnight_utc(app: Stockroom, ada: Person, lamp: Row, midnight: datetime) -> None:
    moment = timedelta(microseconds=1)
    for at in (
        midnight,
        midnight - moment,
        midnight - timedelta(days=1),
        midnight - timedelta(days=29),
        midnight - timedelta(days=29) - moment,
        midnight - timedelta(days=365),
    ):
        move(app, place(ada, (lamp, 1))["id"], at)

    assert days_with_orders(ada) == {0: (1, 1_200), 1: (2, 2_400), 29: (1, 1_200)}


def test_a_time_of_another_zone_counts_on_its_day_in_utc(
    app: Stockroom, ada: Person, lamp: Row, midnight: datetime
) -> None:
    move(app, place(ada, (lamp, 1))["id"], (midnight - timedelta(hours=1)).astimezone(ZoneInfo("Asia/Tokyo")))

    assert days_with_orders(ada) == {1: (1, 1_200)}


def test_cancelled_orders_do_not_count_in_the_days(ada: Person, lamp: Row) -> None:
    for status in ("fulfilled", "cancelled"):
        ada.patch(f"/orders/{place(ada, (lamp, 2))['id']}", {"status": status})
    place(ada, (lamp, 1))

    assert days_with_orders(ada) == {0: (2, 3_600)}


def test_members_see_their_own_orders_and_admins_all(ada: Person, max: Person, eva: Person, lamp: Row) -> None:
    orders = [place(person, (lamp, quantity)) for person, quantity in ((max, 1), (eva, 2), (max, 3))]

    assert (dashboard(max)["recent_orders"], dashboard(eva)["recent_orders"]) == (orders[::-2], [orders[1]])
    assert dashboard(ada)["recent_orders"] == orders[::-1]
    assert [days_with_orders(person) for person in (ada, max, eva)] == [
        {0: (3, 7_200)},
        {0: (2, 4_800)},
        {0: (1, 2_400)},
    ]


def test_the_five_newest_orders_are_shown(ada: Person, lamp: Row) -> None:
    orders = [place(ada, (lamp, 1)) for _ in range(6)]

    assert dashboard(ada)["recent_orders"] == orders[:0:-1]


def test_only_what_was_not_read_is_counted(max: Person, eva: Person, three: list[int]) -> None:
    max.patch(f"/notifications/{three[0]}", {"read": True})

    assert (dashboard(max)["unread_notifications"], dashboard(eva)["unread_notifications"]) == (2, 0)


def test_the_stock_is_summed_up(ada: Person, max: Person, lamp: Row) -> None:
    ada.post("/items", {"name": "Desk", "price_cents": 34_900, "quantity": 3})
    place(max, (lamp, 4))

    assert dashboard(max)["stock"] == dashboard(ada)["stock"]
    assert dashboard(max)["stock"] == {"items": 2, "units": 9, "value_cents": 6 * 1_200 + 3 * 34_900, "low_stock": []}


def test_ten_items_that_are_low_are_shown_by_name(ada: Person, lamp: Row) -> None:
    names = [f"Pen {letter}" for letter in "LKJIHGFEDCBA"]
    items = [ada.post("/items", {"name": name, "price_cents": 1, "reorder_level": 1}).json() for name in names]

    assert dashboard(ada)["stock"]["low_stock"] == items[:1:-1]


def test_a_quantity_at_its_level_is_low(ada: Person, lamp: Row) -> None:
    shown = [
        bool(ada.patch("/items/1", {"quantity": quantity}) and dashboard(ada)["stock"]["low_stock"])
        for quantity in (3, 2, 0)
    ]

    assert shown == [False, True, True]


@on_both_databases
def test_the_dashboard_can_count_beyond_64_bits(ada: Person) -> None:
    billion = 1_000_000_000
    for number in range(10):
        ada.post("/items", {"name": f"Gold {number}", "price_cents": billion, "quantity": billion - number})
    stock = dashboard(ada)["stock"]

    assert stock["value_cents"] == 10 * billion * billion - 45 * billion > 2**63
    assert stock["units"] == 10 * billion - 45


def test_totals_of_a_day_are_exact(ada: Person, max: Person) -> None:
    item = ada.post("/items", {"name": "Gold", "price_cents": 999_999_999, "quantity": 1_000_000_000}).json()
    for _ in range(3):
        place(max, (item, 9_999))

    assert days_with_orders(max) == {0: (3, 3 * 9_999 * 999_999_999)}


@pytest.mark.parametrize("name", ["ada", "max"])
def test_six_statements_are_enough_however_much_there_is(
    name: str, app: Stockroom, request: pytest.FixtureRequest, max: Person, lamp: Row
) -> None:
    person: Person = request.getfixturevalue(name)
    with counted_statements(app) as empty:
        dashboard(person)
    for number in range(12):
        item = {"name": f"Pen {number}", "price_cents": 1, "quantity": 9, "reorder_level": 9}
        place(
            max, (request.getfixturevalue("ada").post("/items", item).json(), 1), *([(lamp, 1)] if number < 9 else [])
        )
    with counted_statements(app) as full:
        shown = dashboard(person)

    assert (len(shown["recent_orders"]), len(shown["stock"]["low_stock"])) == (5, 10)
    assert len(empty) <= len(full) <= 6


def test_the_dashboard_takes_no_parameters(ada: Person) -> None:
    assert ada.get("/dashboard?days=60").status_code == 422


@on_both_databases
def test_the_inbox_and_the_dashboard_are_the_same_on_both_databases(
    app: Stockroom, ada: Person, zoe: Person, max: Person, eva: Person, lamp: Row, news: Row, midnight: datetime
) -> None:
    at_once(2, lambda _: max.post("/orders", order_for((lamp, 4))))
    eva.post("/posts/1/comments", {"content": "Good"})
    ada.patch("/orders/1", {"status": "fulfilled"})
    move(app, 2, midnight - timedelta(microseconds=1))

    assert kinds(ada) == kinds(zoe) == ["order_placed", "order_placed", "low_stock"]
    assert (kinds(max), kinds(eva)) == (["comment", "order_fulfilled"], [])
    assert (dashboard(zoe)["unread_notifications"], dashboard(max)["unread_notifications"]) == (3, 2)
    assert zoe.patch("/notifications", {"read": True}).json() == {"updated": 3}
    assert days_with_orders(max) == {0: (1, 4_800), 1: (1, 4_800)}
    assert [order["id"] for order in dashboard(max)["recent_orders"]] == [1, 2]
    assert dashboard(max)["stock"]["low_stock"] == [ada.get("/items/1").json()]
