"""The commands that every app has, and what all commands need: a database, a sentence for each fault."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from kit import schema
from kit.db import Database, ending
from kit.errors import database_problem
from kit.outbox import OutboxEntry
from kit.problems import DatabaseUnavailable
from kit.settings import KitSettings, StartRefused, load_settings
from kit.sqlite import SQLITE

NOTHING_NEW = "The models and the database agree; nothing was written."


def command_line(kind: type[KitSettings], name: str) -> typer.Typer:
    """The commands of the kit, to which an app adds its own; they obey the settings of this kind."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, help=f"Look after a {name} database.")

    @app.command()
    def migrate() -> None:
        """Bring the database to this version's schema; make it where there is none."""
        with opened_database(load_settings(kind)) as database:
            try:
                schema.require_current(database)
                typer.echo("The database has this version's schema already; nothing was changed.")
            except DatabaseUnavailable:
                schema.upgrade(database)
                typer.echo("The database was migrated and has this version's schema now.")

    @app.command()
    def downgrade(revision: str) -> None:
        """Take the schema back to an older revision, or with -1 by one; `base` takes everything away."""
        with opened_database(load_settings(kind)) as database:
            schema.downgrade(database, revision)
        typer.echo("The schema was taken back; the app migrates again when it starts.")

    @app.command()
    def revision(message: str) -> None:
        """Write a migration: what the models have and the database has not. Read it before you commit it."""
        with opened_database(load_settings(kind)) as database:
            require_migrated(database)
            file = schema.new_revision(database, message)
        typer.echo(f"{file} was written; read it before you commit it." if file else NOTHING_NEW)

    @app.command()
    def outbox(
        retry: Annotated[bool, typer.Option("--retry", help="Try again what was given up.")] = False,
    ) -> None:
        """List what waits in the outbox, such as mail, and what was given up."""
        with opened_database(load_settings(kind)) as database:
            require_migrated(database)
            with ending(database.write() if retry else database.read()) as session:
                entries = OutboxEntry.undone(session)
                for entry in entries if retry else ():
                    entry.retry()
                typer.echo("\n".join(map(str, entries)) or "Nothing waits in the outbox, and nothing was given up.")

    return app


@contextmanager
def opened_database(settings: KitSettings) -> Generator[Database]:
    """The database of these settings; a fault of it is said in one sentence, with exit code 1."""
    database = Database(settings)
    try:
        yield database
    except StartRefused as refusal:
        fail(str(refusal))
    except (DBAPIError, SQLITE.Error) as error:
        problem = database_problem(error)
        if problem is None:
            raise
        fail(problem.detail)
    finally:
        database.close()


def require_migrated(database: Database) -> None:
    """End with a sentence unless the database can be read and has this version's schema."""
    try:
        schema.require_current(database)
    except DatabaseUnavailable:
        fail("The database cannot be read or is not at this version's schema; run 'uv run manage.py migrate' first.")


def asked_password() -> str:
    """The password that somebody types twice, unseen, or the first line of standard input."""
    if sys.stdin.isatty():
        return typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return sys.stdin.readline().rstrip("\r\n")


def fail(sentence: str) -> NoReturn:
    """End the command with a sentence on standard error and exit code 1."""
    typer.echo(f"Error: {sentence}", err=True)
    raise typer.Exit(1)
