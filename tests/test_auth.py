"""Signing in, staying signed in, and being signed out."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from hmac import digest
from threading import Event
from time import sleep, time
from typing import Any

import bcrypt
import jwt
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import SecretStr

import passwords
from app import create_app
from settings import Settings
from tests.conftest import API, PASSWORD, Person

KEY = "a key for the tests that nobody else may use"
TOKEN = f"{API}/auth/token"
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


def register(client: TestClient, **body: Any) -> Response:
    return client.post(f"{API}/auth/register", json=body)


def token(client: TestClient, email: str, password: str = PASSWORD) -> Response:
    return client.post(TOKEN, data={"username": email, "password": password})


def refresh(client: TestClient, refresh_token: str) -> Response:
    return client.post(TOKEN, data={"grant_type": "refresh_token", "refresh_token": refresh_token})


def me(client: TestClient, *authorization: str | bytes) -> Response:
    return client.get(f"{API}/users/me", headers=[(b"Authorization", _bytes(value)) for value in authorization])


def without_id(response: Response) -> dict[str, Any]:
    return {name: value for name, value in response.json().items() if name != "request_id"}


def at_once(count: int, work: Callable[[int], Response]) -> list[Response]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def running(settings: Settings, **changes: Any) -> AbstractContextManager[TestClient]:
    """Another app on the same file, with other settings."""
    return TestClient(create_app(settings.model_copy(update=changes)), raise_server_exceptions=False)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


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

    assert (response.status_code, response.json()["error_code"]) == (409, "EMAIL_TAKEN")


def test_of_many_accounts_with_one_email_at_once_exactly_one_is_made(client: TestClient) -> None:
    responses = at_once(8, lambda _: register(client, **account("ada")))

    assert sorted(response.status_code for response in responses) == [201, *[409] * 7]


def test_closed_registration_makes_no_account(settings: Settings) -> None:
    with running(settings, registration_open=False) as client:
        response = register(client, **account("ada"))
        signed_in = token(client, "ada@example.com")

    assert (response.status_code, response.json()["error_code"]) == (403, "REGISTRATION_CLOSED")
    assert signed_in.status_code == 400


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"role": "admin"}, "role"),
        ({"is_active": True}, "is_active"),
        ({"id": 1}, "id"),
        ({"email": None}, "email"),
        ({"email": ""}, "email"),
        ({"email": "ada"}, "email"),
        ({"email": "ada@"}, "email"),
        ({"email": "ada@example"}, "email"),
        ({"email": "Ada <ada@example.com>"}, "email"),
        ({"email": f"{'a' * 250}@example.com"}, "email"),
        ({"email": 5}, "email"),
        ({"full_name": ""}, "full_name"),
        ({"full_name": " \t\u00a0"}, "full_name"),
        ({"full_name": "a" * 256}, "full_name"),
        ({"full_name": ["ada"]}, "full_name"),
        ({"password": None}, "password"),
        ({"password": 12345678901234567}, "password"),
    ],
)
def test_registering_refuses(client: TestClient, change: dict[str, Any], loc: str) -> None:
    response = register(client, **account("ada", **change))

    assert (response.status_code, response.json()["error_code"]) == (422, "VALIDATION_ERROR")
    assert [error["loc"] for error in response.json()["errors"]] == [["body", loc]]


@pytest.mark.parametrize("field", ["email", "full_name", "password"])
def test_registering_needs_every_field(client: TestClient, field: str) -> None:
    body = account("ada")
    del body[field]

    assert register(client, **body).json()["errors"][0]["loc"] == ["body", field]


@pytest.mark.parametrize("field", ["email", "full_name", "password"])
@pytest.mark.parametrize("escape", ["\\u0000", "\\ud800"], ids=["NUL", "lone surrogate"])
def test_registering_refuses_text_that_is_none(client: TestClient, field: str, escape: str) -> None:
    body = json.dumps(account("ada") | {field: "Abcdefg-1@example.com?"}).replace("?", escape)
    response = client.post(f"{API}/auth/register", content=body, headers={"Content-Type": "application/json"})

    assert (response.status_code, response.json()["error_code"]) == (422, "VALIDATION_ERROR")


# Signing in


def test_signing_in_gives_a_pair_of_tokens(client: TestClient, ada: Person) -> None:
    response = token(client, ada.email)

    pair = response.json()
    assert set(pair) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (response.status_code, pair["token_type"], pair["expires_in"]) == (200, "bearer", 900)
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("email", ["ADA@EXAMPLE.COM", " ada@example.com "])
def test_signing_in_compares_the_email_without_case(client: TestClient, ada: Person, email: str) -> None:
    assert token(client, email).status_code == 200


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


def test_lifetimes_follow_the_settings(settings: Settings, ada: Person) -> None:
    with running(settings, access_token_minutes=2, refresh_token_days=0) as client:
        pair = token(client, ada.email).json()
        expired = refresh(client, pair["refresh_token"])

    claims = jwt.decode(pair["access_token"], KEY, algorithms=["HS256"])
    assert (pair["expires_in"], claims["exp"] - claims["iat"]) == (120, 120)
    assert without_id(expired) == INVALID


@pytest.mark.parametrize(
    ("form", "code", "error"),
    [
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
    ],
)
def test_the_token_form_refuses(client: TestClient, ada: Person, form: dict[str, str], code: str, error: str) -> None:
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


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
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
    ],
)
def test_a_form_that_cannot_be_read_is_a_plain_400(
    client: TestClient, ada: Person, content_type: str, body: bytes
) -> None:
    response = client.post(TOKEN, content=body, headers={"Content-Type": content_type})

    assert response.status_code == 400
    assert response.json()["error"] in ("invalid_request", "invalid_grant")


def test_unknown_wrong_and_inactive_are_the_same_answer_at_the_same_price(
    client: TestClient, ada: Person, max: Person, checks: list[bytes]
) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})
    attempts = [("nobody@example.com", PASSWORD), (ada.email, "wrong"), (max.email, PASSWORD), (max.email, "wrong")]
    responses = [(token(client, *attempt), len(checks)) for attempt in attempts]

    assert [without_id(response) for response, _ in responses] == [INVALID] * 4
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
    assert (response.status_code, response.json()["error_code"]) == (429, "TOO_MANY_ATTEMPTS")
    assert 0 < int(response.headers["Retry-After"]) <= 900
    assert {"error", "error_description"} <= set(response.json())
    assert len(checks) == 5


def test_who_is_signed_in_stays_so_while_the_account_is_locked(client: TestClient, ada: Person) -> None:
    for _ in range(6):
        token(client, ada.email, "wrong")

    assert ada.get("/users/me").status_code == 200
    assert refresh(client, ada.refresh_token).status_code == 200


@pytest.mark.parametrize("email", ["nobody@example.com", "max@example.com"], ids=["unknown", "inactive"])
def test_an_account_that_nobody_can_use_is_locked_alike(
    client: TestClient, ada: Person, max: Person, email: str
) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})
    statuses = [token(client, email).status_code for _ in range(6)]

    assert statuses == [400] * 5 + [429]


def test_one_account_is_counted_whatever_the_case_of_its_email(client: TestClient, ada: Person) -> None:
    for email in ("ada@example.com", "ADA@example.com", " ada@EXAMPLE.com", "Ada@Example.Com ", "aDA@example.com"):
        token(client, email, "wrong")

    assert token(client, ada.email).status_code == 429


def test_another_account_is_not_affected(client: TestClient, ada: Person, max: Person) -> None:
    for _ in range(6):
        token(client, ada.email, "wrong")

    assert token(client, max.email).status_code == 200


def test_a_success_clears_the_count(client: TestClient, ada: Person) -> None:
    passwords = ["wrong"] * 4 + [PASSWORD] + ["wrong"] * 4 + [PASSWORD]
    statuses = [token(client, ada.email, password).status_code for password in passwords]

    assert statuses == [400] * 4 + [200] + [400] * 4 + [200]


def test_the_count_survives_a_restart_and_holds_on_every_worker(settings: Settings, ada: Person) -> None:
    with running(settings) as one, running(settings) as other:
        for number in range(5):
            token((one, other)[number % 2], ada.email, "wrong")
    with running(settings) as restarted:
        response = token(restarted, ada.email)

    assert response.status_code == 429


def test_the_account_opens_again_when_the_window_has_passed(settings: Settings, ada: Person) -> None:
    with running(settings, login_window_seconds=1, login_attempts=2) as client:
        statuses = [token(client, ada.email, "wrong").status_code for _ in range(3)]
        sleep(1.05)
        opened = token(client, ada.email)

    assert statuses == [400, 400, 429]
    assert opened.status_code == 200


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
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two hashes at once, also on a machine with one core; comes before the app starts."""
    monkeypatch.setattr(passwords, "CORES", 2)


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

    assert without_id(response) == INVALID
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
    assert me(client, f"Bearer {pair['access_token']}").json()["id"] == ada.id
    assert [row["id"] for row in after] == [row["id"] for row in before]
    assert after[0]["last_used_at"] > before[0]["last_used_at"]


def test_a_spent_refresh_token_ends_its_whole_session(client: TestClient, ada: Person) -> None:
    newest = refresh(client, refresh(client, ada.refresh_token).json()["refresh_token"]).json()
    replayed = refresh(client, ada.refresh_token)

    assert (replayed.status_code, without_id(replayed)) == (400, INVALID)
    assert me(client, f"Bearer {newest['access_token']}").status_code == 401
    assert ada.get("/users/me").status_code == 401
    assert without_id(refresh(client, newest["refresh_token"])) == INVALID


def test_a_replay_leaves_other_sessions_alone(
    client: TestClient, ada: Person, sign_in: Callable[[str], Person]
) -> None:
    elsewhere = sign_in(ada.email)
    refresh(client, ada.refresh_token)
    refresh(client, ada.refresh_token)

    assert elsewhere.get("/users/me").status_code == 200
    assert refresh(client, elsewhere.refresh_token).status_code == 200


@pytest.mark.parametrize("unknown", ["x", ".", "x.y", "ä.ö", "a" * 10_000])
def test_an_unknown_refresh_token_ends_nothing(client: TestClient, ada: Person, unknown: str) -> None:
    response = refresh(client, unknown)

    assert without_id(response) == INVALID
    assert refresh(client, ada.refresh_token).status_code == 200


def test_an_access_token_does_not_refresh(client: TestClient, ada: Person) -> None:
    assert without_id(refresh(client, ada.access_token)) == INVALID
    assert ada.get("/users/me").status_code == 200


def test_a_refresh_token_does_not_sign_in(client: TestClient, ada: Person) -> None:
    assert me(client, f"Bearer {ada.refresh_token}").status_code == 401


def test_of_many_uses_of_one_refresh_token_at_once_exactly_one_succeeds(client: TestClient, ada: Person) -> None:
    responses = at_once(8, lambda _: refresh(client, ada.refresh_token))

    assert sorted(response.status_code for response in responses) == [200, *[400] * 7]


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_the_database_holds_neither_refresh_tokens_nor_passwords(settings: Settings, ada: Person) -> None:
    stored = b"".join(path.read_bytes() for path in settings.sqlite_path.parent.glob("app.db*"))

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


def test_expired_sessions_are_not_listed(settings: Settings, ada: Person) -> None:
    with running(settings, refresh_token_days=0) as client:
        token(client, ada.email)

    assert len(ada.get("/auth/sessions").json()) == 1


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


@pytest.mark.parametrize("name", ["ada", "eva"], ids=["admin", "member"])
def test_the_session_of_someone_else_might_as_well_not_exist(
    request: pytest.FixtureRequest, max: Person, name: str
) -> None:
    person: Person = request.getfixturevalue(name)
    theirs = max.get("/auth/sessions").json()[0]["id"]
    refused, missing = person.delete(f"/auth/sessions/{theirs}"), person.delete("/auth/sessions/999")

    assert (refused.status_code, refused.json()["error_code"]) == (404, "SESSION_NOT_FOUND")
    assert refused.json()["detail"].replace(str(theirs), "999") == missing.json()["detail"]
    assert {name for name in refused.headers if name != "x-request-id"} == {
        name for name in missing.headers if name != "x-request-id"
    }
    assert max.get("/users/me").status_code == 200


# Being signed out


def sign_out(ada: Person, max: Person) -> Response:
    return max.delete("/auth/sessions/current")


def sign_out_everywhere(ada: Person, max: Person) -> Response:
    return max.delete("/auth/sessions")


@pytest.mark.parametrize("revoke", [sign_out, sign_out_everywhere, deactivate, delete])
def test_the_very_next_request_on_any_worker_is_refused_after(
    settings: Settings, ada: Person, max: Person, revoke: Callable[[Person, Person], Response]
) -> None:
    with running(settings) as other_worker:
        before = me(other_worker, f"Bearer {max.access_token}").status_code
        assert revoke(ada, max).is_success

        assert before == 200
        assert me(other_worker, f"Bearer {max.access_token}").status_code == 401
        assert max.get("/users/me").status_code == 401
        assert without_id(refresh(other_worker, max.refresh_token)) == INVALID


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


# Access tokens that are none


def encoded(part: object) -> bytes:
    return urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=")


def signed(header: object, claims: object, *, key: str = KEY, method: str = "sha256") -> str:
    content = encoded(header) + b"." + encoded(claims)
    return (content + b"." + encoded(digest(key.encode(), content, method))).decode()


def claims_of(person: Person, **changes: Any) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(person.access_token, KEY, algorithms=["HS256"])
    return claims | changes


HEADER = {"alg": "HS256", "typ": "JWT"}
DEEP = b"[" * 1500


def test_the_tokens_of_this_table_are_refused_for_what_they_say_alone(client: TestClient, ada: Person) -> None:
    assert me(client, f"Bearer {signed(HEADER, claims_of(ada))}").json()["id"] == ada.id


@pytest.mark.parametrize(
    ("header", "options"),
    [
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
    ],
)
def test_a_token_that_is_signed_otherwise_is_refused(
    client: TestClient, ada: Person, header: object, options: dict[str, str]
) -> None:
    assert_not_authenticated(me(client, f"Bearer {signed(header, claims_of(ada), **options)}"))


@pytest.mark.parametrize(("algorithm", "status"), [("HS256", 200), ("HS384", 401), ("HS512", 401)])
def test_a_key_that_is_long_enough_for_other_algorithms_serves_one_only(
    settings: Settings, ada: Person, algorithm: str, status: int
) -> None:
    key = KEY * 3
    access_token = jwt.encode(claims_of(ada), key, algorithm=algorithm)
    with running(settings, secret_key=SecretStr(key)) as client:
        assert me(client, f"Bearer {access_token}").status_code == status


def test_a_token_without_a_signature_is_refused(client: TestClient, ada: Person) -> None:
    content, _, _ = ada.access_token.rpartition(".")
    unsigned = encoded({"alg": "none"}) + b"." + encoded(claims_of(ada)) + b"."

    assert_not_authenticated(me(client, f"Bearer {content}."))
    assert_not_authenticated(me(client, f"Bearer {content}"))
    assert_not_authenticated(me(client, b"Bearer " + unsigned))


@pytest.mark.parametrize("claim", ["sub", "sid", "iat", "exp", "jti", "type"])
def test_a_token_without_one_of_its_claims_is_refused(client: TestClient, ada: Person, claim: str) -> None:
    claims = claims_of(ada)
    del claims[claim]

    assert_not_authenticated(me(client, f"Bearer {signed(HEADER, claims)}"))


WRONG_CLAIMS: dict[str, list[Any]] = {
    "type": ["refresh", "ACCESS", "", None, ["access"], True],
    "sub": ["", "x", "0", "-1", "+1", " 1", "1.0", "\u0661", "1_0", "9999", str(2**63), "2" * 40, None, 1, True, [1]],
    "sid": [0, -1, 9999, 2**63, 10**40, 1e300, 1.0, float("inf"), "1", "", None, True, [1], {"id": 1}],
    "exp": [0, 1, -1, -(10**40), float("inf"), float("nan"), "x", None, [1]],
    "iat": [10**12, 10**40, float("inf"), float("nan"), "x", None, [1]],
    "jti": [5, None, ["x"]],
    "nbf": [10**12],
    "aud": ["someone else"],
}


@pytest.mark.parametrize(
    ("claim", "value"), [(claim, value) for claim in WRONG_CLAIMS for value in WRONG_CLAIMS[claim]]
)
def test_a_token_with_a_wrong_claim_is_refused(client: TestClient, ada: Person, claim: str, value: object) -> None:
    assert_not_authenticated(me(client, f"Bearer {signed(HEADER, claims_of(ada, **{claim: value}))}"))


@pytest.mark.parametrize("claims", [[], "x", 5, None, DEEP, b"\xff", b"", b"{"])
def test_a_token_without_claims_is_refused(client: TestClient, ada: Person, claims: object) -> None:
    assert_not_authenticated(me(client, f"Bearer {signed(HEADER, claims)}"))


def test_an_expired_token_is_refused(client: TestClient, ada: Person) -> None:
    now = int(time())
    expired = signed(HEADER, claims_of(ada, iat=now - 901, exp=now - 1))

    assert_not_authenticated(me(client, f"Bearer {expired}"))


def test_the_token_of_one_person_does_not_open_the_session_of_another(
    client: TestClient, ada: Person, max: Person
) -> None:
    mixed = signed(HEADER, claims_of(max, sub=str(ada.id)))

    assert_not_authenticated(me(client, f"Bearer {mixed}"))


def test_an_overlong_token_is_refused(client: TestClient, ada: Person) -> None:
    padded = signed(HEADER, claims_of(ada, padding="x" * 5000))

    assert_not_authenticated(me(client, f"Bearer {padded}"))


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b.c",
        "Bearer ...",
        "{token}",
        "Basic {token}",
        "Token {token}",
        "Bearer{token}",
        "Bearer {token} x",
        "Bearer {token}, Bearer {token}",
        "Bearer {token}x",
        "Bearer x{token}",
        "Bearer \ufb01.\u00fc.x",
        b"Bearer \xff\xfe.\xfc.x",
    ],
)
def test_a_malformed_header_is_refused(client: TestClient, ada: Person, authorization: str | bytes) -> None:
    header = _bytes(authorization).replace(b"{token}", ada.access_token.encode())

    assert_not_authenticated(me(client, header))


def test_two_headers_at_once_are_refused(client: TestClient, ada: Person, max: Person) -> None:
    assert_not_authenticated(me(client, f"Bearer {ada.access_token}", f"Bearer {max.access_token}"))
    assert_not_authenticated(me(client, f"Bearer {ada.access_token}", "Bearer x"))


def test_a_request_without_a_header_is_refused(client: TestClient) -> None:
    assert_not_authenticated(me(client))


def test_the_scheme_of_the_header_has_no_case(client: TestClient, ada: Person) -> None:
    assert me(client, f"bearer {ada.access_token}").status_code == 200  # RFC 9110, 11.1


def test_a_token_in_the_query_is_not_read(client: TestClient, ada: Person) -> None:
    assert_not_authenticated(client.get(f"{API}/users/me", params={"access_token": ada.access_token}))


def test_a_token_signed_with_another_key_of_the_settings_is_refused(settings: Settings, ada: Person) -> None:
    with running(settings, secret_key=SecretStr("another key, just as long as the one for the tests")) as other:
        response = me(other, f"Bearer {ada.access_token}")

    assert_not_authenticated(response)


def assert_not_authenticated(response: Response) -> None:
    assert (response.status_code, response.json()["error_code"]) == (401, "NOT_AUTHENTICATED")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("email", ["kim@xn--bcher-kva.de", "jose\u0301@example.com", "KIM@Example.COM"])
def test_who_registered_with_an_address_signs_in_with_it(client: TestClient, email: str) -> None:
    account = {"email": email, "full_name": "Kim", "password": PASSWORD}
    assert client.post(f"{API}/auth/register", json=account).status_code == 201

    for username in (email, f" {email} "):
        answer = client.post(f"{API}/auth/token", data={"username": username, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
