"""Notifications of the stock: who is told of orders and of items that run low."""

from collections.abc import Callable

import pytest

from kit.app import App
from tests.databases import counted_statements, on_both_databases
from tests.inboxes import inbox, kinds, told
from tests.people import API, LAMP, PASSWORD, Person, Row, at_once, order_for, place
from tests.visitors import Visitor


@pytest.fixture
def retired(ada: Person, sign_in: Callable[..., Person]) -> int:
    """The id of an admin whose account is inactive."""
    account = {"email": "tom@example.com", "full_name": "Tom", "password": PASSWORD, "role": "admin"}
    user_id = ada.post("/users", account).json()["id"]
    ada.patch(f"/users/{user_id}", {"is_active": False})
    return user_id


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


def test_what_fails_tells_nobody(app: App, ada: Person, max: Person, lamp: Row) -> None:
    max.post("/orders", order_for((lamp, 9), ({"id": 99}, 1)))
    max.post("/orders", order_for((lamp, 11)))
    ada.patch("/items/1", {"quantity": 0}, headers={"If-Match": '"7"'})

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


@on_both_databases
def test_notifications_are_the_same_on_both_databases(
    ada: Person, zoe: Person, max: Person, eva: Person, lamp: Row
) -> None:
    at_once(2, lambda _: max.post("/orders", order_for((lamp, 4))))
    ada.patch("/orders/1", {"status": "fulfilled"})

    assert kinds(ada) == kinds(zoe) == ["order_placed", "order_placed", "low_stock"]
    assert (kinds(max), kinds(eva)) == (["order_fulfilled"], [])
    assert zoe.patch("/notifications", {"read": True}).json() == {"updated": 3}
    assert inbox(zoe, "&unread=true") == []


def test_an_order_is_opened_by_what_tells_of_it(
    visit: Callable[[Person], Visitor], ada: Person, max: Person, lamp: Row
) -> None:
    place(max, (lamp, 1))
    visitor = visit(ada)

    answer = visitor.request("POST", "/notifications/1")

    assert (answer.status_code, answer.headers["location"]) == (303, "/orders/1")
