"""What a request costs: trips to a thread and back, and SQL statements.

Every route is called once by an admin with a right request. `hops` counts every trip from the event loop to a worker
thread and back, whoever makes it (FastAPI for an endpoint, a dependency or a response model, or the app itself): each
one is about 130 µs, and waits for a free core on a busy machine. `statements` counts what reaches the database, whether
it reads or writes; BEGIN and COMMIT come on top.

The numbers are exact. Most follow from what a route does (`Operation.usual_cost` says how); those that do not stand in
`SWEEP.costs` of the noun's tests. A test that fails with more found what every caller would pay from now on: look for a
`def` dependency, a row that is loaded lazily or a second session before writing an exception down. One that fails with
less is good news: write the new number down, so that it stays.
"""

from collections.abc import Generator
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import pytest
from anyio._backends._asyncio import AsyncIOBackend
from sqlalchemy import event

from kit.db import Database
from kit.lists import CursorPage, Page
from tests.routes import Operation, operations
from tests.shared_app import SharedApp
from tests.world import AUTHORS, NAMES, World

LISTS = [operation for operation in operations() if operation.list_kind]
ON_POSTGRES = {
    "GET /ready": (1, 1),  # on SQLite it looks into the file, over a connection of its own
    "POST /items/import": (3, 3),  # it locks the table
}
WHOLE: dict[type | None, str] = {Page: "?page_size=100", CursorPage: "?limit=100", list: ""}


@dataclass
class Meter:
    """What was paid since the last look."""

    database: Database
    hops: int = 0
    statements: int = 0

    def read(self) -> tuple[int, int]:
        """The hops and the statements; they count from 0 again.

        A request that comes while the thread of the last one still leaves may go with it, for nothing.
        """
        deadline = monotonic() + 10
        while self.database.readers.workers or self.database.writers.workers:
            assert monotonic() < deadline
            sleep(0.001)
        paid = self.hops, self.statements
        self.hops = self.statements = 0
        return paid


@pytest.fixture
def meter(world: World, monkeypatch: pytest.MonkeyPatch) -> Generator[Meter]:
    """Counts what the app does from here on."""
    app = world.app
    meter = Meter(app.state.database)
    run_in_thread = AsyncIOBackend.run_sync_in_worker_thread

    async def counted(*args: Any, **options: Any) -> Any:
        meter.hops += 1
        return await run_in_thread(*args, **options)

    # Everything that hops goes through here: anyio.to_thread, and Starlette and FastAPI, which build on it.
    monkeypatch.setattr(AsyncIOBackend, "run_sync_in_worker_thread", counted)

    def count_statement(*_: object) -> None:
        meter.statements += 1

    event.listen(app.state.database.engine, "before_cursor_execute", count_statement)
    yield meter
    event.remove(app.state.database.engine, "before_cursor_execute", count_statement)


@pytest.fixture(scope="module")
def one_world(shared_app: SharedApp) -> World:
    """One with many people, who write what is listed."""
    return World(shared_app, (*NAMES, *AUTHORS))


@pytest.mark.parametrize("operation", operations(), ids=str)
def test_a_route_costs_what_it_should(operation: Operation, world: World, meter: Meter) -> None:
    world.begin("admin")
    if operation in LISTS or str(operation) in operation.exceptions.lists:
        _add(world, operation, 0)
    url, body = world.url(operation), operation.body(world)
    meter.read()
    answer = operation.send(world.client, url, body, world.admin.access_token)

    assert answer.status_code < 300, answer.text
    cost = operation.cost if world.app.settings.on_sqlite else ON_POSTGRES.get(str(operation), operation.cost)
    assert meter.read() == cost, "Hops and statements; say in SWEEP.costs why they are others."


@pytest.mark.parametrize("operation", LISTS, ids=str)
def test_a_list_of_50_rows_costs_what_a_short_one_costs(operation: Operation, world: World, meter: Meter) -> None:
    world.begin("admin")
    url = f"{world.url(operation)}{WHOLE[operation.list_kind]}"
    costs = {_cost_of_list(world, operation, url, length, meter) for length in (5, 50)}

    assert len(costs) == 1


def _cost_of_list(world: World, operation: Operation, url: str, length: int, meter: Meter) -> tuple[int, int]:
    """What the list costs once it has this many rows."""
    while (number := len(_rows(world, url))) < length:
        _add(world, operation, number)
        if len(_rows(world, url)) == number:  # a list of one's own
            _add(world, operation, number, "admin")
        assert len(_rows(world, url)) > number, f"Say in SWEEP.lists of the noun's tests how to add to {operation}."
    meter.read()
    assert len(_rows(world, url)) < 100
    return meter.read()


def _add(world: World, operation: Operation, number: int, creator: str = "") -> None:
    """Add a row; every fifth one is somebody else's unless there is a creator, and what it refers to is its own."""
    own = operation.exceptions.lists.get(str(operation))
    if own is not None:
        own(world, number)
        return
    maker = operation.maker
    assert maker is not None, f"Say in SWEEP.lists of the noun's tests how to add a row to {operation}."
    world.keep_only(operation.ids)
    world.make_by(maker, creator or AUTHORS[number // 5])


def _rows(world: World, url: str) -> list[Any]:
    answer: Any = world.client.get(url, headers={"Authorization": f"Bearer {world.admin.access_token}"}).json()
    return answer["items"] if "items" in answer else answer  # noqa: SIM401 - some are bare lists
