"""Databases whose content can be saved, and put back faster than a new one is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from kit.sqlite import SQLITE


def on_both_databases(test: Callable[..., None]) -> Any:
    """Run a test on both databases, whichever of them the others run on."""
    test = pytest.mark.usefixtures("settings")(test)
    return pytest.mark.parametrize("settings", ["sqlite", "postgresql"], indirect=True)(test)


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
