"""One timer for all that nobody needs any more: rows whose table says that they have expired."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

from loguru import logger
from sqlalchemy import delete
from sqlalchemy import inspect as sa_inspect

from kit.audit import AuditEntry
from kit.db import Database, ending
from kit.models import Table

INTERVAL = 600.0  # seconds


async def clean_regularly(database: Database) -> None:
    """Delete what has expired, every ten minutes; it waits for its turn to write as a request does."""
    while True:
        await asyncio.sleep(INTERVAL)
        with _left_for_the_next_time():
            await database.writers.run(partial(clean, database))


def clean(database: Database) -> None:
    """Delete what has expired, each table in a transaction of its own; a busy database is for the next time."""
    tables: list[type[Table]] = [mapper.class_ for mapper in sa_inspect(AuditEntry).registry.mappers]
    conditions = {table: condition for table in tables if (condition := table.expired()) is not None}
    with _left_for_the_next_time():
        for table, condition in conditions.items():
            with ending(database.write()) as session:
                session.connection().execute(delete(table).where(condition))


@contextmanager
def _left_for_the_next_time() -> Generator[None]:
    """The boundary: whatever goes wrong is only in the log."""
    try:
        yield
    except Exception as error:
        logger.warning("Expired rows are left for the next time: {}", type(error).__name__)
