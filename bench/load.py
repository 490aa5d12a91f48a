"""Driving a running contestant with wrk, and what comes of it."""

import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from client import HOST, Call

SCRIPT = Path(__file__).parent / "work.lua"
NEXT = b"\n--next-request--\n"  # as in work.lua
TIMEOUT = 60  # seconds that wrk waits for an answer; its own default of 2 would hide how long people wait
FAULTS = ("status", "connect", "read", "write", "timeout")


class NoWrk(SystemExit):
    """There is nothing to drive them with."""

    def __init__(self) -> None:
        super().__init__("wrk is missing; install it with: apt-get install wrk")


@dataclass(frozen=True)
class Result:
    """What one run of wrk found; `errors` has the kinds of faults that happened, with their counts."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: dict[str, int]


class Load:
    """wrk at work; `result` waits for its end."""

    def __init__(self, port: int, calls: Sequence[Call], connections: int, seconds: float) -> None:
        self.requests: IO[bytes] = tempfile.NamedTemporaryFile(prefix="stockroom-requests-")  # noqa: SIM115 - see result
        self.requests.write(NEXT.join(call.raw(port) for call in calls))
        self.requests.flush()
        options = ["--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
        options += ["--timeout", f"{TIMEOUT}s", "--script", str(SCRIPT), f"http://{HOST}:{port}"]
        # A new text each time: the names of this run must not meet those of the warm-up.
        command = [wrk(), *options, "--", self.requests.name, secrets.token_hex(2)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - wrk, with our options

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
        )


def drive(port: int, calls: Sequence[Call], connections: int, seconds: float) -> Result:
    """Send these requests in turn, over so many connections, for so long."""
    return Load(port, calls, connections, seconds).result()


def wrk() -> str:
    """The program.

    Raises:
        NoWrk: it is not installed.
    """
    path = shutil.which("wrk")
    if path is None:
        raise NoWrk
    return path
