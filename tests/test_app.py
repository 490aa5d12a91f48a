"""The app as it starts: the first admin that its settings name, and several workers at once."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import create_app
from kit.settings import StartRefused
from settings import Settings
from tests.people import API, PASSWORD, Person
from tests.server import ROOT

# The first admin


def _with_admin(settings: Settings, password: str = PASSWORD) -> Settings:
    """The settings as an operator gives them who wants an admin from the start."""
    admin = {"admin_email": "Boss@example.com", "admin_password": password}
    return Settings.model_validate(settings.model_dump(exclude_unset=True) | admin)


def _sign_in(client: TestClient, email: str) -> int:
    return client.post(f"{API}/auth/token", data={"username": email, "password": PASSWORD}).status_code


def test_the_settings_make_an_admin_where_there_is_no_user(settings: Settings) -> None:
    with TestClient(create_app(_with_admin(settings))) as client:
        token = client.post(f"{API}/auth/token", data={"username": "boss@example.com", "password": PASSWORD}).json()
        boss = Person(client, 1, "boss@example.com", token["access_token"], token["refresh_token"])

        assert boss.get("/users/me").json()["role"] == "admin"


def test_the_settings_make_no_admin_where_there_is_a_user(ada: Person, settings: Settings) -> None:
    with TestClient(create_app(_with_admin(settings))) as client:
        assert _sign_in(client, "boss@example.com") == 400
        assert _sign_in(client, ada.email) == 200


def test_a_second_start_leaves_the_admin_alone(settings: Settings) -> None:
    for _ in range(2):
        with TestClient(create_app(_with_admin(settings))) as client:
            assert _sign_in(client, "boss@example.com") == 200


def test_a_weak_admin_password_refuses_the_start(settings: Settings) -> None:
    app = create_app(_with_admin(settings, "weak"))

    with pytest.raises(StartRefused, match=r"^APP_ADMIN_PASSWORD is wrong: .*\.$"), TestClient(app):
        pass


def _start(program: list[str], folder: Path, **settings: str) -> subprocess.Popen[str]:
    """A process of its own, with these settings and no others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
    environment |= {"APP_DATABASE_URL": f"sqlite:///{folder}/app.db", "APP_BCRYPT_ROUNDS": "4"} | settings
    return subprocess.Popen(  # noqa: S603 - this very Python, with options from here
        [sys.executable, *program],
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_refused_start_says_one_sentence_and_no_traceback(tmp_path: Path) -> None:
    admin = {"APP_ADMIN_EMAIL": "ada@example.com", "APP_ADMIN_PASSWORD": "weak"}
    process = _start(["-m", "uvicorn", "app:app", "--port", "0"], tmp_path, **admin)
    _, log = process.communicate(timeout=60)

    assert process.returncode != 0
    assert "APP_ADMIN_PASSWORD is wrong: " in log
    assert "Traceback" not in log


# Importing takes long and hashing is slow here, so that the starts overlap where it matters.
START_TOGETHER = """
from fastapi.testclient import TestClient
from app import app
print("imported", flush=True)
input()
with TestClient(app) as client:
    client.get("/ready").raise_for_status()
"""


def test_four_workers_that_start_at_once_make_one_schema_one_key_and_one_admin(tmp_path: Path) -> None:
    admin = {"APP_ADMIN_EMAIL": "boss@example.com", "APP_ADMIN_PASSWORD": PASSWORD, "APP_BCRYPT_ROUNDS": "12"}
    workers = [_start(["-c", START_TOGETHER], tmp_path / "new", **admin) for _ in range(4)]
    imported = [worker.stdout.readline() for worker in workers if worker.stdout]
    for worker in workers:
        print(file=worker.stdin, flush=True)
    logs = [worker.communicate(timeout=60)[1] for worker in workers]
    users = sqlite3.connect(tmp_path / "new" / "app.db")
    rows = users.execute("SELECT email, role FROM user").fetchall()
    users.close()

    assert imported == ["imported\n"] * 4
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0], logs
    assert rows == [("boss@example.com", "admin")]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "app.db",
        "app.db-hashing",
        "app.db-lock",
        "secret_key",
    ]
