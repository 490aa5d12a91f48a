"""What people were told."""

from sqlmodel import select

from kit.app import App
from models import Notification
from tests.people import Person, Row


def inbox(person: Person, query: str = "") -> list[Row]:
    return person.get(f"/notifications?limit=100{query}").json()["items"]


def kinds(person: Person) -> list[str]:
    """What somebody was told, the oldest first."""
    return [notification["kind"] for notification in reversed(inbox(person))]


def told(app: App) -> list[tuple[int, str]]:
    """Who was told what, everybody together."""
    with app.state.database.read() as session:
        return sorted((row.user_id, row.kind) for row in session.exec(select(Notification)))
