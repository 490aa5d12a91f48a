"""The database: what is in force on a connection, and what becomes of a write that fails."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from loguru import logger
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool
from sqlmodel import SQLModel, col, delete, func, select, update

from app import Stockroom, create_app
from kit import db, schema, sqlite
from kit.db import POOL_SIZE, Database, ReadSession, WriteSession, ending
from kit.problems import Forbidden, InvalidCredentials
from kit.routing import Router
from kit.sqlite import SQLITE, has_wal_reset_fault
from models import Item, LoginSession, now
from settings import Settings
from tests.conftest import Person

probes = Router(public=True, prefix="/probes")


def add_item(session: WriteSession, name: str = "Lamp") -> Item:
    item = Item(name=name, price_cents=1, quantity=0)
    session.add(item)
    session.flush()
    return item


@probes.post("/adds", status_code=201)
def adds(session: WriteSession) -> str:
    return add_item(session).name


@probes.post("/adds-without-flushing", status_code=201)
def adds_without_flushing(session: WriteSession) -> None:
    session.add(Item(name="Lamp", price_cents=1))


@probes.post("/refuses")
def refuses(session: WriteSession) -> None:
    add_item(session)
    raise Forbidden


@probes.post("/refuses-and-keeps")
def refuses_and_keeps(session: WriteSession) -> None:
    add_item(session)
    raise InvalidCredentials


@probes.post("/fails")
def fails(session: WriteSession) -> None:
    add_item(session)
    raise ValueError("a secret")


@probes.post("/fails-at-commit", status_code=201)
def fails_at_commit(session: WriteSession) -> str:
    """A session of nobody's: with the foreign keys deferred, SQLite notices at the commit only."""
    session.connection().exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    session.add(LoginSession(user_id=999, family_hash="f", secret_hash="s", expires_at=now()))
    return add_item(session).name


@probes.post("/adds-in-a-read-session")
def adds_in_a_read_session(session: ReadSession) -> None:
    session.add(Item(name="Lamp", price_cents=1))


@probes.post("/deletes-in-a-read-session")
def deletes_in_a_read_session(session: ReadSession) -> None:
    session.exec(delete(Item).where(col(Item.id) > 0))


@probes.post("/updates-in-a-read-session")
def updates_in_a_read_session(session: ReadSession) -> None:
    session.exec(update(Item).values(quantity=7))


@pytest.fixture
def app(settings: Settings) -> Stockroom:
    app = create_app(settings)
    app.include_router(probes)
    return app


@pytest.fixture
def database(settings: Settings) -> Generator[Database]:
    database = Database(settings)
    yield database
    database.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that wait for a lock for a millisecond instead of five seconds."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.001)


@pytest.fixture
def reconnect(app: Stockroom, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the app open its connections anew, with these pragmas besides its own."""

    def reconnect(*pragmas: str) -> None:
        monkeypatch.setattr(sqlite, "SQLITE_PRAGMAS", (*sqlite.SQLITE_PRAGMAS, *pragmas))
        app.state.database.engine.dispose()

    return reconnect


@contextmanager
def held_by_another(settings: Settings) -> Generator[None]:
    """While the write lock of the database is another connection's."""
    other = SQLITE.connect(settings.sqlite_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


def count(database: Database, table: type[SQLModel] = Item) -> int:
    with ending(database.read()) as session:
        return session.exec(select(func.count()).select_from(table)).one()


def code(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["error_code"]


@pytest.mark.sqlite_only("it sets or reads a PRAGMA")
@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("busy_timeout", 5000),
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("trusted_schema", 0),
        ("cache_size", -16000),
        ("mmap_size", 0),
        ("journal_size_limit", 64 * 1024 * 1024),
    ],
)
def test_every_connection_has_our_pragmas(database: Database, pragma: str, value: object) -> None:
    with database.engine.connect() as first, database.engine.connect() as second:
        values = [connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() for connection in (first, second)]

    assert values == [value, value]


def test_a_connection_never_makes_the_file(tmp_path: Path) -> None:
    database = Database(Settings(database_url=f"sqlite:///{tmp_path}/nowhere.db"))
    with pytest.raises(OperationalError, match="unable to open"):
        database.engine.connect()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["100% sure", "a#b", "%41", "ä ö", "it's", "a&mode=ro", "semi;colon"])
def test_a_folder_may_have_any_name(tmp_path: Path, folder: str) -> None:
    url = f"sqlite:///{tmp_path}/{folder.replace('%41', '%2541')}/app.db"
    database = Database(Settings(database_url=url))
    schema.upgrade(database)
    database.close()

    assert [path.name for path in tmp_path.iterdir()] == [folder]
    assert [path.name for path in (tmp_path / folder).iterdir()] == ["app.db"]


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_the_last_connection_to_leave_empties_the_journal(settings: Settings, database: Database) -> None:
    with ending(database.write()) as session:
        add_item(session)
    journal = settings.sqlite_path.with_name("app.db-wal")
    assert journal.exists()

    database.close()

    assert not journal.exists()
    assert count(database) == 1


@pytest.mark.sqlite_only("another connection holds the one write lock")
def test_a_writing_session_has_the_write_lock_from_its_first_read(settings: Settings, database: Database) -> None:
    other = SQLITE.connect(settings.sqlite_path, isolation_level=None, timeout=0)
    with ending(database.write()) as session:
        session.exec(select(Item)).all()
        with pytest.raises(SQLITE.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")  # the session gave it back
    other.close()


def test_a_reading_session_takes_no_lock_and_sees_one_moment(database: Database) -> None:
    with ending(database.read()) as reader:
        before = reader.exec(select(Item.name)).all()
        with ending(database.write()) as writer:
            add_item(writer)
        after = reader.exec(select(Item.name)).all()

    assert before == after == []
    assert count(database) == 1


def test_no_change_is_lost_however_many_read_and_write_at_once(database: Database) -> None:
    with ending(database.write()) as session:
        item_id = add_item(session).id

    def add_one(_: int) -> None:
        with ending(database.write()) as session:
            item = session.get_one(Item, item_id)
            item.quantity += 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add_one, range(80)))

    with ending(database.read()) as session:
        assert session.get_one(Item, item_id).quantity == 80


@pytest.mark.parametrize("path", ["adds", "adds-without-flushing"])
def test_a_route_that_writes_is_stored(app: Stockroom, client: TestClient, path: str) -> None:
    assert client.post(f"/probes/{path}").status_code == 201
    assert count(app.state.database) == 1


@pytest.mark.parametrize(("path", "status"), [("refuses", 403), ("fails", 500)])
def test_a_route_that_raises_stores_nothing(app: Stockroom, client: TestClient, path: str, status: int) -> None:
    assert client.post(f"/probes/{path}").status_code == status
    assert count(app.state.database) == 0


def test_a_problem_that_keeps_its_changes_stores_them(app: Stockroom, client: TestClient) -> None:
    assert code(client.post("/probes/refuses-and-keeps")) == (400, "INVALID_CREDENTIALS")
    assert count(app.state.database) == 1


@pytest.mark.sqlite_only("it sets or reads a PRAGMA")
def test_a_commit_that_fails_is_never_answered_as_a_success(app: Stockroom, client: TestClient) -> None:
    assert code(client.post("/probes/fails-at-commit")) == (409, "CONFLICT")
    assert count(app.state.database) == count(app.state.database, LoginSession) == 0
    assert client.post("/probes/adds").status_code == 201


@pytest.mark.parametrize("verb", ["adds", "deletes", "updates"])
def test_a_reading_session_refuses_to_write(app: Stockroom, client: TestClient, verb: str) -> None:
    client.post("/probes/adds")

    assert code(client.post(f"/probes/{verb}-in-a-read-session")) == (500, "INTERNAL_ERROR")
    assert count(app.state.database) == 1


def test_a_reading_session_that_flushes_says_what_to_declare_instead(database: Database) -> None:
    with ending(database.read()) as session:
        session.add(Item(name="Lamp", price_cents=1))
        with pytest.raises(RuntimeError, match="declare a WriteSession"):
            session.flush()
        session.rollback()


@pytest.mark.sqlite_only("another connection holds the one write lock")
@pytest.mark.usefixtures("hasty")
def test_while_another_holds_the_lock_writes_are_refused_and_reads_go_on(
    settings: Settings, ada: Person, lamp: dict[str, Any]
) -> None:
    with held_by_another(settings):
        refused = ada.post("/items", {"name": "Chair", "price_cents": 1})
        read = ada.get(f"/items/{lamp['id']}")

    assert code(refused) == (503, "DATABASE_BUSY")
    assert int(refused.headers["retry-after"]) >= 1
    assert read.json() == lamp
    assert ada.get("/items").json()["total"] == 1


@pytest.mark.sqlite_only("another connection holds the one write lock")
@pytest.mark.usefixtures("hasty")
def test_a_write_that_could_not_begin_gives_its_connection_back(
    app: Stockroom, settings: Settings, client: TestClient
) -> None:
    with held_by_another(settings):
        answers = [client.post("/probes/adds") for _ in range(3 * POOL_SIZE)]
    pool = app.state.database.engine.pool

    assert {code(answer) for answer in answers} == {(503, "DATABASE_BUSY")}
    assert isinstance(pool, QueuePool)
    assert pool.checkedout() == 0
    assert client.post("/probes/adds").status_code == 201


@pytest.mark.sqlite_only("it looks at the file of the database")
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("fault", ["garbage", "gone", "truncated"])
def test_a_database_that_broke_is_unavailable(
    settings: Settings, ada: Person, reconnect: Callable[..., None], fault: str, method: str
) -> None:
    reconnect()
    path = settings.sqlite_path
    content = {"garbage": b"garbage" * 5000, "truncated": path.read_bytes()[:6000]}.get(fault)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    answer = ada.request(method, "/items")

    assert code(answer) == (503, "DATABASE_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1
    assert code(ada.client.get("/ready")) == (503, "DATABASE_UNAVAILABLE")
    assert ada.client.get("/health").status_code == 200
    assert (path.read_bytes() if path.exists() else None) == content


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_a_database_that_comes_back_is_available_again(
    settings: Settings, ada: Person, reconnect: Callable[..., None]
) -> None:
    reconnect()
    path = settings.sqlite_path
    away = path.rename(path.with_name("away.db"))
    assert ada.get("/users/me").status_code == 503
    away.rename(path)

    assert ada.get("/users/me").status_code == 200
    assert ada.client.get("/ready").status_code == 200


@pytest.mark.sqlite_only("it sets or reads a PRAGMA")
def test_a_database_that_may_only_be_read_refuses_writes_and_goes_on_reading(
    ada: Person, lamp: dict[str, Any], reconnect: Callable[..., None]
) -> None:
    reconnect("query_only=ON")

    assert code(ada.delete(f"/items/{lamp['id']}")) == (503, "DATABASE_UNAVAILABLE")
    assert ada.get(f"/items/{lamp['id']}").json() == lamp


@pytest.mark.sqlite_only("it sets or reads a PRAGMA")
def test_a_full_disk_is_said_and_nothing_is_half_written(ada: Person, reconnect: Callable[..., None]) -> None:
    reconnect("max_page_count=1")  # SQLite takes it for "no more pages than there are"
    stored = 0
    answer = ada.post("/items", {"name": "0", "price_cents": 1})
    while answer.status_code == 201 and stored < 1000:
        stored += 1
        answer = ada.post("/items", {"name": f"{stored}".rjust(100, "x"), "price_cents": 1})

    assert code(answer) == (507, "STORAGE_FULL")
    assert ada.get("/items").json()["total"] == stored


@pytest.mark.parametrize(
    ("version", "faulty"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_the_versions_with_the_wal_reset_fault_are_known(version: tuple[int, int, int], faulty: bool) -> None:
    assert has_wal_reset_fault(version) is faulty


@pytest.fixture
def logged() -> Generator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}")
    yield lines
    logger.remove(sink)


@pytest.mark.sqlite_only("it is about the versions of its library")
def test_the_running_version_is_logged(database: Database, logged: list[str]) -> None:
    database.log_version()

    assert [line.strip() for line in logged] == [
        f"INFO Database: SQLite {SQLITE.sqlite_version} ({SQLITE.__name__.split('.')[0]})"
    ]


@pytest.mark.sqlite_only("it is about the versions of its library")
@pytest.mark.parametrize(
    ("version", "is_worker", "warned"),
    [("3.40.1", True, True), ("3.40.1", False, False), ("3.51.3", True, False)],
)
def test_a_faulty_version_is_warned_of_where_several_workers_run(
    monkeypatch: pytest.MonkeyPatch, logged: list[str], settings: Settings, version: str, is_worker: bool, warned: bool
) -> None:
    numbers = tuple(int(number) for number in version.split("."))
    library = SimpleNamespace(__name__="sqlite3", sqlite_version=version, sqlite_version_info=numbers)
    database = Database(settings.model_copy(update={"environment": "production"}))
    monkeypatch.setattr(db, "SQLITE", library)  # only one version is at hand
    monkeypatch.setattr(db, "ONE_OF_SEVERAL", is_worker)
    database.log_version()

    assert [line.split()[0] for line in logged] == ["INFO", "WARNING"][: 1 + warned]
