"""What signing in leaves in the database: login sessions, failed sign-ins, and tokens to set a new password.

The accounts are the app's: a table `user` with an integer `id`.
"""

import re
from datetime import datetime, timedelta
from secrets import token_urlsafe
from typing import ClassVar, Self

from sqlalchemy import ColumnElement
from sqlmodel import Field, Session, SQLModel, col, delete, func, select

from kit.models import BigInt, Entity, Table, digest, now, upsert
from kit.problems import InvalidCredentials, NotAuthenticated, TooManyAttempts

MAX_SESSIONS = 100
MAX_RESETS = 5


class CopiedCookie(NotAuthenticated):
    """401: a cookie whose successor was renewed already, so two browsers have it; its session ended with this."""

    code = "NOT_AUTHENTICATED"
    keeps_changes = True


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
    renewals: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """How often a browser had the token in its cookie renewed."""

    @classmethod
    def expired(cls) -> ColumnElement[bool]:
        """Sessions that ended by themselves."""
        return col(cls.expires_at) <= now()

    @classmethod
    def end_all(cls, session: Session, user_id: int, *, but: int | None = None) -> None:
        """End every session of an account but one."""
        session.exec(delete(cls).where(col(cls.user_id) == user_id, col(cls.id) != but))

    @classmethod
    def start(
        cls, session: Session, user_id: int, lifetime: timedelta, *, user_agent: str, ip: str
    ) -> tuple[Self, str]:
        """Sign somebody in; returns the session and its first refresh token.

        Of more than a hundred sessions those end that were unused for longest.
        """
        mine = select(cls.id).where(cls.user_id == user_id)
        beyond = mine.order_by(col(cls.last_used_at).desc(), col(cls.id).desc()).offset(MAX_SESSIONS - 1)
        session.exec(delete(cls).where(col(cls.id).in_(beyond.limit(MAX_SESSIONS))))
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

    @classmethod
    def renew(cls, session: Session, session_id: int, renewals: int, lifetime: timedelta) -> Self:
        """Renew the session of a browser whose token has expired; returns it.

        A browser sends one cookie from many tabs, and may leave before it has the answer. So the token before the
        newest one changes nothing and gets the newest. One that is older still was copied.

        Raises:
            NotAuthenticated: the session has ended.
            CopiedCookie: the token's successor was renewed already; the session ends.
        """
        login_session = session.get(cls, session_id, with_for_update=True)
        if login_session is None or login_session.expires_at <= now():
            raise NotAuthenticated
        if renewals < login_session.renewals - 1:
            session.delete(login_session)
            raise CopiedCookie
        if renewals == login_session.renewals:
            login_session.renewals += 1
            login_session.last_used_at = now()
            login_session.expires_at = now() + lifetime
            session.flush()
        return login_session


class FailedSignIn(Table, table=True):
    """How often signing in to one account failed of late, whether or not the account exists.

    An account is named by its id, so that another e-mail does not clear the count; one that there is not by its e-mail.
    """

    account_hash: str = Field(primary_key=True)
    failures: int = 0
    window_ends_at: datetime = Field(index=True)

    @classmethod
    def expired(cls) -> ColumnElement[bool]:
        """Counts whose window has passed."""
        return col(cls.window_ends_at) <= now()

    @classmethod
    def refuse_blocked(cls, session: Session, account: str, attempts: int, *, lock: bool = False) -> None:
        """Let nobody sign in to an account that used up its attempts, until the window has passed.

        Raises:
            TooManyAttempts: it did.
        """
        row = session.get(cls, digest(account), with_for_update=lock)
        if row is not None and row.failures >= attempts and row.window_ends_at > now():
            raise TooManyAttempts(int((row.window_ends_at - now()).total_seconds()) + 1)

    @classmethod
    def count(cls, session: Session, account: str, attempts: int, window: timedelta) -> None:
        """Count one more failure; the window begins with the first one.

        Raises:
            TooManyAttempts: others used up the attempts at the same moment.
        """
        first = {"account_hash": digest(account), "failures": 0, "window_ends_at": now() + window}
        session.exec(upsert(session, cls).values(first).on_conflict_do_nothing())
        cls.refuse_blocked(session, account, attempts, lock=True)
        row = session.get_one(cls, digest(account))
        if row.window_ends_at <= now():
            row.failures, row.window_ends_at = 0, now() + window
        row.failures += 1
        session.flush()

    @classmethod
    def clear(cls, session: Session, account: str) -> None:
        """Forget the failures of an account, after a success."""
        session.exec(delete(cls).where(col(cls.account_hash) == digest(account)))


class PasswordReset(Table, table=True):
    """A one-time token for somebody to set a new password with."""

    token_hash: str = Field(primary_key=True)
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", index=True, sa_type=BigInt)
    expires_at: datetime = Field(index=True)

    @classmethod
    def expired(cls) -> ColumnElement[bool]:
        """Tokens that were not used in time."""
        return col(cls.expires_at) <= now()

    @classmethod
    def issue(cls, session: Session, user_id: int, lifetime: timedelta = timedelta(hours=1)) -> str | None:
        """A new token; None where the account has enough living ones, so that nobody's mailbox is flooded."""
        living = select(func.count()).where(cls.user_id == user_id, col(cls.expires_at) > now())
        if session.exec(living).one() >= MAX_RESETS:
            return None
        token = token_urlsafe(32)
        session.add(cls(token_hash=digest(token), user_id=user_id, expires_at=now() + lifetime))
        session.flush()
        return token

    @classmethod
    def end(cls, session: Session, token: str) -> None:
        """End one token."""
        session.exec(delete(cls).where(col(cls.token_hash) == digest(token)))

    @classmethod
    def end_all(cls, session: Session, user_id: int) -> None:
        """End every token of an account."""
        session.exec(delete(cls).where(col(cls.user_id) == user_id))

    @classmethod
    def is_living(cls, session: Session, token: str) -> bool:
        """Whether a token is known, not used, and not expired."""
        row = session.get(cls, digest(token))
        return row is not None and row.expires_at > now()

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


# Where somebody is signed in

# In the order in which they count: most browsers also name those whose kind they are. A library would know more, and
# be out of date with every new one.
BROWSERS = {
    "Edge": "Edg(?:e|A|iOS)?/",
    "Opera": "OPR/|Opera",
    "Samsung Internet": "SamsungBrowser/",
    "Vivaldi": "Vivaldi/",
    "Firefox": "Firefox/|FxiOS/",
    "Chrome": "Chrome/|CriOS/|Chromium/",
    "Safari": "Safari/",
}
SYSTEMS = {
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Windows": "Windows",
    "macOS": "Macintosh|Mac OS X",
    "ChromeOS": "CrOS",
    "Linux": "Linux|X11",
}


def device(user_agent: str) -> str:
    """What signed in, in words, such as "Firefox on Windows" or "A program (curl)"."""
    if not user_agent.startswith(("Mozilla/", "Opera/")):
        name = re.match(r"[\w.+-]{1,40}", user_agent)
        return f"A program ({name[0]})" if name else "A program"
    browser, system = (
        next((name for name, mark in known.items() if re.search(mark, user_agent)), "") for known in (BROWSERS, SYSTEMS)
    )
    return f"{browser or 'A browser'} on {system}" if system else browser or "A browser"
