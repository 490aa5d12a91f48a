"""The outbox: written with its cause, done at least once, again after a failure, and given up in the end."""

import re
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from kit import outbox
from kit.app import App
from kit.db import ending
from kit.models import digest, now
from kit.outbox import PAUSES, OutboxEntry
from kit.sessions import PasswordReset
from settings import Settings
from tests.conftest import MakeApp
from tests.databases import on_both_databases
from tests.outbox import finish, waiting
from tests.people import API, PASSWORD, Person, refusal
from tests.post_office import SENDER, PostOffice
from tests.server import HURRIED, RoughServer, until

DONE: list[tuple[int, str]] = []  # by which app, and what
REFUSED: set[str] = set()


def note(app: App, entry: dict[str, Any]) -> None:
    """Do what an entry of the tests asks for."""
    sleep(entry.get("seconds", 0))
    if entry["text"] in REFUSED:
        raise OSError("my secret")
    DONE.append((id(app), entry["text"]))


OUTBOX = {"note": note}


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    DONE.clear()
    REFUSED.clear()


@pytest.fixture
def on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that starts in this test does what is in the outbox only when it is told to."""
    monkeypatch.setattr(outbox, "AT_ONCE", 0)


def put(app: App, *texts: str, kind: str = "note", **more: Any) -> None:
    with ending(app.state.database.write()) as session:
        for text in texts:
            OutboxEntry.put(session, kind, text=text, **more)


def do_next(client: TestClient) -> bool:
    """Whether there was something to do, which is done now."""
    assert client.portal
    app: Any = client.app  # Any: the client calls it any ASGI app
    return client.portal.call(app.state.outbox.do_next)


def entries(app: App) -> list[OutboxEntry]:
    with app.state.database.read() as session:
        return list(session.exec(select(OutboxEntry).order_by(col(OutboxEntry.id))))


def change(app: App, **values: Any) -> None:
    with ending(app.state.database.write()) as session:
        session.exec(select(OutboxEntry)).one().sqlmodel_update(values)


def done() -> list[str]:
    return [text for _, text in DONE]


class BrokenMailer:
    """A mailer that fails, until it is mended."""

    def __init__(self) -> None:
        self.is_broken = True
        self.tokens: list[str] = []

    def send(self, _template: str, _to: str, **values: str) -> None:
        self.tokens.append(values["token"])
        if self.is_broken:
            raise OSError


# Written with its cause


def test_what_is_committed_is_done_once_and_in_order(app: App, client: TestClient) -> None:
    put(app, "one", "two")
    before = done()
    answers = [do_next(client) for _ in range(3)]

    assert (before, done()) == ([], ["one", "two"])
    assert answers == [True, True, False]
    assert [(entry.attempts, entry.error, entry.done_at is None) for entry in entries(app)] == [(1, "", False)] * 2


def test_what_is_rolled_back_is_not_done(app: App, client: TestClient) -> None:
    with suppress(ValueError), ending(app.state.database.write()) as session:
        OutboxEntry.put(session, "note", text="one")
        session.flush()
        raise ValueError

    assert not do_next(client)
    assert (entries(app), done()) == ([], [])


def test_a_request_that_is_refused_leaves_nothing_to_do(app: App, client: TestClient) -> None:
    body = {"email": "ada@example.com", "full_name": "Ada", "password": PASSWORD}
    answers = [client.post(f"{API}/auth/register", json=body) for _ in range(2)]

    assert refusal(answers[1]) == (409, "EMAIL_TAKEN")
    assert [(entry.kind, entry.payload["email"]) for entry in entries(app)] == [("welcome", "ada@example.com")]


def test_a_running_app_does_it_at_once(settings: Settings, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "POLL_SECONDS", 60)
    with TestClient(app := make_app(settings)):
        sleep(0.2)  # it has looked already, and found nothing
        put(app, "one")
        until(lambda: waiting(app) == 0, 5)

    assert done() == ["one"]


def test_what_another_process_wrote_is_found(
    settings: Settings, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "POLL_SECONDS", 0.1)
    with TestClient(app := make_app(settings)):
        with ending(app.state.database.write()) as session:
            session.add(OutboxEntry(kind="note", payload={"text": "one"}))  # which wakes nobody here
        until(lambda: waiting(app) == 0, 5)

    assert done() == ["one"]


# At least once


@on_both_databases
@pytest.mark.usefixtures("on_demand")
def test_what_a_process_took_and_did_not_finish_is_done_by_another_after_a_while(
    app: App, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(app, "one")
    monkeypatch.setattr(outbox, "LEASE", timedelta(seconds=0.5))
    with ending(app.state.database.write()) as session:
        claimed = OutboxEntry.claim(session)  # by a process that was killed then
    at_once = do_next(client)
    sleep(0.6)
    later = do_next(client)

    assert claimed
    assert (at_once, later, done()) == (False, True, ["one"])
    assert [(entry.attempts, entry.done_at is None) for entry in entries(app)] == [(2, False)]


@on_both_databases
def test_two_workers_share_the_work(settings: Settings, make_app: MakeApp) -> None:
    apps = [make_app(settings), make_app(settings)]
    with TestClient(apps[0]), TestClient(apps[1]):
        texts = [str(number) for number in range(30)]
        put(apps[0], *texts, seconds=0.01)
        until(lambda: waiting(apps[0]) == 0)

    assert Counter(done()) == Counter(texts)
    assert {app for app, _ in DONE} == {id(app) for app in apps}


def test_an_app_ends_after_what_it_is_doing(settings: Settings, make_app: MakeApp) -> None:
    with TestClient(app := make_app(settings)):
        put(app, *"abcdefgh", seconds=0.3)
        until(lambda: sum(entry.attempts for entry in entries(app)) == outbox.AT_ONCE)
    finished = done()
    with TestClient(app):
        until(lambda: waiting(app) == 0)

    assert sorted(finished) == ["a", "b"]
    assert sorted(done()) == [*"abcdefgh"]


def test_a_database_in_trouble_is_asked_again(
    settings: Settings, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox, "POLL_SECONDS", 0.05)
    claim, troubles = OutboxEntry.claim, [RuntimeError("no thread")] * 4

    def troubled(session: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return claim(session)

    monkeypatch.setattr(OutboxEntry, "claim", troubled)
    with TestClient(app := make_app(settings)):
        put(app, "one")
        until(lambda: waiting(app) == 0)

    assert done() == ["one"]
    assert "The outbox waits for its database: RuntimeError" in capsys.readouterr().err


# What fails


@pytest.mark.usefixtures("on_demand")
def test_a_failure_is_followed_by_growing_pauses_and_an_end(
    settings: Settings, make_app: MakeApp, capsys: pytest.CaptureFixture[str]
) -> None:
    REFUSED.add("one")
    pauses: list[timedelta] = []
    with TestClient(app := make_app(settings)) as client:
        put(app, "one")
        for _ in PAUSES:
            assert do_next(client)
            assert not do_next(client)
            pauses.append(entries(app)[0].due_at - now())
            change(app, due_at=now())
        before = capsys.readouterr().err
        last = [do_next(client), do_next(client)]
        [entry] = entries(app)
    after = capsys.readouterr().err

    assert [round(pause / timedelta(seconds=1)) for pause in pauses] == [5, 30, 120, 600, 3_600, 14_400, 43_200]
    assert (entry.attempts, entry.error, entry.done_at, last) == (8, "OSError", None, [True, False])
    assert entry.given_up_at
    assert (before.count("note 1 failed: OSError"), "ERROR" in before) == (7, False)
    assert re.search("ERROR +note 1 is given up after 8 attempts", after)
    assert "my secret" not in before + after


def test_what_succeeds_after_failures_is_done(app: App, client: TestClient) -> None:
    put(app, "one")
    REFUSED.add("one")
    do_next(client)
    change(app, due_at=now())
    REFUSED.clear()
    do_next(client)
    [entry] = entries(app)

    assert done() == ["one"]
    assert (entry.attempts, entry.error, entry.done_at is None) == (2, "", False)


def test_what_fails_or_is_of_an_unknown_kind_does_not_stop_the_others(app: App, client: TestClient) -> None:
    put(app, "lost", kind="nonsense")
    put(app, "wrong", "right")
    REFUSED.add("wrong")
    while do_next(client):
        pass

    assert done() == ["right"]
    assert [entry.error for entry in entries(app)] == ["KeyError", "OSError", ""]


# When a process ends


@pytest.fixture
def office() -> Generator[PostOffice]:
    with PostOffice().open() as office:
        yield office


def ask_to_end(server: RoughServer) -> None:
    server.process.terminate()
    server.wait()


@pytest.mark.sqlite_only("it starts a server on the file")
@pytest.mark.parametrize("end", [ask_to_end, RoughServer.kill])
def test_what_waits_when_the_process_ends_is_sent_after_the_next_start(
    end: Callable[[RoughServer], None], settings: Settings, office: PostOffice, tmp_path: Path
) -> None:
    variables = {"APP_SMTP_URL": office.url, "APP_MAIL_FROM": SENDER}
    server = RoughServer(tmp_path, settings=variables, app=HURRIED)  # on the file of the settings
    emails = [f"{number}@example.com" for number in range(4)]
    office.seconds = 30
    with server.running():
        with server.connect() as client:
            for email in emails:
                body = {"email": email, "full_name": "Ada", "password": PASSWORD}
                client.post("/auth/register", json=body).raise_for_status()
            client.post("/auth/password-reset", json={"email": emails[0]}).raise_for_status()
        until(lambda: office.attempts >= outbox.AT_ONCE)
        end(server)
        before, office.seconds = len(office.mails), 0
        server.start()
        until(lambda: len(office.mails) >= 5)

    sent = Counter((mail["To"], mail["Subject"]) for mail in office.mails)
    assert before == 0
    assert set(sent) == {(email, "Welcome to Stockroom") for email in emails} | {
        (emails[0], "A new password for Stockroom")
    }


# No secret


@pytest.fixture
def reset(app: App, client: TestClient, max: Person, swap: Callable[[str, object], None]) -> BrokenMailer:
    """Max has asked for a new password; the entry that says so waits."""
    finish(app, client)
    swap("mailer", mailer := BrokenMailer())
    client.post(f"{API}/auth/password-reset", json={"email": max.email})
    return mailer


def tokens(app: App) -> list[str]:
    with app.state.database.read() as session:
        return list(session.exec(select(PasswordReset.token_hash)))


def test_a_token_is_made_when_it_is_sent_and_is_not_in_the_table(
    app: App, client: TestClient, reset: BrokenMailer
) -> None:
    before = tokens(app)
    reset.is_broken = False
    do_next(client)

    assert entries(app)[-1].payload == {"email": "max@example.com"}
    assert (before, tokens(app)) == ([], [digest(token) for token in reset.tokens])


def test_the_token_of_an_attempt_that_failed_ends_with_it(app: App, client: TestClient, reset: BrokenMailer) -> None:
    do_next(client)
    after_failure = tokens(app)
    reset.is_broken = False
    with ending(app.state.database.write()) as session:
        session.get_one(OutboxEntry, entries(app)[-1].id).due_at = now()
    do_next(client)

    assert (len(reset.tokens), after_failure) == (2, [])
    assert tokens(app) == [digest(reset.tokens[1])]
