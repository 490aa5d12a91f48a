"""Many passwords at once: who asks for many keeps nobody else from signing in."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path
from threading import Event
from time import monotonic, sleep

import anyio
import pytest
from httpx2 import Client, HTTPError

from kit.auth import CORES, hash_password
from kit.db import Database, ending
from kit.processes import Places
from models import User, UserRegister
from settings import Settings
from tests.people import PASSWORD
from tests.server import RoughServer

Record = Callable[[str, object], None]

pytestmark = pytest.mark.slow

ROUNDS = 12
CONNECTIONS = 80
OTHERS = 20


def add_people(folder: Path) -> None:
    """Accounts with one password, whose hash is computed once."""
    password_hash = hash_password(PASSWORD, ROUNDS)
    with (
        closing(Database(Settings(database_url=f"sqlite:///{folder}/app.db"))) as database,
        ending(database.write()) as session,
    ):
        for name in ["ada", "max", *(f"other{number}" for number in range(OTHERS))]:
            body = UserRegister(email=f"{name}@example.com", full_name=name, password=PASSWORD)
            User.create(session, body, password_hash)


def sign_in(client: Client, name: str) -> int:
    form = {"username": f"{name}@example.com", "password": PASSWORD}
    return client.post("/auth/token", data=form).status_code


def test_eighty_changes_of_one_password_keep_nobody_from_signing_in(folder: Path, record_property: Record) -> None:
    add_people(folder)
    server, is_over = RoughServer(folder, settings={"APP_BCRYPT_ROUNDS": str(ROUNDS)}), Event()
    with server.running(), server.connect() as client, ThreadPoolExecutor(CONNECTIONS + OTHERS) as pool:
        form = {"username": "max@example.com", "password": PASSWORD}
        bearer = f"Bearer {client.post('/auth/token', data=form).raise_for_status().json()['access_token']}"

        def change_password(_: int) -> list[int]:
            statuses: list[int] = []
            body = {"current_password": PASSWORD, "new_password": PASSWORD}
            with suppress(HTTPError), server.connect(bearer) as mine:
                while not is_over.is_set():
                    statuses.append(mine.put("/users/me/password", json=body).status_code)
            return statuses

        changes = [pool.submit(change_password, number) for number in range(CONNECTIONS)]
        sleep(1)
        started = monotonic()

        def sign_in_alone(number: int) -> int:
            with server.connect() as mine:
                return sign_in(mine, f"other{number}")

        signed_in = list(pool.map(sign_in_alone, range(OTHERS)))
        seconds = monotonic() - started
        is_over.set()
        server.kill()
        refused = Counter(status for change in changes for status in change.result())

    record_property("sign-ins beside 80 changes of one password", f"{Counter(signed_in)} in {seconds:.1f} s")
    assert signed_in == [200] * OTHERS
    assert refused[503] > 0  # there was a queue, and those were refused who made it


def test_two_workers_hash_no_more_passwords_at_once_than_there_are_cores(folder: Path) -> None:
    add_people(folder)
    server, ours = RoughServer(folder, workers=2), Places(folder / "app.db-hashing", CORES)
    with server.running(), ThreadPoolExecutor(8) as pool, closing(ours):

        def sign_in_alone(number: int) -> int:
            with server.connect() as mine:
                return sign_in(mine, f"other{number}")

        async def all_are_taken() -> tuple[int, int]:
            async with AsyncExitStack() as stack:
                for _ in range(CORES):
                    await stack.enter_async_context(ours.place(after_own=False))
                calls.extend(pool.submit(sign_in_alone, number) for number in range(8))
                sleep(1)
                return server.status("/ready"), sum(call.done() for call in calls)

        calls: list[Future[int]] = []
        meanwhile = anyio.run(all_are_taken)

        assert meanwhile == (200, 0)  # all wait, and none of them holds up anything else
        assert [call.result() for call in calls] == [200] * 8
