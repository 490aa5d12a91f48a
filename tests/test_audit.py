"""The audit: what every noun writes when it changes, and finding it again."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlmodel import func, select
from typer.testing import Result

from auth import ensure_admin
from kit.app import App
from kit.audit import AuditEntry, audited_entities
from kit.sessions import LoginSession
from models import User
from tests.databases import on_both_databases
from tests.people import LAMP, PASSWORD, Person, Row, at_once, fields_refused, order_for, place, refusal, with_key
from tests.routes import Exceptions


@pytest.fixture
def written(ada: Person) -> Callable[[], list[Row]]:
    """What was written since the last look, the oldest first, without what the tests of their own are about."""
    seen = 0

    def look() -> list[Row]:
        nonlocal seen
        entries: list[Row] = ada.get("/audit?limit=100").json()["items"]
        new = [entry for entry in reversed(entries) if entry["id"] > seen]
        seen = entries[0]["id"]
        names = ("actor_id", "action", "entity", "entity_id", "changes")
        return [{name: entry[name] for name in names} for entry in new]

    return look


Written = Callable[[], list[Row]]


def entry(actor: Person, action: str, entity: str, entity_id: int, **changes: list[Any]) -> Row:
    return {
        "actor_id": actor.id,
        "action": action,
        "entity": entity,
        "entity_id": entity_id,
        "changes": changes,
    }


def created(**values: Any) -> dict[str, list[Any]]:
    return {field: [None, value] for field, value in values.items()}


def deleted(**values: Any) -> dict[str, list[Any]]:
    return {field: [value, None] for field, value in values.items()}


def audit(ada: Person, query: str = "") -> list[Row]:
    return ada.get(f"/audit?limit=100{query}").json()["items"]


def amount(app: App) -> int:
    with app.state.database.read() as session:
        return session.exec(select(func.count()).select_from(AuditEntry)).one()


# Items


def test_the_life_of_an_item(ada: Person, written: Written) -> None:
    written()
    ada.post("/items", LAMP)
    ada.patch("/items/1", {"price_cents": 1300, "tags": [], "name": "Lamp"})
    ada.delete("/items/1")

    assert written() == [
        entry(ada, "create", "item", 1, **created(**LAMP)),
        entry(ada, "update", "item", 1, price_cents=[1200, 1300], tags=[["light"], []]),
        entry(ada, "delete", "item", 1, **deleted(**LAMP | {"price_cents": 1300, "tags": []})),
    ]


def test_an_import_is_written_row_by_row(ada: Person, lamp: Row, written: Written) -> None:
    written()
    file = b"name,price_cents,quantity\r\nLamp,1200,7\r\nDesk,100,0\r\n"
    ada.post("/items/import", files={"file": file})

    assert sorted(written(), key=lambda row: row["entity_id"]) == [
        entry(ada, "update", "item", 1, quantity=[10, 7]),
        entry(ada, "create", "item", 2, **created(name="Desk", price_cents=100, quantity=0, reorder_level=0, tags=[])),
    ]


# Orders


def test_an_order_and_the_stock_it_takes(ada: Person, max: Person, lamp: Row, written: Written) -> None:
    desk = ada.post("/items", {"name": "Desk", "price_cents": 100, "quantity": 3}).json()
    written()
    max.post("/orders", order_for((desk, 3), (lamp, 4), note="Soon"))

    line_of_desk = {"item_id": 2, "quantity": 3, "unit_price_cents": 100}
    line_of_lamp = {"item_id": 1, "quantity": 4, "unit_price_cents": 1200}
    order = {"user_id": max.id, "status": "pending", "total_cents": 5100, "note": "Soon"}
    assert sorted(written(), key=lambda row: (row["entity"], row["entity_id"])) == [
        entry(max, "update", "item", 1, quantity=[10, 6]),
        entry(max, "update", "item", 2, quantity=[3, 0]),
        entry(max, "create", "order", 1, **created(**order, lines=[line_of_desk, line_of_lamp])),
    ]


def test_a_cancelled_order_and_the_stock_it_puts_back(ada: Person, max: Person, lamp: Row, written: Written) -> None:
    place(max, (lamp, 4))
    written()
    ada.patch("/orders/1", {"status": "cancelled"})

    assert written() == [
        entry(ada, "update", "order", 1, status=["pending", "cancelled"]),
        entry(ada, "update", "item", 1, quantity=[6, 10]),
    ]


def test_a_fulfilled_order(ada: Person, max: Person, lamp: Row, written: Written) -> None:
    place(max, (lamp, 4))
    written()
    ada.patch("/orders/1", {"status": "fulfilled"})

    assert written() == [entry(ada, "update", "order", 1, status=["pending", "fulfilled"])]


def test_the_stock_can_be_followed_through_many_orders_at_once(ada: Person, max: Person, lamp: Row) -> None:
    at_once(12, lambda _: max.post("/orders", order_for((lamp, 1))))
    changes = [row["changes"]["quantity"] for row in reversed(audit(ada, "&entity=item")) if row["action"] == "update"]

    assert changes == [[left, left - 1] for left in range(10, 0, -1)]


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
    max.post("/posts", {"title": "News", "content": "…"})
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
    max.post("/posts", {"title": "News", "content": "…"})
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
        person.post("/posts", {"title": "News", "content": "…"})
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
        ada.post("/items", LAMP, headers={"X-Request-ID": "my-own.id_1"}),
        ada.patch("/items/1", {"quantity": 1}),
    ]
    newest, before = audit(ada)[:2]

    assert before["request_id"] == answers[0].headers["X-Request-ID"] == "my-own.id_1"
    assert newest["request_id"] == answers[1].headers["X-Request-ID"]
    assert newest["at"].endswith("Z")
    assert newest["at"] > before["at"]


def test_all_that_one_request_did_has_its_id(max: Person, ada: Person, lamp: Row) -> None:
    answer = max.post("/orders", order_for((lamp, 1)))
    entities = [row["entity"] for row in audit(ada) if row["request_id"] == answer.headers["X-Request-ID"]]

    assert sorted(entities) == ["item", "order"]


# What is not written

LATE = {"headers": {"If-Match": '"9"'}}
WRONG_PASSWORD = {"current_password": "x", "new_password": PASSWORD}


def csv(text: str) -> dict[str, Any]:
    return {"files": {"file": f"name,price_cents\r\n{text}\r\n".encode()}}


# Who asks for what, and gets which answer; there are a lamp, a post of Max's and an order of his.
NOTHING: list[tuple[str, str, str, dict[str, Any], int]] = [
    ("max", "POST", "/orders", {"json": order_for(({"id": 1}, 11))}, 409),
    ("max", "POST", "/orders", {"json": order_for(({"id": 1}, 1), ({"id": 9}, 1))}, 404),
    ("max", "POST", "/orders", {"json": order_for(({"id": 1}, 1)), **with_key("monday")}, 201),
    ("max", "PATCH", "/orders/1", {"json": {"status": "fulfilled"}}, 403),
    ("ada", "PATCH", "/orders/1", {"json": {"status": "fulfilled"}, **LATE}, 412),
    ("ada", "POST", "/items", {"json": {"name": "LAMP", "price_cents": 1}}, 409),
    ("ada", "PATCH", "/items/1", {"json": {"quantity": 1}, **LATE}, 412),
    ("ada", "PATCH", "/items/1", {"json": LAMP}, 200),
    ("ada", "PATCH", "/items/1", {"json": {}}, 200),
    ("ada", "DELETE", "/items/1", {}, 409),
    ("max", "DELETE", "/items/1", {}, 403),
    ("ada", "POST", "/items/import", csv("Desk,1\r\nPen,x"), 200),
    ("ada", "POST", "/items/import?dry_run=true", csv("Desk,1"), 200),
    ("ada", "POST", "/items/import", csv("Lamp,1200"), 200),
    ("max", "PATCH", "/users/me", {"json": {"email": "ada@example.com"}}, 409),
    ("max", "PUT", "/users/me/password", {"json": WRONG_PASSWORD}, 400),
    ("ada", "PATCH", "/users/1", {"json": {"role": "member"}}, 409),
    ("ada", "PATCH", "/users/2", {"json": {"role": "member"}}, 200),
    ("ada", "DELETE", "/users/2", {}, 409),
    ("max", "PATCH", "/posts/1", {"json": {"title": "News"}}, 200),
    ("ada", "PATCH", "/posts/1", {"json": {"title": "Mine"}}, 403),
    ("ada", "PATCH", "/notifications", {"json": {"read": True}}, 200),
    *(("ada", "GET", path, {}, 200) for path in ("/items", "/orders/1", "/dashboard", "/audit")),
    ("max", "DELETE", "/auth/sessions", {}, 204),
]


def test_where_nothing_changed_nothing_is_written(
    app: App, ada: Person, max: Person, subtests: pytest.Subtests
) -> None:
    ada.post("/items", LAMP | {"quantity": 11})
    max.post("/posts", {"title": "News", "content": "…"})
    assert max.post("/orders", order_for(({"id": 1}, 1)), **with_key("monday")).status_code == 201
    before = amount(app)
    for name, method, path, options, status in NOTHING:
        with subtests.test(f"{name}: {method} {path}", **options):
            answer = {"ada": ada, "max": max}[name].request(method, path, **options)

            assert (answer.status_code, amount(app)) == (status, before), answer.text


def test_no_secret_is_ever_written(app: App, ada: Person, max: Person, eva: Person, lamp: Row) -> None:
    changed = "Another-horse-2"
    assert max.put("/users/me/password", {"current_password": PASSWORD, "new_password": changed}).status_code == 204
    ada.delete(f"/users/{max.id}")
    place(eva, (lamp, 1))
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
    """Entries 1 to 6."""
    ada.post("/items", LAMP)  # 3
    max.post("/posts", {"title": "News", "content": "…"})  # 4
    ada.post("/items", {"name": "Desk", "price_cents": 1})  # 5
    ada.patch("/items/1", {"quantity": 1})  # 6


FOUND: list[tuple[str, list[int]]] = [
    ("", [6, 5, 4, 3, 2, 1]),
    ("&entity=item", [6, 5, 3]),
    ("&entity=user", [2, 1]),
    ("&entity=comment", []),
    ("&entity_id=1", [6, 4, 3, 1]),
    ("&entity=item&entity_id=1", [6, 3]),
    ("&actor_id=1", [6, 5, 3]),
    ("&actor_id=2", [4]),
    ("&actor_id=2&entity=item", []),
    ("&actor_id=1&entity=item&entity_id=2", [5]),
    (f"&entity_id={2**63 - 1}", []),
]


@pytest.mark.usefixtures("history")
def test_entries_are_found_newest_first(ada: Person, subtests: pytest.Subtests) -> None:
    for query, ids in FOUND:
        with subtests.test(query):
            assert [row["id"] for row in audit(ada, query)] == ids


@pytest.mark.usefixtures("history")
def test_the_audit_has_no_end(ada: Person) -> None:
    first = ada.get("/audit?limit=2&entity=item").json()
    rest = ada.get("/audit", params={"limit": 2, "entity": "item", "cursor": first["next_cursor"]}).json()

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
    assert set(audited_entities()).isdisjoint({"audit_entry", "session", "notification", "order_line"})


def test_the_audit_is_for_admins(max: Person) -> None:
    assert refusal(max.get("/audit")) == (403, "FORBIDDEN")


def test_nobody_writes_the_audit_by_hand(ada: Person) -> None:
    assert [ada.request(method, "/audit").status_code for method in ("POST", "PUT", "PATCH", "DELETE")] == [405] * 4


@on_both_databases
def test_the_audit_is_the_same_on_both_databases(ada: Person, max: Person, lamp: Row, written: Written) -> None:
    max.post("/posts", {"title": "News", "content": "…"})
    max.post("/posts/1/comments", {"content": "Good"})
    written()
    place(max, (lamp, 4))
    ada.patch("/orders/1", {"status": "cancelled"})
    max.delete("/posts/1")
    rows = written()

    assert sorted((row["action"], row["entity"], row["entity_id"]) for row in rows) == [
        ("create", "order", 1),
        ("delete", "comment", 1),
        ("delete", "post", 1),
        ("update", "item", 1),
        ("update", "item", 1),
        ("update", "order", 1),
    ]
    assert [row["changes"]["quantity"] for row in rows if row["entity"] == "item"] == [[10, 6], [6, 10]]
    assert len(audit(ada, f"&entity=item&actor_id={max.id}")) == 1


# What the sweeps cannot know


FILTERS = ("entity=user", "entity=user&entity_id={user_id}", "actor_id={user_id}", "entity=user&actor_id={user_id}")

SWEEP = Exceptions(
    plans={f"/audit?{query}": "id" for query in (*FILTERS, "entity=user&entity_id={user_id}&actor_id={user_id}")},
    lists={"GET /audit": lambda world, number: world.owner.patch("/users/me", {"full_name": f"Owner {number}"})},
)
