"""A year of a made-up company: its orders and posts, with the audit and the notifications that they would have left.

The rows obey every rule of the app, although they are written in bulk.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import typer
from sqlalchemy import bindparam, insert, update
from sqlmodel import Session, SQLModel, col

from models import AuditEntry, Comment, Item, Notification, Order, OrderLine, Post, User, now

BATCH = 5_000
YEAR = timedelta(days=365)
TITLES = (
    "The coffee machine is back",
    "Stocktaking on Friday",
    "New chairs for the meeting room",
    "Who took the parcel scale?",
    "Please return the markers",
    "A delivery comes on Monday",
    "Lunch together on Thursday?",
    "The lamp in the hall flickers",
)
REMARKS = ("Thank you!", "I will look after it.", "Good to know.", "Can it wait until next week?", "Done.", "+1")


@dataclass
class Draft:
    """An order before it is written."""

    user_id: int
    placed_at: datetime
    status: str
    closed_at: datetime
    lines: list[tuple[Item, int]]
    id: int = 0

    @property
    def total_cents(self) -> int:
        """What it costs."""
        return sum(item.price_cents * quantity for item, quantity in self.lines)


@dataclass
class History:
    """What happened, in the order in which it happened, ready to be written."""

    session: Session
    admin_ids: Sequence[int]
    entries: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    notices: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def record(
        self, at: datetime, actor_id: int, action: str, entity: str, entity_id: int, changes: dict[str, Any]
    ) -> None:
        """One line of the audit."""
        who = {"at": at, "actor_id": actor_id, "request_id": None}
        what = {"action": action, "entity": entity, "entity_id": entity_id, "changes": changes}
        self.entries.append(who | what)
        if len(self.entries) >= BATCH:
            self.write()

    def tell(self, at: datetime, user_ids: Iterable[int], kind: str, message: str, link: str) -> None:
        """One notification each; what is older than a week was read."""
        read_at = at + timedelta(hours=2) if at < now() - timedelta(days=7) else None
        common = {"kind": kind, "message": message, "link": link, "read_at": read_at, "created_at": at}
        self.notices += [common | {"user_id": user_id} for user_id in user_ids]

    def tell_admins(self, at: datetime, actor_id: int, kind: str, message: str, link: str) -> None:
        """Tell every admin but the one who caused it."""
        self.tell(at, [user_id for user_id in self.admin_ids if user_id != actor_id], kind, message, link)

    def write(self) -> None:
        """Write what was gathered."""
        _add_rows(self.session, AuditEntry, self.entries)
        _add_rows(self.session, Notification, self.notices)
        self.entries, self.notices = [], []


def invented_orders(
    random: Random, people: Sequence[User], stock: Sequence[Item], amount: int, first_day: datetime
) -> Iterator[Draft]:
    """Orders spread over the year; of the older ones most were fulfilled and some cancelled."""
    step = (YEAR - timedelta(hours=1)) / max(amount, 1)
    for number in range(amount):
        placed_at = first_day + timedelta(minutes=30) + number * step
        waits = timedelta(hours=random.randint(2, 120))
        status = random.choices(("fulfilled", "cancelled", "pending"), (88, 9, 3))[0]
        if placed_at + waits > now():
            status = "pending"
        chosen = {item.id: item for item in random.choices(stock, k=random.randint(1, 3))}
        lines = [(item, random.randint(1, 5)) for item in chosen.values()]
        closed_at = placed_at if status == "pending" else placed_at + waits
        yield Draft(random.choice(people).id, placed_at, status, closed_at, lines)


def add_orders(session: Session, history: History, drafts: Sequence[Draft]) -> None:
    """Write orders and their lines, then what happened to each, in the order of time."""
    with typer.progressbar(length=2 * len(drafts), label="Orders") as progress:
        for start in range(0, len(drafts), BATCH):
            batch = drafts[start : start + BATCH]
            statement = insert(Order).returning(col(Order.id), sort_by_parameter_order=True)
            ids = session.exec(statement, params=[_order_row(draft) for draft in batch]).scalars()
            for draft, order_id in zip(batch, ids, strict=True):
                draft.id = order_id
            _add_rows(session, OrderLine, [row for draft in batch for row in _line_rows(draft)])
            progress.update(len(batch))
        events = [(draft.placed_at, draft.id, draft) for draft in drafts]
        events += [(draft.closed_at, draft.id, draft) for draft in drafts if draft.status != "pending"]
        for at, _, draft in sorted(events, key=lambda event: event[:2]):
            if at == draft.placed_at:
                _tell_placed(history, draft)
                progress.update(1)
            else:
                _tell_closed(history, draft)


def add_posts(session: Session, history: History, random: Random, people: Sequence[User], first_day: datetime) -> None:
    """Ten posts of each person, with comments of others."""
    step = (YEAR - timedelta(days=1)) / (10 * len(people))
    for number in range(10 * len(people)):
        at = first_day + number * step
        creator = random.choice(people)
        post = Post.model_validate(
            {
                "title": random.choice(TITLES),
                "content": f"{random.choice(REMARKS)} {random.choice(TITLES)}.",
                "creator_id": creator.id,
                "created_at": at,
                "updated_at": at,
            }
        )
        _add_said(session, history, post, at)
        for minutes in sorted(random.sample(range(5, 600), random.randint(0, 4))):
            said_at, author = at + timedelta(minutes=minutes), random.choice(people)
            comment = Comment(
                post_id=post.id,
                content=random.choice(REMARKS),
                creator_id=author.id,
                created_at=said_at,
                updated_at=said_at,
            )
            _add_said(session, history, comment, said_at)
            if author.id != creator.id:
                link = f"{post.link}/comments/{comment.id}"
                history.tell(said_at, [creator.id], "comment", f"{author.full_name} on {post.title!r}.", link)


def _add_said(session: Session, history: History, row: Post | Comment, at: datetime) -> None:
    """Write a post or a comment; its line in the audit gets the time and the author that it would have had."""
    session.add(row)
    session.flush()
    entity = type(row).__name__.lower()
    session.flush()  # the audit of a creation is written by the next flush
    mine = update(AuditEntry).where(col(AuditEntry.entity) == entity, col(AuditEntry.entity_id) == row.id)
    session.exec(mine.values(at=at, actor_id=row.creator_id))


def put_in(session: Session, history: History, stock: Sequence[Item], drafts: Sequence[Draft], actor_id: int) -> None:
    """Begin each item with what was invented and all that is ordered, and leave the row as its orders made it."""
    ordered: Counter[int] = Counter()
    kept: Counter[int] = Counter()
    changes: Counter[int] = Counter()
    for draft in drafts:
        for item, quantity in draft.lines:
            ordered[item.id] += quantity
            kept[item.id] += 0 if draft.status == "cancelled" else quantity
            changes[item.id] += 2 if draft.status == "cancelled" else 1
    for item in stock:
        item.quantity += ordered[item.id]
        values = {name: [None, getattr(item, name)] for name in Item.audited}
        history.record(item.created_at, actor_id, "create", "item", item.id, values)
    history.write()
    rows = [
        {"item_id": item.id, "left": item.quantity - kept[item.id], "changed": 1 + changes[item.id]} for item in stock
    ]
    table = SQLModel.metadata.tables["item"]
    leave = update(table).where(table.c.id == bindparam("item_id"))
    leave = leave.values(quantity=bindparam("left"), version=bindparam("changed"))
    if rows:
        session.connection().execute(leave, rows)


def _tell_placed(history: History, draft: Draft) -> None:
    for item, quantity in sorted(draft.lines, key=lambda line: line[0].id):
        before, item.quantity = item.quantity, item.quantity - quantity
        change = {"quantity": [before, item.quantity]}
        history.record(draft.placed_at, draft.user_id, "update", "item", item.id, change)
        for notice in item.low_stock_notice(before):
            history.tell_admins(draft.placed_at, draft.user_id, notice.kind, notice.message, notice.link)
    lines = [{"item_id": item.id, "quantity": n, "unit_price_cents": item.price_cents} for item, n in draft.lines]
    values = {"user_id": draft.user_id, "status": "pending", "total_cents": draft.total_cents, "note": None}
    created = {field: [None, value] for field, value in (values | {"lines": lines}).items()}
    history.record(draft.placed_at, draft.user_id, "create", "order", draft.id, created)
    link = f"/api/v1/orders/{draft.id}"
    history.tell_admins(draft.placed_at, draft.user_id, "order_placed", f"Order {draft.id} was placed.", link)


def _tell_closed(history: History, draft: Draft) -> None:
    admin_id = history.admin_ids[0]
    change = {"status": ["pending", draft.status]}
    history.record(draft.closed_at, admin_id, "update", "order", draft.id, change)
    if draft.status == "cancelled":
        for item, quantity in sorted(draft.lines, key=lambda line: line[0].id):
            before, item.quantity = item.quantity, item.quantity + quantity
            change = {"quantity": [before, item.quantity]}
            history.record(draft.closed_at, admin_id, "update", "item", item.id, change)
    if draft.user_id != admin_id:
        message, link = f"Your order {draft.id} was {draft.status}.", f"/api/v1/orders/{draft.id}"
        history.tell(draft.closed_at, [draft.user_id], f"order_{draft.status}", message, link)


def _order_row(draft: Draft) -> dict[str, Any]:
    return {
        "user_id": draft.user_id,
        "status": draft.status,
        "total_cents": draft.total_cents,
        "note": None,
        "version": 1 if draft.status == "pending" else 2,
        "created_at": draft.placed_at,
        "updated_at": draft.closed_at,
    }


def _line_rows(draft: Draft) -> list[dict[str, Any]]:
    return [
        {
            "order_id": draft.id,
            "item_id": item.id,
            "position": position,
            "item_name": item.name,
            "quantity": quantity,
            "unit_price_cents": item.price_cents,
        }
        for position, (item, quantity) in enumerate(draft.lines)
    ]


def _add_rows(session: Session, table: type[SQLModel], rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        session.exec(insert(table), params=rows)
