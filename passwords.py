"""Passwords: hashing them, proving them, how often one may be wrong, and the admin that is made without signing in."""

import base64
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import bcrypt
from anyio import CapacityLimiter, to_thread
from fastapi import Request
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from kit.db import Database, ending
from kit.problems import DatabaseBusy, InvalidCredentials
from models import FailedSignIn, User, UserCreate, stored_email
from settings import Settings, StartRefused

T = TypeVar("T")
PASSWORD_DOMAIN = b"stockroom password"  # not a secret: it keeps our hashes apart from other uses of HMAC
CORES = os.cpu_count() or 1
MOST_WAITING = 32 * CORES  # some eight seconds of work at 12 rounds


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
    """Do `work` in a thread, at most as many at once as there are cores; the rest wait without a thread.

    Raises:
        DatabaseBusy: so many wait that their clients would give up first.
    """
    slots: HashingSlots = request.app.state.hashing_slots
    if slots.taken >= CORES + MOST_WAITING:
        raise DatabaseBusy
    slots.taken += 1  # the limiter itself counts a moment later, when all of a burst have passed the line above
    try:
        return await to_thread.run_sync(work, limiter=slots.limiter)
    finally:
        slots.taken -= 1


class HashingSlots:
    """How many passwords are hashed at once: sign-ins must not take every core from everyone else."""

    def __init__(self) -> None:
        self.limiter = CapacityLimiter(CORES)
        self.taken = 0


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
    email = stored_email(email)
    settings = database.settings
    with database.read() as session:
        FailedSignIn.refuse_blocked(session, email, settings.login_attempts)
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
    attempts, window = settings.login_attempts, timedelta(seconds=settings.login_window_seconds)
    FailedSignIn.refuse_blocked(session, proof.email, attempts, lock=True)
    user = session.get(User, proof.user_id, with_for_update=True) if proof.user_id else None
    if user is None or not user.is_active or user.password_hash != proof.password_hash:
        FailedSignIn.count(session, proof.email, attempts, window)
        raise InvalidCredentials
    FailedSignIn.clear(session, proof.email)
    return user


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
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise StartRefused(f"APP_ADMIN_PASSWORD is wrong: {message}.") from error
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
