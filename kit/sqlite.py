"""SQLite: which copy of the library, how a connection is prepared, and how a transaction begins and ends."""

import importlib
import math
import sqlite3
import threading
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from types import ModuleType
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from kit.problems import DatabaseUnavailable
from kit.settings import KitSettings


def _current_sqlite() -> ModuleType:
    """The newest SQLite at hand: PyPI's `pysqlite3` where it is installed, else the standard library's.

    One of them per process: two copies of the library in one process drop each other's file locks
    (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    try:
        return importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        return sqlite3


SQLITE = _current_sqlite()

BUSY_SECONDS = 5
BUSY_TIMEOUT = f"busy_timeout={1000 * BUSY_SECONDS}"
RETRY_INTERVAL = 0.001  # seconds
WATCH_INTERVAL = 0.25  # seconds

SQLITE_PRAGMAS = (
    BUSY_TIMEOUT,  # first: the other pragmas may have to wait for a lock, too
    "journal_mode=WAL",  # readers go on while the writer writes
    "foreign_keys=ON",  # off by default, for the sake of databases older than 2009
    "trusted_schema=OFF",  # a crafted file must not run functions from its schema
    "cache_size=-16000",  # 16 MB of pages; the default of 2 MB re-reads the inner pages of large indexes
    "mmap_size=0",  # an I/O error must be an error code, not a SIGBUS that ends the process
    "journal_size_limit=67108864",  # the WAL shrinks to 64 MiB again after one large transaction
)


def has_wal_reset_fault(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite has the fault that `Database.log_version` warns of."""
    mended = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    return version >= (3, 7, 0) and not mended


def sqlite_engine(settings: KitSettings, pool_size: int) -> Engine:
    """Connections to the file of the settings; opens none yet."""
    # mode=rw: a connection never creates the file; a database that vanished is an error, not an empty one.
    engine = create_engine(
        URL.create("sqlite", database=settings.sqlite_uri, query={"mode": "rw", "uri": "true"}),
        module=SQLITE,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_use_lifo=True,  # a few connections stay hot, with their caches
        hide_parameters=True,  # an error that reaches the log must not have e-mails and hashes in it
    )
    # SQLAlchemy would compile each of these anew every time.
    engine.dialect.do_savepoint = partial(_in_transaction, "SAVEPOINT")
    engine.dialect.do_release_savepoint = partial(_in_transaction, "RELEASE")
    engine.dialect.do_rollback_to_savepoint = _roll_back_to
    event.listen(engine, "connect", partial(_prepare, settings.sqlite_synchronous))
    event.listen(engine, "begin", _begin)
    event.listen(engine, "reset", _end)
    event.listen(engine, "handle_error", _reopen_what_could_only_be_read)
    StatementLimit(settings.statement_seconds).listen(engine)
    return engine


class StatementLimit:
    """Interrupts statements that run for too long (https://sqlite.org/c3ref/interrupt.html).

    A thread looks at the deadlines. SQLite's own progress handler would take the interpreter lock again and again in
    the middle of every long statement, of those that are in time, too.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadlines: dict[Any, float] = {}  # by connection

    def listen(self, engine: Engine) -> None:
        """Watch over the connections of an engine, for as long as it has any."""
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "close", self._closed)
        event.listen(engine, "before_cursor_execute", self._begin)
        event.listen(engine, "reset", self._reset)

    def _connected(self, connection: Any, _entry: ConnectionPoolEntry) -> None:
        watching = bool(self.deadlines)
        self.deadlines[connection] = math.inf
        if not watching:
            threading.Thread(target=self._watch, name="statement limit", daemon=True).start()

    def _closed(self, connection: Any, _entry: ConnectionPoolEntry) -> None:
        self.deadlines.pop(connection, None)

    def _reset(self, connection: Any, *_: Any) -> None:
        self.deadlines[connection] = math.inf

    def _begin(self, connection: Connection, *_: Any) -> None:
        unlimited = "busy_seconds" in connection.get_execution_options()  # a migration takes the time that it takes
        limit = math.inf if unlimited else monotonic() + self.seconds
        self.deadlines[connection.connection.dbapi_connection] = limit

    def _watch(self) -> None:
        while self.deadlines:
            sleep(WATCH_INTERVAL)
            for connection, deadline in [*self.deadlines.items()]:
                if deadline < monotonic():
                    with suppress(SQLITE.ProgrammingError):  # it was closed just now
                        connection.interrupt()


def require_transaction(connection: Connection) -> None:
    """Make sure that SQLite did not end the transaction of a connection.

    A full or a broken disk may make it roll back by itself (https://sqlite.org/lang_transaction.html, 3). What came
    before is lost then, and what came after would be committed alone, because a SAVEPOINT begins a transaction, too.

    Raises:
        DatabaseUnavailable: it did, or the connection is gone.
    """
    driver_connection: Any = None if connection.invalidated else connection.connection.dbapi_connection
    if driver_connection is None or not driver_connection.in_transaction:
        raise DatabaseUnavailable


def _prepare(synchronous: str, connection: Any, _entry: ConnectionPoolEntry) -> None:
    # The driver's own transactions begin late and deferred, which loses updates; ours begin in the event below.
    connection.isolation_level = None
    # LIKE compares a text of n characters with a pattern of m in up to n times m steps; this one takes n.
    connection.create_function("contains_text", 2, _contains, deterministic=True)
    # synchronous=FULL: an acknowledged write survives a power cut; NORMAL is faster and loses the last ones.
    for pragma in (*SQLITE_PRAGMAS, f"synchronous={synchronous}"):
        # While another process opens or closes the journal, SQLite refuses at once, whatever its own time-out.
        _when_free(connection, f"PRAGMA {pragma}", BUSY_SECONDS)


def _contains(text: str | None, part: str) -> bool:
    return text is not None and part in text


def _begin(connection: Connection) -> None:
    # IMMEDIATE takes the write lock before the first read: a deferred transaction that turns from reading to
    # writing fails at once when another one wrote meanwhile, and busy_timeout does not help it.
    driver_connection: Any = connection.connection.dbapi_connection
    options = connection.get_execution_options()
    if options.get("immediate", False):
        _take_write_lock(driver_connection, options.get("busy_seconds", BUSY_SECONDS))
    else:
        driver_connection.execute("BEGIN")


def _take_write_lock(connection: Any, seconds: float) -> None:
    """Begin to write, when no other process does so any more.

    SQLite's own way to wait asks ever more rarely, at last ten times a second, while its owner writes on and on.
    So we ask every millisecond.
    """
    connection.execute("PRAGMA busy_timeout=0")
    try:
        _when_free(connection, "BEGIN IMMEDIATE", seconds)
    finally:
        connection.execute(f"PRAGMA {BUSY_TIMEOUT}")


def _when_free(connection: Any, statement: str, seconds: float) -> None:
    give_up_at = monotonic() + seconds
    while True:
        try:
            return connection.execute(statement)
        except SQLITE.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != SQLITE.SQLITE_BUSY or monotonic() > give_up_at:
                raise
        sleep(RETRY_INTERVAL)


def _in_transaction(verb: str, connection: Connection, name: str) -> None:
    require_transaction(connection)
    driver_connection: Any = connection.connection.dbapi_connection
    driver_connection.execute(f"{verb} {name}")


def _roll_back_to(connection: Connection, name: str) -> None:
    with suppress(DatabaseUnavailable):  # it is rolled back already, and the error that did it is what counts
        _in_transaction("ROLLBACK TO", connection, name)


def _end(connection: Any, _entry: ConnectionPoolEntry, _state: PoolResetState) -> None:
    # SQLAlchemy takes a transaction for ended when its COMMIT fails. In SQLite it is still open then, and would
    # keep the write lock in the pool for ever.
    if connection.in_transaction:
        connection.rollback()


def _reopen_what_could_only_be_read(context: ExceptionContext) -> None:
    # A connection that was opened while the file was read-only stays so, even when the file is writable again.
    if getattr(context.original_exception, "sqlite_errorcode", 0) & 0xFF == SQLITE.SQLITE_READONLY:
        context.is_disconnect = True
