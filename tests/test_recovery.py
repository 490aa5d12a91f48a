"""Forgotten passwords: who gets a token, what it is good for, and that nobody learns anything."""

import re
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from threading import Barrier
from time import monotonic
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Client, Response
from sqlmodel import select

from app import create_app
from kit.app import App
from kit.db import ending
from kit.models import digest, now
from kit.sessions import PasswordReset
from kit.sqlite import SQLITE
from settings import Settings
from tests.conftest import API, PASSWORD, Person
from tests.post_office import PostOffice, with_mail
from tests.server import serving, until

NEW = "Correct-horse-2"
PATH = f"{API}/auth/password-reset"


@pytest.fixture
def office() -> Generator[PostOffice]:
    with PostOffice().open() as office:
        yield office


@pytest.fixture
def app(settings: Settings, office: PostOffice) -> App:
    return create_app(with_mail(settings, office.url))


def ask(client: TestClient | Client, email: str = "max@example.com") -> Response:
    return client.post(PATH, json={"email": email})


def use(client: TestClient | Client, token: str, new_password: str = NEW) -> Response:
    return client.put(PATH, json={"token": token, "new_password": new_password})


def sign_in(client: TestClient, password: str, email: str = "max@example.com") -> Response:
    return client.post(f"{API}/auth/token", data={"username": email, "password": password})


def tokens(office: PostOffice) -> list[str]:
    """The tokens that were mailed, in this order."""
    texts = [office.part("plain", number) for number in range(len(office.mails))]
    return [token for text in texts for token in re.findall(r"^\S{43}$", text, re.MULTILINE)]


@pytest.fixture
def token(max: Person, office: PostOffice) -> str:
    """A token that Max asked for."""
    ask(max.client)
    return tokens(office)[0]


def let_an_hour_pass(app: App) -> None:
    with ending(app.state.database.write()) as session:
        for row in session.exec(select(PasswordReset)):
            row.expires_at -= timedelta(hours=1)


def stored(app: App) -> list[PasswordReset]:
    with app.state.database.read() as session:
        return list(session.exec(select(PasswordReset)))


# Asking


def test_who_asks_gets_a_token_by_mail(max: Person, office: PostOffice) -> None:
    answer = ask(max.client)
    [token] = tokens(office)

    assert (answer.status_code, answer.content) == (202, b"")
    assert (office.mails[-1]["To"], office.mails[-1]["Subject"]) == (max.email, "A new password for Stockroom")
    assert f"<code>{token}</code>" in office.part("html")


def test_the_case_of_an_address_does_not_matter(max: Person, office: PostOffice) -> None:
    ask(max.client, " MAX@Example.COM ")

    assert office.recipients[-1] == [max.email]
    assert len(tokens(office)) == 1


@pytest.fixture
def everybody(ada: Person, max: Person, eva: Person) -> list[str]:
    """Somebody, somebody who was deactivated, and nobody."""
    ada.patch(f"/users/{eva.id}", {"is_active": False})
    return [max.email, eva.email, "nobody@example.com"]


def test_whoever_asks_gets_the_same_answer(everybody: list[str], max: Person, office: PostOffice) -> None:
    answers = [ask(max.client, email) for email in everybody]
    shown = [(a.status_code, a.content, {**a.headers, "x-request-id": ""}) for a in answers]

    assert shown == [shown[0]] * 3
    assert [office.recipients[-1], len(tokens(office))] == [[max.email], 1]


def test_whoever_asks_waits_for_neither_the_database_nor_the_mail_server(
    everybody: list[str], app: App, settings: Settings, office: PostOffice
) -> None:
    office.seconds = 1
    with serving(create_app(app.settings)) as client, closing(SQLITE.connect(settings.sqlite_path)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = monotonic()
        answers = [ask(client, email).status_code for email in everybody * 5]
        seconds = monotonic() - started
        other.rollback()
        until(lambda: len(tokens(office)) == 5)

    assert answers == [202] * 15
    assert seconds < 1


def test_an_account_has_five_living_tokens_at_most(app: App, max: Person, office: PostOffice) -> None:
    answers = [ask(max.client).status_code for _ in range(7)]

    assert answers == [202] * 7
    assert len(set(tokens(office))) == 5
    assert len(stored(app)) == 5


def test_others_can_ask_meanwhile_and_everybody_again_after_an_hour(
    app: App, max: Person, eva: Person, office: PostOffice
) -> None:
    for _ in range(7):
        ask(max.client)
    ask(max.client, eva.email)
    let_an_hour_pass(app)
    ask(max.client)

    assert [to for [to] in office.recipients if to == eva.email] == [eva.email] * 2  # a welcome, and this one
    assert len(tokens(office)) == 7
    assert len(stored(app)) == 1


@pytest.mark.parametrize(
    "body", [{}, {"email": ""}, {"email": "max"}, {"email": None}, {"email": "max@example.com", "role": "admin"}]
)
def test_a_question_that_is_none_is_refused(body: dict[str, Any], client: TestClient) -> None:
    assert client.post(PATH, json=body).status_code == 422


# Using


def test_a_token_sets_a_new_password(max: Person, token: str) -> None:
    answer = use(max.client, token)

    assert (answer.status_code, answer.content) == (204, b"")
    assert sign_in(max.client, NEW).status_code == 200
    assert sign_in(max.client, PASSWORD).status_code == 400


def test_a_token_ends_every_session_of_its_account_and_no_other(max: Person, eva: Person, token: str) -> None:
    use(max.client, token)
    refreshed = max.client.post(
        f"{API}/auth/token", data={"grant_type": "refresh_token", "refresh_token": max.refresh_token}
    )

    assert max.get("/users/me").status_code == 401
    assert refreshed.status_code == 400
    assert eva.get("/users/me").status_code == 200


def is_refused(answer: Response) -> bool:
    return (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_CREDENTIALS")


def test_a_token_works_once(max: Person, token: str) -> None:
    use(max.client, token)

    assert is_refused(use(max.client, token, "Correct-horse-3"))
    assert sign_in(max.client, NEW).status_code == 200


def test_a_token_works_for_an_hour(app: App, max: Person, token: str) -> None:
    [row] = stored(app)
    let_an_hour_pass(app)

    assert abs(row.expires_at - now() - timedelta(hours=1)) < timedelta(minutes=1)
    assert is_refused(use(max.client, token))
    assert sign_in(max.client, PASSWORD).status_code == 200


def test_a_use_ends_the_other_tokens_of_the_account_and_no_other(
    max: Person, eva: Person, token: str, office: PostOffice
) -> None:
    ask(max.client)
    ask(max.client, eva.email)
    use(max.client, token)
    _, second, evas = tokens(office)

    assert is_refused(use(max.client, second))
    assert use(max.client, evas).status_code == 204


def test_a_change_of_the_password_ends_every_token(max: Person, token: str) -> None:
    max.put("/users/me/password", {"current_password": PASSWORD, "new_password": NEW})

    assert is_refused(use(max.client, token, "Correct-horse-3"))


def test_a_change_of_the_email_ends_every_token_that_the_old_one_has(max: Person, token: str) -> None:
    assert max.patch("/users/me", {"full_name": "Maximilian"}).status_code == 200
    assert max.patch("/users/me", {"email": "new@example.com"}).status_code == 200

    assert use(max.client, token).json()["error_code"] == "INVALID_CREDENTIALS"


def test_a_token_from_before_a_deactivation_stays_dead(ada: Person, max: Person, token: str) -> None:
    for active in (False, True):
        assert ada.patch(f"/users/{max.id}", {"is_active": active}).status_code == 200

    assert use(max.client, token).json()["error_code"] == "INVALID_CREDENTIALS"


def test_a_deactivated_account_gets_no_new_password(ada: Person, max: Person, token: str) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})
    answer = use(max.client, token)
    ada.patch(f"/users/{max.id}", {"is_active": True})

    assert is_refused(answer)
    assert is_refused(use(max.client, token))
    assert sign_in(max.client, PASSWORD).status_code == 200


def test_the_token_of_a_deleted_account_is_gone(app: App, ada: Person, max: Person, token: str) -> None:
    ada.delete(f"/users/{max.id}")

    assert is_refused(use(ada.client, token))
    assert stored(app) == []


def test_no_other_token_sets_a_password(app: App, max: Person, token: str) -> None:
    [row] = stored(app)
    others = ["x", "x" * 255, token[:-1], token.swapcase(), row.token_hash, max.access_token[:255], max.refresh_token]

    assert [is_refused(use(max.client, other)) for other in others] == [True] * len(others)
    assert use(max.client, token).status_code == 204


def test_a_token_from_a_mail_is_good_for_nothing_else(max: Person, token: str) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": token}

    assert max.client.post(f"{API}/auth/token", data=form).status_code == 400
    assert max.get("/users/me", headers={"Authorization": f"Bearer {token}"}).status_code == 401


@pytest.mark.parametrize("password", ["short-1", "correct-horse-1", "Correcthorse1", "x" * 129, "", None])
def test_a_weak_password_is_refused_and_the_token_lives_on(password: str, max: Person, token: str) -> None:
    refused = max.client.put(PATH, json={"token": token, "new_password": password})

    assert (refused.status_code, refused.json()["error_code"]) == (422, "VALIDATION_ERROR")
    assert use(max.client, token).status_code == 204


def test_of_many_uses_at_once_exactly_one_succeeds(max: Person, token: str) -> None:
    passwords, together = [f"Correct-horse-{number}" for number in range(10, 18)], Barrier(8)

    def use_together(password: str) -> int:
        together.wait()
        return use(max.client, token, password).status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(use_together, passwords))

    winner = statuses.index(204)
    assert sorted(statuses) == [204] + [400] * 7
    assert sign_in(max.client, passwords[winner]).status_code == 200
    assert sign_in(max.client, passwords[winner - 1]).status_code == 400


def test_a_new_password_ends_the_lockout(max: Person, token: str) -> None:
    wrong = [sign_in(max.client, "Wrong-horse-1").status_code for _ in range(6)]
    use(max.client, token)

    assert wrong == [400] * 5 + [429]
    assert sign_in(max.client, NEW).status_code == 200


def test_a_token_that_is_wrong_costs_no_hash(max: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> str:
        raise AssertionError("A password was hashed.")

    monkeypatch.setattr("recovery.hash_password", never)

    assert is_refused(use(max.client, "wrong"))


# Traces


def test_the_audit_shows_that_the_password_was_changed_and_by_whom(ada: Person, max: Person, token: str) -> None:
    use(max.client, token)
    entry = ada.get("/audit", params={"entity": "user", "entity_id": max.id}).json()["items"][0]

    assert entry["changes"] == {"password": [None, None]}
    assert (entry["actor_id"], entry["action"]) == (max.id, "update")


def test_a_token_is_stored_only_as_its_hash(app: App, settings: Settings, token: str) -> None:
    files = b"".join(path.read_bytes() for path in settings.sqlite_path.parent.glob("app.db*"))

    assert [row.token_hash for row in stored(app)] == [digest(token)]
    assert digest(token).encode() in files
    assert token.encode() not in files


def test_no_token_and_no_password_is_in_the_log(
    capsys: pytest.CaptureFixture[str], max: Person, office: PostOffice
) -> None:
    ask(max.client)
    office.troubles = ["451 try again"]
    [token] = tokens(office)
    use(max.client, token)
    use(max.client, token)
    log = capsys.readouterr().err

    assert "The mail 'reset' was sent to max@example.com" in log
    assert [secret for secret in (token, digest(token), NEW, PASSWORD) if secret in log] == []


def test_without_mail_the_text_is_logged_without_the_token(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(settings.model_copy(update={"log_level": "DEBUG"}))
    with TestClient(app) as client:
        body = {"email": "max@example.com", "full_name": "Max", "password": PASSWORD}
        client.post(f"{API}/auth/register", json=body)
        ask(client)
        rows = stored(app)
    log = capsys.readouterr().err

    assert len(rows) == 1
    assert "use this token within an hour:\n\n(not shown)\n" in log
    assert re.findall(r"(?m)^\S{43}$", log) == []


def test_no_answer_may_be_kept(client: TestClient) -> None:
    answers = [ask(client), use(client, "wrong")]

    assert [answer.headers["Cache-Control"] for answer in answers] == ["no-store"] * 2
