"""The schema: migrations at start, and whether the database is at this version."""

import re
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger
from sqlalchemy import Connection, Index, TextClause, inspect
from sqlalchemy.exc import DBAPIError

from kit.db import Database
from kit.models import Table
from kit.problems import BROKEN_CONSTRAINTS, DatabaseUnavailable
from kit.settings import KitSettings, StartRefused
from kit.sqlite import SQLITE

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic is imported where it has something to do: that takes a fifth of a second and 10 MB.

HERE = Path(__file__).parent.parent
MIGRATION_SECONDS = 60
RETIRED = HERE / "migrations/retired.txt"  # revisions that databases may have, and that are no more
REVISIONS = re.compile(r"^(down_)?revision\b[^=]*=(.*)", re.MULTILINE)
NAME = re.compile(r"""["'](\w+)["']""")


def upgrade(database: Database) -> None:
    """Bring the schema to this version; of many processes one does it and the others wait.

    Raises:
        StartRefused: the file is not a database, not ours, or newer than the code; it is left untouched.
    """
    _refuse_foreign_sqlite(database.settings)
    if not is_current(database):
        from alembic import command

        with migrating(database) as connection:
            command.upgrade(alembic_config(connection), "head")
        logger.info("The database was migrated to {}", ", ".join(revisions()[1]))


def downgrade(database: Database, revision: str) -> None:
    """Take the schema back to an older revision.

    Raises:
        StartRefused: there is no such revision, or rows would be left without what they refer to.
    """
    from alembic import command
    from alembic.util import CommandError

    try:
        with migrating(database) as connection:
            command.downgrade(alembic_config(connection), revision)
    except CommandError as error:
        raise StartRefused(f"The schema cannot be taken back: {error}.") from error


def new_revision(database: Database, message: str) -> Path | None:
    """Write a migration from what the models have and the database has not; returns its file, None without one."""
    from alembic import command

    def drop_empty(_context: object, _revision: object, directives: list[Any]) -> None:
        if directives[0].upgrade_ops.is_empty():
            directives.clear()

    with migrating(database) as connection:
        config = alembic_config(connection)
        script: Any = command.revision(config, message, autogenerate=True, process_revision_directives=drop_empty)
    return Path(script.path) if script else None


@contextmanager
def migrating(database: Database) -> Generator[Connection]:
    """The connection that changes the schema, whoever starts it: the app, the command line, or Alembic's own.

    All that is done with it is one transaction, which no other process can enter. At its end every reference must
    lead to a row.

    Raises:
        StartRefused: the database is not ours, the driver refuses, or a reference leads nowhere; nothing was changed.
    """
    from alembic.runtime.migration import MigrationContext

    on_sqlite = database.settings.on_sqlite
    try:
        # Other processes wait for the one that migrates.
        engine = database.engine.execution_options(immediate=True, busy_seconds=MIGRATION_SECONDS)
        with engine.connect() as connection:
            if on_sqlite:
                _pragma(connection, "foreign_keys=OFF")  # a rebuilt table is dropped, and would take its children along
            try:
                with connection.begin():
                    if not on_sqlite:
                        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MIGRATION_SECONDS}s'")
                        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7246310)")
                    heads = set(MigrationContext.configure(connection).get_current_heads())
                    _refuse_foreign(set(inspect(connection).get_table_names()), heads)
                    yield connection
                    if on_sqlite:
                        _refuse_lost_references(connection)
            finally:
                if on_sqlite:
                    connection.invalidate()  # its pragmas are not those of the others
    except DBAPIError as error:
        raise StartRefused(f"The database cannot be migrated: {error.orig}.") from error
    except SQLITE.Error as error:
        raise StartRefused(f"The database cannot be opened: {error}.") from error


def _refuse_lost_references(connection: Connection) -> None:
    if lost := _pragma(connection, "foreign_key_check"):
        table, _, parent, _ = lost[0]
        raise StartRefused(
            f"The migration would leave {len(lost)} rows without what they refer to, such as rows of {table} without "
            f"their {parent}; nothing was changed."
        )


def _pragma(connection: Connection, pragma: str) -> list[Any]:
    driver_connection: Any = connection.connection.dbapi_connection
    return driver_connection.execute(f"PRAGMA {pragma}").fetchall()


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
    """Check that the database can be read and has this version's schema; `DatabaseUnavailable` if not."""
    if not is_current(database):
        raise DatabaseUnavailable


def warn_of_differences(database: Database) -> None:
    """Say which columns only the models or only the database have; until they agree, requests that need them fail."""
    with database.engine.connect() as connection:
        tables = inspect(connection).get_multi_columns()
    found = {f"{table}.{column['name']}" for (_, table), columns in tables.items() for column in columns}
    wanted = {str(column) for table in Table.metadata.tables.values() for column in table.columns}
    of_the_models = tuple(f"{table}." for table in Table.metadata.tables)
    if differences := (wanted - found) | {column for column in found - wanted if column.startswith(of_the_models)}:
        logger.warning(
            "The models and the database differ ({}): 'uv run manage.py revision TEXT' writes the migration, and "
            "'uv run manage.py migrate' runs it",
            ", ".join(sorted(differences)),
        )


def require_known_constraints() -> None:
    """Check that each constraint that a problem names is one of a table; a `TypeError` names the class if not."""
    tables = [table for table in _derived(Table) if hasattr(table, "__table__")]
    parts = [part for table in tables for part in (*table.__table__.constraints, *table.__table__.indexes)]
    known = {str(part.name) for part in parts}
    for constraint, problem in BROKEN_CONSTRAINTS.items():
        if constraint not in known:
            alike = get_close_matches(constraint, known, n=5, cutoff=0)
            raise TypeError(
                f"{problem.__name__}.constraint is {constraint!r}, which no table has; those most like it are "
                f"{', '.join(alike)}."
            )


def _derived(kind: type[Any]) -> Iterator[type[Any]]:
    for derived in kind.__subclasses__():
        yield derived
        yield from _derived(derived)


def comparable(item: object, _name: str | None, _kind: str, _reflected: bool, twin: object) -> bool:
    """Whether Alembic can compare this with its twin in the models.

    From SQLite it does not read that a column of an index descends, and would make such an index anew each time.
    """
    indexes = [index for index in (item, twin) if isinstance(index, Index)]
    return not any(isinstance(part, TextClause) for index in indexes for part in index.expressions)


def alembic_config(connection: Connection) -> "Config":
    """Alembic's settings, from `pyproject.toml`; its `env.py` works on this connection."""
    from alembic.config import Config

    config = Config(toml_file=HERE / "pyproject.toml")
    config.attributes["connection"] = connection
    return config


@cache
def revisions() -> tuple[set[str], set[str]]:
    """All revisions of the schema, and the newest: the one that no other follows."""
    known: set[str] = set()
    followed: set[str] = set()
    for file in (HERE / "migrations/versions").glob("*.py"):
        for down, names in REVISIONS.findall(file.read_text()):
            (followed if down else known).update(NAME.findall(names))
    return known, known - followed


def _refuse_foreign_sqlite(settings: KitSettings) -> None:
    """Look at a SQLite file before any of our pragmas changes it; make it, and its folder, if there is none."""
    if not settings.on_sqlite:
        return
    path = settings.sqlite_path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)  # it holds what everybody on this machine should not read
        tables, heads = _read_sqlite(settings)
    except SQLITE.Error as error:
        raise StartRefused(f"{path} cannot be used as a SQLite database: {error}.") from error
    except OSError as error:
        raise StartRefused(f"{path} cannot be made: {error.strerror}.") from error
    _refuse_foreign(tables, heads)


def _read_sqlite(settings: KitSettings) -> tuple[set[str], set[str]]:
    """The names of the tables in a SQLite file, and its revisions, over a connection of its own."""
    # The last connection to close brings the journal into the file, damaged or not, unless it may only read. Without a
    # journal such a one would leave an empty one behind.
    mode = "ro" if Path(f"{settings.sqlite_path}-wal").exists() else "rw"
    uri = f"{settings.sqlite_uri}?mode={mode}"
    with closing(SQLITE.connect(uri, uri=True, timeout=MIGRATION_SECONDS)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        revisions = connection.execute("SELECT * FROM alembic_version") if "alembic_version" in tables else ()
        return tables, {str(row[0]) for row in revisions}


def _refuse_foreign(tables: set[str], heads: set[str]) -> None:
    unknown = heads - revisions()[0]
    if RETIRED.exists() and unknown & set(RETIRED.read_text().split()):
        raise StartRefused(
            f"The database was made before the migrations were written anew (revision {', '.join(sorted(unknown))}); "
            "take what you need out of it with the version that made it, and set APP_DATABASE_URL to a new database."
        )
    if unknown:
        raise StartRefused(
            f"The database is newer than this code (revision {', '.join(sorted(unknown))}), or another program's; "
            "start the version that made it, restore a backup, or set APP_DATABASE_URL to a database of its own."
        )
    # After a downgrade to the base these two are left.
    if not heads and tables - {"alembic_version", "sqlite_sequence"}:
        raise StartRefused("The database has tables of another program; set APP_DATABASE_URL to one of its own.")
