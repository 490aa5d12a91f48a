"""A made-up company for `seed`, the same every time: people, their stock, and a year of orders and posts.

What happens goes through the verbs of the tables, under a clock that is set, so it obeys every rule of the app.
"""

import tomllib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count, islice, product
from pathlib import Path
from random import Random

import typer
from pydantic import BaseModel
from sqlalchemy import update
from sqlmodel import col, select

from kit.audit import act_as, create_many
from kit.db import TransactionSession
from kit.models import clock_at, folded, now
from models import (
    CommentCreate,
    FinalStatus,
    Item,
    ItemCreate,
    Notification,
    Order,
    OrderCreate,
    OrderLineCreate,
    Post,
    PostCreate,
    Principal,
    Role,
    User,
    UserCreate,
)

YEAR = timedelta(days=365)
BATCH = 5_000


class Company(BaseModel):
    """What `templates/sample/company.toml` says of the company."""

    people: dict[str, str]
    ranges: dict[str, int]
    colours: list[str]
    kinds: dict[str, tuple[str, int]]
    posts: list[tuple[str, str, list[str]]]


FILE = Path(__file__).parent / "templates/sample/company.toml"
COMPANY = Company.model_validate(tomllib.loads(FILE.read_text("utf-8")))


def add_company(
    session: TransactionSession, password: str, password_hash: str, *, items: int, orders: int
) -> tuple[list[User], int]:
    """Add the people who are not there yet, new items, and orders of those items with posts beside them.

    Returns:
        The newcomers, and how many orders were placed (none where there is nothing to order).
    """
    random = Random(2026)  # noqa: S311 - chance that can be repeated is what is wanted here
    first_day = now() - YEAR
    with clock_at(first_day):
        newcomers = add_people(session, password, password_hash)
        people = session.exec(select(User).where(col(User.email).in_(COMPANY.people)).order_by(col(User.id))).all()
        callers = [Principal(**user.model_dump(include=set(Principal._fields)), session_id=0) for user in people]
        placed = orders if items else 0
        act_as(session, callers[0].id)
        baskets = [invented_basket(random, items) for _ in range(placed)]
        stock = add_items(session, items, Counter(part for basket in baskets for part in basket.elements()))
    add_orders(session, random, callers, stock, baskets, first_day)
    if newcomers:
        add_posts(session, random, callers, first_day)
    read = update(Notification).where(col(Notification.created_at) < now() - timedelta(days=7))
    session.exec(read.values(read_at=Notification.created_at))
    return newcomers, placed


def add_people(session: TransactionSession, password: str, password_hash: str) -> list[User]:
    """Add those who are not there yet; they share a password, so its hash is computed once."""
    there = set(session.exec(select(User.email)))
    roles: dict[str, Role] = {next(iter(COMPANY.people)): "admin"}
    newcomers = [
        UserCreate(email=email, full_name=name, password=password, role=roles.get(email, "member"))
        for email, name in COMPANY.people.items()
        if email not in there
    ]
    return [User.create(session, newcomer, password_hash) for newcomer in newcomers]


def invented_basket(random: Random, items: int) -> Counter[int]:
    """What one order takes: how many of which item, by its place among the new ones."""
    return Counter({place: random.randint(1, 5) for place in random.choices(range(items), k=random.randint(1, 3))})


def add_items(session: TransactionSession, amount: int, ordered: Counter[int]) -> Sequence[int]:
    """Add items with names that are not taken yet, and beside their stock what is `ordered`; returns their ids."""
    invented = islice(invented_items(set(session.exec(select(Item.name_key)))), amount)
    ids: list[int] = []
    with typer.progressbar(length=amount, label="Items") as progress:
        while batch := [item.model_dump() for item in islice(invented, BATCH)]:
            for place, row in enumerate(batch, start=len(ids)):
                row["quantity"] += ordered[place]
            ids += create_many(session, Item, batch)
            progress.update(len(batch))
    return ids


def add_orders(
    session: TransactionSession,
    random: Random,
    people: Sequence[Principal],
    stock: Sequence[int],
    baskets: Sequence[Counter[int]],
    first_day: datetime,
) -> None:
    """Place orders over the year; of the older ones most are fulfilled and some cancelled, in the order of time."""
    step = (YEAR - timedelta(hours=1)) / max(len(baskets), 1)
    admin = next(person for person in people if person.is_admin)
    open_orders: list[tuple[datetime, int, FinalStatus]] = []  # when it is closed, which, and how
    with typer.progressbar(baskets, label="Orders") as progress:
        for number, basket in enumerate(progress):
            at = first_day + timedelta(minutes=30) + number * step
            close_orders(session, admin, open_orders, at)
            lines = [OrderLineCreate(item_id=stock[place], quantity=quantity) for place, quantity in basket.items()]
            with acting(session, person := random.choice(people), at):
                order = Order.place(session, person, OrderCreate(lines=lines))
            statuses: tuple[FinalStatus, FinalStatus, None] = ("fulfilled", "cancelled", None)
            if status := random.choices(statuses, (88, 9, 3))[0]:
                heappush(open_orders, (at + timedelta(hours=random.randint(2, 120)), order.id, status))
    close_orders(session, admin, open_orders, now())
    session.flush()


def close_orders(
    session: TransactionSession, admin: Principal, orders: list[tuple[datetime, int, FinalStatus]], until: datetime
) -> None:
    """Fulfil or cancel what is due until then."""
    while orders and orders[0][0] < until:
        at, order_id, status = heappop(orders)
        with acting(session, admin, at):
            session.get_one(Order, order_id).close(session, status)
            session.flush()
        session.expunge_all()


def add_posts(session: TransactionSession, random: Random, people: Sequence[Principal], first_day: datetime) -> None:
    """Posts over the year, with comments of others."""
    step = (YEAR - timedelta(days=1)) / (10 * len(people))
    for number in range(10 * len(people)):
        at = first_day + number * step
        title, content, answers = COMPANY.posts[number % len(COMPANY.posts)]
        with acting(session, creator := random.choice(people), at):
            data = PostCreate(title=title, content=content)
            post = session.insert(Post.model_validate(data, update={"creator_id": creator.id}))
        for minutes, answer in zip(sorted(random.sample(range(5, 600), len(answers))), answers, strict=True):
            others = [person for person in people if person.id != creator.id]
            with acting(session, author := random.choice(others), at + timedelta(minutes=minutes)):
                post.comment(session, author, CommentCreate(content=answer))


@contextmanager
def acting(session: TransactionSession, person: Principal, at: datetime) -> Generator[None]:
    """What `person` does at that time."""
    act_as(session, person.id)
    with clock_at(at):
        yield


def invented_items(taken: set[str]) -> Iterator[ItemCreate]:
    """Items without end, the same ones every time; a name that is taken is passed over."""
    random = Random(2026)  # noqa: S311 - chance that can be repeated is what is wanted here
    catalogue = list(product(COMPANY.ranges, COMPANY.kinds, COMPANY.colours))
    random.shuffle(catalogue)
    for edition, (range_name, kind, colour) in ((n, entry) for n in count(1) for entry in catalogue):
        name = f"{range_name} {kind}, {colour}" + (f", edition {edition}" if edition > 1 else "")
        if folded(name) in taken:
            continue
        tag, usual_price = COMPANY.kinds[kind]
        reorder_level = random.choice((0, 5, 10, 25, 50))
        yield ItemCreate(
            name=name,
            price_cents=usual_price * COMPANY.ranges[range_name] * random.randint(90, 110) // 10_000,
            quantity=random.choice((0, reorder_level, *[random.randint(reorder_level, 400)] * 10)),
            reorder_level=reorder_level,
            tags=[tag, colour, *random.choice([["new"], ["sale"], [], [], [], []])],
        )
