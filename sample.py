"""A made-up company for `seed`, the same every time: people, their stock, and a year of orders and posts.

What happens goes through the verbs of the tables, under a clock that is set, so it obeys every rule of the app.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count, islice, product
from random import Random

import typer
from sqlalchemy import update
from sqlmodel import Session, col, select

from kit.audit import act_as, create_many
from kit.models import clock_at, folded, now
from models import (
    CommentCreate,
    Item,
    ItemCreate,
    Notification,
    Order,
    OrderCreate,
    OrderLineCreate,
    Post,
    PostCreate,
    Principal,
    User,
    UserCreate,
)

YEAR = timedelta(days=365)
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
POSTS = (  # a title, what it says, and what others answer
    ("The coffee machine is back", "It was descaled and makes espresso again.", ("Finally!", "Thank you!")),
    ("Stocktaking on Friday", "We count from 9 to 12; please order before that.", ("I can help.", "Noted.")),
    ("New chairs for the meeting room", "Four of them came today. Try them and tell me.", ("Very comfortable.",)),
    (
        "Who took the parcel scale?",
        "It is not at its place.",
        ("It is in the kitchen.", "Sorry, my fault."),
    ),
    ("Please return the markers", "The whiteboard has none left.", ("I had two of them.", "Done.")),
    (
        "A delivery comes on Monday",
        "Two pallets; we need the ramp.",
        ("The ramp is free.", "Good to know."),
    ),
    (
        "Lunch together on Thursday?",
        "At half past twelve, around the corner.",
        ("Count me in.", "Next week?"),
    ),
    ("The lamp in the hall flickers", "The tube has to be changed.", ("I will look after it.", "Done.")),
)


def add_company(
    session: Session, password: str, password_hash: str, *, items: int, orders: int
) -> tuple[list[User], int]:
    """Add the people who are not there yet, new items, and orders of those items with posts beside them.

    Returns:
        The newcomers, and how many orders were placed (none where there is nothing to order).
    """
    random = Random(2026)  # noqa: S311 - chance that can be repeated is what is wanted here
    first_day = now() - YEAR
    with clock_at(first_day):
        newcomers = add_people(session, password, password_hash)
        people = session.exec(select(User).where(col(User.email).in_(PEOPLE)).order_by(col(User.id))).all()
        callers = [Principal(**user.model_dump(include=set(Principal._fields)), session_id=0) for user in people]
        placed = orders if items else 0
        act_as(session, callers[0].id)
        baskets = [invented_basket(random, items) for _ in range(placed)]
        stock = add_items(session, items, Counter(part for basket in baskets for part in basket.elements()))
    with typer.progressbar(length=placed, label="Orders") as progress:
        for _ in add_orders(session, random, callers, stock, baskets, first_day):
            progress.update(1)
    if newcomers:
        add_posts(session, random, callers, first_day)
    read = update(Notification).where(col(Notification.created_at) < now() - timedelta(days=7))
    session.exec(read.values(read_at=Notification.created_at))
    return newcomers, placed


def add_people(session: Session, password: str, password_hash: str) -> list[User]:
    """Add those who are not there yet; they share a password, so its hash is computed once."""
    there = set(session.exec(select(User.email)))
    newcomers = [
        UserCreate(email=email, full_name=name, password=password, role="admin" if email == ADMIN else "member")
        for email, name in PEOPLE.items()
        if email not in there
    ]
    return [User.create(session, newcomer, password_hash) for newcomer in newcomers]


def invented_basket(random: Random, items: int) -> Counter[int]:
    """What one order takes: how many of which item, by its place among the new ones."""
    return Counter({place: random.randint(1, 5) for place in random.choices(range(items), k=random.randint(1, 3))})


def add_items(session: Session, amount: int, ordered: Counter[int]) -> Sequence[int]:
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
    session: Session,
    random: Random,
    people: Sequence[Principal],
    stock: Sequence[int],
    baskets: Sequence[Counter[int]],
    first_day: datetime,
) -> Iterator[Order]:
    """Place orders over the year; of the older ones most are fulfilled and some cancelled, in the order of time."""
    step = (YEAR - timedelta(hours=1)) / max(len(baskets), 1)
    admin = next(person for person in people if person.is_admin)
    open_orders: list[tuple[datetime, int, bool]] = []  # when it is closed, which, and whether by fulfilling it
    for number, basket in enumerate(baskets):
        at = first_day + timedelta(minutes=30) + number * step
        close_orders(session, admin, open_orders, at)
        lines = [OrderLineCreate(item_id=stock[place], quantity=quantity) for place, quantity in basket.items()]
        with acting(session, person := random.choice(people), at):
            order = Order.place(session, person, OrderCreate(lines=lines))
        fate = random.choices((True, False, None), (88, 9, 3))[0]
        if fate is not None:
            heappush(open_orders, (at + timedelta(hours=random.randint(2, 120)), order.id, fate))
        yield order
    close_orders(session, admin, open_orders, now())
    session.flush()


def close_orders(session: Session, admin: Principal, orders: list[tuple[datetime, int, bool]], until: datetime) -> None:
    """Fulfil or cancel what is due until then."""
    while orders and orders[0][0] < until:
        at, order_id, is_fulfilled = heappop(orders)
        order = session.get_one(Order, order_id)
        with acting(session, admin, at):
            _ = order.fulfil(session) if is_fulfilled else order.cancel(session)
            session.flush()
        session.expunge_all()


def add_posts(session: Session, random: Random, people: Sequence[Principal], first_day: datetime) -> None:
    """Posts over the year, with comments of others."""
    step = (YEAR - timedelta(days=1)) / (10 * len(people))
    for number in range(10 * len(people)):
        at = first_day + number * step
        title, content, answers = POSTS[number % len(POSTS)]
        with acting(session, creator := random.choice(people), at):
            data = PostCreate(title=title, content=content)
            post = Post.model_validate(data, update={"creator_id": creator.id})
            session.add(post)
            session.flush()
        for minutes, answer in zip(sorted(random.sample(range(5, 600), len(answers))), answers, strict=True):
            others = [person for person in people if person.id != creator.id]
            with acting(session, author := random.choice(others), at + timedelta(minutes=minutes)):
                post.comment(session, author, CommentCreate(content=answer))


@contextmanager
def acting(session: Session, person: Principal, at: datetime) -> Generator[None]:
    """What `person` does at that time."""
    act_as(session, person.id)
    with clock_at(at):
        yield


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
