"""The stock: what an item may be, finding it, changing it in the version that was seen, and all of it as CSV."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from httpx2 import Client, Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, delete, select

from kit.app import App
from kit.db import ending
from kit.spreadsheets import BATCH, MAX_BYTES, MAX_ROWS
from kit.sqlite import BUSY_SECONDS, SQLITE
from models import Item, ItemCreate, ItemUpdate, OutOfStock
from tests import missing
from tests.databases import on_both_databases
from tests.people import API, PASSWORD, Person, Row, at_once, fields_refused, refusal
from tests.routes import Exceptions
from tests.server import Server, write_lock_held

BILLION = 1_000_000_000
BIGGEST_ID = 2**63 - 1


def names(response: Response) -> list[str]:
    return [item["name"] for item in response.json()["items"]]


def add(person: Person, name: str, **more: Any) -> Row:
    response = person.post("/items", {"name": name, "price_cents": 100} | more)
    assert response.status_code == 201
    return response.json()


# Adding


def test_an_item_is_returned_as_it_was_added(ada: Person) -> None:
    created = ada.post("/items", {"name": "Lamp", "price_cents": 1200, "tags": ["light"]})

    assert created.status_code == 201
    assert ada.get(f"/items/{created.json()['id']}").json() == created.json()


def test_a_new_item_has_its_place_its_defaults_and_version_1(ada: Person) -> None:
    response = ada.post("/items", {"name": "  Lamp ", "price_cents": 1200})

    item = response.json()
    assert response.headers["Location"] == f"{API}/items/{item['id']}"
    assert response.headers["ETag"] == '"1"'
    assert item == {
        "id": item["id"],
        "name": "Lamp",
        "price_cents": 1200,
        "quantity": 0,
        "reorder_level": 0,
        "tags": [],
        "version": 1,
        "created_at": item["created_at"],
        "updated_at": item["updated_at"],
    }
    assert (item["created_at"][-1], item["updated_at"][-1]) == ("Z", "Z")


def test_a_member_may_look_but_not_touch(max: Person, lamp: Row) -> None:
    path = f"/items/{lamp['id']}"

    assert max.get(path).json() == lamp
    assert names(max.get("/items")) == ["Lamp"]
    assert refusal(max.post("/items", {"name": "Desk", "price_cents": 1})) == (403, "FORBIDDEN")
    assert refusal(max.patch(path, {"quantity": 0})) == (403, "FORBIDDEN")
    assert refusal(max.delete(path)) == (403, "FORBIDDEN")
    assert max.get(path).json() == lamp


ACCEPTED: list[tuple[str, Any, Any]] = [
    ("name", "x", "x"),
    ("name", "x" * 100, "x" * 100),
    ("name", " \t\u00a0x ", "x"),
    ("name", "🐴" * 100, "🐴" * 100),
    ("name", "C:\\u0000", "C:\\u0000"),  # a backslash and five characters, no NUL
    ("price_cents", 1, 1),
    ("price_cents", BILLION, BILLION),
    ("quantity", 0, 0),
    ("quantity", BILLION, BILLION),
    ("reorder_level", 0, 0),
    ("reorder_level", BILLION, BILLION),
    ("tags", [], []),
    ("tags", ["x" * 30], ["x" * 30]),
    ("tags", [" red ", "blue\n"], ["red", "blue"]),
    ("tags", ["b", "a"], ["b", "a"]),
    ("tags", [str(number) for number in range(10)], [str(number) for number in range(10)]),
    ("tags", ["a,b", "c d", "e\nf", "ü", "🐴" * 30, "%", "'"], ["a,b", "c d", "e\nf", "ü", "🐴" * 30, "%", "'"]),
]

NUMBERS = ("price_cents", "quantity", "reorder_level")
NO_WHOLE_NUMBERS = ["5", "", 5.0, 5.5, True, False, None, [5], -1, BILLION + 1, 2**31 * 10, 2**63, -(2**63), 10**19]

REFUSED: list[tuple[str, Any, list[str | int]]] = [
    *((field, value, ["body", field]) for field in NUMBERS for value in NO_WHOLE_NUMBERS),
    ("price_cents", 0, ["body", "price_cents"]),
    ("name", "", ["body", "name"]),
    ("name", " \t\u00a0", ["body", "name"]),
    ("name", "x" * 101, ["body", "name"]),
    ("name", None, ["body", "name"]),
    ("name", 5, ["body", "name"]),
    ("name", ["x"], ["body", "name"]),
    ("tags", None, ["body", "tags"]),
    ("tags", "red", ["body", "tags"]),
    ("tags", {"red": 1}, ["body", "tags"]),
    ("tags", [str(number) for number in range(11)], ["body", "tags"]),
    ("tags", ["x" * 31], ["body", "tags", 0]),
    ("tags", ["red", ""], ["body", "tags", 1]),
    ("tags", ["red", "  "], ["body", "tags", 1]),
    ("tags", ["a;b"], ["body", "tags", 0]),
    ("tags", [";"], ["body", "tags", 0]),
    ("tags", ["a\n;b"], ["body", "tags", 0]),
    ("tags", [5], ["body", "tags", 0]),
    ("tags", [None], ["body", "tags", 0]),
    ("tags", [["red"]], ["body", "tags", 0]),
    ("tags", ["red", "red"], ["body", "tags"]),
    ("tags", ["red", " red "], ["body", "tags"]),
    ("id", 5, ["body", "id"]),
    ("version", 1, ["body", "version"]),
    ("created_at", "2026-01-01T00:00:00Z", ["body", "created_at"]),
    ("name_key", "x", ["body", "name_key"]),
    ("nonsense", 1, ["body", "nonsense"]),
]


def test_an_item_may_have(ada: Person, lamp: Row, subtests: pytest.Subtests) -> None:
    for number, (field, value, stored) in enumerate(ACCEPTED):
        with subtests.test(field, value=str(value)[:50]):
            created = ada.post("/items", {"name": f"Desk {number}", "price_cents": 1, field: value})
            item = created.json()

            assert (created.status_code, item.get(field)) == (201, stored)
            assert ada.get(f"/items/{item['id']}").json() == item
            if field == "name":
                assert ada.delete(f"/items/{item['id']}").status_code == 204
            assert ada.patch(f"/items/{lamp['id']}", {field: value}).json()[field] == stored
            ada.patch(f"/items/{lamp['id']}", {"name": "Lamp"})


def test_an_item_may_not_have(subtests: pytest.Subtests) -> None:
    for field, value, loc in REFUSED:
        for schema, body in ((ItemCreate, {"name": "Desk", "price_cents": 1}), (ItemUpdate, {"reorder_level": 1})):
            with subtests.test(schema.__name__, field=field, value=str(value)[:50]):
                with pytest.raises(ValidationError) as refused:
                    TypeAdapter[Any](schema).validate_json(json.dumps(body | {field: value}))

                assert [["body", *error["loc"]] for error in refused.value.errors()] == [loc]


def test_what_may_not_be_is_refused_and_changes_nothing(ada: Person, lamp: Row) -> None:
    for field, value, loc in (REFUSED[0], REFUSED[-1], ("tags", ["red", ""], ["body", "tags", 1])):
        assert fields_refused(ada.post("/items", {"name": "Desk", "price_cents": 1, field: value})) == [loc]
        assert fields_refused(ada.patch(f"/items/{lamp['id']}", {"quantity": 1, field: value})) == [loc]
    assert ada.get("/items").json()["items"] == [lamp]


def test_an_item_needs_a_name_and_a_price(ada: Person) -> None:
    assert fields_refused(ada.post("/items", {"price_cents": 1})) == [["body", "name"]]
    assert fields_refused(ada.post("/items", {"name": "Desk"})) == [["body", "price_cents"]]


NO_ITEMS = [
    '{"name": "x\\u0000", "price_cents": 1}',
    '{"name": "x\\\\\\u0000", "price_cents": 1}',
    '{"name": "\\ud800", "price_cents": 1}',
    '{"name": "x", "price_cents": 1, "tags": ["\\udfff"]}',
    '{"name": "x", "price_cents": 1, "\\u0000": 1}',
    '{"name": "x", "price_cents": NaN}',
    '{"name": "x", "price_cents": Infinity}',
    '{"name": "x", "price_cents": -Infinity}',
    '{"name": "x", "price_cents": 1e999}',
    '{"name": "x", "price_cents": 1e2}',
    '{"name": "x", "price_cents": ' + "9" * 5000 + "}",
    '{"name": "x", "price_cents": 1',
    "[" * 100_000,
    "[]",
    "null",
    '"x"',
    "",
]


def test_a_body_that_is_no_item_is_refused(ada: Person, subtests: pytest.Subtests) -> None:
    for body in NO_ITEMS:
        with subtests.test(body[:50]):
            response = ada.request("POST", "/items", content=body, headers={"Content-Type": "application/json"})
            assert refusal(response) == (422, "VALIDATION_ERROR")

    assert ada.get("/items").json()["total"] == 0


def test_a_pair_of_surrogates_is_one_character(ada: Person) -> None:
    body = '{"name": "\\ud83d\\udc34", "price_cents": 1}'
    response = ada.request("POST", "/items", content=body, headers={"Content-Type": "application/json"})

    assert response.json()["name"] == "🐴"


# Names


def test_a_name_is_taken_whatever_its_case(ada: Person, subtests: pytest.Subtests) -> None:
    other = add(ada, "Other")
    for name, same in [
        ("Lamp", "LAMP"),
        ("Desk", " desk "),
        ("Ödön", "ödÖN"),
        ("Straße", "STRASSE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("ЛАМПА", "лампа"),
    ]:
        with subtests.test(name):
            taken = add(ada, name)

            assert refusal(ada.post("/items", {"name": same, "price_cents": 1})) == (409, "ITEM_NAME_TAKEN")
            assert refusal(ada.patch(f"/items/{other['id']}", {"name": same})) == (409, "ITEM_NAME_TAKEN")
            assert ada.get(f"/items/{other['id']}").json() == other
            assert ada.patch(f"/items/{taken['id']}", {"name": same}).json()["name"] == same.strip()


def test_the_name_of_a_deleted_item_is_free_again_but_not_its_id(ada: Person, lamp: Row) -> None:
    ada.delete(f"/items/{lamp['id']}")

    assert add(ada, "Lamp")["id"] > lamp["id"]


def test_of_many_items_with_one_name_at_once_exactly_one_is_added(ada: Person) -> None:
    names = ["lamp", "LAMP", "Lamp", "lAMP"] * 2
    answers = at_once(8, lambda number: ada.post("/items", {"name": names[number], "price_cents": 1}))

    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 7]


# The list


@pytest.fixture
def shop(ada: Person) -> Person:
    """Ada, with a shop full of items; name, price, quantity, reorder level and tags."""
    for name, price_cents, quantity, reorder_level, *tags in [
        ("Äpfel", 50, 100, 10, "food", "red"),
        ("apron", 1500, 0, 0),
        ("Bulb", 300, 2, 5, "light", "red"),
        ("Cable 100%", 300, 5, 5, "light"),
        ("Desk_lamp", 9900, 1, 0, "light", "red", "a,b"),
        ("Ruß\\Seife/", 250, 0, 3, "Red"),
    ]:
        add(ada, name, price_cents=price_cents, quantity=quantity, reorder_level=reorder_level, tags=tags)
    return ada


EVERYTHING = ["Bulb", "Cable 100%", "Desk_lamp", "Ruß\\Seife/", "apron", "Äpfel"]


FOUND: list[tuple[str, list[str]]] = [
    ("", EVERYTHING),
    ("q=", EVERYTHING),
    ("q=%20", EVERYTHING),
    ("q=AP", ["apron"]),
    ("q=ÄPF", ["Äpfel"]),
    ("q=äpfel", ["Äpfel"]),
    ("q=%20bulb%20", ["Bulb"]),
    ("q=RUSS", ["Ruß\\Seife/"]),
    ("q=%25", ["Cable 100%"]),
    ("q=100%25", ["Cable 100%"]),
    ("q=_", ["Desk_lamp"]),
    ("q=b_l", []),
    ("q=%5C", ["Ruß\\Seife/"]),
    ("q=/", ["Ruß\\Seife/"]),
    ("q=nothing", []),
    ("tag=light", ["Bulb", "Cable 100%", "Desk_lamp"]),
    ("tag=%20light%20", ["Bulb", "Cable 100%", "Desk_lamp"]),
    ("tag=light&tag=red", ["Bulb", "Desk_lamp"]),
    ("tag=red&tag=light", ["Bulb", "Desk_lamp"]),
    ("tag=light&tag=light", ["Bulb", "Cable 100%", "Desk_lamp"]),
    ("tag=light&tag=food", []),
    ("tag=a,b", ["Desk_lamp"]),
    ("tag=a", []),
    ("tag=ligh", []),
    ("tag=ight", []),
    ("tag=red", ["Bulb", "Desk_lamp", "Äpfel"]),
    ("tag=Red", ["Ruß\\Seife/"]),
    ("tag=%25", []),
    ("min_price_cents=300", ["Bulb", "Cable 100%", "Desk_lamp", "apron"]),
    ("max_price_cents=300", ["Bulb", "Cable 100%", "Ruß\\Seife/", "Äpfel"]),
    ("min_price_cents=300&max_price_cents=300", ["Bulb", "Cable 100%"]),
    ("min_price_cents=301&max_price_cents=300", []),
    ("max_price_cents=0", []),
    (f"min_price_cents={BIGGEST_ID}", []),
    (f"max_price_cents={BIGGEST_ID}", EVERYTHING),
    ("in_stock=true", ["Bulb", "Cable 100%", "Desk_lamp", "Äpfel"]),
    ("in_stock=false", ["Ruß\\Seife/", "apron"]),
    ("low_stock=true", ["Bulb", "Cable 100%", "Ruß\\Seife/", "apron"]),
    ("low_stock=false", ["Desk_lamp", "Äpfel"]),
    ("in_stock=true&low_stock=true", ["Bulb", "Cable 100%"]),
    ("in_stock=false&low_stock=false", []),
    ("q=b&tag=light&max_price_cents=300&in_stock=true&low_stock=true&sort=-name", ["Cable 100%", "Bulb"]),
    ("sort=name", EVERYTHING),
    ("sort=-name", EVERYTHING[::-1]),
    ("sort=price_cents", ["Äpfel", "Ruß\\Seife/", "Bulb", "Cable 100%", "apron", "Desk_lamp"]),
    ("sort=-price_cents", ["Desk_lamp", "apron", "Bulb", "Cable 100%", "Ruß\\Seife/", "Äpfel"]),
    ("sort=price_cents,-name", ["Äpfel", "Ruß\\Seife/", "Cable 100%", "Bulb", "apron", "Desk_lamp"]),
    ("sort=quantity", ["apron", "Ruß\\Seife/", "Desk_lamp", "Bulb", "Cable 100%", "Äpfel"]),
    ("sort=-quantity,-price_cents", ["Äpfel", "Cable 100%", "Bulb", "Desk_lamp", "apron", "Ruß\\Seife/"]),
    ("sort=quantity,name,-quantity,-name", ["Ruß\\Seife/", "apron", "Desk_lamp", "Bulb", "Cable 100%", "Äpfel"]),
    ("sort=" + ",".join(["-name"] * 3_000), EVERYTHING[::-1]),
    ("sort=created_at", ["Äpfel", "apron", "Bulb", "Cable 100%", "Desk_lamp", "Ruß\\Seife/"]),
    ("sort=-updated_at", ["Ruß\\Seife/", "Desk_lamp", "Cable 100%", "Bulb", "apron", "Äpfel"]),
]


def test_the_list_of_items_is_filtered_and_sorted(shop: Person, subtests: pytest.Subtests) -> None:
    for query, found in FOUND:
        with subtests.test(query[:80]):
            response = shop.get(f"/items?{query}")

            assert names(response) == found
            assert response.json()["total"] == len(found)


def test_a_list_of_items_has_pages(shop: Person) -> None:
    first, last = (shop.get(f"/items?page_size=4&page={page}") for page in (1, 2))

    assert (names(first), first.json()["has_next"]) == (EVERYTHING[:4], True)
    assert (names(last), last.json()["has_next"]) == (EVERYTHING[4:], False)
    assert (last.json()["total"], last.json()["page"], last.json()["page_size"]) == (6, 2, 4)


def test_a_change_moves_an_item_to_the_end_by_updated_at(shop: Person) -> None:
    apron = shop.get("/items?q=apron").json()["items"][0]
    shop.patch(f"/items/{apron['id']}", {"quantity": 1})

    assert names(shop.get("/items?sort=-updated_at"))[0] == "apron"
    assert names(shop.get("/items?sort=created_at"))[1] == "apron"


WRONG_QUERIES: list[tuple[str, str]] = [
    ("sort=id", "sort"),
    ("sort=tags", "sort"),
    ("sort=name_key", "sort"),
    ("sort=", "sort"),
    ("sort=,", "sort"),
    ("sort=name,", "sort"),
    ("sort=name,%20price_cents", "sort"),
    ("sort=-", "sort"),
    ("sort=--name", "sort"),
    ("sort=Name", "sort"),
    ("tag=", "tag"),
    ("tag=a;b", "tag"),
    ("tag=" + "x" * 31, "tag"),
    ("&".join(f"tag={number}" for number in range(11)), "tag"),
    ("in_stock=maybe", "in_stock"),
    ("low_stock=2", "low_stock"),
    ("min_price_cents=-1", "min_price_cents"),
    ("min_price_cents=1.0", "min_price_cents"),
    ("min_price_cents=1e3", "min_price_cents"),
    (f"min_price_cents={2**63}", "min_price_cents"),
    ("max_price_cents=%2B5", "max_price_cents"),
    ("max_price_cents=x", "max_price_cents"),
    ("max_price_cents=" + "9" * 5000, "max_price_cents"),
    ("q=" + "x" * 256, "q"),
    ("q=%00", "q"),
    ("colour=red", "colour"),
    ("limit=5", "limit"),
]


def test_the_list_of_items_refuses_what_it_does_not_know(ada: Person, subtests: pytest.Subtests) -> None:
    for query, name in WRONG_QUERIES:
        with subtests.test(query[:40]):
            assert [loc[:2] for loc in fields_refused(ada.get(f"/items?{query}"))] == [["query", name]]


def test_a_query_that_is_not_utf_8_is_refused(ada: Person) -> None:
    for query in ("q=%ff", "q=%ed%a0%80", "tag=%c3"):
        assert fields_refused(ada.get(f"/items?{query}")) == [["query"]]


# Showing


def asked(person: Person, method: str, item_id: object) -> Response:
    return person.request(method, f"/items/{item_id}", json={} if method == "PATCH" else None)


def test_an_item_that_does_not_exist_is_not_found(ada: Person, subtests: pytest.Subtests) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        for item_id in (999, BIGGEST_ID):
            with subtests.test(method, item_id=item_id):
                response = asked(ada, method, item_id)

                assert refusal(response) == (404, "ITEM_NOT_FOUND")
                assert response.json()["detail"] == f"Item {item_id} was not found."


NO_NUMBERS = ["0", "-1", "%2B5", "+5", "%205", "5%20", "5.0", "5e0", "0x5", "5_0", "x", "null", "%D9%A5", "%00", "5%0A"]
NO_IDS = [*NO_NUMBERS, "%EF%BC%95", str(2**63), "9" * 30, "9" * 5000]


def test_what_is_no_id_is_refused(ada: Person, subtests: pytest.Subtests) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        for item_id in NO_IDS:
            with subtests.test(method, item_id=item_id[:20]):
                assert fields_refused(asked(ada, method, item_id)) == [["path", "item_id"]]


def test_an_etag_names_the_version(ada: Person, lamp: Row) -> None:
    response = ada.get(f"/items/{lamp['id']}")

    assert response.headers["ETag"] == '"1"'
    assert response.headers["Cache-Control"] == "private, no-cache"


def test_an_item_that_the_caller_has_already_is_not_sent_again(max: Person, lamp: Row) -> None:
    for tags in ('"1"', 'W/"1"', '"7", "1"', '"7","1"', "*"):
        response = max.get(f"/items/{lamp['id']}", headers={"If-None-Match": tags})

        assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", '"1"')
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert "Content-Type" not in response.headers


def test_an_item_that_the_caller_does_not_have_is_sent(max: Person, lamp: Row) -> None:
    for tags in ('"2"', "1", '"', "", '"1', "W/1", '"11"', "\u00fc"):
        response = max.get(f"/items/{lamp['id']}", headers={b"If-None-Match": tags.encode()})

        assert (response.status_code, response.json()) == (200, lamp)


def test_a_changed_item_is_sent_again(ada: Person, lamp: Row) -> None:
    ada.patch(f"/items/{lamp['id']}", {"quantity": 3})
    response = ada.get(f"/items/{lamp['id']}", headers={"If-None-Match": '"1"'})

    assert (response.status_code, response.headers["ETag"], response.json()["quantity"]) == (200, '"2"', 3)


# Changing and deleting


CHANGES: list[Row] = [
    {"name": "Desk lamp"},
    {"name": "DESK LAMP"},
    {"price_cents": 1},
    {"quantity": 0},
    {"reorder_level": 9},
    {"tags": []},
    {"tags": ["light", "red"]},
    {"name": "Desk", "price_cents": 7, "quantity": 8, "reorder_level": 10, "tags": ["wood"]},
]


def test_a_change_changes_what_it_names_and_counts_the_version(ada: Person, lamp: Row) -> None:
    before = lamp
    for version, changes in enumerate(CHANGES, start=2):
        response = ada.patch(f"/items/{lamp['id']}", changes)
        item = response.json()

        assert (response.status_code, response.headers["ETag"]) == (200, f'"{version}"')
        assert item == before | changes | {"version": version, "updated_at": item["updated_at"]}
        assert item["updated_at"] > before["updated_at"]
        assert ada.get(f"/items/{lamp['id']}").json() == item
        before = item


def test_a_change_of_nothing_changes_nothing(ada: Person, lamp: Row) -> None:
    for changes in ({}, {"name": "Lamp", "price_cents": 1200}, {"tags": ["light"], "quantity": 10}):
        response = ada.patch(f"/items/{lamp['id']}", changes)

        assert (response.status_code, response.json(), response.headers["ETag"]) == (200, lamp, '"1"')
    assert ada.get(f"/items/{lamp['id']}").json() == lamp


STALE = ['"2"', '"0"', "1", 'W/"1"', "", '"1', '"2", "3"', "x"]
CURRENT = ['"1"', "*", '"2", "1"', '"2","1"']


def test_another_version_is_neither_changed_nor_deleted(ada: Person, lamp: Row, subtests: pytest.Subtests) -> None:
    for tags in STALE:
        with subtests.test(tags):
            headers = {"If-Match": tags}
            changed = ada.patch(f"/items/{lamp['id']}", {"quantity": 3}, headers=headers)
            deleted = ada.delete(f"/items/{lamp['id']}", headers=headers)

            assert refusal(changed) == refusal(deleted) == (412, "VERSION_CONFLICT")

    assert ada.get(f"/items/{lamp['id']}").json() == lamp


def test_the_version_one_has_seen_is_changed_and_deleted(ada: Person, subtests: pytest.Subtests) -> None:
    for tags in CURRENT:
        with subtests.test(tags):
            path = f"/items/{add(ada, 'Desk')['id']}"
            changed = ada.patch(path, {"quantity": 3}, headers={"If-Match": tags})
            deleted = ada.delete(path, headers={"If-Match": tags.replace("1", changed.headers["ETag"][1])})

            assert (changed.status_code, changed.json()["quantity"], changed.json()["version"]) == (200, 3, 2)
            assert deleted.status_code == 204
            assert refusal(ada.get(path)) == (404, "ITEM_NOT_FOUND")


def test_if_match_any_does_not_match_what_does_not_exist(ada: Person) -> None:
    headers = {"If-Match": "*"}

    assert refusal(ada.patch("/items/999", {}, headers=headers)) == (404, "ITEM_NOT_FOUND")
    assert refusal(ada.delete("/items/999", headers=headers)) == (404, "ITEM_NOT_FOUND")


def test_of_many_changes_of_one_version_at_once_exactly_one_is_made(ada: Person, lamp: Row) -> None:
    def change(number: int) -> Response:
        return ada.patch(f"/items/{lamp['id']}", {"quantity": 20 + number}, headers={"If-Match": '"1"'})

    statuses = [answer.status_code for answer in at_once(8, change)]

    item = ada.get(f"/items/{lamp['id']}").json()
    assert sorted(statuses) == [200, *[412] * 7]
    assert (item["version"], item["quantity"]) == (2, 20 + statuses.index(200))


def test_without_if_match_every_change_counts(ada: Person, lamp: Row) -> None:
    answers = at_once(8, lambda number: ada.patch(f"/items/{lamp['id']}", {"quantity": 20 + number}))

    versions = [answer.json()["version"] for answer in answers]
    item = ada.get(f"/items/{lamp['id']}").json()
    assert sorted(versions) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert item["quantity"] == 20 + versions.index(9)


def test_a_deleted_item_is_gone(ada: Person, max: Person, lamp: Row) -> None:
    response = ada.delete(f"/items/{lamp['id']}")

    assert (response.status_code, response.content) == (204, b"")
    assert refusal(max.get(f"/items/{lamp['id']}")) == (404, "ITEM_NOT_FOUND")
    assert refusal(ada.delete(f"/items/{lamp['id']}")) == (404, "ITEM_NOT_FOUND")
    assert max.get("/items").json()["total"] == 0


def test_no_refusal_echoes_what_was_sent(ada: Person) -> None:
    body = {"name": "s3cret" * 30, "price_cents": "s3cret", "tags": ["s3cret;"], "quantity": {"s3cret": 1}}
    response = ada.post("/items", body)

    assert len(fields_refused(response)) == 4
    assert "s3cret" not in json.dumps(response.json())


# CSV

HEADER = "name,price_cents,quantity,reorder_level,tags"


def upload(person: Person, content: str | bytes, **query: Any) -> Response:
    file = content.encode() if isinstance(content, str) else content
    return person.request("POST", "/items/import", files={"file": ("items.csv", file, "text/csv")}, params=query)


def imported(person: Person, *lines: str, end: str = "\r\n", **query: Any) -> Row:
    """The report of a file with these lines."""
    answer = upload(person, end.join([*lines, ""]), **query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def report(created: int = 0, updated: int = 0, unchanged: int = 0, errors: Iterable[tuple[int, str]] = ()) -> Row:
    told = [{"line": line, "message": message} for line, message in errors]
    return {"created": created, "updated": updated, "unchanged": unchanged, "errors": told}


def why_refused(answer: Response) -> str:
    """Why the whole file was refused."""
    assert refusal(answer) == (422, "VALIDATION_ERROR"), answer.text
    return answer.json()["errors"][0]["msg"]


def exported(person: Person) -> str:
    """The file, with the line ends that it has."""
    return person.get("/items/export").content.decode()


def items(person: Person) -> list[Row]:
    return person.get("/items?page_size=100").json()["items"]


def audit(person: Person) -> list[Row]:
    return person.get("/audit?entity=item&limit=100").json()["items"]


def clear(app: App) -> None:
    with ending(app.state.database.write()) as session:
        session.connection().execute(delete(Item))


# CSV that comes out


def test_an_export_has_a_header_and_one_record_an_item(ada: Person, lamp: Row) -> None:
    ada.post("/items", {"name": "Desk", "price_cents": 9900, "tags": ["wood", "large"]})
    answer = ada.get("/items/export")

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="items.csv"'
    assert answer.content.decode() == f"{HEADER}\r\nLamp,1200,10,2,light\r\nDesk,9900,0,0,wood;large\r\n"


def test_an_empty_stock_exports_as_the_header(ada: Person) -> None:
    assert exported(ada) == f"{HEADER}\r\n"


def test_an_export_has_every_item_once_beyond_one_batch(ada: Person) -> None:
    imported(ada, "name,price_cents", *(f"Item {number},1" for number in range(2 * BATCH + 1)))
    names = [row["name"] for row in csv.DictReader(io.StringIO(exported(ada)))]

    assert names == [f"Item {number}" for number in range(2 * BATCH + 1)]


def test_tags_are_neutralised_too(ada: Person) -> None:
    ada.post("/items", {"name": "Lamp", "price_cents": 1, "tags": ["=1+1", "-5"]})

    assert exported(ada).endswith("Lamp,1,0,0,'=1+1;-5\r\n")
    assert imported(ada, *exported(ada).splitlines()) == report(unchanged=1)


def test_what_only_python_takes_for_a_space_is_kept(ada: Person) -> None:
    item = {"name": "\x1cLamp\x1f", "price_cents": 1, "quantity": 0, "reorder_level": 0, "tags": ["\x1c", "x\x1d"]}
    ada.post("/items", item)

    assert _sent(items(ada)[0]) == item
    assert upload(ada, exported(ada)).json() == report(unchanged=1)


NAMES = [
    "Lamp, large",
    'A 3" pipe',
    "Two\nlines",
    "Two\r\nlines",
    "Two\rlines",
    "a;b",
    "=1+1",
    "-5-6",
    "'=x",
    "''+x",
    "'-5",
    "-5",
    "+3.5",
    "'hello",
    "'",
    "\uff1d1",
]


def test_names_survive_the_way_out_and_in_again(app: App, ada: Person) -> None:
    for name in NAMES:
        add(ada, name)
    file = exported(ada)
    unchanged = upload(ada, file).json()
    clear(app)
    created = upload(ada, file).json()

    assert (unchanged, created) == (report(unchanged=len(NAMES)), report(created=len(NAMES)))
    assert [item["name"] for item in sorted(items(ada), key=_id)] == NAMES


# What JSON can carry, with a taste for what is special in CSV and in spreadsheets.
SPECIAL = st.sampled_from("'=+-@\t\r\n\",; a1.,\uff1d\x1c\x85\ufeff")
CHARACTERS = st.one_of(SPECIAL, st.characters(codec="utf-8", exclude_characters="\0"))
TAG_CHARACTERS = CHARACTERS.filter(lambda character: character != ";")
LEGAL_ITEMS = st.fixed_dictionaries(
    {
        "name": st.text(CHARACTERS, min_size=1, max_size=100),
        "price_cents": st.integers(1, 1_000_000_000),
        "quantity": st.integers(0, 1_000_000_000),
        "reorder_level": st.integers(0, 1_000_000_000),
        "tags": st.lists(st.text(TAG_CHARACTERS, min_size=1, max_size=30), max_size=10, unique=True),
    }
)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # every example begins with an empty stock
)
@given(st.lists(LEGAL_ITEMS, min_size=1, max_size=5))
def test_any_legal_items_survive_the_way_out_and_in_again(app: App, ada: Person, bodies: list[Row]) -> None:
    clear(app)
    accepted = [answer.json() for body in bodies if (answer := ada.post("/items", body)).status_code == 201]
    file = exported(ada)
    unchanged = upload(ada, file).json()
    clear(app)
    created = upload(ada, file).json()

    assert (unchanged, created) == (report(unchanged=len(accepted)), report(created=len(accepted)))
    assert [_sent(item) for item in sorted(items(ada), key=_id)] == [_sent(item) for item in accepted]


def _id(item: Row) -> int:
    return item["id"]


def _sent(item: Row) -> Row:
    return {column: item[column] for column in HEADER.split(",")}


# CSV that comes in


def test_a_column_that_is_absent_is_left_as_it_is(ada: Person, lamp: Row) -> None:
    assert imported(ada, "name,price_cents", "Lamp,1500") == report(updated=1)
    assert _sent(items(ada)[0]) == _sent(lamp) | {"price_cents": 1500}


def test_a_column_that_is_absent_is_at_its_default_in_a_new_item(ada: Person) -> None:
    imported(ada, "name,price_cents", "Desk,1")

    assert _sent(items(ada)[0]) == {"name": "Desk", "price_cents": 1, "quantity": 0, "reorder_level": 0, "tags": []}


def test_an_empty_tags_cell_takes_the_tags_away(ada: Person, lamp: Row) -> None:
    assert imported(ada, "name,price_cents,tags", "Lamp,1200,") == report(updated=1)
    assert items(ada)[0]["tags"] == []


def test_rows_are_matched_by_name_without_case(ada: Person, lamp: Row) -> None:
    assert imported(ada, "name,price_cents", "LAMP,1200") == report(updated=1)
    assert [(item["id"], item["name"]) for item in items(ada)] == [(lamp["id"], "LAMP")]


def test_created_updated_and_unchanged_are_counted_apart(ada: Person, lamp: Row) -> None:
    ada.post("/items", {"name": "Desk", "price_cents": 5})
    lines = ["name,price_cents", "Lamp,1200", "Desk,6", "Chair,7", "Shelf,8"]

    assert imported(ada, *lines) == report(created=2, updated=1, unchanged=1)


def test_the_columns_may_be_in_any_order_and_cells_have_space_around_them(ada: Person) -> None:
    imported(ada, " tags ;reorder_level;price_cents;name;quantity", '"light; ; sale";3; 1200 ; Lamp, large ;7')
    sent = {"name": "Lamp, large", "price_cents": 1200, "quantity": 7, "reorder_level": 3, "tags": ["light", "sale"]}

    assert _sent(items(ada)[0]) == sent


def test_a_wrong_file_is_refused_with_what_to_do(ada: Person) -> None:
    answer = upload(ada, b"name,colour\r\n")

    assert why_refused(answer) == f"The column 'colour' is not known; the columns are {HEADER.replace(',', ', ')}"
    assert answer.json()["errors"][0]["loc"] == ["body", "file"]
    assert why_refused(upload(ada, b"name\r\nLamp\r\n")).startswith("The column 'price_cents' is missing; ")


def test_a_file_that_stops_being_utf_8_in_row_5000_writes_nothing(ada: Person) -> None:
    rows = [b"Item %d,1\r\n" % number for number in range(5_000)]
    rows[4_999] = b"L\xe4mp,1\r\n"

    assert why_refused(upload(ada, b"name,price_cents\r\n" + b"".join(rows))) == "Save the file as UTF-8"
    assert (items(ada), audit(ada)) == ([], [])


def test_a_file_of_more_than_16_mib_is_413(ada: Person) -> None:
    for too_many in (1, 1024 * 1024):
        assert refusal(upload(ada, b"x" * (MAX_BYTES + too_many))) == (413, "BODY_TOO_LARGE")


def test_a_file_of_16_mib_is_read(ada: Person) -> None:
    assert refusal(upload(ada, b"x" * MAX_BYTES)) == (422, "VALIDATION_ERROR")


def test_a_file_of_nearly_16_mib_is_read(ada: Person) -> None:
    padding = b" " * 1_000 + b"\r\n"
    file = b"name,price_cents\r\n" + b"Lamp,1" + padding * 16_000

    assert len(file) > 0.95 * MAX_BYTES
    assert upload(ada, file).json()["created"] == 1


WRONG_CELLS: list[tuple[str, str, str]] = [
    ("name", "", "name: String should have at least 1 character"),
    ("name", "x" * 101, "name: String should have at most 100 characters"),
    ("name", "La\0mp", "It must not have NUL characters"),
    ("price_cents", "", "price_cents: Input should be a whole number in plain digits"),
    ("price_cents", "12.50", "price_cents: Input should be a whole number in plain digits"),
    ("price_cents", "1e3", "price_cents: Input should be a whole number in plain digits"),
    ("price_cents", "٣", "price_cents: Input should be a whole number in plain digits"),
    ("price_cents", "0", "price_cents: Input should be greater than or equal to 1"),
    ("price_cents", "1000000001", "price_cents: Input should be less than or equal to 1000000000"),
    ("price_cents", "9" * 5_000, "price_cents: Input should be a whole number in plain digits"),
    ("quantity", "-1", "quantity: Input should be a whole number in plain digits"),
    ("quantity", "many", "quantity: Input should be a whole number in plain digits"),
    ("quantity", "1000000001", "quantity: Input should be less than or equal to 1000000000"),
    ("reorder_level", "1_0", "reorder_level: Input should be a whole number in plain digits"),
    ("tags", "a;a", "tags: No two may be alike"),
    ("tags", "x" * 31, "tags: String should have at most 30 characters"),
    ("tags", ";".join("abcdefghijk"), "tags: List should have at most 10 items after validation, not 11"),
]


def test_a_wrong_cell_is_named(ada: Person) -> None:
    right = {"name": "Lamp", "price_cents": "1", "quantity": "0", "reorder_level": "0", "tags": ""}
    rows = [
        ",".join((right | {"name": f"Lamp {line}", column: cell}).values())
        for line, (column, cell, _) in enumerate(WRONG_CELLS)
    ]
    expected = [(line, message) for line, (_, _, message) in enumerate(WRONG_CELLS, start=2)]

    assert imported(ada, HEADER, *rows) == report(errors=expected)
    assert items(ada) == []


def test_all_faults_of_a_row_are_named(ada: Person) -> None:
    message = "name: String should have at least 1 character; price_cents: Input should be greater than or equal to 1"

    assert imported(ada, "name,price_cents", ",0") == report(errors=[(2, message)])


def test_a_name_twice_in_one_file_is_an_error_of_its_row(ada: Person) -> None:
    lines = ["name,price_cents", "Straße,1", "Desk,2", "STRASSE,3"]

    assert imported(ada, *lines) == report(created=2, errors=[(4, "name: It stands in this file twice")])


def test_a_name_twice_is_found_across_batches(ada: Person) -> None:
    lines = [f"Item {number},1" for number in range(BATCH + 1)]
    found = imported(ada, "name,price_cents", *lines, "item 0,1")

    assert found == report(created=BATCH + 1, errors=[(BATCH + 3, "name: It stands in this file twice")])


@pytest.mark.parametrize("place", [0, BATCH + 1], ids=["in the first batch", "after a batch that was fine"])
def test_one_error_keeps_everything_from_being_written(place: int, ada: Person, lamp: Row) -> None:
    lines = ["Lamp,1", *(f"Item {number},1" for number in range(BATCH))]
    lines.insert(place, "Desk,none")
    before = items(ada), audit(ada)
    found = imported(ada, "name,price_cents", *lines)

    assert (found["created"], found["updated"], len(found["errors"])) == (BATCH, 1, 1)
    assert (items(ada), audit(ada)) == before


def test_a_dry_run_says_what_would_happen_and_writes_nothing(ada: Person, lamp: Row) -> None:
    before = items(ada), audit(ada)
    lines = ["name,price_cents", "Lamp,1", "Desk,1"]

    assert imported(ada, *lines, dry_run="true") == report(created=1, updated=1)
    assert (items(ada), audit(ada)) == before
    assert imported(ada, *lines, dry_run="false") == report(created=1, updated=1)


@pytest.mark.sqlite_only("it holds the write lock of the file")
def test_a_dry_run_only_reads(app: App, ada: Person) -> None:
    with write_lock_held(app.state.settings.sqlite_path):
        assert imported(ada, "name,price_cents", "Lamp,1", dry_run="true") == report(created=1)


def test_a_dry_run_reports_errors_too(ada: Person) -> None:
    found = imported(ada, "name,price_cents", "Lamp,1", "Desk,0", dry_run="true")

    assert (found["created"], [error["line"] for error in found["errors"]]) == (1, [3])


# What follows from an import


def test_an_unchanged_row_leaves_no_trace(ada: Person, lamp: Row) -> None:
    before = audit(ada)

    assert imported(ada, HEADER, "Lamp,1200,10,2,light") == report(unchanged=1)
    assert (items(ada), audit(ada)) == ([lamp], before)


def test_a_changed_row_counts_its_version_and_its_time(ada: Person, lamp: Row) -> None:
    imported(ada, "name,price_cents", "Lamp,1300")
    (item,) = items(ada)

    assert (item["version"], item["created_at"]) == (2, lamp["created_at"])
    assert item["updated_at"] > lamp["updated_at"]


def test_an_imported_item_is_like_one_that_was_posted(ada: Person) -> None:
    imported(ada, HEADER, "Straße,1200,10,2,light")
    posted = ada.post("/items", {"name": "Desk", "price_cents": 1}).json()
    found = ada.get("/items?q=STRASSE").json()["items"][0]

    assert found.keys() == posted.keys()
    assert found["version"] == 1
    assert ada.get(f"/items/{found['id']}").json() == found


def test_the_audit_has_every_change_of_an_import(ada: Person, lamp: Row) -> None:
    imported(ada, "name,price_cents,quantity", "Lamp,1300,10", "Desk,1,2")
    update, create = sorted(audit(ada)[:2], key=lambda entry: entry["entity_id"])
    desk = ada.get("/items?q=desk").json()["items"][0]

    assert (update["action"], update["entity_id"], update["actor_id"]) == ("update", lamp["id"], ada.id)
    assert update["changes"] == {"price_cents": [1200, 1300]}
    assert (create["action"], create["entity_id"], create["actor_id"]) == ("create", desk["id"], ada.id)
    assert create["changes"] == {column: [None, desk[column]] for column in HEADER.split(",")}
    assert create["request_id"] == update["request_id"]


def test_an_import_warns_the_other_admins_of_low_stock(ada: Person, eva: Person, max: Person, lamp: Row) -> None:
    ada.patch(f"/users/{eva.id}", {"role": "admin"})
    imported(ada, "name,price_cents,quantity", "Lamp,1200,2", "Desk,1,0")
    told = [person.get("/notifications").json()["items"] for person in (ada, eva, max)]

    assert [len(notifications) for notifications in told] == [0, 1, 0]
    assert told[1][0]["kind"] == "low_stock"
    assert told[1][0]["message"] == "Lamp is low: 2 left, the level is 2."
    assert told[1][0]["link"] == f"{API}/items/{lamp['id']}"


@pytest.mark.parametrize(
    ("lines", "query"),
    [(["Lamp,1200,1", "Desk,0,0"], {}), (["Lamp,1200,1"], {"dry_run": "true"}), (["Lamp,1200,3"], {})],
    ids=["an error", "a dry run", "enough left"],
)
def test_nobody_is_warned_of_what_did_not_happen(
    lines: list[str], query: dict[str, str], ada: Person, eva: Person, lamp: Row
) -> None:
    ada.patch(f"/users/{eva.id}", {"role": "admin"})
    imported(ada, "name,price_cents,quantity", *lines, **query)

    assert eva.get("/notifications").json()["items"] == []


# Who may use CSV, and what else is refused


def test_a_member_may_neither_export_nor_import(max: Person) -> None:
    assert refusal(upload(max, HEADER)) == refusal(max.get("/items/export")) == (403, "FORBIDDEN")


WRONG_UPLOADS: list[tuple[dict[str, Any], list[str]]] = [
    ({"files": {"file": ("a.csv", b"x")}, "data": {"mode": "fast"}}, ["body", "mode"]),
    ({"files": {"upload": ("a.csv", b"x")}}, ["body", "file"]),
    ({"files": {"file": (None, "name,price_cents")}}, ["body", "file"]),
    ({"data": {"file": "name,price_cents"}}, ["body", "file"]),
    ({"json": {"file": "name,price_cents"}}, ["body", "file"]),
    ({"content": b"name,price_cents", "headers": {"Content-Type": "text/csv"}}, ["body", "file"]),
    ({"files": {"file": ("a.csv", b"x")}, "params": {"dry_run": "maybe"}}, ["query", "dry_run"]),
    ({"files": {"file": ("a.csv", b"x")}, "params": {"dryrun": "true"}}, ["query", "dryrun"]),
]


def test_anything_but_one_file_is_422(ada: Person, subtests: pytest.Subtests) -> None:
    for options, loc in WRONG_UPLOADS:
        with subtests.test(str(options)):
            assert loc in fields_refused(ada.request("POST", "/items/import", **options))


@on_both_databases
def test_the_stock_is_the_same_on_both_databases(shop: Person) -> None:
    file = exported(shop)
    taken = shop.post("/items", {"name": "RUSS\\SEIFE/", "price_cents": 1})
    found = {query: names(shop.get(f"/items?{query}")) for query, _ in FOUND if len(query) < 100}

    assert refusal(taken) == (409, "ITEM_NAME_TAKEN")
    assert found == {query: names for query, names in FOUND if len(query) < 100}
    assert upload(shop, file).json() == report(unchanged=6)
    assert imported(shop, "name,price_cents", "BULB,1", "Chair,2") == report(created=1, updated=1)


# How much CSV takes


@pytest.mark.slow
def test_100_000_rows_come_in_and_go_out_again_in_96_mib(tmp_path: Path, template: Path) -> None:
    """The file itself has 7 MB, and SQLite may keep 16 MB of pages; an item takes about 200 bytes while it comes in."""
    missing.require_linux()
    shutil.copy(template, tmp_path / "app.db")
    account = {"APP_ADMIN_EMAIL": "ada@example.com", "APP_ADMIN_PASSWORD": PASSWORD}
    server = Server(tmp_path, 1, account)
    with server.running(), Client(base_url=server.url + API, timeout=300) as client:
        tokens = client.post("/auth/token", data={"username": "ada@example.com", "password": PASSWORD}).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        lines = (f"Ergonomic office chair number {number},12900,50,5,furniture;blue\r\n" for number in range(MAX_ROWS))
        file = f"{HEADER}\r\n{''.join(lines)}".encode()
        before = _peak_memory(server)
        came_in = client.post("/items/import", files={"file": ("items.csv", file)}).json()
        went_out = client.get("/items/export").content

        assert (came_in, went_out) == (report(created=MAX_ROWS), file)
        assert _peak_memory(server) - before < 96 * 1024 * 1024


@pytest.mark.slow
def test_an_import_of_100_000_changed_rows_lets_others_order(
    tmp_path: Path, template: Path, record_property: Callable[[str, object], None]
) -> None:
    shutil.copy(template, tmp_path / "app.db")
    server = Server(tmp_path, 2)

    def file(price: int) -> dict[str, Any]:
        rows = (f"Chair {number},{price},50,5,furniture\r\n" for number in range(MAX_ROWS))
        return {"files": {"file": ("items.csv", f"{HEADER}\r\n{''.join(rows)}".encode())}, "timeout": 300}

    with server.running(), server.as_ada() as ada, ThreadPoolExecutor(2) as threads:
        ada.post("/items/import", **file(1)).raise_for_status()
        lamp = ada.post("/items", json={"name": "Lamp", "price_cents": 1, "quantity": 100_000}).json()
        changing = threads.submit(ada.post, "/items/import", **file(2))
        watching = threads.submit(_longest_lock, server.database_path, changing.done)
        answers: list[int] = []
        while not changing.done():
            with server.connect(ada.headers["Authorization"]) as other:  # by either worker
                answers.append(
                    other.post("/orders", json={"lines": [{"item_id": lamp["id"], "quantity": 1}]}).status_code
                )
        held, changed = watching.result(), changing.result().json()

    record_property("seconds under the write lock", round(held, 2))
    assert changed == report(updated=MAX_ROWS)
    assert held < BUSY_SECONDS  # about two on a quiet machine
    assert set(answers) == {201}


def _longest_lock(path: Path, is_over: Callable[[], bool]) -> float:
    """For how many seconds on end nobody else could write."""
    longest, free_at = 0.0, monotonic()
    with closing(SQLITE.connect(path, isolation_level=None, timeout=0)) as connection:
        while not is_over():
            with suppress(SQLITE.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
                free_at = monotonic()
            longest = max(longest, monotonic() - free_at)
            sleep(0.005)
    return longest


def _peak_memory(server: Server) -> int:
    """The most that the server ever held in memory, in bytes, from Linux's own books."""
    (process_id,) = re.findall(r"Started server process \[(\d+)\]", server.log)
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process_id}/status").read_text())
    return int(kilobytes) * 1024


# What the table promises below the routes


@pytest.fixture
def session(app: App) -> Generator[Session]:
    with ending(app.state.database.write()) as session:
        yield session


def add_item(session: Session, name: str = "Lamp", quantity: int = 0, tags: tuple[str, ...] = ()) -> Item:
    data = ItemCreate(name=name, price_cents=100, quantity=quantity, tags=list(tags))
    item = Item.model_validate(data)
    session.add(item)
    session.flush()
    return item


def test_a_tag_is_found_whole_and_with_its_case(session: Session) -> None:
    add_item(session, tags=("red", "blue"))
    tags = ("red", "blue", "re", "Red", "ed;bl", "%")
    found = [session.exec(select(Item).where(Item.has_tag(tag))).first() is not None for tag in tags]

    assert found == [True, True, False, False, False, False]


def test_stock_is_taken_of_all_items_or_of_none(session: Session) -> None:
    lamp, desk = add_item(session, "Lamp", 10), add_item(session, "Desk", 3)
    Item.restock(session, [(lamp, -4), (desk, -1)])

    assert (lamp.quantity, lamp.version, desk.quantity) == (6, 2, 2)
    with pytest.raises(OutOfStock) as short:
        Item.restock(session, [(lamp, -1), (desk, -3)])
    assert short.value.errors == [{"item_id": desk.id, "requested": 3, "available": 2}]


def test_the_database_itself_refuses_impossible_items(app: App, subtests: pytest.Subtests) -> None:
    for change, constraint in (("quantity = -1", "ck_item_quantity"), ("price_cents = 0", "ck_item_price_cents")):
        with subtests.test(change), app.state.database.write() as session:
            add_item(session)
            with pytest.raises(IntegrityError, match=constraint):
                session.connection().execute(text(f"UPDATE item SET {change}"))  # noqa: S608 - from here


# What the sweeps cannot know


SWEEP = Exceptions(
    bodies={
        "POST /items": {"quantity": 10, "reorder_level": 2},
        "PATCH /items/{item_id}": {"quantity": 1},
        "POST /items/import": {"file": b"name,price_cents"},
    },
    lists={"GET /items/export": lambda world, _number: world.make("item_id")},
    costs={"PATCH /items/{item_id}": (1, 5), "GET /items/export": (4, 3), "POST /items/import": (3, 2)},
    reasons=frozenset({"body.file csv"}),
    plans={"/items": "ix_item_name", "/items?low_stock=true": "ix_item_low_stock"},
)
