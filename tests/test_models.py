"""What the tables promise below the routes."""

from collections.abc import Generator
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from kit.app import App
from kit.db import ending
from kit.models import now
from kit.sessions import LoginSession, PasswordReset
from models import Item, ItemCreate, LastAdmin, Order, OutOfStock, User, UserCreate, UserRegister
from tests.people import PASSWORD


@pytest.fixture
def session(app: App) -> Generator[Session]:
    with ending(app.state.database.write()) as session:
        yield session


def joined(session: Session, name: str) -> User:
    return User.create(session, UserRegister(email=f"{name}@example.com", full_name=name, password=PASSWORD), "hash")


def add_item(session: Session, name: str = "Lamp", quantity: int = 0, tags: tuple[str, ...] = ()) -> Item:
    data = ItemCreate(name=name, price_cents=100, quantity=quantity, tags=list(tags))
    item = Item.model_validate(data)
    session.add(item)
    session.flush()
    return item


# Items


def test_a_tag_is_found_whole_and_with_its_case(session: Session) -> None:
    add_item(session, tags=("red", "blue"))
    tags = ("red", "blue", "re", "Red", "ed;bl", "%")
    found = [session.exec(select(Item).where(Item.has_tag(tag))).first() is not None for tag in tags]

    assert found == [True, True, False, False, False, False]


def test_stock_is_taken_of_all_items_or_of_none(session: Session) -> None:
    lamp, desk = add_item(session, "Lamp", 10), add_item(session, "Desk", 3)
    Item.restock(session, [(lamp, -4), (desk, -1)])

    assert (lamp.quantity, lamp.version, desk.quantity) == (6, 2, 2)
    with pytest.raises(OutOfStock) as short:
        Item.restock(session, [(lamp, -1), (desk, -3)])
    assert short.value.errors == [{"item_id": desk.id, "requested": 3, "available": 2}]


# What the database itself refuses


BROKEN_RULES = [
    ("UPDATE item SET quantity = -1", "ck_item_quantity"),
    ("UPDATE item SET price_cents = 0", "ck_item_price_cents"),
    ("UPDATE \"user\" SET role = 'owner'", "ck_user_role"),
    ("UPDATE \"order\" SET status = 'open'", "ck_order_status"),
]


@pytest.mark.parametrize(("statement", "constraint"), BROKEN_RULES)
def test_the_database_itself_refuses(app: App, statement: str, constraint: str) -> None:
    with app.state.database.write() as session:
        session.add(Order(user_id=joined(session, "ada").id))
        add_item(session)
        with pytest.raises(IntegrityError, match=constraint):
            session.connection().execute(text(statement))


# Accounts


@pytest.mark.parametrize("role", ["member", "admin"])
def test_the_first_account_is_an_admin_whatever_is_asked(session: Session, role: str) -> None:
    body = {"email": "ada@example.com", "full_name": "Ada", "password": PASSWORD, "role": role}

    assert User.create(session, UserCreate.model_validate(body), "hash").role == "admin"


def test_no_id_is_given_twice(session: Session) -> None:
    joined(session, "ada")
    first = joined(session, "max")
    first_id = first.id
    first.remove(session)

    assert joined(session, "max").id > first_id


def test_the_last_admin_cannot_be_removed(session: Session) -> None:
    ada = joined(session, "ada")
    with pytest.raises(LastAdmin):
        ada.remove(session)


def test_a_deleted_account_leaves_neither_a_session_nor_a_token(session: Session) -> None:
    _, max = joined(session, "ada"), joined(session, "max")
    LoginSession.start(session, max.id, timedelta(hours=1), user_agent="", ip="")
    PasswordReset.issue(session, max.id)
    session.flush()
    max.remove(session)

    assert session.exec(select(LoginSession)).all() == []
    assert session.exec(select(PasswordReset).where(col(PasswordReset.expires_at) > now())).all() == []
