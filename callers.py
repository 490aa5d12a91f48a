"""Who is calling: access tokens are checked here, and the account behind one is read in the route's own thread."""

from typing import Annotated, Any, Literal

import jwt
from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, Field
from sqlalchemy import bindparam
from sqlmodel import Session, col, select

from models import Id, LoginSession, User
from problems import Forbidden, NotAuthenticated
from routing import Deferred, raises

LONGEST_TOKEN = 4096


def read_access_token(token: str | None, secret_key: str) -> tuple[int, int]:
    """The ids of the user and of the login session that an access token names.

    Raises:
        NotAuthenticated: it is missing, malformed, expired, or not an access token.
    """
    if token is None or len(token) > LONGEST_TOKEN:
        raise NotAuthenticated
    try:
        claims = Claims.model_validate(
            jwt.decode(token, secret_key, algorithms=["HS256"], options=ACCESS_TOKEN_OPTIONS)
        )
    # Beside its own errors PyJWT lets through what json and int raise for hostile headers and claims.
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise NotAuthenticated from error
    return claims.sub, claims.sid


class Claims(BaseModel):
    """What of an access token is used; ids beyond 64 bits would be an error of the database."""

    sub: Id
    sid: Annotated[Id, Field(strict=True)]
    type: Literal["access"]


ACCESS_TOKEN_OPTIONS: Any = {  # Any: the TypedDict of these options is private to PyJWT
    "require": ["sub", "sid", "iat", "exp", "jti", "type"],
    "enforce_minimum_key_length": True,
}


bearer = OAuth2PasswordBearer("/api/v1/auth/token", refreshUrl="/api/v1/auth/token", auto_error=False)


# Made once: every request runs it, and building a statement takes longer than SQLite needs to answer it.
LIVING_USER = (
    select(User)
    .join(LoginSession, col(LoginSession.user_id) == User.id)
    .where(User.id == bindparam("user_id"), LoginSession.id == bindparam("session_id"), col(User.is_active))
)


class Caller(Deferred[User]):
    """Who calls, by the access token; the account is read when the route has its session."""

    def __init__(self, request: Request, token: str | None, *, must_be_admin: bool) -> None:
        if len(request.headers.getlist("authorization")) > 1:  # a proxy may read the other one
            raise NotAuthenticated
        self.user_id, self.session_id = read_access_token(token, request.app.state.secret_key)
        self.must_be_admin = must_be_admin
        self.found: tuple[Session, User] | None = None

    def resolve(self, request: Request, session: Session) -> User:
        """The active account behind the token, as of now; read once in each session.

        Raises:
            NotAuthenticated: the session or the account is gone.
            Forbidden: the caller is a member where an admin is asked for.
        """
        if self.found is not None and self.found[0] is session:
            return self.found[1]
        ids = {"user_id": self.user_id, "session_id": self.session_id}
        user = session.exec(LIVING_USER, params=ids).one_or_none()
        if user is None:
            raise NotAuthenticated
        request.state.user_id = session.info["actor_id"] = user.id
        if self.must_be_admin:
            user.require_admin()
        self.found = session, user
        return user


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
    request.scope["caller"] = caller = Caller(request, token, must_be_admin=False)
    return caller


@raises(NotAuthenticated, Forbidden)
async def admin_user(request: Request, token: Annotated[str | None, Depends(bearer)]) -> Caller:
    """The caller, who must be an admin."""
    request.scope["caller"] = caller = Caller(request, token, must_be_admin=True)
    return caller


async def current_session(caller: Annotated[Caller, Depends(current_user)]) -> CallersSession:
    """The caller's login session."""
    return CallersSession(caller)


CurrentUser = Annotated[User, Depends(current_user)]
AdminUser = Annotated[User, Depends(admin_user)]
CurrentSession = Annotated[int, Depends(current_session)]
