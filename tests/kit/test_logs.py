"""The edge: what every answer carries, and what the log says of it."""

import json
import logging
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from loguru import logger
from sqlmodel import select
from starlette.requests import Request

from app import create_app
from kit.app import App
from kit.db import Database
from kit.middleware import HostMiddleware
from kit.routing import Router
from kit.sessions import LoginSession
from models import User
from settings import Settings
from tests.conftest import API, PASSWORD, Person

SITE = "https://shop.example.com"
BODY_LIMIT = 2048
EVIL = 'a\nb\r\n{"level": "ERROR"} {0} {x} %s <red>ä\u2028\u0085\x1b[31m\\ "'

probes = Router(public=True, prefix="/probes")


@probes.get("/fails")
def fails(request: Request) -> None:
    password = request.headers["x-password"]
    raise RuntimeError("the shelf broke" + password[:0])


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """In production, where a line of the log is JSON."""
    ours = {"environment": "production", "log_json": True, "cors_origins": [SITE], "max_body_bytes": BODY_LIMIT}
    return settings.model_copy(update=ours)


@pytest.fixture
def app(settings: Settings) -> App:
    app = create_app(settings)
    app.include_router(probes)
    return app


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged since the last look, every line of it, but for what the test client says of itself."""
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    return [event for line in lines if line and (event := json.loads(line)).get("logger") != "httpx2"]


def every_kind_of_answer(ada: Person, item_id: int) -> dict[str, Response]:
    item, anybody = f"/items/{item_id}", ada.client
    return {
        "200": ada.get(item),
        "201": ada.post("/items", {"name": "Chair", "price_cents": 1}),
        "204": ada.delete(f"{item}000", headers={"If-Match": "*"}),
        "304": ada.get(item, headers={"If-None-Match": '"1"'}),
        "400": ada.post("/items", content=b"\xff", headers={"Content-Type": "application/json"}),
        "400 host": anybody.get("/health", headers={"Host": "elsewhere.example.com"}),
        "401": anybody.get(f"{API}{item}"),
        "404": ada.get("/items/999"),
        "404 route": anybody.get("/nowhere"),
        "405": anybody.put("/health"),
        "409": ada.post("/items", {"name": "Lamp", "price_cents": 1}),
        "412": ada.patch(item, {}, headers={"If-Match": '"9"'}),
        "413": ada.post("/items", content=b"x" * (BODY_LIMIT + 1), headers={"Content-Type": "application/json"}),
        "422": ada.get("/items/first"),
        "500": anybody.get("/probes/fails", headers={"X-Password": PASSWORD}),
    }


@pytest.fixture
def answers(ada: Person, lamp: dict[str, Any]) -> dict[str, Response]:
    answers = every_kind_of_answer(ada, lamp["id"])
    assert {kind: str(answer.status_code) for kind, answer in answers.items() if kind != "204"} == {
        kind: kind.split()[0] for kind in answers if kind != "204"
    }
    return answers


# What every answer carries


def test_every_answer_has_the_security_headers(answers: dict[str, Response]) -> None:
    for answer in answers.values():
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; frame-ancestors 'none';")
        assert "unsafe" not in policy


def test_every_answer_has_a_request_id_of_its_own(answers: dict[str, Response]) -> None:
    ids = [answer.headers.get_list("x-request-id") for answer in answers.values()]

    assert all(len(found) == 1 and re.fullmatch("[0-9a-f]{32}", found[0]) for found in ids)
    assert len({found[0] for found in ids}) == len(answers)


def test_every_error_is_a_problem_that_names_its_request(answers: dict[str, Response]) -> None:
    for answer in answers.values():
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_only_production_insists_on_https(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"environment": "development"}))) as client:
        assert "strict-transport-security" not in client.get("/health").headers


@pytest.mark.parametrize("given", ["a", "Az09._-", "x" * 64])
def test_a_valid_request_id_is_kept(client: TestClient, given: str) -> None:
    answer = client.get("/nowhere", headers={"X-Request-ID": given})

    assert answer.headers["x-request-id"] == answer.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a/b", "a,b", 'a"b', "<b>", "é".encode(), b"a\tb"])
def test_any_other_request_id_is_replaced(client: TestClient, given: str | bytes) -> None:
    answer = client.get("/nowhere", headers={b"X-Request-ID": given if isinstance(given, bytes) else given.encode()})

    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_what_a_signed_in_caller_gets_is_private(ada: Person, lamp: dict[str, Any]) -> None:
    answers = every_kind_of_answer(ada, lamp["id"])
    asked_by_ada = [answer for answer in answers.values() if "authorization" in answer.request.headers]

    assert len(asked_by_ada) > 8
    assert {tuple(a.headers.get_list("cache-control")) for a in asked_by_ada} == {("private, no-cache",)}
    assert ada.get("/items/1").headers["etag"] == '"1"'


def test_what_the_auth_routes_say_is_never_stored(ada: Person) -> None:
    signed_in = ada.client.post(f"{API}/auth/token", data={"username": ada.email, "password": PASSWORD})
    refused = ada.client.post(f"{API}/auth/token", data={"username": ada.email, "password": "wrong"})
    answers = [signed_in, refused, ada.get("/auth/sessions"), ada.client.get(f"{API}/auth/sessions")]

    assert [answer.status_code for answer in answers] == [200, 400, 200, 401]
    assert [answer.headers.get_list("cache-control") for answer in answers] == [["no-store"]] * 4


# Hosts


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("localhost:8000", True),
        ("127.0.0.1:65535", True),
        ("[::1]", True),
        ("[::1]:8000", True),
        ("shop.example.com", True),
        ("a.b.Example.com:443", True),
        ("example.com", False),
        ("badexample.com", False),
        ("shop.example.com.evil.org", False),
        ("evil.org#.example.com", False),
        ("localhost.evil.org", False),
        ("evil.org", False),
        ("::1", False),
        ("[::2]", False),
        ("localhost:", False),
        ("localhost:port", False),
        ("localhost:123456", False),
        ("localhost:80:80", False),
        ("user@localhost", False),
        ("localhost/x", False),
        ("local host", False),
        ("localhost, evil.org", False),
        ("", False),
        ("é", False),
    ],
)
def test_only_the_listed_hosts_are_served(settings: Settings, host: str, served: bool) -> None:
    hosts = ["localhost", "127.0.0.1", "[::1]", "*.example.com"]
    with TestClient(create_app(settings.model_copy(update={"allowed_hosts": hosts}))) as client:
        answer = client.get("/health", headers={b"Host": host.encode()})

    assert answer.status_code == (200 if served else 400)
    assert served or answer.json()["error_code"] == "HOST_NOT_ALLOWED"


def test_a_star_serves_every_host_that_is_one(app: App) -> None:
    gate = HostMiddleware(app, ["*"])

    assert gate.serves("anything.example.org:80")
    assert not gate.serves("")


# Other sites


def test_a_listed_site_may_read_every_answer_and_no_other_site_any(ada: Person, lamp: dict[str, Any]) -> None:
    ada.client.headers["Origin"] = SITE
    for answer in every_kind_of_answer(ada, lamp["id"]).values():
        assert answer.headers["access-control-allow-origin"] == SITE
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    for origin in ("https://evil.example.com", "null", "http://shop.example.com", f"{SITE}.evil.org", f"{SITE}:444"):
        answer = ada.get("/items", headers={"Origin": origin})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_listed_site_may_ask_before_it_sends(client: TestClient, method: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization, if-match"}
    answer = client.options(f"{API}/items/1", headers={"Origin": SITE} | asked)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == SITE
    assert method in answer.headers["access-control-allow-methods"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("origin", "method", "header"),
    [
        ("https://evil.example.com", "GET", "authorization"),
        (SITE, "TRACE", "authorization"),
        (SITE, "GET", "x-unheard-of"),
    ],
)
def test_a_refused_question_of_a_site_is_a_problem(client: TestClient, origin: str, method: str, header: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
    answer = client.options(f"{API}/items/1", headers={"Origin": origin} | asked)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error_code"] == "BAD_REQUEST"
    assert answer.headers.get("access-control-allow-origin") == (SITE if origin == SITE else None)


def test_without_listed_sites_no_answer_names_one(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"cors_origins": []}))) as client:
        answer = client.get("/health", headers={"Origin": SITE})

    assert not [name for name in answer.headers if name.startswith("access-control")]


# The log


def test_a_request_is_one_line(capsys: pytest.CaptureFixture[str], ada: Person) -> None:
    events(capsys)
    ada.get("/users/me?secret=1", headers={"X-Request-ID": "the-first"})
    (event,) = events(capsys)

    assert event.pop("duration_ms") > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", event.pop("time"))
    assert re.fullmatch(r"GET /api/v1/users/me 422 [\d.]+ ms", event.pop("message"))
    assert event == {
        "level": "INFO",
        "method": "GET",
        "path": "/api/v1/users/me",
        "status": 422,
        "request_id": "the-first",
        "user_id": ada.id,
    }


def test_every_kind_of_answer_is_one_line(capsys: pytest.CaptureFixture[str], answers: dict[str, Response]) -> None:
    seen = [(event["request_id"], event["status"]) for event in events(capsys) if "duration_ms" in event]

    expected = [(answer.headers["x-request-id"], answer.status_code) for answer in answers.values()]
    assert seen[-len(expected) :] == expected


def test_a_line_of_nobody_has_no_user(capsys: pytest.CaptureFixture[str], client: TestClient) -> None:
    events(capsys)
    client.get("/health")
    client.get(f"{API}/users/me", headers={"Authorization": "Bearer x"})

    assert [(event["status"], event["user_id"]) for event in events(capsys)] == [(200, None), (401, None)]


@pytest.mark.parametrize("path", ["/%0a%7b%22level%22:1%7d", "/a%0d%0ab", "/ä\u2028", "/{0}{x}", "/%ff%00", '/"\\'])
def test_a_request_is_one_line_whatever_is_in_it(
    capsys: pytest.CaptureFixture[str], client: TestClient, path: str
) -> None:
    events(capsys)
    client.get(path, headers={b"User-Agent": EVIL.encode().replace(b"\n", b"").replace(b"\r", b"")})
    (event,) = events(capsys)

    assert (event["status"], event["level"]) == (404, "INFO")
    assert event["path"].isascii()
    assert event["path"].isprintable()


def test_an_event_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str], client: TestClient) -> None:
    events(capsys)
    logger.bind(detail=EVIL).warning("{}", EVIL)
    logging.getLogger("some.library").warning("%s", EVIL)
    ours, theirs = events(capsys)

    assert ours["message"] == ours["detail"] == theirs["message"] == EVIL
    assert (theirs["logger"], theirs["level"]) == ("some.library", "WARNING")


def test_the_standard_log_is_taken_over(capsys: pytest.CaptureFixture[str], client: TestClient) -> None:
    events(capsys)
    logging.getLogger("uvicorn.error").error("a fault")
    logging.getLogger("uvicorn").info("a start")
    logging.getLogger("some.library").debug("too much")
    logging.getLogger("uvicorn.access").info("GET /?secret=1")
    logging.getLogger("some.library").log(35, "a level of its own")
    try:
        raise KeyError("gone")
    except KeyError:
        logging.getLogger("some.library").exception("an exception")
    seen = events(capsys)

    assert [(e["level"], e["message"]) for e in seen] == [
        ("ERROR", "a fault"),
        ("INFO", "a start"),
        ("INFO", "a level of its own"),
        ("ERROR", "an exception"),
    ]
    assert "KeyError: 'gone'" in seen[-1]["exception"]


def test_nothing_secret_is_logged(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"log_level": "TRACE"}))) as client:
        account = {"email": "ada@example.com", "full_name": "Ada", "password": PASSWORD}
        client.post(f"{API}/auth/register", json=account)
        client.post(f"{API}/auth/register", json=account | {"password": "hunter2"})
        client.post(f"{API}/auth/token", data={"username": "ada@example.com", "password": "hunter2"})
        form = {"username": "ada@example.com", "password": PASSWORD}
        first = client.post(f"{API}/auth/token", data=form).json()
        form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        second = client.post(f"{API}/auth/token", data=form).json()
        signed_in = {"Authorization": f"Bearer {second['access_token']}"}
        change = {"current_password": PASSWORD, "new_password": "Another-horse-2"}
        assert client.put(f"{API}/users/me/password", json=change, headers=signed_in).status_code == 204
        client.get(f"{API}/users/me?token={second['access_token']}", headers=signed_in)
    logged = json.dumps(events(capsys))
    database = Database(settings)
    with database.read() as session:
        (user,), (login_session,) = session.exec(select(User)).all(), session.exec(select(LoginSession)).all()
    database.close()
    tokens = [pair[kind] for pair in (first, second) for kind in ("access_token", "refresh_token")]
    hashes = [user.password_hash, login_session.family_hash, login_session.secret_hash]

    assert f"PUT {API}/users/me/password 204" in logged
    for secret in (PASSWORD, "hunter2", "Another-horse-2", *tokens, *hashes):
        assert secret not in logged


def test_a_fault_is_answered_with_nothing_and_logged_once(
    capsys: pytest.CaptureFixture[str], client: TestClient
) -> None:
    events(capsys)
    answer = client.get("/probes/fails", headers={"X-Password": "hunter2", "X-Request-ID": "the-broken-one"})
    fault, line = events(capsys)

    assert answer.status_code == 500
    assert answer.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "Something went wrong here; the log has it under the request id.",
        "error_code": "INTERNAL_ERROR",
        "request_id": "the-broken-one",
    }
    assert (fault["level"], fault["message"]) == ("ERROR", "Unhandled RuntimeError")
    assert fault["request_id"] == line["request_id"] == "the-broken-one"
    assert "RuntimeError: the shelf broke" in fault["exception"]
    assert "test_logs.py" in fault["exception"]
    assert "hunter2" not in json.dumps([fault, line])
    assert line["status"] == 500


def test_in_development_a_line_is_for_people(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"log_json": False}))) as client:
        capsys.readouterr()
        client.get("/health", headers={"X-Request-ID": "the-first"})
    lines = [line for line in capsys.readouterr().err.splitlines() if "httpx" not in line and "/health" in line]

    assert any(re.search(r"INFO +GET /health 200 [\d.]+ ms the-first", line) for line in lines)


@pytest.mark.parametrize(("level", "lines"), [("INFO", 1), ("WARNING", 0)])
def test_the_level_of_the_log_is_a_setting(
    capsys: pytest.CaptureFixture[str], settings: Settings, level: str, lines: int
) -> None:
    with TestClient(create_app(settings.model_copy(update={"log_level": level}))) as client:
        events(capsys)
        client.get("/health")

    assert len(events(capsys)) == lines
