"""What signing in leaves in the database: sessions, failures, and tokens to set a new password."""

from collections.abc import Generator
from datetime import timedelta

import pytest
from sqlmodel import Session, col, select

from kit.app import App
from kit.db import ending
from kit.models import clock_at, digest, now
from kit.problems import InvalidCredentials, TooManyAttempts
from kit.sessions import MAX_RESETS, FailedSignIn, LoginSession, PasswordReset
from tests.people import Person

HOUR = timedelta(hours=1)


@pytest.fixture
def user_id(ada: Person) -> int:
    return ada.id


@pytest.fixture
def session(app: App, user_id: int) -> Generator[Session]:
    """A session of a database with an account that is not signed in."""
    with ending(app.state.database.write()) as session:
        LoginSession.end_all(session, user_id)
        yield session


# Sessions


def test_a_session_stores_hashes_in_place_of_its_refresh_token(session: Session, user_id: int) -> None:
    row, refresh_token = LoginSession.start(session, user_id, HOUR, user_agent="", ip="")

    assert [row.family_hash, row.secret_hash] == [digest(part) for part in refresh_token.split(".")]


def test_signing_in_clears_away_what_has_expired(session: Session, user_id: int) -> None:
    LoginSession.start(session, user_id, -HOUR, user_agent="", ip="")
    row, _ = LoginSession.start(session, user_id, HOUR, user_agent="", ip="")

    assert session.exec(select(LoginSession.id)).all() == [row.id]


def test_refreshing_moves_the_end_of_a_session(session: Session, user_id: int) -> None:
    row, refresh_token = LoginSession.start(session, user_id, HOUR, user_agent="", ip="")
    LoginSession.refresh(session, refresh_token, 3 * HOUR)

    assert row.expires_at > now() + 2 * HOUR


def test_an_expired_session_cannot_be_refreshed(session: Session, user_id: int) -> None:
    _, refresh_token = LoginSession.start(session, user_id, -HOUR, user_agent="", ip="")

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


def test_a_success_forgets_the_failures_of_one_account(session: Session) -> None:
    for email in ("ada@example.com", "max@example.com"):
        FailedSignIn.count(session, email, 1, HOUR)
    FailedSignIn.clear(session, "ada@example.com")

    FailedSignIn.refuse_blocked(session, "ada@example.com", 1)
    with pytest.raises(TooManyAttempts):
        FailedSignIn.refuse_blocked(session, "max@example.com", 1)


# Tokens to set a new password


def test_a_token_is_stored_as_its_hash_and_redeemed_once(session: Session, user_id: int) -> None:
    token = PasswordReset.issue(session, user_id) or ""
    session.flush()

    assert session.exec(select(PasswordReset.token_hash)).all() == [digest(token)]
    PasswordReset.require_living(session, token)
    assert PasswordReset.redeem(session, token) == user_id
    for refuse in (PasswordReset.require_living, PasswordReset.redeem):
        with pytest.raises(InvalidCredentials):
            refuse(session, token)


def test_a_token_lives_for_an_hour_and_is_cleared_away_after(session: Session, user_id: int) -> None:
    token = PasswordReset.issue(session, user_id) or ""
    session.flush()

    with clock_at(now() + HOUR):
        for refuse in (PasswordReset.require_living, PasswordReset.redeem):
            with pytest.raises(InvalidCredentials):
                refuse(session, token)
        PasswordReset.issue(session, user_id)
        session.flush()
    assert len(session.exec(select(PasswordReset)).all()) == 1


def test_an_account_has_only_so_many_living_tokens(session: Session, user_id: int) -> None:
    tokens = [PasswordReset.issue(session, user_id) for _ in range(MAX_RESETS + 1)]

    assert [token is not None for token in tokens] == [True] * MAX_RESETS + [False]
