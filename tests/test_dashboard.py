"""The dashboard: what is counted, for whom, and at which price."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlmodel import col, update

from kit.app import App
from kit.db import ending
from kit.models import now
from models import Order
from tests.databases import counted_statements, on_both_databases
from tests.people import Person, Row, fields_refused, place
from tests.routes import Exceptions


def dashboard(person: Person) -> Row:
    answer = person.get("/dashboard")
    assert answer.status_code == 200, answer.text
    return answer.json()


def move(app: App, order_id: int, at: datetime) -> None:
    """Pretend that an order was placed at another time."""
    with ending(app.state.database.write()) as session:
        session.connection().execute(update(Order).where(col(Order.id) == order_id).values(created_at=at))


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
        "stock": {"items": 0, "units": 0, "value_cents": 0, "low_stock_count": 0, "low_stock": []},
    }
    assert {(day["count"], day["total_cents"]) for day in days} == {(0, 0)}


def test_the_days_are_the_last_30_the_oldest_first(ada: Person, midnight: datetime) -> None:
    dates = [day["date"] for day in dashboard(ada)["orders_per_day"]]

    assert dates == [(midnight - timedelta(days=ago)).date().isoformat() for ago in range(29, -1, -1)]


def test_a_day_begins_at_midnight_utc(app: App, ada: Person, lamp: Row, midnight: datetime) -> None:
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


def test_a_time_of_another_zone_counts_on_its_day_in_utc(app: App, ada: Person, lamp: Row, midnight: datetime) -> None:
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


def test_only_what_was_not_read_is_counted(max: Person, eva: Person) -> None:
    max.post("/posts", {"title": "News", "content": "The lamps are here."})
    for content in ("one", "two", "three"):
        eva.post("/posts/1/comments", {"content": content})
    max.patch("/notifications/1", {"read": True})

    assert (dashboard(max)["unread_notifications"], dashboard(eva)["unread_notifications"]) == (2, 0)


def test_the_stock_is_summed_up(ada: Person, max: Person, lamp: Row) -> None:
    ada.post("/items", {"name": "Desk", "price_cents": 34_900, "quantity": 3})
    place(max, (lamp, 4))

    assert dashboard(max)["stock"] == dashboard(ada)["stock"]
    assert dashboard(max)["stock"] == {
        "items": 2,
        "units": 9,
        "value_cents": 6 * 1_200 + 3 * 34_900,
        "low_stock_count": 0,
        "low_stock": [],
    }


def test_all_that_is_low_is_counted(ada: Person, max: Person, lamp: Row) -> None:
    for number in range(12):
        ada.post("/items", {"name": f"Pen {number}", "price_cents": 1, "quantity": number, "reorder_level": 10})
    stock = dashboard(max)["stock"]

    assert (stock["low_stock_count"], len(stock["low_stock"])) == (11, 10)


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
    name: str, app: App, request: pytest.FixtureRequest, max: Person, lamp: Row
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
    assert fields_refused(ada.get("/dashboard?days=60")) == [["query", "days"]]


@on_both_databases
def test_the_dashboard_is_the_same_on_both_databases(
    app: App, ada: Person, max: Person, eva: Person, lamp: Row, midnight: datetime
) -> None:
    for _ in range(2):
        place(max, (lamp, 4))
    place(eva, (lamp, 1))
    ada.patch("/orders/1", {"status": "fulfilled"})
    move(app, 2, midnight - timedelta(microseconds=1))

    assert days_with_orders(max) == {0: (1, 4_800), 1: (1, 4_800)}
    assert days_with_orders(ada) == {0: (2, 6_000), 1: (1, 4_800)}
    assert [order["id"] for order in dashboard(max)["recent_orders"]] == [1, 2]
    assert [order["id"] for order in dashboard(ada)["recent_orders"]] == [3, 1, 2]
    assert (dashboard(ada)["unread_notifications"], dashboard(max)["unread_notifications"]) == (4, 1)
    assert dashboard(max)["stock"]["low_stock"] == [ada.get("/items/1").json()]


# What the sweeps cannot know

SWEEP = Exceptions(costs={"GET /dashboard": (1, 5)})
