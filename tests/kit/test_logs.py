"""The log: one line a request, whatever is in it, and nothing secret."""

import json
import logging
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from loguru import logger
from sqlmodel import select

from kit.db import Database
from kit.sessions import LoginSession
from models import User
from settings import Settings
from tests.conftest import MakeApp
from tests.kit.answers import BODY_LIMIT, SITE, every_kind_of_answer
from tests.people import API, PASSWORD, Person, Row

EVIL = 'a\nb\r\n{"level": "ERROR"} {0} {x} %s <red>ä\u2028\u0085\x1b[31m\\ "'


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """In production, where a line of the log is JSON."""
    ours = {"environment": "production", "log_json": True, "cors_origins": [SITE], "max_body_bytes": BODY_LIMIT}
    return settings.model_copy(update=ours)


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged since the last look, every line of it, but for what the test client says of itself."""
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    return [event for line in lines if line and (event := json.loads(line)).get("logger") != "httpx2"]


@pytest.fixture
def answers(ada: Person, hall: Row) -> dict[str, Response]:
    answers = every_kind_of_answer(ada, hall["id"])
    assert {kind: str(answer.status_code) for kind, answer in answers.items() if kind != "204"} == {
        kind: kind.split()[0] for kind in answers if kind != "204"
    }
    return answers


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


def test_nothing_secret_is_logged(capsys: pytest.CaptureFixture[str], settings: Settings, make_app: MakeApp) -> None:
    with TestClient(make_app(settings.model_copy(update={"log_level": "TRACE"}))) as client:
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
    answer = client.get("/anybody/fails", headers={"X-Password": "hunter2", "X-Request-ID": "the-broken-one"})
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
    assert "specimen.py" in fault["exception"]
    assert "hunter2" not in json.dumps([fault, line])
    assert line["status"] == 500


def test_in_development_a_line_is_for_people(
    capsys: pytest.CaptureFixture[str], settings: Settings, make_app: MakeApp
) -> None:
    with TestClient(make_app(settings.model_copy(update={"log_json": False}))) as client:
        capsys.readouterr()
        client.get("/health", headers={"X-Request-ID": "the-first"})
    lines = [line for line in capsys.readouterr().err.splitlines() if "httpx" not in line and "/health" in line]

    assert any(re.search(r"INFO +GET /health 200 [\d.]+ ms the-first", line) for line in lines)


@pytest.mark.parametrize(("level", "lines"), [("INFO", 1), ("WARNING", 0)])
def test_the_level_of_the_log_is_a_setting(
    capsys: pytest.CaptureFixture[str], settings: Settings, make_app: MakeApp, level: str, lines: int
) -> None:
    with TestClient(make_app(settings.model_copy(update={"log_level": level}))) as client:
        events(capsys)
        client.get("/health")

    assert len(events(capsys)) == lines
