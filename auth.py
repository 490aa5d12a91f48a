"""Accounts: passwords, tokens, login sessions, who is calling, throttling, and the `/auth` routes."""

import base64
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import bcrypt
import jwt
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Form, Request
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, ValidationError
from sqlalchemy import bindparam
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from db import Database, ReadSession, WriteSession, ending
from errors import (
    BadRequest,
    EmailTaken,
    Forbidden,
    InvalidCredentials,
    NotAuthenticated,
    RegistrationClosed,
    TooManyAttempts,
    UnsupportedGrantType,
)
from models import (
    FailedSignIn,
    Id,
    LoginSession,
    LoginSessionPublic,
    User,
    UserCreate,
    UserPublic,
    UserRegister,
    now,
)
from routing import FORBIDDEN_TEXT, Deferred, Router, problems, raises
from settings import Settings, StartRefused

T = TypeVar("T")
LONGEST_TOKEN = 4096
PASSWORD_DOMAIN = b"stockroom password"  # not a secret: it keeps our hashes apart from other uses of HMAC
CORES = os.cpu_count() or 1


# Passwords


def hash_password(password: str, rounds: int) -> str:
    """Hash a password with bcrypt; takes a quarter of a second at 12 rounds."""
    return bcrypt.hashpw(_prehash(password), bcrypt.gensalt(rounds)).decode()


def check_password(password: str, password_hash: str) -> bool:
    """Whether `password` has this hash; takes as long as hashing it."""
    return bcrypt.checkpw(_prehash(password), password_hash.encode())


def _prehash(password: str) -> bytes:
    # bcrypt reads 72 bytes and stops at a NUL; 48 bytes in base64 are 64 characters without one.
    return base64.b64encode(hmac.digest(PASSWORD_DOMAIN, password.encode(), "sha384"))


def _nobodys_hash(rounds: int) -> str:
    """A hash that no password has, so that an unknown account costs the same single computation."""
    return (bcrypt.gensalt(rounds) + b"." * 31).decode()


async def hashing(request: Request, work: Callable[[], T]) -> T:
    """Do `work` in a thread, at most as many at once as there are cores; the rest wait without a thread."""
    return await to_thread.run_sync(work, limiter=request.app.state.hashing_slots)


def hashing_slots() -> CapacityLimiter:
    """How many passwords are hashed at once: sign-ins must not take every core from everyone else."""
    return CapacityLimiter(CORES)


# Access tokens


class TokenPair(BaseModel):
    """The answer of the token endpoint (RFC 6749, 5.1)."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - the name of a kind of token
    expires_in: int
    refresh_token: str


def issue_tokens(request: Request, login_session: LoginSession, refresh_token: str) -> TokenPair:
    """A new access token beside the refresh token of its session."""
    lifetime = timedelta(minutes=_settings(request).access_token_minutes)
    issued_at = now()
    claims: dict[str, Any] = {
        "sub": str(login_session.user_id),
        "sid": login_session.id,
        "iat": issued_at,
        "exp": issued_at + lifetime,
        "jti": uuid4().hex,
        "type": "access",
    }
    access_token = jwt.encode(claims, request.app.state.secret_key, algorithm="HS256")
    expires_in = int(lifetime.total_seconds())
    return TokenPair(access_token=access_token, expires_in=expires_in, refresh_token=refresh_token)


def read_access_token(token: str | None, secret_key: str) -> tuple[int, int]:
    """The ids of the user and of the login session that an access token names.

    Raises:
        NotAuthenticated: it is missing, malformed, expired, or not an access token.
    """
    if token is None or len(token) > LONGEST_TOKEN:
        raise NotAuthenticated
    try:
        claims = jwt.decode(token, secret_key, algorithms=["HS256"], options=ACCESS_TOKEN_OPTIONS)
        if claims["type"] != "access":
            raise NotAuthenticated
        return int(claims["sub"]), int(claims["sid"])
    # Beside its own errors PyJWT lets through what json and int raise for hostile headers and claims.
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise NotAuthenticated from error


ACCESS_TOKEN_OPTIONS: Any = {  # Any: the TypedDict of these options is private to PyJWT
    "require": ["sub", "sid", "iat", "exp", "jti", "type"],
    "enforce_minimum_key_length": True,
}


# Who is calling


bearer = OAuth2PasswordBearer("/api/v1/auth/token", refreshUrl="/api/v1/auth/token", auto_error=False)


# Made once: every request runs it, and building a statement takes longer than SQLite needs to answer it.
LIVING_USER = (
    select(User)
    .join(LoginSession, col(LoginSession.user_id) == User.id)
    .where(User.id == bindparam("user_id"), LoginSession.id == bindparam("session_id"), col(User.is_active))
)


class Caller(Deferred[User]):
    """Who calls, by the access token; the account is read when the route has its session."""

    def __init__(self, token: str | None, secret_key: str, *, must_be_admin: bool) -> None:
        self.user_id, self.session_id = read_access_token(token, secret_key)
        self.must_be_admin = must_be_admin
        self.user: User | None = None

    def resolve(self, request: Request, session: Session) -> User:
        """The active account behind the token, as of now; read once a request.

        Raises:
            NotAuthenticated: the session or the account is gone.
            Forbidden: the caller is a member where an admin is asked for.
        """
        if self.user is None:
            ids = {"user_id": self.user_id, "session_id": self.session_id}
            self.user = session.exec(LIVING_USER, params=ids).one_or_none()
        if self.user is None:
            raise NotAuthenticated
        request.state.user_id = self.user.id
        if self.must_be_admin and not self.user.is_admin:
            raise Forbidden
        return self.user


class CallersSession(Deferred[int]):
    """The id of the caller's login session, once it is known that it still lives."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def resolve(self, request: Request, session: Session) -> int:
        """The id."""
        self.caller.resolve(request, session)
        return self.caller.session_id


# These dependencies are `async def` so that they need no thread; they only check a signature and do no I/O.


@raises(NotAuthenticated)
async def current_user(request: Request, token: Annotated[str | None, Depends(bearer)]) -> Caller:
    """The caller, whoever it is."""
    request.scope["caller"] = caller = Caller(token, request.app.state.secret_key, must_be_admin=False)
    return caller


@raises(NotAuthenticated, Forbidden)
async def admin_user(request: Request, token: Annotated[str | None, Depends(bearer)]) -> Caller:
    """The caller, who must be an admin."""
    request.scope["caller"] = caller = Caller(token, request.app.state.secret_key, must_be_admin=True)
    return caller


async def current_session(caller: Annotated[Caller, Depends(current_user)]) -> CallersSession:
    """The caller's login session."""
    return CallersSession(caller)


CurrentUser = Annotated[User, Depends(current_user)]
AdminUser = Annotated[User, Depends(admin_user)]
CurrentSession = Annotated[int, Depends(current_session)]


# Proof of a password


@dataclass(frozen=True)
class Proof:
    """What one check of a password found; it counts only after `settle`."""

    email: str
    user_id: int | None
    password_hash: str = ""


def prove(database: Database, email: str, password: str) -> Proof:
    """Check a password with exactly one hash computation, whether or not there is such an account.

    Raises:
        TooManyAttempts: signing in to this account failed too often of late.
    """
    email = email.strip().lower()
    settings = database.settings
    with database.read() as session:
        _refuse_blocked(session, email, settings)
        user = session.exec(select(User).where(User.email == email)).one_or_none()
    password_hash = user.password_hash if user else _nobodys_hash(settings.bcrypt_rounds)
    proven = check_password(password, password_hash)
    return Proof(email, user.id, password_hash) if user and proven else Proof(email, None)


def settle(session: Session, proof: Proof, settings: Settings) -> User:
    """Count the result of a check, and return the account if it is still the one that was proven.

    What happened while the hash was computed (a password change, a deactivation, a deletion, other guesses) wins.

    Raises:
        InvalidCredentials: the password was wrong, or the account is unknown, inactive or changed.
        TooManyAttempts: other guesses used up the attempts meanwhile.
    """
    _refuse_blocked(session, proof.email, settings)
    user = session.get(User, proof.user_id, with_for_update=True) if proof.user_id else None
    if user is None or not user.is_active or user.password_hash != proof.password_hash:
        FailedSignIn.count(session, proof.email, timedelta(seconds=settings.login_window_seconds))
        raise InvalidCredentials
    FailedSignIn.clear(session, proof.email)
    return user


def _refuse_blocked(session: Session, email: str, settings: Settings) -> None:
    if seconds := FailedSignIn.seconds_left(session, email, settings.login_attempts):
        raise TooManyAttempts(seconds)


# Dependencies that hash; `async def` so that they wait for their turn without a thread, they do no I/O themselves


class TokenForm(BaseModel):
    """The form of RFC 6749, 4.3.2 and 6; fields beyond these are ignored."""

    grant_type: str = "password"
    username: str = ""
    password: str = ""
    refresh_token: str = ""


async def checked_grant(request: Request, form: Annotated[TokenForm, Form()]) -> Proof | str:
    """What the form proves: a password (checked, not yet settled) or a refresh token (not yet checked).

    Raises:
        BadRequest: a field is missing.
        UnsupportedGrantType: the grant type is another one.
    """
    if any(FORBIDDEN_TEXT.search(text) for text in form.model_dump().values()):
        raise BadRequest("The form has a NUL or half a character in it.")
    match form.grant_type:
        case "password" if form.username and form.password:
            return await hashing(request, partial(prove, _database(request), form.username, form.password))
        case "password":
            raise BadRequest("Send the form fields username and password.")
        case "refresh_token" if form.refresh_token:
            return form.refresh_token
        case "refresh_token":
            raise BadRequest("Send the form field refresh_token.")
        case _:
            raise UnsupportedGrantType


async def registered_password_hash(request: Request, data: UserRegister) -> str:
    """The hash of the password of a new account."""
    if not _settings(request).registration_open:
        raise RegistrationClosed
    return await hashing(request, partial(hash_password, data.password, _settings(request).bcrypt_rounds))


CheckedGrant = Annotated[Proof | str, Depends(checked_grant)]
RegisteredPasswordHash = Annotated[str, Depends(registered_password_hash)]


def _settings(request: Request) -> Settings:
    return request.app.state.settings


def _database(request: Request) -> Database:
    return request.app.state.database


def ensure_admin(database: Database) -> None:
    """Make the admin that the settings name, where there is no user yet.

    Raises:
        StartRefused: the password is too weak.
    """
    settings = database.settings
    if settings.admin_email is None or settings.admin_password is None:
        return
    with database.read() as session:
        if session.exec(select(User.id).limit(1)).first() is not None:
            return
    try:
        create_admin(database, settings.admin_email, settings.admin_password.get_secret_value())
    except ValidationError as error:
        raise StartRefused(f"APP_ADMIN_PASSWORD is wrong: {error.errors()[0]['msg']}.") from error
    except IntegrityError:
        pass  # another worker was first


def create_admin(database: Database, email: str, password: str, full_name: str = "Admin") -> User:
    """Make an admin without anybody being signed in.

    Raises:
        ValidationError: the e-mail or the password is not acceptable.
        IntegrityError: the e-mail is taken.
    """
    data = UserCreate(email=email, full_name=full_name, password=password, role="admin")
    password_hash = hash_password(password, database.settings.bcrypt_rounds)
    with ending(database.write()) as session:
        return User.create(session, data, password_hash)


# Routes

public_router = Router(public=True, prefix="/api/v1/auth", tags=["auth"])  # all that works without an access token
router = Router(prefix="/api/v1/auth", tags=["auth"])


@public_router.post(
    "/register", status_code=201, response_model=UserPublic, responses=problems(EmailTaken, RegistrationClosed)
)
def register(data: UserRegister, password_hash: RegisteredPasswordHash, session: WriteSession) -> User:
    """Make an account of one's own; the first one ever is an admin, every later one a member."""
    return User.create(session, data, password_hash)


@public_router.post("/token", responses=problems(InvalidCredentials, TooManyAttempts))
def create_token(request: Request, grant: CheckedGrant, session: WriteSession) -> TokenPair:
    """Sign in with e-mail and password, or refresh: spend a refresh token for a new pair (RFC 6749).

    A refresh token that was spent already ends its whole session. Errors also carry `error` and `error_description`.
    """
    settings = _settings(request)
    lifetime = timedelta(days=settings.refresh_token_days)
    if isinstance(grant, str):
        return issue_tokens(request, *LoginSession.refresh(session, grant, lifetime))
    user = settle(session, grant, settings)
    ip = request.client.host if request.client else ""
    agent = request.headers.get("user-agent", "")
    return issue_tokens(request, *LoginSession.start(session, user, lifetime, user_agent=agent, ip=ip))


@router.get("/sessions")
def list_sessions(user: CurrentUser, current: CurrentSession, session: ReadSession) -> list[LoginSessionPublic]:
    """List where the caller is signed in, the latest use first."""
    mine = select(LoginSession).where(LoginSession.user_id == user.id, LoginSession.expires_at > now())
    rows = session.exec(mine.order_by(col(LoginSession.last_used_at).desc(), col(LoginSession.id)))
    return [LoginSessionPublic.model_validate(row, update={"current": row.id == current}) for row in rows]


@router.delete("/sessions/current", status_code=204)
def end_current_session(current: CurrentSession, session: WriteSession) -> None:
    """Sign out here."""
    session.delete(session.get_one(LoginSession, current))


@router.delete("/sessions/{session_id}", status_code=204)
def end_session(session_id: Id, user: CurrentUser, session: WriteSession) -> None:
    """Sign out there: end one of the caller's sessions."""
    mine = select(LoginSession).where(LoginSession.id == session_id, LoginSession.user_id == user.id)
    session.delete(session.exec(mine).one())


@router.delete("/sessions", status_code=204)
def end_all_sessions(user: CurrentUser, session: WriteSession) -> None:
    """Sign out everywhere, here included."""
    user.sign_out_everywhere(session)
