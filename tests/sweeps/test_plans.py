"""How the database finds the rows of a list: by an index, in the order that is asked for, at the same cost anywhere."""

from collections.abc import Callable, Generator
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert
from sqlmodel import select

from kit.app import App
from kit.audit import AuditEntry
from kit.db import ending
from models import Comment, Notification, Post
from tests.conftest import Person

ROWS = 500
Plans = Callable[[Person, str], list[str]]

# Endless lists. Where nothing filters them they are walked from one end of the table, and the walk ends with the page.
WALKED = ["/posts", "/audit"]
FILTERED = [
    "/posts/{post_id}/comments",
    "/users/{user_id}/posts",
    "/notifications",
    "/notifications?unread=true",
    "/audit?entity=item",
    "/audit?entity=item&entity_id={item_id}",
    "/audit?actor_id={user_id}",
    "/audit?entity=item&actor_id={user_id}",
    "/audit?entity=item&entity_id={item_id}&actor_id={user_id}",
]

# Paged lists in their default order, and the index that has it.
PAGED = [
    ("/users", "sqlite_autoindex_user_1"),
    ("/items", "ix_item_name"),
    ("/items?low_stock=true", "ix_item_low_stock"),
    ("/orders", "ix_order_created_at"),
    ("/orders?status=pending", "ix_order_created_at"),
    ("/orders?user_id={user_id}", "ix_order_user_id_created_at"),
]


@pytest.fixture
def ids(app: App, ada: Person, max: Person, lamp: dict[str, Any]) -> dict[str, int]:
    """More than one page of everything, most of it by Max and for Max, and two orders of his."""
    with ending(app.state.database.write()) as session:
        author = {"creator_id": max.id, "content": "x"}
        session.exec(insert(Post), params=[author | {"title": "x"} for _ in range(ROWS)])
        post_id = session.exec(select(Post.id)).first()
        session.exec(insert(Comment), params=[author | {"post_id": post_id} for _ in range(ROWS)])
        notice = {"user_id": max.id, "kind": "comment", "message": "x", "link": "x"}
        session.exec(insert(Notification), params=[notice for _ in range(ROWS)])
        change: dict[str, Any] = {"actor_id": max.id, "action": "update", "entity": "item", "changes": {}}
        session.exec(insert(AuditEntry), params=[change | {"entity_id": lamp["id"]} for _ in range(ROWS)])
    for _ in range(2):
        assert max.post("/orders", {"lines": [{"item_id": lamp["id"], "quantity": 1}]}).status_code == 201
    return {"post_id": post_id or 0, "item_id": lamp["id"], "user_id": max.id}


@pytest.fixture
def plan(app: App) -> Generator[Plans]:
    """What SQLite says of the statement that reads a page: the one with a LIMIT that a request sends."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    def plan(person: Person, path: str) -> list[str]:
        sent.clear()
        assert person.get(path).status_code == 200
        ((statement, parameters),) = [(text, values) for text, values in sent if "LIMIT" in text]
        with app.state.database.engine.connect() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return [row.detail for row in rows]

    event.listen(app.state.database.engine, "before_cursor_execute", note)
    yield plan
    event.remove(app.state.database.engine, "before_cursor_execute", note)


def reader(path: str, ada: Person, max: Person) -> Person:
    """Admins read the audit and other people's orders; the notifications are Max's."""
    return max if path.startswith("/notifications") else ada


def following(person: Person, path: str, rows: int) -> str:
    """The path of the page that begins after so many rows."""
    page = _with(path, "limit=100")
    cursor = ""
    for _ in range(rows // 100):
        cursor = person.get(page + cursor).json()["next_cursor"]
        cursor = f"&cursor={cursor}"
    return _with(path, f"limit=20{cursor}")


def _with(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}"


def test_a_plan_that_scans_and_sorts_would_be_noticed(ada: Person, plan: Plans) -> None:
    assert plan(ada, "/items?sort=quantity") == ["SCAN item", "USE TEMP B-TREE FOR ORDER BY"]


@pytest.mark.parametrize("path", [*WALKED, *FILTERED])
def test_an_endless_list_is_never_sorted(path: str, ids: dict[str, int], ada: Person, max: Person, plan: Plans) -> None:
    person, path = reader(path, ada, max), path.format_map(ids)

    for page in (path, following(person, path, 100)):
        assert not [step for step in plan(person, page) if "TEMP B-TREE" in step]


@pytest.mark.parametrize("path", FILTERED)
def test_a_filter_is_searched_by_an_index_that_knows_the_place(
    path: str, ids: dict[str, int], ada: Person, max: Person, plan: Plans
) -> None:
    person, path = reader(path, ada, max), path.format_map(ids)
    first, later = plan(person, path), plan(person, following(person, path, 100))

    assert not [step for step in first + later if "SCAN" in step]
    assert [step for step in first if "USING INDEX ix_" in step]
    assert [step for step in later if "USING INDEX ix_" in step and ("AND id<?" in step or "AND id>?" in step)]


@pytest.mark.parametrize("path", WALKED)
def test_a_list_without_a_filter_is_searched_from_the_second_page_on(
    path: str, ids: dict[str, int], ada: Person, plan: Plans
) -> None:
    assert "USING INTEGER PRIMARY KEY (rowid<?)" in plan(ada, following(ada, path, 100))[0]


@pytest.mark.parametrize(("path", "index"), PAGED)
def test_the_default_order_of_a_paged_list_is_an_index(
    path: str, index: str, ids: dict[str, int], ada: Person, plan: Plans
) -> None:
    steps = plan(ada, path.format_map(ids))

    assert f"USING INDEX {index}" in steps[0]
    assert len(steps) == 1


@pytest.mark.parametrize("path", ["/orders", "/orders?status=pending"])
def test_a_members_orders_are_searched_and_never_sorted(
    path: str, ids: dict[str, int], max: Person, plan: Plans
) -> None:
    assert plan(max, path) == ["SEARCH order USING INDEX ix_order_user_id_created_at (user_id=?)"]


@pytest.mark.parametrize("path", [*WALKED, *FILTERED])
def test_a_page_costs_the_same_at_any_depth(path: str, ids: dict[str, int], ada: Person, max: Person, app: App) -> None:
    person, path = reader(path, ada, max), path.format_map(ids)
    near, far = following(person, path, 100), following(person, path, ROWS - 100)
    steps = [_steps(app, person, page) for page in (near, far)]

    assert steps[1] <= 1.05 * steps[0]


def _steps(app: App, person: Person, path: str) -> int:
    """How many instructions SQLite's virtual machine takes for a request: a cost that no busy machine distorts."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0  # go on

    def listen(connection: Any, *_: object) -> None:
        connection.set_progress_handler(step, 1)

    engine = app.state.database.engine
    event.listen(engine, "checkout", listen)
    assert len(person.get(path).json()["items"]) == 20
    event.remove(engine, "checkout", listen)
    return count
