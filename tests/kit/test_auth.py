"""Access tokens and passwords: which are accepted, what a hash depends on, and how many are computed at once."""

import asyncio
import json
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from hmac import digest
from threading import Event, Lock
from time import sleep, time
from types import SimpleNamespace
from typing import Any

import anyio
import bcrypt
import jwt
import pytest
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from kit import auth
from kit.auth import (
    Claims,
    GivenPassword,
    Hashing,
    HashingSlots,
    NewPassword,
    bearer_claims,
    check_password,
    hash_password,
    nobodys_hash,
    read_access_token,
    renewed_hash,
    rounds_of,
    sign_access_token,
    take_as_long_as,
)
from kit.models import clock_at, now
from kit.problems import DatabaseBusy, NotAuthenticated
from tests.server import ROOT

KEY = "a key for these tests that nobody else may use"
LIFETIME = timedelta(minutes=15)
HEADER = {"alg": "HS256", "typ": "JWT"}
DEEP = b"[" * 1500

# Access tokens


@pytest.fixture
def token() -> str:
    return sign_access_token(KEY, 5, 7, LIFETIME)


def encoded(part: object) -> bytes:
    return urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=")


def signed(header: object, claims: object, *, key: str = KEY, method: str = "sha256") -> str:
    content = encoded(header) + b"." + encoded(claims)
    return (content + b"." + encoded(digest(key.encode(), content, method))).decode()


def claims_of(token: str, **changes: Any) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, KEY, algorithms=["HS256"])
    return claims | changes


def is_accepted(token: str, key: str = KEY) -> bool:
    try:
        read_access_token(token, key)
    except NotAuthenticated:
        return False
    return True


def test_an_access_token_says_who_where_and_until_when(token: str) -> None:
    claims = claims_of(token)
    read = read_access_token(token, KEY)

    assert jwt.get_unverified_header(token) == HEADER
    assert set(claims) == {"sub", "sid", "iat", "exp", "jti", "type"}
    assert (claims["sub"], claims["sid"], claims["type"], claims["exp"] - claims["iat"]) == ("5", 7, "access", 900)
    assert abs(claims["iat"] - time()) < 30
    assert read == Claims(sub=5, sid=7, exp=claims["exp"], type="access")


def test_no_two_access_tokens_are_alike(token: str) -> None:
    assert claims_of(sign_access_token(KEY, 5, 7, LIFETIME))["jti"] != claims_of(token)["jti"]


def test_the_tokens_of_these_tables_are_refused_for_what_they_say_alone(token: str) -> None:
    assert is_accepted(signed(HEADER, claims_of(token)))


WRONG_SIGNATURES: list[tuple[object, dict[str, str]]] = [
    ({"alg": "none"}, {}),
    ({"alg": "None"}, {}),
    ({"alg": "HS512"}, {"method": "sha512"}),
    ({"alg": "HS384"}, {"method": "sha384"}),
    ({"alg": "RS256"}, {}),
    ({"alg": ["HS256"]}, {}),
    ({"alg": None}, {}),
    ({}, {}),
    ([], {}),
    ("HS256", {}),
    (DEEP, {}),
    (b"\xff\xfe", {}),
    (HEADER | {"crit": ["exp"]}, {}),
    (HEADER | {"b64": False}, {}),
    (HEADER, {"key": "another key, just as long as the one for the tests"}),
    (HEADER, {"key": ""}),
    (HEADER, {"method": "sha512"}),
]


def test_a_token_that_is_signed_otherwise_is_refused(token: str, subtests: pytest.Subtests) -> None:
    for header, options in WRONG_SIGNATURES:
        with subtests.test(header=str(header)[:50], **options):
            assert not is_accepted(signed(header, claims_of(token), **options))


def test_a_key_that_is_long_enough_for_other_algorithms_serves_one_only(token: str) -> None:
    key, algorithms = KEY * 3, ("HS256", "HS384", "HS512")
    accepted = [is_accepted(jwt.encode(claims_of(token), key, algorithm=algorithm), key) for algorithm in algorithms]

    assert accepted == [True, False, False]


def test_a_token_without_a_signature_is_refused(token: str) -> None:
    content, _, _ = token.rpartition(".")
    unsigned = encoded({"alg": "none"}) + b"." + encoded(claims_of(token)) + b"."

    assert [is_accepted(wrong) for wrong in (f"{content}.", content, unsigned.decode())] == [False] * 3


def test_a_token_without_one_of_its_claims_is_refused(token: str, subtests: pytest.Subtests) -> None:
    for claim in ("sub", "sid", "iat", "exp", "jti", "type"):
        with subtests.test(claim):
            claims = claims_of(token)
            del claims[claim]

            assert not is_accepted(signed(HEADER, claims))


WRONG_CLAIMS: dict[str, list[Any]] = {
    "type": ["refresh", "ACCESS", "", None, ["access"], True],
    "sub": ["", "x", "0", "-1", "+1", " 1", "1.0", "\u0661", "1_0", str(2**63), "2" * 40, None, 1, True, [1]],
    "sid": [0, -1, 2**63, 10**40, 1e300, 1.0, float("inf"), "1", "", None, True, [1], {"id": 1}],
    "exp": [0, 1, -1, -(10**40), float("inf"), float("nan"), "x", None, [1]],
    "iat": [10**12, 10**40, float("inf"), float("nan"), "x", None, [1]],
    "jti": [5, None, ["x"]],
    "nbf": [10**12],
    "aud": ["someone else"],
}


def test_a_token_with_a_wrong_claim_is_refused(token: str, subtests: pytest.Subtests) -> None:
    for claim, values in WRONG_CLAIMS.items():
        for value in values:
            with subtests.test(claim, value=str(value)[:50]):
                assert not is_accepted(signed(HEADER, claims_of(token, **{claim: value})))


def test_a_token_without_claims_is_refused(subtests: pytest.Subtests) -> None:
    wrong: list[object] = [[], "x", 5, None, DEEP, b"\xff", b"", b"{"]
    for claims in wrong:
        with subtests.test(claims=str(claims)[:50]):
            assert not is_accepted(signed(HEADER, claims))


def test_a_token_expires_although_its_signature_was_checked_before(token: str) -> None:
    before = is_accepted(token)
    with clock_at(now() + LIFETIME):
        after = is_accepted(token)

    assert (before, after) == (True, False)


def test_an_overlong_token_is_refused(token: str) -> None:
    assert not is_accepted(signed(HEADER, claims_of(token, padding="x" * 5000)))


# The header


def caller(*authorization: str | bytes) -> int | None:
    """Who calls with these headers; None where they are refused."""
    values = [value if isinstance(value, bytes) else value.encode() for value in authorization]
    app = SimpleNamespace(state=SimpleNamespace(secret_key=KEY))
    request = Request({"type": "http", "app": app, "headers": [(b"authorization", value) for value in values]})
    try:
        return bearer_claims(request).sub
    except NotAuthenticated:
        return None


def test_a_malformed_header_is_refused(token: str, subtests: pytest.Subtests) -> None:
    for authorization in (
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer x",
        b"Bearer a.b.c",
        b"Bearer ...",
        b"{token}",
        b"Basic {token}",
        b"Token {token}",
        b"Bearer{token}",
        b"Bearer {token} x",
        b"Bearer {token}, Bearer {token}",
        b"Bearer {token}x",
        b"Bearer x{token}",
        "Bearer \ufb01.\u00fc.x".encode(),
        b"Bearer \xff\xfe.\xfc.x",
    ):
        with subtests.test(str(authorization)):
            assert caller(authorization.replace(b"{token}", token.encode())) is None


def test_there_is_one_header_and_no_more(token: str) -> None:
    assert caller() is None
    assert caller(f"Bearer {token}") == 5
    assert caller(f"Bearer {token}", f"Bearer {token}") is None
    assert caller(f"Bearer {token}", "Bearer x") is None


def test_the_scheme_of_the_header_has_no_case(token: str) -> None:
    assert caller(f"bearer {token}") == 5  # RFC 9110, 11.1


# What a password may be

NEW_PASSWORD: TypeAdapter[str] = TypeAdapter(NewPassword)
GIVEN_PASSWORD: TypeAdapter[str] = TypeAdapter(GivenPassword)
RIGHT = [
    "Abcdef1!",
    "Abcdefghijkl-15",
    "Abc def1",
    " Abcd-1 ",
    "äöüÄ123?",
    "ABCDEFg1_",
    "a" * 16,
    " " * 16,
    "1234567890123456",
    "🐴" * 16,
    "é" * 128,
    "Aa1!" * 32,
]
WRONG = [
    "",
    "Abcde1!",
    "Abcdefg1",
    "Abcdefg!",
    "abcdefg1!",
    "ABCDEFG1!",
    "Abcdefghijklmn1",
    "a" * 15,
    " " * 15,
    "Aa1!" * 32 + "x",
    "a" * 129,
]


def test_a_password_may_be_and_is_never_stripped(subtests: pytest.Subtests) -> None:
    for password in RIGHT:
        with subtests.test(password):
            assert NEW_PASSWORD.validate_python(password) == password


def test_a_password_may_not_be(subtests: pytest.Subtests) -> None:
    for password in WRONG:
        with subtests.test(password), pytest.raises(ValidationError):
            NEW_PASSWORD.validate_python(password)


def test_a_password_that_is_checked_may_be_any_that_ever_was_set() -> None:
    assert [GIVEN_PASSWORD.validate_python(given) for given in (" x ", "é" * 128)] == [" x ", "é" * 128]
    for wrong in ("", "a" * 129):
        with pytest.raises(ValidationError):
            GIVEN_PASSWORD.validate_python(wrong)


# The hash


def test_no_byte_of_a_password_is_ignored(subtests: pytest.Subtests) -> None:
    for same in ("a" * 72, "🐴" * 18, "a" * 71 + "é", "Abc-123\0"):
        with subtests.test(same):
            password_hash = hash_password(f"{same}x", rounds=4)

            assert check_password(f"{same}x", password_hash)
            assert not check_password(f"{same}y", password_hash)
            assert not check_password(same, password_hash)


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("Correct-horse-1", rounds=4) != hash_password("Correct-horse-1", rounds=4)


def test_a_hash_says_its_rounds_and_so_does_nobodys() -> None:
    assert hash_password("Correct-horse-1", rounds=5).startswith("$2b$05$")
    assert nobodys_hash(5).startswith("$2b$05$")
    assert len(nobodys_hash(5)) == len(hash_password("Correct-horse-1", rounds=5))


def test_nobodys_hash_is_the_hash_of_no_password() -> None:
    assert not check_password("", nobodys_hash(4))
    assert not check_password("Correct-horse-1", nobodys_hash(4))


# Hashes with other rounds


def rounds_spent(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """How many rounds of bcrypt some work takes."""
    checked: list[int] = []

    def check(_password: bytes, password_hash: bytes) -> bool:
        checked.append(2 ** int(password_hash[4:6]))
        return False

    monkeypatch.setattr(bcrypt, "checkpw", check)
    work()
    return sum(checked)


@pytest.mark.parametrize(("old", "rounds"), [(4, 4), (4, 5), (4, 12), (11, 12), (12, 4)])
def test_a_check_and_what_it_lacks_cost_as_much_as_the_slowest(
    old: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_slowly() -> None:
        check_password("", nobodys_hash(old))
        take_as_long_as(rounds, nobodys_hash(old))

    assert rounds_spent(monkeypatch, check_slowly) == 2 ** max(old, rounds)


def test_a_renewed_hash_is_one_of_the_same_password() -> None:
    for old in [hash_password("Correct-horse-1", rounds=4) for _ in range(20)]:
        renewed = renewed_hash("Correct-horse-1", old, 5)

        assert rounds_of(renewed) == 5
        assert check_password("Correct-horse-1", renewed)
        assert not check_password("Correct-horse-2", renewed)


def test_two_who_renew_one_hash_make_the_same_one_and_others_another() -> None:
    one, other = (hash_password("Correct-horse-1", rounds=4) for _ in range(2))

    assert renewed_hash("Correct-horse-1", one, 5) == renewed_hash("Correct-horse-1", one, 5)
    assert renewed_hash("Correct-horse-1", one, 5)[7:29] != renewed_hash("Correct-horse-1", other, 5)[7:29]
    assert renewed_hash("Correct-horse-1", one, 5)[7:29] != one[7:29]


# How many at once


class Watched:
    """Work that notes how much of it is done at the same moment."""

    def __init__(self) -> None:
        self.running = self.peak = 0
        self.lock = Lock()

    def __call__(self) -> None:
        with self.lock:
            self.running += 1
            self.peak = max(self.peak, self.running)
        sleep(0.01)
        with self.lock:
            self.running -= 1


def run_together(slots: HashingSlots, work: Callable[[], Any], comers: Iterable[tuple[str, str]]) -> list[str]:
    """How each run ended, for an address and an account each."""
    ends: list[str] = []

    async def run_one(address: str, account: str) -> None:
        try:
            await slots.run(address, Hashing(account, work))
            ends.append("done")
        except DatabaseBusy:
            ends.append("refused")

    async def run_all() -> None:
        async with anyio.create_task_group() as tasks:
            for comer in comers:
                tasks.start_soon(run_one, *comer)

    anyio.run(run_all)
    return sorted(ends)


def turns(comers: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """In which order accounts get the only slot, if all came while it was taken; and who was refused."""
    slots, free, done, refused = HashingSlots(), Event(), list[str](), list[str]()

    async def come(address: str, account: str) -> None:
        try:
            await slots.run(address, Hashing(account, partial(done.append, account)))
        except DatabaseBusy:
            refused.append(account)

    async def come_all() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slots.run, "x", Hashing("x", free.wait))
            await anyio.wait_all_tasks_blocked()
            for comer in comers:
                tasks.start_soon(come, *comer)
            await anyio.wait_all_tasks_blocked()
            free.set()

    anyio.run(come_all)
    assert (slots.running, len(slots.waiting)) == (0, 0)
    return done, refused


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "CORES", 1)
    monkeypatch.setattr(auth, "MAX_WAITING", 100)


def test_there_are_as_many_cores_as_this_process_may_use() -> None:
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from kit.auth import CORES; print(CORES)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=ROOT)  # noqa: S603

    assert shown.stdout.strip() == b"1"


def test_no_more_hashes_than_cores_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "CORES", 2)
    work = Watched()

    assert run_together(HashingSlots(), work, [("10.0.0.1", "ada")] * 8) == ["done"] * 8
    assert work.peak == 2


def test_when_too_many_wait_the_next_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "CORES", 2)
    monkeypatch.setattr(auth, "MAX_WAITING", 3)
    slots = HashingSlots()

    assert run_together(slots, Watched(), [("10.0.0.1", "ada")] * 8) == ["done"] * 5 + ["refused"] * 3
    assert run_together(slots, Watched(), [("10.0.0.1", "ada")] * 5) == ["done"] * 5


@pytest.mark.usefixtures("one_core")
def test_an_account_with_eighty_waiting_keeps_no_other_account_or_address_waiting() -> None:
    order, refused = turns([("10.0.0.1", "max")] * 80 + [("10.0.0.1", "eva"), ("10.0.0.2", "zoe")])

    assert refused == []
    assert sorted(order[:3]) == ["eva", "max", "zoe"]


@pytest.mark.usefixtures("one_core")
def test_an_address_with_many_accounts_has_no_more_turns_than_another() -> None:
    order, _ = turns([("10.0.0.1", f"account {number}") for number in range(50)] + [("10.0.0.2", "zoe")] * 3)

    assert [place for place, account in enumerate(order) if account == "zoe"] == [1, 3, 5]


@pytest.mark.usefixtures("one_core")
def test_a_refusal_meets_the_account_with_most() -> None:
    others = [("10.0.0.1", "eva"), ("10.0.0.2", "zoe"), ("10.0.0.2", "ada")]
    order, refused = turns([("10.0.0.1", "max")] * 150 + others)

    assert refused == ["max"] * 53
    assert [order.count(name) for name in ("max", "eva", "zoe", "ada")] == [97, 1, 1, 1]


@pytest.mark.usefixtures("one_core")
def test_whoever_leaves_gives_the_turn_on() -> None:
    slots, free, done = HashingSlots(), Event(), list[str]()

    async def come_and_go() -> None:
        def come(name: str) -> asyncio.Task[None]:
            return asyncio.create_task(slots.run("10.0.0.1", Hashing(name, partial(done.append, name))))

        async def be_first() -> None:
            await slots.run("10.0.0.1", Hashing("first", free.wait))
            late.cancel()  # which has got the turn just now, and has not yet heard of it

        first = asyncio.create_task(be_first())
        await asyncio.sleep(0)
        late, early, patient = come("late"), come("early"), come("patient")
        await asyncio.sleep(0)
        early.cancel()
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(first, late, early, patient, return_exceptions=True)

    asyncio.run(come_and_go())

    assert done == ["patient"]
    assert (slots.running, len(slots.waiting)) == (0, 0)


def test_work_that_fails_gives_its_slot_back() -> None:
    slots = HashingSlots()

    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it is the one of `fail`
        anyio.run(slots.run, "10.0.0.1", Hashing("ada", fail))
    assert slots.running == 0
