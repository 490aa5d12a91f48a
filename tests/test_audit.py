"""The audit: what every noun writes when it changes, and finding it again."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlmodel import select
from typer.testing import Result

from auth import ensure_admin
from kit.app import App
from kit.audit import audited_entities
from kit.sessions import LoginSession
from models import User
from tests.changes import Written, amount, audit, created, deleted, entry
from tests.databases import on_both_databases
from tests.people import PASSWORD, Person, fields_refused, refusal
from tests.routes import Exceptions

NEWS = {"title": "News", "content": "…"}

# Posts and comments


def test_the_life_of_a_post(max: Person, written: Written) -> None:
    written()
    max.post("/posts", {"title": "News", "content": "Old"})
    max.patch("/posts/1", {"title": "News", "content": "New"})
    max.delete("/posts/1")

    post = {"title": "News", "content": "New", "creator_id": max.id}
    assert written() == [
        entry(max, "create", "post", 1, **created(**post | {"content": "Old"})),
        entry(max, "update", "post", 1, content=["Old", "New"]),
        entry(max, "delete", "post", 1, **deleted(**post)),
    ]


def test_the_life_of_a_comment(ada: Person, max: Person, eva: Person, written: Written) -> None:
    max.post("/posts", NEWS)
    written()
    eva.post("/posts/1/comments", {"content": "Good"})
    eva.patch("/posts/1/comments/1", {"content": "Better"})
    ada.delete("/posts/1/comments/1")

    comment = {"post_id": 1, "content": "Better", "creator_id": eva.id}
    assert written() == [
        entry(eva, "create", "comment", 1, **created(**comment | {"content": "Good"})),
        entry(eva, "update", "comment", 1, content=["Good", "Better"]),
        entry(ada, "delete", "comment", 1, **deleted(**comment)),
    ]


def test_a_post_takes_its_comments_with_it(ada: Person, max: Person, eva: Person, written: Written) -> None:
    max.post("/posts", NEWS)
    for person in (max, eva):
        person.post("/posts/1/comments", {"content": "Good"})
    written()
    ada.delete("/posts/1")

    assert sorted(written(), key=lambda row: (row["entity"], row["entity_id"])) == [
        entry(ada, "delete", "comment", 1, **deleted(post_id=1, content="Good", creator_id=max.id)),
        entry(ada, "delete", "comment", 2, **deleted(post_id=1, content="Good", creator_id=eva.id)),
        entry(ada, "delete", "post", 1, **deleted(title="News", content="…", creator_id=max.id)),
    ]


# Users


def test_the_life_of_an_account(ada: Person, written: Written) -> None:
    written()
    tom = {"email": "tom@example.com", "full_name": "Tom", "role": "member"}
    user_id = ada.post("/users", tom | {"password": PASSWORD}).json()["id"]
    ada.patch(f"/users/{user_id}", {"role": "admin", "full_name": "Tom"})
    ada.patch(f"/users/{user_id}", {"is_active": False, "email": "t@example.com"})
    ada.delete(f"/users/{user_id}")

    last = {"email": "t@example.com", "full_name": "Tom", "role": "admin", "is_active": False}
    assert written() == [
        entry(ada, "create", "user", user_id, **created(**tom, is_active=True)),
        entry(ada, "update", "user", user_id, role=["member", "admin"]),
        entry(ada, "update", "user", user_id, email=["tom@example.com", "t@example.com"], is_active=[True, False]),
        entry(ada, "delete", "user", user_id, **deleted(**last)),
    ]


def test_people_change_themselves(max: Person, written: Written) -> None:
    written()
    max.patch("/users/me", {"full_name": "Maximilian"})
    answer = max.put("/users/me/password", {"current_password": PASSWORD, "new_password": "Correct-horse-2"})

    assert answer.status_code == 204
    assert written() == [
        entry(max, "update", "user", max.id, full_name=["Max", "Maximilian"]),
        entry(max, "update", "user", max.id, password=[None, None]),
    ]


def test_who_registers_has_nobody_as_actor(ada: Person, max: Person) -> None:
    entries = audit(ada, "&entity=user&entity_id=2")

    assert [(row["actor_id"], row["action"], row["changes"]["email"]) for row in entries] == [
        (None, "create", [None, max.email])
    ]


def test_an_account_takes_its_posts_and_comments_with_it(
    ada: Person, max: Person, eva: Person, written: Written
) -> None:
    for person in (max, eva):
        person.post("/posts", NEWS)
    for person, post_id in ((max, 1), (eva, 1), (max, 2), (eva, 2)):
        person.post(f"/posts/{post_id}/comments", {"content": "Good"})
    written()
    ada.delete(f"/users/{max.id}")

    gone = sorted((row["actor_id"], row["action"], row["entity"], row["entity_id"]) for row in written())
    assert gone == [
        (ada.id, "delete", "comment", 1),
        (ada.id, "delete", "comment", 2),
        (ada.id, "delete", "comment", 3),
        (ada.id, "delete", "post", 1),
        (ada.id, "delete", "user", max.id),
    ]


def test_the_admin_made_at_start_is_written_with_nobody_as_actor(
    app: App, client: TestClient, sign_in: Callable[[str], Person]
) -> None:
    account = {"admin_email": "root@example.com", "admin_password": SecretStr(PASSWORD)}
    ensure_admin(app.state.settings.model_copy(update=account), app.state.database)
    [row] = audit(sign_in("root@example.com"))

    values = {"email": "root@example.com", "full_name": "Admin", "role": "admin", "is_active": True}
    assert (row["actor_id"], row["action"], row["request_id"]) == (None, "create", None)
    assert row["changes"] == created(**values)


def test_an_admin_of_the_command_line_is_written_with_nobody_as_actor(
    command: Callable[..., Result], ada: Person
) -> None:
    done = command("create-admin", "root@example.com", stdin=f"{PASSWORD}\n")
    newest = audit(ada)[0]

    assert done.exit_code == 0, done.output
    assert (newest["actor_id"], newest["request_id"]) == (None, None)
    assert (newest["action"], newest["entity"]) == ("create", "user")
    assert newest["changes"]["email"] == [None, "root@example.com"]


# Which request


def test_an_entry_names_its_request_and_its_time(ada: Person) -> None:
    answers = [
        ada.post("/posts", NEWS, headers={"X-Request-ID": "my-own.id_1"}),
        ada.patch("/posts/1", {"title": "Old"}),
    ]
    newest, before = audit(ada)[:2]

    assert before["request_id"] == answers[0].headers["X-Request-ID"] == "my-own.id_1"
    assert newest["request_id"] == answers[1].headers["X-Request-ID"]
    assert newest["at"].endswith("Z")
    assert newest["at"] > before["at"]


def test_all_that_one_request_did_has_its_id(ada: Person, max: Person) -> None:
    max.post("/posts", NEWS)
    max.post("/posts/1/comments", {"content": "Good"})
    answer = max.delete("/posts/1")
    entities = [row["entity"] for row in audit(ada) if row["request_id"] == answer.headers["X-Request-ID"]]

    assert sorted(entities) == ["comment", "post"]


# What is not written

LATE = {"headers": {"If-Match": '"9"'}}
WRONG_PASSWORD = {"current_password": "x", "new_password": PASSWORD}

# Who asks for what, and gets which answer; there is a post of Max's.
NOTHING: list[tuple[str, str, str, dict[str, Any], int]] = [
    ("max", "PATCH", "/users/me", {"json": {"email": "ada@example.com"}}, 409),
    ("max", "PUT", "/users/me/password", {"json": WRONG_PASSWORD}, 400),
    ("ada", "PATCH", "/users/1", {"json": {"role": "member"}}, 409),
    ("ada", "PATCH", "/users/2", {"json": {"role": "member"}}, 200),
    ("max", "DELETE", "/users/2", {}, 403),
    ("max", "PATCH", "/posts/1", {"json": {"title": "News"}}, 200),
    ("max", "PATCH", "/posts/1", {"json": {}}, 200),
    ("max", "PATCH", "/posts/1", {"json": {"title": "Old"}, **LATE}, 412),
    ("max", "POST", "/posts/9/comments", {"json": {"content": "Good"}}, 404),
    ("max", "POST", "/posts", {"json": {"title": ""}}, 422),
    ("ada", "PATCH", "/posts/1", {"json": {"title": "Mine"}}, 403),
    ("ada", "PATCH", "/notifications", {"json": {"read": True}}, 200),
    *(("ada", "GET", path, {}, 200) for path in ("/posts", "/posts/1", "/users/2", "/audit")),
    ("max", "DELETE", "/auth/sessions", {}, 204),
]


def test_where_nothing_changed_nothing_is_written(
    app: App, ada: Person, max: Person, subtests: pytest.Subtests
) -> None:
    max.post("/posts", NEWS)
    before = amount(app)
    for name, method, path, options, status in NOTHING:
        with subtests.test(f"{name}: {method} {path}", **options):
            answer = {"ada": ada, "max": max}[name].request(method, path, **options)

            assert (answer.status_code, amount(app)) == (status, before), answer.text


def test_no_secret_is_ever_written(app: App, ada: Person, max: Person, eva: Person) -> None:
    changed = "Another-horse-2"
    assert max.put("/users/me/password", {"current_password": PASSWORD, "new_password": changed}).status_code == 204
    ada.delete(f"/users/{max.id}")
    eva.post("/posts", NEWS)
    text = ada.get("/audit?limit=100").text
    with app.state.database.read() as session:
        hashes = [user.password_hash for user in session.exec(select(User))]
        hashes += [hash_ for row in session.exec(select(LoginSession)) for hash_ in (row.family_hash, row.secret_hash)]
    secrets = [PASSWORD, changed, "$2b$", "password_hash", "_hash", max.access_token, eva.refresh_token, *hashes]

    assert len(hashes) > 4
    assert [secret for secret in secrets if secret in text] == []


# The list


@pytest.fixture
def history(ada: Person, max: Person) -> None:
    """Entries 1 to 6; the first two are of the accounts."""
    ada.post("/posts", NEWS)  # 3
    max.post("/posts/1/comments", {"content": "Good"})  # 4
    ada.post("/posts", NEWS)  # 5
    ada.patch("/posts/1", {"title": "Old"})  # 6


FOUND: list[tuple[str, list[int]]] = [
    ("", [6, 5, 4, 3, 2, 1]),
    ("&entity=post", [6, 5, 3]),
    ("&entity=user", [2, 1]),
    ("&entity=comment&actor_id=1", []),
    ("&entity_id=1", [6, 4, 3, 1]),
    ("&entity=post&entity_id=1", [6, 3]),
    ("&actor_id=1", [6, 5, 3]),
    ("&actor_id=2", [4]),
    ("&actor_id=2&entity=post", []),
    ("&actor_id=1&entity=post&entity_id=2", [5]),
    (f"&entity_id={2**63 - 1}", []),
]


@pytest.mark.usefixtures("history")
def test_entries_are_found_newest_first(ada: Person, subtests: pytest.Subtests) -> None:
    for query, ids in FOUND:
        with subtests.test(query):
            assert [row["id"] for row in audit(ada, query)] == ids


@pytest.mark.usefixtures("history")
def test_the_audit_has_no_end(ada: Person) -> None:
    first = ada.get("/audit?limit=2&entity=post").json()
    rest = ada.get("/audit", params={"limit": 2, "entity": "post", "cursor": first["next_cursor"]}).json()

    assert [row["id"] for row in first["items"] + rest["items"]] == [6, 5, 3]
    assert rest["next_cursor"] is None


@pytest.mark.usefixtures("history")
def test_an_entry_has_these_fields_and_no_others(ada: Person) -> None:
    names = {"id", "at", "actor_id", "action", "entity", "entity_id", "changes", "request_id"}

    assert {frozenset(row) for row in audit(ada)} == {frozenset(names)}


def test_a_wrong_query_of_the_audit_is_refused(ada: Person) -> None:
    wrong = ("entity=session", "entity=Item", "entity=", "entity_id=0", "entity_id=x", f"actor_id={2**63}", "action=x")
    for query in wrong:
        assert fields_refused(ada.get(f"/audit?{query}")) == [["query", query.partition("=")[0]]]


def test_the_nouns_that_are_audited() -> None:
    assert set(audited_entities()) >= {"comment", "post", "user"}
    assert set(audited_entities()).isdisjoint({"audit_entry", "session", "notification"})


def test_the_audit_is_for_admins(max: Person) -> None:
    assert refusal(max.get("/audit")) == (403, "FORBIDDEN")


def test_nobody_writes_the_audit_by_hand(ada: Person) -> None:
    assert [ada.request(method, "/audit").status_code for method in ("POST", "PUT", "PATCH", "DELETE")] == [405] * 4


@on_both_databases
def test_the_audit_is_the_same_on_both_databases(ada: Person, max: Person, written: Written) -> None:
    max.post("/posts", NEWS)
    max.post("/posts/1/comments", {"content": "Good"})
    written()
    max.patch("/posts/1", {"title": "Old"})
    ada.patch(f"/users/{max.id}", {"is_active": False})
    ada.delete("/posts/1")
    rows = written()

    assert sorted((row["action"], row["entity"], row["entity_id"]) for row in rows) == [
        ("delete", "comment", 1),
        ("delete", "post", 1),
        ("update", "post", 1),
        ("update", "user", max.id),
    ]
    assert [row["changes"] for row in rows if row["action"] == "update"] == [
        {"title": ["News", "Old"]},
        {"is_active": [True, False]},
    ]
    assert len(audit(ada, f"&entity=post&actor_id={max.id}")) == 2


# What the sweeps cannot know


FILTERS = ("entity=user", "entity=user&entity_id={user_id}", "actor_id={user_id}", "entity=user&actor_id={user_id}")

SWEEP = Exceptions(
    plans={f"/audit?{query}": "id" for query in (*FILTERS, "entity=user&entity_id={user_id}&actor_id={user_id}")},
    lists={"GET /audit": lambda world, number: world.owner.patch("/users/me", {"full_name": f"Owner {number}"})},
)
