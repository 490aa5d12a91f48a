"""The command line."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select
from typer.testing import Result

import manage
from kit import sqlite
from kit.app import App
from models import User
from tests.people import PASSWORD, Person

Command = Callable[..., Result]


def failed(result: Result) -> str:
    """The sentence on standard error of a command that ended with exit code 1 and without a traceback."""
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").strip()


def users(app: App) -> list[User]:
    with app.state.database.read() as session:
        return list(session.exec(select(User)))


# create-admin


def test_an_admin_made_on_the_command_line_signs_in(
    command: Command, client: TestClient, sign_in: Callable[[str], Person]
) -> None:
    result = command("create-admin", "Ada@Example.com", "--name", "Ada Lindqvist", stdin=f"{PASSWORD}\n")
    ada = sign_in("ada@example.com").get("/users/me").json()

    assert (result.exit_code, result.stdout) == (0, "ada@example.com is an admin now.\n")
    assert (ada["role"], ada["full_name"]) == ("admin", "Ada Lindqvist")


def test_an_admin_can_be_made_beside_others(command: Command, max: Person) -> None:
    assert command("create-admin", "eva@example.com", stdin=f"{PASSWORD}\n").exit_code == 0


def test_only_the_first_line_of_standard_input_is_the_password(
    command: Command, sign_in: Callable[[str, str], Person]
) -> None:
    command("create-admin", "ada@example.com", stdin=f" {PASSWORD} \r\nanother line\n")

    assert sign_in("ada@example.com", f" {PASSWORD} ").id == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals.")
def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(app: App) -> None:
    terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    asking = subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
        [sys.executable, "-c", terminal, sys.executable, manage.__file__, "create-admin", "ada@example.com"],
        env=os.environ | {"APP_DATABASE_URL": app.settings.database_url, "APP_BCRYPT_ROUNDS": "4"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    shown = typed(asking, "Password: ", PASSWORD) + typed(asking, "Repeat for confirmation: ", PASSWORD)
    shown += asking.communicate(timeout=20)[0].decode()

    assert (asking.returncode, PASSWORD in shown) == (0, False)
    assert [user.email for user in users(app)] == ["ada@example.com"]


def typed(process: "subprocess.Popen[bytes]", question: str, answer: str) -> str:
    """What is shown up to the question that is then answered."""
    assert process.stdin is not None
    assert process.stdout is not None
    shown = b""
    while not shown.endswith(question.encode()):
        letter = process.stdout.read(1)
        assert letter, f"it ended with {shown.decode()!r}"
        shown += letter
    process.stdin.write(f"{answer}\n".encode())
    return shown.decode()


def test_what_is_not_acceptable_is_said_in_a_sentence(command: Command, app: App) -> None:
    for email, password, sentence in [
        ("ada@example.com", "Short-1", "password: String should have at least 8 characters."),
        ("ada@example.com", "\n", "password: String should have at least 8 characters."),
        ("ada@example.com", "alllowercase", "password: Use a lower-case letter, an upper-case letter, a digit and"),
        ("nobody", PASSWORD, "email: value is not a valid email address"),
    ]:
        result = command("create-admin", email, stdin=f"{password}\n")

        assert failed(result).startswith(sentence)
        assert password.strip() == "" or password not in result.output
    assert users(app) == []


def test_an_email_that_is_taken_is_refused(command: Command, ada: Person) -> None:
    result = command("create-admin", "ADA@example.com", stdin=f"{PASSWORD}\n")

    assert failed(result) == "Another account has the e-mail address ADA@example.com."


def test_a_database_that_is_not_migrated_is_refused_and_not_made(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/none.db")
    monkeypatch.setenv("APP_MIGRATE_ON_START", "false")
    for words in (["create-admin", "ada@example.com"], ["revision", "more"]):
        assert "run 'uv run manage.py migrate' first" in failed(command(*words, stdin=f"{PASSWORD}\n"))
    assert not (tmp_path / "none.db").exists()


def test_a_wrong_setting_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_LOGIN_ATTEMPTS", "many")
    for words in (["migrate"], ["create-admin", "ada@example.com"]):
        result = command(*words)

        assert (result.exit_code, type(result.exception)) == (1, SystemExit)
        assert str(result.exception).startswith("APP_LOGIN_ATTEMPTS is wrong")


@pytest.mark.sqlite_only("on PostgreSQL nobody waits for the one write lock")
def test_a_busy_database_is_said_to_be_busy(command: Command, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.001)
    with app.state.database.write() as session:
        session.exec(select(User.id)).first()
        result = command("create-admin", "ada@example.com", stdin=f"{PASSWORD}\n")

    assert failed(result) == "The database is busy; try again in a moment."


# migrate


def test_migrate_makes_the_database_and_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/new/app.db")

    assert command("migrate").stdout == "The database was migrated and has this version's schema now.\n"
    assert command("migrate").stdout == "The database has this version's schema already; nothing was changed.\n"
    assert command("create-admin", "ada@example.com", stdin=f"{PASSWORD}\n").exit_code == 0


def test_migrate_refuses_the_database_of_another_program(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/other.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE theirs (id INTEGER)")
    other.close()

    assert "has tables of another program" in failed(command("migrate"))


# help


def test_every_command_explains_itself(command: Command) -> None:
    for name in ("create-admin", "downgrade", "migrate", "revision"):
        assert name in command("--help").stdout
        assert f"{name} [OPTIONS]" in command(name, "--help").stdout
