"""The audit of the stock: what items and orders write, and how its page says it."""

from collections.abc import Callable
from typing import Any

import pytest

from kit.app import App
from tests.changes import Written, amount, audit, created, deleted, entry
from tests.databases import on_both_databases
from tests.people import LAMP, Person, Row, at_once, order_for, place, with_key
from tests.visitors import Visitor

Visit = Callable[[Person], Visitor]


def test_the_life_of_an_item(ada: Person, written: Written) -> None:
    written()
    ada.post("/items", LAMP)
    ada.patch("/items/1", {"price_cents": 1300, "tags": [], "name": "Lamp"})
    ada.delete("/items/1")

    assert written() == [
        entry(ada, "create", "item", 1, **created(**LAMP)),
        entry(ada, "update", "item", 1, price_cents=[1200, 1300], tags=[["light"], []]),
        entry(ada, "delete", "item", 1, **deleted(**LAMP | {"price_cents": 1300, "tags": []})),
    ]


def test_an_import_is_written_row_by_row(ada: Person, lamp: Row, written: Written) -> None:
    written()
    file = b"name,price_cents,quantity\r\nLamp,1200,7\r\nDesk,100,0\r\n"
    ada.post("/items/import", files={"file": file})

    assert sorted(written(), key=lambda row: row["entity_id"]) == [
        entry(ada, "update", "item", 1, quantity=[10, 7]),
        entry(ada, "create", "item", 2, **created(name="Desk", price_cents=100, quantity=0, reorder_level=0, tags=[])),
    ]


def test_an_order_and_the_stock_it_takes(ada: Person, max: Person, lamp: Row, written: Written) -> None:
    desk = ada.post("/items", {"name": "Desk", "price_cents": 100, "quantity": 3}).json()
    written()
    max.post("/orders", order_for((desk, 3), (lamp, 4), note="Soon"))

    line_of_desk = {"item_id": 2, "quantity": 3, "unit_price_cents": 100}
    line_of_lamp = {"item_id": 1, "quantity": 4, "unit_price_cents": 1200}
    order = {"user_id": max.id, "status": "pending", "total_cents": 5100, "note": "Soon"}
    assert sorted(written(), key=lambda row: (row["entity"], row["entity_id"])) == [
        entry(max, "update", "item", 1, quantity=[10, 6]),
        entry(max, "update", "item", 2, quantity=[3, 0]),
        entry(max, "create", "order", 1, **created(**order, lines=[line_of_desk, line_of_lamp])),
    ]


def test_a_cancelled_order_and_the_stock_it_puts_back(ada: Person, max: Person, lamp: Row, written: Written) -> None:
    place(max, (lamp, 4))
    written()
    ada.patch("/orders/1", {"status": "cancelled"})

    assert written() == [
        entry(ada, "update", "order", 1, status=["pending", "cancelled"]),
        entry(ada, "update", "item", 1, quantity=[6, 10]),
    ]


def test_a_fulfilled_order(ada: Person, max: Person, lamp: Row, written: Written) -> None:
    place(max, (lamp, 4))
    written()
    ada.patch("/orders/1", {"status": "fulfilled"})

    assert written() == [entry(ada, "update", "order", 1, status=["pending", "fulfilled"])]


def test_the_stock_can_be_followed_through_many_orders_at_once(ada: Person, max: Person, lamp: Row) -> None:
    at_once(12, lambda _: max.post("/orders", order_for((lamp, 1))))
    changes = [row["changes"]["quantity"] for row in reversed(audit(ada, "&entity=item")) if row["action"] == "update"]

    assert changes == [[left, left - 1] for left in range(10, 0, -1)]


def test_all_that_one_request_did_has_its_id(max: Person, ada: Person, lamp: Row) -> None:
    answer = max.post("/orders", order_for((lamp, 1)))
    entities = [row["entity"] for row in audit(ada) if row["request_id"] == answer.headers["X-Request-ID"]]

    assert sorted(entities) == ["item", "order"]


LATE = {"headers": {"If-Match": '"9"'}}


def csv(text: str) -> dict[str, Any]:
    return {"files": {"file": f"name,price_cents\r\n{text}\r\n".encode()}}


# Who asks for what, and gets which answer; there are a lamp and an order of Max's.
NOTHING: list[tuple[str, str, str, dict[str, Any], int]] = [
    ("max", "POST", "/orders", {"json": order_for(({"id": 1}, 11))}, 409),
    ("max", "POST", "/orders", {"json": order_for(({"id": 1}, 1), ({"id": 9}, 1))}, 404),
    ("max", "POST", "/orders", {"json": order_for(({"id": 1}, 1)), **with_key("monday")}, 201),
    ("max", "PATCH", "/orders/1", {"json": {"status": "fulfilled"}}, 403),
    ("ada", "PATCH", "/orders/1", {"json": {"status": "fulfilled"}, **LATE}, 412),
    ("ada", "POST", "/items", {"json": {"name": "LAMP", "price_cents": 1}}, 409),
    ("ada", "PATCH", "/items/1", {"json": {"quantity": 1}, **LATE}, 412),
    ("ada", "PATCH", "/items/1", {"json": LAMP}, 200),
    ("ada", "PATCH", "/items/1", {"json": {}}, 200),
    ("ada", "DELETE", "/items/1", {}, 409),
    ("max", "DELETE", "/items/1", {}, 403),
    ("ada", "POST", "/items/import", csv("Desk,1\r\nPen,x"), 200),
    ("ada", "POST", "/items/import?dry_run=true", csv("Desk,1"), 200),
    ("ada", "POST", "/items/import", csv("Lamp,1200"), 200),
    ("ada", "DELETE", "/users/2", {}, 409),
    *(("ada", "GET", path, {}, 200) for path in ("/items", "/orders/1", "/dashboard")),
]


def test_where_nothing_changed_nothing_is_written(
    app: App, ada: Person, max: Person, subtests: pytest.Subtests
) -> None:
    ada.post("/items", LAMP | {"quantity": 11})
    assert max.post("/orders", order_for(({"id": 1}, 1)), **with_key("monday")).status_code == 201
    before = amount(app)
    for name, method, path, options, status in NOTHING:
        with subtests.test(f"{name}: {method} {path}", **options):
            answer = {"ada": ada, "max": max}[name].request(method, path, **options)

            assert (answer.status_code, amount(app)) == (status, before), answer.text


@on_both_databases
def test_the_audit_of_the_stock_is_the_same_on_both_databases(
    ada: Person, max: Person, lamp: Row, written: Written
) -> None:
    written()
    place(max, (lamp, 4))
    ada.patch("/orders/1", {"status": "cancelled"})
    rows = written()

    assert sorted((row["action"], row["entity"], row["entity_id"]) for row in rows) == [
        ("create", "order", 1),
        ("update", "item", 1),
        ("update", "item", 1),
        ("update", "order", 1),
    ]
    assert [row["changes"]["quantity"] for row in rows if row["entity"] == "item"] == [[10, 6], [6, 10]]
    assert len(audit(ada, f"&entity=item&actor_id={max.id}")) == 1


# In words


def test_a_change_is_said_with_names_and_amounts(visit: Visit, ada: Person, lamp: Row) -> None:
    ada.patch("/items/1", {"price_cents": 1350, "tags": ["light", "new"]})

    view = visit(ada).get("/audit")

    assert "Ada changed the price and the tags of item Lamp" in view.text
    assert "Price was €12.00 is now €13.50" in view.text
    assert "Tags was light is now light, new" in view.text
    assert "/items/1" in view.links
    assert f"/users/{ada.id}" in view.links


def test_a_number_is_raised_or_lowered(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    place(max, (lamp, 3))
    ada.patch("/items/1", {"quantity": 27})

    view = visit(ada).get("/audit?entity=item")

    assert "Max lowered the quantity of item Lamp by 3" in view.text
    assert "Ada raised the quantity of item Lamp by 20" in view.text


def test_an_order_is_said_with_the_names_of_its_items(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    place(max, (lamp, 3))

    view = visit(ada).get("/audit?entity=order")

    assert "Max created order 1" in view.text
    assert "Total is now €36.00" in view.text
    assert "item Lamp, quantity 3, unit price €12.00" in view.text
    assert "/orders/1" in view.links
