"""What Alembic runs: the migrations, on the connection that the app gives it or on one of its own."""

from typing import Literal

from alembic import context
from sqlalchemy import Connection

import models
from kit import schema
from kit.db import Database
from settings import load_settings


def migrate(connection: Connection) -> None:
    """Run the migrations that are due; batch mode, because SQLite changes tables by rebuilding them."""
    context.configure(
        connection=connection,
        target_metadata=models.SQLModel.metadata,
        render_as_batch=True,
        render_item=plain_type,
        include_object=schema.comparable,
    )
    with context.begin_transaction():
        context.run_migrations()


PLAIN_TYPES: dict[type, str] = {
    models.BigInt: "sa.BigInteger().with_variant(sa.Integer(), 'sqlite')",
    models.CodePointText: "sa.String().with_variant(sa.String(collation='C'), 'postgresql')",
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
    with Database(load_settings()).engine.connect() as connection:
        migrate(connection)
