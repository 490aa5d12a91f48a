"""Signing in: the token endpoint, registration and login sessions."""

from datetime import timedelta
from functools import partial
from typing import Annotated, Any
from uuid import uuid4

import jwt
from fastapi import BackgroundTasks, Depends, Form, Request
from pydantic import BaseModel
from sqlmodel import col, select

from callers import CurrentSession, CurrentUser
from kit.db import Database, ReadSession, WriteSession
from kit.errors import problems
from kit.mail import Mailer
from kit.problems import (
    BadRequest,
    EmailTaken,
    InvalidCredentials,
    RegistrationClosed,
    TooManyAttempts,
    UnsupportedGrantType,
)
from kit.routing import Router
from kit.strict import FORBIDDEN_TEXT
from models import (
    Id,
    LoginSession,
    LoginSessionPublic,
    User,
    UserPublic,
    UserRegister,
    now,
)
from passwords import Proof, hash_password, hashing, prove, settle
from settings import Settings

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


# Routes

public_router = Router(public=True, prefix="/api/v1/auth", tags=["auth"])  # all that works without an access token
router = Router(prefix="/api/v1/auth", tags=["auth"])


@public_router.post(
    "/register", status_code=201, response_model=UserPublic, responses=problems(EmailTaken, RegistrationClosed)
)
def register(
    request: Request,
    tasks: BackgroundTasks,
    data: UserRegister,
    password_hash: RegisteredPasswordHash,
    session: WriteSession,
) -> User:
    """Make an account of one's own; the first one ever is an admin, every later one a member."""
    mailer: Mailer = request.app.state.mailer
    tasks.add_task(mailer.send, "welcome", data.email, full_name=data.full_name)
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
    LoginSession.end_all(session, user.id)
