"""Strict input: JSON that is JSON, text that is text, and nothing that nobody declared."""

import json

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from kit.strict import MAX_DEPTH, MAX_VALUES
from tests.people import Person, Row

JSON = {"Content-Type": "application/json"}
ROOM = '{"name": "Hall", "seats": %s}'
REFUSED = (422, "VALIDATION_ERROR")
NOT_UTF_8 = (400, "BAD_REQUEST")

# what it is, the body, what the answer says
UNREADABLE: list[tuple[str, bytes, tuple[int, str]]] = [
    ("NaN", (ROOM % "NaN").encode(), REFUSED),
    ("Infinity", (ROOM % "Infinity").encode(), REFUSED),
    ("-Infinity", (ROOM % "-Infinity").encode(), REFUSED),
    ("1e999", (ROOM % "1e999").encode(), REFUSED),
    ("-1e999", (ROOM % "-1e999").encode(), REFUSED),
    ("1.5", (ROOM % "1.5").encode(), REFUSED),
    ("1e2", (ROOM % "1e2").encode(), REFUSED),
    ("5000 digits", (ROOM % ("9" * 5000)).encode(), REFUSED),
    ("5000 digits below zero", (ROOM % ("-" + "9" * 5000)).encode(), REFUSED),
    ("2^63", (ROOM % 2**63).encode(), REFUSED),
    ("-2^63-1", (ROOM % (-(2**63) - 1)).encode(), REFUSED),
    ("2^64", (ROOM % 2**64).encode(), REFUSED),
    ("NaN where nobody asked", b'{"name": "Hall", "seats": 1, "more": [NaN]}', REFUSED),
    ("leading zero", (ROOM % "01").encode(), REFUSED),
    ("hexadecimal", (ROOM % "0x1").encode(), REFUSED),
    ("text for a number", (ROOM % '"1"').encode(), REFUSED),
    ("true for a number", (ROOM % "true").encode(), REFUSED),
    ("single quotes", b"{'name': 'Hall', 'seats': 1}", REFUSED),
    ("trailing comma", b'{"name": "Hall", "seats": 1,}', REFUSED),
    ("comment", b'{"name": "Hall", "seats": 1} // hall', REFUSED),
    ("two values", b'{"name": "Hall", "seats": 1}{}', REFUSED),
    ("cut short", b'{"name": "Hall", "sea', REFUSED),
    ("raw NUL", b'{"name": "Ha\0ll", "seats": 1}', REFUSED),
    ("raw line break", b'{"name": "Ha\nll", "seats": 1}', REFUSED),
    ("UTF-16 without its mark", (ROOM % 1).encode("utf-16-le"), REFUSED),
    ("deep list", b"[" * 100_000, REFUSED),
    ("deep list, closed", b"[" * 100_000 + b"]" * 100_000, REFUSED),
    ("deep object", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, REFUSED),
    ("nested as far as Python goes", b'{"name":' + b"[" * 900 + b"]" * 900 + b"}", REFUSED),
    ("empty", b"", REFUSED),
    ("white space", b"  \n", REFUSED),
    ("null", b"null", REFUSED),
    ("list", b"[]", REFUSED),
    ("text", b'"Hall"', REFUSED),
    ("number", b"7", REFUSED),
    ("UTF-16", (ROOM % 1).encode("utf-16"), NOT_UTF_8),
    ("Latin-1", '{"name": "Hälle", "seats": 1}'.encode("latin-1"), NOT_UTF_8),
    ("lone continuation byte", b'{"name": "Ha\x80ll", "seats": 1}', NOT_UTF_8),
    ("overlong NUL", b'{"name": "Ha\xc0\x80ll", "seats": 1}', NOT_UTF_8),
    ("surrogate in UTF-8", b'{"name": "Ha\xed\xa0\x80ll", "seats": 1}', NOT_UTF_8),
]

# JSON of a room with a place for a bad string
PLACES = {
    "a value": '{"name": "%s", "seats": 1}',
    "a key": '{"name": "Hall", "seats": 1, "%s": 1}',
    "a list": '{"name": "Hall", "seats": 1, "tags": ["a", "%s"]}',
    "a value nobody asked for": '{"name": "Hall", "seats": 1, "more": {"a": [{"b": ["%s"]}]}}',
    "a key nobody asked for": '{"name": "Hall", "seats": 1, "more": [{"%s": 1}]}',
    "the whole body": '"%s"',
}


def code(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error_code"]


def send(person: Person, body: bytes | str, headers: dict[str, str] = JSON) -> Response:
    return person.request("POST", "/rooms", content=body, headers=headers)


def test_a_body_that_is_not_our_json_is_refused(ada: Person, subtests: pytest.Subtests) -> None:
    for name, body, answer in UNREADABLE:
        with subtests.test(name):
            assert code(send(ada, body)) == answer
    assert ada.get("/rooms").json()["total"] == 0


def test_a_number_out_of_range_is_named_as_one(ada: Person, subtests: pytest.Subtests) -> None:
    for number in ("1e999", "-1e999", "1" * 400 + ".5", "9" * 21, "-" + "9" * 5000):
        with subtests.test(number[:10]):
            answer = send(ada, f'{{"name": "Hall", "seats": 1, "more": [{number}]}}')
            assert answer.json()["detail"] == "body: It is not acceptable JSON: a number is out of range."


def test_a_nul_or_half_a_character_is_refused_wherever_it_is(ada: Person, subtests: pytest.Subtests) -> None:
    for place, body in PLACES.items():
        for text in ("\\u0000", "a\\u0000b", "\\ud800", "\\udfff", "\\udc00\\ud800", "\\\\\\u0000"):
            with subtests.test(f"{text} in {place}"):
                answer = send(ada, body % text)
                assert code(answer) == REFUSED
                assert len(answer.json()["errors"]) == 1


def test_whole_characters_are_kept_however_they_are_written(ada: Person, subtests: pytest.Subtests) -> None:
    texts = ("\\ud83d\\udca1", "💡", "\\u00e4", "\\\\u0000", "C:\\\\ud800", "a\u2028b", "\ufffd", "\x7f")
    for number, text in enumerate(texts):
        with subtests.test(ascii(text)):
            answer = send(ada, f'{{"name": "{number}", "seats": 1, "note": "{text}"}}')
            assert answer.status_code == 201
            assert answer.json()["note"] == json.loads(f'"{text}"')


def test_json_that_is_only_unusual_is_taken(ada: Person) -> None:
    twice = send(ada, '{"name": "Hall", "seats": 1, "name": "Attic"}')
    with_a_mark = send(ada, "\ufeff" + '{"name": "Hall", "seats": 1}')
    with_white_space = send(ada, ' \r\n\t{"name": " Cellar ", "seats": 1} \n')

    assert [answer.json()["name"] for answer in (twice, with_a_mark, with_white_space)] == ["Attic", "Hall", "Cellar"]


def test_a_body_is_json_only_where_it_says_so(ada: Person, subtests: pytest.Subtests) -> None:
    said = ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
    for number, content_type in enumerate(said):
        with subtests.test(content_type):
            body = f'{{"name": "{number}", "seats": 1}}'
            assert send(ada, body, {"Content-Type": content_type}).status_code == 201
    forms = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    for content_type in [*forms, "text/plain", "application/xml", "json", "", "/;;=="]:
        with subtests.test(content_type):
            answer = send(ada, ROOM % 1, {"Content-Type": content_type})
            assert code(answer) == REFUSED
            assert "Content-Type: application/json" in answer.json()["detail"]
    assert code(send(ada, ROOM % 1, {})) == REFUSED


# How much of it


def body_of(values: int) -> str:
    """JSON of so many values and names: those of the whole, of `more`, its name, and of what is in it."""
    return json.dumps({"more": [0] * (values - 3)})


def test_a_body_has_ten_thousand_values_and_names_at_most(ada: Person) -> None:
    fits, exceeds = send(ada, body_of(MAX_VALUES)), send(ada, body_of(MAX_VALUES + 1))
    of_names = send(ada, json.dumps({str(number): number for number in range(MAX_VALUES // 2)}))

    assert MAX_VALUES == 10_000
    assert fits.json()["errors"][0]["type"] != "json_invalid"
    sentence = "body: It is not acceptable JSON: it has more than 10000 values and names in it."
    assert exceeds.json()["detail"] == of_names.json()["detail"] == sentence


def test_a_body_is_64_levels_deep_at_most(ada: Person) -> None:
    fits, exceeds = (send(ada, "[" * depth + "]" * depth) for depth in (MAX_DEPTH, MAX_DEPTH + 2))

    assert MAX_DEPTH == 64
    assert fits.json()["errors"][0]["type"] != "json_invalid"
    assert exceeds.json()["detail"] == "body: It is not acceptable JSON: it is more than 64 levels deep."


# Queries


def test_a_parameter_that_nobody_declared_is_refused(ada: Person, hall: Row, subtests: pytest.Subtests) -> None:
    account = {"email": "eva@example.com", "full_name": "Eva", "password": "Correct-horse-1"}
    form = {"username": ada.email, "password": "Correct-horse-1"}
    for method, path, options in [
        ("GET", "/rooms?colour=red", {}),
        ("GET", "/rooms?Page=1", {}),
        ("GET", "/rooms?page_size=5&page-size=5", {}),
        ("GET", "/rooms?=", {}),
        ("GET", "/rooms/1?fields=name", {}),
        ("PATCH", "/rooms/1?force=true", {"json": {"seats": 3}}),
        ("DELETE", "/rooms/1?force", {}),
        ("GET", "/users?limit=5", {}),
        ("GET", "/users/me?x=%6e", {}),
        ("DELETE", "/auth/sessions/current?all=true", {}),
        ("POST", "/auth/register?role=admin", {"json": account}),
        ("POST", "/auth/token?username=ada", {"data": form}),
    ]:
        with subtests.test(f"{method} {path}"):
            answer = ada.request(method, path, **options)
            assert (answer.status_code, answer.json()["error_code"]) == REFUSED
    assert ada.get("/rooms/1").json() == hall
    assert ada.get("/users").json()["total"] == 1


def test_the_pages_for_everybody_take_no_parameter(client: TestClient) -> None:
    assert [code(client.get(path)) for path in ("/health?x=1", "/ready?x=1")] == [REFUSED] * 2


def test_a_query_that_is_no_text_is_refused(ada: Person, hall: Row, subtests: pytest.Subtests) -> None:
    queries = ("q=%00", "q=a%00b", "q=%ff", "q=%c0%80", "q=%ed%a0%80", "%00=1", "%ff=1", "q=%C3", "sort=a&sort=%00")
    for path in ("/rooms", "/rooms/1", "/users"):
        for query in queries:
            with subtests.test(f"{path}?{query}"):
                assert code(ada.get(f"{path}?{query}")) == REFUSED


def test_an_id_is_a_number_in_plain_digits(ada: Person, subtests: pytest.Subtests) -> None:
    other_digits = "\u0661"  # one, in Arabic
    for noun in ("rooms", "users", "auth/sessions"):
        for text in ("%00", "1%00", "%ff", "-1", "+1", "1.0", "1_0", "0", other_digits, str(2**63), "9" * 5000):
            with subtests.test(f"{noun} {text[:10]}"):
                assert code(ada.delete(f"/{noun}/{text}")) == REFUSED


def test_the_biggest_id_is_one(ada: Person) -> None:
    assert code(ada.get(f"/rooms/{2**63 - 1}")) == (404, "ROOM_NOT_FOUND")


def test_the_page_that_answers_everybody_reads_no_body(client: TestClient) -> None:
    assert client.request("GET", "/health", content=b"\xff", headers=JSON).status_code == 200
