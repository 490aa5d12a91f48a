"""Driving a running contestant with wrk, and what comes of it."""

import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from client import HOST, Call, Refused
from server import Server

SCRIPT = Path(__file__).parent / "work.lua"
NEXT = b"\n--next-request--\n"  # as in work.lua
TIMEOUT = 60  # seconds that wrk waits for an answer; its own default of 2 would hide how long people wait
ATTEMPTS = 5  # to have all processes of a server take part
SETTLED = 0.5  # seconds until all connections are accepted; a second is the shortest load
FAULTS = ("status", "connect", "read", "write", "timeout")


class NoWrk(SystemExit):
    """There is nothing to drive them with."""

    def __init__(self) -> None:
        super().__init__("wrk is missing; install it with: apt-get install wrk")


@dataclass(frozen=True)
class Result:
    """What one run of wrk found.

    `errors` has the kinds of faults that happened, with their counts; `spread` how many of its connections each process
    of the server had.
    """

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: dict[str, int]
    spread: list[int]


class Load:
    """wrk at work, once all of its connections are accepted; `result` waits for its end."""

    def __init__(self, server: Server, calls: Sequence[Call], connections: int, seconds: float) -> None:
        self.requests: IO[bytes] = tempfile.NamedTemporaryFile(prefix="stockroom-requests-")  # noqa: SIM115 - see result
        self.requests.write(NEXT.join(call.raw(server.port) for call in calls))
        self.requests.flush()
        options = ["--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
        options += ["--timeout", f"{TIMEOUT}s", "--script", str(SCRIPT), f"http://{HOST}:{server.port}"]
        # A new text each time: the names of this run must not meet those of the warm-up.
        command = [wrk(), *options, "--", self.requests.name, secrets.token_hex(2)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - wrk, with our options
        deadline = time.monotonic() + SETTLED
        while sum(spread := server.accepted(self.process.pid).values()) < connections and time.monotonic() < deadline:
            time.sleep(SETTLED / 10)
        self.spread = sorted(spread)

    def stop(self) -> None:
        """End it before its time."""
        self.process.kill()
        self.process.communicate()
        self.requests.close()

    def result(self) -> Result:
        """What came of it.

        Raises:
            RuntimeError: wrk itself failed.
        """
        output, _ = self.process.communicate()
        self.requests.close()
        line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
        if line is None:
            raise RuntimeError(f"wrk found nothing: {output}")
        found = json.loads(line.removeprefix("RESULT "))
        return Result(
            requests_per_second=found["requests"] / found["seconds"],
            p50_ms=found["p50_ms"],
            p99_ms=found["p99_ms"],
            max_ms=found["max_ms"],
            errors={fault: found[fault] for fault in FAULTS if found[fault]},
            spread=self.spread,
        )


def drive(server: Server, calls: Sequence[Call], connections: int, seconds: float) -> Result:
    """Send these requests in turn, over so many connections, for so long.

    Raises:
        Refused: see `start_load`.
    """
    return start_load(server, calls, connections, seconds).result()


def start_load(server: Server, calls: Sequence[Call], connections: int, seconds: float) -> Load:
    """Start that load; a process of the server that chance leaves without a connection has new ones opened.

    Raises:
        Refused: one has none, however often they are opened.
    """
    for _ in range(ATTEMPTS):
        load = Load(server, calls, connections, seconds)
        if len(load.spread) >= min(server.accepting, connections):
            return load
        load.stop()
    raise Refused(
        f"{server.folder.name}: of its {server.accepting} processes, some had none of {connections} connections, "
        f"{ATTEMPTS} times in a row; they would get no request."
    )


def wrk() -> str:
    """The program.

    Raises:
        NoWrk: it is not installed.
    """
    path = shutil.which("wrk")
    if path is None:
        raise NoWrk
    return path
