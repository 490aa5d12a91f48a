"""The database: what can be done with it, and the two session dependencies."""

import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from functools import lru_cache
from time import sleep
from typing import Annotated, Any, ClassVar, TypeVar

from fastapi import Depends, Request
from loguru import logger
from sqlalchemy import Connection, Engine, ExceptionContext, bindparam, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import ORMExecuteState
from sqlmodel import Session, SQLModel, select
from sqlmodel.sql.expression import SelectOfScalar
from starlette.concurrency import run_in_threadpool

from kit.executor import Executor
from kit.problems import NotFound, Problem
from kit.processes import Presence
from kit.settings import KitSettings
from kit.sqlite import (
    RETRY_INTERVAL,
    SQLITE,
    has_wal_reset_fault,
    require_transaction,
    sqlite_engine,
)

Row = TypeVar("Row")
Result = TypeVar("Result")
Model = TypeVar("Model", bound=SQLModel)
AnySession = TypeVar("AnySession", bound=Session)

MAX_TRIES = 3
TAKEN_BACK = ("40001", "40P01")  # serialization failure, deadlock
# What a SQLite transaction is by itself: one moment of the database, for all statements of a request.
POSTGRES_READER = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


@lru_cache
def _by_id(entity: type[Any], *, lock: bool) -> SelectOfScalar[Any]:
    return _locked(select(entity), entity, lock=lock).where(entity.id == bindparam("id"))


def _locked(rows: SelectOfScalar[Row], entity: type[Any], *, lock: bool) -> SelectOfScalar[Row]:
    if not lock:
        return rows
    # NO KEY UPDATE: whoever writes a row that only refers to this one need not wait. What another transaction changed
    # while this one waited is read anew, although an object of the row may be there already.
    return rows.with_for_update(key_share=True, of=entity).execution_options(populate_existing=True)


class FindingSession(Session):
    """A session that says of which entity a row is missing."""

    locks: ClassVar[bool] = False

    def get_one(  # pyright: ignore[reportIncompatibleMethodOverride] - an alias of a class is no table here
        self, entity: type[Row], ident: Any, *, among: SelectOfScalar[Row] | None = None, **options: Any
    ) -> Row:
        """The row of `entity` with this id, if it is `among` those that a statement chooses.

        Raises:
            NotFound: there is none; the problem names the entity and the id.
        """
        if options or not hasattr(entity, "id"):
            return super().get_one(entity, ident, **options)
        if among is None:
            found = self.exec(_by_id(entity, lock=self.locks), params={"id": ident})
        else:
            ids: Any = getattr(entity, "id")  # noqa: B009 - looked for above
            found = self.exec(_locked(among.where(ids == ident), entity, lock=self.locks))
        row = found.one_or_none()
        if row is None:
            name: Callable[[], str] = getattr(entity, "entity_name")  # noqa: B009 - every table of kit.models has it
            raise NotFound(name(), ident)
        return row


class ReadOnlySession(FindingSession):
    """A session that refuses to write: a change made in it would be lost without a word."""


class TransactionSession(FindingSession):
    """A session whose transaction takes the write lock at its first statement.

    On PostgreSQL, where many write at once, `get_one` locks the row until the transaction ends.
    """

    locks = True

    def insert(self, row: Row) -> Row:
        """Add a row and write it, so that it has its id; returns it."""
        self.add(row)
        self.flush()
        return row

    def change(self, row: Model, values: dict[str, Any]) -> Model:
        """Change a row and write it; returns it."""
        row.sqlmodel_update(values)
        self.flush()
        return row


@event.listens_for(ReadOnlySession, "before_flush")
def _refuse_flush(session: Session, _context: object, _instances: object) -> None:
    raise RuntimeError("A ReadSession never writes; declare a WriteSession.")


@event.listens_for(ReadOnlySession, "do_orm_execute")
def _refuse_statement(statement: ORMExecuteState) -> None:
    if statement.is_insert or statement.is_update or statement.is_delete:
        raise RuntimeError("A ReadSession never writes; declare a WriteSession.")


class SharedTransaction(threading.local):
    """The connection whose transaction the sessions of this thread share."""

    connection: Connection | None = None


class Database:
    """The engine of one app and what it can do. Opening it does no I/O."""

    def __init__(self, settings: KitSettings) -> None:
        self.settings = settings
        # One writer, because SQLite has one; readers beyond a few only fight for the interpreter lock. On PostgreSQL
        # the work is done elsewhere.
        readers, writers = (2, 1) if settings.on_sqlite else (8, 8)
        # A request holds one connection at a time: as a caller being identified, a reader, a writer or a sign-in.
        pool_size = 2 * readers + writers + 4
        self.engine = (sqlite_engine if settings.on_sqlite else _postgres_engine)(settings, pool_size)
        self._reader = self.engine if settings.on_sqlite else self.engine.execution_options(**POSTGRES_READER)
        self._writer = self.engine.execution_options(immediate=True)
        self.readers = Executor(readers)
        self.writers = Executor(writers, self.one_transaction if settings.on_sqlite else None)
        self.shared = SharedTransaction()
        self.presence = Presence(settings.sqlite_path.with_name(f"{settings.sqlite_path.name}-lock"))
        if settings.on_sqlite:
            event.listen(self.engine, "first_connect", lambda *_: self.presence.enter())

    def read(self) -> ReadOnlySession:
        """A session that sees one moment of the database and never writes."""
        return ReadOnlySession(self._reader, expire_on_commit=False, autoflush=False)

    def write(self) -> TransactionSession:
        """A session that holds the write lock from its first statement; end it with `ending`."""
        bind = self.shared.connection or self._writer
        return TransactionSession(bind, expire_on_commit=False, join_transaction_mode="create_savepoint")

    @contextmanager
    def one_transaction(self) -> Generator[None]:
        """Let the writing sessions of this thread share one transaction, in which each is a savepoint.

        What waits for the one write lock is committed together, so the disk syncs once for all of it ("group commit").
        A session that fails takes only its own changes back; a commit that fails takes all of them back.
        """
        if self.presence.has_others():
            sleep(2 * RETRY_INTERVAL)  # one of them may wait for the lock that we gave back just now
        with self._writer.begin() as connection:
            self.shared.connection = connection
            try:
                yield
            finally:
                self.shared.connection = None
            require_transaction(connection)

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
        if has_wal_reset_fault(version) and self.presence.has_others() and self.settings.environment == "production":
            logger.warning(
                "SQLite {} may corrupt its WAL when several processes write; install pysqlite3, or run one process",
                SQLITE.sqlite_version,
            )

    def close(self) -> None:
        """Give back every connection; the last one to leave a SQLite file also empties its WAL."""
        self.engine.dispose()
        self.presence.leave()


# The two sessions. A route of `kit.routing.Router` opens them in its own thread; where FastAPI resolves them (in routes
# of its own `APIRouter`, in dependencies, and where a test overrides them) it runs these two. Opening a session does no
# I/O; ending it does, in a thread. A request waits for its turn without holding a thread or a connection.


async def read_session(request: Request) -> AsyncGenerator[ReadOnlySession]:
    """Give a reading session."""
    database: Database = request.app.state.database
    async with database.readers.limiter:
        session = database.read()
        try:
            yield session
        finally:
            await run_in_threadpool(session.close)


async def write_session(request: Request) -> AsyncGenerator[TransactionSession]:
    """Give the writing session, committed before the response is sent and rolled back on any error."""
    database: Database = request.app.state.database
    async with database.writers.limiter:
        session = database.write()
        try:
            yield session
            await run_in_threadpool(session.commit)
        finally:
            await run_in_threadpool(session.close)


# scope="function": the exit code runs before the response is sent, so a commit that fails is never answered 201.
ReadSession = Annotated[ReadOnlySession, Depends(read_session, scope="function")]
WriteSession = Annotated[TransactionSession, Depends(write_session, scope="function")]


@contextmanager
def ending(session: AnySession) -> Generator[AnySession]:
    """End `session` in this thread: the one owner of its commit, be it a transaction or a savepoint of a shared one.

    A problem that keeps its changes commits, too; every other exception rolls back.
    """
    with session:
        try:
            yield session
        except Problem as problem:
            if problem.keeps_changes:
                session.commit()
            raise
        session.commit()  # a read, too: psycopg forgets its prepared statements at a rollback


def retried(work: Callable[[], Result], again: Callable[[], None]) -> Result:
    """Do a whole transaction, and once more where PostgreSQL took it back because of others, at most three times.

    Locks are taken in one order everywhere, so this is rare. `again` is called before each repetition. A connection
    that broke is a reason, too, unless it broke while the transaction was committed: then it may have been.
    """
    for _ in range(MAX_TRIES - 1):
        try:
            return work()
        except DBAPIError as error:
            broke = error.connection_invalidated and error.statement is not None
            if not broke and getattr(error.orig, "sqlstate", None) not in TAKEN_BACK:
                raise
            logger.info("A transaction is done again: {}", type(error.orig).__name__)
            again()
    return work()


def lock_table(session: Session, table: str) -> None:
    """Keep every other writer out of a table until this transaction ends; on SQLite they are out already.

    EXCLUSIVE, because whoever reads a row to change it only has a lock that weaker modes let pass.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.connection().exec_driver_sql(f'LOCK TABLE "{table}" IN EXCLUSIVE MODE')


def _postgres_engine(settings: KitSettings, pool_size: int) -> Engine:
    options = {
        "timezone": "UTC",  # a day begins at midnight UTC, wherever the server stands
        "lock_timeout": "5s",  # as on SQLite
        "statement_timeout": f"{settings.statement_seconds}s",
        "idle_in_transaction_session_timeout": "60s",
    }
    engine = create_engine(
        make_url(settings.database_url).set(drivername="postgresql+psycopg"),
        connect_args={
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            "connect_timeout": 5,
        },
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_use_lifo=True,
        hide_parameters=True,  # an error that reaches the log must not have e-mails and hashes in it
    )
    event.listen(engine, "handle_error", _leave_what_is_no_primary)
    return engine


def _leave_what_is_no_primary(context: ExceptionContext) -> None:
    # A primary that was demoted stays connected, and refuses every write: READ ONLY SQL TRANSACTION.
    if getattr(context.original_exception, "sqlstate", None) == "25006":
        context.is_disconnect = True
