"""Access tokens and password hashes: how they are made and checked. No table: who has one is the app's to know."""

import base64
import hmac
import os
from asyncio import Future, get_running_loop
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Literal, NamedTuple
from uuid import uuid4

import bcrypt
import jwt
from anyio import CapacityLimiter, to_thread
from fastapi import Request
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from starlette.types import Scope

from kit.models import Id, now
from kit.problems import DatabaseBusy, NotAuthenticated
from kit.processes import Places

MAX_TOKEN_LENGTH = 4096
TO_BCRYPT = bytes.maketrans(  # the alphabet of base64 in the order of bcrypt's
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
)
PASSWORD_DOMAIN = b"password"  # not a secret: it keeps these hashes apart from other uses of HMAC
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # of this process
MAX_WAITING = 32 * CORES  # some eight seconds of work at 12 rounds

# Access tokens


class Claims(BaseModel):
    """What of a token is used; ids beyond 64 bits would be an error of the database."""

    sub: Id
    sid: Annotated[Id, Field(strict=True)]
    exp: Annotated[float, Field(allow_inf_nan=False)]
    type: Literal["access", "page"]
    renewals: int = 0
    """Of a page token: how often its login session had been renewed when it was signed."""

    @property
    def is_living(self) -> bool:
        """Whether the token has not expired yet."""
        return self.exp > now().timestamp()


TOKEN_OPTIONS: Any = {  # Any: the TypedDict of these options is private to PyJWT
    "require": ["sub", "sid", "iat", "exp", "jti", "type"],
    "enforce_minimum_key_length": True,
    "verify_exp": False,  # it changes with time, and the rest of the check is cached: see `Claims.is_living`
}


def sign_access_token(secret_key: str, user_id: int, session_id: int, lifetime: timedelta) -> str:
    """A JWT (HS256) that says who calls and from which login session."""
    return _signed(secret_key, user_id, session_id, lifetime, type="access")


def sign_page_token(secret_key: str, user_id: int, session_id: int, lifetime: timedelta, renewals: int) -> str:
    """The same for the cookie of a browser; the API does not take it, and pages take no other."""
    return _signed(secret_key, user_id, session_id, lifetime, type="page", renewals=renewals)


def _signed(secret_key: str, user_id: int, session_id: int, lifetime: timedelta, **more: Any) -> str:
    issued_at = now()
    claims: dict[str, Any] = {
        "sub": str(user_id),
        "sid": session_id,
        "iat": issued_at,
        "exp": issued_at + lifetime,
        "jti": uuid4().hex,
    }
    return jwt.encode(claims | more, secret_key, algorithm="HS256")


def read_access_token(token: str, secret_key: str) -> Claims:
    """The claims of an access token whose signature is right and which has not expired.

    Raises:
        NotAuthenticated: it is malformed, expired, or not an access token.
    """
    claims = _verified(token, secret_key)
    if claims.type != "access" or not claims.is_living:
        raise NotAuthenticated
    return claims


def read_page_token(token: str, secret_key: str) -> Claims:
    """The claims of a page token whose signature is right; it may have expired, which its cookie survives.

    Raises:
        NotAuthenticated: it is malformed, or not a page token.
    """
    claims = _verified(token, secret_key)
    if claims.type != "page":
        raise NotAuthenticated
    return claims


@lru_cache(maxsize=1_000)
def _verified(token: str, secret_key: str) -> Claims:
    # The signature of a token never changes, so the check is cached: a client sends one token for a quarter of an hour.
    if len(token) > MAX_TOKEN_LENGTH:
        raise NotAuthenticated
    try:
        return Claims.model_validate(jwt.decode(token, secret_key, algorithms=["HS256"], options=TOKEN_OPTIONS))
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


PASSWORD_RULE = "At least 8 characters: a lower-case and an upper-case letter, a digit and a special one; or any 16."  # noqa: S105


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


def rounds_of(password_hash: str) -> int:
    """How slow a hash is: each round doubles the time."""
    return int(password_hash.split("$")[2])


def take_as_long_as(rounds: int, password_hash: str) -> None:
    """After a check of `password_hash`, spend what one of `rounds` would have taken more.

    2^r and all powers of two from there on below 2^n add up to 2^n.
    """
    for missing in range(rounds_of(password_hash), rounds):
        check_password("", nobodys_hash(missing))


def renewed_hash(password: str, password_hash: str, rounds: int) -> str:
    """The hash of the same password with other rounds; of two sign-ins at once both make the same one."""
    salt = base64.b64encode(sha256(password_hash.encode()).digest()[:16])[:22].translate(TO_BCRYPT)
    return bcrypt.hashpw(_prehash(password), b"$2b$%02d$%b" % (rounds, salt)).decode()


def _prehash(password: str) -> bytes:
    # bcrypt reads 72 bytes and stops at a NUL; 48 bytes in base64 are 64 characters without one.
    return base64.b64encode(hmac.digest(PASSWORD_DOMAIN, password.encode(), "sha384"))


class Hashing(NamedTuple):
    """What is to be hashed, and for which account."""

    account: str
    work: Callable[[], Any]


class HashingSlots:
    """Hashes at most as many passwords at once as there are cores; the rest wait without a thread.

    `places` are those of all workers together; without them each worker has as many. Addresses take turns, and so do
    the accounts of each address, so that nobody who asks often keeps others waiting.
    """

    def __init__(self, places: Places | None = None) -> None:
        self.places = places
        self.limiter = CapacityLimiter(CORES)
        self.running = 0
        self.waiting: OrderedDict[str, OrderedDict[str, deque[Future[None]]]] = OrderedDict()

    async def run(self, address: str, hashing: Hashing) -> Any:
        """Wait for a turn and do the work in a thread. Does no I/O itself.

        Raises:
            DatabaseBusy: so many wait that their clients would give up first, and most of them are of this account.
        """
        has_waited = self.running >= CORES
        if has_waited:
            await self._turn(address, hashing.account)
        else:
            self.running += 1
        try:
            async with self.places.place(after_own=has_waited) if self.places else nullcontext():
                return await to_thread.run_sync(hashing.work, limiter=self.limiter)
        finally:
            self._give_turn()

    async def _turn(self, address: str, account: str) -> None:
        turn = get_running_loop().create_future()
        self.waiting.setdefault(address, OrderedDict()).setdefault(account, deque()).append(turn)
        if sum(len(turns) for accounts in self.waiting.values() for turns in accounts.values()) > MAX_WAITING:
            self._refuse_one()
        try:
            await turn
        except BaseException:  # refused, or its client has left
            if turn.cancelled():
                self._forget(turn, address, account)
            elif turn.exception() is None:
                self._give_turn()
            raise

    def _refuse_one(self) -> None:
        """Refuse the last one of the account that has most, at the address that has most."""
        address = max(self.waiting, key=lambda address: sum(map(len, self.waiting[address].values())))
        account = max(self.waiting[address], key=lambda account: len(self.waiting[address][account]))
        turn = self.waiting[address][account][-1]
        self._forget(turn, address, account)  # at once: the next one may come before this one has heard of it
        if not turn.done():
            turn.set_exception(DatabaseBusy())

    def _give_turn(self) -> None:
        """Pass a slot on to the next account of the next address, or give it back."""
        places = [(address, account) for address, accounts in self.waiting.items() for account in accounts]
        for address, account in places:
            turn = next((turn for turn in self.waiting[address][account] if not turn.done()), None)
            if turn is not None:
                self.waiting[address].move_to_end(account)
                self.waiting.move_to_end(address)
                self._forget(turn, address, account)
                turn.set_result(None)
                return
        self.running -= 1

    def _forget(self, turn: Future[None], address: str, account: str) -> None:
        accounts = self.waiting.get(address, OrderedDict())
        turns = accounts.get(account, deque())
        if turn in turns:
            turns.remove(turn)
        if not turns:
            accounts.pop(account, None)
        if not accounts:
            self.waiting.pop(address, None)


def client_address(scope: Scope) -> str:
    """The address that is counted; of IPv6 its network, because whoever has one address has all 2^64 of it."""
    host: str = scope["client"][0] if scope["client"] else ""
    try:
        address = ip_address(host)
    except ValueError:  # the path of a socket, or whatever else a trusted proxy calls its client
        return host
    if isinstance(address, IPv4Address):
        return host
    return str(address.ipv4_mapped or IPv6Address(address.packed[:8] + bytes(8)))
