"""The schema: migrations are what the models say, run once, and never on a database that is not ours."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import sleep

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi.testclient import TestClient
from sqlalchemy import Connection, create_engine, inspect
from sqlmodel import SQLModel

from kit import schema
from kit.db import Database, ending
from kit.models import now
from kit.settings import StartRefused
from kit.sqlite import BUSY_SECONDS, SQLITE
from models import User, UserRegister
from settings import Settings
from tests.conftest import MakeApp
from tests.kit.specimen import Booking, BookingNote, Room
from tests.people import Person
from tests.postgres import Postgres
from tests.server import ROOT, write_lock_held

NEWER = "newer than this code"
FOREIGN = "tables of another program"
RETIRED = "made before the migrations were written anew"
IMPORTS = "import sys; from kit import schema; from kit.db import Database; from settings import get_settings"


@pytest.fixture
def empty_postgres_url(postgres: Postgres) -> str:
    """The URL of a new database on the server of the tests."""
    return postgres.create()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Database]:
    """A database without tables, on SQLite and on PostgreSQL."""
    on_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/app.db" if on_sqlite else request.getfixturevalue("empty_postgres_url")
    if on_sqlite:
        (tmp_path / "app.db").touch()
    database = Database(Settings(database_url=url))
    yield database
    database.close()


def described(connection: Connection) -> dict[str, dict[str, list[str]]]:
    """All that the database knows of its tables, in an order of ours."""
    inspector = inspect(connection)
    looks: dict[str, Callable[[str], Iterable[object]]] = {
        "columns": inspector.get_columns,
        "primary key": lambda table: [inspector.get_pk_constraint(table)],
        "foreign keys": inspector.get_foreign_keys,
        "unique": inspector.get_unique_constraints,
        "checks": inspector.get_check_constraints,
        "indexes": inspector.get_indexes,
    }
    tables = [table for table in inspector.get_table_names() if table != "alembic_version"]
    return {table: {name: sorted(map(as_text, look(table))) for name, look in looks.items()} for table in tables}


def as_text(fact: object) -> str:
    """What a fact says, without the address of an object in it; the SQL of an index is compared further below."""
    return re.sub(" at 0x[0-9a-f]+", "", str(fact))


def statements(connection: Connection) -> dict[str, list[str]]:
    """The statements that made SQLite's tables and indexes, their parts in an order of ours."""
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql <> ''").all()
    outside = r",(?![^()]*\))|\n|\)$"  # a comma in parentheses separates no parts
    return {name: sorted(filter(None, map(str.strip, re.split(outside, sql)))) for name, sql in rows}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def environment(url: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "APP_DATABASE_URL": url}


def test_the_migrated_schema_is_that_of_the_models(empty: Database) -> None:
    schema.upgrade(empty)
    with empty.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_object": schema.comparable}
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, SQLModel.metadata)

    assert differences == []


def test_the_migrated_schema_has_every_constraint_of_the_models(
    empty: Database, request: pytest.FixtureRequest
) -> None:
    """Alembic compares no check constraint, collation, or what a deletion does."""
    with empty.engine.begin() as connection:
        SQLModel.metadata.create_all(connection)
        wanted = described(connection)
        SQLModel.metadata.drop_all(connection)
    schema.upgrade(empty)
    with empty.engine.connect() as connection:
        found = described(connection)

    assert {"user", "login_session", "failed_sign_in", "audit_entry"} <= set(wanted)
    assert found == wanted


def test_sqlite_was_given_the_statements_of_the_models(tmp_path: Path) -> None:
    database = Database(Settings(database_url=f"sqlite:///{tmp_path}/app.db"))
    schema.upgrade(database)
    database.close()
    models = create_engine(f"sqlite:///{tmp_path}/models.db")
    migrated = create_engine(f"sqlite:///{tmp_path}/app.db")
    with models.begin() as wanted, migrated.connect() as found:
        SQLModel.metadata.create_all(wanted)
        made = {name: lines for name, lines in statements(found).items() if name != "alembic_version"}

        assert made == statements(wanted)
    models.dispose()
    migrated.dispose()


def test_down_to_the_base_and_up_again_makes_the_same_schema(empty: Database) -> None:
    schema.upgrade(empty)
    with empty.engine.connect() as connection:
        before = described(connection)
    schema.downgrade(empty, "base")
    with empty.engine.connect() as connection:
        between = inspect(connection).get_table_names()
    schema.upgrade(empty)
    with empty.engine.connect() as connection:
        after = described(connection)

    assert between == ["alembic_version"]
    assert after == before


def test_an_upgrade_keeps_what_is_stored(empty: Database) -> None:
    schema.upgrade(empty)
    with ending(empty.write()) as session:
        User.create(session, UserRegister(email="ada@example.com", full_name="Ada", password="Correct-horse-1"), "")
    schema.upgrade(empty)

    with ending(empty.read()) as session:
        assert session.get_one(User, 1).full_name == "Ada"


def test_processes_that_start_together_migrate_once(empty: Database) -> None:
    code = f"{IMPORTS}; schema.upgrade(Database(get_settings()))"
    python, variables = [sys.executable, "-c", code], environment(empty.settings.database_url)
    if empty.settings.on_sqlite:
        empty.settings.sqlite_path.unlink()
    processes = [
        subprocess.Popen(python, cwd="/", env=variables, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own
        for _ in range(4)
    ]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    schema.require_current(empty)

    assert [code for _, code in ends] == [0] * 4, ends
    assert {line[line.index("The database") :][:25] for log, _ in ends for line in log.splitlines()} == {
        "The database was migrated"
    }


def test_a_new_file_and_its_folder_are_made(tmp_path: Path) -> None:
    database = Database(Settings(database_url=f"sqlite:///{tmp_path}/deep/down/app.db"))
    schema.upgrade(database)
    schema.require_current(database)
    database.close()

    assert sorted(files(tmp_path / "deep" / "down")) == ["app.db", "app.db-lock"]


def made_by_another(path: Path, *script: str) -> None:
    connection = SQLITE.connect(path)
    connection.executescript(";".join(script))
    connection.close()


def newer(path: Path) -> None:
    made_by_another(path, "UPDATE alembic_version SET version_num = '9999'")


def retired(path: Path) -> None:
    revision = schema.RETIRED.read_text().split()[0]
    made_by_another(path, f"UPDATE alembic_version SET version_num = '{revision}'")  # noqa: S608 - a name of ours


def with_other_tables(path: Path) -> None:
    path.unlink()
    made_by_another(path, "CREATE TABLE song (id)", "INSERT INTO song VALUES (1)")


def with_other_migrations(path: Path) -> None:
    path.unlink()
    made_by_another(
        path,
        "CREATE TABLE song (id)",
        "CREATE TABLE alembic_version (version_num)",
        "INSERT INTO alembic_version VALUES ('ae1027a6acf')",
    )


def with_other_tables_not_yet_migrated(path: Path) -> None:
    path.unlink()
    made_by_another(path, "CREATE TABLE song (id)", "CREATE TABLE alembic_version (version_num)")


def with_garbage(path: Path) -> None:
    path.write_bytes(b"Dear diary, \0\xff" * 1000)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6000])


def cut_inside_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


REFUSED = [
    (newer, NEWER),
    (retired, RETIRED),
    (with_other_tables, FOREIGN),
    (with_other_migrations, NEWER),
    (with_other_tables_not_yet_migrated, FOREIGN),
    (with_garbage, "cannot be used as a SQLite database"),
    (cut_short, "cannot be used as a SQLite database"),
    (cut_inside_the_header, "cannot be used as a SQLite database"),
]


@pytest.mark.sqlite_only("it looks at the file of the database")
@pytest.mark.parametrize(("change", "sentence"), REFUSED, ids=lambda case: getattr(case, "__name__", ""))
def test_a_file_that_is_not_ours_is_refused_and_left_untouched(
    settings: Settings, tmp_path: Path, change: Callable[[Path], None], sentence: str
) -> None:
    change(settings.sqlite_path)
    before, modified_at = files(tmp_path), settings.sqlite_path.stat().st_mtime_ns
    database = Database(settings)
    with pytest.raises(StartRefused) as refused:
        schema.upgrade(database)
    database.close()

    assert sentence in str(refused.value)
    assert str(refused.value).endswith(".")
    assert files(tmp_path) == before
    assert settings.sqlite_path.stat().st_mtime_ns == modified_at


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("CREATE TABLE song (id integer)", FOREIGN),
        ("CREATE TABLE alembic_version AS SELECT '9999' AS version_num", NEWER),
    ],
)
def test_a_postgres_database_that_is_not_ours_is_refused(
    empty_postgres_url: str, statement: str, sentence: str
) -> None:
    database = Database(Settings(database_url=empty_postgres_url))
    with database.engine.begin() as connection:
        connection.exec_driver_sql(statement)
        before = inspect(connection).get_table_names()
    with pytest.raises(StartRefused, match=sentence):
        schema.upgrade(database)

    with database.engine.connect() as connection:
        assert inspect(connection).get_table_names() == before
    database.close()


def test_a_postgres_server_that_does_not_answer_refuses_the_start() -> None:
    database = Database(Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing"))

    with pytest.raises(StartRefused, match="cannot be migrated"):
        schema.upgrade(database)


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_an_empty_file_is_a_new_database(settings: Settings) -> None:
    settings.sqlite_path.write_bytes(b"")
    database = Database(settings)
    schema.upgrade(database)
    schema.require_current(database)
    database.close()


def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for path, sentence in ((tmp_path, "cannot be used"), (tmp_path / "file" / "app.db", "cannot be made")):
        with pytest.raises(StartRefused, match=sentence):
            schema.upgrade(Database(Settings(database_url=f"sqlite:///{path}")))


@pytest.mark.parametrize("exists", [True, False])
def test_without_migration_at_start_the_app_lives_but_is_not_ready(
    tmp_path: Path, exists: bool, make_app: MakeApp
) -> None:
    path = tmp_path / "app.db"
    if exists:
        path.touch()
    settings = Settings(database_url=f"sqlite:///{path}", migrate_on_start=False, environment="development")
    with TestClient(make_app(settings)) as client:
        ready, health = client.get("/ready"), client.get("/health")

    assert (ready.status_code, ready.json()["error_code"]) == (503, "DATABASE_UNAVAILABLE")
    assert int(ready.headers["retry-after"]) >= 1
    assert (health.status_code, health.json()) == (200, {"status": "healthy"})
    assert path.exists() is exists


def test_an_app_that_finds_its_schema_is_ready(client: TestClient) -> None:
    answer = client.get("/ready")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "database": "connected"}


@pytest.mark.sqlite_only("it looks at the file of the database")
@pytest.mark.parametrize(
    "statement", [["INSERT INTO alembic_version VALUES ('9999')"], [], ["DROP TABLE alembic_version"]]
)
def test_a_schema_that_changed_under_the_app_is_not_ready(
    ada: Person, settings: Settings, statement: list[str]
) -> None:
    made_by_another(settings.sqlite_path, "DELETE FROM alembic_version", *statement)

    assert ada.client.get("/ready").json()["error_code"] == "DATABASE_UNAVAILABLE"
    assert ada.client.get("/health").status_code == 200


@pytest.mark.sqlite_only("it looks at the file of the database")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [REFUSED[0], REFUSED[5]],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_a_server_on_a_refused_database_ends_with_the_sentence(
    settings: Settings, tmp_path: Path, change: Callable[[Path], None], sentence: str
) -> None:
    change(settings.sqlite_path)
    ended = subprocess.run(
        [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"],
        cwd=tmp_path,
        env=environment(settings.database_url),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 3
    assert ended.stderr.count(sentence) == 1
    assert "Traceback" not in ended.stderr


def test_the_revisions_are_those_that_alembic_finds(settings: Settings) -> None:
    database = Database(settings)
    with database.engine.connect() as connection:
        scripts = ScriptDirectory.from_config(schema.alembic_config(connection))
    database.close()
    known, newest = schema.revisions()

    assert known == {script.revision for script in scripts.walk_revisions()}
    assert newest == set(scripts.get_heads())


def test_a_start_with_nothing_to_migrate_does_without_alembic(settings: Settings) -> None:
    """It would take a tenth of the memory."""
    with closing(Database(settings)) as database:
        schema.upgrade(database)
    start = f"{IMPORTS}; schema.upgrade(Database(get_settings())); print('alembic' in sys.modules)"
    environment = os.environ | {"APP_DATABASE_URL": settings.database_url}
    found = subprocess.run([sys.executable, "-c", start], cwd=ROOT, env=environment, capture_output=True, check=True)  # noqa: S603 - this very Python

    assert found.stdout == b"False\n"


@pytest.mark.slow
def test_a_start_waits_for_a_migration_longer_than_a_request_would(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(SQLITE.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    database = Database(Settings(database_url=f"sqlite:///{path}"))
    with ThreadPoolExecutor(1) as threads:
        with write_lock_held(path):
            start = threads.submit(schema.upgrade, database)
            sleep(BUSY_SECONDS + 1)
            assert not start.done()
        start.result()

    assert schema.is_current(database)
    database.close()


# What a migration may do


@pytest.fixture
def database(settings: Settings) -> Generator[Database]:
    """A hall, which Ada has booked, with a note on her booking."""
    database = Database(settings)
    with ending(database.write()) as session:
        body = UserRegister(email="ada@example.com", full_name="Ada", password="Correct-horse-1")
        ada = User.create(session, body, "")
        room = Room(name="Hall", seats=10)
        session.add(room)
        session.flush()
        booking = Booking(room_id=room.id, guest_id=ada.id, starts_at=now())
        session.add(booking)
        session.flush()
        session.add(BookingNote(booking_id=booking.id, text="Quiet, please"))
    yield database
    database.close()


def rebuild(connection: Connection, table: str) -> None:
    """What a batch migration does on SQLite: it makes the table anew, and drops the old one."""
    operations = Operations(MigrationContext.configure(connection))
    with operations.batch_alter_table(table, recreate="always") as batch:
        batch.alter_column("id", nullable=False)


def migrate(database: Database, *statements: str) -> None:
    with schema.migrating(database) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def amounts(database: Database) -> list[int]:
    tables = ("room", "booking", "booking_note")
    with database.engine.connect() as connection:
        counts = [connection.exec_driver_sql(f"SELECT count(*) FROM {table}") for table in tables]  # noqa: S608
        return [count.scalar_one() for count in counts]


@pytest.mark.sqlite_only("it rebuilds tables")
def test_a_table_that_is_rebuilt_keeps_what_refers_to_it(database: Database) -> None:
    with schema.migrating(database) as connection:
        rebuild(connection, "room")
        rebuild(connection, "booking")

    assert amounts(database) == [1, 1, 1]
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


@pytest.mark.sqlite_only("PostgreSQL checks its foreign keys itself")
def test_a_migration_that_leaves_rows_without_what_they_refer_to_is_rolled_back(database: Database) -> None:
    sentence = (
        r"^The migration would leave 1 rows without .* rows of booking without their room; nothing was changed\.$"
    )
    with pytest.raises(StartRefused, match=sentence):
        migrate(database, "CREATE TABLE half_done (id INTEGER)", "DELETE FROM room")

    assert amounts(database) == [1, 1, 1]
    with database.engine.connect() as connection:
        assert "half_done" not in inspect(connection).get_table_names()


def test_a_migration_that_fails_is_rolled_back(database: Database) -> None:
    with pytest.raises(StartRefused, match=r"^The database cannot be migrated: (?s:.*nowhere.*)\.$"):
        migrate(database, "CREATE TABLE half_done (id INTEGER)", "SELECT 1 FROM nowhere")

    with database.engine.connect() as connection:
        assert "half_done" not in inspect(connection).get_table_names()


def alembic(database: Database, *words: str) -> "subprocess.CompletedProcess[str]":
    """Alembic's own command line."""
    return subprocess.run(  # noqa: S603 - words from here
        [sys.executable, "-m", "alembic", *words],
        cwd=ROOT,
        env=os.environ | {"APP_DATABASE_URL": database.settings.database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_alembics_own_command_line_migrates_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.touch()
    database = Database(Settings(database_url=f"sqlite:///{path}"))
    assert alembic(database, "upgrade", "head").returncode == 0
    assert schema.is_current(database)
    database.close()
    made_by_another(path, "INSERT INTO login_session SELECT 1, 9, 'f', 's', '', '', '', '', '', 0")
    refused = alembic(database, "upgrade", "head")

    assert refused.returncode == 1
    assert "rows of login_session without their user; nothing was changed." in refused.stderr


def test_a_downgrade_to_nowhere_is_refused_with_a_sentence(database: Database) -> None:
    with pytest.raises(StartRefused, match=r"^The schema cannot be taken back: .*nowhere.*\.$"):
        schema.downgrade(database, "nowhere")

    assert schema.is_current(database)


@pytest.fixture
def copied_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A folder with the migrations, to which a test may add."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    monkeypatch.setattr(schema, "HERE", folder)
    schema.revisions.cache_clear()
    yield folder / "migrations" / "versions"
    schema.revisions.cache_clear()


def test_a_revision_is_what_the_models_have_and_the_database_has_not(empty: Database, copied_migrations: Path) -> None:
    schema.upgrade(empty)
    with empty.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_login_session_expires_at")
    path = schema.new_revision(empty, "find what expires")
    schema.revisions.cache_clear()

    assert path is not None
    assert path.parent == copied_migrations
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_find_what_expires\.py", path.name)
    assert path.read_text().count("create_index") == 1
    assert "ix_login_session_expires_at" in path.read_text()
    assert not schema.is_current(empty)
    schema.upgrade(empty)
    with empty.engine.connect() as connection:
        indexes = {index["name"] for index in inspect(connection).get_indexes("login_session")}
    assert "ix_login_session_expires_at" in indexes
    assert schema.is_current(empty)
