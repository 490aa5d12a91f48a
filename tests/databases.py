"""Databases whose content can be saved, and put back faster than a new one is made."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from sqlalchemy import event

from kit.app import App
from kit.sqlite import SQLITE


def on_both_databases(test: Callable[..., None]) -> Any:
    """Run a test on both databases, whichever of them the others run on."""
    test = pytest.mark.usefixtures("settings")(test)
    return pytest.mark.parametrize("settings", ["sqlite", "postgresql"], indirect=True)(test)


@contextmanager
def counted_statements(app: App) -> Generator[list[str]]:
    """The statements that reach the database while it lasts."""
    engine, statements = app.state.database.engine, list[str]()

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    yield statements
    event.remove(engine, "before_cursor_execute", count)


class Restorable(Protocol):
    """A database of one app that runs on while its content is put back."""

    def save(self) -> Any:
        """What is in it now."""
        ...

    def restore(self, saved: Any) -> None:
        """Put back what was in it; fails where a transaction was left open."""
        ...

    def close(self) -> None:
        """Close the connection that saves and restores."""
        ...


class SqliteFile:
    """A SQLite file: what is saved is in memory, and written over the file in one transaction."""

    def __init__(self, path: Path) -> None:
        self.file: Any = SQLITE.connect(path, isolation_level=None, timeout=2)  # Any: two modules can be the driver
        self.file.execute("PRAGMA synchronous=OFF")

    def save(self) -> Any:
        saved = SQLITE.connect(":memory:")
        self.file.backup(saved)
        return saved

    def restore(self, saved: Any) -> None:
        # Python would wait for ever for a lock that is not given back; this raises.
        self.file.execute("BEGIN IMMEDIATE")
        self.file.execute("ROLLBACK")
        saved.backup(self.file)

    def close(self) -> None:
        self.file.close()


class PostgresDatabase:
    """A database on PostgreSQL: what is saved are the rows of its tables, and where its sequences stand."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url)
        self.connection.execute("SET lock_timeout = '2s'")
        self.connection.execute("SET session_replication_role = replica")  # foreign keys are not checked meanwhile
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        self.tables = [f'"{name}"' for (name,) in self.connection.execute(tables).fetchall()]
        sequences = self.connection.execute("SELECT sequencename FROM pg_sequences").fetchall()
        self.sequences = [f'"{name}"' for (name,) in sequences]
        self.connection.commit()

    def save(self) -> tuple[dict[str, bytes], bytes]:
        rows = {table: self._rows(table) for table in self.tables}
        places: list[str] = []
        for sequence in self.sequences:
            statement = f"SELECT last_value, is_called FROM {sequence}"  # noqa: S608 - a name from the database
            place = self.connection.execute(statement.encode()).fetchone()
            assert place
            places.append(f"setval('{sequence}', {place[0]}, {place[1]})")
        self.connection.commit()
        return {table: row for table, row in rows.items() if row}, f"SELECT {', '.join(places)}".encode()

    def restore(self, saved: tuple[dict[str, bytes], bytes]) -> None:
        rows, places = saved
        deletions = [f"DELETE FROM {table}" for table in self.tables]  # noqa: S608 - names from the database
        self.connection.execute(";".join(deletions).encode())
        with self.connection.cursor() as cursor:
            for table, content in rows.items():
                with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                    copy.write(content)
        self.connection.execute(places)
        self.connection.commit()

    def close(self) -> None:
        self.connection.close()

    def _rows(self, table: str) -> bytes:
        with self.connection.cursor() as cursor, cursor.copy(f"COPY {table} TO STDOUT".encode()) as copy:
            return b"".join(bytes(part) for part in copy)
