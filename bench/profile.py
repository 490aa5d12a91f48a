"""Where the time of a request goes: `uv run bench/profile.py`. In process, one request at a time, without a network.

The first tables time layers: each row is the time spent in a layer itself, not in the layers that it calls. The second
ones are cProfile's, on the event loop and in the worker thread, by package; cProfile makes calls dearer than they are,
so its shares only say where to look.
"""

import sys
from pathlib import Path

# This file has the name of a module of Python's, which cProfile imports: its own folder must not come first.
ROOT = Path(__file__).parent.parent
sys.path[0] = str(ROOT)

import asyncio
import cProfile
import functools
import importlib.util
import inspect
import json
import os
import pstats
import re
import secrets
import tempfile
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Annotated, Any

import typer
from anyio import to_thread
from sqlalchemy import event
from uvicorn.config import Config

PASSWORD = "Correct-horse-1"  # noqa: S105 - of a database that lives for one run
FORM = "application/x-www-form-urlencoded"
ITEM = {"price_cents": 3_900, "quantity": 1_000_000, "reorder_level": 5, "tags": ["light", "new"]}

# What is timed: the layer, and where it is. A name that is gone is said, so that this list is kept up to date.
LAYERS = [
    ("middleware: edge", "kit.logs:_Exchange.run"),
    ("middleware: edge", "kit.logs:_Exchange.answer"),
    ("middleware: gates", "kit.middleware:RateGate.__call__"),
    ("middleware: gates", "kit.middleware:HostGate.__call__"),
    ("middleware: gates", "kit.middleware:QueueGate.__call__"),
    ("log line", "kit.logs:_Exchange._log"),
    ("FastAPI: parameters and dependencies", "fastapi.routing:solve_dependencies"),
    ("token", "callers:Guard.__call__"),
    ("strict JSON of the body", "kit.strict:StrictRequest.json"),
    ("strict query", "kit.strict:refuse_unknown_query"),
    ("hop to a thread and back", "anyio.to_thread:run_sync"),
    ("validation of the answer", "pydantic:TypeAdapter.validate_python"),
    ("JSON of the answer", "pydantic:TypeAdapter.dump_json"),
    ("ORM: statements, rows to objects", "sqlmodel:Session.exec"),
    ("ORM: statements, rows to objects", "sqlalchemy.orm:Session.get"),
    ("ORM: flush", "sqlalchemy.orm:Session.flush"),
    ("ORM: commit and close", "sqlalchemy.orm:Session.commit"),
    ("ORM: commit and close", "sqlalchemy.orm:Session.close"),
    ("SQLAlchemy: connection", "sqlalchemy.engine:Engine.connect"),
]
SQL, APP, THREAD = "SQLite", "Starlette and FastAPI: layers, routing", "route and its domain, in the thread"
IDLE = "waiting for the other thread"


class Clock:
    """Time by layer, each without the layers within it. One request is under way at a time, in one thread at a time."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.stack: list[str] = []
        self.since = 0.0

    def enter(self, layer: str) -> None:
        """A layer begins, within the one that was at work."""
        self._charge()
        self.stack.append(layer)
        self.calls[layer] += 1

    def leave(self) -> None:
        """The innermost layer ends."""
        self._charge()
        self.stack.pop()

    def _charge(self) -> None:
        now = perf_counter()
        if self.stack:
            self.spent[self.stack[-1]] += now - self.since
        self.since = now

    def timed(self, layer: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed_coroutine(*values: Any, **options: Any) -> Any:
                self.enter(layer)
                try:
                    return await function(*values, **options)
                finally:
                    self.leave()

            return timed_coroutine

        @functools.wraps(function)
        def timed(*values: Any, **options: Any) -> Any:
            self.enter(layer)
            try:
                return function(*values, **options)
            finally:
                self.leave()

        return timed

    def watch(self) -> None:
        """Put the clock into every layer, before the app is put together."""
        for layer, where in LAYERS:
            module_name, _, path = where.partition(":")
            *parents, name = path.split(".")
            owner: Any = importlib.import_module(module_name) if importlib.util.find_spec(module_name) else None
            for parent in parents:
                owner = getattr(owner, parent, None)
            function = getattr(owner, name, None)
            if function is None:
                typer.echo(f"{where} is gone; its time is in the layer around it.", err=True)
            elif where == "anyio.to_thread:run_sync":
                setattr(owner, name, self._timed_hop(layer, function))
            else:
                setattr(owner, name, self.timed(layer, function))

    def _timed_hop(self, layer: str, run_sync: Callable[..., Any]) -> Callable[..., Any]:
        async def hop(function: Callable[..., Any], *values: Any, **options: Any) -> Any:
            self.enter(layer)
            try:
                return await run_sync(self.timed(THREAD, function), *values, **options)
            finally:
                self.leave()

        return hop


def watch_sql(clock: Clock, engine: Any) -> None:
    """Time every statement (reading its rows is within the ORM's layers) and every COMMIT."""
    event.listen(engine, "before_cursor_execute", lambda *_: clock.enter(SQL))
    event.listen(engine, "after_cursor_execute", lambda *_: clock.leave())
    engine.dialect.do_commit = clock.timed(f"{SQL}: COMMIT, to the disk", engine.dialect.do_commit)


class InProcess:
    """The app, called as a server calls it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.token = ""

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
        """Send one request; returns the parsed answer.

        Raises:
            RuntimeError: it was not a success.
        """
        path, _, query = path.partition("?")
        headers = [(b"host", b"localhost"), (b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        if self.token:
            headers.append((b"authorization", f"Bearer {self.token}".encode()))
        scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method}
        scope |= {"path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": ""}
        scope |= {"scheme": "http", "headers": headers, "client": ("127.0.0.1", 1), "server": ("localhost", 80)}
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        answer = b"".join(message.get("body", b"") for message in sent)
        if not 200 <= sent[0]["status"] < 300:
            raise RuntimeError(f"{method} {path}: {sent[0]['status']} {answer.decode()}")
        return json.loads(answer)

    async def sign_in(self) -> None:
        """Become Ada."""
        form = f"username=ada%40example.com&password={PASSWORD}".encode()
        self.token = (await self.ask("POST", "/api/v1/auth/token", form, FORM))["access_token"]

    def add_item(self) -> Any:
        """Add an item with a new name."""
        return self.ask("POST", "/api/v1/items", json.dumps(ITEM | {"name": secrets.token_hex(8)}).encode())

    def works(self) -> dict[str, Callable[[], Any]]:
        """What is profiled, by name."""
        order = json.dumps({"lines": [{"item_id": number, "quantity": 1} for number in (1, 2, 3)]}).encode()
        return {
            "GET of one item": lambda: self.ask("GET", "/api/v1/items/1"),
            "list of 20 items": lambda: self.ask("GET", "/api/v1/items?page=1&page_size=20"),
            "POST of an item": self.add_item,
            "order of three lines": lambda: self.ask("POST", "/api/v1/orders", order),
        }


def main(
    requests: Annotated[int, typer.Option(min=1, help="How many of each kind are timed.")] = 500,
    layers: Annotated[bool, typer.Option(help="Time the layers.")] = True,
    packages: Annotated[bool, typer.Option(help="Run cProfile, by package.")] = True,
) -> None:
    """Print where the time of a request goes."""
    with tempfile.TemporaryDirectory(prefix="stockroom-profile-") as folder:
        os.chdir(folder)  # where nobody's .env is
        for name in [name for name in os.environ if name.startswith("APP_")]:
            del os.environ[name]
        database = f"sqlite:///{folder}/app.db"
        os.environ |= {"APP_ENVIRONMENT": "production", "APP_DATABASE_URL": database, "APP_BCRYPT_ROUNDS": "4"}
        os.environ |= {"APP_ADMIN_EMAIL": "ada@example.com", "APP_ADMIN_PASSWORD": PASSWORD}
        with Path(folder, "log").open("w") as log:
            sys.stderr = log  # the log is written as in production, to a file
            try:
                with asyncio.Runner(loop_factory=Config("app:app").get_loop_factory()) as runner:  # as in production
                    text = runner.run(profile(requests, layers=layers, packages=packages))
            finally:
                sys.stderr = sys.__stderr__
    typer.echo(text)


async def profile(requests: int, *, layers: bool, packages: bool) -> str:
    """Time every work, first by layer and then by package."""
    clock = Clock()
    application = importlib.import_module("app")
    lines: list[str] = []
    if packages:  # first, because the clock stays in what it was put into
        async with running(application) as app:
            for name, work in app.works().items():
                lines += await by_package(name, work, requests)
    if layers:
        clock.watch()
        async with running(application, clock) as app:
            found: list[str] = []
            for name, work in app.works().items():
                found += await by_layer(name, work, requests, clock)
            lines = found + lines
    return "\n".join(lines)


@asynccontextmanager
async def running(application: Any, clock: Clock | None = None) -> AsyncGenerator[InProcess]:
    """An app, started, with Ada signed in and 40 items or more."""
    app = application.create_app(importlib.import_module("settings").load_settings())
    async with application.lifespan(app):
        if clock is not None:
            watch_sql(clock, app.state.database.engine)
        in_process = InProcess(clock.timed(APP, app.__call__) if clock else app)
        await in_process.sign_in()
        for _ in range(40):
            await in_process.add_item()
        yield in_process


async def by_layer(name: str, work: Callable[[], Any], requests: int, clock: Clock) -> list[str]:
    """The time of each layer itself, for one work."""
    for _ in range(requests // 5 + 1):
        await work()
    clock.spent.clear()
    clock.calls.clear()
    started = perf_counter()
    for _ in range(requests):
        await work()
    whole = perf_counter() - started
    lines = [f"\n## {name}: {whole / requests * 1e6:,.0f} µs a request, the clock included\n"]
    lines += ["| layer | µs | share | times a request |", "|---|--:|--:|--:|"]
    for layer, spent in sorted(clock.spent.items(), key=lambda entry: -entry[1]):
        times = clock.calls[layer] / requests
        lines.append(f"| {layer} | {spent / requests * 1e6:,.0f} | {spent / whole:.0%} | {times:.1f} |")
    return lines


async def by_package(name: str, work: Callable[[], Any], requests: int) -> list[str]:
    """cProfile's own time, by package, on the event loop and in the worker threads."""
    for _ in range(requests // 5 + 1):
        await work()
    profiles = [await in_thread(cProfile.Profile), cProfile.Profile()]
    await in_thread(profiles[0].enable)
    profiles[1].enable()
    for _ in range(requests):
        await work()
    profiles[1].disable()
    await in_thread(profiles[0].disable)
    spent: dict[str, float] = defaultdict(float, {IDLE: 0.0})
    for one in profiles:
        table: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = getattr(pstats.Stats(one), "stats")  # noqa: B009 - missing in its stub
        for (file, _, function), (_, _, own, _, _) in table.items():
            spent[_package(file, function)] += own
    del spent[IDLE]
    busy = sum(spent.values())
    lines = [f"\n## {name}, by package (cProfile)\n", "| package | share |", "|---|--:|"]
    ranked = sorted(spent.items(), key=lambda entry: -entry[1])
    return lines + [f"| {package} | {time / busy:.0%} |" for package, time in ranked if time > busy / 100]


async def in_thread(function: Callable[[], Any]) -> Any:
    """Call `function` in the worker thread: requests come one by one, so anyio always takes the same one."""
    return await to_thread.run_sync(function)


def _package(file: str, function: str) -> str:
    if file == "~":
        if any(word in function for word in ("epoll", "select.", "acquire", "run_until", "'get' of '_queue")):
            return IDLE
        owner = re.search(r"'([\w.]+)' objects|built-in method ([\w.]+)\.", function)
        name = next((part for part in owner.groups() if part), "builtins") if owner else "builtins"
        return {"sqlite3": "SQLite", "pysqlite3": "SQLite"}.get(name.split(".")[0], f"C: {name.split('.')[0]}")
    if file.startswith(str(ROOT)) and "site-packages" not in file:
        return f"{Path(file).name} (ours)"
    if "site-packages" in file:
        return file.split("site-packages/")[1].split("/")[0].removesuffix(".py")
    return "Python's library"


if __name__ == "__main__":
    typer.run(main)
