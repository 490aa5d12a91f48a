"""How SQLite finds the rows of a list: by an index, in the order that is asked for, at the same cost anywhere.

An endless list is walked from one end of its table, or searched by an index where it is about one row; what its filters
do, and by which index a paged list is read, stands in `SWEEP.plans` of the noun's tests.
"""

import re
from collections.abc import Callable, Generator
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select
from sqlmodel import SQLModel

from kit.db import ending
from kit.lists import CursorPage
from kit.models import Table
from settings import API
from tests.people import Person
from tests.routes import Operation, all_exceptions, operations
from tests.world import World

pytestmark = pytest.mark.sqlite_only("it reads EXPLAIN QUERY PLAN, and counts the steps of its virtual machine")

ROWS = 500
Plans = Callable[[Person, str], list[str]]

ENDLESS = {found.path.removeprefix(API): found for found in operations() if found.list_kind is CursorPage}
PLANS = {path: index for exceptions in all_exceptions() for path, index in exceptions.plans.items()}
MEMBERS_PLANS = {path: index for exceptions in all_exceptions() for path, index in exceptions.members_plans.items()}
BY_CURSOR = {*ENDLESS, *(path for path, index in PLANS.items() if index == "id")}
FILTERED = sorted(path for path in BY_CURSOR if "{" in path or "?" in path or PLANS.get(path) == "id")
WALKED = sorted(BY_CURSOR - {*FILTERED})
PAGED = {path: index for path, index in PLANS.items() if path not in BY_CURSOR}


@pytest.fixture
def filled(world: World) -> World:
    """More than one page of every endless list, and two rows of every paged one."""
    world.begin()
    tables = set[type[Table]]()
    for found in operations():
        for number in range(2 if found.list_kind else 0):
            _add(world, found, number)
        if found.list_kind is CursorPage and found.row and found.row not in tables:
            tables.add(found.row)
            path = written(world, found.path.removeprefix(API))
            newest = reader(world, path).get(path).json()["items"][0]
            with ending(world.app.state.database.write()) as session:
                _multiply(session.connection(), found.row, newest["id"])
    return world


def _add(world: World, found: Operation, number: int) -> None:
    own = found.exceptions.lists.get(str(found))
    if own is not None:
        own(world, number)
    elif found.maker is not None:
        world.make_by(found.maker)


def _multiply(connection: Connection, table: type[Table], row_id: int) -> None:
    """Make many rows of one; texts that are unique get a number."""
    columns = SQLModel.metadata.tables[str(table.__tablename__)]
    row = connection.execute(select(columns).where(columns.c.id == row_id)).mappings().one()
    unique = {column.name for column in columns.columns if column.unique}
    rows = [
        {name: f"{value}{number}" if name in unique else value for name, value in row.items() if name != "id"}
        for number in range(ROWS)
    ]
    connection.execute(insert(columns), rows)


@pytest.fixture
def plan(world: World) -> Generator[Plans]:
    """What SQLite says of the statement that reads a page: the one with a LIMIT that a request sends."""
    sent: list[tuple[str, Any]] = []
    engine = world.app.state.database.engine

    def note(_connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    def plan(person: Person, path: str) -> list[str]:
        sent.clear()
        assert person.get(path).status_code == 200
        ((statement, parameters),) = [(text, values) for text, values in sent if "LIMIT" in text]
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return [row.detail for row in rows]

    event.listen(engine, "before_cursor_execute", note)
    yield plan
    event.remove(engine, "before_cursor_execute", note)


def reader(world: World, path: str) -> Person:
    """Who has more than one page of it: an admin, unless it is a list of one's own."""
    found = ENDLESS.get(path.partition("?")[0])
    return world.admin if found is None or found.is_for_admins else world.owner


def written(world: World, path: str) -> str:
    """The path with the ids of rows that are there."""
    return path.format_map({name: world.id(name) for name in re.findall(r"{(\w+)}", path)})


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


def test_a_plan_that_scans_and_sorts_would_be_noticed(world: World, plan: Plans) -> None:
    assert plan(world.admin, "/users?sort=full_name") == ["SCAN user", "USE TEMP B-TREE FOR ORDER BY"]


def test_an_endless_list_is_never_sorted(filled: World, plan: Plans, subtests: pytest.Subtests) -> None:
    for path in [*WALKED, *FILTERED]:
        with subtests.test(path):
            person, url = reader(filled, path), written(filled, path)
            for page in (url, following(person, url, 100)):
                assert not [step for step in plan(person, page) if "TEMP B-TREE" in step]


def test_a_filter_is_searched_by_an_index_that_knows_the_place(
    filled: World, plan: Plans, subtests: pytest.Subtests
) -> None:
    for path in FILTERED:
        with subtests.test(path):
            person, url = reader(filled, path), written(filled, path)
            first, later = plan(person, url), plan(person, following(person, url, 100))

            assert not [step for step in first + later if "SCAN" in step]
            assert [step for step in first if "USING INDEX ix_" in step]
            assert [step for step in later if "USING INDEX ix_" in step and ("AND id<?" in step or "AND id>?" in step)]


def test_a_list_without_a_filter_is_searched_from_the_second_page_on(
    filled: World, plan: Plans, subtests: pytest.Subtests
) -> None:
    for path in WALKED:
        with subtests.test(path):
            person = reader(filled, path)

            assert "USING INTEGER PRIMARY KEY (rowid" in plan(person, following(person, path, 100))[0]


def test_the_default_order_of_a_paged_list_is_an_index(filled: World, plan: Plans, subtests: pytest.Subtests) -> None:
    for path, index in PAGED.items():
        with subtests.test(path):
            steps = plan(filled.admin, written(filled, path))

            assert f"USING INDEX {index}" in steps[0]
            assert len(steps) == 1


def test_a_members_own_rows_are_searched_and_never_sorted(
    filled: World, plan: Plans, subtests: pytest.Subtests
) -> None:
    for path, index in MEMBERS_PLANS.items():
        with subtests.test(path):
            [step] = plan(filled.owner, written(filled, path))

            assert re.fullmatch(rf"SEARCH \w+ USING INDEX {index} \(\w+=\?\)", step)


def test_a_page_costs_the_same_at_any_depth(filled: World, subtests: pytest.Subtests) -> None:
    for path in [*WALKED, *FILTERED]:
        with subtests.test(path):
            person, url = reader(filled, path), written(filled, path)
            near, far = following(person, url, 100), following(person, url, ROWS - 100)
            steps = [_steps(filled, person, page) for page in (near, far)]

            assert steps[1] <= 1.05 * steps[0]


def _steps(world: World, person: Person, path: str) -> int:
    """How many instructions SQLite's virtual machine takes for a request: a cost that no busy machine distorts."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0  # go on

    def listen(connection: Any, *_: object) -> None:
        connection.set_progress_handler(step, 1)

    engine = world.app.state.database.engine
    event.listen(engine, "checkout", listen)
    try:
        assert len(person.get(path).json()["items"]) == 20
    finally:
        event.remove(engine, "checkout", listen)
    return count
