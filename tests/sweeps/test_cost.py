"""What a request costs: trips to a thread and back, and SQL statements.

A line of the table is a route, called once by an admin with a right request. `hops` counts every trip from the event
loop to a worker thread and back, whoever makes it (FastAPI for an endpoint, a dependency or a response model, or the
app itself): each one is about 130 µs, and waits for a free core on a busy machine. `statements` counts what reaches
the database, whether it reads or writes; BEGIN and COMMIT come on top.

The numbers are exact. A test that fails with more found what every caller would pay from now on: look for a `def`
dependency, a row that is loaded lazily or a second session before changing the table. One that fails with less is good
news: write the new number down, so that it stays.

A route that shows one row needs 1 hop and 2 statements: who is calling, and the row.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import pytest
from anyio._backends._asyncio import AsyncIOBackend
from httpx2 import Response
from sqlalchemy import event

from kit.app import App
from kit.db import Database
from tests.conftest import PASSWORD, Person
from tests.routes import PLACE_ORDER, ROUTES, Route, let_reset

TABLE = """
route                                                hops statements
GET    /health                                       0    0
GET    /ready                                        1    0
POST   /api/v1/auth/register                         2    3
POST   /api/v1/auth/token                            2    7
POST   /api/v1/auth/password-reset                   2    4
PUT    /api/v1/auth/password-reset                   2    8
GET    /api/v1/auth/sessions                         1    2
DELETE /api/v1/auth/sessions                         1    2
DELETE /api/v1/auth/sessions/current                 1    3
DELETE /api/v1/auth/sessions/{session_id}            1    3
GET    /api/v1/users/me                              1    1
PATCH  /api/v1/users/me                              1    4
PUT    /api/v1/users/me/password                     4    11
GET    /api/v1/users                                 1    3
POST   /api/v1/users                                 3    5
GET    /api/v1/users/{user_id}                       1    2
PATCH  /api/v1/users/{user_id}                       1    4
DELETE /api/v1/users/{user_id}                       1    7
GET    /api/v1/users/{user_id}/posts                 1    3
GET    /api/v1/items                                 1    3
POST   /api/v1/items                                 1    3
GET    /api/v1/items/{item_id}                       1    2
PATCH  /api/v1/items/{item_id}                       1    5
DELETE /api/v1/items/{item_id}                       1    5
GET    /api/v1/items/export                          4    3
POST   /api/v1/items/import                          1    1
GET    /api/v1/orders                                1    3
POST   /api/v1/orders                                1    8
GET    /api/v1/orders/{order_id}                     1    3
PATCH  /api/v1/orders/{order_id}                     1    8
GET    /api/v1/posts                                 1    2
POST   /api/v1/posts                                 1    5
GET    /api/v1/posts/{post_id}                       1    2
PATCH  /api/v1/posts/{post_id}                       1    5
DELETE /api/v1/posts/{post_id}                       1    7
GET    /api/v1/posts/{post_id}/comments              1    3
POST   /api/v1/posts/{post_id}/comments              1    5
GET    /api/v1/posts/{post_id}/comments/{comment_id} 1    2
PATCH  /api/v1/posts/{post_id}/comments/{comment_id} 1    4
DELETE /api/v1/posts/{post_id}/comments/{comment_id} 1    4
GET    /api/v1/notifications                         1    2
PATCH  /api/v1/notifications                         1    2
PATCH  /api/v1/notifications/{notification_id}       1    3
GET    /api/v1/dashboard                             1    5
GET    /api/v1/audit                                 1    2
"""
LINES = [line.split() for line in TABLE.strip().splitlines()[1:]]
COSTS = {f"{method} {path}": (int(hops), int(statements)) for method, path, hops, statements in LINES}


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
        while self.database.readers.threads or self.database.writers.threads:
            assert monotonic() < deadline
            sleep(0.001)
        paid = self.hops, self.statements
        self.hops = self.statements = 0
        return paid


@pytest.fixture
def meter(app: App, ada: Person, monkeypatch: pytest.MonkeyPatch) -> Generator[Meter]:
    """Counts what the app does from here on."""
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


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_route_costs_what_the_table_says(
    route: Route,
    app: App,
    ada: Person,
    max: Person,
    join: Callable[[str], Person],
    lamp: dict[str, Any],
    meter: Meter,
) -> None:
    ids = {
        "user_id": join("owner").id,
        "session_id": ada.get("/auth/sessions").json()[0]["id"],
        "item_id": lamp["id"],
        "post_id": ada.post("/posts", {"title": "News", "content": "Lamps"}).json()["id"],
        "comment_id": ada.post("/posts/1/comments", {"content": "Good"}).json()["id"],
    }
    max.post("/posts/1/comments", {"content": "Good"})
    ids["notification_id"] = ada.get("/notifications").json()["items"][0]["id"]
    if "{order_id}" in route.path:  # only there, because what was ordered cannot be deleted
        ids["order_id"] = PLACE_ORDER.send(ada.client, ids, ada.access_token).json()["id"]
    if "password-reset" in route.path:
        let_reset(app, ids["user_id"])
    meter.read()
    answer = route.send(ada.client, ids, ada.access_token)

    assert answer.status_code < 300, answer.text
    assert meter.read() == COSTS[str(route)]


def test_every_line_has_a_route() -> None:
    assert list(COSTS) == [str(route) for route in ROUTES]


Author = Callable[[int], Person]


def _order(ada: Person, author: Author, number: int) -> Response:
    items = [{"name": f"Item {number}{letter}", "price_cents": 1, "quantity": 1} for letter in "ab"]
    ids = [ada.post("/items", item).json()["id"] for item in items]
    return author(number).post("/orders", {"lines": [{"item_id": item_id, "quantity": 1} for item_id in ids]})


def _post(author: Person) -> Response:
    return author.post("/posts", {"title": "News", "content": "Lamps"})


def _comment(author: Person) -> Response:
    return author.post("/posts/1/comments", {"content": "Good"})


# One line a list, with what makes its rows; each has fewer than five before. Post 1 is Ada's.
LISTS: dict[str, Callable[[Person, Author, int], Response]] = {
    "/auth/sessions": lambda ada, author, number: ada.client.post(
        "/api/v1/auth/token", data={"username": ada.email, "password": PASSWORD}
    ),
    "/users?page_size=100": lambda ada, author, number: ada.post(
        "/users", {"email": f"{number}@example.com", "full_name": "Tom", "password": PASSWORD}
    ),
    "/users/1/posts?limit=100": lambda ada, author, number: _post(ada),
    "/items?page_size=100": lambda ada, author, number: ada.post(
        "/items", {"name": f"{number}", "price_cents": 1, "tags": ["a", "b"]}
    ),
    "/orders?page_size=100": _order,
    "/posts?limit=100": lambda ada, author, number: _post(author(number)),
    "/posts/1/comments?limit=100": lambda ada, author, number: _comment(author(number)),
    "/notifications?limit=100": lambda ada, author, number: _comment(author(number)),
    "/audit?limit=100&entity=post": lambda ada, author, number: _post(author(number)),
}


@pytest.fixture
def author(join: Callable[[str], Person]) -> Author:
    """Who writes a row: every fifth one brings somebody new."""
    people: list[Person] = []

    def author(number: int) -> Person:
        while len(people) <= number // 5:
            people.append(join(f"author{len(people)}"))
        return people[number // 5]

    return author


@pytest.mark.parametrize("path", LISTS)
def test_a_list_of_50_rows_costs_what_one_of_5_costs(path: str, ada: Person, author: Author, meter: Meter) -> None:
    assert _post(ada).json()["id"] == 1
    costs = {_list(ada, author, path, length, meter) for length in (5, 50)}

    assert len(costs) == 1


def _list(ada: Person, author: Author, path: str, length: int, meter: Meter) -> tuple[int, int]:
    """What the list costs once it has this many rows."""
    for number in range(len(_rows(ada, path)), length):
        assert LISTS[path](ada, author, number).is_success
    meter.read()
    assert len(_rows(ada, path)) == length
    return meter.read()


def _rows(ada: Person, path: str) -> list[Any]:
    answer: Any = ada.get(path).json()
    return answer if path == "/auth/sessions" else answer["items"]
