"""One timer for all that nobody needs any more: rows whose table says that they have expired."""

import asyncio
from functools import partial

from loguru import logger
from sqlalchemy import delete
from sqlalchemy import inspect as sa_inspect

from kit.audit import AuditEntry
from kit.db import Database, ending
from kit.models import Table

INTERVAL = 600.0  # seconds
LEFT = "Expired rows are left for the next time: {}"


async def clean_regularly(database: Database) -> None:
    """Delete what has expired, every ten minutes; it waits for its turn to write as a request does."""
    while True:
        await asyncio.sleep(INTERVAL)
        try:
            await database.writers.run(partial(clean, database))
        except Exception as error:  # the boundary: whatever goes wrong, it tries again
            logger.warning(LEFT, type(error).__name__)


def clean(database: Database) -> None:
    """Delete what has expired, each table in a transaction of its own; a busy database is for the next time."""
    tables: list[type[Table]] = [mapper.class_ for mapper in sa_inspect(AuditEntry).registry.mappers]
    conditions = {table: condition for table in tables if (condition := table.expired()) is not None}
    try:
        for table, condition in conditions.items():
            with ending(database.write()) as session:
                session.connection().execute(delete(table).where(condition))
    except Exception as error:  # a SQLite file that is locked raises an error of its driver
        logger.warning(LEFT, type(error).__name__)
