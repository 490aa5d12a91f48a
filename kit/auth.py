"""Access tokens and password hashes: how they are made and checked. No table: who has one is the app's to know."""

import base64
import hmac
import os
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

import bcrypt
import jwt
from anyio import CapacityLimiter, to_thread
from fastapi import Request
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from kit.models import Id, now
from kit.problems import DatabaseBusy, NotAuthenticated

Result = TypeVar("Result")

MAX_TOKEN_LENGTH = 4096
PASSWORD_DOMAIN = b"password"  # not a secret: it keeps these hashes apart from other uses of HMAC
CORES = os.cpu_count() or 1
MAX_WAITING = 32 * CORES  # some eight seconds of work at 12 rounds

# Access tokens


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


def sign_access_token(secret_key: str, user_id: int, session_id: int, lifetime: timedelta) -> str:
    """A JWT (HS256) that says who calls and from which login session."""
    issued_at = now()
    claims: dict[str, Any] = {
        "sub": str(user_id),
        "sid": session_id,
        "iat": issued_at,
        "exp": issued_at + lifetime,
        "jti": uuid4().hex,
        "type": "access",
    }
    return jwt.encode(claims, secret_key, algorithm="HS256")


def read_access_token(token: str, secret_key: str) -> Claims:
    """The claims of an access token whose signature is right and which has not expired.

    Raises:
        NotAuthenticated: it is malformed, expired, or not an access token.
    """
    claims = _verified(token, secret_key)
    if claims.exp <= now().timestamp():
        raise NotAuthenticated
    return claims


@lru_cache(maxsize=1_000)
def _verified(token: str, secret_key: str) -> Claims:
    # The signature of a token never changes, so the check is cached: a client sends one token for a quarter of an hour.
    if len(token) > MAX_TOKEN_LENGTH:
        raise NotAuthenticated
    try:
        return Claims.model_validate(jwt.decode(token, secret_key, algorithms=["HS256"], options=ACCESS_TOKEN_OPTIONS))
    # Beside its own errors PyJWT lets through what json and int raise for hostile headers and claims.
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise NotAuthenticated from error


def bearer_claims(request: Request) -> Claims:
    """The claims of the token in `Authorization` (RFC 6750, 2.1); signature and expiry are checked.

    Raises:
        NotAuthenticated: there is none, more than one, or not a valid one.
    """
    values = request.headers.getlist("authorization")
    if len(values) != 1:  # of two a proxy may read the other one
        raise NotAuthenticated
    scheme, token = get_authorization_scheme_param(values[0])
    if scheme.lower() != "bearer":
        raise NotAuthenticated
    return read_access_token(token, request.app.state.secret_key)


# Passwords


def _is_special(character: str) -> bool:
    return not character.isalnum()


def _strong(password: str) -> str:
    kinds: list[Callable[[str], bool]] = [str.islower, str.isupper, str.isdigit, _is_special]
    if len(password) < 16 and not all(any(kind(character) for character in password) for kind in kinds):
        raise ValueError(
            "Use a lower-case letter, an upper-case letter, a digit and a special character, or at least 16 characters"
        )
    return password


GivenPassword = Annotated[str, StringConstraints(strip_whitespace=False, min_length=1, max_length=128)]
NewPassword = Annotated[
    str, StringConstraints(strip_whitespace=False, min_length=8, max_length=128), AfterValidator(_strong)
]


def hash_password(password: str, rounds: int) -> str:
    """Hash a password with bcrypt; takes a quarter of a second at 12 rounds."""
    return bcrypt.hashpw(_prehash(password), bcrypt.gensalt(rounds)).decode()


def check_password(password: str, password_hash: str) -> bool:
    """Whether `password` has this hash; takes as long as hashing it."""
    return bcrypt.checkpw(_prehash(password), password_hash.encode())


def nobodys_hash(rounds: int) -> str:
    """A hash that no password has, so that an unknown account costs the same single computation."""
    return (bcrypt.gensalt(rounds) + b"." * 31).decode()


def _prehash(password: str) -> bytes:
    # bcrypt reads 72 bytes and stops at a NUL; 48 bytes in base64 are 64 characters without one.
    return base64.b64encode(hmac.digest(PASSWORD_DOMAIN, password.encode(), "sha384"))


class HashingSlots:
    """Hashes at most as many passwords at once as there are cores; the rest wait without a thread."""

    def __init__(self) -> None:
        self.limiter = CapacityLimiter(CORES)
        self.taken = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do `work` in a thread. Does no I/O itself.

        Raises:
            DatabaseBusy: so many wait that their clients would give up first.
        """
        if self.taken >= CORES + MAX_WAITING:
            raise DatabaseBusy
        self.taken += 1  # the limiter itself counts a moment later, when all of a burst have passed the line above
        try:
            return await to_thread.run_sync(work, limiter=self.limiter)
        finally:
            self.taken -= 1
