"""How many passwords may wait to be hashed."""

import asyncio
from itertools import islice
from threading import Event

import pytest
from httpx2 import AsyncClient, Limits, Response

import auth
from kit.app import App
from kit.auth import CORES, MAX_WAITING
from tests.people import API
from tests.servers import serving

gate = Event()


@pytest.mark.usefixtures("fresh_app")
def test_no_more_passwords_wait_to_be_hashed_than_can_be_in_time(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait_for_the_gate(_password: str, _password_hash: str) -> bool:
        gate.wait(20)
        return False

    async def sign_in(client: AsyncClient, number: int) -> Response:
        form = {"username": f"{number}@example.com", "password": "wrong"}
        return await client.post(f"{API}/auth/token", data=form)

    async def sign_in_together(url: str, many: int) -> list[Response]:
        async with AsyncClient(base_url=url, limits=Limits(max_connections=None), timeout=60) as client:
            calls = [asyncio.create_task(sign_in(client, number)) for number in range(many)]
            refused = [await call for call in islice(asyncio.as_completed(calls), many - CORES - MAX_WAITING)]
            gate.set()
            await asyncio.gather(*calls)
            return refused + [call.result() for call in calls if call.result() not in refused]

    gate.clear()
    monkeypatch.setattr(auth, "check_password", wait_for_the_gate)
    with serving(app) as client:
        answers = asyncio.run(sign_in_together(str(client.base_url), CORES + MAX_WAITING + 10))

    assert [answer.status_code for answer in answers] == [503] * 10 + [400] * (CORES + MAX_WAITING)
    assert {answer.json()["error_code"] for answer in answers[:10]} == {"DATABASE_BUSY"}
    assert {answer.headers["Retry-After"] for answer in answers[:10]} == {"1"}
