"""What the audit has of changes."""

from collections.abc import Callable
from typing import Any

from sqlmodel import func, select

from kit.app import App
from kit.audit import AuditEntry
from tests.people import Person, Row

Written = Callable[[], list[Row]]
"""What was written since the last look."""


def entry(actor: Person, action: str, entity: str, entity_id: int, **changes: list[Any]) -> Row:
    """An entry, without its time and its request."""
    return {
        "actor_id": actor.id,
        "action": action,
        "entity": entity,
        "entity_id": entity_id,
        "changes": changes,
    }


def created(**values: Any) -> dict[str, list[Any]]:
    return {field: [None, value] for field, value in values.items()}


def deleted(**values: Any) -> dict[str, list[Any]]:
    return {field: [value, None] for field, value in values.items()}


def audit(ada: Person, query: str = "") -> list[Row]:
    return ada.get(f"/audit?limit=100{query}").json()["items"]


def amount(app: App) -> int:
    """How many entries there are."""
    with app.state.database.read() as session:
        return session.exec(select(func.count()).select_from(AuditEntry)).one()
