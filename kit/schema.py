"""The schema: migrations at start, and whether the database is at this version."""

import re
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Index, TextClause, inspect
from sqlalchemy.exc import DBAPIError

from kit.db import Database
from kit.problems import DatabaseUnavailable
from kit.sqlite import SQLITE
from settings import Settings, StartRefused

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic is imported where it has something to do: that takes a fifth of a second and 10 MB.

HERE = Path(__file__).parent.parent
MIGRATION_SECONDS = 60
REVISIONS = re.compile(r"^(down_)?revision\b[^=]*=(.*)", re.MULTILINE)
NAME = re.compile(r"""["'](\w+)["']""")


def upgrade(database: Database) -> None:
    """Bring the schema to this version; of many processes one does it and the others wait.

    Raises:
        StartRefused: the file is not a database, not ours, or newer than the code; it is left untouched.
    """
    _refuse_foreign_sqlite(database.settings)
    if is_current(database):
        return
    try:
        # The other workers wait for the one that migrates.
        migrating = database.engine.execution_options(immediate=True, busy_seconds=MIGRATION_SECONDS)
        with migrating.connect() as connection:
            _upgrade(connection, database.settings)
    except DBAPIError as error:
        raise StartRefused(f"The database cannot be migrated: {error.orig}.") from error
    except SQLITE.Error as error:
        raise StartRefused(f"The database cannot be opened: {error}.") from error


def is_current(database: Database) -> bool:
    """Whether the database can be read and has this version's schema."""
    try:
        if database.settings.on_sqlite:
            # Connections that are open answer from their caches what the file no longer has.
            return _read_sqlite(database.settings)[1] == revisions()[1]
        with database.engine.connect() as connection:
            heads = set(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars())
    except (DBAPIError, SQLITE.Error):
        return False
    return heads == revisions()[1]


def require_current(database: Database) -> None:
    """Check that the database can be read and has this version's schema.

    Raises:
        DatabaseUnavailable: it cannot be read, or its schema is another one.
    """
    if not is_current(database):
        raise DatabaseUnavailable


def comparable(item: object, _name: str | None, _kind: str, _reflected: bool, twin: object) -> bool:
    """Whether Alembic can compare this with its twin in the models.

    From SQLite it does not read that a column of an index descends, and would make such an index anew each time.
    """
    indexes = [index for index in (item, twin) if isinstance(index, Index)]
    return not any(isinstance(part, TextClause) for index in indexes for part in index.expressions)


def alembic_config() -> "Config":
    """Alembic's settings, from `pyproject.toml`."""
    from alembic.config import Config

    return Config(toml_file=HERE / "pyproject.toml")


@cache
def revisions() -> tuple[set[str], set[str]]:
    """All revisions of the schema, and the newest: the one that no other follows."""
    known: set[str] = set()
    followed: set[str] = set()
    for file in (HERE / "migrations/versions").glob("*.py"):
        for down, names in REVISIONS.findall(file.read_text()):
            (followed if down else known).update(NAME.findall(names))
    return known, known - followed


def _upgrade(connection: Connection, settings: Settings) -> None:
    """Migrate inside one transaction that nobody else can enter, and refuse what is not ours."""
    from alembic import command
    from alembic.runtime.migration import MigrationContext

    if settings.on_sqlite:
        driver_connection: Any = connection.connection.dbapi_connection
        # Batch migrations rebuild tables; with foreign keys on, dropping the old table would delete its children.
        driver_connection.execute("PRAGMA foreign_keys=OFF")
    try:
        with connection.begin():
            if not settings.on_sqlite:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7246310)")
            heads = MigrationContext.configure(connection).get_current_heads()
            _refuse_foreign(set(inspect(connection).get_table_names()), set(heads))
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        if settings.on_sqlite:
            connection.invalidate()  # its pragmas are not those of the others


def _refuse_foreign_sqlite(settings: Settings) -> None:
    """Look at a SQLite file before any of our pragmas changes it; make it, and its folder, if there is none."""
    if not settings.on_sqlite:
        return
    path = settings.sqlite_path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch()
        tables, heads = _read_sqlite(settings)
    except SQLITE.Error as error:
        raise StartRefused(f"{path} cannot be used as a SQLite database: {error}.") from error
    except OSError as error:
        raise StartRefused(f"{path} cannot be made: {error.strerror}.") from error
    _refuse_foreign(tables, heads)


def _read_sqlite(settings: Settings) -> tuple[set[str], set[str]]:
    """The names of the tables in a SQLite file, and its revisions, over a connection of its own."""
    # The last connection to close brings the journal into the file, damaged or not, unless it may only read. Without a
    # journal such a one would leave an empty one behind.
    mode = "ro" if Path(f"{settings.sqlite_path}-wal").exists() else "rw"
    with closing(
        SQLITE.connect(f"{settings.sqlite_uri}?mode={mode}", uri=True, timeout=MIGRATION_SECONDS)
    ) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        revisions = connection.execute("SELECT * FROM alembic_version") if "alembic_version" in tables else ()
        return tables, {str(row[0]) for row in revisions}


def _refuse_foreign(tables: set[str], heads: set[str]) -> None:
    if unknown := heads - revisions()[0]:
        raise StartRefused(
            f"The database is newer than this code (revision {', '.join(sorted(unknown))}), or another program's; "
            "start the version that made it, restore a backup, or set APP_DATABASE_URL to a database of its own."
        )
    # After a downgrade to the base these two are left.
    if not heads and tables - {"alembic_version", "sqlite_sequence"}:
        raise StartRefused("The database has tables of another program; set APP_DATABASE_URL to one of its own.")
