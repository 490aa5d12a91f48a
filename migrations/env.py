"""What Alembic runs: the migrations, on the connection of `kit.schema`, also where Alembic's own command starts it."""

from importlib import import_module
from typing import Literal

from alembic import context
from sqlalchemy import Connection

from kit import schema
from kit.db import Database
from kit.models import Table
from settings import get_settings

import_module("app")  # it imports all nouns, whose tables are compared with the database


def migrate(connection: Connection) -> None:
    """Run the migrations that are due; batch mode, because SQLite changes tables by rebuilding them."""
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=True,
        render_item=plain_type,
        include_object=schema.comparable,
    )
    with context.begin_transaction():
        context.run_migrations()


def plain_type(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write our own types as SQLAlchemy's: a migration must stay what it was when the models move on."""
    wrapped = getattr(item, "impl_instance", None)  # only a TypeDecorator has one
    return f"sa.{wrapped!r}" if kind == "type" and wrapped is not None else False


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with schema.migrating(Database(get_settings())) as connection:
        migrate(connection)
