"""A made-up small company, the same every time: its people and its stock."""

from collections.abc import Iterator
from datetime import datetime
from itertools import count, islice, product
from random import Random

import typer
from sqlalchemy import insert, update
from sqlmodel import Session, col, select

from history import BATCH, YEAR, History, add_orders, add_posts, invented_orders, put_in
from models import (
    AuditEntry,
    Item,
    ItemCreate,
    User,
    UserCreate,
    folded,
    now,
)

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


def add_company(
    session: Session, password: str, password_hash: str, *, items: int, orders: int
) -> tuple[list[User], int]:
    """Add the people who are not there yet, new items, and orders of those items with posts beside them.

    Returns:
        The newcomers, and how many orders were placed (none where there is nothing to order).
    """
    random = Random(2026)  # noqa: S311 - chance that can be repeated is what is wanted here
    first_day = now() - YEAR
    newcomers = add_people(session, password, password_hash, first_day)
    people = session.exec(select(User).where(col(User.email).in_(PEOPLE)).order_by(col(User.id))).all()
    history = History(session, [user.id for user in people if user.is_admin])
    stock = add_items(session, items, first_day)
    drafts = list(invented_orders(random, people, stock, orders if stock else 0, first_day))
    put_in(session, history, stock, drafts, people[0].id)
    add_orders(session, history, drafts)
    if newcomers:
        add_posts(session, history, random, people, first_day)
    history.write()
    return newcomers, len(drafts)


def add_people(session: Session, password: str, password_hash: str, joined_at: datetime) -> list[User]:
    """Add those who are not there yet; they share a password, so its hash is computed once."""
    there = set(session.exec(select(User.email)))
    newcomers = [
        UserCreate(email=email, full_name=name, password=password, role="admin" if email == ADMIN else "member")
        for email, name in PEOPLE.items()
        if email not in there
    ]
    joined = [User.create(session, newcomer, password_hash) for newcomer in newcomers]
    ids = [user.id for user in joined]
    session.exec(update(User).where(col(User.id).in_(ids)).values(created_at=joined_at, updated_at=joined_at))
    session.flush()
    theirs = update(AuditEntry).where(col(AuditEntry.entity) == "user", col(AuditEntry.entity_id).in_(ids))
    session.exec(theirs.values(at=joined_at))
    return joined


def add_items(session: Session, amount: int, first_day: datetime) -> list[Item]:
    """Add items with names that are not taken yet; what was ordered of them is added to their quantity later."""
    invented = islice(invented_items(set(session.exec(select(Item.name_key)))), amount)
    added: list[Item] = []
    with typer.progressbar(length=amount, label="Items") as progress:
        for start in range(0, amount, BATCH):
            batch = list(islice(invented, BATCH))
            derived = {"version": 1, "created_at": first_day, "updated_at": first_day}
            rows = [item.model_dump() | derived | {"name_key": folded(item.name)} for item in batch]
            ids = session.exec(insert(Item).returning(col(Item.id), sort_by_parameter_order=True), params=rows)
            added += [
                Item.model_validate(row | {"id": item_id}) for item_id, row in zip(ids.scalars(), rows, strict=True)
            ]
            progress.update(min(BATCH, amount - start))
    return added


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
