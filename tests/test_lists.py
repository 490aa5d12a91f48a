"""Pages, their totals, and the order of rows."""

from typing import Any

import pytest
from sqlalchemy import insert

from kit.app import App
from kit.db import ending
from kit.lists import order_by
from models import Item, User
from tests.conftest import Person

BIGGEST = 2**63 - 1


@pytest.fixture
def shelf(app: App, ada: Person) -> Person:
    """Ada, with 41 items at two prices."""
    rows: list[dict[str, Any]] = [
        {"name": f"Item {number:02}", "name_key": f"item {number:02}", "price_cents": 1 + number % 2, "tags": []}
        for number in range(41, 0, -1)
    ]
    with ending(app.state.database.write()) as session:
        session.connection().execute(insert(Item), rows)
    return ada


def test_a_page_has_20_rows_unless_asked_otherwise(shelf: Person) -> None:
    page = shelf.get("/items").json()

    assert {name: page[name] for name in page if name != "items"} == {
        "total": 41,
        "page": 1,
        "page_size": 20,
        "has_next": True,
    }
    assert [item["name"] for item in page["items"]] == [f"Item {number:02}" for number in range(1, 21)]


@pytest.mark.parametrize(
    ("page", "page_size", "rows", "has_next"),
    [
        (1, 20, 20, True),
        (2, 20, 20, True),
        (3, 20, 1, False),
        (4, 20, 0, False),
        (1, 41, 41, False),
        (1, 40, 40, True),
        (2, 40, 1, False),
        (1, 100, 41, False),
        (2, 100, 0, False),
        (40, 1, 1, True),
        (41, 1, 1, False),
        (42, 1, 0, False),
        (10**6, 100, 0, False),
        (BIGGEST, 1, 0, False),
        (BIGGEST, 100, 0, False),
    ],
)
def test_the_page(shelf: Person, page: int, page_size: int, rows: int, has_next: bool) -> None:
    response = shelf.get("/items", params={"page": page, "page_size": page_size})

    answer = response.json()
    assert (response.status_code, len(answer["items"]), answer["has_next"]) == (200, rows, has_next)
    assert (answer["total"], answer["page"], answer["page_size"]) == (41, page, page_size)


@pytest.mark.parametrize("path", ["/items", "/users"])
@pytest.mark.parametrize("name", ["page", "page_size"])
@pytest.mark.parametrize(
    "value",
    ["0", "-1", "", "x", "1.0", "1e1", "+1", " 1", "1_0", "0x1", "\u0661", "\0", str(2**63), "9" * 40, "9" * 5000],
    ids=ascii,
)
def test_a_page_is_a_whole_number_from_1(ada: Person, path: str, name: str, value: str) -> None:
    response = ada.get(path, params={name: value})

    assert (response.status_code, response.json()["error_code"]) == (422, "VALIDATION_ERROR")
    assert [error["loc"] for error in response.json()["errors"]] == [["query", name]]


@pytest.mark.parametrize("path", ["/items", "/users"])
def test_a_page_has_100_rows_at_most(ada: Person, path: str) -> None:
    assert ada.get(path, params={"page_size": 100}).status_code == 200
    assert ada.get(path, params={"page_size": 101}).json()["errors"][0]["loc"] == ["query", "page_size"]


def test_a_list_of_nothing_is_a_page(ada: Person) -> None:
    page = ada.get("/items").json()

    assert page == {"items": [], "total": 0, "page": 1, "page_size": 20, "has_next": False}


@pytest.mark.parametrize("sort", ["price_cents", "-price_cents", "quantity", "-quantity", "quantity,-price_cents"])
def test_ties_go_by_ascending_id_so_that_pages_neither_repeat_nor_skip(shelf: Person, sort: str) -> None:
    pages = [shelf.get("/items", params={"sort": sort, "page_size": 5, "page": page}).json() for page in range(1, 10)]

    rows: list[dict[str, Any]] = [item for page in pages for item in page["items"]]
    descending = "-price_cents" in sort
    price_order = "price_cents" in sort
    expected = sorted(rows, key=lambda row: row["id"])
    if price_order:
        expected.sort(key=lambda row: row["price_cents"], reverse=descending)
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    assert len({row["id"] for row in rows}) == 41


def test_the_order_is_total_whatever_the_database_would_do_by_itself() -> None:
    order = [str(column) for column in order_by(Item, "quantity,-price_cents")]

    assert order == ["item.quantity ASC", "item.price_cents DESC", "item.id ASC"]


def test_the_total_and_has_next_follow_the_filters(shelf: Person) -> None:
    page = shelf.get("/items", params={"min_price_cents": 2, "page_size": 20}).json()

    assert (page["total"], page["has_next"], len(page["items"])) == (21, True, 20)


def test_a_sort_takes_several_fields_each_with_its_direction(shelf: Person) -> None:
    page = shelf.get("/items", params={"sort": "-price_cents,-name", "page_size": 100}).json()
    expected = sorted(page["items"], key=lambda row: (row["price_cents"], row["name"]), reverse=True)

    assert page["items"] == expected


def test_a_field_may_be_named_twice_and_counts_once(shelf: Person) -> None:
    twice = shelf.get("/items", params={"sort": "-name,name"}).json()

    assert twice == shelf.get("/items", params={"sort": "-name"}).json()


@pytest.mark.parametrize(("path", "fields"), [("/items", "name, price_cents"), ("/users", "email, full_name")])
def test_the_refusal_of_an_unknown_field_names_the_known_ones(ada: Person, path: str, fields: str) -> None:
    [error] = ada.get(path, params={"sort": "name,colour"}).json()["errors"]

    assert fields in error["msg"]
    assert "colour" not in error["msg"]


def test_accounts_come_in_pages_too(app: App, ada: Person) -> None:
    rows: list[dict[str, Any]] = [
        {"email": f"p{number}@example.com", "full_name": "Same", "full_name_key": "same", "password_hash": ""}
        for number in range(24)
    ]
    with ending(app.state.database.write()) as session:
        session.connection().execute(insert(User), rows)
    pages = [
        ada.get("/users", params={"sort": "full_name", "page": page, "page_size": 10}).json() for page in (1, 2, 3)
    ]

    ids = [user["id"] for page in pages for user in page["items"]]
    assert [(page["total"], page["has_next"]) for page in pages] == [(25, True), (25, True), (25, False)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 25
