"""What both databases promise: limits of time, nothing secret in the log, and transactions that are done again."""

import stat
from collections.abc import Callable, Generator
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import col, select

from kit import schema
from kit.app import App
from kit.db import Database, ReadSession, WriteSession, ending, retried
from kit.lists import LIKE_LENGTH, contains
from kit.models import now
from kit.routing import Router
from models import User
from settings import Settings
from tests.conftest import MakeApp
from tests.databases import on_both_databases
from tests.kit.specimen import Room
from tests.people import Person

SLOW = text(
    "WITH RECURSIVE steps(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM steps WHERE n < 100000000000) "
    "SELECT count(*) FROM steps"
)
EMAIL, HASH = "max@example.com", "a-hash-that-nobody-may-see"


def on_postgres(test: Callable[..., None]) -> Any:
    """Run a test on PostgreSQL, whatever the others run on."""
    test = pytest.mark.usefixtures("settings")(test)
    return pytest.mark.parametrize("settings", ["postgresql"], indirect=True)(test)


probes = Router(public=True, prefix="/probes")
TRIES: list[int] = []
FAULTS: list[str] = []


@probes.get("/reads-for-long")
def reads_for_long(session: ReadSession) -> int:
    return session.connection().execute(SLOW).scalar_one()


@probes.post("/writes-for-long")
def writes_for_long(session: WriteSession) -> int:
    session.add(Room(name="Hall", seats=1))
    session.flush()
    return session.connection().execute(SLOW).scalar_one()


@probes.post("/adds", status_code=201)
def adds(session: WriteSession) -> None:
    session.add(Room(name=f"Room {now()}", seats=1))


@probes.post("/is-taken-back", status_code=201)
def is_taken_back(session: WriteSession) -> int:
    """PostgreSQL takes the transaction back, as often as the test wants."""
    TRIES.append(1)
    session.add(Room(name=f"Room {now()}", seats=1))
    session.flush()
    if FAULTS:
        raising = f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{FAULTS.pop()}'; END $$"
        session.connection().exec_driver_sql(raising)
    return len(TRIES)


@probes.post("/fails-with-secrets")
def fails_with_secrets(session: WriteSession) -> None:
    session.connection().execute(text("SELECT no_such_function(:email, :hash)").bindparams(email=EMAIL, hash=HASH))


@probes.get("/where")
def where(session: ReadSession) -> int:
    """Which connection this is."""
    return session.connection().exec_driver_sql("SELECT pg_backend_pid()").scalar_one()


def code(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["error_code"]


@pytest.fixture
def impatient(settings: Settings, make_app: MakeApp) -> Generator[TestClient]:
    """A client of an app whose statements may take a second."""
    app = make_app(settings.model_copy(update={"statement_seconds": 1}))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def faults() -> Generator[list[str]]:
    """The states with which PostgreSQL will end the next transactions."""
    TRIES.clear()
    yield FAULTS
    FAULTS.clear()


# How long a statement may take


@on_both_databases
def test_a_statement_that_takes_too_long_is_stopped_and_its_connection_goes_on(impatient: TestClient) -> None:
    began = monotonic()
    answers = [impatient.get("/probes/reads-for-long"), impatient.post("/probes/writes-for-long")]

    assert [code(answer) for answer in answers] == [(503, "DATABASE_BUSY")] * 2
    assert "Retry-After" in answers[0].headers
    assert 2 <= monotonic() - began < 20
    assert [impatient.post("/probes/adds").status_code for _ in range(20)] == [201] * 20
    assert impatient.get("/ready").status_code == 200


@on_both_databases
def test_a_transaction_may_take_longer_than_one_of_its_statements(settings: Settings) -> None:
    database = Database(settings.model_copy(update={"statement_seconds": 1}))
    began = monotonic()
    with ending(database.write()) as session:
        while monotonic() < began + 1.6:
            session.connection().execute(text("SELECT 1"))
    database.close()


@pytest.mark.slow
def test_a_migration_takes_the_time_that_it_takes(tmp_path: Path) -> None:
    database = Database(Settings(database_url=f"sqlite:///{tmp_path}/app.db", statement_seconds=1))
    schema.upgrade(database)
    statement = str(SLOW).replace("100000000000", "6000000")
    with database.engine.execution_options(immediate=True, busy_seconds=60).begin() as connection:
        began = monotonic()
        while monotonic() < began + 1.5:
            connection.exec_driver_sql(statement)
    database.close()


@on_both_databases
def test_what_is_sought_may_be_long_and_almost_everywhere(app: App, client: TestClient) -> None:
    with ending(app.state.database.write()) as session:
        session.add_all(Room(name="a" * 20_000 + str(number), seats=1) for number in range(400))
    began = monotonic()
    with ending(app.state.database.read()) as session:
        for sought, expected in (("a" * 250 + "b", 0), ("a" * LIKE_LENGTH + "199", 1), ("a" * 250, 400), ("%_", 0)):
            statement = select(Room.id).where(contains(col(Room.name_key), sought))
            assert len(session.exec(statement).all()) == expected

    assert monotonic() - began < 3


# What the log must not have


@on_both_databases
def test_a_statement_that_fails_leaves_no_values_in_the_log(
    capsys: pytest.CaptureFixture[str], client: TestClient
) -> None:
    answer = client.post("/probes/fails-with-secrets")
    log = "".join(capsys.readouterr())

    assert code(answer) == (500, "INTERNAL_ERROR")
    assert "no_such_function" in log
    assert [secret for secret in (EMAIL, HASH) if secret in log] == []


def test_the_file_of_a_new_database_is_its_owners_alone(tmp_path: Path) -> None:
    database = Database(Settings(database_url=f"sqlite:///{tmp_path}/data/app.db"))
    schema.upgrade(database)
    with ending(database.write()) as session:
        session.add(User(email="ada@example.com", full_name="Ada", password_hash="hash"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").glob("app.db*")}
    database.close()

    assert modes.keys() >= {"app.db", "app.db-wal"}
    assert set(modes.values()) == {0o600}


# PostgreSQL


@on_postgres
def test_a_lock_that_another_holds_is_not_waited_for_for_ever(settings: Settings, app: App, client: TestClient) -> None:
    with psycopg.connect(settings.database_url) as other:
        assert app.state.database.engine.connect().exec_driver_sql("SHOW lock_timeout").scalar() == "5s"
        other.execute("LOCK TABLE room IN ACCESS EXCLUSIVE MODE")
        began = monotonic()
        refused = client.post("/probes/adds")
        seconds = monotonic() - began
        other.rollback()

    assert code(refused) == (503, "DATABASE_BUSY")
    assert 4 < seconds < 15
    assert client.post("/probes/adds").status_code == 201


@on_postgres
def test_a_server_that_is_no_primary_any_more_is_left(settings: Settings, app: App, client: TestClient) -> None:
    database = settings.database_url.rpartition("/")[2]
    before = {client.get("/probes/where").json() for _ in range(5)}
    with psycopg.connect(settings.database_url, autocommit=True) as other:
        other.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on'.encode())
        app.state.database.engine.dispose()
        refused = [client.post("/probes/adds") for _ in range(3)]
        other.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = off'.encode())
    again = client.post("/probes/adds")

    assert [code(answer) for answer in refused] == [(503, "DATABASE_UNAVAILABLE")] * 3
    assert again.status_code == 201  # by another connection
    assert client.get("/probes/where").json() not in before


@on_both_databases
def test_reads_end_with_a_commit(app: App, client: TestClient, ada: Person) -> None:
    ended = list[str]()

    def commits(_: Connection) -> None:
        ended.append("commit")

    def rolls_back(_: Connection) -> None:
        ended.append("rollback")

    event.listen(app.state.database.engine, "commit", commits)
    event.listen(app.state.database.engine, "rollback", rolls_back)
    answer = ada.get("/users/me")

    assert answer.status_code == 200
    assert ended == ["commit"]


@on_postgres
@pytest.mark.parametrize("state", ["40P01", "40001"])
def test_a_transaction_that_others_made_fail_is_done_again_whole(
    client: TestClient, app: App, faults: list[str], state: str
) -> None:
    faults[:] = [state] * 2
    answer = client.post("/probes/is-taken-back")

    assert (answer.status_code, answer.json()) == (201, 3)
    with app.state.database.read() as session:
        assert len(session.exec(select(Room)).all()) == 1


@on_postgres
def test_a_transaction_that_fails_three_times_is_busy(client: TestClient, faults: list[str]) -> None:
    faults[:] = ["40P01"] * 3

    assert code(client.post("/probes/is-taken-back")) == (503, "DATABASE_BUSY")
    assert len(TRIES) == 3


@on_postgres
def test_whatever_else_fails_is_not_done_again(client: TestClient, faults: list[str]) -> None:
    faults[:] = ["22012"]

    assert client.post("/probes/is-taken-back").status_code == 500
    assert len(TRIES) == 1


class Broken(Exception):
    """What a driver raises when the connection is gone."""


def test_a_connection_that_broke_before_the_commit_is_a_reason_and_one_that_broke_in_it_is_not() -> None:
    for statement, tries in (("SELECT 1", 2), (None, 1)):
        done, again = list[int](), list[int]()

        def work(statement: str | None = statement, done: list[int] = done) -> str:
            done.append(1)
            if len(done) == 1:
                raise OperationalError(statement, None, Broken(), connection_invalidated=True)
            return "done"

        def count(again: list[int] = again) -> None:
            again.append(1)

        if tries == 2:
            assert retried(work, count) == "done"
        else:
            with pytest.raises(DBAPIError):
                retried(work, count)

        assert (len(done), len(again)) == (tries, tries - 1)
