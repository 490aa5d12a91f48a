"""Passwords: the rule, the hash, and the admin that is made at start."""

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import sleep
from typing import Any

import bcrypt
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import SecretStr

import passwords
from app import create_app
from passwords import check_password, hash_password
from settings import Settings, StartRefused
from tests.conftest import API, PASSWORD, Person


def register(client: TestClient, password: str) -> Response:
    body = {"email": "ada@example.com", "full_name": "Ada", "password": password}
    return client.post(f"{API}/auth/register", json=body)


def sign_in(client: TestClient, email: str, password: str) -> int:
    return client.post(f"{API}/auth/token", data={"username": email, "password": password}).status_code


# The rule


@pytest.mark.parametrize(
    "password",
    [
        "Abcdef1!",
        "Abcdefghijkl-15",
        "Abc def1",
        "äöüÄ123?",
        "ABCDEFg1_",
        "a" * 16,
        " " * 16,
        "1234567890123456",
        "🐴" * 16,
        "é" * 128,
        "Aa1!" * 32,
    ],
)
def test_a_password_may_be(client: TestClient, password: str) -> None:
    assert register(client, password).status_code == 201
    assert sign_in(client, "ada@example.com", password) == 200


@pytest.mark.parametrize(
    "password",
    [
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
        "Abcdef1!\0",
        "a" * 8 + "\0" + "a" * 8,
    ],
)
def test_a_password_may_not_be(client: TestClient, password: str) -> None:
    response = register(client, password)

    assert (response.status_code, response.json()["error_code"]) == (422, "VALIDATION_ERROR")
    assert password == "" or password not in response.text


def test_the_refusal_says_what_is_missing(client: TestClient) -> None:
    [error] = register(client, "abcdefgh").json()["errors"]

    assert error["loc"] == ["body", "password"]
    assert "an upper-case letter, a digit and a special character, or at least 16 characters" in error["msg"]


@pytest.mark.parametrize(
    ("path", "field"), [("/auth/register", "password"), ("/users", "password"), ("/users/me/password", "new_password")]
)
def test_the_rule_is_the_same_wherever_a_password_is_set(ada: Person, path: str, field: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "password": {"email": "x@example.com", "full_name": "X", "password": "Weak-1"},
        "new_password": {"current_password": PASSWORD, "new_password": "Weak-1"},
    }
    response = ada.request("PUT" if field == "new_password" else "POST", path, json=bodies[field])

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [["body", field]]


def test_a_password_is_never_stripped(client: TestClient) -> None:
    assert register(client, "  Abcdef-1  ").status_code == 201
    assert sign_in(client, "ada@example.com", "Abcdef-1") == 400
    assert sign_in(client, "ada@example.com", "  Abcdef-1  ") == 200


def test_white_space_counts_towards_the_length(client: TestClient) -> None:
    assert register(client, " Abcd-1 ").status_code == 201


# The hash


@pytest.mark.parametrize("same", ["a" * 72, "🐴" * 18, "a" * 71 + "é", "Abc-123\0"])
def test_no_byte_of_a_password_is_ignored(same: str) -> None:
    password_hash = hash_password(f"{same}x", rounds=4)

    assert check_password(f"{same}x", password_hash)
    assert not check_password(f"{same}y", password_hash)
    assert not check_password(same, password_hash)


def test_the_end_of_a_long_password_counts_when_signing_in(client: TestClient) -> None:
    register(client, "a" * 127 + "x")

    assert sign_in(client, "ada@example.com", "a" * 127 + "y") == 400
    assert sign_in(client, "ada@example.com", "a" * 127) == 400
    assert sign_in(client, "ada@example.com", "a" * 127 + "x") == 200


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password(PASSWORD, rounds=4) != hash_password(PASSWORD, rounds=4)


def test_a_hash_says_its_rounds() -> None:
    assert hash_password(PASSWORD, rounds=5).startswith("$2b$05$")


def test_no_more_hashes_than_cores_are_computed_at_once(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    running = peak = 0
    lock = Lock()
    check = bcrypt.checkpw

    def watched(password: bytes, password_hash: bytes) -> bool:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        sleep(0.02)
        with lock:
            running -= 1
        return check(password, password_hash)

    monkeypatch.setattr(bcrypt, "checkpw", watched)
    monkeypatch.setattr(passwords, "CORES", 2)
    with TestClient(create_app(settings)) as client, ThreadPoolExecutor(8) as pool:
        emails = [f"nobody{number}@example.com" for number in range(8)]
        statuses = list(pool.map(sign_in, [client] * 8, emails, [PASSWORD] * 8))

    assert statuses == [400] * 8
    assert peak == 2


# The admin that the settings name


def with_admin(settings: Settings, email: str, password: str = PASSWORD) -> Settings:
    return settings.model_copy(update={"admin_email": email, "admin_password": SecretStr(password)})


def test_the_start_makes_the_admin_that_the_settings_name(settings: Settings) -> None:
    with TestClient(create_app(with_admin(settings, "Ada@Example.com"))) as client:
        form = {"username": "ada@example.com", "password": PASSWORD}
        access_token = client.post(f"{API}/auth/token", data=form).json()["access_token"]
        ada = client.get(f"{API}/users/me", headers={"Authorization": f"Bearer {access_token}"}).json()

    assert (ada["email"], ada["role"], ada["is_active"]) == ("ada@example.com", "admin", True)


def test_the_start_makes_no_admin_where_there_is_a_user(settings: Settings, ada: Person) -> None:
    with TestClient(create_app(with_admin(settings, "eva@example.com"))) as client:
        assert sign_in(client, "eva@example.com", PASSWORD) == 400
    assert ada.get("/users").json()["total"] == 1


@pytest.mark.parametrize("given", ["admin_email", "admin_password"])
def test_half_an_admin_is_none(settings: Settings, given: str) -> None:
    whole = with_admin(settings, "eva@example.com")
    with TestClient(create_app(settings.model_copy(update={given: getattr(whole, given)}))) as client:
        assert register(client, PASSWORD).json()["role"] == "admin"
        assert sign_in(client, "eva@example.com", PASSWORD) == 400


def test_a_weak_password_for_that_admin_stops_the_start(settings: Settings) -> None:
    app = create_app(with_admin(settings, "ada@example.com", "weak"))
    with (
        pytest.raises(StartRefused, match=r"^APP_ADMIN_PASSWORD is wrong: .*\.$") as refused,
        TestClient(app),
    ):
        pass
    app.state.database.close()  # else the process would end here

    assert "weak" not in str(refused.value)


def test_of_many_workers_that_start_at_once_one_makes_the_admin(settings: Settings) -> None:
    def start(_: int) -> int:
        with TestClient(create_app(with_admin(settings, "ada@example.com"))) as client:
            return sign_in(client, "ada@example.com", PASSWORD)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start, range(4))) == [200] * 4
