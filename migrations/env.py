"""What Alembic runs: the migrations, on the connection that the app gives it or on one of its own."""

from alembic import context
from sqlalchemy import Connection

import models
from db import Database
from settings import load_settings


def migrate(connection: Connection) -> None:
    """Run the migrations that are due; batch mode, because SQLite changes tables by rebuilding them."""
    context.configure(connection=connection, target_metadata=models.SQLModel.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with Database(load_settings()).engine.connect() as connection:
        migrate(connection)
