"""Many people do the same things at once, from one worker and from two, on SQLite and on PostgreSQL."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest
from fastapi.testclient import TestClient
from httpx2 import AsyncClient, Response

from app import create_app
from settings import Settings
from tests.conftest import API, PASSWORD
from tests.postgres import Postgres
from tests.server import PATIENCE, Server

CLIENTS = 64
ROUNDS = 15
DEMOTION = {"role": "member"}
SETTINGS = {"APP_ADMIN_EMAIL": "ada@example.com", "APP_ADMIN_PASSWORD": PASSWORD}


@pytest.fixture(scope="module", params=["1 worker", "2 workers", "2 workers on PostgreSQL"])
def server(
    request: pytest.FixtureRequest, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Server]:
    """A server that all tests of this module order from, with an admin."""
    folder = tmp_path_factory.mktemp("race")
    shutil.copy(template, folder / "app.db")
    name: str = request.param
    settings = SETTINGS
    if "PostgreSQL" in name:
        postgres: Postgres = request.getfixturevalue("postgres")
        settings = SETTINGS | {"APP_DATABASE_URL": postgres.create(request.getfixturevalue("postgres_template"))}
    server = Server(folder, int(name[0]), settings)
    with server.running():
        yield server


def as_ada(server: Server, work: Callable[[AsyncClient], Awaitable[None]]) -> None:
    """Do `work` as Ada, the admin, over a connection for every request that is under way."""

    async def signed_in() -> None:
        limits = httpx2.Limits(max_connections=None)
        async with AsyncClient(base_url=server.url + API, limits=limits, timeout=PATIENCE) as client:
            tokens = await client.post("/auth/token", data={"username": "ada@example.com", "password": PASSWORD})
            client.headers["Authorization"] = f"Bearer {tokens.json()['access_token']}"
            await work(client)

    asyncio.run(signed_in())


async def by_all_clients(calls: Sequence[Coroutine[Any, Any, Response]]) -> list[Response]:
    """The answers, with as many calls under way as there are clients."""
    slots = asyncio.Semaphore(CLIENTS)

    async def one(call: Coroutine[Any, Any, Response]) -> Response:
        async with slots:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))


async def stocked(client: AsyncClient, quantity: int) -> str:
    """The path of a new item."""
    body = {"name": f"Item {uuid4().hex}", "price_cents": 100, "quantity": quantity}
    return f"/items/{(await client.post('/items', json=body)).json()['id']}"


def order(client: AsyncClient, *items: str, key: str = "") -> Coroutine[Any, Any, Response]:
    """Order one of each."""
    lines = [{"item_id": int(item.removeprefix("/items/")), "quantity": 1} for item in items]
    return client.post("/orders", json={"lines": lines}, headers={"Idempotency-Key": key} if key else {})


async def left(client: AsyncClient, item: str) -> int:
    return (await client.get(item)).json()["quantity"]


def statuses(answers: Sequence[Response]) -> dict[int, int]:
    return dict(Counter(answer.status_code for answer in answers))


def test_of_1000_orders_for_500_units_exactly_500_succeed(server: Server) -> None:
    async def work(client: AsyncClient) -> None:
        item = await stocked(client, 500)
        answers = await by_all_clients([order(client, item) for _ in range(1_000)])
        orders = {answer.json()["id"] for answer in answers if answer.status_code == 201}

        assert statuses(answers) == {201: 500, 409: 500}
        assert {a.json()["error_code"] for a in answers if a.status_code == 409} == {"OUT_OF_STOCK"}
        assert (len(orders), await left(client, item)) == (500, 0)
        assert (await client.get(item)).json()["version"] == 501

    as_ada(server, work)

    assert server.faults == []


def test_orders_of_the_same_items_in_opposite_order_do_not_block_each_other(server: Server) -> None:
    async def work(client: AsyncClient) -> None:
        lamp, desk = await stocked(client, 200), await stocked(client, 200)
        answers = await by_all_clients([order(client, *pair) for pair in [(lamp, desk), (desk, lamp)] * 100])

        assert statuses(answers) == {201: 200}
        assert (await left(client, lamp), await left(client, desk)) == (0, 0)

    as_ada(server, work)

    assert server.faults == []


def test_an_order_that_many_cancel_and_fulfil_at_once_leaves_pending_once(server: Server) -> None:
    async def work(client: AsyncClient) -> None:
        item = await stocked(client, 20)
        placed = [(await order(client, item)).json() for _ in range(20)]
        ends = ["cancelled", "fulfilled", "cancelled", "fulfilled"]
        calls = [client.patch(f"/orders/{row['id']}", json={"status": end}) for row in placed for end in ends]
        answers = await by_all_clients(calls)
        cancelled = [answer for answer in answers if answer.is_success and answer.json()["status"] == "cancelled"]

        assert statuses(answers) == {200: 20, 409: 60}
        assert await left(client, item) == len(cancelled)

    as_ada(server, work)

    assert server.faults == []


def test_equal_idempotency_keys_at_once_give_one_order_and_equal_answers(server: Server) -> None:
    async def work(client: AsyncClient) -> None:
        item = await stocked(client, 10)
        keys = [uuid4().hex for _ in range(5)]
        answers = await by_all_clients([order(client, item, key=key) for _ in range(8) for key in keys])

        assert statuses(answers) == {201: 40}
        assert {len({answer.content for answer in answers[start::5]}) for start in range(5)} == {1}
        assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 35
        assert await left(client, item) == 5

    as_ada(server, work)

    assert server.faults == []


def test_two_admins_who_demote_each_other_leave_one_in_charge(server: Server) -> None:
    async def work(ada: AsyncClient) -> None:
        zoe, zoes_path = await joined(server, ada, role="admin")
        adas_path = f"/users/{(await ada.get('/users/me')).json()['id']}"
        for _ in range(ROUNDS):
            calls = [ada.patch(zoes_path, json=DEMOTION), zoe.patch(adas_path, json=DEMOTION)]
            answers = await asyncio.gather(*calls)
            winner, loser = (ada, zoes_path) if answers[0].is_success else (zoe, adas_path)

            assert {answer.status_code for answer in answers} <= {200, 403, 409}
            assert statuses(answers)[200] == 1
            assert (await winner.patch(loser, json={"role": "admin"})).status_code == 200
        assert (await ada.patch(zoes_path, json=DEMOTION)).status_code == 200
        await zoe.aclose()

    as_ada(server, work)

    assert server.faults == []


def test_comments_that_are_changed_and_deleted_at_once_leave_a_chain_in_the_audit(server: Server) -> None:
    async def work(ada: AsyncClient) -> None:
        post = (await ada.post("/posts", json={"title": "News", "content": "None."})).json()["id"]
        comments = f"/posts/{post}/comments"
        ids = [(await ada.post(comments, json={"content": "0"})).json()["id"] for _ in range(20)]
        changes = [ada.patch(f"{comments}/{row}", json={"content": str(n)}) for n in range(1, 6) for row in ids]
        changed = await by_all_clients(changes)
        mixed = [
            call
            for row in ids
            for call in (
                ada.delete(f"{comments}/{row}"),
                ada.patch(f"{comments}/{row}", json={"content": "last"}),
                ada.delete(f"{comments}/{row}"),
            )
        ]
        ended = await by_all_clients(mixed)

        assert statuses(changed) == {200: 100}
        assert set(statuses(ended)) <= {200, 204, 404}
        assert statuses(ended)[204] == 20
        for row in ids:
            found = (await ada.get(f"/audit?entity=comment&entity_id={row}&limit=100")).json()["items"]
            chain = [entry["changes"]["content"] for entry in reversed(found)]
            assert [old for old, _ in chain[1:]] == [new for _, new in chain[:-1]]
            assert [entry["action"] for entry in found].count("delete") == 1

    as_ada(server, work)

    assert server.faults == []


def test_imports_beside_orders_of_the_same_items_in_another_order_are_all_done(server: Server) -> None:
    async def work(ada: AsyncClient) -> None:
        names = [f"Race {uuid4().hex}" for _ in range(40)]
        bodies = [{"name": name, "price_cents": 1, "quantity": 100_000} for name in names]
        items = [f"/items/{(await ada.post('/items', json=body)).json()['id']}" for body in bodies]

        def imported(price: int, step: int) -> Coroutine[Any, Any, Response]:
            rows = "".join(f"{name},{price}\n" for name in names[::step])
            return ada.post("/items/import", files={"file": ("items.csv", f"name,price_cents\n{rows}".encode())})

        calls = [order(ada, *items[:: 1 if number % 2 else -1]) for number in range(60)]
        for number in range(8):
            calls.insert(7 * number, imported(2 + number, -1 if number % 2 else 1))
        answers = await by_all_clients(calls)

        assert statuses(answers) == {200: 8, 201: 60}
        assert [await left(ada, item) for item in items] == [100_000 - 60] * 40

    as_ada(server, work)

    assert server.faults == []


def test_an_order_that_is_placed_while_an_admin_is_deleted_is_placed(server: Server) -> None:
    async def work(ada: AsyncClient) -> None:
        item = await stocked(ada, 1_000)
        for _ in range(ROUNDS):
            zoe, path = await joined(server, ada, role="admin")
            answers = await asyncio.gather(ada.delete(path), *(order(ada, item) for _ in range(4)))
            await zoe.aclose()

            assert [answer.status_code for answer in answers] == [204, 201, 201, 201, 201]

    as_ada(server, work)

    assert server.faults == []


def test_failed_sign_ins_at_once_are_counted_and_none_is_busy(server: Server) -> None:
    async def work(ada: AsyncClient) -> None:
        people = [f"{uuid4().hex}@example.com" for _ in range(6)]
        for email in people[:3]:
            await ada.post("/users", json={"email": email, "full_name": "Max", "password": PASSWORD})
        forms = [{"username": email, "password": "wrong"} for _ in range(8) for email in people]
        answers = await by_all_clients([ada.post("/auth/token", data=form) for form in forms])

        assert statuses(answers) == {400: 30, 429: 18}

    as_ada(server, work)

    assert server.faults == []


async def joined(server: Server, ada: AsyncClient, role: str) -> tuple[AsyncClient, str]:
    """Somebody who is new and signed in, and the path of the account."""
    email = f"{uuid4().hex}@example.com"
    account = {"email": email, "full_name": "Zoe", "password": PASSWORD, "role": role}
    path = f"/users/{(await ada.post('/users', json=account)).json()['id']}"
    client = AsyncClient(base_url=server.url + API, timeout=PATIENCE)
    tokens = await client.post("/auth/token", data={"username": email, "password": PASSWORD})
    client.headers["Authorization"] = f"Bearer {tokens.json()['access_token']}"
    return client, path


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/users/me", {"full_name": "Gone"}),
        ("POST", "/orders", {"lines": [{"item_id": 1, "quantity": 1}]}),
        ("POST", "/posts", {"title": "News", "content": "None."}),
    ],
)
def test_an_account_that_is_deleted_while_it_writes_is_nobodys(
    postgres: Postgres, postgres_template: str, method: str, path: str, body: dict[str, Any]
) -> None:
    """On PostgreSQL, where a request sees the account until the deletion is committed."""
    url = postgres.create(postgres_template)
    settings = Settings(database_url=url, environment="development", bcrypt_rounds=4)
    email = f"{uuid4().hex}@example.com"
    item = (
        "INSERT INTO item"
        " (id, name, name_key, price_cents, quantity, reorder_level, tags, version, created_at, updated_at)"
        " VALUES (1, 'Lamp', 'lamp', 1, 1000, 0, ';', 1, now(), now())"
    )
    with (
        TestClient(create_app(settings)) as client,
        psycopg.connect(url) as other,
        ThreadPoolExecutor(1) as threads,
    ):
        account = {"email": email, "full_name": "Max", "password": PASSWORD}
        client.post(f"{API}/auth/register", json=account).raise_for_status()
        form = {"username": email, "password": PASSWORD}
        tokens = client.post(f"{API}/auth/token", data=form).raise_for_status().json()
        other.execute(item)
        other.commit()
        other.execute('DELETE FROM "user" WHERE email = %s', [email])
        signed_in = {"Authorization": f"Bearer {tokens['access_token']}"}
        answer = threads.submit(client.request, method, API + path, json=body, headers=signed_in)
        sleep(0.5)  # until it waits for us
        other.commit()
        gone = answer.result()

    assert (gone.status_code, gone.json()["error_code"]) == (401, "NOT_AUTHENTICATED")
