"""What breaks around the app: killed processes, held locks, full disks, damaged files, clocks that jump.

Each test keeps the figures that it reached as its properties: `--junit-xml` writes them down, and docs/reliability.md
says what they were.
"""

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from random import uniform
from time import monotonic, sleep
from typing import Any, Self

import pytest
from fastapi.testclient import TestClient
from httpx2 import Client, Response, TransportError
from jwt import api_jwt

import kit.models
from tests import missing
from tests.conftest import API, PASSWORD, Person
from tests.postgres import Postgres, running_postgres
from tests.server import (
    HURRIED,
    HURRIED_BUSY_SECONDS,
    HURRIED_SHUTDOWN_SECONDS,
    MANY,
    PATIENCE,
    ROOT,
    RoughServer,
    add_items,
    bearer_of,
    code,
    half_sent,
    lines,
    write_lock_held,
)

Record = Callable[[str, object], None]


def keep_ordering(server: RoughServer, bearer: str, body: dict[str, Any], acknowledged: list[dict[str, Any]]) -> None:
    """Order again and again, and note what was acknowledged, until the server is gone."""
    with server.connect(bearer) as client:
        while True:
            try:
                answer = client.post("/orders", json=body)
            except TransportError:
                return
            if answer.status_code == 201:
                acknowledged.append(answer.json())
            else:
                sleep(0.1)


@contextmanager
def many_ordering(server: RoughServer, bearer: str, body: dict[str, Any]) -> Generator[list[dict[str, Any]]]:
    """While eight clients order until the server is gone; gives the orders that were acknowledged so far."""
    acknowledged: list[dict[str, Any]] = []
    with ThreadPoolExecutor(8) as threads:
        clients = [threads.submit(keep_ordering, server, bearer, body, acknowledged) for _ in range(8)]
        try:
            yield acknowledged
        finally:
            server.kill()
    for client in clients:
        client.result()


def wait_for(orders: Sequence[object], amount: int) -> None:
    """Wait until so many orders were acknowledged."""
    deadline = monotonic() + PATIENCE
    while len(orders) < amount:
        assert monotonic() < deadline, f"{len(orders)} of {amount} orders"
        sleep(0.01)


def stored_orders(ada: Client) -> dict[int, dict[str, Any]]:
    """All orders by their ids, as the API shows them."""
    orders: dict[int, dict[str, Any]] = {}
    has_next, page = True, 0
    while has_next:
        page += 1
        answer = ada.get("/orders", params={"page": page, "page_size": 100}).raise_for_status().json()
        orders |= {order["id"]: order for order in answer["items"]}
        has_next = answer["has_next"]
    return orders


def assert_orders_whole(ada: Client, item_ids: Sequence[int], acknowledged: Sequence[dict[str, Any]]) -> int:
    """Every acknowledged order is there as it was answered, and none is half there; returns how many there are."""
    orders = stored_orders(ada)
    quantities = {item_id: ada.get(f"/items/{item_id}").json()["quantity"] for item_id in item_ids}
    body = lines(item_ids)["lines"]

    assert [order["id"] for order in acknowledged if orders.get(order["id"]) != order] == []
    for order in orders.values():
        assert [{name: line[name] for name in ("item_id", "quantity")} for line in order["lines"]] == body
        assert order["total_cents"] == sum(line["quantity"] * line["unit_price_cents"] for line in order["lines"])
    assert quantities == {line["item_id"]: MANY - line["quantity"] * len(orders) for line in body}
    return len(orders)


def assert_nothing_lost(
    server: RoughServer, ada: Client, item_ids: Sequence[int], acknowledged: Sequence[dict[str, Any]]
) -> int:
    """The same, and the audit agrees, and the file is sound."""
    stored = assert_orders_whole(ada, item_ids, acknowledged)
    audited = dict(server.rows("SELECT entity || ' ' || action, count(*) FROM audit_entry GROUP BY 1"))

    assert audited.get("order create", 0) == stored
    assert audited.get("item update", 0) == stored * len(item_ids)
    assert server.rows("PRAGMA integrity_check") == [("ok",)]
    assert server.rows("PRAGMA foreign_key_check") == []
    return stored


# Ends


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill_and_nothing_is_half_there(folder: Path, record_property: Record) -> None:
    acknowledged: list[dict[str, Any]] = []
    bearer, item_ids, rounds = "", list[int](), 3
    for _ in range(rounds):
        server = RoughServer(folder, workers=2)
        with server.running():
            if not bearer:
                with server.as_ada() as ada:
                    bearer, item_ids = bearer_of(ada), add_items(ada)
            with many_ordering(server, bearer, lines(item_ids)) as orders:
                wait_for(orders, 1)
                sleep(uniform(0, 1))  # noqa: S311 - a moment, not a secret
        acknowledged += orders
    server = RoughServer(folder)
    with server.running(), server.as_ada() as ada:
        stored = assert_nothing_lost(server, ada, item_ids, acknowledged)

    record_property("kills", rounds)
    record_property("orders acknowledged", len(acknowledged))
    record_property("orders stored", stored)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_under_way_is_finished_before_the_end(folder: Path, record_property: Record, workers: int) -> None:
    server = RoughServer(folder, workers)
    with server.running(), server.as_ada() as ada, ThreadPoolExecutor(40) as threads:
        item_ids = add_items(ada)
        with write_lock_held(server.database_path):
            answers = [threads.submit(ada.post, "/orders", json=lines(item_ids)) for _ in range(40)]
            sleep(1.5)  # by now all of them were accepted, and wait for the lock
            assert not any(answer.done() for answer in answers)
            server.process.terminate()
            sleep(0.5)
        seconds = server.wait()
        orders = [answer.result().raise_for_status().json() for answer in answers]

    assert server.process.returncode == 0
    assert {answer.result().status_code for answer in answers} == {201}
    server = RoughServer(folder)
    with server.running(), server.as_ada() as ada:
        assert assert_nothing_lost(server, ada, item_ids, orders) == 40
    record_property("orders finished", len(orders))
    record_property("seconds from SIGTERM to the end", round(0.5 + seconds, 1))


@pytest.mark.slow
def test_a_client_that_never_sends_the_rest_does_not_keep_the_process_alive(
    tmp_path: Path, template: Path, record_property: Record
) -> None:
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder in folders:
        folder.mkdir()
        shutil.copy(template, folder / "app.db")
    servers = [RoughServer(folder, int(folder.name), app=HURRIED) for folder in folders]
    with servers[0].running(), servers[1].running():
        connections = [server.open_socket() for server in servers]
        for connection in connections:
            connection.sendall(half_sent("POST", "/auth/register", "", b"{}")[0])  # which is read without a token
        sleep(1)
        for server in servers:
            server.process.terminate()
        seconds = [server.wait() for server in servers]
        codes = [server.process.returncode for server in servers]
        for connection in connections:
            connection.close()

    assert codes == [0, 0]
    assert seconds[0] > HURRIED_SHUTDOWN_SECONDS - 1  # while the other one came to its end, too
    assert sum(seconds) < HURRIED_SHUTDOWN_SECONDS + 5
    record_property("seconds from SIGTERM to the end", round(sum(seconds), 1))


# Locks


@pytest.mark.slow
def test_a_lock_that_is_held_for_two_seconds_delays_writes_and_nothing_else(
    folder: Path, record_property: Record
) -> None:
    server = RoughServer(folder, workers=2)
    with server.running(), server.as_ada() as ada, ThreadPoolExecutor(10) as threads:
        item_ids = add_items(ada)
        with write_lock_held(server.database_path):
            answers = [threads.submit(ada.post, "/orders", json=lines(item_ids)) for _ in range(10)]
            slowest = slowest_read(server, bearer_of(ada), seconds=2)
            assert not any(answer.done() for answer in answers)
        orders = [answer.result().raise_for_status().json() for answer in answers]
        assert assert_nothing_lost(server, ada, item_ids, orders) == 10

    assert server.faults == []
    record_property("writes that waited and succeeded", len(orders))
    record_property("slowest read meanwhile, in ms", slowest)


@pytest.mark.slow
def test_a_lock_that_is_held_for_longer_than_a_write_waits_refuses_writes_and_they_recover(
    folder: Path, record_property: Record
) -> None:
    server = RoughServer(folder, app=HURRIED)
    with server.running(), server.as_ada() as ada, ThreadPoolExecutor(1) as threads:
        item_ids = add_items(ada)
        with write_lock_held(server.database_path):
            writing = threads.submit(order_until_it_succeeds, server, bearer_of(ada), lines(item_ids))
            slowest = slowest_read(server, bearer_of(ada), seconds=2.5 * HURRIED_BUSY_SECONDS)
        *refused, last = writing.result()

        assert len(refused) in (1, 2)  # what the outbox does may wait before the first of them
        assert {code(answer) for answer in refused} == {(503, "DATABASE_BUSY")}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert assert_nothing_lost(server, ada, item_ids, [last.json()]) == 1
    record_property("writes refused", len(refused))
    record_property("slowest read meanwhile, in ms", slowest)


def order_until_it_succeeds(server: RoughServer, bearer: str, body: dict[str, Any]) -> list[Response]:
    """Order again and again; returns all the answers, of which the last one is the success."""
    with server.connect(bearer) as client:
        answers = [client.post("/orders", json=body)]
        while answers[-1].status_code != 201 and len(answers) < 1000:
            answers.append(client.post("/orders", json=body))
    return answers


def slowest_read(server: RoughServer, bearer: str, seconds: float) -> float:
    """Read for so long, see that every read succeeds, and return how many milliseconds the slowest one took."""
    until = monotonic() + seconds
    slowest = 0.0
    with server.connect(bearer) as client:
        while monotonic() < until:
            began = monotonic()
            assert client.get("/orders").status_code == 200
            slowest = max(slowest, monotonic() - began)
            sleep(0.02)
    return round(1000 * slowest)


# Disks


def can_mount() -> bool:
    """Whether we may make a file system of our own."""
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        return False
    return subprocess.run([unshare, "--mount", "true"], capture_output=True, check=False).returncode == 0  # noqa: S603


class SmallDisk:
    """A file system of eight megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ballast = folder / "ballast"

    @contextmanager
    def mounted(self) -> Generator[None]:
        if not can_mount():
            missing.lacking("the right to mount a file system")
        options = ["-t", "tmpfs", "-o", "size=8m", "stockroom"]
        subprocess.run(["mount", *options, self.folder], check=True)  # noqa: S603, S607 - our own folder
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", self.folder], check=True)  # noqa: S603, S607 - our own folder

    def fill(self, _server: RoughServer) -> None:
        with self.ballast.open("wb", buffering=0) as ballast:
            while shutil.disk_usage(self.folder).free:
                ballast.write(bytes(4096))

    def make_space(self, _server: RoughServer) -> None:
        self.ballast.unlink()


class LimitedFiles:
    """A limit on how long a file of the process may be: its journal may not grow any more."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "app.db-wal"

    @contextmanager
    def mounted(self) -> Generator[None]:
        missing.require_linux()
        yield

    def fill(self, server: RoughServer) -> None:
        limit = (self.journal.stat().st_size, resource.RLIM_INFINITY)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limit)

    def make_space(self, server: RoughServer) -> None:
        no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, no_limit)


FULL_DISKS: list[tuple[type[SmallDisk | LimitedFiles], tuple[int, str]]] = [
    (LimitedFiles, (503, "DATABASE_UNAVAILABLE")),
    (SmallDisk, (507, "STORAGE_FULL")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "refusal"), FULL_DISKS)
def test_a_full_disk_refuses_writes_and_they_recover_when_there_is_space(
    tmp_path: Path,
    record_property: Record,
    kind: type[SmallDisk | LimitedFiles],
    refusal: tuple[int, str],
) -> None:
    disk = kind(tmp_path)
    with disk.mounted():
        server = RoughServer(tmp_path)
        with server.running(), server.as_ada() as ada:
            item_ids = add_items(ada)
            place = partial(ada.post, "/orders", json=lines(item_ids))
            before = [place() for _ in range(20)]
            disk.fill(server)
            meanwhile = [place() for _ in range(100)]
            reads = [ada.get(path).status_code for path in ("/users/me", "/items", "/orders", "/audit", "/dashboard")]
            assert (server.status("/health"), server.status("/ready")) == (200, 200)
            disk.make_space(server)
            after = [place() for _ in range(20)]
            orders = [answer.json() for answer in before + meanwhile + after if answer.status_code == 201]
            assert assert_nothing_lost(server, ada, item_ids, orders) == len(orders)

    refused = [code(answer) for answer in meanwhile if answer.status_code != 201]
    assert set(refused) == {refusal}
    assert reads == [200] * 5
    assert {answer.status_code for answer in before + after} == {201}
    record_property("writes refused", len(refused))
    record_property("orders acknowledged and kept", len(orders))


# Files


def powerless() -> list[str]:
    """The command that takes from root the power to write what nobody may write."""
    if os.geteuid() != 0:
        return []
    return [missing.program("setpriv"), "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.slow
def test_a_file_that_may_only_be_read_is_read_and_written_again_when_it_may_be(
    folder: Path, record_property: Record
) -> None:
    server = RoughServer(folder)
    with server.running(), server.as_ada() as ada:
        bearer, item_ids = bearer_of(ada), add_items(ada)
        orders = [ada.post("/orders", json=lines(item_ids)).raise_for_status().json() for _ in range(5)]
        server.process.terminate()
        server.wait()
    server.database_path.chmod(0o444)
    server = RoughServer(folder, wrapped_in=powerless())
    with server.running(), server.connect(bearer) as ada:
        refused = [code(ada.post("/orders", json=lines(item_ids))) for _ in range(10)]
        assert stored_orders(ada).keys() == {order["id"] for order in orders}
        for path in folder.glob("app.db*"):
            path.chmod(0o644)
        *late, last = order_until_it_succeeds(server, bearer, lines(item_ids))
        assert assert_nothing_lost(server, ada, item_ids, [*orders, last.json()]) == 6

    assert refused == [(503, "DATABASE_UNAVAILABLE")] * 10
    assert len(late) <= 1
    record_property("writes refused", len(refused + late))


def garbage(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"garbage " * (path.stat().st_size // 8))


def cut_short(path: Path) -> None:
    os.truncate(path, 6000)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [garbage, cut_short])
def test_a_damaged_file_is_not_ready_and_is_refused_and_kept_at_the_next_start(
    folder: Path, record_property: Record, damage: Callable[[Path], None]
) -> None:
    server = RoughServer(folder)
    with server.running(), server.as_ada() as ada:
        add_items(ada)
        assert server.status("/ready") == 200
        damage(server.database_path)
        assert [server.status("/ready"), server.status("/health")] == [503, 200]
    damaged = server.database_path.read_bytes()
    server.launch()
    server.wait()

    assert server.process.returncode not in (0, None)
    assert "cannot be used as a SQLite database" in server.log
    assert "Traceback" not in server.log
    assert server.database_path.read_bytes() == damaged
    record_property("answer of /ready", 503)


# Clocks


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Moves the clock of the app so far from ours: what it takes for the present, and what PyJWT does."""

    def jump(distance: timedelta) -> None:
        class Jumped(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                return cls.fromtimestamp((datetime.now(UTC) + distance).timestamp(), tz)

        monkeypatch.setattr(kit.models, "datetime", Jumped)
        monkeypatch.setattr(api_jwt, "datetime", Jumped)

    return jump


JUMPS = [timedelta(days=-4000), timedelta(days=-1), timedelta(minutes=-20), timedelta(minutes=20), timedelta(days=4000)]


def refreshed(client: TestClient, refresh_token: str) -> Response:
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    return client.post(f"{API}/auth/token", data=form)


@pytest.mark.parametrize("distance", JUMPS, ids=str)
def test_no_jump_of_the_clock_is_an_error_or_loses_a_row(
    ada: Person,
    lamp: dict[str, Any],
    sign_in: Callable[[str], Person],
    jump: Callable[[timedelta], None],
    distance: timedelta,
) -> None:
    order = {"lines": [{"item_id": lamp["id"], "quantity": 1}]}
    old = [ada.post("/orders", order).json()["id"] for _ in range(2)]
    jump(distance)
    ada = sign_in(ada.email)
    new = [ada.post("/orders", order).json()["id"] for _ in range(2)]
    listed = [row["id"] for row in ada.get("/orders").json()["items"]]
    reads = [
        ada.get(path).status_code for path in ("/dashboard", "/audit", "/posts", "/notifications", "/auth/sessions")
    ]

    assert sorted(listed) == [*old, *new]
    assert sorted(new) == new
    assert min(new) > max(old)
    assert reads == [200] * 5
    assert ada.get(f"/items/{lamp['id']}").json()["quantity"] == lamp["quantity"] - 4
    assert ada.patch(f"/items/{lamp['id']}", {"quantity": 5}).json()["version"] == 6


@pytest.mark.parametrize("distance", JUMPS[1:4], ids=str)
def test_a_jump_of_the_clock_ends_no_session(
    ada: Person, jump: Callable[[timedelta], None], distance: timedelta
) -> None:
    jump(distance)
    assert ada.get("/users/me").status_code in (200, 401)
    tokens = refreshed(ada.client, ada.refresh_token).json()
    ada.access_token = tokens["access_token"]

    assert ada.get("/users/me").json()["email"] == ada.email
    jump(timedelta(0))
    assert refreshed(ada.client, tokens["refresh_token"]).status_code == 200


def test_a_clock_that_goes_on_by_a_month_ends_the_tokens(ada: Person, jump: Callable[[timedelta], None]) -> None:
    jump(timedelta(days=31))

    assert code(ada.get("/users/me")) == (401, "NOT_AUTHENTICATED")
    assert code(refreshed(ada.client, ada.refresh_token)) == (400, "INVALID_CREDENTIALS")


def test_a_clock_that_goes_on_ends_the_block_of_an_account(
    ada: Person, client: TestClient, jump: Callable[[timedelta], None]
) -> None:
    wrong = {"username": ada.email, "password": "Wrong-horse-1"}
    statuses = [client.post(f"{API}/auth/token", data=wrong).status_code for _ in range(6)]
    jump(timedelta(minutes=16))
    right = client.post(f"{API}/auth/token", data=wrong | {"password": PASSWORD})

    assert statuses == [400] * 5 + [429]
    assert right.status_code == 200


@pytest.mark.parametrize("distance", JUMPS[1:4], ids=str)
def test_a_cursor_goes_on_where_it_was_whatever_the_clock_says(
    ada: Person, sign_in: Callable[[str], Person], jump: Callable[[timedelta], None], distance: timedelta
) -> None:
    first, second, third = [ada.post("/posts", {"title": "Old", "content": "Note"}).json()["id"] for _ in range(3)]
    page = ada.get("/posts", params={"limit": 2}).json()
    jump(distance)
    ada = sign_in(ada.email)
    newest = ada.post("/posts", {"title": "New", "content": "Note"}).json()["id"]
    rest = ada.get("/posts", params={"limit": 2, "cursor": page["next_cursor"]}).json()

    assert [row["id"] for row in page["items"]] == [third, second]
    assert ([row["id"] for row in rest["items"]], rest["next_cursor"]) == ([first], None)
    assert [row["id"] for row in ada.get("/posts").json()["items"]] == [newest, third, second, first]


@pytest.mark.parametrize("distance", [timedelta(days=-4000), timedelta(hours=23)], ids=str)
def test_an_order_is_not_repeated_whatever_the_clock_says(
    ada: Person,
    lamp: dict[str, Any],
    sign_in: Callable[[str], Person],
    jump: Callable[[timedelta], None],
    distance: timedelta,
) -> None:
    order = {"lines": [{"item_id": lamp["id"], "quantity": 1}]}
    key = {"Idempotency-Key": "once"}
    first = ada.post("/orders", order, headers=key)
    jump(distance)
    again = sign_in(ada.email).post("/orders", order, headers=key)

    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"


# PostgreSQL


@pytest.fixture
def crashing_postgres() -> Generator[Postgres]:
    """One that no other test uses."""
    with running_postgres() as postgres:
        yield postgres


@pytest.mark.slow
def test_a_postgres_server_may_crash_and_come_back_under_the_app(
    tmp_path: Path, crashing_postgres: Postgres, record_property: Record
) -> None:
    postgres = crashing_postgres
    server = RoughServer(tmp_path, settings={"APP_DATABASE_URL": postgres.create()})
    with server.running(), server.as_ada() as ada:
        bearer, item_ids = bearer_of(ada), add_items(ada)
        with many_ordering(server, bearer, lines(item_ids)) as orders:
            wait_for(orders, 20)
            postgres.crash()
            try:
                refused = [ada.post("/orders", json=lines(item_ids)) for _ in range(10)]
                statuses = [server.status("/ready"), server.status("/health"), ada.get("/items").status_code]
            finally:
                postgres.start()
            before = len(orders)
            wait_for(orders, before + 20)
    with server.running(), server.as_ada() as ada:
        stored = assert_orders_whole(ada, item_ids, orders)

    assert {code(answer) for answer in refused} == {(503, "DATABASE_UNAVAILABLE")}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert statuses == [503, 200, 503]
    assert "Traceback" not in server.log
    record_property("orders acknowledged", len(orders))
    record_property("orders stored", stored)


# The page


def test_every_fault_is_on_the_page_and_no_other() -> None:
    files = [Path(__file__).with_name(f"test_{name}.py") for name in ("faults", "overload", "durability")]
    tests = {test for file in files for test in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
    page = (ROOT / "docs" / "reliability.md").read_text()

    assert set(re.findall(r"`(test_\w+)`", page)) == tests - {"test_every_fault_is_on_the_page_and_no_other"}
