"""Servers that the tests of faults treat badly: each in a process group of its own, which a test can end at once."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx2
from httpx2 import Client, Response

from kit.sqlite import SQLITE
from tests.conftest import API, PASSWORD
from tests.test_load import PATIENCE, ROOT, Server

MANY = 1_000_000_000  # more stock than any test can order
CALM = {"APP_BCRYPT_ROUNDS": "4", "APP_AUTH_RATE_LIMIT": "100000/minute"}


class RoughServer(Server):
    """A server that may be killed, and started again on the same database and port."""

    process: subprocess.Popen[bytes]

    def __init__(
        self, folder: Path, workers: int = 1, wrapped_in: Sequence[str] = (), settings: dict[str, str] | None = None
    ) -> None:
        super().__init__(folder, workers, CALM | (settings or {}))
        self.folder = folder
        self.wrapped_in = wrapped_in
        self.database_path = folder / "app.db"

    def launch(self) -> None:
        """Start the process without waiting for it."""
        options = ["--port", str(self.port), "--workers", str(self.workers)]
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(  # noqa: S603 - this very Python, with options from here
                [*self.wrapped_in, sys.executable, "-m", "uvicorn", "app:app", *options],
                cwd=ROOT,
                env=os.environ | self.settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start the process, and wait until it answers."""
        self.launch()
        self._wait_until_all_workers_answer(self.process)

    @contextmanager
    def running(self) -> Generator[None]:
        """Start, and leave nothing behind whatever the test does in between."""
        try:
            self.start()
            yield
        finally:
            self.kill()

    def kill(self) -> None:
        """End the whole process group at once, as a power cut would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)

    def wait(self) -> float:
        """Wait for the end of the process; returns how many seconds it took."""
        since = monotonic()
        self.process.wait(PATIENCE)
        return monotonic() - since

    def connect(self, bearer: str = "") -> Client:
        """A client with this value of `Authorization`."""
        return Client(base_url=self.url + API, headers={"Authorization": bearer}, timeout=PATIENCE)

    @contextmanager
    def as_ada(self) -> Generator[Client]:
        """A client that is signed in as Ada, the admin, who gets her account the first time."""
        account = {"email": "ada@example.com", "full_name": "Ada", "password": PASSWORD}
        form = {"username": "ada@example.com", "password": PASSWORD}
        with self.connect() as client:
            assert client.post("/auth/register", json=account).status_code in (201, 409)
            tokens = client.post("/auth/token", data=form).raise_for_status().json()
            client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
            yield client

    def open_socket(self) -> socket.socket:
        """A bare connection, for what no proper client sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def status(self, path: str) -> int:
        """What `/health` and `/ready` say."""
        return httpx2.get(self.url + path, timeout=PATIENCE).status_code

    def rows(self, statement: str) -> list[Any]:
        """What the file of the database has, read by another program than the server."""
        with closing(SQLITE.connect(self.database_path)) as connection:
            return connection.execute(statement).fetchall()


def add_items(ada: Client, names: Sequence[str] = ("Lamp", "Chair")) -> list[int]:
    """The ids of new items, of which there is always enough."""
    bodies = [{"name": name, "price_cents": 100 * (1 + place), "quantity": MANY} for place, name in enumerate(names)]
    return [ada.post("/items", json=body).raise_for_status().json()["id"] for body in bodies]


def bearer_of(client: Client) -> str:
    """What a client that is signed in sends as `Authorization`."""
    return client.headers["Authorization"]


def lines(item_ids: Sequence[int]) -> dict[str, Any]:
    """An order of one, two, three … of these items."""
    return {"lines": [{"item_id": item_id, "quantity": 1 + place} for place, item_id in enumerate(item_ids)]}


def code(response: Response) -> tuple[int, str]:
    """The status and the error code of a refusal."""
    return response.status_code, response.json()["error_code"]


def half_sent(method: str, path: str, bearer: str, body: bytes) -> tuple[bytes, bytes]:
    """The two halves of a request; the first one ends within the body."""
    head = f"{method} {API}{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body[:1], body[1:]


def answer_on(connection: socket.socket) -> bytes:
    """All that a server sends before it closes the connection."""
    parts = iter(lambda: connection.recv(65536), b"")
    return b"".join(parts)


@contextmanager
def write_lock_held(path: Path) -> Generator[None]:
    """While another process holds the write lock of the database."""
    script = (
        f"import importlib, sys; db = importlib.import_module({SQLITE.__name__!r}).connect(sys.argv[1], timeout=60);"
        "db.isolation_level = None; db.execute('BEGIN IMMEDIATE'); print(flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()
