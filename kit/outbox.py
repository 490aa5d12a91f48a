"""The outbox: what is to be done outside the database, written in the transaction of its cause and done afterwards.

Each entry is done at least once, by the worker that claims it first: a claim ends by itself after a while, so what a
process did not finish before it ended is done by another, or at the next start. An entry holds no secret.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from anyio import to_thread
from loguru import logger
from sqlalchemy import JSON, ColumnElement, Index, event
from sqlmodel import Field, Session, col, select

from kit.db import Database, TransactionSession, ending
from kit.models import Entity, now

Handler = Callable[[dict[str, Any]], None]

LEASE = timedelta(minutes=2)  # longer than any handler takes
PAUSES = [timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 3_600, 14_400, 43_200)]
POLL_SECONDS = 10.0
MINUTE = "%Y-%m-%d %H:%M"
AT_ONCE = 2  # a slow mail server must not take threads from those who wait for an answer

_WROTE = object()


class OutboxEntry(Entity, table=True):
    """Something to be done: which handler does it, with what, and how it went."""

    __table_args__ = (Index("ix_outbox_entry_due_at", "done_at", "given_up_at", "due_at"),)

    kind: str
    payload: dict[str, Any] = Field(sa_type=JSON)
    attempts: int = 0
    error: str = ""
    created_at: datetime = Field(default_factory=now)
    due_at: datetime = Field(default_factory=now)
    done_at: datetime | None = None
    given_up_at: datetime | None = None

    @classmethod
    def put(cls, session: Session, kind: str, **payload: Any) -> None:
        """Have this done after the transaction of `session`, if that is committed."""
        session.add(cls(kind=kind, payload=payload))
        session.info[_WROTE] = True

    @classmethod
    def expired(cls) -> ColumnElement[bool]:
        """What was done a week ago."""
        return col(cls.done_at) < now() - timedelta(days=7)

    @classmethod
    def claim(cls, session: Session) -> "OutboxEntry | None":
        """The entry that is due for longest; for a while nobody else gets it."""
        due = select(cls).where(col(cls.done_at).is_(None), col(cls.given_up_at).is_(None), col(cls.due_at) <= now())
        first = due.order_by(col(cls.due_at), col(cls.id)).limit(1)
        entry = session.exec(first.with_for_update(skip_locked=True)).first()
        if entry is not None:
            entry.attempts += 1
            entry.due_at = now() + LEASE
        return entry

    @classmethod
    def undone(cls, session: Session) -> "Sequence[OutboxEntry]":
        """What waits and what was given up, the oldest first."""
        return session.exec(select(cls).where(col(cls.done_at).is_(None)).order_by(col(cls.id))).all()

    def __str__(self) -> str:
        """The entry in one line; it has no secret."""
        state = f"given up at {self.given_up_at:{MINUTE}}" if self.given_up_at else f"due at {self.due_at:{MINUTE}}"
        error = f": {self.error}" if self.error else ""
        return f"{self.id} {self.kind} {json.dumps(self.payload)}, {state} UTC, attempts: {self.attempts}{error}"

    def retry(self) -> None:
        """Have it done soon, and tried as often as a new entry, if it was given up."""
        if self.given_up_at is not None:
            self.given_up_at, self.attempts, self.due_at = None, 0, now()

    def settle(self, error: Exception | None) -> None:
        """Note how it went; what failed is due again after a pause that grows, or given up."""
        self.error = type(error).__name__ if error else ""
        if error is None:
            self.done_at = now()
        elif self.attempts <= len(PAUSES):
            self.due_at = now() + PAUSES[self.attempts - 1]
        else:
            self.given_up_at = now()


class Outbox:
    """Does what is in the outbox of one database, in the background."""

    def __init__(self, database: Database, handlers: Mapping[str, Handler]) -> None:
        self.database = database
        self.handlers = handlers
        self.wake = asyncio.Event()
        self.stopping = False
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; to be called on the event loop."""
        loop = asyncio.get_running_loop()

        def look_soon(session: Session) -> None:
            if session.info.get(_WROTE):
                loop.call_soon_threadsafe(self.wake.set)

        event.listen(TransactionSession, "after_commit", look_soon)
        self.forget = lambda: event.remove(TransactionSession, "after_commit", look_soon)
        self.tasks = [loop.create_task(self._work()) for _ in range(AT_ONCE)]

    async def stop(self) -> None:
        """End after what is being done."""
        self.forget()
        self.stopping = True
        self.wake.set()
        await asyncio.gather(*self.tasks)

    async def _work(self) -> None:
        while not self.stopping:
            self.wake.clear()
            try:
                while not self.stopping and await self.do_next():
                    pass
            except Exception as error:  # the boundary: whatever goes wrong, it looks again
                logger.warning("The outbox waits for its database: {}", type(error).__name__)
            with suppress(TimeoutError):  # what other processes wrote, and what is due again, is found then
                await asyncio.wait_for(self.wake.wait(), POLL_SECONDS)

    async def do_next(self) -> bool:
        """Do one entry that is due, in a thread; returns whether there was one."""
        entry = await self.database.writers.run(self._claim)
        if entry is None:
            return False
        failure: Exception | None = None
        try:
            await to_thread.run_sync(self.handlers[entry.kind], entry.payload)
        except Exception as error:  # the boundary: whatever a handler raises, its entry is tried again and not lost
            failure = error
            logger.warning("{} {} failed: {}", entry.kind, entry.id, type(error).__name__)
        await self.database.writers.run(partial(self._settle, entry.id, failure))
        return True

    def _claim(self) -> OutboxEntry | None:
        with ending(self.database.write()) as session:
            return OutboxEntry.claim(session)

    def _settle(self, entry_id: int, failure: Exception | None) -> None:
        with ending(self.database.write()) as session:
            entry = session.get_one(OutboxEntry, entry_id)
            entry.settle(failure)
            if entry.given_up_at is not None:
                logger.error("{} {} is given up after {} attempts", entry.kind, entry.id, entry.attempts)
