"""Who is calling: access tokens are checked here, and the account behind one is read in the route's own thread."""

from functools import lru_cache
from typing import Annotated, Any, Literal

import jwt
from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer
from fastapi.security.base import SecurityBase
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import BaseModel, Field
from sqlalchemy import bindparam, select
from sqlmodel import Session, col

from kit.errors import TOKEN_PATH
from kit.problems import Forbidden, NotAuthenticated
from kit.routing import Deferred, raises
from models import Id, LoginSession, Principal, User, now

LONGEST_TOKEN = 4096


def read_access_token(token: str, secret_key: str) -> tuple[int, int]:
    """The ids of the user and of the login session that an access token names.

    Raises:
        NotAuthenticated: it is malformed, expired, or not an access token.
    """
    claims = _verified(token, secret_key)
    if claims.exp <= now().timestamp():
        raise NotAuthenticated
    return claims.sub, claims.sid


class Claims(BaseModel):
    """What of an access token is used; ids beyond 64 bits would be an error of the database."""

    sub: Id
    sid: Annotated[Id, Field(strict=True)]
    exp: float
    type: Literal["access"]


ACCESS_TOKEN_OPTIONS: Any = {  # Any: the TypedDict of these options is private to PyJWT
    "require": ["sub", "sid", "iat", "exp", "jti", "type"],
    "enforce_minimum_key_length": True,
}


@lru_cache(maxsize=1_000)
def _verified(token: str, secret_key: str) -> Claims:
    # The same text is signed the same for ever, and comes with every request of a quarter of an hour.
    if len(token) > LONGEST_TOKEN:
        raise NotAuthenticated
    try:
        return Claims.model_validate(jwt.decode(token, secret_key, algorithms=["HS256"], options=ACCESS_TOKEN_OPTIONS))
    # Beside its own errors PyJWT lets through what json and int raise for hostile headers and claims.
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise NotAuthenticated from error


# Made once: every request runs it, and building a statement takes longer than SQLite needs to answer it.
LIVING_PRINCIPAL = (
    select(*(getattr(User, field) for field in Principal._fields))
    .join(LoginSession, col(LoginSession.user_id) == User.id)
    .where(col(User.id) == bindparam("user_id"), col(LoginSession.id) == bindparam("session_id"), col(User.is_active))
)


class Caller(Deferred[Principal]):
    """Who calls, by the access token; the account is read when the route has its session."""

    def __init__(self, user_id: int, session_id: int, *, must_be_admin: bool) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.must_be_admin = must_be_admin
        self.found: tuple[Session, Principal] | None = None

    def resolve(self, request: Request, session: Session) -> Principal:
        """The active account behind the token, as of now; read once in each session.

        Raises:
            NotAuthenticated: the session or the account is gone.
            Forbidden: the caller is a member where an admin is asked for.
        """
        if self.found is not None and self.found[0] is session:
            return self.found[1]
        ids = {"user_id": self.user_id, "session_id": self.session_id}
        row = session.connection().execute(LIVING_PRINCIPAL, ids).one_or_none()
        if row is None:
            raise NotAuthenticated
        user = Principal(*row)
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


class Guard(SecurityBase):
    """The dependency that finds out who calls; a class, so that the documentation knows where to get a token.

    It is `async def` so that it needs no thread, and only checks a signature: it does no I/O.
    """

    model = OAuth2PasswordBearer(TOKEN_PATH, refreshUrl=TOKEN_PATH).model
    scheme_name = "OAuth2PasswordBearer"

    def __init__(self, *, must_be_admin: bool) -> None:
        self.must_be_admin = must_be_admin

    async def __call__(self, request: Request) -> Caller:
        """The caller, by the token in `Authorization` (RFC 6750, 2.1)."""
        values = request.headers.getlist("authorization")
        if len(values) != 1:  # of two a proxy may read the other one
            raise NotAuthenticated
        scheme, token = get_authorization_scheme_param(values[0])
        if scheme.lower() != "bearer":
            raise NotAuthenticated
        ids = read_access_token(token, request.app.state.secret_key)
        request.scope["caller"] = caller = Caller(*ids, must_be_admin=self.must_be_admin)
        return caller


current_user = raises(NotAuthenticated)(Guard(must_be_admin=False))
admin_user = raises(NotAuthenticated, Forbidden)(Guard(must_be_admin=True))


async def current_session(caller: Annotated[Caller, Depends(current_user)]) -> CallersSession:
    """The caller's login session. Does no I/O."""
    return CallersSession(caller)


CurrentUser = Annotated[Principal, Depends(current_user)]
AdminUser = Annotated[Principal, Depends(admin_user)]
CurrentSession = Annotated[int, Depends(current_session)]
