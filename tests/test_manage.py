"""The command line."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, col, select
from typer.testing import CliRunner, Result

import manage
from kit.db import Database
from models import AuditEntry, Item, ItemCreate, Notification, Order, User, UserCreate, folded
from settings import Settings
from tests.conftest import PASSWORD, Person


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command on the database of the test."""
    monkeypatch.setenv("APP_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("APP_BCRYPT_ROUNDS", "4")

    def command(*words: str, stdin: str = "") -> Result:
        return CliRunner().invoke(manage.app, words, input=stdin)

    return command


@pytest.fixture
def rows(settings: Settings) -> Generator[Session]:
    """What is in the database of the test."""
    database = Database(settings)
    with database.read() as session:
        yield session
    database.close()


def failed(result: Result) -> str:
    """The sentence on standard error of a command that ended with exit code 1 and without a traceback."""
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").strip()


# create-admin


def test_an_admin_made_on_the_command_line_signs_in(
    command: Callable[..., Result], client: TestClient, sign_in: Callable[[str], Person]
) -> None:
    result = command("create-admin", "Ada@Example.com", "--name", "Ada Lindqvist", stdin=f"{PASSWORD}\n")
    ada = sign_in("ada@example.com").get("/users/me").json()

    assert (result.exit_code, result.stdout) == (0, "ada@example.com is an admin now.\n")
    assert (ada["role"], ada["full_name"]) == ("admin", "Ada Lindqvist")


def test_an_admin_can_be_made_beside_others(command: Callable[..., Result], max: Person) -> None:
    assert command("create-admin", "eva@example.com", stdin=f"{PASSWORD}\n").exit_code == 0


def test_only_the_first_line_of_standard_input_is_the_password(
    command: Callable[..., Result], sign_in: Callable[[str, str], Person]
) -> None:
    command("create-admin", "ada@example.com", stdin=f" {PASSWORD} \r\nanother line\n")

    assert sign_in("ada@example.com", f" {PASSWORD} ").id == 1


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(settings: Settings, rows: Session) -> None:
    terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    asking = subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
        [sys.executable, "-c", terminal, sys.executable, manage.__file__, "create-admin", "ada@example.com"],
        env=os.environ | {"APP_DATABASE_URL": settings.database_url, "APP_BCRYPT_ROUNDS": "4"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    shown = typed(asking, "Password: ", PASSWORD) + typed(asking, "Repeat for confirmation: ", PASSWORD)
    shown += asking.communicate(timeout=20)[0].decode()

    assert (asking.returncode, PASSWORD in shown) == (0, False)
    assert [user.email for user in rows.exec(select(User))] == ["ada@example.com"]


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


@pytest.mark.parametrize(
    ("email", "password", "sentence"),
    [
        ("ada@example.com", "Short-1", "password: String should have at least 8 characters."),
        ("ada@example.com", "\n", "password: String should have at least 8 characters."),
        ("ada@example.com", "alllowercase", "password: Use a lower-case letter, an upper-case letter, a digit and"),
        ("nobody", PASSWORD, "email: value is not a valid email address"),
    ],
)
def test_what_is_not_acceptable_is_said_in_a_sentence(
    command: Callable[..., Result], rows: Session, email: str, password: str, sentence: str
) -> None:
    result = command("create-admin", email, stdin=f"{password}\n")

    assert failed(result).startswith(sentence)
    assert password.strip() == "" or password not in result.output
    assert rows.exec(select(User)).all() == []


def test_an_email_that_is_taken_is_refused(command: Callable[..., Result], ada: Person) -> None:
    result = command("create-admin", "ADA@example.com", stdin=f"{PASSWORD}\n")

    assert failed(result) == "Another account has the e-mail address ADA@example.com."


@pytest.mark.parametrize("words", [["create-admin", "ada@example.com"], ["seed"]])
def test_a_database_that_is_not_migrated_is_refused_and_not_made(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/none.db")
    monkeypatch.setenv("APP_MIGRATE_ON_START", "false")

    assert "run 'uv run manage.py migrate' first" in failed(command(*words, stdin=f"{PASSWORD}\n"))
    assert not (tmp_path / "none.db").exists()


def test_a_wrong_setting_is_named(command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_LOGIN_ATTEMPTS", "many")
    result = command("migrate")

    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert str(result.exception).startswith("APP_LOGIN_ATTEMPTS is wrong")


@pytest.mark.sqlite_only("another connection holds the one write lock")
def test_a_busy_database_is_said_to_be_busy(
    command: Callable[..., Result], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlite_engine.BUSY_SECONDS", 0.001)
    database = Database(settings)

    with database.write() as session:
        session.exec(select(User.id)).first()
        result = command("create-admin", "ada@example.com", stdin=f"{PASSWORD}\n")

    assert failed(result) == "The database is busy; try again in a moment."
    database.close()


# migrate


def test_migrate_makes_the_database_and_says_so(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/new/app.db")

    assert command("migrate").stdout == "The database was migrated and has this version's schema now.\n"
    assert command("migrate").stdout == "The database has this version's schema already; nothing was changed.\n"
    assert command("create-admin", "ada@example.com", stdin=f"{PASSWORD}\n").exit_code == 0


def test_migrate_refuses_the_database_of_another_program(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/other.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE theirs (id INTEGER)")
    other.close()

    assert "has tables of another program" in failed(command("migrate"))


# seed


def test_seed_makes_a_company_that_can_be_signed_in_to(
    command: Callable[..., Result], client: TestClient, sign_in: Callable[[str, str], Person]
) -> None:
    output = command("seed").stdout
    ada = sign_in("ada@example.com", output.split()[-1])
    everyone = ada.get("/users").json()

    assert "Added 12 people, 200 items and 400 orders.\n" in output
    assert (everyone["total"], ada.get("/items").json()["total"]) == (12, 200)
    assert [user["email"] for user in everyone["items"] if user["role"] == "admin"] == ["ada@example.com"]
    assert sign_in("zoe@example.com", output.split()[-1]).get("/users/me").json()["full_name"] == "Zoë Martin"


def test_seeded_rows_obey_every_rule_and_can_be_found_without_case(
    command: Callable[..., Result], rows: Session
) -> None:
    command("seed", "--items", "3000")
    items, users = rows.exec(select(Item)).all(), rows.exec(select(User)).all()

    assert len({item.name_key for item in items}) == 3000
    for item in items:
        ItemCreate.model_validate(item.model_dump(include=set(ItemCreate.model_fields)))
        assert item.name_key == folded(item.name)
    for user in users:
        fields = user.model_dump(include={"email", "full_name", "role"})
        assert UserCreate.model_validate(fields | {"password": PASSWORD}).email == user.email
        assert user.full_name_key == folded(user.full_name)


def test_seeded_stock_is_worth_looking_at(command: Callable[..., Result], rows: Session) -> None:
    command("seed")
    items = rows.exec(select(Item)).all()

    assert 0 < sum(item.quantity <= item.reorder_level for item in items) < 100
    assert {"light", "furniture", "paper"} <= {tag for item in items for tag in item.tags}
    assert len({item.price_cents for item in items}) > 50


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_seeding_makes_the_same_items_every_time(
    command: Callable[..., Result], settings: Settings, template: Path
) -> None:
    def seeded() -> list[tuple[str, int, int, list[str]]]:
        shutil.copy(template, settings.sqlite_path)
        command("seed", "--items", "50")
        database = Database(settings)
        with database.read() as session:
            items = [(item.name, item.price_cents, item.quantity, item.tags) for item in session.exec(select(Item))]
        database.close()
        return items

    assert seeded() == seeded()


def test_seed_refuses_a_database_with_users(command: Callable[..., Result], ada: Person) -> None:
    assert failed(command("seed")) == "The database has users already; use --force to add to them."
    assert ada.get("/items").json()["total"] == 0


def test_seed_adds_to_a_database_with_users_when_forced(
    command: Callable[..., Result], max: Person, ada: Person
) -> None:
    assert "Added 10 people, 200 items and 400 orders." in command("seed", "--force").stdout
    assert (
        "Added 0 people, 1300 items and 0 orders."
        in command("seed", "--force", "--items", "1300", "--orders", "0").stdout
    )
    assert (ada.get("/users").json()["total"], ada.get("/items").json()["total"]) == (12, 1500)


def test_seed_takes_no_negative_number(command: Callable[..., Result]) -> None:
    assert command("seed", "--items", "-1").exit_code == 2
    assert "Added 12 people, 0 items and 0 orders." in command("seed", "--items", "0").stdout


def test_seeded_orders_obey_every_invariant(command: Callable[..., Result], rows: Session) -> None:
    command("seed", "--orders", "2000")
    orders = rows.exec(select(Order)).all()
    entries = rows.exec(select(AuditEntry).order_by(col(AuditEntry.id))).all()

    assert len(orders) == 2000
    for order in orders:
        assert order.total_cents == sum(line.quantity * line.unit_price_cents for line in order.lines)
    for item in rows.exec(select(Item)):
        steps = [entry.changes["quantity"] for entry in entries if (entry.entity, entry.entity_id) == ("item", item.id)]
        assert [step[0] for step in steps] == [None, *[step[1] for step in steps[:-1]]]
        assert (steps[-1][1], len(steps)) == (item.quantity, item.version)
        assert min(step[1] for step in steps) >= 0
        kept = [line for order in orders if order.status != "cancelled" for line in order.lines]
        assert steps[0][1] - item.quantity == sum(line.quantity for line in kept if line.item_id == item.id)


def test_the_seeded_admin_is_told_of_every_order_of_the_others(command: Callable[..., Result], rows: Session) -> None:
    command("seed")
    ada = rows.exec(select(User).where(User.role == "admin")).one()
    placed = select(Notification).where(Notification.kind == "order_placed", Notification.user_id == ada.id)
    others = [order for order in rows.exec(select(Order)) if order.user_id != ada.id]

    assert len(rows.exec(placed).all()) == len(others)


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_seeding_that_is_stopped_leaves_nothing_behind(settings: Settings, rows: Session, tmp_path: Path) -> None:
    log = Path(f"{settings.sqlite_path}-wal")
    seeding = subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
        [sys.executable, manage.__file__, "seed", "--items", "1000000"],
        cwd=tmp_path,
        env={"APP_DATABASE_URL": settings.database_url, "APP_BCRYPT_ROUNDS": "4"},
        preexec_fn=heed_interrupts,
    )
    while not (log.exists() and log.stat().st_size > 1_000_000):  # until thousands of items are written
        assert seeding.poll() is None
        time.sleep(0.01)
    seeding.send_signal(signal.SIGINT)

    assert seeding.wait() == 130
    assert rows.exec(select(User)).all() == []
    assert rows.exec(select(Item)).all() == []


def heed_interrupts() -> None:
    """A process that was started in the background hands down that it ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# help


@pytest.mark.parametrize("name", ["create-admin", "migrate", "seed"])
def test_every_command_explains_itself(command: Callable[..., Result], name: str) -> None:
    assert name in command("--help").stdout
    assert f"{name} [OPTIONS]" in command(name, "--help").stdout
