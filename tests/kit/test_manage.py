"""The commands that every app has."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kit import schema
from kit.db import Database, ending
from kit.manage import command_line
from kit.outbox import OutboxEntry
from kit.sqlite import SQLITE
from settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of a database that is not there yet."""
    return Settings(database_url=f"sqlite:///{tmp_path}/app.db")


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command on the database of the test."""
    monkeypatch.setenv("APP_DATABASE_URL", settings.database_url)

    def command(*words: str) -> Result:
        return CliRunner().invoke(command_line(Settings, "House"), words)

    return command


def failed(result: Result) -> str:
    """The sentence on standard error of a command that ended with exit code 1 and without a traceback."""
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").strip()


def is_current(settings: Settings) -> bool:
    with closing(Database(settings)) as database:
        return schema.is_current(database)


def test_migrate_makes_the_database_and_says_so(command: Callable[..., Result], settings: Settings) -> None:
    first, second = command("migrate"), command("migrate")

    assert first.stdout == "The database was migrated and has this version's schema now.\n"
    assert second.stdout == "The database has this version's schema already; nothing was changed.\n"
    assert is_current(settings)


def test_downgrade_takes_the_schema_back_and_migrate_brings_it_again(
    command: Callable[..., Result], settings: Settings
) -> None:
    command("migrate")
    back = command("downgrade", "base")

    assert back.stdout == "The schema was taken back; the app migrates again when it starts.\n"
    assert not is_current(settings)
    assert command("migrate").exit_code == 0
    assert is_current(settings)


def test_downgrade_by_one_step_is_a_downgrade_too(command: Callable[..., Result], settings: Settings) -> None:
    command("migrate")

    assert command("downgrade", "--", "-1").exit_code == 0
    assert not is_current(settings)


def test_downgrade_to_nowhere_is_refused_with_a_sentence(command: Callable[..., Result], settings: Settings) -> None:
    command("migrate")

    assert failed(command("downgrade", "nowhere")).startswith("The schema cannot be taken back: ")
    assert is_current(settings)


def test_a_revision_needs_a_database_that_is_migrated(command: Callable[..., Result], settings: Settings) -> None:
    settings.sqlite_path.touch()

    assert failed(command("revision", "more")).startswith("The database cannot be read or is not at this version's")


def test_a_revision_with_nothing_to_do_writes_nothing(command: Callable[..., Result], settings: Settings) -> None:
    command("migrate")
    before = sorted((schema.HERE / "migrations/versions").glob("*.py"))
    answer = command("revision", "nothing")

    assert answer.stdout.endswith("The models and the database agree; nothing was written.\n")
    assert sorted((schema.HERE / "migrations/versions").glob("*.py")) == before


def test_the_database_of_another_program_is_refused_with_a_sentence(
    command: Callable[..., Result], settings: Settings
) -> None:
    with closing(SQLITE.connect(settings.sqlite_path)) as connection:
        connection.execute("CREATE TABLE song (id)")

    assert failed(command("migrate")).startswith("The database has tables of another program")


def test_the_outbox_is_listed_and_what_was_given_up_is_tried_again(
    command: Callable[..., Result], settings: Settings
) -> None:
    command("migrate")
    empty = command("outbox").stdout
    at = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    with closing(Database(settings)) as database, ending(database.write()) as session:
        given_up = OutboxEntry(kind="welcome", payload={"email": "max"}, attempts=8, error="OSError", given_up_at=at)
        session.add_all(
            [given_up, OutboxEntry(kind="note", payload={}, due_at=at), OutboxEntry(kind="x", payload={}, done_at=at)]
        )
    listed = command("outbox").stdout, command("outbox").stdout
    retried = command("outbox", "--retry").stdout

    waiting = "2 note {}, due at 2026-01-31 09:30 UTC, attempts: 0\n"
    assert empty == "Nothing waits in the outbox, and nothing was given up.\n"
    assert listed == 2 * (
        '1 welcome {"email": "max"}, given up at 2026-01-31 09:30 UTC, attempts: 8: OSError\n' + waiting,
    )
    assert retried.startswith('1 welcome {"email": "max"}, due at ')
    assert retried.endswith(f"UTC, attempts: 0: OSError\n{waiting}")


def test_every_command_explains_itself(command: Callable[..., Result]) -> None:
    overview = command("--help").stdout

    assert "Look after a House database." in overview
    for name in ("migrate", "downgrade", "revision", "outbox"):
        assert name in overview
        assert command(name, "--help").exit_code == 0
