"""Login sessions, failed sign-ins and one-time tokens, below the routes."""

from collections.abc import Generator
from datetime import timedelta

import pytest
from sqlmodel import Session, select

from kit.app import App
from kit.db import ending
from kit.models import clock_at, digest, now
from kit.problems import InvalidCredentials, TooManyAttempts
from kit.sessions import MAX_RESETS, MAX_SESSIONS, FailedSignIn, LoginSession, PasswordReset
from models import User, UserRegister

HOUR = timedelta(hours=1)


@pytest.fixture
def session(app: App) -> Generator[Session]:
    with ending(app.state.database.write()) as session:
        yield session


@pytest.fixture
def account_id(session: Session) -> int:
    """The id of an account."""
    body = UserRegister(email="ada@example.com", full_name="Ada", password="Correct-horse-1")
    return User.create(session, body, "hash").id


# Sessions


def test_a_session_stores_hashes_in_place_of_its_refresh_token(session: Session, account_id: int) -> None:
    row, refresh_token = LoginSession.start(session, account_id, HOUR, user_agent="", ip="")

    assert [row.family_hash, row.secret_hash] == [digest(part) for part in refresh_token.split(".")]


def test_signing_in_leaves_what_has_expired_to_the_timer(session: Session, account_id: int) -> None:
    rows = [LoginSession.start(session, account_id, left, user_agent="", ip="")[0] for left in (-HOUR, HOUR)]

    assert session.exec(select(LoginSession.id)).all() == [row.id for row in rows]


def start_at(session: Session, account_id: int, *, minutes_ago: int) -> tuple[LoginSession, str]:
    with clock_at(now() - timedelta(minutes=minutes_ago)):
        return LoginSession.start(session, account_id, 24 * HOUR, user_agent="", ip="")


def test_an_account_has_a_hundred_sessions_and_loses_the_one_that_was_unused_for_longest(
    session: Session, account_id: int
) -> None:
    first, refresh_token = start_at(session, account_id, minutes_ago=300)
    rows = [start_at(session, account_id, minutes_ago=200 - number)[0] for number in range(MAX_SESSIONS - 1)]
    LoginSession.refresh(session, refresh_token, HOUR)  # the oldest one is in use
    last, _ = LoginSession.start(session, account_id, HOUR, user_agent="", ip="")

    assert set(session.exec(select(LoginSession.id))) == {first.id, *(row.id for row in rows[1:]), last.id}


def test_the_sessions_of_others_do_not_count(session: Session, account_id: int) -> None:
    body = UserRegister(email="max@example.com", full_name="Max", password="Correct-horse-1")
    other_id = User.create(session, body, "hash").id
    start_at(session, other_id, minutes_ago=900)
    for _ in range(MAX_SESSIONS + 1):
        LoginSession.start(session, account_id, HOUR, user_agent="", ip="")

    owners = session.exec(select(LoginSession.user_id)).all()
    assert (owners.count(other_id), owners.count(account_id)) == (1, MAX_SESSIONS)


def test_refreshing_moves_the_end_of_a_session(session: Session, account_id: int) -> None:
    row, refresh_token = LoginSession.start(session, account_id, HOUR, user_agent="", ip="")
    LoginSession.refresh(session, refresh_token, 3 * HOUR)

    assert row.expires_at > now() + 2 * HOUR


def test_an_expired_session_cannot_be_refreshed(session: Session, account_id: int) -> None:
    _, refresh_token = LoginSession.start(session, account_id, -HOUR, user_agent="", ip="")

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


def test_windows_of_others_are_left_to_the_timer(session: Session) -> None:
    FailedSignIn.count(session, "max@example.com", 5, -HOUR)
    FailedSignIn.count(session, "ada@example.com", 5, HOUR)

    assert len(session.exec(select(FailedSignIn)).all()) == 2


def test_a_failed_sign_in_does_not_store_the_email(session: Session) -> None:
    FailedSignIn.count(session, "my-password@example.com", 5, HOUR)

    assert "my-password" not in session.exec(select(FailedSignIn)).one().account_hash


# Tokens to set a new password


def test_a_token_is_stored_as_a_hash_and_spent_once(session: Session, account_id: int) -> None:
    token = PasswordReset.issue(session, account_id)
    assert token
    session.flush()

    assert PasswordReset.is_living(session, token)
    assert session.exec(select(PasswordReset.token_hash)).all() == [digest(token)]
    assert PasswordReset.redeem(session, token) == account_id
    assert not PasswordReset.is_living(session, token)
    with pytest.raises(InvalidCredentials):
        PasswordReset.redeem(session, token)


def test_an_account_has_few_living_tokens_and_those_that_expired_do_not_count(
    session: Session, account_id: int
) -> None:
    tokens = [PasswordReset.issue(session, account_id) for _ in range(MAX_RESETS + 1)]
    for row in session.exec(select(PasswordReset)):
        row.expires_at = now() - HOUR
    session.flush()

    assert [token is not None for token in tokens] == [True] * MAX_RESETS + [False]
    with pytest.raises(InvalidCredentials):
        PasswordReset.redeem(session, tokens[0] or "")
    assert PasswordReset.issue(session, account_id)


def test_all_tokens_of_an_account_can_be_ended(session: Session, account_id: int) -> None:
    PasswordReset.issue(session, account_id)
    PasswordReset.end_all(session, account_id)

    assert session.exec(select(PasswordReset)).all() == []


def test_a_spent_refresh_token_ends_its_session(session: Session, account_id: int) -> None:
    _, spent = LoginSession.start(session, account_id, HOUR, user_agent="", ip="")
    LoginSession.refresh(session, spent, HOUR)
    with pytest.raises(InvalidCredentials):
        LoginSession.refresh(session, spent, HOUR)

    assert session.exec(select(LoginSession)).all() == []


def test_all_sessions_of_an_account_but_one_can_be_ended(session: Session, account_id: int) -> None:
    kept, _ = LoginSession.start(session, account_id, HOUR, user_agent="x" * 300, ip="")
    LoginSession.start(session, account_id, HOUR, user_agent="", ip="")
    LoginSession.end_all(session, account_id, but=kept.id)
    rest = session.exec(select(LoginSession.id, LoginSession.user_agent)).all()
    LoginSession.end_all(session, account_id)

    assert rest == [(kept.id, "x" * 255)]
    assert session.exec(select(LoginSession)).all() == []
