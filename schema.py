"""The schema: migrations at start, and whether the database is at this version."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from db import SQLITE, Database
from problems import DatabaseUnavailable
from settings import Settings, StartRefused

HERE = Path(__file__).parent


def upgrade(database: Database) -> None:
    """Bring the schema to this version; of many processes one does it and the others wait.

    Raises:
        StartRefused: the file is not a database, not ours, or newer than the code; it is left untouched.
    """
    _refuse_foreign_sqlite(database.settings)
    try:
        with database.engine.execution_options(immediate=True).connect() as connection:
            _upgrade(connection, database.settings)
    except DBAPIError as error:
        raise StartRefused(f"The database cannot be migrated: {error.orig}.") from error
    except SQLITE.Error as error:
        raise StartRefused(f"The database cannot be opened: {error}.") from error


def require_current(database: Database) -> None:
    """Check that the database can be read and has this version's schema.

    Raises:
        DatabaseUnavailable: it cannot be read, or its schema is another one.
    """
    try:
        with database.engine.connect() as connection:
            heads = MigrationContext.configure(connection).get_current_heads()
    except (DBAPIError, SQLITE.Error) as error:
        raise DatabaseUnavailable from error
    if set(heads) != set(_scripts().get_heads()):
        raise DatabaseUnavailable


def alembic_config() -> Config:
    """Alembic's settings, from `pyproject.toml`."""
    return Config(toml_file=HERE / "pyproject.toml")


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config())


def _upgrade(connection: Connection, settings: Settings) -> None:
    """Migrate inside one transaction that nobody else can enter, and refuse what is not ours."""
    if settings.on_sqlite:
        driver_connection: Any = connection.connection.dbapi_connection
        driver_connection.execute("PRAGMA busy_timeout=60000")  # the other workers wait for the one that migrates
        # Batch migrations rebuild tables; with foreign keys on, dropping the old table would delete its children.
        driver_connection.execute("PRAGMA foreign_keys=OFF")
    try:
        with connection.begin():
            if not settings.on_sqlite:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7246310)")
            _refuse_foreign_schema(connection)
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        if settings.on_sqlite:
            connection.invalidate()  # its pragmas are not those of the others


def _refuse_foreign_schema(connection: Connection) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    heads = MigrationContext.configure(connection).get_current_heads()
    if unknown := set(heads) - known:
        raise StartRefused(
            f"The database is newer than this code (revision {', '.join(sorted(unknown))}); "
            "start the version that made it, or restore a backup."
        )
    if not heads and inspect(connection).get_table_names():
        raise StartRefused("The database has tables of another program; set APP_DATABASE_URL to one of its own.")


def _refuse_foreign_sqlite(settings: Settings) -> None:
    """Look at a SQLite file before any of our pragmas changes it; make it, and its folder, if there is none."""
    if not settings.on_sqlite:
        return
    path = settings.sqlite_path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        connection = SQLITE.connect(f"{settings.sqlite_uri}?mode=rw", uri=True, timeout=60)
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        finally:
            connection.close()
    except SQLITE.Error as error:
        raise StartRefused(f"{path} cannot be used as a SQLite database: {error}.") from error
    except OSError as error:
        raise StartRefused(f"{path} cannot be made: {error.strerror}.") from error
    if tables and "alembic_version" not in tables:
        raise StartRefused(f"{path} has tables of another program; set APP_DATABASE_URL to a file of its own.")
