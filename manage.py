"""The command line: `uv run manage.py --help`. It obeys the same settings as the app."""

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count, islice, product
from random import Random
from secrets import token_urlsafe
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session, select

import schema
from db import SQLITE, Database, ending
from errors import database_problem
from models import Item, ItemCreate, User, UserCreate, folded, now
from passwords import create_admin, hash_password
from problems import DatabaseUnavailable, Invalid
from settings import StartRefused, load_settings

BATCH = 5_000
ADMIN = "ada@example.com"
PEOPLE = {
    "ada@example.com": "Ada Lindqvist",
    "max@example.com": "Max Adeyemi",
    "eva@example.com": "Eva Novák",
    "tom@example.com": "Tom Whitaker",
    "lea@example.com": "Lea Fischer",
    "raj@example.com": "Raj Malhotra",
    "zoe@example.com": "Zoë Martin",
    "ben@example.com": "Ben Okafor",
    "mia@example.com": "Mia Rossi",
    "jun@example.com": "Jun Tanaka",
    "ivy@example.com": "Ivy Caldwell",
    "sam@example.com": "Sam Haddad",
}
RANGES = {"Basic": 70, "Classic": 100, "Comfort": 150, "Studio": 180, "Pro": 220}  # per cent of the usual price
COLOURS = ("black", "white", "grey", "red", "blue", "green", "yellow", "beige", "silver", "navy")
KINDS = {  # what it is: its tag, and its usual price in cents
    "desk lamp": ("light", 3_900),
    "floor lamp": ("light", 8_900),
    "reading light": ("light", 2_400),
    "desk": ("furniture", 34_900),
    "office chair": ("furniture", 22_900),
    "bookshelf": ("furniture", 15_900),
    "drawer unit": ("furniture", 12_900),
    "coat stand": ("furniture", 5_900),
    "notebook": ("paper", 450),
    "letter tray": ("paper", 1_290),
    "ring binder": ("paper", 390),
    "envelope box": ("paper", 990),
    "ballpoint pen": ("writing", 190),
    "fountain pen": ("writing", 2_900),
    "marker set": ("writing", 890),
    "whiteboard": ("meeting", 7_900),
    "flip chart": ("meeting", 6_900),
    "monitor arm": ("computer", 8_400),
    "keyboard": ("computer", 5_900),
    "laptop sleeve": ("computer", 2_700),
    "coffee mug": ("kitchen", 790),
    "water jug": ("kitchen", 1_490),
    "storage box": ("storage", 1_190),
    "parcel scale": ("storage", 4_900),
}

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
    force: Annotated[bool, typer.Option("--force", help="Add to a database that has users already.")] = False,
) -> None:
    """Fill the database with a believable small company: 12 people and their stock.

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
            joined = add_people(session, password, password_hash)
            add_items(session, items)
    typer.echo(f"Added {len(joined)} people and {items} items.")
    if joined:
        typer.echo(f"Sign in as {joined[0].email} ({joined[0].role}) or any of the others; their password: {password}")


def add_people(session: Session, password: str, password_hash: str) -> list[User]:
    """Add those who are not there yet; they share a password, so its hash is computed once."""
    there = set(session.exec(select(User.email)))
    newcomers = [
        UserCreate(email=email, full_name=name, password=password, role="admin" if email == ADMIN else "member")
        for email, name in PEOPLE.items()
        if email not in there
    ]
    return [User.create(session, newcomer, password_hash) for newcomer in newcomers]


def add_items(session: Session, amount: int) -> None:
    """Add items with names that are not taken yet, as if they had come in over the last year."""
    invented = islice(invented_items(set(session.exec(select(Item.name_key)))), amount)
    first_day, step = now() - timedelta(days=365), timedelta(days=365) / max(amount, 1)
    with typer.progressbar(length=amount, label="Items") as progress:
        for start in range(0, amount, BATCH):
            batch = enumerate(islice(invented, BATCH), start)
            rows = [item_row(item, first_day + number * step) for number, item in batch]
            session.exec(insert(Item), params=rows)
            progress.update(len(rows))


def item_row(item: ItemCreate, came_in: datetime) -> dict[str, Any]:
    """The columns of an item; a bulk insert passes by what fills them in on the table class."""
    derived = {"name_key": folded(item.name), "version": 1, "created_at": came_in, "updated_at": came_in}
    return item.model_dump() | derived


def invented_items(taken: set[str]) -> Iterator[ItemCreate]:
    """Items without end, the same ones every time; a name that is taken is passed over."""
    random = Random(2026)  # noqa: S311 - chance that can be repeated is what is wanted here
    catalogue = list(product(RANGES, KINDS, COLOURS))
    random.shuffle(catalogue)
    for edition, (range_name, kind, colour) in ((n, entry) for n in count(1) for entry in catalogue):
        name = f"{range_name} {kind}, {colour}" + (f", edition {edition}" if edition > 1 else "")
        if folded(name) in taken:
            continue
        tag, usual_price = KINDS[kind]
        reorder_level = random.choice((0, 5, 10, 25, 50))
        yield ItemCreate(
            name=name,
            price_cents=usual_price * RANGES[range_name] * random.randint(90, 110) // 10_000,
            quantity=random.choice((0, reorder_level, *[random.randint(reorder_level, 400)] * 10)),
            reorder_level=reorder_level,
            tags=[tag, colour, *random.choice([["new"], ["sale"], [], [], [], []])],
        )


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
