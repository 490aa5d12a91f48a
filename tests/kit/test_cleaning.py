"""What nobody needs any more: which rows go, when, and that nothing else waits for it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import inspect as sa_inspect
from sqlmodel import Session, func, select

from kit import cleaning, sqlite
from kit.app import App
from kit.cleaning import clean
from kit.db import ending
from kit.idempotency import IdempotencyKey
from kit.models import Table, clock_at, now
from kit.outbox import OutboxEntry
from kit.previews import Upload
from kit.sessions import FailedSignIn, LoginSession, PasswordReset
from models import User, UserRegister
from settings import Settings
from tests.conftest import MakeApp
from tests.databases import on_both_databases
from tests.server import until, write_lock_held

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
Row = Callable[[int, datetime], Table]


def login_session(user_id: int, end: datetime) -> Table:
    return LoginSession(user_id=user_id, family_hash=str(end), secret_hash="", expires_at=end)


def failed_sign_in(_: int, end: datetime) -> Table:
    return FailedSignIn(account_hash=str(end), window_ends_at=end)


def password_reset(user_id: int, end: datetime) -> Table:
    return PasswordReset(token_hash=str(end), user_id=user_id, expires_at=end)


def idempotency_key(user_id: int, end: datetime) -> Table:
    return IdempotencyKey(user_id=user_id, key=str(end), request_hash="", created_at=end - DAY)


def outbox_entry(_: int, end: datetime) -> Table:
    return OutboxEntry(kind="note", payload={}, done_at=end - 7 * DAY)


def upload(user_id: int, end: datetime) -> Table:
    return Upload(user_id=user_id, name="list.csv", content=b"", created_at=end - timedelta(hours=1))


ROWS: dict[type[Table], Row] = {
    LoginSession: login_session,
    FailedSignIn: failed_sign_in,
    PasswordReset: password_reset,
    IdempotencyKey: idempotency_key,
    OutboxEntry: outbox_entry,
    Upload: upload,
}


def add_rows(session: Session) -> None:
    """Of each kind one that ended a minute ago, and one that ends in a minute."""
    ends = {"zoe": now() - 60 * SECOND, "yan": now() + 60 * SECOND}
    for name, end in ends.items():
        body = UserRegister(email=f"{name}@example.com", full_name=name, password="Correct-horse-1")
        user_id = User.create(session, body, "hash").id
        session.add_all(row(user_id, end) for row in ROWS.values())


def fill(app: App) -> None:
    with ending(app.state.database.write()) as session:
        add_rows(session)


def counts(app: App) -> set[int]:
    """How many rows the tables have."""
    with app.state.database.read() as session:
        return {session.exec(select(func.count()).select_from(table)).one() for table in ROWS}


def test_every_table_whose_rows_expire_is_tested_here() -> None:
    tables: list[Any] = [mapper.class_ for mapper in sa_inspect(User).registry.mappers]

    expiring = {table for table in tables if table.expired() is not None}
    assert {table for table in expiring if table.__module__.startswith("kit.")} == {*ROWS}


@on_both_databases
def test_what_has_expired_goes_and_the_rest_stays(app: App, client: TestClient) -> None:
    fill(app)
    before = counts(app)
    clean(app.state.database)
    after = counts(app)
    with clock_at(now() + 120 * SECOND):
        clean(app.state.database)

    assert (before, after, counts(app)) == ({2}, {1}, {0})


def test_what_is_not_finished_never_expires(app: App) -> None:
    with ending(app.state.database.write()) as session:
        session.add(OutboxEntry(kind="note", payload={}))  # not done
        session.add(OutboxEntry(kind="note", payload={}, given_up_at=now()))
    with clock_at(now() + 5000 * DAY):
        clean(app.state.database)

    with app.state.database.read() as session:
        kept = select(func.count()).select_from(OutboxEntry).where(OutboxEntry.kind == "note")
        assert session.exec(kept).one() == 2


def test_a_start_cleans(settings: Settings, make_app: MakeApp) -> None:
    with TestClient(app := make_app(settings)):
        fill(app)
    with TestClient(app := make_app(settings)):
        assert counts(app) == {1}


def test_a_timer_cleans(settings: Settings, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "INTERVAL", 0.1)
    with TestClient(app := make_app(settings)):
        fill(app)
        until(lambda: counts(app) == {1})
        with ending(app.state.database.write()) as session:
            session.add(failed_sign_in(0, now() - SECOND))
        until(lambda: counts(app) == {1})


@pytest.mark.sqlite_only("it holds the write lock of the file")
def test_a_busy_database_is_only_in_the_log(
    settings: Settings, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    with TestClient(app := make_app(settings)):
        fill(app)
    monkeypatch.setattr(cleaning, "INTERVAL", 0.1)
    app, log = make_app(settings), list[str]()

    def has_logged(message: str, times: int) -> bool:
        log.append(capsys.readouterr().err)
        return "".join(log).count(message) >= times

    with write_lock_held(settings.sqlite_path):
        client = TestClient(app)
        client.__enter__()  # although it cannot clean
        message = "Expired rows are left for the next time: OperationalError"
        until(lambda: has_logged(message, 3))
        left = counts(app)
        answer = client.get("/ready").status_code
    until(lambda: counts(app) == {1})
    client.__exit__(None, None, None)

    assert (left, answer) == ({2}, 200)
