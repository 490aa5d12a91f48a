"""The command line: `uv run manage.py --help`. It obeys the same settings as the app."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from secrets import token_urlsafe
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import select

from company import add_company
from kit import schema
from kit.db import Database, ending
from kit.errors import database_problem
from kit.problems import DatabaseUnavailable, Invalid
from kit.sqlite import SQLITE
from models import User
from passwords import create_admin, hash_password
from settings import StartRefused, load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look after a Stockroom database.")


@app.command("create-admin")
def make_admin(
    email: Annotated[str, typer.Argument(help="What the admin signs in with.")],
    name: Annotated[str, typer.Option(help="The full name.")] = "Admin",
) -> None:
    """Make an account for an admin; the password is asked for, or read as one line from standard input."""
    with opened_database() as database:
        require_migrated(database)
        try:
            admin = create_admin(database, email, asked_password(), name)
        except ValidationError as error:
            faults = Invalid(error.errors()).errors
            fail(" ".join(f"{fault['loc'][0]}: {fault['msg'].rstrip('.')}." for fault in faults))
        except IntegrityError:
            fail(f"Another account has the e-mail address {email}.")
    typer.echo(f"{admin.email} is an admin now.")


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema; make it where there is none."""
    with opened_database() as database:
        try:
            schema.require_current(database)
            typer.echo("The database has this version's schema already; nothing was changed.")
        except DatabaseUnavailable:
            schema.upgrade(database)
            typer.echo("The database was migrated and has this version's schema now.")


@app.command()
def seed(
    items: Annotated[int, typer.Option(min=0, max=1_000_000, help="How many items to add.")] = 200,
    orders: Annotated[int, typer.Option(min=0, max=1_000_000, help="How many orders of them to add.")] = 400,
    force: Annotated[bool, typer.Option("--force", help="Add to a database that has users already.")] = False,
) -> None:
    """Fill the database with a believable small company: 12 people, their stock, and a year of orders and posts.

    The data is the same every time, but for the password, which is made up and shown at the end.
    """
    password = token_urlsafe(12)
    with opened_database() as database:
        if database.settings.migrate_on_start:
            schema.upgrade(database)
        require_migrated(database)
        password_hash = hash_password(password, database.settings.bcrypt_rounds)
        # One transaction: whoever stops it, or loses power, has the database as it was.
        with ending(database.write()) as session:
            if not force and session.exec(select(User.id).limit(1)).first() is not None:
                fail("The database has users already; use --force to add to them.")
            joined, placed = add_company(session, password, password_hash, items=items, orders=orders)
    typer.echo(f"Added {len(joined)} people, {items} items and {placed} orders.")
    if joined:
        typer.echo(f"Sign in as {joined[0].email} ({joined[0].role}) or any of the others; their password: {password}")


@contextmanager
def opened_database() -> Generator[Database]:
    """The database that the settings name; a fault of it is said in one sentence, with exit code 1."""
    database = Database(load_settings())
    try:
        yield database
    except StartRefused as refusal:
        fail(str(refusal))
    except (DBAPIError, SQLITE.Error) as error:
        problem = database_problem(error.orig if isinstance(error, DBAPIError) else error)
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


if __name__ == "__main__":
    app()
