"""The rows that every contestant starts from, written by SQL because a million of them through an API takes hours."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

BATCH = 20_000
STOCK = 1_000_000_000  # of every item, the most there may be, so that no order is refused
NOW = datetime.now(UTC).replace(microsecond=123456)  # a time that ends in zeros would be shorter as JSON


@dataclass(frozen=True)
class Amounts:
    """How many rows of each kind."""

    items: int = 1_000
    posts: int = 1_000
    comments: int = 2_000
    orders: int = 200
    users: int = 3
    notifications: int = 200
    audit_entries: int = 0

    @classmethod
    def of_each(cls, rows: int) -> "Amounts":
        """As many of every kind, for the growth of lists."""
        return cls(rows, rows, rows, rows, max(rows, 3), rows, rows)


def fill(path: Path, amounts: Amounts, *, tags_as_json: bool) -> None:
    """Add the rows to a database that has its tables and Ada, its first user, already.

    A contestant gets the tables and columns that it has: nobody is given what only others use.
    """
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous=OFF")  # only while filling; every contestant opens it anew
        connection.execute("PRAGMA foreign_keys=OFF")
        password_hash = connection.execute('SELECT password_hash FROM "user" WHERE id = 1').fetchone()[0]
        for table, rows in _rows(amounts, password_hash, tags_as_json=tags_as_json).items():
            _insert(connection, table, rows)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _insert(connection: sqlite3.Connection, table: str, rows: Iterable[dict[str, Any]]) -> None:
    there = {name for _, name, *_ in connection.execute(f'PRAGMA table_info("{table}")')}
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        names = [name for name in batch[0] if name in there]
        if not names:
            return
        columns, values = ", ".join(names), ", ".join(f":{name}" for name in names)
        connection.executemany(f'INSERT INTO "{table}" ({columns}) VALUES ({values})', batch)  # noqa: S608 - our names


def _rows(amounts: Amounts, password_hash: str, *, tags_as_json: bool) -> dict[str, Iterable[dict[str, Any]]]:
    return {
        "user": (_user(number, password_hash) for number in range(2, amounts.users + 1)),
        "item": (item(number, tags_as_json=tags_as_json) for number in range(1, amounts.items + 1)),
        "order": (_order(number, amounts.orders) for number in range(1, amounts.orders + 1)),
        "order_line": (_order_line(number, amounts.items) for number in range(1, amounts.orders + 1)),
        "post": (_post(number) for number in range(1, amounts.posts + 1)),
        # All on one post where the comments are as many as the posts: that is the list whose growth is measured.
        "comment": (
            _comment(number, 1 if amounts.comments == amounts.posts else number % amounts.posts + 1)
            for number in range(1, amounts.comments + 1)
        ),
        "notification": (_notification(number) for number in range(1, amounts.notifications + 1)),
        "audit_entry": (_audit_entry(number) for number in range(1, amounts.audit_entries + 1)),
    }


def _user(number: int, password_hash: str) -> dict[str, Any]:
    name = {2: "Max Adeyemi", 3: "Eva Novák"}.get(number, f"Person {number}")
    return _times(number) | {
        "id": number,
        "email": f"{name.split()[0].lower()}{number}@example.com",
        "full_name": name,
        "full_name_key": name.casefold(),
        "password_hash": password_hash,
        "role": "admin" if number == 3 else "member",
        "is_active": 1,
    }


def item(number: int, *, tags_as_json: bool) -> dict[str, Any]:
    """One item; its name sorts by its number."""
    tags = ["light", f"shelf {number % 20}"]
    return _times(number) | {
        "id": number,
        "name": f"Desk lamp {number:07d}",
        "name_key": f"desk lamp {number:07d}",
        "price_cents": 3_900 + number % 1_000,
        "quantity": STOCK,
        "reorder_level": 5,
        "tags": json.dumps(tags) if tags_as_json else f";{';'.join(tags)};",
        "version": 1,
    }


def _order(number: int, amount: int) -> dict[str, Any]:
    made_at = NOW - timedelta(days=365) * (amount - number) / amount  # over a year, as in a real company
    return _times(0, made_at) | {
        "id": number,
        "user_id": number % 3 + 1,
        "status": ("pending", "fulfilled", "cancelled")[number % 3],
        "total_cents": 3_900,
        "note": None,
        "version": 1,
    }


def _order_line(number: int, items: int) -> dict[str, Any]:
    return {
        "order_id": number,
        "item_id": number % items + 1,
        "position": 0,
        "item_name": f"Desk lamp {number % items + 1:07d}",
        "quantity": 1,
        "unit_price_cents": 3_900,
    }


def _post(number: int) -> dict[str, Any]:
    title, content = f"Delivery {number}", "It came this morning and stands in the hall. " * 5
    return _times(number) | {
        "id": number,
        "title": title,
        "content": content,
        "search_key": f"{title}\n{content}".casefold(),
        "creator_id": number % 3 + 1,
        "version": 1,
    }


def _comment(number: int, post_id: int) -> dict[str, Any]:
    content = f"Thank you, says number {number}."
    return _times(number) | {"id": number, "post_id": post_id, "content": content, "creator_id": number % 3 + 1}


def _notification(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "user_id": 1,
        "kind": "order_placed",
        "message": f"Max Adeyemi placed order {number}.",
        "link": f"/api/v1/orders/{number}",
        "read_at": None if number % 2 else _time(NOW),
        "created_at": _time(NOW),
    }


def _audit_entry(number: int) -> dict[str, Any]:
    return {
        "at": _time(NOW),
        "actor_id": 1,
        "action": "update",
        "entity": "item",
        "entity_id": number,
        "changes": '{"quantity": [5, 4]}',
        "request_id": f"{number:032x}",
    }


def _times(number: int, at: datetime | None = None) -> dict[str, str]:
    text = _time(at or NOW - timedelta(minutes=number % 500_000))
    return {"created_at": text, "updated_at": text}


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")
