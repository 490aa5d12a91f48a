"""Servers that the tests start: each in a process group of its own, which a test can end at once."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import httpx2
import uvicorn
from httpx2 import Client, Response
from starlette.types import ASGIApp

from kit.sqlite import SQLITE
from tests.people import API, PASSWORD

ROOT = Path(__file__).parent.parent
PATIENCE = 60  # in seconds: generous, for machines that have other things to do, too
FAULTS = ["database is locked", "QueuePool", "DATABASE_BUSY", "Traceback", "Unhandled"]
MANY = 1_000_000_000  # more stock than any test can order
HURRIED = "tests.hurried:app"
HURRIED_SHUTDOWN_SECONDS = 2
HURRIED_BUSY_SECONDS = 1
CALM = {"APP_BCRYPT_ROUNDS": "4", "APP_AUTH_RATE_LIMIT": "100000/minute", "APP_REGISTRATION_OPEN": "true"}


def free_port() -> int:
    """A port on which nobody listens.

    It is chosen at random, and below those that the system gives away by itself: else another process or a connection
    might get it before the server of the test does.
    """
    while True:
        port = random.randrange(10_000, 32_000)  # noqa: S311 - no secret
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that is about to happen."""
    deadline = monotonic() + seconds
    while not is_so():
        assert monotonic() < deadline, f"It did not happen within {seconds} seconds."
        sleep(0.01)


@contextmanager
def serving(app: ASGIApp) -> Generator[Client]:
    """The app on a real uvicorn, in a thread of its own; what is not done two seconds after the end is dropped."""
    config = uvicorn.Config(app, port=free_port(), log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        with Client(base_url=f"http://127.0.0.1:{config.port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


class Program:
    """A server that a command starts on a port."""

    process: subprocess.Popen[bytes]

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log_path: Path,
        folder: Path = ROOT,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.command = command
        self.port = port
        self.log_path = log_path
        self.folder = folder
        self.variables = variables or {}

    def launch(self) -> None:
        """Start the process without waiting for it."""
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(  # noqa: S603 - a command from here
                self.command,
                cwd=self.folder,
                env=os.environ | self.variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start the process, and wait until it serves."""
        self.launch()
        deadline = monotonic() + PATIENCE
        while not self.is_serving():
            assert self.process.poll() is None, self.log
            assert monotonic() < deadline, self.log
            sleep(0.02)

    def is_serving(self) -> bool:
        """Whether somebody listens on the port."""
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.port)) == 0

    @contextmanager
    def running(self) -> Generator[None]:
        """Start, and leave nothing behind whatever the test does in between."""
        try:
            self.start()
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Ask the process to end, and wait for it."""
        self.process.terminate()
        self.wait()

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

    @property
    def log(self) -> str:
        return self.log_path.read_text()


class Server(Program):
    """`uvicorn app:app` in processes of its own, on the database in `folder`; another `app` waits less, for example."""

    def __init__(
        self,
        folder: Path,
        workers: int = 1,
        settings: Mapping[str, str] | None = None,
        wrapped_in: Sequence[str] = (),
        app: str = "app:app",
    ) -> None:
        port = free_port()
        options = ["--port", str(port), "--workers", str(workers)]
        self.workers = workers
        self.url = f"http://127.0.0.1:{port}"
        self.database_path = folder / "app.db"
        super().__init__(
            [*wrapped_in, sys.executable, "-m", "uvicorn", app, *options],
            port,
            folder / "log",
            variables=CALM | {"APP_DATABASE_URL": f"sqlite:///{folder}/app.db"} | dict(settings or {}),
        )

    def is_serving(self) -> bool:
        """Whether all workers answer."""
        return self.log.count("Application startup complete") >= self.workers and super().is_serving()

    @property
    def faults(self) -> list[str]:
        """What the log has of the faults that load brings out."""
        return [fault for fault in FAULTS if fault in self.log]

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


class RoughServer(Server):
    """A server that is killed at the end, if it still runs: the test may have left it in any state."""

    def stop(self) -> None:
        """End it at once."""
        self.kill()


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
