"""Many requests at once, on a real server."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from httpx2 import AsyncClient, Response

from tests.conftest import API, PASSWORD
from tests.server import PATIENCE, Server


@pytest.fixture
def serve(tmp_path: Path, template: Path) -> Generator[Callable[..., Server]]:
    """Starts a server with settings of one's own; it is stopped after the test."""
    shutil.copy(template, tmp_path / "app.db")
    with ExitStack() as stack:

        def serve(workers: int = 1, **settings: str) -> Server:
            server = Server(tmp_path, workers, settings)
            stack.enter_context(server.running())
            return server

        yield serve


def at_once(server: Server, work: Callable[[AsyncClient], Coroutine[Any, Any, None]]) -> None:
    """Do `work` as Ada, the admin, with as many connections as it takes."""

    async def as_ada() -> None:
        limits = httpx2.Limits(max_connections=None)
        async with AsyncClient(base_url=server.url + API, limits=limits, timeout=PATIENCE) as client:
            account = {"email": "ada@example.com", "full_name": "Ada", "password": PASSWORD}
            assert (await client.post("/auth/register", json=account)).status_code == 201
            tokens = (await sign_in(client)).json()
            client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
            await work(client)

    asyncio.run(as_ada())


def sign_in(client: AsyncClient) -> Coroutine[Any, Any, Response]:
    return client.post("/auth/token", data={"username": "ada@example.com", "password": PASSWORD})


@pytest.mark.parametrize(("workers", "requests"), [(1, 200), (2, 100)])
def test_reads_and_writes_at_once_all_succeed_and_nothing_is_lost(
    workers: int, requests: int, serve: Callable[..., Server]
) -> None:
    server = serve(workers)
    each = requests // 4

    async def work(client: AsyncClient) -> None:
        lamp = (await client.post("/items", json={"name": "Lamp", "price_cents": 1200})).json()
        path = f"/items/{lamp['id']}"
        calls: list[Coroutine[Any, Any, Response]] = []
        for number in range(each):
            calls += [
                client.get(path),
                client.get("/items", params={"q": "a", "sort": "-price_cents"}),
                client.post("/items", json={"name": f"Chair {number}", "price_cents": 100}),
                client.patch(path, json={"quantity": 1 + number}),
            ]
        answers = await asyncio.gather(*calls)
        chairs = (await client.get("/items", params={"q": "chair", "page_size": 100})).json()

        assert [answer.status_code for answer in answers] == [200, 200, 201, 200] * each
        assert {chair["name"] for chair in chairs["items"]} == {f"Chair {number}" for number in range(each)}
        assert (await client.get(path)).json()["version"] == 1 + each

    at_once(server, work)

    assert server.faults == []


def test_sign_ins_do_not_starve_reads(serve: Callable[..., Server]) -> None:
    server = serve(APP_BCRYPT_ROUNDS="10")

    async def work(client: AsyncClient) -> None:
        sign_ins = [sign_in(client) for _ in range(50)]
        reads = [client.get("/items") for _ in range(100)]
        answers = await asyncio.gather(*sign_ins, *reads)

        assert [answer.status_code for answer in answers] == [200] * 150

    at_once(server, work)

    assert server.faults == []
