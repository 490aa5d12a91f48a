"""The schema: migrations are what the models say, run once, and never on a database that is not ours."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import sleep

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi.testclient import TestClient
from sqlalchemy import Connection, create_engine, inspect
from sqlmodel import SQLModel

from app import create_app
from kit import schema
from kit.db import Database, ending
from kit.settings import StartRefused
from kit.sqlite import BUSY_SECONDS, SQLITE
from models import Item
from settings import Settings
from tests.conftest import Person
from tests.postgres import Postgres
from tests.server import write_lock_held

ROOT = Path(__file__).parent.parent
NEWER = "newer than this code"
FOREIGN = "tables of another program"


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


def downgrade(database: Database, revision: str) -> None:
    config = schema.alembic_config()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


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
    """The statements that made SQLite's tables and indexes, their lines in an order of ours."""
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql <> ''").all()
    return {name: sorted(line.strip(" \t,") for line in sql.splitlines()) for name, sql in rows}


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

    assert {"user", "login_session", "failed_sign_in", "item"} <= set(wanted)
    assert found == wanted


def test_sqlite_was_given_the_statements_of_the_models(template: Path, tmp_path: Path) -> None:
    models = create_engine(f"sqlite:///{tmp_path}/models.db")
    migrated = create_engine(f"sqlite:///{template}")
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
    downgrade(empty, "base")
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
        session.add(Item(name="Lamp", price_cents=1200))
    schema.upgrade(empty)

    with ending(empty.read()) as session:
        assert session.get_one(Item, 1).name == "Lamp"


def test_processes_that_start_together_migrate_once(empty: Database) -> None:
    code = "import schema, settings, db; schema.upgrade(db.Database(settings.load_settings()))"
    python, variables = [sys.executable, "-c", code], environment(empty.settings.database_url)
    if empty.settings.on_sqlite:
        empty.settings.sqlite_path.unlink()
    processes = [
        subprocess.Popen(python, cwd="/", env=variables, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own
        for _ in range(4)
    ]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    schema.require_current(empty)

    assert ends == [("", 0)] * 4


def test_a_new_file_and_its_folder_are_made(tmp_path: Path) -> None:
    database = Database(Settings(database_url=f"sqlite:///{tmp_path}/deep/down/app.db"))
    schema.upgrade(database)
    schema.require_current(database)
    database.close()

    assert list(files(tmp_path / "deep" / "down")) == ["app.db"]


def made_by_another(path: Path, *script: str) -> None:
    connection = SQLITE.connect(path)
    connection.executescript(";".join(script))
    connection.close()


def newer(path: Path) -> None:
    made_by_another(path, "UPDATE alembic_version SET version_num = '9999'")


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
    (with_other_tables, FOREIGN),
    (with_other_migrations, NEWER),
    (with_other_tables_not_yet_migrated, FOREIGN),
    (with_garbage, "cannot be used as a SQLite database"),
    (cut_short, "cannot be used as a SQLite database"),
    (cut_inside_the_header, "cannot be used as a SQLite database"),
]


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
def test_without_migration_at_start_the_app_lives_but_is_not_ready(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "app.db"
    if exists:
        path.touch()
    settings = Settings(database_url=f"sqlite:///{path}", migrate_on_start=False, environment="development")
    with TestClient(create_app(settings)) as client:
        ready, health = client.get("/ready"), client.get("/health")

    assert (ready.status_code, ready.json()["error_code"]) == (503, "DATABASE_UNAVAILABLE")
    assert int(ready.headers["retry-after"]) >= 1
    assert (health.status_code, health.json()) == (200, {"status": "healthy"})
    assert path.exists() is exists


def test_an_app_that_finds_its_schema_is_ready(client: TestClient) -> None:
    answer = client.get("/ready")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "database": "connected"}


@pytest.mark.parametrize(
    "statement", [["INSERT INTO alembic_version VALUES ('9999')"], [], ["DROP TABLE alembic_version"]]
)
def test_a_schema_that_changed_under_the_app_is_not_ready(
    ada: Person, settings: Settings, statement: list[str]
) -> None:
    made_by_another(settings.sqlite_path, "DELETE FROM alembic_version", *statement)

    assert ada.client.get("/ready").json()["error_code"] == "DATABASE_UNAVAILABLE"
    assert ada.client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("change", "sentence"), [REFUSED[0], REFUSED[1], REFUSED[4]], ids=lambda case: getattr(case, "__name__", "")
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


def test_the_revisions_are_those_that_alembic_finds() -> None:
    scripts = ScriptDirectory.from_config(schema.alembic_config())
    known, newest = schema.revisions()

    assert known == {script.revision for script in scripts.walk_revisions()}
    assert newest == set(scripts.get_heads())


def test_a_start_with_nothing_to_migrate_does_without_alembic(settings: Settings) -> None:
    """It would take a tenth of the memory."""
    schema.upgrade(Database(settings))
    start = (
        "import sys, schema; from db import Database; from settings import load_settings;"
        "schema.upgrade(Database(load_settings())); print('alembic' in sys.modules)"
    )
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
