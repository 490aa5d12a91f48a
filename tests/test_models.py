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
from models import LastAdmin, User, UserCreate, UserRegister
from tests.people import PASSWORD


@pytest.fixture
def session(app: App) -> Generator[Session]:
    with ending(app.state.database.write()) as session:
        yield session


def joined(session: Session, name: str) -> User:
    return User.create(session, UserRegister(email=f"{name}@example.com", full_name=name, password=PASSWORD), "hash")


# What the database itself refuses


def test_the_database_itself_refuses_an_unknown_role(app: App) -> None:
    with app.state.database.write() as session:
        joined(session, "ada")
        with pytest.raises(IntegrityError, match="ck_user_role"):
            session.connection().execute(text("UPDATE \"user\" SET role = 'owner'"))


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
