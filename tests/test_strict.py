"""Strict input: JSON that is JSON, text that is text, and nothing that nobody declared."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.conftest import API, Person

JSON = {"Content-Type": "application/json"}
ITEM = '{"name": "Lamp", "price_cents": %s}'
REFUSED = (422, "VALIDATION_ERROR")

# what it is, the body, what the answer says
UNREADABLE: list[tuple[str, bytes, tuple[int, str]]] = [
    ("NaN", (ITEM % "NaN").encode(), REFUSED),
    ("Infinity", (ITEM % "Infinity").encode(), REFUSED),
    ("-Infinity", (ITEM % "-Infinity").encode(), REFUSED),
    ("1e999", (ITEM % "1e999").encode(), REFUSED),
    ("-1e999", (ITEM % "-1e999").encode(), REFUSED),
    ("1.5", (ITEM % "1.5").encode(), REFUSED),
    ("1e2", (ITEM % "1e2").encode(), REFUSED),
    ("5000 digits", (ITEM % ("9" * 5000)).encode(), REFUSED),
    ("5000 digits below zero", (ITEM % ("-" + "9" * 5000)).encode(), REFUSED),
    ("2^63", (ITEM % 2**63).encode(), REFUSED),
    ("-2^63-1", (ITEM % (-(2**63) - 1)).encode(), REFUSED),
    ("2^64", (ITEM % 2**64).encode(), REFUSED),
    ("NaN where nobody asked", b'{"name": "Lamp", "price_cents": 1, "more": [NaN]}', REFUSED),
    ("leading zero", (ITEM % "01").encode(), REFUSED),
    ("hexadecimal", (ITEM % "0x1").encode(), REFUSED),
    ("text for a number", (ITEM % '"1"').encode(), REFUSED),
    ("true for a number", (ITEM % "true").encode(), REFUSED),
    ("single quotes", b"{'name': 'Lamp', 'price_cents': 1}", REFUSED),
    ("trailing comma", b'{"name": "Lamp", "price_cents": 1,}', REFUSED),
    ("comment", b'{"name": "Lamp", "price_cents": 1} // lamp', REFUSED),
    ("two values", b'{"name": "Lamp", "price_cents": 1}{}', REFUSED),
    ("cut short", b'{"name": "Lamp", "price_', REFUSED),
    ("raw NUL", b'{"name": "La\0mp", "price_cents": 1}', REFUSED),
    ("raw line break", b'{"name": "La\nmp", "price_cents": 1}', REFUSED),
    ("UTF-16 without its mark", (ITEM % 1).encode("utf-16-le"), REFUSED),
    ("deep list", b"[" * 100_000, REFUSED),
    ("deep list, closed", b"[" * 100_000 + b"]" * 100_000, REFUSED),
    ("deep object", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, REFUSED),
    ("nested as far as Python goes", b'{"name":' + b"[" * 900 + b"]" * 900 + b"}", REFUSED),
    ("empty", b"", REFUSED),
    ("white space", b"  \n", REFUSED),
    ("null", b"null", REFUSED),
    ("list", b"[]", REFUSED),
    ("text", b'"Lamp"', REFUSED),
    ("number", b"7", REFUSED),
    ("UTF-16", (ITEM % 1).encode("utf-16"), (400, "BAD_REQUEST")),
    ("Latin-1", '{"name": "Lämp", "price_cents": 1}'.encode("latin-1"), (400, "BAD_REQUEST")),
    ("lone continuation byte", b'{"name": "La\x80mp", "price_cents": 1}', (400, "BAD_REQUEST")),
    ("overlong NUL", b'{"name": "La\xc0\x80mp", "price_cents": 1}', (400, "BAD_REQUEST")),
    ("surrogate in UTF-8", b'{"name": "La\xed\xa0\x80mp", "price_cents": 1}', (400, "BAD_REQUEST")),
]

# JSON of an item with a place for a bad string
PLACES = {
    "a value": '{"name": "%s", "price_cents": 1}',
    "a key": '{"name": "Lamp", "price_cents": 1, "%s": 1}',
    "a list": '{"name": "Lamp", "price_cents": 1, "tags": ["a", "%s"]}',
    "a value nobody asked for": '{"name": "Lamp", "price_cents": 1, "more": {"a": [{"b": ["%s"]}]}}',
    "a key nobody asked for": '{"name": "Lamp", "price_cents": 1, "more": [{"%s": 1}]}',
    "the whole body": '"%s"',
}


def code(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error_code"]


def send(person: Person, body: bytes | str, headers: dict[str, str] = JSON) -> Response:
    return person.request("POST", "/items", content=body, headers=headers)


@pytest.mark.parametrize(("body", "answer"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
def test_a_body_that_is_not_our_json_is_refused(ada: Person, body: bytes, answer: tuple[int, str]) -> None:
    assert code(send(ada, body)) == answer
    assert ada.get("/items").json()["total"] == 0


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" * 400 + ".5", "9" * 21, "-" + "9" * 5000])
def test_a_number_out_of_range_is_named_as_one(ada: Person, number: str) -> None:
    answer = send(ada, f'{{"name": "Lamp", "price_cents": 1, "more": [{number}]}}')

    assert answer.json()["detail"] == "body: It is not acceptable JSON: a number is out of range."


@pytest.mark.parametrize("place", PLACES)
def test_a_nul_or_half_a_character_is_refused_wherever_it_is(ada: Person, place: str) -> None:
    for text in ("\\u0000", "a\\u0000b", "\\ud800", "\\udfff", "\\udc00\\ud800", "\\\\\\u0000"):
        answer = send(ada, PLACES[place] % text)

        assert code(answer) == REFUSED
        assert len(answer.json()["errors"]) == 1


@pytest.mark.parametrize(
    "text", ["\\ud83d\\udca1", "💡", "\\u00e4", "\\\\u0000", "C:\\\\ud800", "a\u2028b", "\ufffd", "\x7f"]
)
def test_whole_characters_are_kept_however_they_are_written(ada: Person, text: str) -> None:
    answer = send(ada, PLACES["a value"] % text)

    assert answer.status_code == 201
    assert answer.json()["name"] == json.loads(f'"{text}"').strip()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"name": "Lamp", "price_cents": 1, "name": "Chair"}', "Chair"),
        ("\ufeff" + '{"name": "Lamp", "price_cents": 1}', "Lamp"),
        (' \r\n\t{"name": " Lamp ", "price_cents": 1} \n', "Lamp"),
    ],
    ids=["a key twice", "a byte order mark", "white space"],
)
def test_json_that_is_only_unusual_is_taken(ada: Person, body: str, name: str) -> None:
    assert send(ada, body).json()["name"] == name


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ("Application/JSON", 201),
        ("application/merge-patch+json", 201),
        ("text/plain", 422),
        ("application/x-www-form-urlencoded", 422),
        ("multipart/form-data; boundary=x", 422),
        ("application/xml", 422),
        ("json", 422),
        ("", 422),
        ("/;;==", 422),
    ],
)
def test_a_body_is_json_only_where_it_says_so(ada: Person, content_type: str, status: int) -> None:
    answer = send(ada, ITEM % 1, {"Content-Type": content_type})

    assert answer.status_code == status
    assert status == 201 or answer.json()["error_code"] == "VALIDATION_ERROR"
    assert status == 201 or "Content-Type: application/json" in answer.json()["detail"]


def test_a_body_without_a_content_type_is_refused(ada: Person) -> None:
    assert code(send(ada, ITEM % 1, {})) == REFUSED


# Queries


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/items?colour=red"),
        ("GET", "/api/v1/items?Page=1"),
        ("GET", "/api/v1/items?page_size=5&page-size=5"),
        ("GET", "/api/v1/items?="),
        ("GET", "/api/v1/items/1?fields=name"),
        ("PATCH", "/api/v1/items/1?force=true"),
        ("DELETE", "/api/v1/items/1?force"),
        ("GET", "/api/v1/users?limit=5"),
        ("GET", "/api/v1/users/me?x=%6e"),
        ("DELETE", "/api/v1/auth/sessions/current?all=true"),
        ("POST", "/api/v1/auth/register?role=admin"),
        ("POST", "/api/v1/auth/token?username=ada"),
        ("GET", "/health?x=1"),
        ("GET", "/ready?x=1"),
    ],
)
def test_a_parameter_that_nobody_declared_is_refused(ada: Person, lamp: dict[str, Any], method: str, path: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/api/v1/items/1": {"json": {"quantity": 3}} if method == "PATCH" else {},
        "/api/v1/auth/register": {
            "json": {"email": "eva@example.com", "full_name": "Eva", "password": "Correct-horse-1"}
        },
        "/api/v1/auth/token": {"data": {"username": ada.email, "password": "Correct-horse-1"}},
    }
    signed_in = {"Authorization": f"Bearer {ada.access_token}"}
    answer = ada.client.request(method, path, headers=signed_in, **bodies.get(path.split("?")[0], {}))

    assert answer.status_code == 422
    assert answer.json()["error_code"] in ("VALIDATION_ERROR", "BAD_REQUEST")
    assert ada.get("/items/1").json() == lamp
    assert ada.get("/users").json()["total"] == 1


@pytest.mark.parametrize("path", ["/items", "/items/1", "/users"])
def test_a_query_that_is_no_text_is_refused(ada: Person, lamp: dict[str, Any], path: str) -> None:
    for query in ("q=%00", "q=a%00b", "q=%ff", "q=%c0%80", "q=%ed%a0%80", "%00=1", "%ff=1", "q=%C3", "tag=a&tag=%00"):
        assert code(ada.get(f"{path}?{query}")) == REFUSED


@pytest.mark.parametrize("noun", ["items", "users", "auth/sessions"])
def test_an_id_is_a_number_in_plain_digits(ada: Person, noun: str) -> None:
    other_digits = "\u0661"  # one, in Arabic
    for text in ("%00", "1%00", "%ff", "-1", "+1", "1.0", "1_0", "0", other_digits, str(2**63), "9" * 5000):
        assert code(ada.delete(f"/{noun}/{text}")) == REFUSED


def test_the_biggest_id_is_one(ada: Person) -> None:
    assert code(ada.get(f"/items/{2**63 - 1}")) == (404, "ITEM_NOT_FOUND")


# Who is calling comes first


def anonymous(ada: Person) -> str:
    return ""


def with_a_wrong_token(ada: Person) -> str:
    return "Bearer nonsense"


def signed_out(ada: Person) -> str:
    ada.delete("/auth/sessions/current")
    return f"Bearer {ada.access_token}"


CALLS: list[dict[str, Any]] = [
    {"method": "POST", "path": "/items", "content": b"{", "headers": JSON},
    {"method": "POST", "path": "/items", "content": b"\xff", "headers": JSON},
    {"method": "POST", "path": "/items", "content": b"{}"},
    {"method": "POST", "path": "/items", "json": {}},
    {"method": "PATCH", "path": "/items/first", "json": {}},
    {"method": "PATCH", "path": "/users/me", "json": {"role": "admin"}},
    {"method": "PUT", "path": "/users/me/password", "json": {}},
    {"method": "GET", "path": "/items/first"},
    {"method": "GET", "path": "/items?page=0"},
    {"method": "GET", "path": "/items?colour=red"},
    {"method": "GET", "path": "/items?q=%ff"},
    {"method": "GET", "path": "/users/me?x=1"},
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call['method']} {call['path']}")
@pytest.mark.parametrize("caller", [anonymous, with_a_wrong_token, signed_out])
def test_a_stranger_is_told_to_sign_in_whatever_is_wrong(
    ada: Person, caller: Callable[[Person], str], call: dict[str, Any]
) -> None:
    call = dict(call)
    headers = {"Authorization": caller(ada)} | call.pop("headers", {})
    answer = ada.client.request(call.pop("method"), API + call.pop("path"), headers=headers, **call)

    assert code(answer) == (401, "NOT_AUTHENTICATED")


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call['method']} {call['path']}")
def test_who_was_deactivated_is_told_to_sign_in_whatever_is_wrong(
    ada: Person, max: Person, call: dict[str, Any]
) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})
    call = dict(call)

    assert code(max.request(call.pop("method"), call.pop("path"), **call)) == (401, "NOT_AUTHENTICATED")


@pytest.mark.parametrize("call", CALLS[:5], ids=lambda call: f"{call['method']} {call['path']}")
def test_a_member_is_told_that_it_is_for_admins_whatever_is_wrong(max: Person, call: dict[str, Any]) -> None:
    call = dict(call)

    assert code(max.request(call.pop("method"), call.pop("path"), **call)) == (403, "FORBIDDEN")


def test_the_page_that_answers_everybody_reads_no_body(client: TestClient) -> None:
    assert client.request("GET", "/health", content=b"\xff", headers=JSON).status_code == 200
