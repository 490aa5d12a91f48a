"""The database: engine, pragmas, and the two session dependencies."""

import importlib
import multiprocessing
import sqlite3
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from functools import partial
from itertools import count
from time import monotonic, sleep
from types import ModuleType
from typing import Annotated, Any

from fastapi import Depends, Request
from loguru import logger
from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.orm import ORMExecuteState
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from lanes import Lane
from problems import Problem
from settings import Settings, get_settings


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

# One writer, because SQLite has one; readers beyond a few only fight for the interpreter lock.
# On PostgreSQL both follow the pool.
READERS = 2 if get_settings().on_sqlite else 8
WRITERS = 1 if get_settings().on_sqlite else 8
# A request holds one connection at a time: as a caller being identified, a reader, a writer or a sign-in.
POOL_SIZE = 2 * READERS + WRITERS + 4

# What a SQLite transaction is by itself: one moment of the database, for all statements of a request.
POSTGRES_READER = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

ONE_OF_SEVERAL = multiprocessing.parent_process() is not None  # one of uvicorn's workers, or the one of a reloader
BUSY_SECONDS = 5
BUSY_TIMEOUT = f"busy_timeout={1000 * BUSY_SECONDS}"
BETWEEN_TRIES = 0.001  # seconds
IN_A_ROW = 32  # transactions
WRITES = count(1)

SQLITE_PRAGMAS = (
    BUSY_TIMEOUT,  # first: the other pragmas may have to wait for a lock, too
    "journal_mode=WAL",  # readers go on while the writer writes
    "foreign_keys=ON",  # off by default, for the sake of databases older than 2009
    "trusted_schema=OFF",  # a crafted file must not run functions from its schema
    "cache_size=-16000",  # 16 MB of pages; the default of 2 MB re-reads the inner pages of large indexes
    "mmap_size=0",  # an I/O error must be an error code, not a SIGBUS that ends the process
    "journal_size_limit=67108864",  # the WAL shrinks to 64 MiB again after one large transaction
)


class ReadOnlySession(Session):
    """A session that refuses to write: a change made in it would be lost without a word."""


class TransactionSession(Session):
    """A session whose transaction takes the write lock at its first statement."""


@event.listens_for(ReadOnlySession, "before_flush")
def _refuse_flush(session: Session, _context: object, _instances: object) -> None:
    raise RuntimeError("A ReadSession never writes; declare a WriteSession.")


@event.listens_for(ReadOnlySession, "do_orm_execute")
def _refuse_statement(statement: ORMExecuteState) -> None:
    if statement.is_insert or statement.is_update or statement.is_delete:
        raise RuntimeError("A ReadSession never writes; declare a WriteSession.")


class Database:
    """The engine of one app and what it can do. Opening it does no I/O."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = _sqlite_engine(settings) if settings.on_sqlite else _postgres_engine(settings)
        self._reader = self.engine if settings.on_sqlite else self.engine.execution_options(**POSTGRES_READER)
        self._writer = self.engine.execution_options(immediate=True)
        self.readers = Lane(READERS)
        self.writers = Lane(WRITERS)

    def read(self) -> Session:
        """A session that sees one moment of the database and never writes."""
        return ReadOnlySession(self._reader, expire_on_commit=False, autoflush=False)

    def write(self) -> Session:
        """A session that holds the write lock from its first statement; end it with `ending`."""
        return TransactionSession(self._writer, expire_on_commit=False)

    def log_version(self) -> None:
        """Say which database library runs, and warn where it has a fault that this process can meet.

        SQLite 3.7.0 to 3.51.2 may corrupt a WAL that several processes write and checkpoint at once
        (https://sqlite.org/wal.html#walresetbug); 3.50.7 and 3.44.6 have the correction, too.
        """
        if not self.settings.on_sqlite:
            logger.info("Database: PostgreSQL")
            return
        version: tuple[int, int, int] = SQLITE.sqlite_version_info
        logger.info("Database: SQLite {} ({})", SQLITE.sqlite_version, SQLITE.__name__.split(".")[0])
        if has_wal_reset_fault(version) and ONE_OF_SEVERAL and self.settings.environment == "production":
            logger.warning(
                "SQLite {} may corrupt its WAL when several workers write; install pysqlite3, or run one worker",
                SQLITE.sqlite_version,
            )

    def close(self) -> None:
        """Give back every connection; the last one to leave a SQLite file also empties its WAL."""
        self.engine.dispose()


def has_wal_reset_fault(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite has the fault that `Database.log_version` warns of."""
    mended = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    return version >= (3, 7, 0) and not mended


# What a route of `routing.Router` asks for; that opens the session in the route's own thread. A route of FastAPI's own
# `APIRouter` runs these two. Opening a session does no I/O; ending it does, in a thread.


async def read_session(request: Request) -> AsyncGenerator[Session]:
    """Give a reading session."""
    database: Database = request.app.state.database
    session = database.read()
    try:
        yield session
    finally:
        await run_in_threadpool(session.close)


async def write_session(request: Request) -> AsyncGenerator[Session]:
    """Give the writing session, committed before the response is sent and rolled back on any error."""
    database: Database = request.app.state.database
    session = database.write()
    try:
        yield session
        await run_in_threadpool(session.commit)
    finally:
        await run_in_threadpool(session.close)


# scope="function": the exit code runs before the response is sent, so a commit that fails is never answered 201.
# max_concurrency: here, too, requests wait without holding a thread.
ReadSession = Annotated[Session, Depends(read_session, scope="function", max_concurrency=READERS)]
WriteSession = Annotated[Session, Depends(write_session, scope="function", max_concurrency=WRITERS)]


@contextmanager
def ending(session: Session) -> Generator[Session]:
    """End `session` in this thread: the one owner of the commit.

    A problem that keeps its changes commits, too; every other exception rolls back.
    """
    with session:
        try:
            yield session
        except Problem as problem:
            if problem.keeps_changes:
                session.commit()
            raise
        if isinstance(session, TransactionSession):
            session.commit()
        else:
            session.flush()  # refuses what would be lost without a word


def lock_table(session: Session, table: str) -> None:
    """Keep every other writer out of a table until this transaction ends; on SQLite they are out already."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection().exec_driver_sql(f'LOCK TABLE "{table}" IN SHARE ROW EXCLUSIVE MODE')


def _postgres_engine(settings: Settings) -> Engine:
    return create_engine(
        make_url(settings.database_url).set(drivername="postgresql+psycopg"),
        connect_args={"options": "-c timezone=UTC"},  # a day begins at midnight UTC, wherever the server stands
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
    )


def _sqlite_engine(settings: Settings) -> Engine:
    # mode=rw: a connection never creates the file; a database that vanished is an error, not an empty one.
    engine = create_engine(
        URL.create("sqlite", database=settings.sqlite_uri, query={"mode": "rw", "uri": "true"}),
        module=SQLITE,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=5,
        pool_use_lifo=True,  # a few connections stay hot, with their caches
    )
    event.listen(engine, "connect", partial(_prepare_sqlite_connection, settings.sqlite_synchronous))
    event.listen(engine, "begin", _begin_sqlite_transaction)
    event.listen(engine, "reset", _end_sqlite_transaction)
    event.listen(engine, "handle_error", _reopen_sqlite_that_could_only_be_read)
    return engine


def _prepare_sqlite_connection(synchronous: str, connection: Any, _entry: ConnectionPoolEntry) -> None:
    # The driver's own transactions begin late and deferred, which loses updates; ours begin in the event below.
    connection.isolation_level = None
    # synchronous=FULL: an acknowledged write survives a power cut; NORMAL is faster and loses the last ones.
    for pragma in (*SQLITE_PRAGMAS, f"synchronous={synchronous}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite_transaction(connection: Connection) -> None:
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
    So we ask every millisecond, and one of several workers stands back after so many transactions.
    """
    if ONE_OF_SEVERAL and next(WRITES) % IN_A_ROW == 0:
        sleep(2 * BETWEEN_TRIES)
    give_up_at = monotonic() + seconds
    connection.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                return connection.execute("BEGIN IMMEDIATE")
            except SQLITE.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != SQLITE.SQLITE_BUSY or monotonic() > give_up_at:
                    raise
            sleep(BETWEEN_TRIES)
    finally:
        connection.execute(f"PRAGMA {BUSY_TIMEOUT}")


def _end_sqlite_transaction(connection: Any, _entry: ConnectionPoolEntry, _state: PoolResetState) -> None:
    # SQLAlchemy takes a transaction for ended when its COMMIT fails. In SQLite it is still open then, and would
    # keep the write lock in the pool for ever.
    if connection.in_transaction:
        connection.rollback()


def _reopen_sqlite_that_could_only_be_read(context: ExceptionContext) -> None:
    # A connection that was opened while the file was read-only stays so, even when the file is writable again.
    if getattr(context.original_exception, "sqlite_errorcode", 0) & 0xFF == SQLITE.SQLITE_READONLY:
        context.is_disconnect = True
