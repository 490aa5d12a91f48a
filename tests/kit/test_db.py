"""The database: what is in force on a connection, and what becomes of a write that fails."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from loguru import logger
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool
from sqlmodel import SQLModel, col, delete, func, select, update

from kit import db, schema, sqlite
from kit.app import App
from kit.db import Database, ReadSession, WriteSession, ending
from kit.models import digest, now
from kit.problems import DatabaseUnavailable, Forbidden, InvalidCredentials, NotFound
from kit.routing import Router
from kit.sessions import FailedSignIn, LoginSession
from kit.sqlite import SQLITE, has_wal_reset_fault
from settings import Settings
from tests.kit.specimen import Footprint, Room, RoomKey
from tests.people import Person, Row

pytestmark = pytest.mark.sqlite_only("it is about its file")

probes = Router(public=True, prefix="/probes")


def add_room(session: WriteSession, name: str = "Hall") -> Room:
    room = Room(name=name, seats=1)
    session.add(room)
    session.flush()
    return room


@probes.post("/adds", status_code=201)
def adds(session: WriteSession) -> str:
    return add_room(session).name


@probes.post("/adds-without-flushing", status_code=201)
def adds_without_flushing(session: WriteSession) -> None:
    session.add(Room(name="Hall", seats=1))


@probes.post("/refuses")
def refuses(session: WriteSession) -> None:
    add_room(session)
    raise Forbidden


@probes.post("/refuses-and-keeps")
def refuses_and_keeps(session: WriteSession) -> None:
    add_room(session)
    raise InvalidCredentials


@probes.post("/fails")
def fails(session: WriteSession) -> None:
    add_room(session)
    raise ValueError("a secret")


@probes.post("/fails-at-commit", status_code=201)
def fails_at_commit(session: WriteSession) -> str:
    """A session of nobody's: with the foreign keys deferred, SQLite notices at the commit only."""
    session.connection().exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    session.add(LoginSession(user_id=999, family_hash="f", secret_hash="s", expires_at=now()))
    return add_room(session).name


@probes.post("/adds-in-a-read-session")
def adds_in_a_read_session(session: ReadSession) -> None:
    session.add(Room(name="Hall", seats=1))


@probes.post("/deletes-in-a-read-session")
def deletes_in_a_read_session(session: ReadSession) -> None:
    session.exec(delete(Footprint).where(col(Footprint.id) > 0))


@probes.post("/updates-in-a-read-session")
def updates_in_a_read_session(session: ReadSession) -> None:
    session.exec(update(Footprint).values(room_id=7))


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
def reconnect(fresh_app: None, app: App, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
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


def count(database: Database, table: type[SQLModel] = Room) -> int:
    with ending(database.read()) as session:
        return session.exec(select(func.count()).select_from(table)).one()


def code(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["error_code"]


def test_every_connection_has_our_pragmas(database: Database, subtests: pytest.Subtests) -> None:
    pragmas: dict[str, object] = {
        "busy_timeout": 5000,
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "cache_size": -16000,
        "mmap_size": 0,
        "journal_size_limit": 64 * 1024 * 1024,
    }
    with database.engine.connect() as first, database.engine.connect() as second:
        for pragma, value in pragmas.items():
            with subtests.test(pragma):
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
    assert {path.name for path in (tmp_path / folder).iterdir()} == {"app.db", "app.db-lock"}


def test_the_last_connection_to_leave_empties_the_journal(settings: Settings, database: Database) -> None:
    with ending(database.write()) as session:
        add_room(session)
    journal = settings.sqlite_path.with_name("app.db-wal")
    assert journal.exists()

    database.close()

    assert not journal.exists()
    assert count(database) == 1


def test_a_writing_session_has_the_write_lock_from_its_first_read(settings: Settings, database: Database) -> None:
    other = SQLITE.connect(settings.sqlite_path, isolation_level=None, timeout=0)
    with ending(database.write()) as session:
        session.exec(select(Room)).all()
        with pytest.raises(SQLITE.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")  # the session gave it back
    other.close()


def test_a_reading_session_takes_no_lock_and_sees_one_moment(database: Database) -> None:
    with ending(database.read()) as reader:
        before = reader.exec(select(Room.name)).all()
        with ending(database.write()) as writer:
            add_room(writer)
        after = reader.exec(select(Room.name)).all()

    assert before == after == []
    assert count(database) == 1


def test_no_change_is_lost_however_many_read_and_write_at_once(database: Database) -> None:
    with ending(database.write()) as session:
        room_id = add_room(session).id

    def add_one(_: int) -> None:
        with ending(database.write()) as session:
            session.get_one(Room, room_id).seats += 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add_one, range(80)))

    with ending(database.read()) as session:
        assert session.get_one(Room, room_id).seats == 81


@pytest.mark.parametrize("path", ["adds", "adds-without-flushing"])
def test_a_route_that_writes_is_stored(app: App, client: TestClient, path: str) -> None:
    assert client.post(f"/probes/{path}").status_code == 201
    assert count(app.state.database) == 1


@pytest.mark.parametrize(("path", "status"), [("refuses", 403), ("fails", 500)])
def test_a_route_that_raises_stores_nothing(app: App, client: TestClient, path: str, status: int) -> None:
    assert client.post(f"/probes/{path}").status_code == status
    assert count(app.state.database) == 0


def test_a_problem_that_keeps_its_changes_stores_them(app: App, client: TestClient) -> None:
    assert code(client.post("/probes/refuses-and-keeps")) == (400, "INVALID_CREDENTIALS")
    assert count(app.state.database) == 1


def test_a_commit_that_fails_is_never_answered_as_a_success(app: App, client: TestClient) -> None:
    assert code(client.post("/probes/fails-at-commit")) == (409, "CONFLICT")
    assert count(app.state.database) == count(app.state.database, LoginSession) == 0
    assert client.post("/probes/adds").status_code == 201


@pytest.mark.parametrize("verb", ["adds", "deletes", "updates"])
def test_a_reading_session_refuses_to_write(app: App, client: TestClient, verb: str) -> None:
    client.post("/probes/adds")

    assert code(client.post(f"/probes/{verb}-in-a-read-session")) == (500, "INTERNAL_ERROR")
    assert count(app.state.database) == 1


def test_a_reading_session_that_flushes_says_what_to_declare_instead(database: Database) -> None:
    with ending(database.read()) as session:
        session.add(Room(name="Hall", seats=1))
        with pytest.raises(RuntimeError, match="declare a WriteSession"):
            session.flush()
        session.rollback()


@pytest.mark.usefixtures("hasty")
def test_while_another_holds_the_lock_writes_are_refused_and_reads_go_on(
    settings: Settings, ada: Person, hall: Row
) -> None:
    with held_by_another(settings):
        refused = ada.post("/rooms", {"name": "Attic", "seats": 1})
        read = ada.get(f"/rooms/{hall['id']}")

    assert code(refused) == (503, "DATABASE_BUSY")
    assert int(refused.headers["retry-after"]) >= 1
    assert read.json() == hall
    assert ada.get("/rooms").json()["total"] == 1


@pytest.mark.usefixtures("hasty")
def test_a_write_that_could_not_begin_gives_its_connection_back(
    app: App, settings: Settings, client: TestClient
) -> None:
    with held_by_another(settings):
        answers = [client.post("/probes/adds") for _ in range(30)]
    pool = app.state.database.engine.pool

    assert {code(answer) for answer in answers} == {(503, "DATABASE_BUSY")}
    assert isinstance(pool, QueuePool)
    assert pool.checkedout() == 0
    assert client.post("/probes/adds").status_code == 201


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
    answer = ada.request(method, "/rooms")

    assert code(answer) == (503, "DATABASE_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1
    assert code(ada.client.get("/ready")) == (503, "DATABASE_UNAVAILABLE")
    assert ada.client.get("/health").status_code == 200
    assert (path.read_bytes() if path.exists() else None) == content


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


def test_a_database_that_may_only_be_read_refuses_writes_and_goes_on_reading(
    ada: Person, hall: Row, reconnect: Callable[..., None]
) -> None:
    reconnect("query_only=ON")

    assert code(ada.delete(f"/rooms/{hall['id']}")) == (503, "DATABASE_UNAVAILABLE")
    assert ada.get(f"/rooms/{hall['id']}").json() == hall


def test_a_full_disk_is_said_and_nothing_is_half_written(ada: Person, reconnect: Callable[..., None]) -> None:
    reconnect("max_page_count=1")  # SQLite takes it for "no more pages than there are"
    stored = 0
    answer = ada.post("/rooms", {"name": "0", "seats": 1})
    while answer.status_code == 201 and stored < 1000:
        stored += 1
        answer = ada.post("/rooms", {"name": f"{stored}".rjust(100, "x"), "seats": 1})

    assert code(answer) == (507, "STORAGE_FULL")
    assert ada.get("/rooms").json()["total"] == stored


def test_the_versions_with_the_wal_reset_fault_are_known(subtests: pytest.Subtests) -> None:
    faulty = [(3, 7, 0), (3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 0), (3, 51, 2)]
    sound = [(3, 6, 23), (3, 44, 6), (3, 50, 7), (3, 51, 3), (3, 52, 0), (4, 0, 0)]
    for version in faulty + sound:
        with subtests.test(str(version)):
            assert has_wal_reset_fault(version) is (version in faulty)


@pytest.fixture
def logged() -> Generator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}")
    yield lines
    logger.remove(sink)


def test_the_running_version_is_logged(database: Database, logged: list[str]) -> None:
    database.log_version()

    assert [line.strip() for line in logged] == [
        f"INFO Database: SQLite {SQLITE.sqlite_version} ({SQLITE.__name__.split('.')[0]})"
    ]


@pytest.mark.parametrize(
    ("version", "are_several", "warned"),
    [("3.40.1", True, True), ("3.40.1", False, False), ("3.51.3", True, False)],
)
def test_a_faulty_version_is_warned_of_where_several_processes_run(
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
    settings: Settings,
    version: str,
    are_several: bool,
    warned: bool,
) -> None:
    numbers = tuple(int(number) for number in version.split("."))
    library = SimpleNamespace(__name__="sqlite3", sqlite_version=version, sqlite_version_info=numbers)
    monkeypatch.setattr(db, "SQLITE", library)  # only one version is at hand
    in_production = settings.model_copy(update={"environment": "production"})
    with closing(Database(in_production)) as database, closing(Database(settings)) as another:
        for opened in (database, another) if are_several else (database,):
            opened.engine.connect().close()
        database.log_version()

    assert [line.split()[0] for line in logged] == ["INFO", "WARNING"][: 1 + warned]


# What a session finds


def test_a_row_is_found_among_those_that_a_statement_chooses(database: Database) -> None:
    with ending(database.write()) as session:
        room = add_room(session)
        mine, others = select(Room).where(Room.name == "Hall"), select(Room).where(Room.name == "Attic")

        assert session.get_one(Room, room.id) is session.get_one(Room, room.id, among=mine) is room
        with pytest.raises(NotFound, match=rf"^Room {room.id} was not found\.$"):
            session.get_one(Room, room.id, among=others)
        with pytest.raises(NotFound, match=r"^Room key 7 was not found\.$") as missing:
            session.get_one(RoomKey, 7)
        assert missing.value.code == "ROOM_KEY_NOT_FOUND"


def test_a_row_without_an_id_is_found_by_its_key(database: Database) -> None:
    with ending(database.write()) as session:
        FailedSignIn.count(session, "ada@example.com", 5, timedelta(hours=1))

        assert session.get_one(FailedSignIn, digest("ada@example.com")).failures == 1


# What SQLAlchemy does not document: that it asks the dialect for savepoints


def test_a_savepoint_is_not_begun_in_a_transaction_that_sqlite_ended(database: Database) -> None:
    with database.write() as session:
        connection = session.connection()
        connection.exec_driver_sql("ROLLBACK")
        with pytest.raises(DatabaseUnavailable):
            connection.begin_nested()


def test_a_savepoint_is_not_released_in_a_transaction_that_sqlite_ended(database: Database) -> None:
    with database.write() as session:
        savepoint = session.connection().begin_nested()
        session.connection().exec_driver_sql("ROLLBACK")
        with pytest.raises(DatabaseUnavailable):
            savepoint.commit()


def test_a_savepoint_is_rolled_back_without_a_fault_of_its_own(database: Database) -> None:
    with database.write() as session:
        savepoint = session.connection().begin_nested()
        session.connection().exec_driver_sql("ROLLBACK")
        savepoint.rollback()
