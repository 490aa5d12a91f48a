"""Every input is hostile: whatever is put into whichever place of the OpenAPI document, the answer is one it names."""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlmodel import SQLModel, select

from app import create_app
from kit.db import Database, ending
from kit.routing import Router
from kit.sessions import PasswordReset
from models import User
from settings import Settings
from tests.conftest import API, PASSWORD, Person
from tests.databases import PostgresDatabase, SqliteFile
from tests.examples import Json
from tests.postgres import Postgres
from tests.routes import Operation, documented_app, operations
from tests.shared_app import SharedApp
from tests.world import World

PATHS: dict[str, Any] = documented_app().openapi()["paths"]
MARK = "hunter2"  # stands in hostile inputs, and in no answer
JSON = {"Content-Type": "application/json"}
DETAILS = ("detail", "error_description")

# JSON that is wrong wherever it stands.
NEVER_JSON = {
    "5000 digits": b"9" * 5000,
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "1e999": b"1e999",
    "NUL": rb'"hunter2\u0000"',
    "raw NUL": b'"hunter2\0"',
    "high surrogate": rb'"hunter2\ud800"',
    "surrogates in a key": rb'{"hunter2\udc00\ud800": 1}',
    "raw surrogate": b'"hunter2\xed\xa0\x80"',
    "no UTF-8": b'"hunter2\xff"',
    "deep list": b"[" * 20_000 + b"]" * 20_000,
    "deep object": b'{"hunter2":' * 10_000 + b"1" + b"}" * 10_000,
    "deep as far as Python goes": b"[" * 900 + b"]" * 900,
    "object": b'{"hunter2": "hunter2"}',
    "list of lists": b'[["hunter2"]]',
    "2^63": b"9223372036854775808",
    "2^64": b"18446744073709551616",
    "-1": b"-1",
    "0.5": b"0.5",
    "1.0": b"1.0",
    "huge string": b'"' + b"hunter2" * 10_000 + b'"',
}

# JSON that fits some places and not others.
SOMETIMES_JSON = {
    "0": b"0",
    "1": b"1",
    "null": b"null",
    "true": b"true",
    "false": b"false",
    "list": b"[]",
    "nothing": b"",
    "texts": b'["hunter2"]',
    "numbers": b"[1, 2]",
    "empty string": b'""',
    "white space": b'" \\t\\n\xe2\x80\x83"',
    "digits in a string": b'"1"',
    "word": b'"hunter2"',
    "markup": b'"<script>hunter2</script>\'; DROP TABLE item; --"',
    "all planes": '"\U0010ffff\U0001f4a9\u202e\ufeff\u0301"'.encode(),
}

# Queries and paths that are wrong wherever they stand; `%` is not escaped again.
NEVER_TEXT = ["%00", "hunter2%00", "%ff", "hunter2%ff", "%C3", "%C0%80", "%ED%A0%80", "%F5%80%80%80"]

SOMETIMES_TEXT = [
    "",
    "%20",
    "0",
    "-1",
    "%2B1",
    "1.0",
    "1e3",
    "1_0",
    "0x1",
    "%D9%A1",  # one, in Arabic
    "9223372036854775807",
    "9223372036854775808",
    "9" * 5000,
    "NaN",
    "Infinity",
    "1e999",
    "null",
    "true",
    "[]",
    "%7B%22hunter2%22%3A1%7D",
    "hunter2",
    "hunter2" * 4000,
    "%25%5F%5C%27%22%3B--",
    "%F0%9F%92%A9%E2%80%AE",
    "%0d%0aSet-Cookie:hunter2",
    "..%2F..%2Fetc%2Fpasswd",
]

HEADERS = [
    b"",
    b"\xff",
    b"hunter2/",
    b'"',
    b'"9223372036854775808"',
    b'W/"-1"',
    b"9" * 5000,
    b'"hunter2",' * 800,
    "ä\u2028".encode(),
    b"null",
    b"{}",
]

EVERYBODYS_HEADERS = ["Accept", "Cookie", "Origin", "Range", "Referer", "X-Request-ID", "X-Forwarded-For", "User-Agent"]

WRONG_TYPES = [
    "text/plain",
    "application/xml",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=" + "x" * 5000,
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    "application/json-seq",
    "hunter2",
    "",
    "/",
    "application/; charset=hunter2",
]


OPERATIONS = operations()
WITH_JSON = [operation for operation in OPERATIONS if operation.takes_json]
WITH_FORM = [operation for operation in OPERATIONS if "form" in operation.media_type]
WITH_QUERY = [operation for operation in OPERATIONS if operation.parameters("query")]
WITH_HEADER = [operation for operation in OPERATIONS if operation.parameters("header")]
WITH_PATH = [operation for operation in OPERATIONS if operation.ids]

# What does not depend on the database is tried on one of them.
ON_SQLITE = pytest.mark.parametrize("a_world", ["sqlite"], indirect=True)


class Target:
    """One operation, of which an admin sends right requests but for what is given."""

    def __init__(self, world: World, operation: Operation) -> None:
        world.begin("admin")
        self.world = world
        self.operation = operation
        self.path = world.url(operation)
        self.body: Any = operation.body(world, whole=True) if operation.takes_json else None

    def send(
        self,
        *,
        path: str = "",
        query: str = "",
        body: bytes | None = None,
        headers: dict[bytes, bytes] | None = None,
    ) -> Response:
        """The answer, which must be one that the document names."""
        if body is None and self.body is not None:
            body = json.dumps(self.body).encode()
        kind = {b"Content-Type": self.operation.media_type.encode()} if self.operation.media_type else {}
        signed_in = {b"Authorization": f"Bearer {self.world.admin.access_token}".encode()}
        url = (path or self.path) + (f"?{query}" if query else "")
        headers = signed_in | kind | (headers or {})
        method = self.operation.method
        answer = self.world.client.request(method, url, content=body, headers=headers, follow_redirects=False)
        assert answer.status_code in self.operation.statuses, (answer.status_code, answer.text)
        assert answer.status_code != 401 or headers[b"Authorization"] != signed_in[b"Authorization"]
        check(answer)
        return answer


Sweep: TypeAlias = Callable[[Collection[Operation], Callable[[Target], None]], None]


def check(answer: Response) -> None:
    """Hold an answer against what all answers promise."""
    assert answer.status_code < 500, answer.text
    assert len(answer.headers.get_list("x-request-id")) == 1
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert {"type", "title", "status", "detail", "error_code", "request_id"} <= set(problem)
        assert (problem["status"], problem["request_id"]) == (answer.status_code, answer.headers["x-request-id"])
        assert len(answer.content) < 30_000
        # The name of a field that nobody knows is said where it stands, and nowhere else.
        problem["errors"] = [error | {"loc": []} for error in problem.get("errors", [])]
        details = {name: re.sub("^[^ ]*:", "", problem[name]) for name in DETAILS if name in problem}
        assert MARK not in json.dumps(problem | details)
        assert not [value for value in answer.headers.values() if MARK in value]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def a_world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("hostile") / "app.db"
        shutil.copy(request.getfixturevalue("template"), path)
        url, database = f"sqlite:///{path}", SqliteFile(path)
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create(request.getfixturevalue("postgres_template"))
        database = PostgresDatabase(url)
    settings = Settings(
        database_url=url,
        environment="development",
        bcrypt_rounds=4,
        auth_rate_limit="1000000/minute",
        login_attempts=1_000_000,
        log_level="CRITICAL",
    )
    with SharedApp(create_app(settings), database) as shared_app, quietly():
        yield World(shared_app, ("admin", "owner", "member"))


@contextmanager
def quietly() -> Generator[None]:
    """While the test client says nothing of its requests, which takes as long as they do."""
    logger = logging.getLogger("httpx2")
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def sweep(a_world: World, subtests: pytest.Subtests) -> Sweep:
    """Holds operations against a check, each in a subtest and in a database that is as it was."""

    def sweep(operations: Collection[Operation], check: Callable[[Target], None]) -> None:
        assert operations
        for operation in operations:
            with subtests.test(str(operation)):
                check(Target(a_world, operation))

    return sweep


@pytest.fixture
def world(a_world: World) -> World:
    """The one of this module, with people in it and nothing else."""
    a_world.begin("admin")
    return a_world


def templates(body: Json) -> Iterator[bytes]:
    """The JSON of `body` with one place after the other, at every depth, left open as `@@`."""
    yield b"@@"
    spoiled: list[tuple[Json, Json]] = []  # a value, and the body without it
    if isinstance(body, dict):
        spoiled = [(value, body | {key: "@@"}) for key, value in body.items()]
    elif isinstance(body, list):
        spoiled = [(body[0], ["@@", *body[1:]])]
    for value, rest in spoiled:
        for template in templates(value):
            yield json.dumps(rest).encode().replace(b'"@@"', template)


# Bodies


def test_json_that_is_wrong_everywhere_is_refused_in_every_place(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        for template in templates(target.body):
            for name, value in NEVER_JSON.items():
                answer = target.send(body=template.replace(b"@@", value))

                assert answer.status_code in (400, 413, 422), (name, template)

    sweep(WITH_JSON, check)


def test_json_of_another_kind_is_refused_or_taken_as_documented(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        for template in templates(target.body):
            for value in SOMETIMES_JSON.values():
                target.send(body=template.replace(b"@@", value))

    sweep(WITH_JSON, check)


@ON_SQLITE
def test_a_field_that_nobody_knows_is_refused(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        for name in ("id", "hunter2", "", "__proto__", "constructor", "$where", "name ", "\u0430dmin", "x" * 100_000):
            answer = target.send(body=json.dumps(target.body | {name: 1}).encode())

            assert answer.status_code == 422
            assert ["body", name[:64]] in [error["loc"] for error in answer.json()["errors"]]

    sweep(WITH_JSON, check)


@ON_SQLITE
def test_a_body_that_is_no_json_is_refused(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        right = json.dumps(target.body)
        wrong = [b"", b" ", b"\0", b"\xff\xfe", b"{", b"}", b"hunter2", b"a=hunter2", b"<a>hunter2</a>"]
        wrong += [right.encode(codec) for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")]
        wrong += [b"\x1f\x8b\x08", right.encode() + b"\0", right.encode() * 2, right.encode()[:-1]]
        for body in [*wrong, b"\xef\xbb" + right.encode()]:
            assert target.send(body=body).status_code in (400, 422)

    sweep(WITH_JSON, check)


@ON_SQLITE
def test_a_body_of_another_type_is_refused(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        right = json.dumps(target.body).encode()
        for kind in [*WRONG_TYPES, "application/json" if target.body is None else ""]:
            answer = target.send(body=right, headers={b"Content-Type": kind.encode()})

            assert answer.status_code in (400, 422), kind

    sweep([*WITH_JSON, *WITH_FORM], check)


@ON_SQLITE
def test_a_body_that_is_too_large_is_refused(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        answer = target.send(body=b" " * (1 + (target.operation.max_body_size or 2**20)))

        assert (answer.status_code, answer.json()["error_code"]) == (413, "BODY_TOO_LARGE")

    sweep([*WITH_JSON, *WITH_FORM], check)


FORMS: dict[str, list[bytes]] = {
    "application/x-www-form-urlencoded": [
        *(b"username=%b&password=%b" % (text.encode(), text.encode()) for text in [*NEVER_TEXT, *SOMETIMES_TEXT]),
        *(b"grant_type=%b" % text.encode() for text in [*NEVER_TEXT, *SOMETIMES_TEXT]),
        *(b"grant_type=refresh_token&refresh_token=" + text.encode() for text in [*NEVER_TEXT, *SOMETIMES_TEXT]),
        b"username=\xff&password=hunter2",
        b"username=\0&password=hunter2",
        b"username=ada@example.com&username=hunter2&password=hunter2&password=" + PASSWORD.encode() + b"x",
        b"username[]=hunter2&password[a]=hunter2",
        b"&&&===;;;",
        b"%",
        b"a=1&" * 5000,
        b"a" * 500_000,
        "username=hunter2".encode("utf-16"),
        b"",
    ],
    "multipart/form-data; boundary=x": [
        b"",
        b"hunter2",
        b"--x",
        b"--x--",
        b"--x\r\n\r\nhunter2\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nhunter2\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: form-data; name=\xff\r\n\r\nhunter2\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nhunter2\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a\0"\r\n\r\ncolour\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="hunter2"; filename="a"\r\n\r\na\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\xff\xfe\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nname,price_cents',
        b'--x\r\nContent-Disposition: form-data; name="file"\r\nContent-Type: hunter2\r\n\r\na\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 2000 + b"--x--\r\n",
        b"--x\r\n" + b"A: b\r\n" * 5000 + b"\r\n\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: form-data; name=" + b"hunter2" * 10_000 + b"\r\n\r\n\r\n--x--\r\n",
    ],
}


# Starlette leaves the file of a part that never ends to the garbage collector.
@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")
@ON_SQLITE
def test_a_form_that_is_wrong_is_refused(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        for kind, forms in FORMS.items():
            for form in forms:
                answer = target.send(body=form, headers={b"Content-Type": kind.encode()})

                assert answer.status_code in (400, 422), form[:100]

    sweep(WITH_FORM, check)


# Queries, paths and headers


@ON_SQLITE
def test_a_query_that_is_wrong_everywhere_is_refused_in_every_place(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        for text in NEVER_TEXT:
            queries = [f"{name}={text}" for name in target.operation.parameters("query")]
            for query in [*queries, f"{text}=1"]:
                assert target.send(query=query).status_code in (400, 422)

    sweep(OPERATIONS, check)


def test_a_query_of_another_kind_is_refused_or_taken_as_documented(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        for name in target.operation.parameters("query"):
            for text in SOMETIMES_TEXT:
                target.send(query=f"{name}={text}")

    sweep(WITH_QUERY, check)


@ON_SQLITE
def test_a_query_that_nobody_knows_is_refused(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        for query in ("hunter2=1", "=1", "&=&a", "a[]=1", "x" * 50_000):
            assert target.send(query=query).status_code in (400, 422)

    sweep(OPERATIONS, check)


def test_an_id_that_is_none_is_refused(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        right = {name: target.world.id(name) for name in target.operation.ids}
        for name in right:
            for text in set(NEVER_TEXT + SOMETIMES_TEXT) - {"", "9223372036854775807", "..%2F..%2Fetc%2Fpasswd"}:
                path = target.operation.path.format_map(right | {name: text})

                assert target.send(path=path).status_code == 422, text

    sweep(WITH_PATH, check)


def test_an_id_that_nobody_has_is_not_found(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        path = re.sub("{.*?}", str(2**63 - 1), target.operation.path)

        assert target.send(path=path).status_code == 404

    sweep(WITH_PATH, check)


def test_a_header_that_is_wrong_is_refused_or_passed_over(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        asks_for_little = str(target.operation) == "GET /users/me"
        for name in [*target.operation.parameters("header"), *(EVERYBODYS_HEADERS if asks_for_little else ())]:
            for value in HEADERS:
                target.send(headers={name.encode(): value})

    sweep([*WITH_HEADER, *(found for found in OPERATIONS if str(found) == "GET /users/me")], check)


@ON_SQLITE
def test_a_wrong_access_token_is_always_refused(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        right = target.world.admin.access_token.encode()
        tokens = [b"Bearer", b"Bearer ", b"Basic YTpi", b"Bearer " + b"a" * 60_000, b"Bearer a.b.c", b"Bearer \xff"]
        for token in [*tokens, *HEADERS, b"Bearer " + right[:-2], b"Token " + right]:
            answer = target.send(headers={b"Authorization": token})

            assert (answer.status_code == 401) == (not target.operation.is_public), token

    sweep(OPERATIONS, check)


ODD_PATHS = [
    "/" + "hunter2" * 5000,
    "//",
    "/./",
    "/%2e%2e/",
    "/%00",
    "/%ff",
    f"{API}//users",
    f"{API}/users/1%2F",
    "/*",
]


@ON_SQLITE
def test_an_address_that_is_none_is_not_found(world: World, subtests: pytest.Subtests) -> None:
    for path in ODD_PATHS:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
            with subtests.test(f"{method} {path[:20]}"):
                answer = world.client.request(method, path, follow_redirects=False)

                check(answer)
                codes = ("NOT_FOUND", "VALIDATION_ERROR", "NOT_AUTHENTICATED", "METHOD_NOT_ALLOWED")
                came_down_to_the_start = answer.status_code == 303 and method == "GET" and set(path) <= {"/", "."}
                assert came_down_to_the_start or answer.json()["error_code"] in codes


@ON_SQLITE
def test_a_method_that_is_not_documented_is_refused_and_told_the_others(
    world: World, subtests: pytest.Subtests
) -> None:
    for path, documented in PATHS.items():
        for method in ("HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW", "GET/", "__class__"):
            with subtests.test(f"{method} {path}"):
                answer = world.client.request(method, re.sub("{.*?}", "1", path), follow_redirects=False)

                assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
                assert {name.upper() for name in documented} <= set(answer.headers["allow"].split(", "))
                assert len(answer.headers.get_list("x-request-id")) == 1


def test_all_is_well_after_all_that(world: World) -> None:
    answers = [world.client.get("/ready"), world.admin.get("/users/me")]

    assert [answer.status_code for answer in answers] == [200, 200]


# Mass assignment

# Every column there is, and what else a client might hope for.
SERVERS_OWN = {column.name for table in SQLModel.metadata.tables.values() for column in table.columns}
HOPES = {"is_admin", "owner_id", "creator_name", "sid", "comment_count", "__class__"}


def with_a_field(body: Json, field: str) -> Iterator[tuple[list[str | int], Json]]:
    """Where an object stands in `body`, and the body with one field more there, unless it has it already."""
    if isinstance(body, dict):
        if field not in body:
            yield [], body | {field: 1}
        for name, value in body.items():
            yield from (([name, *place], body | {name: spoiled}) for place, spoiled in with_a_field(value, field))
    elif isinstance(body, list) and body:
        yield from (([0, *place], [spoiled, *body[1:]]) for place, spoiled in with_a_field(body[0], field))


@ON_SQLITE
def test_a_field_that_is_the_servers_cannot_be_sent_at_any_depth(sweep: Sweep) -> None:
    def check(target: Target) -> None:
        for name in sorted(SERVERS_OWN | HOPES):
            for place, body in with_a_field(target.body, name):
                answer = target.send(body=json.dumps(body).encode())

                assert answer.status_code == 422
                assert answer.json()["errors"] == [
                    {"loc": ["body", *place, name], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}
                ]

    sweep(WITH_JSON, check)


def test_a_form_cannot_make_its_sender_an_admin(max: Person) -> None:
    form = {
        "username": max.email,
        "password": PASSWORD,
        "role": "admin",
        "scope": "admin",
        "sub": "1",
        "type": "access",
    }
    tokens = max.client.post(f"{API}/auth/token", data=form).json()
    max.access_token = tokens["access_token"]

    assert max.get("/users/me").json()["role"] == "member"
    assert max.get("/users").status_code == 403


# Enumeration: what somebody may not know of answers as what is not there


def shown(answer: Response, *own: object) -> tuple[int, str, list[tuple[str, str]]]:
    """All that an answer says, but for its request id and what was asked for."""
    text = answer.text.replace(answer.headers["x-request-id"], "<id>")
    for part in own:
        text = text.replace(str(part), "<own>")
    return answer.status_code, text, [pair for pair in answer.headers.items() if pair[0] != "x-request-id"]


# Whose answer to what is another's must be the one to what nobody has.
HIDDEN = [
    operation
    for operation in OPERATIONS
    if operation.ids and (operation.is_for_admins or operation.expected["member"] == 404)
]
MISSING = 9  # as long as the ids that are there, so that the length of the answer is, too


def test_what_is_someone_elses_answers_as_what_is_not_there(shared_app: SharedApp, subtests: pytest.Subtests) -> None:
    world = World(shared_app)
    for operation in HIDDEN:
        with subtests.test(str(operation)):
            world.begin()
            ids, body = {name: world.id(name) for name in operation.ids}, operation.body(world)
            paths = [operation.path.format_map(ids), operation.path.format_map(dict.fromkeys(ids, MISSING))]
            ask = partial(world.client.request, operation.method, json=body)
            headers = {"Authorization": f"Bearer {world.member.access_token}", "If-Match": '"7"'}
            theirs, missing = [ask(path, headers=headers) for path in paths]

            assert all(row_id < MISSING for row_id in ids.values())
            assert shown(theirs, *(f" {row_id} " for row_id in ids.values())) == shown(missing, f" {MISSING} ")
            assert theirs.status_code in (403, 404)


def test_a_sign_in_does_not_say_whose_account_there_is(ada: Person, max: Person, eva: Person) -> None:
    ada.patch(f"/users/{eva.id}", {"is_active": False})
    forms = [("none@example.com", PASSWORD), (max.email, "Wrong-horse-1"), (eva.email, PASSWORD), ("none", PASSWORD)]
    answers = [ada.client.post(f"{API}/auth/token", data={"username": u, "password": p}) for u, p in forms]

    assert answers[0].json()["error_code"] == "INVALID_CREDENTIALS"
    assert all(shown(answer) == shown(answers[0]) for answer in answers)


def test_a_locked_account_does_not_say_whether_it_is_one(max: Person) -> None:
    forms = [{"username": email, "password": "Wrong-horse-1"} for email in (max.email, "none@example.com")]
    locked = [[max.client.post(f"{API}/auth/token", data=form) for _ in range(6)][-1] for form in forms]
    wait = [int(answer.headers.pop("retry-after")) for answer in locked]

    assert locked[0].json()["error_code"] == "TOO_MANY_ATTEMPTS"
    assert shown(locked[0]) == shown(locked[1])
    assert wait == pytest.approx([900, 900], abs=15)


def test_a_reset_does_not_say_whose_account_there_is(ada: Person, max: Person, eva: Person) -> None:
    ada.patch(f"/users/{eva.id}", {"is_active": False})
    emails = ("none@example.com", max.email, eva.email, max.email.upper())
    answers = [ada.client.post(f"{API}/auth/password-reset", json={"email": email}) for email in emails]

    assert (answers[0].status_code, answers[0].content) == (202, b"")
    assert all(shown(answer) == shown(answers[0]) for answer in answers)


# Secrets in the log


def test_no_secret_of_any_auth_route_is_logged(capfd: pytest.CaptureFixture[str], settings: Settings) -> None:
    sent, app = Secrets(), create_app(settings.model_copy(update={"log_level": "TRACE"}))
    with TestClient(app, raise_server_exceptions=False) as client:
        account = {"email": "ada@example.com", "full_name": "Ada"}
        client.post(f"{API}/auth/register", json=account | {"password": sent.keep("First-horse-1")})
        client.post(f"{API}/auth/register", json=account | {"password": sent.keep("feeble")})
        client.post(f"{API}/auth/register", content=f'{{"password": "{sent.keep("Broken-horse-1")}"')
        form = {"username": "ada@example.com", "password": "First-horse-1"}
        client.post(f"{API}/auth/token", data=form | {"password": sent.keep("Wrong-horse-1")})
        client.post(f"{API}/auth/token", data={"username": sent.keep("Slipped-horse-1"), "password": "x"})
        first = sent.keep_tokens(client.post(f"{API}/auth/token", data=form))
        refresh = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        second = sent.keep_tokens(client.post(f"{API}/auth/token", data=refresh))
        signed_in = {"Authorization": f"Bearer {second['access_token']}"}
        client.get(f"{API}/auth/sessions?access_token={second['access_token']}", headers=signed_in)
        client.get(f"{API}/auth/sessions", headers={"Authorization": f"Basic {sent.keep('YWRhOkZpcnN0LWhvcnNlLTE=')}"})
        change = {"current_password": "First-horse-1", "new_password": sent.keep("Second-horse-1")}
        assert client.put(f"{API}/users/me/password", json=change, headers=signed_in).status_code == 204
        assert client.post(f"{API}/auth/password-reset", json={"email": "ada@example.com"}).status_code == 202
        database: Database = app.state.database
        with ending(database.write()) as session:
            token = PasswordReset.issue(session, 1)
        assert token
        reset = {"token": sent.keep(token), "new_password": sent.keep("Third-horse-1")}
        assert client.put(f"{API}/auth/password-reset", json=reset).status_code == 204
        client.put(f"{API}/auth/password-reset", json=reset | {"token": sent.keep("no-such-token-at-all")})
        third = sent.keep_tokens(client.post(f"{API}/auth/token", data=form | {"password": "Third-horse-1"}))
        client.post(f"{API}/auth/token", data=refresh)  # a replay
        signed_in = {"Authorization": f"Bearer {third['access_token']}"}
        created = {"email": "eva@example.com", "full_name": "Eva", "password": sent.keep("Fourth-horse-1")}
        assert client.post(f"{API}/users", json=created, headers=signed_in).status_code == 201
        assert client.delete(f"{API}/auth/sessions/current", headers=signed_in).status_code == 204
        with database.read() as session:
            sent.kept |= {user.password_hash for user in session.exec(select(User))}
    captured = capfd.readouterr()
    logged = captured.out + captured.err

    assert f"PUT {API}/auth/password-reset 204" in logged
    assert [secret for secret in sent.kept if secret in logged] == []


class Secrets:
    """What was sent or answered and may never be seen."""

    def __init__(self) -> None:
        self.kept = {os.environ["APP_SECRET_KEY"]}

    def keep(self, secret: str) -> str:
        self.kept.add(secret)
        return secret

    def keep_tokens(self, answer: Response) -> dict[str, str]:
        tokens = answer.raise_for_status().json()
        self.kept |= {tokens["access_token"], tokens["refresh_token"]}
        return tokens


# Other sites read the faults, too

SITE = "https://shop.example.com"
probes = Router(public=True, prefix="/probes")


@probes.get("/fails")
def fails() -> None:
    raise RuntimeError


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_a_listed_site_may_read_every_fault_and_no_other_site_any(settings: Settings) -> None:
    ours = {"cors_origins": [SITE], "max_body_bytes": 100, "auth_rate_limit": "1/minute"}
    app = create_app(settings.model_copy(update=ours))
    app.include_router(probes)
    with TestClient(app, raise_server_exceptions=False) as client:
        for origin, named in ((SITE, SITE), ("https://evil.example.com", None), ("null", None)):
            answers = faults(client, settings, {"Origin": origin})

            assert [answer.status_code for answer in answers] == [413, 422, 429, 500, 503]
            assert [answer.headers.get("access-control-allow-origin") for answer in answers] == [named] * 5
            assert [answer.headers.get("access-control-allow-credentials") for answer in answers] == [None] * 5
            assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}


def faults(client: TestClient, settings: Settings, headers: dict[str, str]) -> list[Response]:
    """An answer of each kind that is not made by a route."""
    client.get(f"{API}/auth/sessions")  # uses up the rate
    answers = [
        client.post(f"{API}/users", content=b"x" * 101, headers=headers | JSON),
        client.get("/health?x=1", headers=headers),
        client.get(f"{API}/auth/sessions", headers=headers),
        client.get("/probes/fails", headers=headers),
    ]
    aside = settings.sqlite_path.rename(settings.sqlite_path.with_suffix(".aside"))
    answers.append(client.get("/ready", headers=headers))
    aside.rename(settings.sqlite_path)
    return answers
