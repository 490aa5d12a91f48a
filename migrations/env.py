"""What Alembic runs: the migrations, on the connection of `kit.schema`, also where Alembic's own command starts it."""

from importlib import import_module
from typing import Literal

from alembic import context
from sqlalchemy import Connection

from kit import schema
from kit.db import Database
from kit.models import BigInt, CodePointText, Table
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


PLAIN_TYPES: dict[type, str] = {
    BigInt: "sa.BigInteger().with_variant(sa.Integer(), 'sqlite')",
    CodePointText: "sa.String().with_variant(sa.String(collation='C'), 'postgresql')",
}


def plain_type(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write our own types as SQLAlchemy's: a migration must stay what it was when the models move on."""
    wrapped = getattr(item, "impl_instance", None)  # only a TypeDecorator has one
    if kind != "type" or wrapped is None:
        return False
    return PLAIN_TYPES.get(type(item), f"sa.{wrapped!r}")


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with schema.migrating(Database(get_settings())) as connection:
        migrate(connection)
