"""What the tables promise below the routes."""

from collections.abc import Generator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlmodel import Session, col, select

from kit.db import Database, ending
from kit.problems import InvalidCredentials, LastAdmin, TooManyAttempts, VersionConflict
from models import (
    FailedSignIn,
    Item,
    ItemCreate,
    ItemUpdate,
    LoginSession,
    User,
    UserCreate,
    UserRegister,
    digest,
    folded,
    now,
)
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


# Bodies


def test_a_patch_tells_a_field_that_was_sent_from_one_that_was_not() -> None:
    assert ItemUpdate.model_validate({"quantity": 0}).changes() == {"quantity": 0}
    assert ItemUpdate.model_validate({}).changes() == {}


def test_a_patch_refuses_null() -> None:
    with pytest.raises(ValidationError, match="Leave the field out instead of sending null"):
        ItemUpdate.model_validate({"quantity": None})


@pytest.mark.parametrize(("one", "other"), [("Straße", "STRASSE"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("ÉA", "éa"), ("A", "a")])
def test_text_that_differs_by_case_alone_folds_alike(one: str, other: str) -> None:
    assert folded(one) == folded(other)


# Rows


@pytest.mark.parametrize(
    "tags", [[], ["red"], ["red", "blue"], ["a,b", "c d", "%", "_"], ["é" * 30], ["[]"], ['"'], ["null"]]
)
def test_tags_come_back_in_their_order(database: Database, tags: list[str]) -> None:
    with ending(database.write()) as session:
        add_item(session, tags=tags)
    with database.read() as session:
        assert session.exec(select(Item)).one().tags == tags


@pytest.mark.parametrize(("tag", "has"), [("red", True), ("re", False), ("Red", False), ("ed;bl", False), ("%", False)])
def test_a_tag_is_found_whole_and_with_its_case(session: Session, tag: str, has: bool) -> None:
    add_item(session, tags=["red", "blue"])

    assert (session.exec(select(Item).where(Item.has_tag(tag))).first() is not None) == has


def test_times_come_back_in_utc(database: Database) -> None:
    moment = datetime(2026, 1, 1, 1, 30, tzinfo=timezone(2 * HOUR))
    with ending(database.write()) as session:
        add_item(session).created_at = moment
    with database.read() as session:
        stored = session.exec(select(Item)).one().created_at

    assert (stored, stored.utcoffset()) == (moment, timedelta(0))


def test_a_time_without_a_zone_is_not_stored(session: Session) -> None:
    item = add_item(session)
    item.created_at = datetime(2026, 1, 1)

    with pytest.raises(StatementError, match="timezone"):
        session.flush()
    session.rollback()


@pytest.mark.parametrize(("column", "value"), [("quantity", -1), ("price_cents", 0)])
def test_the_database_itself_refuses(session: Session, column: str, value: int) -> None:
    add_item(session)

    with pytest.raises(IntegrityError, match=f"ck_item_{column}"):
        session.connection().execute(text(f"UPDATE item SET {column} = :value"), {"value": value})  # noqa: S608 - a name of ours


def test_the_database_itself_refuses_an_unknown_role(session: Session, ada: User) -> None:
    with pytest.raises(IntegrityError, match="ck_user_role"):
        session.connection().execute(text("""UPDATE "user" SET role = 'owner'"""))


def test_an_item_counts_its_versions(session: Session) -> None:
    item = add_item(session)
    versions = [item.version]
    for quantity in (5, 5, 6):
        item.quantity = quantity
        session.flush()
        versions.append(item.version)

    assert versions == [1, 2, 2, 3]
    assert item.etag == '"3"'


def test_an_item_may_be_changed_only_by_who_has_seen_it(session: Session) -> None:
    item = add_item(session)

    assert item.require_version(None) is item
    assert item.require_version('"7", "1"') is item
    with pytest.raises(VersionConflict):
        item.require_version('W/"1"')


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
    LoginSession.start(session, max, HOUR, user_agent="", ip="")
    max.remove(session)

    assert session.exec(select(LoginSession)).all() == []


# Sessions


def test_a_session_stores_hashes_in_place_of_its_refresh_token(session: Session, ada: User) -> None:
    row, refresh_token = LoginSession.start(session, ada, HOUR, user_agent="", ip="")

    assert [row.family_hash, row.secret_hash] == [digest(part) for part in refresh_token.split(".")]


def test_signing_in_clears_away_what_has_expired(session: Session, ada: User) -> None:
    LoginSession.start(session, ada, -HOUR, user_agent="", ip="")
    row, _ = LoginSession.start(session, ada, HOUR, user_agent="", ip="")

    assert session.exec(select(LoginSession.id)).all() == [row.id]


def test_refreshing_moves_the_end_of_a_session(session: Session, ada: User) -> None:
    row, refresh_token = LoginSession.start(session, ada, HOUR, user_agent="", ip="")
    LoginSession.refresh(session, refresh_token, 3 * HOUR)

    assert row.expires_at > now() + 2 * HOUR


def test_an_expired_session_cannot_be_refreshed(session: Session, ada: User) -> None:
    _, refresh_token = LoginSession.start(session, ada, -HOUR, user_agent="", ip="")

    with pytest.raises(InvalidCredentials):
        LoginSession.refresh(session, refresh_token, HOUR)


# Failed sign-ins


def test_the_window_of_failures_begins_with_the_first_one(session: Session) -> None:
    FailedSignIn.count(session, "ada@example.com", 3, HOUR)
    FailedSignIn.count(session, "ada@example.com", 3, 5 * HOUR)

    FailedSignIn.refuse_blocked(session, "ada@example.com", 3)
    with pytest.raises(TooManyAttempts) as blocked:
        FailedSignIn.refuse_blocked(session, "ada@example.com", 2)
    assert 3590 <= int(blocked.value.headers["Retry-After"]) <= 3600


def test_a_window_that_has_passed_counts_for_nothing(session: Session) -> None:
    FailedSignIn.count(session, "ada@example.com", 1, -HOUR)
    FailedSignIn.refuse_blocked(session, "ada@example.com", 1)
    FailedSignIn.count(session, "ada@example.com", 1, HOUR)

    assert session.exec(select(FailedSignIn)).one().failures == 1


def test_windows_of_others_are_cleared_away_once_they_have_passed(session: Session) -> None:
    FailedSignIn.count(session, "max@example.com", 5, -HOUR)
    FailedSignIn.count(session, "ada@example.com", 5, HOUR)

    assert session.exec(select(col(FailedSignIn.account_hash))).all() == [digest("ada@example.com")]


def test_a_failed_sign_in_does_not_store_the_email(session: Session) -> None:
    FailedSignIn.count(session, "my-password@example.com", 5, HOUR)

    assert "my-password" not in session.exec(select(FailedSignIn)).one().account_hash
