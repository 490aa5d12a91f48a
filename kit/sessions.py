"""What signing in leaves in the database: login sessions, failed sign-ins, and tokens to set a new password.

The accounts are the app's: a table `user` with an integer `id`.
"""

from datetime import datetime, timedelta
from secrets import token_urlsafe
from typing import ClassVar, Self

from sqlmodel import Field, Session, SQLModel, col, delete, func, select

from kit.models import BigInt, Entity, Table, digest, now, upsert
from kit.problems import InvalidCredentials, TooManyAttempts

MAX_RESETS = 5


class LoginSessionPublic(SQLModel):
    """A place where the caller is signed in; `last_used_at` is the last sign-in or refresh from there."""

    id: int
    created_at: datetime
    last_used_at: datetime
    user_agent: str
    ip: str
    current: bool


class LoginSession(Entity, table=True):
    """One sign-in and all the refreshes that follow from it.

    A refresh token is `<family>.<secret>`: the family finds the row, the secret changes at every refresh. A right
    family with a wrong secret is a token that was spent, so somebody copied it: the whole session ends.
    """

    called: ClassVar = "session"

    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", index=True, sa_type=BigInt)
    family_hash: str = Field(unique=True)
    secret_hash: str
    created_at: datetime = Field(default_factory=now)
    last_used_at: datetime = Field(default_factory=now)
    expires_at: datetime = Field(index=True)
    user_agent: str = ""
    ip: str = ""

    @classmethod
    def end_all(cls, session: Session, user_id: int, *, but: int | None = None) -> None:
        """End every session of an account but one."""
        session.exec(delete(cls).where(col(cls.user_id) == user_id, col(cls.id) != but))

    @classmethod
    def start(
        cls, session: Session, user_id: int, lifetime: timedelta, *, user_agent: str, ip: str
    ) -> tuple[Self, str]:
        """Sign somebody in; returns the session and its first refresh token. Sessions that expired are cleaned up."""
        session.exec(delete(LoginSession).where(col(LoginSession.expires_at) <= now()))
        family, secret = token_urlsafe(16), token_urlsafe(32)
        login_session = cls(
            user_id=user_id,
            family_hash=digest(family),
            secret_hash=digest(secret),
            expires_at=now() + lifetime,
            user_agent=user_agent[:255],
            ip=ip,
        )
        session.add(login_session)
        session.flush()
        return login_session, f"{family}.{secret}"

    @classmethod
    def refresh(cls, session: Session, refresh_token: str, lifetime: timedelta) -> tuple[Self, str]:
        """Spend a refresh token; returns the session and its next refresh token.

        Raises:
            InvalidCredentials: the token is unknown, expired or spent; a spent one ends the session.
        """
        family, _, secret = refresh_token.partition(".")
        found = select(cls).where(cls.family_hash == digest(family)).with_for_update()
        login_session = session.exec(found).one_or_none()
        if login_session is None or login_session.expires_at <= now():
            raise InvalidCredentials
        if login_session.secret_hash != digest(secret):
            session.delete(login_session)
            raise InvalidCredentials
        secret = token_urlsafe(32)
        login_session.secret_hash = digest(secret)
        login_session.last_used_at = now()
        login_session.expires_at = now() + lifetime
        session.flush()
        return login_session, f"{family}.{secret}"


class FailedSignIn(Table, table=True):
    """How often signing in to one account failed of late, whether or not the account exists."""

    account_hash: str = Field(primary_key=True)
    failures: int = 0
    window_ends_at: datetime = Field(index=True)

    @classmethod
    def refuse_blocked(cls, session: Session, email: str, attempts: int, *, lock: bool = False) -> None:
        """Let nobody sign in to an account that used up its attempts, until the window has passed.

        Raises:
            TooManyAttempts: it did.
        """
        row = session.get(cls, digest(email), with_for_update=lock)
        if row is not None and row.failures >= attempts and row.window_ends_at > now():
            raise TooManyAttempts(int((row.window_ends_at - now()).total_seconds()) + 1)

    @classmethod
    def count(cls, session: Session, email: str, attempts: int, window: timedelta) -> None:
        """Count one more failure; the window begins with the first one. Windows that ended are cleaned up.

        Raises:
            TooManyAttempts: others used up the attempts at the same moment.
        """
        session.exec(delete(cls).where(col(cls.window_ends_at) <= now()))
        first = {"account_hash": digest(email), "failures": 0, "window_ends_at": now() + window}
        session.exec(upsert(session, cls).values(first).on_conflict_do_nothing())
        cls.refuse_blocked(session, email, attempts, lock=True)
        session.get_one(cls, digest(email)).failures += 1
        session.flush()

    @classmethod
    def clear(cls, session: Session, email: str) -> None:
        """Forget the failures of an account, after a success."""
        session.exec(delete(cls).where(col(cls.account_hash) == digest(email)))


class PasswordReset(Table, table=True):
    """A one-time token that was mailed to somebody; it lives for an hour."""

    token_hash: str = Field(primary_key=True)
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", index=True, sa_type=BigInt)
    expires_at: datetime = Field(index=True)

    @classmethod
    def issue(cls, session: Session, user_id: int) -> str | None:
        """A new token; None where the account has enough living ones, so that nobody's mailbox is flooded."""
        session.exec(delete(cls).where(col(cls.expires_at) <= now()))
        if session.exec(select(func.count()).where(cls.user_id == user_id)).one() >= MAX_RESETS:
            return None
        token = token_urlsafe(32)
        session.add(cls(token_hash=digest(token), user_id=user_id, expires_at=now() + timedelta(hours=1)))
        return token

    @classmethod
    def end_all(cls, session: Session, user_id: int) -> None:
        """End every token of an account."""
        session.exec(delete(cls).where(col(cls.user_id) == user_id))

    @classmethod
    def require_living(cls, session: Session, token: str) -> None:
        """Refuse a token before its password is hashed.

        Raises:
            InvalidCredentials: it is used, expired or unknown.
        """
        row = session.get(cls, digest(token))
        if row is None or row.expires_at <= now():
            raise InvalidCredentials

    @classmethod
    def redeem(cls, session: Session, token: str) -> int:
        """Spend a token; returns whose it was. Of two uses at once exactly one succeeds.

        Raises:
            InvalidCredentials: it is used, expired or unknown.
        """
        spent = delete(cls).where(col(cls.token_hash) == digest(token), col(cls.expires_at) > now())
        user_id = session.exec(spent.returning(col(cls.user_id))).scalar_one_or_none()
        if user_id is None:
            raise InvalidCredentials
        return user_id
