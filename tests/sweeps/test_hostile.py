"""Every input is hostile: whatever is put into whichever place of the OpenAPI document, the answer is one it names."""

import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlmodel import select

from app import create_app
from kit.db import Database, ending
from kit.routing import Router
from kit.sessions import PasswordReset
from models import User
from settings import Settings
from tests.conftest import API, PASSWORD, Person
from tests.postgres import Postgres
from tests.servers import Server

DOCUMENT: dict[str, Any] = create_app(Settings(environment="development")).openapi()
MARK = "hunter2"  # stands in hostile inputs, and in no answer
JSON = {"Content-Type": "application/json"}

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | bool | None"

# Right bodies, by the name of their schema; the sweep spoils one place of them at a time.
BODIES: dict[str, Any] = {
    "AllNotificationsUpdate": {"read": True},
    "CommentCreate": {"content": "Good"},
    "CommentUpdate": {"content": "Better"},
    "ItemCreate": {"name": "Desk", "price_cents": 1, "quantity": 1, "reorder_level": 1, "tags": ["wood"]},
    "ItemUpdate": {"name": "Desk", "price_cents": 1, "quantity": 1, "reorder_level": 1, "tags": ["wood"]},
    "NotificationUpdate": {"read": True},
    "OrderCreate": {"lines": [{"item_id": 1, "quantity": 1}], "note": "Soon"},
    "OrderUpdate": {"status": "cancelled"},
    "PasswordChange": {"current_password": "Wrong-horse-1", "new_password": PASSWORD},
    "PasswordResetRequest": {"email": "eva@example.com"},
    "PasswordResetUse": {"token": "none", "new_password": PASSWORD},
    "PostCreate": {"title": "News", "content": "Lamps"},
    "PostUpdate": {"title": "News", "content": "Lamps"},
    "ProfileUpdate": {"full_name": "Ada", "email": "ada@example.com"},
    "UserCreate": {"email": "new@example.com", "full_name": "New", "password": PASSWORD, "role": "member"},
    "UserRegister": {"email": "new@example.com", "full_name": "New", "password": PASSWORD},
    "UserUpdate": {"full_name": "Eva", "email": "eva@example.com", "role": "member", "is_active": True},
}

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


@dataclass(frozen=True)
class Operation:
    """A method on a path, and what the document says of them."""

    method: str
    path: str
    document: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def statuses(self) -> set[int]:
        return {int(status) for status in self.document["responses"]}

    def parameters(self, kind: str) -> list[str]:
        return [found["name"] for found in self.document.get("parameters", []) if found["in"] == kind]

    @property
    def media_type(self) -> str:
        return next(iter(self.document.get("requestBody", {}).get("content", {})), "")

    @property
    def body(self) -> Any:
        """A right body; None where the operation takes none of JSON."""
        if self.media_type != "application/json":
            return None
        reference: str = self.document["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        return BODIES[reference.rpartition("/")[2]]


OPERATIONS = [
    Operation(method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
WITH_JSON = [operation for operation in OPERATIONS if operation.body is not None]
WITH_FORM = [operation for operation in OPERATIONS if "form" in operation.media_type]
WITH_QUERY = [operation for operation in OPERATIONS if operation.parameters("query")]
WITH_HEADER = [operation for operation in OPERATIONS if operation.parameters("header")]
WITH_PATH = [operation for operation in OPERATIONS if operation.parameters("path")]
PUBLIC = {str(operation) for operation in OPERATIONS if "security" not in operation.document}


# What does not depend on the database is tried on one of them.
ON_SQLITE = pytest.mark.parametrize("a_world", ["sqlite"], indirect=True)


@dataclass
class World:
    """An app on a database with one of everything, and its admin."""

    client: TestClient
    access_token: str = ""

    def sign_in(self) -> None:
        form = {"username": "ada@example.com", "password": PASSWORD}
        self.access_token = self.client.post(f"{API}/auth/token", data=form).json()["access_token"]

    def send(
        self,
        operation: Operation,
        *,
        path: str = "",
        query: str = "",
        body: bytes | None = None,
        headers: dict[bytes, bytes] | None = None,
    ) -> Response:
        """Send a right request, but for what is given; the answer must be one that the document names."""
        if body is None and operation.body is not None:
            body = json.dumps(operation.body).encode()
        kind = {b"Content-Type": operation.media_type.encode()} if operation.media_type else {}
        url = (path or re.sub("{.*?}", "1", operation.path)) + (f"?{query}" if query else "")
        signed_in = {b"Authorization": f"Bearer {self.access_token}".encode()}
        answer = self.client.request(
            operation.method, url, content=body, headers=signed_in | kind | (headers or {}), follow_redirects=False
        )
        assert answer.status_code in operation.statuses, (answer.status_code, answer.text)
        assert answer.status_code != 401 or b"Authorization" in (headers or {})
        check(answer)
        return answer


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
        assert MARK not in json.dumps(problem | {"detail": re.sub("^[^ ]*:", "", problem["detail"])})
        assert not [value for value in answer.headers.values() if MARK in value]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def a_world(
    request: pytest.FixtureRequest, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[World]:
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("hostile") / "app.db"
        shutil.copy(template, path)
        url = f"sqlite:///{path}"
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create(request.getfixturevalue("postgres_template"))
    settings = Settings(
        database_url=url,
        environment="development",
        bcrypt_rounds=4,
        auth_rate_limit="1000000/minute",
        login_attempts=1_000_000,
        log_level="CRITICAL",
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client, quietly():
        world = World(client)
        for name in ("ada", "eva"):
            account = {"email": f"{name}@example.com", "full_name": name.title(), "password": PASSWORD}
            client.post(f"{API}/auth/register", json=account).raise_for_status()
        world.sign_in()
        headers = {"Authorization": f"Bearer {world.access_token}"}
        for noun in ("items", "orders", "posts", "posts/1/comments"):
            body = BODIES[f"{noun.rpartition('/')[2].removesuffix('s').title()}Create"]
            client.post(f"{API}/{noun}", json=body, headers=headers).raise_for_status()
        yield world


@contextmanager
def quietly() -> Generator[None]:
    """While the test client says nothing of its requests, which takes as long as they do."""
    logger = logging.getLogger("httpx2")
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def world(a_world: World) -> World:
    """The one of this module, signed in anew."""
    a_world.sign_in()
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


@pytest.mark.parametrize("operation", WITH_JSON, ids=str)
def test_json_that_is_wrong_everywhere_is_refused_in_every_place(world: World, operation: Operation) -> None:
    for template in templates(operation.body):
        for name, value in NEVER_JSON.items():
            answer = world.send(operation, body=template.replace(b"@@", value))

            assert answer.status_code in (400, 413, 422), (name, template)


@pytest.mark.parametrize("operation", WITH_JSON, ids=str)
def test_json_of_another_kind_is_refused_or_taken_as_documented(world: World, operation: Operation) -> None:
    for template in templates(operation.body):
        for value in SOMETIMES_JSON.values():
            world.send(operation, body=template.replace(b"@@", value))


@ON_SQLITE
@pytest.mark.parametrize("operation", WITH_JSON, ids=str)
def test_a_field_that_nobody_knows_is_refused(world: World, operation: Operation) -> None:
    for name in ("id", "hunter2", "", "__proto__", "constructor", "$where", "name ", "\u0430dmin", "x" * 100_000):
        answer = world.send(operation, body=json.dumps(operation.body | {name: 1}).encode())

        assert answer.status_code == 422
        assert ["body", name[:64]] in [error["loc"] for error in answer.json()["errors"]]


@ON_SQLITE
@pytest.mark.parametrize("operation", WITH_JSON, ids=str)
def test_a_body_that_is_no_json_is_refused(world: World, operation: Operation) -> None:
    right = json.dumps(operation.body)
    wrong = [b"", b" ", b"\0", b"\xff\xfe", b"{", b"}", b"hunter2", b"a=hunter2", b"<a>hunter2</a>", b"\x1f\x8b\x08"]
    wrong += [right.encode(codec) for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")]
    wrong += [right.encode() + b"\0", right.encode() * 2, right.encode()[:-1], b"\xef\xbb" + right.encode()]
    for body in wrong:
        assert world.send(operation, body=body).status_code in (400, 422)


@ON_SQLITE
@pytest.mark.parametrize("operation", WITH_JSON + WITH_FORM, ids=str)
def test_a_body_of_another_type_is_refused(world: World, operation: Operation) -> None:
    right = json.dumps(operation.body).encode()
    for kind in [*WRONG_TYPES, "application/json" if operation.body is None else ""]:
        answer = world.send(operation, body=right, headers={b"Content-Type": kind.encode()})

        assert answer.status_code in (400, 422), kind


@ON_SQLITE
@pytest.mark.parametrize("operation", WITH_JSON + WITH_FORM, ids=str)
def test_a_body_that_is_too_large_is_refused(world: World, operation: Operation) -> None:
    size = 17 * 2**20 if "import" in operation.path else 2**20 + 1
    answer = world.send(operation, body=b" " * size)

    assert (answer.status_code, answer.json()["error_code"]) == (413, "BODY_TOO_LARGE")


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
@pytest.mark.parametrize("operation", WITH_FORM, ids=str)
@pytest.mark.parametrize("kind", FORMS)
def test_a_form_that_is_wrong_is_refused(world: World, operation: Operation, kind: str) -> None:
    for form in FORMS[kind]:
        answer = world.send(operation, body=form, headers={b"Content-Type": kind.encode()})

        assert answer.status_code in (400, 422), form[:100]


# Queries, paths and headers


@ON_SQLITE
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_query_that_is_wrong_everywhere_is_refused_in_every_place(world: World, operation: Operation) -> None:
    for text in NEVER_TEXT:
        queries = [f"{name}={text}" for name in operation.parameters("query")]
        for query in [*queries, f"{text}=1"]:
            assert world.send(operation, query=query).status_code in (400, 422)


@pytest.mark.parametrize("operation", WITH_QUERY, ids=str)
def test_a_query_of_another_kind_is_refused_or_taken_as_documented(world: World, operation: Operation) -> None:
    for name in operation.parameters("query"):
        for text in SOMETIMES_TEXT:
            world.send(operation, query=f"{name}={text}")


@ON_SQLITE
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_query_that_nobody_knows_is_refused(world: World, operation: Operation) -> None:
    for query in ("hunter2=1", "=1", "&=&a", "a[]=1", "x" * 50_000):
        assert world.send(operation, query=query).status_code in (400, 422)


@pytest.mark.parametrize("operation", WITH_PATH, ids=str)
def test_an_id_that_is_none_is_refused(world: World, operation: Operation) -> None:
    for name in operation.parameters("path"):
        for text in set(NEVER_TEXT + SOMETIMES_TEXT) - {"", "9223372036854775807", "..%2F..%2Fetc%2Fpasswd"}:
            path = re.sub("{.*?}", "1", operation.path.replace(f"{{{name}}}", text))

            assert world.send(operation, path=path).status_code == 422, text


@pytest.mark.parametrize("operation", WITH_PATH, ids=str)
def test_an_id_that_nobody_has_is_not_found(world: World, operation: Operation) -> None:
    path = re.sub("{.*}", str(2**63 - 1), operation.path)

    assert world.send(operation, path=path).status_code == 404


@pytest.mark.parametrize("operation", WITH_HEADER, ids=str)
def test_a_header_that_is_wrong_is_refused_or_passed_over(world: World, operation: Operation) -> None:
    asks_for_little = str(operation) == f"GET {API}/items/{{item_id}}"
    for name in [*operation.parameters("header"), *(EVERYBODYS_HEADERS if asks_for_little else ())]:
        for value in HEADERS:
            world.send(operation, headers={name.encode(): value})


@ON_SQLITE
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_wrong_access_token_is_always_refused(world: World, operation: Operation) -> None:
    tokens = [b"Bearer", b"Bearer ", b"Basic YTpi", b"Bearer " + b"a" * 60_000, b"Bearer a.b.c", b"Bearer \xff"]
    tokens += [*HEADERS, b"Bearer " + world.access_token.encode()[:-2], b"Token " + world.access_token.encode()]
    for token in tokens:
        answer = world.send(operation, headers={b"Authorization": token})

        assert (answer.status_code == 401) == (str(operation) not in PUBLIC), token


ODD_PATHS = [
    "/" + "hunter2" * 5000,
    "//",
    "/./",
    "/%2e%2e/",
    "/%00",
    "/%ff",
    f"{API}//items",
    f"{API}/items/1%2F",
    "/*",
]


@ON_SQLITE
@pytest.mark.parametrize("path", ODD_PATHS, ids=lambda path: path[:20])
def test_an_address_that_is_none_is_not_found(world: World, path: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
        answer = world.client.request(method, path, follow_redirects=False)

        check(answer)
        assert answer.json()["error_code"] in ("NOT_FOUND", "VALIDATION_ERROR", "NOT_AUTHENTICATED")


@ON_SQLITE
@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_a_method_that_is_not_documented_is_refused_and_told_the_others(world: World, path: str) -> None:
    for method in ("HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW", "GET/", "__class__"):
        answer = world.client.request(method, re.sub("{.*?}", "1", path), follow_redirects=False)

        assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
        assert {name.upper() for name in DOCUMENT["paths"][path]} <= set(answer.headers["allow"].split(", "))
        assert len(answer.headers.get_list("x-request-id")) == 1


def test_all_is_well_after_all_that(world: World) -> None:
    answers = [world.client.get("/ready"), world.send(next(o for o in OPERATIONS if str(o) == f"GET {API}/dashboard"))]

    assert [answer.status_code for answer in answers] == [200, 200]


# What no client library sends: the bytes go to a server as they stand


@pytest.fixture(scope="module")
def server(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A real one in production, where a line of the log is JSON."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(template, folder / "app.db")
    server = Server(folder)
    with server.running():
        yield server


def exchange(server: Server, sent: bytes) -> bytes:
    """What the server answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def get(path: bytes = b"/health", headers: bytes = b"", method: bytes = b"GET", host: bytes = b"localhost") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n" + headers + b"\r\n"


RAW: dict[str, tuple[bytes, set[int]]] = {
    # a request that uvicorn cannot read it answers by itself, with 400 and the end of the connection
    "no request": (b"\r\n\r\nhunter2\r\n\r\n", {400}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, {400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    "HTTP/9.9": (b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n", {400}),
    "a NUL in a header": (get(headers=b"X-A: a\0hunter2\r\n"), {400}),
    "a NUL in the name of a header": (get(headers=b"X\0A: hunter2\r\n"), {400}),
    "a line break in a header": (get(headers=b"X-A: a\rhunter2\r\n"), {200, 400}),
    "a space before the colon": (get(headers=b"X-A : hunter2\r\n"), {400}),
    "a header without a colon": (get(headers=b"hunter2\r\n"), {400}),
    "a header that is no text": (get(headers=b"X-A: \xff\xfe\x80\r\nUser-Agent: \xc3\r\n"), {200}),
    "ten thousand headers": (get(headers=b"X-A: hunter2\r\n" * 10_000), {200, 400, 431}),
    "a header of a megabyte": (get(headers=b"X-A: " + b"hunter2" * 150_000 + b"\r\n"), {200, 400, 431}),
    "a length below zero": (get(method=b"POST", headers=b"Content-Length: -1\r\n"), {400}),
    "a length that is no number": (get(method=b"POST", headers=b"Content-Length: hunter2\r\n"), {400}),
    "a length of 5000 digits": (get(method=b"POST", headers=b"Content-Length: " + b"9" * 5000 + b"\r\n"), {400}),
    "two lengths": (get(method=b"POST", headers=b"Content-Length: 1\r\nContent-Length: 2\r\n") + b"ab", {400}),
    "a length and chunks": (
        get(method=b"POST", headers=b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
        {400, 405},
    ),
    "chunks that are none": (
        get(b"/api/v1/auth/token", b"Transfer-Encoding: chunked\r\n", b"POST") + b"hunter2\r\n",
        {400},
    ),
    "an unknown transfer": (get(method=b"POST", headers=b"Transfer-Encoding: hunter2\r\n"), {400, 405}),
    "a path that is no text": (get(b"/\xff\xfe"), {400, 404}),
    "a path with a NUL": (get(b"/a\0b"), {400, 404}),
    "a path with half an escape": (get(b"/api/v1/items/%"), {401}),
    "a path of 60,000 characters": (get(b"/" + b"hunter2" * 8_500), {404}),
    "a path of a megabyte": (get(b"/" + b"hunter2" * 150_000), {400, 404, 414}),
    "a space in the path": (get(b"/health hunter2"), {400}),
    "no path": (get(b""), {400}),
    "a star": (get(b"*", method=b"OPTIONS"), {400, 404}),
    "another's address": (get(b"http://evil.example.com/hunter2"), {400, 404}),
    "no host": (b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", {400}),
    "no host, and an old protocol": (b"GET /health HTTP/1.0\r\n\r\n", {400}),
    "another host": (get(host=b"hunter2.example.com"), {400}),
    "a host that is no text": (get(host=b"\xff"), {400}),
    "two hosts": (get(headers=b"Host: hunter2.example.com\r\n"), {400}),
    "two hosts, the other way round": (get(headers=b"Host: localhost\r\n", host=b"hunter2.example.com"), {400}),
    "a host that others forward": (get(headers=b"X-Forwarded-Host: hunter2.example.com\r\n"), {200}),
    "CONNECT": (get(b"evil.example.com:443", method=b"CONNECT", host=b"evil.example.com:443"), {400}),
    "TRACE": (get(method=b"TRACE", headers=b"Cookie: hunter2\r\n"), {405}),
    "an unknown method": (get(method=b"HUNTER2"), {400, 405}),
    "a method in lower case": (get(method=b"get"), {400, 405}),
    "an upgrade": (get(headers=b"Connection: Upgrade\r\nUpgrade: hunter2\r\n"), {200}),
    "a websocket": (
        get(headers=b"Upgrade: websocket\r\nSec-WebSocket-Key: aHVudGVyMg==\r\nSec-WebSocket-Version: 13\r\n"),
        {200, 400, 403, 404},
    ),
    "an expectation": (get(headers=b"Expect: hunter2\r\n"), {200, 417}),
    "a line break in an answer": (get(b"/%0d%0aSet-Cookie:hunter2"), {404}),
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_no_client_sends_are_refused_politely(server: Server, name: str) -> None:
    sent, statuses = RAW[name]
    head, _, body = exchange(server, sent).partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])

    assert int(head.split()[1]) in statuses
    assert MARK.encode() not in (head + body).lower()
    if body != b"Invalid HTTP request received.":  # which is what uvicorn says before there is a request
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert re.fullmatch(b"[0-9a-f]{32}", headers[b"x-request-id"])
        assert headers[b"content-type"] == (b"application/json" if b" 200 " in head else b"application/problem+json")


def test_an_answer_to_head_has_no_body(server: Server) -> None:
    head, _, body = exchange(server, get(method=b"HEAD")).partition(b"\r\n\r\n")

    assert (head.split()[1], body) == (b"405", b"")


def test_one_request_is_one_line_of_the_log_whatever_is_in_it(server: Server) -> None:
    before = len(server.log.splitlines())
    fake = b'{"level":"ERROR","message":"forged"}'
    for path in (b"/%0a" + fake.replace(b'"', b"%22"), b"/%0d%0a%1b[31m", b"/%e2%80%a8", b"/?%0a" + fake, b"/" + fake):
        for name in (b"User-Agent", b"X-Request-ID", b"X-Forwarded-For", b"Referer", b"Authorization"):
            exchange(server, get(path, name + b": \xe2\x80\xa8\x85 " + fake + b"\r\n"))
    lines = [json.loads(line) for line in server.log.split("\n")[before:] if line]

    assert len(lines) == 25
    assert {(line["status"], line["level"]) for line in lines} == {(404, "INFO")}
    assert all(re.fullmatch("[0-9a-f]{32}", line["request_id"]) for line in lines)


# Mass assignment

# Names of columns, and of what else a client might hope for.
SERVERS_OWN = (
    {"id", "role", "is_active", "is_admin", "version", "created_at", "updated_at", "read_at", "last_used_at", "status"}
    | {"user_id", "actor_id", "owner_id", "creator_id", "creator_name", "password_hash", "sid", "kind", "post_id"}
    | {"total_cents", "unit_price_cents", "item_name", "comment_count", "name_key", "search_key", "full_name_key"}
)


@ON_SQLITE
@pytest.mark.parametrize("operation", WITH_JSON, ids=str)
def test_a_field_that_is_the_servers_cannot_be_sent(world: World, operation: Operation) -> None:
    for name in sorted(SERVERS_OWN - set(operation.body)):
        answer = world.send(operation, body=json.dumps(operation.body | {name: 1}).encode())

        assert answer.status_code == 422
        assert answer.json()["errors"] == [
            {"loc": ["body", name], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}
        ]


def test_a_line_of_an_order_takes_nothing_but_an_item_and_a_quantity(max: Person, lamp: dict[str, Any]) -> None:
    for name in [*SERVERS_OWN, "price_cents"]:
        answer = max.post("/orders", {"lines": [{"item_id": lamp["id"], "quantity": 1, name: 1}]})

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["body", "lines", 0, name]


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


@pytest.fixture
def others(ada: Person, eva: Person, lamp: dict[str, Any]) -> dict[str, int]:
    """The ids of what is Eva's alone."""
    order_id = eva.post("/orders", {"lines": [{"item_id": lamp["id"], "quantity": 1}]}).json()["id"]
    eva.post("/posts", {"title": "News", "content": "Lamps"})
    ada.post("/posts/1/comments", {"content": "Good"})
    return {
        "orders/{}": order_id,
        "users/{}": eva.id,
        "notifications/{}": eva.get("/notifications").json()["items"][0]["id"],
        "auth/sessions/{}": eva.get("/auth/sessions").json()[0]["id"],
    }


MISSING = 9  # as long as the ids that are there, so that the length of the answer is, too


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "orders/{}", None),
        ("PATCH", "orders/{}", {"status": "cancelled"}),
        ("PATCH", "orders/{}", {"status": "fulfilled"}),
        ("GET", "users/{}", None),
        ("PATCH", "users/{}", {"full_name": "Max"}),
        ("DELETE", "users/{}", None),
        ("PATCH", "notifications/{}", {"read": True}),
        ("DELETE", "auth/sessions/{}", None),
    ],
)
def test_what_is_someone_elses_answers_as_what_is_not_there(
    max: Person, others: dict[str, int], method: str, path: str, body: object
) -> None:
    assert others[path] < MISSING
    theirs = max.request(method, f"/{path.format(others[path])}", json=body, headers={"If-Match": '"7"'})
    missing = max.request(method, f"/{path.format(MISSING)}", json=body, headers={"If-Match": '"7"'})

    assert shown(theirs, f" {others[path]} ") == shown(missing, f" {MISSING} ")
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
            token = PasswordReset.issue(session, session.get_one(User, 1))
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
        client.post("/api/v1/items", content=b"x" * 101, headers=headers | JSON),
        client.get("/health?x=1", headers=headers),
        client.get(f"{API}/auth/sessions", headers=headers),
        client.get("/probes/fails", headers=headers),
    ]
    aside = settings.sqlite_path.rename(settings.sqlite_path.with_suffix(".aside"))
    answers.append(client.get("/ready", headers=headers))
    aside.rename(settings.sqlite_path)
    return answers
