"""The command line: `uv run manage.py --help`. It obeys the same settings as the app."""

from secrets import token_urlsafe
from typing import Annotated

import typer
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError

from auth import create_admin
from kit import schema
from kit.auth import hash_password
from kit.db import ending
from kit.manage import asked_password, command_line, fail, opened_database, require_migrated
from kit.problems import Invalid
from models import User
from sample import add_company
from settings import NAME, Settings, get_settings

app = command_line(Settings, NAME)


@app.command("create-admin")
def make_admin(
    email: Annotated[str, typer.Argument(help="What the admin signs in with.")],
    name: Annotated[str, typer.Option(help="The full name.")] = "Admin",
) -> None:
    """Make an account for an admin; the password is asked for, or read as one line from standard input."""
    with opened_database(settings := get_settings()) as database:
        require_migrated(database)
        try:
            admin = create_admin(database, settings, email, asked_password(), name)
        except ValidationError as error:
            faults = Invalid(error.errors()).errors
            fail(" ".join(f"{fault['loc'][0]}: {fault['msg'].rstrip('.')}." for fault in faults))
        except IntegrityError:
            fail(f"Another account has the e-mail address {email}.")
    typer.echo(f"{admin.email} is an admin now.")


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
    with opened_database(settings := get_settings()) as database:
        if settings.migrate_on_start:
            schema.upgrade(database)
        require_migrated(database)
        password_hash = hash_password(password, settings.bcrypt_rounds)
        # One transaction: whoever stops it, or loses power, has the database as it was.
        with ending(database.write()) as session:
            if not force and User.anybody(session):
                fail("The database has users already; use --force to add to them.")
            joined, placed = add_company(session, password, password_hash, items=items, orders=orders)
    typer.echo(f"Added {len(joined)} people, {items} items and {placed} orders.")
    if joined:
        typer.echo(f"All of them have the password {password}. Sign in as an admin or as a member, such as:")
        for person in joined[:4]:
            typer.echo(f"  {person.email} ({person.full_name}, {person.role})")


if __name__ == "__main__":
    app()
