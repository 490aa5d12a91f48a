"""Who is compared: how each is prepared, started and asked for the same work."""

import compileall
import json
import shutil
import sqlite3
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

import client
from client import Answer, Call
from fill import Amounts, fill, item
from server import Server, clean_environment

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
ADA = "ada@example.com"
PASSWORD = "Correct-horse-1"  # noqa: S105 - of a database that lives for one run
SECRET_KEY = "a key for the benchmark, of no use elsewhere"  # noqa: S105 - as above
BCRYPT_ROUNDS = 12
UNIQUE = "@unique-name@@"  # work.lua puts a name of the same length in its place
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
NEW_ITEM = json.dumps(
    {"name": f"Lamp {UNIQUE}", "price_cents": 3_900, "quantity": 10, "reorder_level": 5, "tags": ["light", "new"]}
).encode()


@dataclass
class Contestant(ABC):
    """One application; `name` is what `--only` takes."""

    name: str
    title: str
    settings: str
    works: tuple[str, ...] = ("item", "list", "endless", "post", "order", "sign-in", "mix")
    ready_path: str = "/ready"
    database: str = "app.db"
    base: str = "/api/v1"

    @abstractmethod
    def command(self, port: int, workers: int) -> list[str]:
        """What starts it."""

    @abstractmethod
    def prepare(self, folder: Path, amounts: Amounts) -> None:
        """Make its filled database in `folder`."""

    def environment(self, folder: Path, workers: int) -> dict[str, str]:
        """Its settings."""
        del workers
        return {
            "BENCH_DATABASE": str(folder / self.database),
            "BENCH_SECRET_KEY": SECRET_KEY,
            "BENCH_PASSWORD": PASSWORD,
            "BENCH_BCRYPT_ROUNDS": str(BCRYPT_ROUNDS),
            "PYTHONPATH": str(PEERS),
        }

    def accepting(self, workers: int) -> int:
        """How many of its processes accept connections."""
        return workers

    def start(self, folder: Path, workers: int) -> Server:
        """Start it on the database in `folder`."""
        return Server(self.command, self.environment, folder, workers, self.ready_path, self.accepting(workers))

    def run(self, command: list[str], folder: Path, text: str = "") -> None:
        """Run a command of its own to the end, in its environment."""
        environment = clean_environment() | self.environment(folder, 1)
        subprocess.run(  # noqa: S603 - the commands are the contestants' own
            command, cwd=folder, env=environment, input=text, text=True, check=True, stdout=subprocess.DEVNULL
        )

    def sign_in(self) -> Call:
        """A sign-in of Ada's."""
        form = urlencode({"username": ADA, "password": PASSWORD}).encode()
        return Call("POST", f"{self.base}/auth/token", FORM, form)

    def token(self, answer: Answer) -> str:
        """What `sign_in` was answered."""
        return answer.json()["access_token"]

    def calls(self, work: str, server: Server) -> list[Call]:
        """The requests that stand for a kind of work; wrk sends them in turn."""
        if work == "sign-in":
            return [self.sign_in()]
        headers = self.headers(server)
        mixed = {"mix": ["item"] * 50 + ["list"] * 30 + ["post"] * 20}.get(work, [work] * 100)
        chance = Random(len(mixed))  # noqa: S311 - the same requests for everybody
        chance.shuffle(mixed)
        makers: dict[str, Callable[[Random], Call]] = {
            "item": self.get_item,
            "list": self.list_items,
            "post": self.create_item,
            "order": self.place_order,
        }
        if work == "endless":
            makers["endless"] = self.deep_posts(server, headers)
        return [makers[kind](chance).with_headers(headers) for kind in mixed]

    def headers(self, server: Server) -> dict[str, str]:
        """What says who is calling."""
        return {"Authorization": f"Bearer {self.token(client.send(server.port, self.sign_in()))}"}

    def get_item(self, chance: Random) -> Call:
        """One of the items."""
        return Call("GET", f"{self.base}/items/{chance.randint(1, 1_000)}")

    def list_items(self, chance: Random) -> Call:
        """The first 20 of all items."""
        del chance
        return Call("GET", f"{self.base}/items?page=1&page_size=20")

    def create_item(self, chance: Random) -> Call:
        """A new item."""
        del chance
        return Call("POST", f"{self.base}/items", JSON, NEW_ITEM)

    def place_order(self, chance: Random) -> Call:
        """An order of one each of three items."""
        lines = [{"item_id": item_id, "quantity": 1} for item_id in chance.sample(range(1, 1_001), 3)]
        return Call("POST", f"{self.base}/orders", JSON, json.dumps({"lines": lines}).encode())

    def deep_posts(self, server: Server, headers: dict[str, str]) -> Callable[[Random], Call]:
        """20 posts in the middle of all of them; the cursor is found as every client finds it, by walking there."""
        path = deep_path(server.port, f"{self.base}/posts", headers, stretches=5)
        return lambda chance: Call("GET", path)


def deep_path(port: int, path: str, headers: dict[str, str], stretches: int) -> str:
    """Where an endless list goes on after so many stretches of 100 rows."""
    cursor = ""
    for _ in range(stretches):
        answer = client.send(port, Call("GET", f"{path}?limit=100{cursor}", headers)).json()
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    return f"{path}?limit=20{cursor}"


@dataclass
class Stockroom(Contestant):
    """Our app, with all of its features, from the commit that is in `root`.

    Only its command line, HTTP and environment are used, which other commits have, too.
    """

    root: Path = ROOT

    def command(self, port: int, workers: int) -> list[str]:
        """`fastapi run`, as in production; from another folder it has to be told what `pyproject.toml` says."""
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
        return [sys.executable, "-m", "fastapi", "run", "--entrypoint", "app:app", *options]

    def environment(self, folder: Path, workers: int) -> dict[str, str]:
        """The defaults of production, but for the rate of sign-ins: wrk has one address only."""
        del workers
        return {
            "PYTHONPATH": str(self.root),
            "APP_ENVIRONMENT": "production",
            "APP_DATABASE_URL": f"sqlite:///{folder / self.database}",
            "APP_SECRET_KEY": SECRET_KEY,
            "APP_BCRYPT_ROUNDS": str(BCRYPT_ROUNDS),
            "APP_AUTH_RATE_LIMIT": "1000000/minute",
        }

    def prepare(self, folder: Path, amounts: Amounts) -> None:
        """With its own command line, then by SQL."""
        manage = [sys.executable, str(self.root / "manage.py")]
        self.run([*manage, "migrate"], folder)
        self.run([*manage, "create-admin", ADA, "--name", "Ada"], folder, f"{PASSWORD}\n")
        fill(folder / self.database, amounts, tags_as_json=False)


@contextmanager
def before(revision: str, folder: Path) -> Generator[Stockroom]:
    """Stockroom as it was at another commit, in a Git work tree below `folder` that is removed afterwards.

    Raises:
        SystemExit: Git does not find the commit.
    """
    commit = _git("rev-parse", "--short", "--verify", f"{revision}^{{commit}}")
    subject = _git("log", "-1", "--format=%s", commit)
    root = folder / "before"
    _git("worktree", "add", "--detach", str(root), commit)
    try:
        compileall.compile_dir(root, quiet=1)  # our own bytecode is there from earlier starts
        settings = f'as Stockroom, with the packages of today; its last commit is "{subject}"'
        yield Stockroom("before", f"Stockroom at {commit}", settings, root=root)
    finally:
        _git("worktree", "remove", "--force", str(root))


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - wherever git is
    if done.returncode != 0:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


class FastAPIPeer(Contestant):
    """A peer in one module of `peers/`, under uvicorn."""

    module: str = ""

    def command(self, port: int, workers: int) -> list[str]:
        """Uvicorn; the peer writes an access line of its own, so uvicorn's is off, as it is with us."""
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers), "--no-access-log"]
        return [sys.executable, "-m", "uvicorn", f"{self.module}:app", *options]

    def prepare(self, folder: Path, amounts: Amounts) -> None:
        """With its own tables, then by SQL."""
        self.run([sys.executable, str(PEERS / f"{self.module}.py")], folder)
        fill(folder / self.database, amounts, tags_as_json=True)


class AsyncForm(FastAPIPeer):
    """The handbooks' form."""

    module = "handbook_async"


class SyncForm(FastAPIPeer):
    """The tutorial's form."""

    module = "usual_sync"


class Floor(FastAPIPeer):
    """A bare route."""

    module = "floor"

    def prepare(self, folder: Path, amounts: Amounts) -> None:
        """It has no database."""

    def headers(self, server: Server) -> dict[str, str]:
        """It asks nobody who they are."""
        del server
        return {}


class Django(Contestant):
    """Django with django-ninja."""

    def command(self, port: int, workers: int) -> list[str]:
        """Gunicorn with its threads, which keep connections alive; its sync workers would not."""
        options = ["--bind", f"127.0.0.1:{port}", "--workers", str(workers), "--threads", "4"]
        return [sys.executable, "-m", "gunicorn", *options, "django_ninja.wsgi:application"]

    def prepare(self, folder: Path, amounts: Amounts) -> None:
        """With its own tables, then by SQL."""
        self.run([sys.executable, "-m", "django_ninja.prepare"], folder)
        fill(folder / self.database, amounts, tags_as_json=True)


class PocketBase(Contestant):
    """PocketBase, with the same collection and rules."""

    def command(self, port: int, workers: int) -> list[str]:
        """One process, whatever the number of workers; see `environment`."""
        del workers
        return [_pocketbase(), "serve", "--http", f"127.0.0.1:{port}", "--dir", "."]

    def environment(self, folder: Path, workers: int) -> dict[str, str]:
        """As many cores as the others have workers."""
        del folder
        return {"GOMAXPROCS": str(workers)}

    def accepting(self, workers: int) -> int:
        """Its one process."""
        del workers
        return 1

    def prepare(self, folder: Path, amounts: Amounts) -> None:
        """Through its own API, then by SQL."""
        root = {"identity": "root@example.com", "password": PASSWORD}
        self.run([_pocketbase(), "superuser", "upsert", root["identity"], PASSWORD, "--dir", "."], folder)
        with self.start(folder, 1) as server:

            def ask(method: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
                call = Call(method, f"/api/collections{path}", JSON | headers, json.dumps(body).encode())
                return client.send(server.port, call)

            signed_in = ask("POST", "/_superusers/auth-with-password", root, {})
            headers = {"Authorization": signed_in.json()["token"]}
            users = client.send(server.port, Call("GET", "/api/collections/users", headers)).json()["fields"]
            for user_field in users:
                if user_field["name"] == "password":
                    user_field["cost"] = BCRYPT_ROUNDS
            fields = [*users, {"name": "role", "type": "text"}]
            ask("PATCH", "/users", {"fields": fields, "authAlert": {"enabled": False}}, headers)
            ask("POST", "", ITEMS, headers)
            ada = {"email": ADA, "name": "Ada", "role": "admin", "verified": True}
            ask("POST", "/users/records", ada | {"password": PASSWORD, "passwordConfirm": PASSWORD}, headers)
        _fill_pocketbase(folder / self.database, amounts)

    def sign_in(self) -> Call:
        """A sign-in of Ada's."""
        body = json.dumps({"identity": ADA, "password": PASSWORD}).encode()
        return Call("POST", f"{self.base}/users/auth-with-password", JSON, body)

    def token(self, answer: Answer) -> str:
        """What `sign_in` was answered."""
        return answer.json()["token"]

    def get_item(self, chance: Random) -> Call:
        """One of the items."""
        return Call("GET", f"{self.base}/items/records/{_pocketbase_id(chance.randint(1, 1_000))}")

    def list_items(self, chance: Random) -> Call:
        """The first 20 of all items."""
        del chance
        return Call("GET", f"{self.base}/items/records?page=1&perPage=20&sort=name,id")

    def create_item(self, chance: Random) -> Call:
        """A new item."""
        del chance
        return Call("POST", f"{self.base}/items/records", JSON, NEW_ITEM)


BILLION = 1_000_000_000
ITEMS: dict[str, Any] = {
    "name": "items",
    "type": "base",
    "listRule": "@request.auth.id != ''",
    "viewRule": "@request.auth.id != ''",
    "createRule": "@request.auth.role = 'admin'",
    "fields": [
        {"name": "name", "type": "text", "required": True, "min": 1, "max": 100},
        {"name": "price_cents", "type": "number", "required": True, "onlyInt": True, "min": 1, "max": BILLION},
        {"name": "quantity", "type": "number", "onlyInt": True, "min": 0, "max": BILLION},
        {"name": "reorder_level", "type": "number", "onlyInt": True, "min": 0, "max": BILLION},
        {"name": "tags", "type": "json"},
        {"name": "version", "type": "number", "onlyInt": True},
        {"name": "created_at", "type": "autodate", "onCreate": True},
        {"name": "updated_at", "type": "autodate", "onCreate": True, "onUpdate": True},
    ],
    "indexes": ["CREATE UNIQUE INDEX `items_name` ON `items` (`name` COLLATE NOCASE)"],
}


def _fill_pocketbase(path: Path, amounts: Amounts) -> None:
    columns = ("id", "name", "price_cents", "quantity", "reorder_level", "tags", "version", "created_at", "updated_at")
    rows = [item(number, tags_as_json=True) for number in range(1, amounts.items + 1)]
    for number, row in enumerate(rows, 1):
        row["id"] = _pocketbase_id(number)
        row["created_at"] = row["updated_at"] = f"{row['created_at'][:-3]}Z"
    values = ", ".join(f":{name}" for name in columns)
    with sqlite3.connect(path) as connection:
        connection.executemany(f"INSERT INTO items ({', '.join(columns)}) VALUES ({values})", rows)  # noqa: S608 - ours
    connection.close()


def _pocketbase_id(number: int) -> str:
    return f"item{number:011d}"


def _pocketbase() -> str:
    """The binary that the package brings, beside this Python."""
    return shutil.which("pocketbase", path=str(Path(sys.executable).parent)) or "pocketbase"


ALL = [
    Stockroom(
        "stockroom",
        "Stockroom",
        "fastapi run in production with every feature on, JSON log to a file; APP_AUTH_RATE_LIMIT raised, "
        "because wrk has one address",
    ),
    AsyncForm(
        "async",
        "the handbooks' async form",
        "uvicorn; aiosqlite, AsyncSession, services; two @app.middleware functions, structlog's JSON to a file",
    ),
    SyncForm(
        "sync",
        "the usual sync form",
        "uvicorn; SQLModel, generator session, default pool and threads; one @app.middleware, plain logging to a file",
    ),
    Django(
        "django",
        "Django with django-ninja",
        "gunicorn, 4 threads a worker; persistent connections, BEGIN IMMEDIATE; its usual middleware, log to a file",
    ),
    PocketBase(
        "pocketbase",
        "PocketBase",
        "one process on as many cores as the others have workers (GOMAXPROCS); its own log; synchronous=NORMAL, "
        "which its binary does not let one change",
        works=("item", "list", "post", "sign-in", "mix"),
        ready_path="/api/health",
        database="data.db",
        base="/api/collections",
    ),
    Floor("floor-sync", "bare sync route", "uvicorn; no database, token, log", works=("item", "list"), base="/sync"),
    Floor("floor-async", "bare async route", "uvicorn; no database, token, log", works=("item", "list"), base="/async"),
]
