"""The stock."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from httpx2 import Response

from tests.conftest import API, Person
from tests.routes import Exceptions

BILLION = 1_000_000_000
BIGGEST_ID = 2**63 - 1


def refusal(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["error_code"]


def fields_refused(response: Response) -> list[list[str | int]]:
    assert refusal(response) == (422, "VALIDATION_ERROR")
    return [error["loc"] for error in response.json()["errors"]]


def names(response: Response) -> list[str]:
    return [item["name"] for item in response.json()["items"]]


def add(person: Person, name: str, **more: Any) -> dict[str, Any]:
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


def test_a_member_may_look_but_not_touch(max: Person, lamp: dict[str, Any]) -> None:
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


@pytest.mark.parametrize(("field", "value", "stored"), ACCEPTED)
def test_an_item_may_have(ada: Person, lamp: dict[str, Any], field: str, value: object, stored: object) -> None:
    body: dict[str, Any] = {"name": "Desk", "price_cents": 1, field: value}
    created, changed = ada.post("/items", body), ada.patch(f"/items/{lamp['id']}", {field: value})

    assert (created.status_code, created.json().get(field)) == (201, stored)
    assert ada.get(f"/items/{created.json()['id']}").json() == created.json()
    # The name is taken by the item that was just made.
    assert refusal(changed) == (409, "ITEM_NAME_TAKEN") if field == "name" else changed.json()[field] == stored


@pytest.mark.parametrize(("field", "value", "loc"), REFUSED)
def test_an_item_may_not_have(
    ada: Person, lamp: dict[str, Any], field: str, value: object, loc: list[str | int]
) -> None:
    body: dict[str, Any] = {"name": "Desk", "price_cents": 1, field: value}

    assert fields_refused(ada.post("/items", body)) == [loc]
    assert fields_refused(ada.patch(f"/items/{lamp['id']}", {"reorder_level": 1, field: value})) == [loc]
    assert ada.get("/items").json()["items"] == [lamp]


@pytest.mark.parametrize("field", ["name", "price_cents"])
def test_an_item_needs(ada: Person, field: str) -> None:
    body = {"name": "Desk", "price_cents": 1}
    del body[field]

    assert fields_refused(ada.post("/items", body)) == [["body", field]]


@pytest.mark.parametrize(
    "body",
    [
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
    ],
    ids=lambda body: body[:50],
)
def test_a_body_that_is_no_item_is_refused(ada: Person, body: str) -> None:
    response = ada.request("POST", "/items", content=body, headers={"Content-Type": "application/json"})

    assert refusal(response) == (422, "VALIDATION_ERROR")
    assert ada.get("/items").json()["total"] == 0


def test_a_pair_of_surrogates_is_one_character(ada: Person) -> None:
    body = '{"name": "\\ud83d\\udc34", "price_cents": 1}'
    response = ada.request("POST", "/items", content=body, headers={"Content-Type": "application/json"})

    assert response.json()["name"] == "🐴"


# Names


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("Lamp", "LAMP"),
        ("Lamp", " lamp "),
        ("Ödön", "ödÖN"),
        ("Straße", "STRASSE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("ЛАМПА", "лампа"),
    ],
)
def test_a_name_is_taken_whatever_its_case(ada: Person, name: str, same: str) -> None:
    taken, other = add(ada, name), add(ada, "Other")

    assert refusal(ada.post("/items", {"name": same, "price_cents": 1})) == (409, "ITEM_NAME_TAKEN")
    assert refusal(ada.patch(f"/items/{other['id']}", {"name": same})) == (409, "ITEM_NAME_TAKEN")
    assert ada.get(f"/items/{other['id']}").json() == other
    assert ada.patch(f"/items/{taken['id']}", {"name": same}).json()["name"] == same.strip()


def test_the_name_of_a_deleted_item_is_free_again_but_not_its_id(ada: Person, lamp: dict[str, Any]) -> None:
    ada.delete(f"/items/{lamp['id']}")

    assert add(ada, "Lamp")["id"] > lamp["id"]


def test_of_many_items_with_one_name_at_once_exactly_one_is_added(ada: Person) -> None:
    def attempt(name: str) -> int:
        return ada.post("/items", {"name": name, "price_cents": 1}).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = pool.map(attempt, ["lamp", "LAMP", "Lamp", "lAMP"] * 2)

    assert sorted(statuses) == [201, *[409] * 7]


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


@pytest.mark.parametrize(
    ("query", "found"),
    [
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
    ],
)
def test_the_list_of_items_with(shop: Person, query: str, found: list[str]) -> None:
    response = shop.get(f"/items?{query}")

    assert names(response) == found
    assert response.json()["total"] == len(found)


def test_a_change_moves_an_item_to_the_end_by_updated_at(shop: Person) -> None:
    apron = shop.get("/items?q=apron").json()["items"][0]
    shop.patch(f"/items/{apron['id']}", {"quantity": 1})

    assert names(shop.get("/items?sort=-updated_at"))[0] == "apron"
    assert names(shop.get("/items?sort=created_at"))[1] == "apron"


@pytest.mark.parametrize(
    ("query", "name"),
    [
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
    ],
    ids=lambda value: value[:40],
)
def test_the_list_of_items_refuses(ada: Person, query: str, name: str) -> None:
    locs = fields_refused(ada.get(f"/items?{query}"))

    assert [loc[:2] for loc in locs] == [["query", name]]


@pytest.mark.parametrize("query", ["q=%ff", "q=%ed%a0%80", "tag=%c3"])
def test_a_query_that_is_not_utf_8_is_refused(ada: Person, query: str) -> None:
    assert fields_refused(ada.get(f"/items?{query}")) == [["query"]]


# Showing


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("item_id", [999, BIGGEST_ID])
def test_an_item_that_does_not_exist_is_not_found(ada: Person, method: str, item_id: int) -> None:
    response = ada.request(method, f"/items/{item_id}", json={} if method == "PATCH" else None)

    assert refusal(response) == (404, "ITEM_NOT_FOUND")
    assert response.json()["detail"] == f"Item {item_id} was not found."


NO_NUMBERS = ["0", "-1", "%2B5", "+5", "%205", "5%20", "5.0", "5e0", "0x5", "5_0", "x", "null", "%D9%A5", "%00", "5%0A"]
NO_IDS = [*NO_NUMBERS, "%EF%BC%95", str(2**63), "9" * 30, "9" * 5000]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("item_id", NO_IDS, ids=lambda item_id: item_id[:20])
def test_what_is_no_id_is_refused(ada: Person, method: str, item_id: str) -> None:
    response = ada.request(method, f"/items/{item_id}", json={} if method == "PATCH" else None)

    assert fields_refused(response) == [["path", "item_id"]]


def test_an_etag_names_the_version(ada: Person, lamp: dict[str, Any]) -> None:
    response = ada.get(f"/items/{lamp['id']}")

    assert response.headers["ETag"] == '"1"'
    assert response.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("tags", ['"1"', 'W/"1"', '"7", "1"', '"7","1"', "*"])
def test_an_item_that_the_caller_has_already_is_not_sent_again(max: Person, lamp: dict[str, Any], tags: str) -> None:
    response = max.get(f"/items/{lamp['id']}", headers={"If-None-Match": tags})

    assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", '"1"')
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert "Content-Type" not in response.headers


@pytest.mark.parametrize("tags", ['"2"', "1", '"', "", '"1', "W/1", '"11"', "\u00fc"])
def test_an_item_that_the_caller_does_not_have_is_sent(max: Person, lamp: dict[str, Any], tags: str) -> None:
    response = max.get(f"/items/{lamp['id']}", headers={b"If-None-Match": tags.encode()})

    assert (response.status_code, response.json()) == (200, lamp)


def test_a_changed_item_is_sent_again(ada: Person, lamp: dict[str, Any]) -> None:
    ada.patch(f"/items/{lamp['id']}", {"quantity": 3})
    response = ada.get(f"/items/{lamp['id']}", headers={"If-None-Match": '"1"'})

    assert (response.status_code, response.headers["ETag"], response.json()["quantity"]) == (200, '"2"', 3)


# Changing and deleting


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Desk lamp"},
        {"name": "LAMP"},
        {"price_cents": 1},
        {"quantity": 0},
        {"reorder_level": 9},
        {"tags": []},
        {"tags": ["light", "red"]},
        {"name": "Desk", "price_cents": 7, "quantity": 8, "reorder_level": 9, "tags": ["wood"]},
    ],
)
def test_a_change_changes_what_it_names_and_counts_the_version(
    ada: Person, lamp: dict[str, Any], changes: dict[str, Any]
) -> None:
    response = ada.patch(f"/items/{lamp['id']}", changes)

    item = response.json()
    assert (response.status_code, response.headers["ETag"]) == (200, '"2"')
    assert item == lamp | changes | {"version": 2, "updated_at": item["updated_at"]}
    assert item["updated_at"] > lamp["updated_at"]
    assert ada.get(f"/items/{lamp['id']}").json() == item


@pytest.mark.parametrize("changes", [{}, {"name": "Lamp", "price_cents": 1200}, {"tags": ["light"], "quantity": 10}])
def test_a_change_of_nothing_changes_nothing(ada: Person, lamp: dict[str, Any], changes: dict[str, Any]) -> None:
    response = ada.patch(f"/items/{lamp['id']}", changes)

    assert (response.status_code, response.json(), response.headers["ETag"]) == (200, lamp, '"1"')
    assert ada.get(f"/items/{lamp['id']}").json() == lamp


STALE = ['"2"', '"0"', "1", 'W/"1"', "", '"1', '"2", "3"', "x"]
CURRENT = ['"1"', "*", '"2", "1"', '"2","1"']


@pytest.mark.parametrize("tags", STALE)
def test_a_change_of_another_version_is_refused(ada: Person, lamp: dict[str, Any], tags: str) -> None:
    response = ada.patch(f"/items/{lamp['id']}", {"quantity": 3}, headers={"If-Match": tags})

    assert refusal(response) == (412, "VERSION_CONFLICT")
    assert ada.get(f"/items/{lamp['id']}").json() == lamp


@pytest.mark.parametrize("tags", STALE)
def test_the_deletion_of_another_version_is_refused(ada: Person, lamp: dict[str, Any], tags: str) -> None:
    response = ada.delete(f"/items/{lamp['id']}", headers={"If-Match": tags})

    assert refusal(response) == (412, "VERSION_CONFLICT")
    assert ada.get(f"/items/{lamp['id']}").json() == lamp


@pytest.mark.parametrize("tags", CURRENT)
def test_a_change_of_the_version_one_has_seen_is_made(ada: Person, lamp: dict[str, Any], tags: str) -> None:
    response = ada.patch(f"/items/{lamp['id']}", {"quantity": 3}, headers={"If-Match": tags})

    assert (response.status_code, response.json()["quantity"], response.json()["version"]) == (200, 3, 2)


@pytest.mark.parametrize("tags", CURRENT)
def test_the_deletion_of_the_version_one_has_seen_is_made(ada: Person, lamp: dict[str, Any], tags: str) -> None:
    assert ada.delete(f"/items/{lamp['id']}", headers={"If-Match": tags}).status_code == 204
    assert refusal(ada.get(f"/items/{lamp['id']}")) == (404, "ITEM_NOT_FOUND")


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_if_match_any_does_not_match_what_does_not_exist(ada: Person, method: str) -> None:
    response = ada.request(method, "/items/999", json={} if method == "PATCH" else None, headers={"If-Match": "*"})

    assert refusal(response) == (404, "ITEM_NOT_FOUND")


def test_of_many_changes_of_one_version_at_once_exactly_one_is_made(ada: Person, lamp: dict[str, Any]) -> None:
    def change(quantity: int) -> int:
        headers = {"If-Match": '"1"'}
        return ada.patch(f"/items/{lamp['id']}", {"quantity": quantity}, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(change, range(20, 28)))

    item = ada.get(f"/items/{lamp['id']}").json()
    assert sorted(statuses) == [200, *[412] * 7]
    assert (item["version"], item["quantity"]) == (2, 20 + statuses.index(200))


def test_without_if_match_every_change_counts(ada: Person, lamp: dict[str, Any]) -> None:
    def change(quantity: int) -> int:
        return ada.patch(f"/items/{lamp['id']}", {"quantity": quantity}).json()["version"]

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(change, range(20, 28)))

    item = ada.get(f"/items/{lamp['id']}").json()
    assert sorted(versions) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert item["quantity"] == 20 + versions.index(9)


def test_a_deleted_item_is_gone(ada: Person, max: Person, lamp: dict[str, Any]) -> None:
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


# What the sweeps cannot know


SWEEP = Exceptions(
    bodies={
        "POST /items": {"quantity": 10, "reorder_level": 2},
        "PATCH /items/{item_id}": {"quantity": 1},
        "POST /items/import": {"file": b"name,price_cents"},
    },
    lists={"GET /items/export": lambda world, _number: world.make("item_id")},
    costs={"PATCH /items/{item_id}": (1, 5), "GET /items/export": (4, 3), "POST /items/import": (1, 1)},
    reasons=frozenset({"body.file csv"}),
    plans={"/items": "ix_item_name", "/items?low_stock=true": "ix_item_low_stock"},
)
