"""Signing in, staying signed in, being signed out, and what to do about a forgotten password."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from threading import Barrier, Event
from time import monotonic, time
from typing import Any

import bcrypt
import jwt
import pytest
from fastapi.testclient import TestClient
from httpx2 import Client, Response
from pydantic import SecretStr
from sqlmodel import select

from app import create_app
from auth import ensure_admin
from kit import auth as kit_auth
from kit.app import App
from kit.auth import HashingSlots, sign_access_token
from kit.db import Database, ending
from kit.models import clock_at, digest, now
from kit.sessions import FailedSignIn, LoginSession, PasswordReset
from kit.settings import StartRefused
from models import User
from settings import Settings
from tests.databases import counted_statements, on_both_databases
from tests.outbox import Outbox, waiting
from tests.people import API, PASSWORD, Person, at_once, fields_refused, refusal, signed_in, without_request_id
from tests.post_office import PostOffice, with_mail
from tests.routes import Exceptions
from tests.server import serving, until
from tests.world import World

KEY = "a key for the tests that nobody else may use"
TOKEN = f"{API}/auth/token"
RESET = f"{API}/auth/password-reset"
OTHER_PASSWORD = "Another-horse-2"
INVALID = {
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "The credentials are not valid.",
    "error_code": "INVALID_CREDENTIALS",
    "error": "invalid_grant",
    "error_description": "The credentials are not valid.",
}


def account(name: str, **more: Any) -> dict[str, Any]:
    return {"email": f"{name}@example.com", "full_name": name, "password": PASSWORD} | more


def register(client: TestClient | Client, **body: Any) -> Response:
    return client.post(f"{API}/auth/register", json=body)


def token(client: TestClient, email: str, password: str = PASSWORD) -> Response:
    return client.post(TOKEN, data={"username": email, "password": password})


def refresh(client: TestClient, refresh_token: str) -> Response:
    return client.post(TOKEN, data={"grant_type": "refresh_token", "refresh_token": refresh_token})


def me(client: TestClient, access_token: str) -> Response:
    return client.get(f"{API}/users/me", headers={"Authorization": f"Bearer {access_token}"})


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that passwords were checked against."""
    done: list[bytes] = []
    check = bcrypt.checkpw

    def counted(password: bytes, password_hash: bytes) -> bool:
        done.append(password_hash)
        return check(password, password_hash)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    return done


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The salts of the passwords that were hashed."""
    done: list[bytes] = []
    hash_password = bcrypt.hashpw

    def counted(password: bytes, salt: bytes) -> bytes:
        done.append(salt)
        return hash_password(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", counted)
    return done


# Registering


def test_the_first_account_is_an_admin_and_every_later_one_a_member(client: TestClient) -> None:
    roles = [register(client, **account(name)).json()["role"] for name in ("ada", "max", "eva")]

    assert roles == ["admin", "member", "member"]


def test_a_new_account_is_shown_without_its_password(client: TestClient) -> None:
    response = register(client, email="  Ada@Example.COM ", full_name="  Ada Lovelace ", password=PASSWORD)

    user = response.json()
    assert response.status_code == 201
    assert set(user) == {"id", "email", "full_name", "role", "is_active", "created_at", "updated_at"}
    assert (user["email"], user["full_name"], user["is_active"]) == ("ada@example.com", "Ada Lovelace", True)
    assert user["created_at"].endswith("Z")


def test_of_many_first_accounts_at_once_exactly_one_is_an_admin(client: TestClient) -> None:
    responses = at_once(8, lambda number: register(client, **account(f"person{number}")))

    assert sorted(response.json()["role"] for response in responses) == ["admin", *["member"] * 7]


def test_an_email_is_taken_whatever_its_case(client: TestClient, ada: Person) -> None:
    response = register(client, **account("other", email="ADA@example.COM"))

    assert refusal(response) == (409, "EMAIL_TAKEN")


def test_of_many_accounts_with_one_email_at_once_exactly_one_is_made(client: TestClient) -> None:
    responses = at_once(8, lambda _: register(client, **account("ada")))

    assert sorted(response.status_code for response in responses) == [201, *[409] * 7]


def test_closed_registration_makes_no_account(
    client: TestClient, hashes: list[bytes], change_settings: Callable[..., None]
) -> None:
    change_settings(registration_open=False)
    response = register(client, **account("ada"))

    assert refusal(response) == (403, "REGISTRATION_CLOSED")
    assert token(client, "ada@example.com").status_code == 400
    assert hashes == []


def test_who_registers_is_welcomed_by_mail(client: TestClient, outbox: Outbox) -> None:
    register(client, **account("ada", full_name='<b>"Ada"</b> & {{ token }} Jürgen'))
    taken = register(client, **account("ada"))
    [welcome] = outbox.mails

    assert refusal(taken) == (409, "EMAIL_TAKEN")
    assert (welcome["To"], welcome["Subject"]) == ("ada@example.com", "Welcome to Stockroom")
    assert 'Hello <b>"Ada"</b> & {{ token }} Jürgen,\n' in outbox.part("plain")
    assert "<p>Hello &lt;b&gt;&#34;Ada&#34;&lt;/b&gt; &amp; {{ token }} Jürgen,</p>" in outbox.part("html")


WRONG_ACCOUNTS: list[tuple[str, Any]] = [
    ("role", "admin"),
    ("is_active", True),
    ("id", 1),
    *(("email", wrong) for wrong in (None, "", "ada", "ada@", "ada@example", "Ada <ada@example.com>", 5)),
    ("email", f"{'a' * 250}@example.com"),
    *(("full_name", wrong) for wrong in (None, "", " \t\u00a0", "a" * 256, ["ada"])),
    *(("password", wrong) for wrong in (None, 12345678901234567, "", "Short-1", "a" * 129)),
]


def test_registering_refuses_what_is_no_account(client: TestClient, subtests: pytest.Subtests) -> None:
    for field, wrong in WRONG_ACCOUNTS:
        with subtests.test(field, wrong=wrong):
            assert fields_refused(register(client, **account("ada", **{field: wrong}))) == [["body", field]]


def test_registering_needs_every_field(client: TestClient, subtests: pytest.Subtests) -> None:
    for field in ("email", "full_name", "password"):
        with subtests.test(field):
            body = account("ada")
            del body[field]

            assert fields_refused(register(client, **body)) == [["body", field]]


def test_registering_refuses_text_that_is_none(client: TestClient, subtests: pytest.Subtests) -> None:
    for field in ("email", "full_name", "password"):
        for escape in ("\\u0000", "\\ud800"):
            with subtests.test(field, escape=escape):
                body = json.dumps(account("ada") | {field: "Abcdefg-1@example.com?"}).replace("?", escape)
                headers = {"Content-Type": "application/json"}
                response = client.post(f"{API}/auth/register", content=body, headers=headers)

                assert refusal(response) == (422, "VALIDATION_ERROR")


def test_a_refusal_says_what_a_password_lacks_and_does_not_repeat_it(client: TestClient) -> None:
    response = register(client, **account("ada", password="abcdefgh"))
    [error] = response.json()["errors"]

    assert error["loc"] == ["body", "password"]
    assert "an upper-case letter, a digit and a special character, or at least 16 characters" in error["msg"]
    assert "abcdefgh" not in response.text


def test_the_rule_is_the_same_wherever_a_password_is_set(ada: Person, subtests: pytest.Subtests) -> None:
    bodies: list[tuple[str, str, dict[str, str]]] = [
        ("POST", "/auth/register", account("max", password="Weak-1")),
        ("POST", "/users", account("max", password="Weak-1")),
        ("PUT", "/users/me/password", {"current_password": PASSWORD, "new_password": "Weak-1"}),
        ("PUT", "/auth/password-reset", {"token": "x", "new_password": "Weak-1"}),
    ]
    for method, path, body in bodies:
        with subtests.test(path):
            field = "password" if "password" in body else "new_password"
            assert fields_refused(ada.request(method, path, json=body)) == [["body", field]]


def test_a_password_is_never_stripped_nor_cut(client: TestClient, subtests: pytest.Subtests) -> None:
    for name, password, *others in [
        ("ada", "  Abcdef-1  ", "Abcdef-1"),
        ("max", " Abcd-1 ", "Abcd-1"),
        ("eva", "a" * 127 + "x", "a" * 127 + "y", "a" * 127),
        ("zoe", "é" * 128, "é" * 127),
    ]:
        with subtests.test(password):
            assert register(client, **account(name, password=password)).status_code == 201
            assert [token(client, f"{name}@example.com", other).status_code for other in others] == [400] * len(others)
            assert token(client, f"{name}@example.com", password).status_code == 200


def test_who_registered_with_an_address_signs_in_with_it(client: TestClient, subtests: pytest.Subtests) -> None:
    for email in ("kim@xn--bcher-kva.de", "jose\u0301@example.com", "KIM@Example.COM"):
        with subtests.test(email):
            assert register(client, **account("kim", email=email)).status_code == 201
            assert [token(client, username).status_code for username in (email, f" {email} ")] == [200, 200]


# Signing in


def test_signing_in_gives_a_pair_of_tokens(client: TestClient, ada: Person) -> None:
    response = token(client, ada.email)

    pair = response.json()
    assert set(pair) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (response.status_code, pair["token_type"], pair["expires_in"]) == (200, "bearer", 900)
    assert response.headers["Cache-Control"] == "no-store"


def test_signing_in_compares_the_email_without_case(client: TestClient, ada: Person) -> None:
    assert [token(client, email).status_code for email in ("ADA@EXAMPLE.COM", " ada@example.com ")] == [200, 200]


def test_the_access_token_says_who_where_and_until_when(ada: Person) -> None:
    claims = jwt.decode(ada.access_token, KEY, algorithms=["HS256"])

    assert jwt.get_unverified_header(ada.access_token)["alg"] == "HS256"
    assert set(claims) == {"sub", "sid", "iat", "exp", "jti", "type"}
    assert (claims["sub"], claims["type"], claims["exp"] - claims["iat"]) == (str(ada.id), "access", 900)
    assert claims["sid"] == ada.get("/auth/sessions").json()[0]["id"]
    assert abs(claims["iat"] - time()) < 30


def test_no_two_access_tokens_are_alike(client: TestClient, ada: Person) -> None:
    tokens = {ada.access_token, refresh(client, ada.refresh_token).json()["access_token"]}

    assert len({jwt.decode(token, KEY, algorithms=["HS256"])["jti"] for token in tokens}) == 2


def test_lifetimes_follow_the_settings(client: TestClient, ada: Person, change_settings: Callable[..., None]) -> None:
    change_settings(access_token_minutes=2, refresh_token_days=0)
    pair = token(client, ada.email).json()
    expired = refresh(client, pair["refresh_token"])

    claims = jwt.decode(pair["access_token"], KEY, algorithms=["HS256"])
    assert (pair["expires_in"], claims["exp"] - claims["iat"]) == (120, 120)
    assert without_request_id(expired) == INVALID


WRONG_FORMS: list[tuple[dict[str, str], str, str]] = [
    ({}, "BAD_REQUEST", "invalid_request"),
    ({"username": "ada@example.com"}, "BAD_REQUEST", "invalid_request"),
    ({"password": PASSWORD}, "BAD_REQUEST", "invalid_request"),
    ({"username": "", "password": PASSWORD}, "BAD_REQUEST", "invalid_request"),
    ({"username": "ada@example.com", "password": ""}, "BAD_REQUEST", "invalid_request"),
    ({"grant_type": "refresh_token"}, "BAD_REQUEST", "invalid_request"),
    ({"grant_type": "refresh_token", "refresh_token": ""}, "BAD_REQUEST", "invalid_request"),
    ({"grant_type": "refresh_token", "refresh_token": "x.y"}, "INVALID_CREDENTIALS", "invalid_grant"),
    ({"grant_type": "client_credentials"}, "BAD_REQUEST", "unsupported_grant_type"),
    ({"grant_type": "PASSWORD", "username": "a", "password": "b"}, "BAD_REQUEST", "unsupported_grant_type"),
    ({"username": "ada@example.com", "password": "wrong"}, "INVALID_CREDENTIALS", "invalid_grant"),
    ({"username": "ada@example.com", "password": f" {PASSWORD} "}, "INVALID_CREDENTIALS", "invalid_grant"),
    ({"username": "ada@example.com", "password": PASSWORD.upper()}, "INVALID_CREDENTIALS", "invalid_grant"),
    ({"username": "ada@example.com\0", "password": PASSWORD}, "BAD_REQUEST", "invalid_request"),
    ({"username": "ada@example.com", "password": f"{PASSWORD}\0"}, "BAD_REQUEST", "invalid_request"),
    ({"grant_type": "refresh_token", "refresh_token": "x\0.y"}, "BAD_REQUEST", "invalid_request"),
    ({"username": "a" * 100_000, "password": "b" * 100_000}, "INVALID_CREDENTIALS", "invalid_grant"),
]


def test_the_token_form_refuses(client: TestClient, ada: Person, subtests: pytest.Subtests) -> None:
    for form, code, error in WRONG_FORMS:
        with subtests.test(form=str(form)[:80]):
            response = client.post(TOKEN, data=form)

            body = response.json()
            assert (response.status_code, body["status"], body["error_code"], body["error"]) == (400, 400, code, error)
            assert body["error_description"] == body["detail"]
            assert response.headers["Content-Type"] == "application/problem+json"


def test_the_token_form_ignores_what_it_does_not_know(client: TestClient, ada: Person) -> None:
    form = {"grant_type": "password", "username": ada.email, "password": PASSWORD, "scope": "all", "client_id": "curl"}

    assert client.post(TOKEN, data=form).status_code == 200


def test_the_token_form_may_be_multipart(client: TestClient, ada: Person) -> None:
    form = {"username": (None, ada.email), "password": (None, PASSWORD)}

    assert client.post(TOKEN, files=form).status_code == 200


URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"


def multipart(username: bytes) -> bytes:
    parts = {b"username": username, b"password": b"wrong"}
    fields = [b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % field for field in parts.items()]
    return b"".join(fields) + b"--x--\r\n"


UNREADABLE_FORMS: list[tuple[str, bytes]] = [
    (f"{URLENCODED}; charset=bogus", b"username=ada&password=wrong"),
    (URLENCODED, b"username=%ff%fe&password=wrong"),
    (URLENCODED, b"username=\xff\xfe&password=wrong"),
    (URLENCODED, b"username=%ed%a0%80&password=wrong"),
    (URLENCODED, b"&".join(b"field%d=1" % number for number in range(2000))),
    (f"{MULTIPART}; charset=bogus", multipart(b"ada")),
    (f"{MULTIPART}; charset=utf-16", multipart(b"ada")),
    (f"{MULTIPART}; charset=hex", multipart(b"ada")),
    (f"{MULTIPART}; charset=idna", multipart(b"\xff")),
    (f"{MULTIPART}; charset=unicode_escape", multipart(b"\\ud800")),
    (f'{MULTIPART}; charset="\0"', multipart(b"ada")),
    (MULTIPART, multipart(b"\xff\xfe")),
    (MULTIPART, multipart(b"ada\0")),
    (MULTIPART, multipart(b"ada").replace(b'"username"', b'"username"; filename="x"')),
    (MULTIPART, multipart(b"ada")[:40]),
    (MULTIPART, b"garbage"),
    ("multipart/form-data", multipart(b"ada")),
    ("application/json", b'{"username": "ada", "password": "wrong"}'),
    ("text/plain", b"username=ada&password=wrong"),
]


def test_a_form_that_cannot_be_read_is_a_plain_400(client: TestClient, ada: Person, subtests: pytest.Subtests) -> None:
    for content_type, body in UNREADABLE_FORMS:
        with subtests.test(content_type, body=body[:80]):
            response = client.post(TOKEN, content=body, headers={"Content-Type": content_type})

            assert response.status_code == 400
            assert response.json()["error"] in ("invalid_request", "invalid_grant")


def test_unknown_wrong_and_inactive_are_the_same_answer_at_the_same_price(
    client: TestClient, ada: Person, max: Person, checks: list[bytes]
) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})
    attempts = [("nobody@example.com", PASSWORD), (ada.email, "wrong"), (max.email, PASSWORD), (max.email, "wrong")]
    responses = [(token(client, *attempt), len(checks)) for attempt in attempts]

    assert [without_request_id(response) for response, _ in responses] == [INVALID] * 4
    assert [response.status_code for response, _ in responses] == [400] * 4
    assert [count for _, count in responses] == [1, 2, 3, 4]
    assert len({password_hash[:7] for password_hash in checks}) == 1  # the same algorithm with the same rounds


def test_a_success_costs_one_check_of_a_hash_as_well(client: TestClient, ada: Person, checks: list[bytes]) -> None:
    assert token(client, ada.email).status_code == 200
    assert len(checks) == 1


# Failing to sign in


def test_after_five_failures_even_the_right_password_has_to_wait(
    client: TestClient, ada: Person, checks: list[bytes]
) -> None:
    failures = [token(client, ada.email, "wrong").status_code for _ in range(5)]
    response = token(client, ada.email)

    assert failures == [400] * 5
    assert refusal(response) == (429, "TOO_MANY_ATTEMPTS")
    assert 0 < int(response.headers["Retry-After"]) <= 900
    assert {"error", "error_description"} <= set(response.json())
    assert len(checks) == 5


def test_who_is_signed_in_stays_so_while_the_account_is_locked(client: TestClient, ada: Person) -> None:
    for _ in range(6):
        token(client, ada.email, "wrong")

    assert ada.get("/users/me").status_code == 200
    assert refresh(client, ada.refresh_token).status_code == 200


def test_an_account_that_nobody_can_use_is_locked_alike(client: TestClient, ada: Person, max: Person) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})
    statuses = {
        email: [token(client, email).status_code for _ in range(6)] for email in ("nobody@example.com", max.email)
    }

    assert statuses == {"nobody@example.com": [400] * 5 + [429], max.email: [400] * 5 + [429]}


def test_one_account_is_counted_whatever_the_case_of_its_email(client: TestClient, ada: Person) -> None:
    for email in ("ada@example.com", "ADA@example.com", " ada@EXAMPLE.com", "Ada@Example.Com ", "aDA@example.com"):
        token(client, email, "wrong")

    assert token(client, ada.email).status_code == 429


def test_another_email_does_not_clear_the_count(client: TestClient, ada: Person, max: Person) -> None:
    wrong = [token(client, max.email, "wrong").status_code for _ in range(4)]
    max.patch("/users/me", {"email": "max2@example.com"})
    ada.patch(f"/users/{max.id}", {"email": "max3@example.com"})
    wrong.append(token(client, "max3@example.com", "wrong").status_code)

    assert wrong == [400] * 5
    assert token(client, "max3@example.com").status_code == 429
    assert change_password(ada, max).status_code == 429


def test_whoever_gets_an_email_later_does_not_get_the_failures_of_another(
    client: TestClient, max: Person, join: Callable[[str], Person]
) -> None:
    for _ in range(5):
        token(client, max.email, "wrong")
    max.patch("/users/me", {"email": "max2@example.com"})

    assert join("max").get("/users/me").status_code == 200


def test_nobody_is_locked_out_by_an_email_that_looks_like_an_account(
    client: TestClient, ada: Person, subtests: pytest.Subtests
) -> None:
    for name in (f"user {ada.id}", f" User {ada.id} ", str(ada.id)):
        with subtests.test(name):
            for _ in range(5):
                token(client, name, "wrong")
            assert token(client, ada.email).status_code == 200


def test_another_account_is_not_affected(client: TestClient, ada: Person, max: Person) -> None:
    for _ in range(6):
        token(client, ada.email, "wrong")

    assert token(client, max.email).status_code == 200


def test_a_success_clears_the_count(client: TestClient, ada: Person) -> None:
    passwords = ["wrong"] * 4 + [PASSWORD] + ["wrong"] * 4 + [PASSWORD]
    statuses = [token(client, ada.email, password).status_code for password in passwords]

    assert statuses == [400] * 4 + [200] + [400] * 4 + [200]


def test_the_count_survives_a_restart_and_holds_on_every_worker(
    app: App, client: TestClient, other_worker: TestClient, ada: Person
) -> None:
    for number in range(5):
        token((client, other_worker)[number % 2], ada.email, "wrong")
    with TestClient(create_app(app.state.settings)) as restarted:
        response = token(restarted, ada.email)

    assert response.status_code == 429


def test_the_account_opens_again_when_the_window_has_passed(
    app: App, client: TestClient, ada: Person, change_settings: Callable[..., None]
) -> None:
    change_settings(login_window_seconds=60, login_attempts=2)
    responses = [token(client, ada.email, "wrong") for _ in range(3)]
    with ending(app.state.database.write()) as session:
        session.exec(select(FailedSignIn)).one().window_ends_at = now()

    assert [response.status_code for response in responses] == [400, 400, 429]
    assert 0 < int(responses[-1].headers["Retry-After"]) <= 60
    assert token(client, ada.email).status_code == 200


def test_guessing_in_parallel_reveals_no_more_than_guessing_in_a_row(client: TestClient, ada: Person) -> None:
    responses = at_once(16, lambda number: token(client, ada.email, f"wrong {number}"))

    assert sorted(response.status_code for response in responses) == [400] * 5 + [429] * 11


def sign_in_during(client: TestClient, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Response]) -> Response:
    """Sign Max in, and do something else while the hash of the password is computed."""
    reached, go_on = Event(), Event()
    check = bcrypt.checkpw

    def held(password: bytes, password_hash: bytes) -> bool:
        monkeypatch.setattr(bcrypt, "checkpw", check)  # only this first one is held
        reached.set()
        assert go_on.wait(20)
        return check(password, password_hash)

    monkeypatch.setattr(bcrypt, "checkpw", held)
    with ThreadPoolExecutor() as pool:
        response = pool.submit(token, client, "max@example.com")
        assert reached.wait(20)
        try:
            assert meanwhile().is_success
        finally:
            go_on.set()
        return response.result()


@pytest.fixture
def two_cores(swap: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two hashes at once, also on a machine with one core."""
    monkeypatch.setattr(kit_auth, "CORES", 2)
    swap("hashing_slots", HashingSlots())


def change_password(ada: Person, max: Person) -> Response:
    return max.put("/users/me/password", {"current_password": PASSWORD, "new_password": OTHER_PASSWORD})


def deactivate(ada: Person, max: Person) -> Response:
    return ada.patch(f"/users/{max.id}", {"is_active": False})


def delete(ada: Person, max: Person) -> Response:
    return ada.delete(f"/users/{max.id}")


@pytest.mark.parametrize("meanwhile", [change_password, deactivate, delete])
def test_a_sign_in_does_not_outlive_what_happens_while_its_hash_is_computed(
    two_cores: None,
    client: TestClient,
    ada: Person,
    max: Person,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[Person, Person], Response],
) -> None:
    response = sign_in_during(client, monkeypatch, lambda: meanwhile(ada, max))

    assert without_request_id(response) == INVALID
    if meanwhile is change_password:
        assert [row["current"] for row in max.get("/auth/sessions").json()] == [True]


def test_a_sign_in_survives_a_change_that_ends_no_session(
    two_cores: None, client: TestClient, ada: Person, max: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = sign_in_during(client, monkeypatch, lambda: ada.patch(f"/users/{max.id}", {"full_name": "Maximilian"}))

    assert response.status_code == 200


# Refreshing


def test_refreshing_gives_a_new_pair_in_the_same_session(client: TestClient, ada: Person) -> None:
    before = ada.get("/auth/sessions").json()
    response = refresh(client, ada.refresh_token)
    after = ada.get("/auth/sessions").json()

    pair = response.json()
    assert (response.status_code, pair["token_type"], pair["expires_in"]) == (200, "bearer", 900)
    assert pair["refresh_token"] != ada.refresh_token
    assert me(client, pair["access_token"]).json()["id"] == ada.id
    assert [row["id"] for row in after] == [row["id"] for row in before]
    assert after[0]["last_used_at"] > before[0]["last_used_at"]


def test_a_spent_refresh_token_ends_its_whole_session(client: TestClient, ada: Person) -> None:
    newest = refresh(client, refresh(client, ada.refresh_token).json()["refresh_token"]).json()
    replayed = refresh(client, ada.refresh_token)

    assert (replayed.status_code, without_request_id(replayed)) == (400, INVALID)
    assert me(client, newest["access_token"]).status_code == 401
    assert ada.get("/users/me").status_code == 401
    assert without_request_id(refresh(client, newest["refresh_token"])) == INVALID


def test_a_replay_leaves_other_sessions_alone(
    client: TestClient, ada: Person, sign_in: Callable[[str], Person]
) -> None:
    elsewhere = sign_in(ada.email)
    refresh(client, ada.refresh_token)
    refresh(client, ada.refresh_token)

    assert elsewhere.get("/users/me").status_code == 200
    assert refresh(client, elsewhere.refresh_token).status_code == 200


def test_an_unknown_refresh_token_ends_nothing(client: TestClient, ada: Person, subtests: pytest.Subtests) -> None:
    for unknown in ("x", ".", "x.y", "ä.ö", "a" * 10_000):
        with subtests.test(unknown[:20]):
            assert without_request_id(refresh(client, unknown)) == INVALID

    assert refresh(client, ada.refresh_token).status_code == 200


def test_an_access_token_does_not_refresh(client: TestClient, ada: Person) -> None:
    assert without_request_id(refresh(client, ada.access_token)) == INVALID
    assert ada.get("/users/me").status_code == 200


def test_a_refresh_token_does_not_sign_in(client: TestClient, ada: Person) -> None:
    assert me(client, ada.refresh_token).status_code == 401


def test_of_many_uses_of_one_refresh_token_at_once_exactly_one_succeeds(client: TestClient, ada: Person) -> None:
    responses = at_once(8, lambda _: refresh(client, ada.refresh_token))

    assert sorted(response.status_code for response in responses) == [200, *[400] * 7]


# Reading a file ends the locks that this process has on it, so a test that does needs an app of its own.
@pytest.mark.sqlite_only("it reads the file")
def test_the_database_holds_neither_refresh_tokens_nor_passwords(settings: Settings, ada: Person) -> None:
    stored = b"".join(path.read_bytes() for path in settings.sqlite_path.parent.glob("app.db*") if path.is_file())

    assert ada.email.encode() in stored
    for secret in (ada.refresh_token, *ada.refresh_token.split("."), ada.access_token, PASSWORD):
        assert secret.encode() not in stored


# Sessions


def test_sessions_say_where_one_is_signed_in(client: TestClient, ada: Person, max: Person) -> None:
    form = {"username": ada.email, "password": PASSWORD}
    client.post(TOKEN, data=form, headers={"User-Agent": "Netscape " + "x" * 400})
    latest, first = ada.get("/auth/sessions").json()

    assert set(first) == {"id", "created_at", "last_used_at", "user_agent", "ip", "current"}
    assert (first["current"], latest["current"], first["ip"]) == (True, False, "testclient")
    assert latest["user_agent"].startswith("Netscape x")
    assert first["created_at"].endswith("Z")
    assert first["last_used_at"].endswith("Z")


def test_the_list_of_sessions_is_not_to_be_stored(ada: Person) -> None:
    assert ada.get("/auth/sessions").headers["Cache-Control"] == "no-store"
    assert ada.get("/users/me").headers["Cache-Control"] == "private, no-cache"


def test_expired_sessions_are_not_listed(client: TestClient, ada: Person, change_settings: Callable[..., None]) -> None:
    change_settings(refresh_token_days=0)
    assert token(client, ada.email).status_code == 200

    assert len(ada.get("/auth/sessions").json()) == 1


def test_beyond_a_hundred_sessions_the_one_that_was_unused_for_longest_ends(
    app: App, client: TestClient, ada: Person, max: Person
) -> None:
    start = partial(LoginSession.start, lifetime=timedelta(days=30), user_agent="", ip="")
    with ending(app.state.database.write()) as session:
        for minutes in range(1, 100):
            with clock_at(now() - timedelta(minutes=minutes)):
                start(session, max.id)
    oldest = max.get("/auth/sessions").json()[-1]
    token(client, max.email)
    listed = max.get("/auth/sessions").json()

    assert len(listed) == 100
    assert oldest["id"] not in [row["id"] for row in listed]
    assert [row["current"] for row in listed].count(True) == 1
    assert ada.get("/users/me").status_code == 200


def test_signing_out_ends_this_session_only(ada: Person, sign_in: Callable[[str], Person]) -> None:
    elsewhere = sign_in(ada.email)
    response = ada.delete("/auth/sessions/current")

    assert (response.status_code, response.content) == (204, b"")
    assert ada.get("/users/me").status_code == 401
    assert [row["current"] for row in elsewhere.get("/auth/sessions").json()] == [True]


def test_ending_one_session_signs_out_there(ada: Person, sign_in: Callable[[str], Person]) -> None:
    elsewhere = sign_in(ada.email)
    [other] = [row["id"] for row in ada.get("/auth/sessions").json() if not row["current"]]

    assert ada.delete(f"/auth/sessions/{other}").status_code == 204
    assert elsewhere.get("/users/me").status_code == 401
    assert ada.delete(f"/auth/sessions/{other}").json()["error_code"] == "SESSION_NOT_FOUND"


def test_ending_all_sessions_signs_out_everywhere_but_nobody_else(
    ada: Person, max: Person, sign_in: Callable[[str], Person]
) -> None:
    elsewhere = sign_in(ada.email)

    assert ada.delete("/auth/sessions").status_code == 204
    assert [person.get("/users/me").status_code for person in (ada, elsewhere, max)] == [401, 401, 200]


def test_the_session_of_someone_else_might_as_well_not_exist(ada: Person, max: Person, eva: Person) -> None:
    theirs = max.get("/auth/sessions").json()[0]["id"]
    for person in (ada, eva):
        refused, missing = person.delete(f"/auth/sessions/{theirs}"), person.delete("/auth/sessions/999")

        assert refusal(refused) == (404, "SESSION_NOT_FOUND")
        assert refused.json()["detail"].replace(str(theirs), "999") == missing.json()["detail"]
        assert set(refused.headers) == set(missing.headers)
    assert max.get("/users/me").status_code == 200


# Being signed out


def sign_out(ada: Person, max: Person) -> Response:
    return max.delete("/auth/sessions/current")


def sign_out_everywhere(ada: Person, max: Person) -> Response:
    return max.delete("/auth/sessions")


@pytest.mark.parametrize("revoke", [sign_out, sign_out_everywhere, deactivate, delete])
def test_the_very_next_request_on_any_worker_is_refused_after(
    other_worker: TestClient, ada: Person, max: Person, revoke: Callable[[Person, Person], Response]
) -> None:
    before = me(other_worker, max.access_token).status_code
    assert revoke(ada, max).is_success

    assert before == 200
    assert me(other_worker, max.access_token).status_code == 401
    assert max.get("/users/me").status_code == 401
    assert without_request_id(refresh(other_worker, max.refresh_token)) == INVALID


def test_a_changed_password_ends_the_other_sessions_on_every_worker(
    other_worker: TestClient, ada: Person, max: Person, sign_in: Callable[[str], Person]
) -> None:
    elsewhere = sign_in(max.email)
    assert change_password(ada, max).status_code == 204

    assert [me(other_worker, person.access_token).status_code for person in (elsewhere, max)] == [401, 200]


def test_a_new_role_counts_from_the_very_next_request(ada: Person, max: Person) -> None:
    statuses = [max.get("/users").status_code]
    for role in ("admin", "member"):
        ada.patch(f"/users/{max.id}", {"role": role})
        statuses.append(max.get("/users").status_code)

    assert statuses == [403, 200, 403]


def test_the_token_of_a_deleted_account_does_not_fit_a_new_one(
    ada: Person, max: Person, join: Callable[[str], Person]
) -> None:
    ada.delete(f"/users/{max.id}")
    eva = join("eva")

    assert eva.id > max.id
    assert max.get("/users/me").status_code == 401


def test_the_token_of_an_ended_session_does_not_fit_a_new_one(max: Person, sign_in: Callable[[str], Person]) -> None:
    max.delete("/auth/sessions/current")
    again = sign_in(max.email)

    assert again.get("/users/me").status_code == 200
    assert max.get("/users/me").status_code == 401


# Access tokens


def claims_of(person: Person, **changes: Any) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(person.access_token, KEY, algorithms=["HS256"])
    return claims | changes


def assert_not_authenticated(response: Response) -> None:
    assert refusal(response) == (401, "NOT_AUTHENTICATED")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_is_refused_without_an_account_or_a_session_of_that_account(
    client: TestClient, ada: Person, max: Person
) -> None:
    wrong = [{"sub": "9999"}, {"sub": str(2**63 - 1)}, {"sid": 9999}, {"sid": 2**63 - 1}, {"sub": str(max.id)}]
    for changes in wrong:
        assert_not_authenticated(me(client, jwt.encode(claims_of(ada, **changes), KEY)))
    assert me(client, jwt.encode(claims_of(ada), KEY)).json()["id"] == ada.id


def test_an_expired_token_is_refused(client: TestClient, ada: Person) -> None:
    claims = claims_of(ada)

    assert_not_authenticated(me(client, sign_access_token(KEY, ada.id, claims["sid"], timedelta(seconds=-1))))
    assert me(client, sign_access_token(KEY, ada.id, claims["sid"], timedelta(seconds=30))).status_code == 200


def test_a_request_without_a_right_header_is_refused(client: TestClient, ada: Person) -> None:
    for headers in ({}, {"Authorization": ada.access_token}, {"Authorization": f"Basic {ada.access_token}"}):
        assert_not_authenticated(client.get(f"{API}/users/me", headers=headers))
    assert_not_authenticated(client.get(f"{API}/users/me", params={"access_token": ada.access_token}))


def test_two_headers_at_once_are_refused(client: TestClient, ada: Person, max: Person) -> None:
    for second in (f"Bearer {max.access_token}", "Bearer x"):
        headers = [("Authorization", f"Bearer {ada.access_token}"), ("Authorization", second)]
        assert_not_authenticated(client.get(f"{API}/users/me", headers=headers))


def test_a_token_signed_with_another_key_of_the_settings_is_refused(app: App, ada: Person) -> None:
    key = SecretStr("another key, just as long as the one for the tests")
    with TestClient(create_app(app.state.settings.model_copy(update={"secret_key": key}))) as other:
        assert_not_authenticated(me(other, ada.access_token))
        assert me(other, jwt.encode(claims_of(ada), key.get_secret_value())).status_code == 200


# Forgotten passwords: asking


def ask(client: TestClient | Client, email: str = "max@example.com") -> Response:
    return client.post(RESET, json={"email": email})


def use(client: TestClient, reset_token: str, new_password: str = OTHER_PASSWORD) -> Response:
    return client.put(RESET, json={"token": reset_token, "new_password": new_password})


@pytest.fixture
def reset_token(max: Person, outbox: Outbox) -> str:
    """A token that Max asked for."""
    ask(max.client)
    return outbox.tokens[0]


def let_an_hour_pass(app: App) -> None:
    with ending(app.state.database.write()) as session:
        for row in session.exec(select(PasswordReset)):
            row.expires_at -= timedelta(hours=1)


def stored(app: App) -> list[PasswordReset]:
    with app.state.database.read() as session:
        return list(session.exec(select(PasswordReset)))


def test_who_asks_gets_a_token_by_mail(max: Person, outbox: Outbox) -> None:
    answer = ask(max.client)
    [mail], [reset_token] = outbox.mails, outbox.tokens

    assert (answer.status_code, answer.content) == (202, b"")
    assert (mail["To"], mail["Subject"]) == (max.email, "A new password for Stockroom")
    assert "Hello Max,\n" in outbox.part("plain")
    assert f"<code>{reset_token}</code>" in outbox.part("html")


def test_the_case_of_an_address_does_not_matter(max: Person, outbox: Outbox) -> None:
    ask(max.client, " MAX@Example.COM ")

    assert [mail["To"] for mail in outbox.mails] == [max.email]


@pytest.fixture
def everybody(ada: Person, max: Person, eva: Person) -> list[str]:
    """Somebody, somebody who was deactivated, and nobody."""
    ada.patch(f"/users/{eva.id}", {"is_active": False})
    return [max.email, eva.email, "nobody@example.com"]


def test_whoever_asks_gets_the_same_answer(everybody: list[str], max: Person, outbox: Outbox) -> None:
    answers = [ask(max.client, email) for email in everybody]
    shown = [(a.status_code, a.content, {**a.headers, "x-request-id": ""}) for a in answers]

    assert shown == [shown[0]] * 3
    assert [mail["To"] for mail in outbox.mails] == [max.email]


def test_whoever_asks_does_not_wait_for_the_mail_server(settings: Settings) -> None:
    with PostOffice().open() as office, serving(create_app(with_mail(settings, office.url))) as client:
        register(client, **account("max"))
        office.seconds = 1.5
        started = monotonic()
        answers = [ask(client, email).status_code for email in ("max@example.com", "nobody@example.com") * 3]
        seconds = monotonic() - started
        until(lambda: len(office.mails) >= 2)

    assert answers == [202] * 6
    assert seconds < 1.5


def test_whoever_asks_makes_the_same_statements(app: App, everybody: list[str], max: Person) -> None:
    made: list[list[str]] = []
    for email in everybody:
        with counted_statements(app) as statements:
            ask(max.client, email)
        made.append(statements)

    assert made == [made[0]] * 3


def test_an_account_has_five_living_tokens_at_most(app: App, max: Person, outbox: Outbox) -> None:
    answers = [ask(max.client).status_code for _ in range(7)]

    assert answers == [202] * 7
    assert len(set(outbox.tokens)) == 5
    assert len(stored(app)) == 5


def test_others_can_ask_meanwhile_and_everybody_again_after_an_hour(
    app: App, max: Person, eva: Person, outbox: Outbox
) -> None:
    for _ in range(7):
        ask(max.client)
    ask(max.client, eva.email)
    before = [mail["To"] for mail in outbox.mails]
    let_an_hour_pass(app)
    ask(max.client)

    assert before == [max.email] * 5 + [eva.email]
    assert [mail["To"] for mail in outbox.mails] == [*before, max.email]
    assert len(set(outbox.tokens)) == 7


def test_a_question_that_is_none_is_refused(client: TestClient, subtests: pytest.Subtests) -> None:
    wrong: list[Any] = [{}, {"email": ""}, {"email": "max"}, {"email": None}, {"email": "max@example.com", "role": "x"}]
    for body in wrong:
        with subtests.test(str(body)):
            assert client.post(RESET, json=body).status_code == 422


# Forgotten passwords: using the token


def test_a_token_sets_a_new_password(max: Person, reset_token: str) -> None:
    answer = use(max.client, reset_token)

    assert (answer.status_code, answer.content) == (204, b"")
    assert token(max.client, max.email, OTHER_PASSWORD).status_code == 200
    assert token(max.client, max.email, PASSWORD).status_code == 400


def test_a_token_ends_every_session_of_its_account_and_no_other(max: Person, eva: Person, reset_token: str) -> None:
    use(max.client, reset_token)

    assert max.get("/users/me").status_code == 401
    assert refresh(max.client, max.refresh_token).status_code == 400
    assert eva.get("/users/me").status_code == 200


def is_refused(answer: Response) -> bool:
    return refusal(answer) == (400, "INVALID_CREDENTIALS")


def test_a_token_works_once(max: Person, reset_token: str) -> None:
    use(max.client, reset_token)

    assert is_refused(use(max.client, reset_token, "Correct-horse-3"))
    assert token(max.client, max.email, OTHER_PASSWORD).status_code == 200


def test_a_token_works_for_an_hour(app: App, max: Person, reset_token: str) -> None:
    [row] = stored(app)
    let_an_hour_pass(app)

    assert abs(row.expires_at - now() - timedelta(hours=1)) < timedelta(minutes=1)
    assert is_refused(use(max.client, reset_token))
    assert token(max.client, max.email, PASSWORD).status_code == 200


def test_a_use_ends_the_other_tokens_of_the_account_and_no_other(
    max: Person, eva: Person, reset_token: str, outbox: Outbox
) -> None:
    ask(max.client)
    ask(max.client, eva.email)
    _, second, evas = outbox.tokens
    use(max.client, reset_token)

    assert is_refused(use(max.client, second))
    assert use(max.client, evas).status_code == 204


def test_a_change_of_the_password_ends_every_token(max: Person, reset_token: str) -> None:
    max.put("/users/me/password", {"current_password": PASSWORD, "new_password": OTHER_PASSWORD})

    assert is_refused(use(max.client, reset_token, "Correct-horse-3"))


def test_a_change_of_the_email_ends_every_token_that_the_old_one_has(max: Person, reset_token: str) -> None:
    assert max.patch("/users/me", {"full_name": "Maximilian"}).status_code == 200
    assert max.patch("/users/me", {"email": "new@example.com"}).status_code == 200

    assert is_refused(use(max.client, reset_token))


def test_a_token_from_before_a_deactivation_stays_dead(ada: Person, max: Person, reset_token: str) -> None:
    for active in (False, True):
        assert ada.patch(f"/users/{max.id}", {"is_active": active}).status_code == 200

    assert is_refused(use(max.client, reset_token))


def test_a_deactivated_account_gets_no_new_password(ada: Person, max: Person, reset_token: str) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})
    answer = use(max.client, reset_token)
    ada.patch(f"/users/{max.id}", {"is_active": True})

    assert is_refused(answer)
    assert is_refused(use(max.client, reset_token))
    assert token(max.client, max.email, PASSWORD).status_code == 200


def test_the_token_of_a_deleted_account_is_gone(app: App, ada: Person, max: Person, reset_token: str) -> None:
    ada.delete(f"/users/{max.id}")

    assert is_refused(use(ada.client, reset_token))
    assert stored(app) == []


def test_no_other_token_sets_a_password(app: App, max: Person, reset_token: str) -> None:
    [row] = stored(app)
    others = ["x", "x" * 255, reset_token[:-1], reset_token.swapcase(), row.token_hash]
    others += [max.access_token[:255], max.refresh_token]

    assert [is_refused(use(max.client, other)) for other in others] == [True] * len(others)
    assert use(max.client, reset_token).status_code == 204


def test_a_token_from_a_mail_is_good_for_nothing_else(max: Person, reset_token: str) -> None:
    assert refresh(max.client, reset_token).status_code == 400
    assert me(max.client, reset_token).status_code == 401


def test_a_weak_password_is_refused_and_the_token_lives_on(
    max: Person, reset_token: str, subtests: pytest.Subtests
) -> None:
    for password in ("short-1", "correct-horse-1", "Correcthorse1", "x" * 129, "", None):
        with subtests.test(str(password)):
            refused = max.client.put(RESET, json={"token": reset_token, "new_password": password})
            assert fields_refused(refused) == [["body", "new_password"]]

    assert use(max.client, reset_token).status_code == 204


def test_of_many_uses_at_once_exactly_one_succeeds(max: Person, reset_token: str) -> None:
    passwords = [f"Correct-horse-{number}" for number in range(10, 18)]
    statuses = [answer.status_code for answer in at_once(8, lambda n: use(max.client, reset_token, passwords[n]))]

    winner = statuses.index(204)
    assert sorted(statuses) == [204] + [400] * 7
    assert token(max.client, max.email, passwords[winner]).status_code == 200
    assert token(max.client, max.email, passwords[winner - 1]).status_code == 400


def test_a_new_password_ends_the_lockout(max: Person, reset_token: str) -> None:
    wrong = [token(max.client, max.email, "Wrong-horse-1").status_code for _ in range(6)]
    use(max.client, reset_token)

    assert wrong == [400] * 5 + [429]
    assert token(max.client, max.email, OTHER_PASSWORD).status_code == 200


def test_a_token_that_is_wrong_costs_no_hash(client: TestClient, hashes: list[bytes]) -> None:
    assert is_refused(use(client, "wrong"))
    assert hashes == []


# Forgotten passwords: traces


def test_the_audit_shows_that_the_password_was_changed_and_by_whom(ada: Person, max: Person, reset_token: str) -> None:
    use(max.client, reset_token)
    entry = ada.get("/audit", params={"entity": "user", "entity_id": max.id}).json()["items"][0]

    assert entry["changes"] == {"password": [None, None]}
    assert (entry["actor_id"], entry["action"]) == (max.id, "update")


@pytest.mark.sqlite_only("it reads the file")
def test_a_token_is_stored_only_as_its_hash(app: App, settings: Settings, reset_token: str) -> None:
    files = b"".join(path.read_bytes() for path in settings.sqlite_path.parent.glob("app.db*") if path.is_file())

    assert [row.token_hash for row in stored(app)] == [digest(reset_token)]
    assert digest(reset_token).encode() in files
    assert reset_token.encode() not in files


def test_no_token_and_no_password_is_in_the_log(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        PostOffice().open() as office,
        TestClient(create_app(with_mail(settings, office.url))) as client,
    ):
        register(client, **account("max"))
        ask(client)
        until(lambda: len(office.mails) == 2)
        [reset_token] = [
            token for number in (0, 1) for token in re.findall(r"(?m)^\S{43}$", office.part("plain", number))
        ]
        answers = [use(client, reset_token).status_code for _ in range(2)]
    log = capsys.readouterr().err

    assert answers == [204, 400]
    assert "The mail 'reset' was sent to max@example.com" in log
    secrets = (reset_token, digest(reset_token), OTHER_PASSWORD, PASSWORD)
    assert [secret for secret in secrets if secret in log] == []


def test_without_mail_the_text_is_logged_without_the_token(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(settings.model_copy(update={"log_level": "DEBUG"}))
    with TestClient(app) as client:
        register(client, **account("max"))
        ask(client)
        until(lambda: waiting(app) == 0)
        rows = stored(app)
    log = capsys.readouterr().err

    assert len(rows) == 1
    assert "use this token within an hour:\n\n(not shown)\n" in log
    assert re.findall(r"(?m)^\S{43}$", log) == []


def test_no_answer_may_be_kept(client: TestClient) -> None:
    answers = [ask(client), use(client, "wrong")]

    assert [answer.headers["Cache-Control"] for answer in answers] == ["no-store"] * 2


# More rounds, or fewer


def prices(done: list[bytes]) -> int:
    """How many rounds of bcrypt these hashes took."""
    return sum(2 ** int(password_hash[4:6]) for password_hash in done)


def hash_of(app: App, email: str) -> str:
    with app.state.database.read() as session:
        return session.exec(select(User.password_hash).where(User.email == email)).one()


@pytest.mark.parametrize("rounds", [6, 4])
def test_a_failure_costs_the_same_however_old_the_hash_is(
    rounds: int,
    client: TestClient,
    ada: Person,
    max: Person,
    eva: Person,
    change_settings: Callable[..., None],
    checks: list[bytes],
    hashes: list[bytes],
) -> None:
    change_settings(bcrypt_rounds=6)
    token(client, ada.email)  # hers is new now
    ada.patch(f"/users/{eva.id}", {"is_active": False})
    change_settings(bcrypt_rounds=rounds)
    costs: list[int] = []
    for email, password in [("no@example.com", "x"), (ada.email, "x"), (max.email, "x"), (eva.email, PASSWORD)]:
        checks.clear()
        hashes.clear()
        assert token(client, email, password).status_code == 400
        costs.append(prices(checks) + prices(hashes))

    assert costs == [2**6] * 4


def test_a_hash_is_renewed_at_the_next_sign_in(
    app: App, client: TestClient, ada: Person, max: Person, change_settings: Callable[..., None]
) -> None:
    before = ada.get("/audit").json(), ada.get(f"/users/{max.id}").json()
    found: list[str] = []
    for rounds in (5, 5, 4):
        change_settings(bcrypt_rounds=rounds)
        assert token(client, max.email, "wrong").status_code == 400
        assert token(client, max.email).status_code == 200
        found.append(hash_of(app, max.email))

    assert [password_hash[:7] for password_hash in found] == ["$2b$05$", "$2b$05$", "$2b$04$"]
    assert found[0] == found[1]
    assert (ada.get("/audit").json(), ada.get(f"/users/{max.id}").json()) == before
    assert max.get("/users/me").status_code == 200


def test_a_wrong_password_renews_nothing(
    app: App, client: TestClient, max: Person, change_settings: Callable[..., None]
) -> None:
    before = hash_of(app, max.email)
    change_settings(bcrypt_rounds=5)
    token(client, max.email, "wrong")

    assert hash_of(app, max.email) == before


@on_both_databases
def test_sign_ins_at_once_that_renew_one_hash_all_succeed(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        register(client, **account("max"))
    app = create_app(settings.model_copy(update={"bcrypt_rounds": 5}))
    with TestClient(app) as client:
        responses = at_once(6, lambda _: token(client, "max@example.com"))
        renewed = hash_of(app, "max@example.com")

    assert [response.status_code for response in responses] == [200] * 6
    assert renewed.startswith("$2b$05$")


def test_a_change_of_the_password_renews_its_rounds_as_well(
    app: App, ada: Person, max: Person, change_settings: Callable[..., None]
) -> None:
    change_settings(bcrypt_rounds=5)

    assert change_password(ada, max).status_code == 204
    assert hash_of(app, max.email).startswith("$2b$05$")
    assert token(max.client, max.email, OTHER_PASSWORD).status_code == 200


# The admin that the settings name


def with_admin(settings: Settings, email: str, password: str = PASSWORD) -> Settings:
    return settings.model_copy(update={"admin_email": email, "admin_password": SecretStr(password)})


def test_the_start_makes_the_admin_that_the_settings_name(settings: Settings) -> None:
    with TestClient(create_app(with_admin(settings, "Ada@Example.com"))) as client:
        ada = me(client, token(client, "ada@example.com").json()["access_token"]).json()

    assert (ada["email"], ada["role"], ada["is_active"]) == ("ada@example.com", "admin", True)


def test_the_start_makes_no_admin_where_there_is_a_user(app: App, ada: Person) -> None:
    ensure_admin(with_admin(app.state.settings, "eva@example.com"), app.state.database)

    assert ada.get("/users").json()["total"] == 1


def test_half_an_admin_is_none(app: App, client: TestClient) -> None:
    whole = with_admin(app.state.settings, "eva@example.com")
    for half in ("admin_email", "admin_password"):
        ensure_admin(whole.model_copy(update={half: None}), app.state.database)

    assert token(client, "eva@example.com").status_code == 400
    assert register(client, **account("ada")).json()["role"] == "admin"


def test_a_weak_password_for_that_admin_stops_the_start(settings: Settings) -> None:
    with (
        pytest.raises(StartRefused, match=r"^APP_ADMIN_PASSWORD is wrong: .*\.$") as refused,
        TestClient(create_app(with_admin(settings, "ada@example.com", "weak"))),
    ):
        pass

    assert "weak" not in str(refused.value)


def test_of_many_workers_that_start_at_once_one_makes_the_admin(app: App, client: TestClient) -> None:
    settings, together = with_admin(app.state.settings, "ada@example.com"), Barrier(4)

    def start(_: int) -> None:
        with closing(Database(settings)) as database:
            together.wait()
            ensure_admin(settings, database)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(4)))
    ada = me(client, token(client, "ada@example.com").json()["access_token"]).json()

    assert (ada["id"], ada["role"]) == (1, "admin")


# What the sweeps cannot know


def _reset(world: World) -> dict[str, str]:
    """Let the owner's password be set with a token, as if it had been mailed."""
    token_hash, an_hour = digest("the token of the owner"), timedelta(hours=1)
    with ending(world.app.state.database.write()) as session:
        session.add(PasswordReset(token_hash=token_hash, user_id=world.owner.id, expires_at=now() + an_hour))
    return {"token": "the token of the owner", "new_password": "Correct-horse-2"}


def _session(world: World) -> int:
    return world.people[world.creator].get("/auth/sessions").json()[0]["id"]


def _another_session(world: World, _number: int) -> None:
    signed_in(world.client, world.admin.email)


SWEEP = Exceptions(
    public=frozenset(
        {"POST /auth/register", "POST /auth/token", "POST /auth/password-reset", "PUT /auth/password-reset"}
    ),
    statuses={"DELETE /auth/sessions/{session_id}": {"member": 404, "admin": 404}},
    bodies={
        "POST /auth/register": {"password": PASSWORD},
        "POST /auth/token": {"grant_type": "password", "username": "owner@example.com", "password": PASSWORD},
        "POST /auth/password-reset": {"email": "owner@example.com"},
        "PUT /auth/password-reset": _reset,
    },
    rows={"session_id": _session},
    lists={"GET /auth/sessions": _another_session},
    costs={
        "POST /auth/register": (2, 4),
        "POST /auth/token": (2, 8),
        "PUT /auth/password-reset": (2, 8),
        "DELETE /auth/sessions": (1, 2),
    },
    reasons=frozenset(
        {
            "BAD_REQUEST",
            "INVALID_CREDENTIALS",
            "body.full_name value_error",  # with a line break in it
            "body.password value_error",
            "body.new_password value_error",
        }
    ),
)
