"""Orders: what may be ordered, what happens to the stock, who sees them, and answers that are given once."""

import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, func, select, update

from kit.app import App
from kit.cleaning import clean
from kit.db import ending
from kit.idempotency import IdempotencyKey
from kit.models import now
from models import Order, OrderCreate
from tests.databases import on_both_databases
from tests.people import (
    API,
    Person,
    Row,
    at_once,
    fields_refused,
    order_for,
    place,
    refusal,
    stock_of,
    with_key,
    without_request_id,
)
from tests.routes import Exceptions


@pytest.fixture
def desk(ada: Person) -> Row:
    """Another item: three desks."""
    return ada.post("/items", {"name": "Desk", "price_cents": 34_900, "quantity": 3}).json()


# Placing an order


def test_an_order_says_what_was_ordered_at_which_price(max: Person, lamp: Row, desk: Row) -> None:
    order = max.post("/orders", order_for((desk, 2), (lamp, 3), note="For the new room")).json()

    assert order.pop("created_at") <= order.pop("updated_at")
    assert order == {
        "id": 1,
        "user_id": max.id,
        "status": "pending",
        "lines": [
            {"item_id": desk["id"], "item_name": "Desk", "quantity": 2, "unit_price_cents": 34_900},
            {"item_id": lamp["id"], "item_name": "Lamp", "quantity": 3, "unit_price_cents": 1_200},
        ],
        "total_cents": 73_400,
        "note": "For the new room",
        "version": 1,
    }


def test_the_answer_says_where_the_order_is_found(max: Person, lamp: Row) -> None:
    answer = max.post("/orders", order_for((lamp, 1)))
    found = max.client.get(answer.headers["Location"], headers={"Authorization": f"Bearer {max.access_token}"})

    assert answer.headers["Location"] == f"{API}/orders/{answer.json()['id']}"
    assert answer.headers["ETag"] == found.headers["ETag"] == '"1"'
    assert answer.json() == found.json()
    assert answer.json()["created_at"].endswith("Z")


def test_an_order_takes_the_stock(ada: Person, max: Person, lamp: Row, desk: Row) -> None:
    place(max, (lamp, 4), (desk, 3))
    item = ada.get(f"/items/{lamp['id']}").json()

    assert (item["quantity"], item["version"], stock_of(ada, desk)) == (6, 2, 0)
    assert item["updated_at"] > lamp["updated_at"]


def test_an_order_keeps_the_name_and_the_price_of_its_moment(ada: Person, max: Person, lamp: Row) -> None:
    order = place(max, (lamp, 2))
    ada.patch(f"/items/{lamp['id']}", {"name": "Lantern", "price_cents": 9_999})

    assert max.get(f"/orders/{order['id']}").json() == order


def test_an_admin_may_order_too(ada: Person, lamp: Row) -> None:
    assert place(ada, (lamp, 1))["user_id"] == ada.id


LINE = {"item_id": 1, "quantity": 1}
WRONG_ORDERS: list[Any] = [
    None,
    [],
    "order",
    {},
    {"lines": None},
    {"lines": {}},
    {"lines": []},
    {"lines": [None]},
    {"lines": [1]},
    {"lines": [LINE, LINE]},
    {"lines": [{"item_id": item_id, "quantity": 1} for item_id in range(1, 102)]},
    *({"lines": [line]} for line in ({"item_id": 1}, {"quantity": 1}, LINE | {"price_cents": 1}, {})),
    *({"lines": [LINE | {"quantity": wrong}]} for wrong in (0, -1, 10_001, 2**63, 10**30, 1.0, "1", True, None, [1])),
    *({"lines": [LINE | {"item_id": wrong}]} for wrong in (0, -1, 2**63, 10**30, 1.0, "one", True, None, [1])),
    *({"lines": [LINE], "note": wrong} for wrong in ("n" * 501, 1, True, ["note"])),
    {"lines": [LINE], "nonsense": 1},
    {"lines": [LINE], "user_id": 1},
    {"lines": [LINE], "status": "fulfilled"},
]


def test_what_is_no_order_is_refused(subtests: pytest.Subtests) -> None:
    for body in WRONG_ORDERS:
        text = json.dumps(body)
        with subtests.test(text[:60]), pytest.raises(ValidationError):
            OrderCreate.model_validate_json(text)


def test_a_wrong_order_takes_nothing(max: Person, lamp: Row) -> None:
    wrong: list[Any] = [
        {},
        {"lines": [LINE, LINE]},
        {"lines": [LINE], "note": "\0"},
        {"lines": [LINE], "note": "\ud800"},
        {"lines": [LINE, {"item_id": 2, "quantity": 0}]},
        {"lines": [LINE], "user_id": 1},
    ]
    for body in wrong:
        answer = max.post("/orders", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert refusal(answer) == (422, "VALIDATION_ERROR")
    assert (max.get("/orders").json()["total"], stock_of(max, lamp)) == (0, 10)


def test_a_note_is_optional(max: Person, lamp: Row) -> None:
    notes: list[tuple[Row, str | None]] = [
        ({}, None),
        ({"note": None}, None),
        ({"note": "  now  "}, "now"),
        ({"note": "é" * 500}, "é" * 500),
    ]
    for sent, kept in notes:
        assert max.post("/orders", order_for((lamp, 1), **sent)).json()["note"] == kept


def test_the_largest_order_is_of_100_lines_of_10_000(ada: Person, max: Person) -> None:
    most = {"price_cents": 1_000_000_000, "quantity": 10_000}
    items = [ada.post("/items", {"name": f"Gold {number}", **most}).json() for number in range(100)]
    order = place(max, *((item, 10_000) for item in reversed(items)))

    assert [line["item_id"] for line in order["lines"]] == [item["id"] for item in reversed(items)]
    assert order["total_cents"] == 100 * 10_000 * 1_000_000_000
    assert max.get("/orders").json()["items"] == [order]


def test_every_short_item_is_named_and_nothing_is_taken(ada: Person, max: Person, lamp: Row, desk: Row) -> None:
    chair = ada.post("/items", {"name": "Chair", "price_cents": 1, "quantity": 5}).json()
    answer = max.post("/orders", order_for((desk, 4), (chair, 5), (lamp, 11)))

    assert refusal(answer) == (409, "OUT_OF_STOCK")
    assert sorted(answer.json()["errors"], key=lambda error: error["item_id"]) == [
        {"item_id": lamp["id"], "requested": 11, "available": 10},
        {"item_id": desk["id"], "requested": 4, "available": 3},
    ]
    assert [stock_of(max, item) for item in (lamp, desk, chair)] == [10, 3, 5]
    assert [ada.get(f"/items/{item['id']}").json()["version"] for item in (lamp, desk, chair)] == [1, 1, 1]
    assert ada.get("/orders").json()["total"] == 0


def test_the_last_unit_can_be_ordered_once(max: Person, eva: Person, desk: Row) -> None:
    place(max, (desk, 3))
    answer = eva.post("/orders", order_for((desk, 1)))

    assert answer.json()["errors"] == [{"item_id": desk["id"], "requested": 1, "available": 0}]


def test_an_unknown_item_is_named_and_nothing_is_taken(max: Person, lamp: Row) -> None:
    answer = max.post("/orders", order_for((lamp, 1), ({"id": 2**63 - 1}, 1)))

    assert refusal(answer) == (404, "ITEM_NOT_FOUND")
    assert str(2**63 - 1) in answer.json()["detail"]
    assert stock_of(max, lamp) == 10


def test_32_people_at_once_get_each_unit_once(max: Person, lamp: Row) -> None:
    answers = at_once(32, lambda _: max.post("/orders", order_for((lamp, 1))))

    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [409] * 22
    assert (stock_of(max, lamp), max.get("/orders").json()["total"]) == (0, 10)


# Idempotency


def test_a_key_is_answered_again_and_orders_once(max: Person, lamp: Row) -> None:
    first, second = (max.post("/orders", order_for((lamp, 4)), **with_key("monday")) for _ in range(2))

    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert [answer.headers.get("Idempotent-Replayed") for answer in (first, second)] == [None, "true"]
    assert all(second.headers[name] == first.headers[name] for name in ("Location", "ETag", "Content-Type"))
    assert (stock_of(max, lamp), max.get("/orders").json()["total"]) == (6, 1)


def test_the_first_answer_stays_after_the_order_was_cancelled(max: Person, lamp: Row) -> None:
    first = max.post("/orders", order_for((lamp, 4)), **with_key("monday"))
    max.patch(f"/orders/{first.json()['id']}", {"status": "cancelled"})
    again = max.post("/orders", order_for((lamp, 4)), **with_key("monday"))

    assert (again.status_code, again.content) == (201, first.content)
    assert stock_of(max, lamp) == 10


def test_a_repetition_leaves_no_trace(ada: Person, max: Person, lamp: Row) -> None:
    def traces() -> list[int]:
        return [len(ada.get(f"/{name}?limit=100").json()["items"]) for name in ("audit", "notifications")]

    max.post("/orders", order_for((lamp, 1)), **with_key("monday"))
    before = traces()
    max.post("/orders", order_for((lamp, 1)), **with_key("monday"))

    assert traces() == before


def test_a_key_with_another_body_is_refused(max: Person, lamp: Row) -> None:
    body = order_for((lamp, 1), note="one")
    max.post("/orders", body, **with_key("monday"))
    changes: list[Row] = [{"lines": [{"item_id": 1, "quantity": 2}]}, {"note": "two"}, {"note": None}]
    for change in changes:
        assert refusal(max.post("/orders", body | change, **with_key("monday"))) == (422, "IDEMPOTENCY_KEY_REUSED")

    assert (stock_of(max, lamp), max.get("/orders").json()["total"]) == (9, 1)


def test_a_body_is_the_same_however_it_is_written(max: Person, lamp: Row) -> None:
    first = max.post("/orders", order_for((lamp, 1)), **with_key("monday"))
    options = {"headers": {"Idempotency-Key": "monday", "Content-Type": "application/json"}}
    again = max.post("/orders", content='{"note": null, "lines": [{"quantity": 1, "item_id": 1}]}', **options)

    assert again.content == first.content


def test_two_people_may_have_the_same_key(max: Person, eva: Person, lamp: Row) -> None:
    answers = [person.post("/orders", order_for((lamp, 1)), **with_key("monday")) for person in (max, eva)]

    assert [answer.json()["user_id"] for answer in answers] == [max.id, eva.id]
    assert "Idempotent-Replayed" not in answers[1].headers


def test_two_keys_are_two_orders(max: Person, lamp: Row) -> None:
    ids = [max.post("/orders", order_for((lamp, 1)), **with_key(key)).json()["id"] for key in ("a", "A")]

    assert ids == [1, 2]


def test_a_key_is_any_visible_ascii(max: Person, lamp: Row, subtests: pytest.Subtests) -> None:
    for wrong in (b"", b"two words", b"\xe9", b"tab\tbed", b"k" * 256):
        with subtests.test(str(wrong)):
            answer = max.post("/orders", order_for((lamp, 1)), **with_key(wrong))
            assert fields_refused(answer) == [["header", "Idempotency-Key"]]
    for key in ("!", "~", "k" * 255, "a/b;c,d'\"e"):
        with subtests.test(key):
            answers = [max.post("/orders", order_for((lamp, 1)), **with_key(key)) for _ in range(2)]
            assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true"]

    assert stock_of(max, lamp) == 6


def test_only_successes_are_kept(ada: Person, max: Person, desk: Row) -> None:
    too_many, unknown = order_for((desk, 5)), order_for(({"id": 99}, 1))
    failed = [max.post("/orders", body, **with_key("monday")).status_code for body in (too_many, unknown, {})]
    ada.patch(f"/items/{desk['id']}", {"quantity": 5})
    answer = max.post("/orders", too_many, **with_key("monday"))

    assert failed == [409, 404, 422]
    assert (answer.status_code, answer.headers.get("Idempotent-Replayed")) == (201, None)


def let_pass(app: App, hours: float) -> None:
    """Pretend that every key was used so many hours ago."""
    with ending(app.state.database.write()) as session:
        session.exec(update(IdempotencyKey).values(created_at=now() - timedelta(hours=hours)))
    clean(app.state.database)


def test_a_key_is_kept_for_a_day(app: App, max: Person, lamp: Row) -> None:
    def repeat() -> list[str | None]:
        answers = [max.post("/orders", order_for((lamp, 1)), **with_key(key)) for key in ("monday", "tuesday")]
        return [answer.headers.get("Idempotent-Replayed") for answer in answers]

    repeat()
    let_pass(app, 23.9)
    assert repeat() == ["true", "true"]
    let_pass(app, 24.1)
    assert repeat() == [None, None]


def test_one_key_at_the_same_moment_is_one_order_and_equal_answers(max: Person, lamp: Row) -> None:
    answers = at_once(8, lambda _: max.post("/orders", order_for((lamp, 1)), **with_key("monday")))

    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert sorted(answer.headers.get("Idempotent-Replayed", "") for answer in answers) == [""] + ["true"] * 7
    assert (stock_of(max, lamp), max.get("/orders").json()["total"]) == (9, 1)


# Who sees which orders


def test_members_see_their_own_orders_and_admins_all(ada: Person, max: Person, eva: Person, lamp: Row) -> None:
    for person in (max, eva, ada):
        place(person, (lamp, 1))
    seen = {person.id: {row["user_id"] for row in person.get("/orders").json()["items"]} for person in (ada, max, eva)}

    assert seen == {ada.id: {ada.id, max.id, eva.id}, max.id: {max.id}, eva.id: {eva.id}}
    assert (ada.get("/orders").json()["total"], max.get("/orders").json()["total"]) == (3, 1)


def test_an_order_is_shown_to_its_owner_and_to_admins(ada: Person, max: Person, lamp: Row) -> None:
    order = place(max, (lamp, 1))

    assert [person.get(f"/orders/{order['id']}").json() for person in (ada, max)] == [order, order]


def test_the_order_of_another_does_not_exist_for_a_member(app: App, max: Person, eva: Person, lamp: Row) -> None:
    path = f"/orders/{place(max, (lamp, 1))['id']}"

    def ask() -> list[Any]:
        headers = {"If-Match": '"9"'}
        return [eva.get(path, headers=headers), eva.patch(path, {"status": "cancelled"}, headers=headers)]

    hidden = ask()
    with ending(app.state.database.write()) as session:
        session.delete(session.exec(select(Order)).one())

    for answer, gone in zip(hidden, ask(), strict=True):
        assert refusal(answer) == (404, "ORDER_NOT_FOUND")
        assert without_request_id(answer) == without_request_id(gone)
        assert answer.headers.keys() == gone.headers.keys()


def test_what_is_no_id_is_refused(max: Person) -> None:
    for wrong in ("0", "-1", "01x", f"{2**63}", "1.0"):
        assert fields_refused(max.get(f"/orders/{wrong}")) == [["path", "order_id"]]


def test_an_order_that_did_not_change_is_not_sent_again(max: Person, lamp: Row) -> None:
    path = f"/orders/{place(max, (lamp, 1))['id']}"
    answer = max.get(path, headers={"If-None-Match": '"1"'})

    assert (answer.status_code, answer.content) == (304, b"")
    assert max.get(path, headers={"If-None-Match": '"2"'}).status_code == 200


# Lists


@pytest.fixture
def history(ada: Person, max: Person, eva: Person, lamp: Row, desk: Row) -> list[Row]:
    """Orders 1 to 4: pending, fulfilled and cancelled ones of Max, one of Eva."""
    orders = [place(max, (lamp, 2)), place(max, (desk, 1)), place(max, (lamp, 1)), place(eva, (lamp, 2))]
    ada.patch("/orders/2", {"status": "fulfilled"})
    ada.patch("/orders/3", {"status": "cancelled"})
    return orders


FOUND: list[tuple[str, list[int]]] = [
    ("", [4, 3, 2, 1]),
    ("?sort=created_at", [1, 2, 3, 4]),
    ("?sort=-created_at", [4, 3, 2, 1]),
    ("?sort=total_cents", [3, 1, 4, 2]),
    ("?sort=-total_cents", [2, 1, 4, 3]),
    ("?sort=-total_cents,-created_at", [2, 4, 1, 3]),
    ("?status=pending", [4, 1]),
    ("?status=fulfilled", [2]),
    ("?status=cancelled", [3]),
    ("?user_id=2", [3, 2, 1]),
    ("?user_id=3", [4]),
    ("?user_id=99", []),
    ("?user_id=2&status=pending", [1]),
    ("?page_size=3", [4, 3, 2]),
    ("?page_size=3&page=2", [1]),
    ("?page=9", []),
]


@pytest.mark.usefixtures("history")
def test_an_admin_finds_orders(ada: Person, subtests: pytest.Subtests) -> None:
    for query, ids in FOUND:
        with subtests.test(query):
            assert [order["id"] for order in ada.get(f"/orders{query}").json()["items"]] == ids


def test_orders_of_one_moment_come_by_their_id(app: App, ada: Person, history: list[Row]) -> None:
    with ending(app.state.database.write()) as session:
        session.connection().execute(update(Order).values(created_at=now()))

    assert [order["id"] for order in ada.get("/orders").json()["items"]] == [1, 2, 3, 4]


def test_a_page_of_orders_says_what_follows(ada: Person, history: list[Row]) -> None:
    page = ada.get("/orders?page_size=3&status=pending").json()
    first = ada.get("/orders?page_size=3").json()

    assert {name: page[name] for name in ("total", "page", "page_size", "has_next")} == {
        "total": 2,
        "page": 1,
        "page_size": 3,
        "has_next": False,
    }
    assert (first["total"], first["has_next"]) == (4, True)


def test_a_wrong_query_of_orders_is_refused(ada: Person) -> None:
    wrong = ("status=open", "sort=id", "sort=", "user_id=x", "user_id=0", "page=0", "page_size=101", "q=lamp")
    for query in wrong:
        assert fields_refused(ada.get(f"/orders?{query}")) == [["query", query.partition("=")[0]]]


def test_a_member_may_not_ask_by_user_not_even_for_themselves(max: Person, eva: Person) -> None:
    answers = [max.get(f"/orders?user_id={user_id}") for user_id in (max.id, eva.id, 99)]

    assert {refusal(answer) for answer in answers} == {(403, "FORBIDDEN")}


# Fulfilling and cancelling

# From each status: what each caller gets for each wish.
TRANSITIONS = """
from      to        owner member admin
pending   fulfilled 403   404    200
pending   cancelled 200   404    200
fulfilled fulfilled 403   404    409
fulfilled cancelled 409   404    409
cancelled fulfilled 403   404    409
cancelled cancelled 409   404    409
"""
CASES = [
    (before, wish, caller, int(status))
    for before, wish, *statuses in (line.split() for line in TRANSITIONS.strip().splitlines()[1:])
    for caller, status in zip(("owner", "member", "admin"), statuses, strict=True)
]
CODES = {403: "FORBIDDEN", 404: "ORDER_NOT_FOUND", 409: "ORDER_NOT_PENDING"}


def test_only_a_pending_order_changes_and_only_for_whom_it_may(
    ada: Person, max: Person, eva: Person, lamp: Row, subtests: pytest.Subtests
) -> None:
    for before, wish, caller, status in CASES:
        with subtests.test(f"{before} to {wish}", caller=caller):
            ada.patch(f"/items/{lamp['id']}", {"quantity": 10})
            path = f"/orders/{place(max, (lamp, 4))['id']}"
            if before != "pending":
                ada.patch(path, {"status": before})
            order = max.get(path).json()
            answer = {"owner": max, "member": eva, "admin": ada}[caller].patch(path, {"status": wish})

            assert (answer.status_code, answer.json().get("error_code")) == (status, CODES.get(status))
            assert max.get(path).json() == (answer.json() if status == 200 else order)
            assert max.get(path).json()["status"] == (wish if status == 200 else before)
            assert stock_of(ada, lamp) == (10 if "cancelled" in (before, wish if status == 200 else "") else 6)


def test_a_change_of_status_is_a_new_version(ada: Person, max: Person, lamp: Row) -> None:
    order = place(max, (lamp, 1))
    answer = ada.patch(f"/orders/{order['id']}", {"status": "fulfilled"})

    changed = {"status": "fulfilled", "version": 2, "updated_at": answer.json()["updated_at"]}
    assert answer.headers["ETag"] == '"2"'
    assert answer.json() == order | changed
    assert answer.json()["updated_at"] > order["updated_at"]


def test_cancelling_puts_every_line_back(max: Person, lamp: Row, desk: Row) -> None:
    order = place(max, (desk, 3), (lamp, 4))
    answer = max.patch(f"/orders/{order['id']}", {"status": "cancelled"})
    item = max.get(f"/items/{lamp['id']}").json()

    assert answer.json()["total_cents"] == order["total_cents"]
    assert answer.json()["lines"] == order["lines"]
    assert (stock_of(max, desk), item["quantity"], item["version"]) == (3, 10, 3)


def test_an_order_cancelled_by_many_at_once_puts_its_stock_back_once(max: Person, lamp: Row) -> None:
    path = f"/orders/{place(max, (lamp, 4))['id']}"
    answers = at_once(8, lambda _: max.patch(path, {"status": "cancelled"}))

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert stock_of(max, lamp) == 10


def test_a_wrong_change_of_an_order_is_refused(ada: Person, lamp: Row) -> None:
    path = f"/orders/{place(ada, (lamp, 1))['id']}"
    wrong: list[Any] = [{}, {"status": None}, {"status": "pending"}, {"status": "Fulfilled"}, {"note": "x"}, [], None]
    for body in wrong:
        assert ada.patch(path, body).status_code == 422
    assert ada.get(path).json()["version"] == 1


def test_an_order_only_changes_in_the_version_that_was_seen(ada: Person, lamp: Row) -> None:
    for status in ("fulfilled", "cancelled"):
        for right in ('"1"', '"7", "1"', "*"):
            order = place(ada, (lamp, 1))
            path, before = f"/orders/{order['id']}", stock_of(ada, lamp)
            for stale in ('"2"', "1"):
                answer = ada.patch(path, {"status": status}, headers={"If-Match": stale})
                assert refusal(answer) == (412, "VERSION_CONFLICT")
            assert (ada.get(path).json(), stock_of(ada, lamp)) == (order, before)

            assert ada.patch(path, {"status": status}, headers={"If-Match": right}).json()["status"] == status


# What an order holds fast


def test_an_item_that_was_ordered_cannot_be_deleted(ada: Person, max: Person, lamp: Row) -> None:
    for status in ("pending", "fulfilled", "cancelled"):
        item = ada.post("/items", {"name": f"Was {status}", "price_cents": 1, "quantity": 1}).json()
        order = place(max, (item, 1))
        if status != "pending":
            ada.patch(f"/orders/{order['id']}", {"status": status})

        assert refusal(ada.delete(f"/items/{item['id']}")) == (409, "ITEM_HAS_ORDERS")
        assert ada.get(f"/items/{item['id']}").status_code == 200


def test_an_item_whose_order_failed_can_be_deleted(ada: Person, max: Person, lamp: Row) -> None:
    max.post("/orders", order_for((lamp, 11)))

    assert ada.delete(f"/items/{lamp['id']}").status_code == 204


def test_who_ordered_can_be_deactivated_but_not_deleted(ada: Person, max: Person, lamp: Row) -> None:
    order = place(max, (lamp, 1))
    max.patch(f"/orders/{order['id']}", {"status": "cancelled"})
    refused = ada.delete(f"/users/{max.id}")
    ada.patch(f"/users/{max.id}", {"is_active": False})

    assert refusal(refused) == (409, "USER_HAS_ORDERS")
    assert ada.get(f"/orders/{order['id']}").json()["user_id"] == max.id


@on_both_databases
def test_the_life_of_an_order_is_the_same_on_both_databases(
    app: App, ada: Person, max: Person, eva: Person, lamp: Row, desk: Row
) -> None:
    first, again = (max.post("/orders", order_for((desk, 1), (lamp, 4)), **with_key("monday")) for _ in range(2))
    short = eva.post("/orders", order_for((lamp, 1), (desk, 3)))
    answers = at_once(8, lambda _: eva.post("/orders", order_for((lamp, 1))))
    cancelled = max.patch("/orders/1", {"status": "cancelled"})
    twice = ada.patch("/orders/1", {"status": "fulfilled"})

    assert (first.status_code, first.content) == (201, again.content)
    assert short.json()["errors"] == [{"item_id": desk["id"], "requested": 3, "available": 2}]
    assert sorted(answer.status_code for answer in answers) == [201] * 6 + [409] * 2
    assert (cancelled.json()["version"], twice.json()["error_code"]) == (2, "ORDER_NOT_PENDING")
    assert (stock_of(ada, lamp), stock_of(ada, desk)) == (4, 3)
    assert [order["total_cents"] for order in ada.get("/orders?sort=-total_cents&page_size=2").json()["items"]] == [
        39_700,
        1_200,
    ]
    assert ada.delete(f"/items/{lamp['id']}").json()["error_code"] == "ITEM_HAS_ORDERS"
    with app.state.database.read() as session:
        assert session.exec(select(func.count()).where(col(IdempotencyKey.user_id) == max.id)).one() == 1


def test_the_database_itself_refuses_an_unknown_status(app: App, ada: Person) -> None:
    with app.state.database.write() as session:
        session.add(Order(user_id=ada.id))
        session.flush()
        with pytest.raises(IntegrityError, match="ck_order_status"):
            session.connection().execute(text("UPDATE \"order\" SET status = 'open'"))


# What the sweeps cannot know


SWEEP = Exceptions(
    statuses={"GET /orders/{order_id}": {"member": 404}, "PATCH /orders/{order_id}": {"member": 404}},
    costs={
        "GET /orders": (1, 4),
        "GET /orders/{order_id}": (1, 3),
        "POST /orders": (1, 8),
        "PATCH /orders/{order_id}": (1, 8),
    },
    reasons=frozenset({"body.lines value_error"}),  # an item twice
    plans={
        "/orders": "ix_order_created_at",
        "/orders?status=pending": "ix_order_created_at",
        "/orders?user_id={user_id}": "ix_order_user_id_created_at",
    },
    members_plans={"/orders": "ix_order_user_id_created_at", "/orders?status=pending": "ix_order_user_id_created_at"},
)
