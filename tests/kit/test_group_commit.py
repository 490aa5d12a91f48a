"""Writes that wait for the one writer are committed together; each still stands or falls alone."""

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from time import monotonic, sleep

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import event
from sqlmodel import select

import kit.executor
from kit import sqlite
from kit.app import App
from kit.db import WriteSession, ending
from kit.executor import MAX_GROUP_SECONDS, MAX_GROUP_SIZE
from kit.models import now
from kit.problems import Forbidden, InvalidCredentials
from kit.routing import Router
from kit.sessions import LoginSession
from tests.kit.specimen import Room
from tests.server import until

PATIENCE = 30  # seconds

pytestmark = [
    pytest.mark.usefixtures("fresh_app"),  # whose engine the tests listen to
    pytest.mark.sqlite_only("there is one writer"),
]

probes = Router(public=True, prefix="/probes")
held, gate, let_go = Event(), Event(), Event()

Together = Callable[..., list[Response]]


@probes.post("/holds", status_code=204)
def holds(session: WriteSession) -> None:
    """Keep the writer busy, so that whatever comes now has to wait."""
    held.set()
    gate.wait(PATIENCE)


@probes.post("/adds/{name}", status_code=201)
def adds(name: str, session: WriteSession) -> int:
    room = Room(name=name, seats=1)
    session.add(room)
    session.flush()
    return room.id


@probes.post("/refuses/{name}")
def refuses(name: str, session: WriteSession) -> None:
    adds(name, session=session)
    raise Forbidden


@probes.post("/refuses-and-keeps/{name}")
def refuses_and_keeps(name: str, session: WriteSession) -> None:
    adds(name, session=session)
    raise InvalidCredentials


@probes.post("/fails/{name}")
def fails(name: str, session: WriteSession) -> None:
    adds(name, session=session)
    raise ValueError("a secret")


@probes.post("/fails-at-commit/{name}", status_code=201)
def fails_at_commit(name: str, session: WriteSession) -> int:
    """A session of nobody's: with the foreign keys deferred, SQLite notices at the commit only."""
    session.connection().exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    session.add(LoginSession(user_id=999, family_hash="f", secret_hash="s", expires_at=now()))
    return adds(name, session=session)


@probes.post("/is-rolled-back/{name}", status_code=201)
def is_rolled_back(name: str, session: WriteSession) -> None:
    """What SQLite does by itself where the disk is full or broken."""
    adds(name, session=session)
    session.connection().exec_driver_sql("ROLLBACK")


@probes.post("/goes-on-after-a-rollback/{name}", status_code=201)
def goes_on_after_a_rollback(name: str, session: WriteSession) -> int:
    session.connection().exec_driver_sql("ROLLBACK")
    session.rollback()
    return adds(name, session=session)


@probes.post("/may-only-read/{name}", status_code=201)
def may_only_read(name: str, session: WriteSession) -> int:
    session.connection().exec_driver_sql("PRAGMA query_only=ON")
    return adds(name, session=session)


@probes.post("/waits/{name}", status_code=201)
def waits(name: str, session: WriteSession) -> int:
    """Keep the next group busy."""
    let_go.wait(PATIENCE)
    return adds(name, session=session)


@probes.post("/takes-long/{name}", status_code=201)
def takes_long(name: str, session: WriteSession) -> int:
    sleep(MAX_GROUP_SECONDS)
    return adds(name, session=session)


@pytest.fixture
def asked_together(app: App, client: TestClient) -> Generator[Callable[..., list[Future[Response]]]]:
    """Posts to all of these probes so that they wait for the writer together; their answers are still to come."""

    def wait_for(number: int) -> None:
        deadline = monotonic() + PATIENCE
        while len(app.state.database.writers.waiting) < number:
            assert monotonic() < deadline
            sleep(0.001)

    def asked(*paths: str) -> list[Future[Response]]:
        held.clear()
        gate.clear()
        holder = threads.submit(client.post, "/probes/holds")
        assert held.wait(PATIENCE)
        answers: list[Future[Response]] = []
        for number, path in enumerate(paths, 1):
            answers.append(threads.submit(client.post, f"/probes/{path}"))
            wait_for(number)  # so that they stand in this order
        gate.set()
        assert holder.result().status_code == 204
        return answers

    client.get("/health")
    until(lambda: not app.state.database.writers.workers)  # the outbox has looked what there is to be done
    with ThreadPoolExecutor(2 * MAX_GROUP_SIZE) as threads:
        yield asked


@pytest.fixture
def together(asked_together: Callable[..., list[Future[Response]]]) -> Together:
    """The same, for whoever only wants to know the answers."""

    def together(*paths: str) -> list[Response]:
        return [answer.result() for answer in asked_together(*paths)]

    return together


def names(app: App) -> list[str]:
    with ending(app.state.database.read()) as session:
        return sorted(session.exec(select(Room.name)))


def statuses(answers: list[Response]) -> list[int]:
    return [answer.status_code for answer in answers]


@pytest.fixture
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the number of requests ends a group: on a busy machine a few of them take its time."""
    monkeypatch.setattr(kit.executor, "MAX_GROUP_SECONDS", 60)


@pytest.mark.usefixtures("no_hurry")
def test_what_waits_together_is_committed_together(app: App, together: Together) -> None:
    commits = list[object]()
    event.listen(app.state.database.engine, "commit", commits.append)

    answers = together(*(f"adds/{number:02}" for number in range(MAX_GROUP_SIZE)))

    assert len(commits) == 1
    assert statuses(answers) == [201] * MAX_GROUP_SIZE
    assert [answer.json() for answer in answers] == list(range(1, MAX_GROUP_SIZE + 1))
    assert names(app) == [f"{number:02}" for number in range(MAX_GROUP_SIZE)]


@pytest.mark.usefixtures("no_hurry")
def test_a_group_has_a_bound(app: App, together: Together) -> None:
    commits = list[object]()
    event.listen(app.state.database.engine, "commit", commits.append)

    assert statuses(together(*(f"adds/{number}" for number in range(MAX_GROUP_SIZE + 1)))) == [201] * (
        MAX_GROUP_SIZE + 1
    )
    assert len(commits) == 2


def test_whoever_fails_takes_back_their_own_changes_only(app: App, together: Together) -> None:
    answers = together("adds/a", "refuses/b", "adds/c", "fails/d", "refuses-and-keeps/e", "adds/A", "adds/f")

    assert statuses(answers) == [201, 403, 201, 500, 400, 409, 201]
    assert names(app) == ["a", "c", "e", "f"]


def test_a_commit_that_fails_is_a_success_for_nobody(app: App, client: TestClient, together: Together) -> None:
    answers = together("adds/a", "fails-at-commit/b", "refuses-and-keeps/c", "adds/d")

    assert statuses(answers) == [409] * 4
    assert names(app) == []
    assert client.post("/probes/adds/e").status_code == 201


@pytest.mark.parametrize(
    "paths",
    [
        ("adds/a", "is-rolled-back/b", "adds/c"),
        ("adds/a", "is-rolled-back/b"),
        ("adds/a", "goes-on-after-a-rollback/b", "adds/c"),
    ],
)
def test_a_transaction_that_sqlite_ended_is_a_success_for_nobody(
    app: App, client: TestClient, together: Together, paths: tuple[str, ...]
) -> None:
    answers = together(*paths)

    assert {(answer.status_code, answer.json()["error_code"]) for answer in answers} == {(503, "DATABASE_UNAVAILABLE")}
    assert names(app) == []
    assert client.post("/probes/adds/d").status_code == 201
    assert names(app) == ["d"]


def test_whoever_failed_before_the_commit_did_hears_of_their_own_fault(app: App, together: Together) -> None:
    assert statuses(together("adds/a", "refuses/b", "fails-at-commit/c")) == [409, 403, 409]
    assert names(app) == []


def test_what_takes_long_ends_its_group(app: App, together: Together) -> None:
    commits = list[object]()
    event.listen(app.state.database.engine, "commit", commits.append)

    assert statuses(together("adds/a", "takes-long/b", "adds/c", "adds/d")) == [201] * 4
    assert len(commits) == 2
    assert names(app) == ["a", "b", "c", "d"]


def test_a_group_on_a_database_that_may_only_be_read_is_refused_like_one_request(
    app: App, client: TestClient, together: Together
) -> None:
    answers = together("adds/a", "may-only-read/b", "adds/c")

    assert {(answer.status_code, answer.json()["error_code"]) for answer in answers} == {(503, "DATABASE_UNAVAILABLE")}
    assert client.post("/probes/adds/d").status_code == 201
    assert names(app) == ["d"]


def test_a_disk_that_is_full_is_said_to_whom_it_meets_and_the_others_are_kept(
    app: App, monkeypatch: pytest.MonkeyPatch, together: Together
) -> None:
    monkeypatch.setattr(sqlite, "SQLITE_PRAGMAS", (*sqlite.SQLITE_PRAGMAS, "max_page_count=1"))
    app.state.database.engine.dispose()
    answers = together("adds/a", f"adds/{'x' * 5_000}", "adds/b")

    assert statuses(answers) == [201, 507, 201]
    assert names(app) == ["a", "b"]


def test_a_group_is_told_of_its_commit_at_once_although_the_next_one_runs_long(
    app: App, asked_together: Callable[..., list[Future[Response]]]
) -> None:
    let_go.clear()
    first = asked_together("adds/a", "takes-long/b", "waits/c", "adds/d")
    told = [answer.result(PATIENCE / 2).status_code for answer in first[:2]]
    still_waiting = [not answer.done() for answer in first[2:]]
    let_go.set()

    assert (told, still_waiting) == ([201, 201], [True, True])
    assert statuses([answer.result() for answer in first[2:]]) == [201, 201]
    assert names(app) == ["a", "b", "c", "d"]
