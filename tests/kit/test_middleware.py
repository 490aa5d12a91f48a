"""What every answer carries, which hosts and sites are served, and how many requests may wait."""

import re
import socket
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from time import sleep

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from kit import middleware
from kit.app import App
from kit.middleware import HostMiddleware
from kit.routing import Router
from settings import Settings
from tests.conftest import MakeApp
from tests.kit.answers import BODY_LIMIT, SITE, every_kind_of_answer
from tests.people import API, PASSWORD, Person, Row
from tests.server import serving, until

SIGN_INS = f"{API}/auth/sessions"  # below /auth, and answered 401 at once


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """In production, where a line of the log is JSON."""
    ours = {"environment": "production", "log_json": True, "cors_origins": [SITE], "max_body_bytes": BODY_LIMIT}
    return settings.model_copy(update=ours)


@pytest.fixture
def answers(ada: Person, hall: Row) -> dict[str, Response]:
    answers = every_kind_of_answer(ada, hall["id"])
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


def test_only_production_insists_on_https(settings: Settings, make_app: MakeApp) -> None:
    with TestClient(make_app(settings.model_copy(update={"environment": "development"}))) as client:
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


def test_what_a_signed_in_caller_gets_is_private(ada: Person, hall: Row) -> None:
    answers = every_kind_of_answer(ada, hall["id"])
    asked_by_ada = [answer for answer in answers.values() if "authorization" in answer.request.headers]

    assert len(asked_by_ada) > 8
    assert {tuple(a.headers.get_list("cache-control")) for a in asked_by_ada} == {("private, no-cache",)}
    assert ada.get("/rooms/1").headers["etag"] == '"1"'


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
def test_only_the_listed_hosts_are_served(settings: Settings, make_app: MakeApp, host: str, served: bool) -> None:
    hosts = ["localhost", "127.0.0.1", "[::1]", "*.example.com"]
    with TestClient(make_app(settings.model_copy(update={"allowed_hosts": hosts}))) as client:
        answer = client.get("/health", headers={b"Host": host.encode()})

    assert answer.status_code == (200 if served else 400)
    assert served or answer.json()["error_code"] == "HOST_NOT_ALLOWED"


def test_a_star_serves_every_host_that_is_one(app: App) -> None:
    gate = HostMiddleware(app, ["*"])

    assert gate.serves("anything.example.org:80")
    assert not gate.serves("")


# Other sites


def test_a_listed_site_may_read_every_answer_and_no_other_site_any(ada: Person, hall: Row) -> None:
    ada.client.headers["Origin"] = SITE
    for answer in every_kind_of_answer(ada, hall["id"]).values():
        assert answer.headers["access-control-allow-origin"] == SITE
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    for origin in ("https://evil.example.com", "null", "http://shop.example.com", f"{SITE}.evil.org", f"{SITE}:444"):
        answer = ada.get("/rooms", headers={"Origin": origin})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_listed_site_may_ask_before_it_sends(client: TestClient, method: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization, if-match"}
    answer = client.options(f"{API}/rooms/1", headers={"Origin": SITE} | asked)

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
    answer = client.options(f"{API}/rooms/1", headers={"Origin": origin} | asked)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error_code"] == "BAD_REQUEST"
    assert answer.headers.get("access-control-allow-origin") == (SITE if origin == SITE else None)


def test_without_listed_sites_no_answer_names_one(settings: Settings, make_app: MakeApp) -> None:
    with TestClient(make_app(settings.model_copy(update={"cors_origins": []}))) as client:
        answer = client.get("/health", headers={"Origin": SITE})

    assert not [name for name in answer.headers if name.startswith("access-control")]


# How many may wait

probes = Router(public=True, prefix="/probes")
gate = Event()


@probes.get("/waits")
def waits() -> None:
    gate.wait(20)


@pytest.fixture
def crowded(fresh_app: None, monkeypatch: pytest.MonkeyPatch, app: App) -> Generator[TestClient]:
    """The app while as many requests are under way as may be."""
    app.include_router(probes)
    monkeypatch.setattr(middleware, "MAX_IN_FLIGHT", 3)
    gate.clear()
    with TestClient(app, raise_server_exceptions=False) as client, ThreadPoolExecutor(3) as threads:
        # Each tries again where it met the question below, which takes a place, too.
        waiting = [threads.submit(until, lambda: client.get("/probes/waits").is_success) for _ in range(3)]
        until(lambda: client.get("/ready").status_code == 503)
        yield client
        gate.set()
        wait(waiting)
        assert client.get("/ready").status_code == 200


@pytest.mark.parametrize("path", ["/ready", "/nothing", SIGN_INS, f"{API}/rooms", "/probes/waits"])
def test_who_would_wait_too_long_is_told_so_at_once(path: str, crowded: TestClient) -> None:
    answer = crowded.get(path)

    assert (answer.status_code, answer.json()["error_code"]) == (503, "DATABASE_BUSY")
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_health_is_answered_whoever_waits(crowded: TestClient) -> None:
    assert crowded.get("/health").status_code == 200


def test_a_request_that_fails_makes_room_for_the_next(
    client: TestClient, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_IN_FLIGHT", 1)
    failing = [client.post(f"{API}/rooms", content=b"{").status_code for _ in range(3)]
    failing += [ada.get("/rooms/999999").status_code, ada.get("/nothing").status_code]

    assert failing == [401, 401, 401, 404, 404]
    assert ada.get("/users/me").status_code == 200


@pytest.mark.usefixtures("fresh_app")
def test_a_client_that_goes_away_makes_room_for_the_next(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "MAX_IN_FLIGHT", 1)
    with serving(app) as client:
        half = b"POST /api/v1/auth/register HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as slow:
            slow.sendall(half)
            sleep(0.2)  # or the question below may come first, and take its place
            until(lambda: client.get("/ready").status_code == 503)
        until(lambda: client.get("/ready").status_code == 200)
