"""Pages, their totals, the order of rows, and lists that go on from a cursor."""

from typing import Any

import pytest
from sqlalchemy import insert
from sqlmodel import select

from kit.app import App
from kit.db import ending
from kit.lists import CursorRequest, PageRequest, order_by, rows_of
from models import User
from tests.kit.specimen import Booking, Room
from tests.people import Person, Row

BIGGEST = 2**63 - 1


@pytest.fixture
def shelf(app: App, ada: Person) -> Person:
    """Ada, with 41 rooms of one or two seats."""
    rows: list[Row] = [
        {
            "name": f"Room {number:02}",
            "name_key": f"room {number:02}",
            "seats": 1 + number % 2,
            "tags": [],
            "version": 1,
        }
        for number in range(41, 0, -1)
    ]
    with ending(app.state.database.write()) as session:
        session.connection().execute(insert(Room), rows)
    return ada


def test_a_page_has_20_rows_unless_asked_otherwise(shelf: Person) -> None:
    page = shelf.get("/rooms").json()

    assert [room["name"] for room in page.pop("items")] == [f"Room {number:02}" for number in range(1, 21)]
    assert page == {"total": 41, "page": 1, "page_size": 20, "has_next": True}


def test_every_page_says_what_is_on_it_and_whether_another_follows(shelf: Person, subtests: pytest.Subtests) -> None:
    for page, page_size, rows, has_next in [
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
    ]:
        with subtests.test(f"page {page} of {page_size}"):
            response = shelf.get("/rooms", params={"page": page, "page_size": page_size})
            answer = response.json()
            assert (response.status_code, len(answer["items"]), answer["has_next"]) == (200, rows, has_next)
            assert (answer["total"], answer["page"], answer["page_size"]) == (41, page, page_size)


WRONG_NUMBERS = ["0", "-1", "", "x", "1.0", "1e1", "+1", " 1", "1_0", "0x1", "\u0661", "\0", str(2**63), "9" * 5000]


def test_a_page_is_a_whole_number_from_1(ada: Person, subtests: pytest.Subtests) -> None:
    for path in ("/rooms", "/users"):
        for name in ("page", "page_size"):
            for value in WRONG_NUMBERS:
                with subtests.test(f"{path}?{name}={value[:10]!a}"):
                    response = ada.get(path, params={name: value})
                    assert (response.status_code, response.json()["error_code"]) == (422, "VALIDATION_ERROR")
                    assert [error["loc"] for error in response.json()["errors"]] == [["query", name]]


def test_a_page_has_100_rows_at_most(ada: Person) -> None:
    for path in ("/rooms", "/users"):
        assert ada.get(path, params={"page_size": 100}).status_code == 200
        assert ada.get(path, params={"page_size": 101}).json()["errors"][0]["loc"] == ["query", "page_size"]


def test_a_list_of_nothing_is_a_page(ada: Person) -> None:
    page = ada.get("/rooms").json()

    assert page == {"items": [], "total": 0, "page": 1, "page_size": 20, "has_next": False}


@pytest.mark.parametrize("sort", ["seats", "-seats", "opens_on", "-opens_on", "opens_on,-seats"])
def test_ties_go_by_ascending_id_so_that_pages_neither_repeat_nor_skip(shelf: Person, sort: str) -> None:
    pages = [shelf.get("/rooms", params={"sort": sort, "page_size": 5, "page": page}).json() for page in range(1, 10)]

    rows: list[Row] = [room for page in pages for room in page["items"]]
    expected = sorted(rows, key=lambda row: row["id"])
    if "seats" in sort:
        expected.sort(key=lambda row: row["seats"], reverse="-seats" in sort)
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    assert len({row["id"] for row in rows}) == 41


def test_the_order_is_total_whatever_the_database_would_do_by_itself() -> None:
    order = [str(column) for column in order_by(Room, "seats,-name")]

    assert order == ["room.seats ASC", "room.name DESC", "room.id ASC"]


def test_the_total_and_has_next_follow_the_filters(shelf: Person) -> None:
    page = shelf.get("/rooms", params={"min_seats": 2, "page_size": 20}).json()

    assert (page["total"], page["has_next"], len(page["items"])) == (21, True, 20)


def test_a_sort_takes_several_fields_each_with_its_direction(shelf: Person) -> None:
    page = shelf.get("/rooms", params={"sort": "-seats,-name", "page_size": 100}).json()
    expected = sorted(page["items"], key=lambda row: (row["seats"], row["name"]), reverse=True)

    assert page["items"] == expected


def test_a_field_may_be_named_twice_and_counts_once(shelf: Person) -> None:
    twice = shelf.get("/rooms", params={"sort": "-name,name"}).json()

    assert twice == shelf.get("/rooms", params={"sort": "-name"}).json()


def test_the_refusal_of_an_unknown_field_names_the_known_ones(ada: Person) -> None:
    for path, fields in (("/rooms", "name, seats"), ("/users", "email, full_name")):
        [error] = ada.get(path, params={"sort": "name,colour"}).json()["errors"]
        assert fields in error["msg"]
        assert "colour" not in error["msg"]


def test_a_day_in_a_query_is_one_of_the_calendar(ada: Person, subtests: pytest.Subtests) -> None:
    assert ada.get("/rooms?day=2026-02-28").status_code == 200
    for day in ("0", "1", "20260131", "2026-02-29", "2026-1-1", "1790000000", "2026-01-31T00:00", "0000-01-01", ""):
        with subtests.test(day):
            assert ada.get("/rooms", params={"day": day}).json()["errors"][0]["loc"] == ["query", "day"]


def test_accounts_come_in_pages_too(app: App, ada: Person) -> None:
    rows: list[Row] = [
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


# What a row of a list is


def test_a_row_of_a_list_has_the_columns_and_the_properties_of_its_table(app: App, hall: Row) -> None:
    with ending(app.state.database.read()) as session:
        [row] = PageRequest().of(session, rows_of(Room)).items
        room = session.get_one(Room, hall["id"])

        assert not isinstance(row, Room)
        assert (row.link, row.etag) == (room.link, room.etag)
        assert row.created_at == room.created_at
        assert {field: getattr(row, field) for field in hall} == {field: getattr(room, field) for field in hall}


def test_a_statement_of_objects_gives_objects(app: App, hall: Row) -> None:
    with ending(app.state.database.read()) as session:
        [room] = PageRequest().of(session, select(Room)).items

        assert isinstance(room, Room)


# Lists that go on from a cursor


@pytest.fixture
def booked(app: App, max: Person, hall: Row) -> Person:
    """Max, with seven bookings."""
    for hour in range(7):
        max.post("/bookings", {"room_id": hall["id"], "starts_at": f"2026-01-31T{hour:02}:00:00Z"})
    return max


def all_parts(person: Person, limit: int) -> list[list[int]]:
    parts: list[list[int]] = []
    cursor: str | None = ""
    while cursor is not None:
        query: dict[str, Any] = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        answer = person.get("/bookings", params=query).json()
        parts.append([booking["id"] for booking in answer["items"]])
        cursor = answer["next_cursor"]
    return parts


def test_a_list_goes_on_where_the_cursor_says_until_nothing_is_left(booked: Person) -> None:
    assert all_parts(booked, 3) == [[7, 6, 5], [4, 3, 2], [1]]
    assert all_parts(booked, 7) == all_parts(booked, 100) == [[7, 6, 5, 4, 3, 2, 1]]


def test_what_comes_and_goes_meanwhile_is_neither_skipped_nor_repeated(booked: Person, hall: Row) -> None:
    first = booked.get("/bookings?limit=3").json()
    booked.delete("/bookings/5")
    booked.delete("/bookings/3")
    booked.post("/bookings", {"room_id": hall["id"], "starts_at": "2026-02-01T00:00:00Z"})
    second = booked.get("/bookings", params={"cursor": first["next_cursor"], "limit": 3}).json()

    assert [booking["id"] for booking in second["items"]] == [4, 2, 1]
    assert second["next_cursor"] is None


def test_the_oldest_may_come_first(app: App, booked: Person) -> None:
    with ending(app.state.database.read()) as session:
        first = CursorRequest(limit=2).of(session, Booking, rows_of(Booking), oldest_first=True)
        second = CursorRequest(limit=2, cursor=first.next_cursor).of(
            session, Booking, rows_of(Booking), oldest_first=True
        )

    assert [row.id for row in (*first.items, *second.items)] == [1, 2, 3, 4]


def test_a_cursor_of_another_list_or_of_nobody_is_refused(
    ada: Person, booked: Person, subtests: pytest.Subtests
) -> None:
    of_the_audit = ada.get("/audit?limit=1").json()["next_cursor"]
    ours = booked.get("/bookings?limit=1").json()["next_cursor"]
    for cursor in (of_the_audit, "x", "", "====", "é", ours + "=", ours[:-1], ours + "A", "Qm9va2luZzow", "x" * 101):
        with subtests.test(cursor):
            answer = booked.get("/bookings", params={"cursor": cursor})
            assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "cursor"])


def test_a_part_has_1_to_100_rows(ada: Person, subtests: pytest.Subtests) -> None:
    for limit in (*WRONG_NUMBERS, "101"):
        with subtests.test(limit[:10]):
            assert ada.get("/bookings", params={"limit": limit}).json()["errors"][0]["loc"] == ["query", "limit"]
