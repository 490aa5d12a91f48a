"""What the tables promise below the routes."""

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from kit.db import Database, ending
from kit.sessions import LoginSession
from models import Item, ItemCreate, LastAdmin, User, UserCreate, UserRegister
from settings import Settings

HOUR = timedelta(hours=1)


@pytest.fixture
def database(settings: Settings) -> Generator[Database]:
    database = Database(settings)
    yield database
    database.close()


@pytest.fixture
def session(database: Database) -> Generator[Session]:
    with ending(database.write()) as session:
        yield session


@pytest.fixture
def ada(session: Session) -> User:
    data = UserRegister(email="ada@example.com", full_name="Ada", password="Correct-horse-1")
    return User.create(session, data, "hash")


def add_item(session: Session, **values: Any) -> Item:
    item = Item.model_validate(ItemCreate.model_validate({"name": "Lamp", "price_cents": 100} | values))
    session.add(item)
    session.flush()
    return item


@pytest.mark.parametrize(("tag", "has"), [("red", True), ("re", False), ("Red", False), ("ed;bl", False), ("%", False)])
def test_a_tag_is_found_whole_and_with_its_case(session: Session, tag: str, has: bool) -> None:
    add_item(session, tags=["red", "blue"])

    assert (session.exec(select(Item).where(Item.has_tag(tag))).first() is not None) == has


@pytest.mark.parametrize(("column", "value"), [("quantity", -1), ("price_cents", 0)])
def test_the_database_itself_refuses(session: Session, column: str, value: int) -> None:
    add_item(session)

    with pytest.raises(IntegrityError, match=f"ck_item_{column}"):
        session.connection().execute(text(f"UPDATE item SET {column} = :value"), {"value": value})  # noqa: S608 - a name of ours


def test_the_database_itself_refuses_an_unknown_role(session: Session, ada: User) -> None:
    with pytest.raises(IntegrityError, match="ck_user_role"):
        session.connection().execute(text("UPDATE user SET role = 'owner'"))


# Accounts


@pytest.mark.parametrize("role", ["member", "admin"])
def test_the_first_account_is_an_admin_whatever_is_asked(session: Session, role: str) -> None:
    body = {"email": "ada@example.com", "full_name": "Ada", "password": "Correct-horse-1", "role": role}

    assert User.create(session, UserCreate.model_validate(body), "hash").role == "admin"


def test_no_id_is_given_twice(session: Session, ada: User) -> None:
    data = UserRegister(email="max@example.com", full_name="Max", password="Correct-horse-1")
    first = User.create(session, data, "hash")
    first_id = first.id
    first.remove(session)

    assert User.create(session, data, "hash").id > first_id


def test_the_last_admin_cannot_be_removed(session: Session, ada: User) -> None:
    with pytest.raises(LastAdmin):
        ada.remove(session)


def test_a_deleted_account_leaves_no_session(session: Session, ada: User) -> None:
    data = UserRegister(email="max@example.com", full_name="Max", password="Correct-horse-1")
    max = User.create(session, data, "hash")
    LoginSession.start(session, max.id, HOUR, user_agent="", ip="")
    max.remove(session)

    assert session.exec(select(LoginSession)).all() == []
