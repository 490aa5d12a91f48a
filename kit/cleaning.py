"""One timer for all that nobody needs any more: rows whose table says that they have expired."""

import asyncio
from functools import partial

from loguru import logger
from sqlalchemy import delete
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.exc import SQLAlchemyError

from kit.audit import AuditEntry
from kit.db import Database, ending
from kit.models import Table

INTERVAL = 600.0  # seconds


async def clean_regularly(database: Database) -> None:
    """Delete what has expired, every ten minutes; it waits for its turn to write as a request does."""
    while True:
        await asyncio.sleep(INTERVAL)
        try:
            await database.writers.run(partial(clean, database))
        except SQLAlchemyError as error:
            logger.warning("Expired rows are left for the next time: {}", type(error).__name__)


def clean(database: Database) -> None:
    """Delete what has expired, each table in a transaction of its own."""
    tables: list[type[Table]] = [mapper.class_ for mapper in sa_inspect(AuditEntry).registry.mappers]
    for table in tables:
        condition = table.expired()
        if condition is not None:
            with ending(database.write()) as session:
                session.connection().execute(delete(table).where(condition))
