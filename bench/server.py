"""One running contestant: started, measured and ended by the ids of the processes that we started."""

import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import client
from client import Call
from sockets import accepted

PATIENCE = 60.0  # seconds from start to ready, on a busy machine
POLL = 0.005
PAUSE = 0.05  # between looks at who answers, which keep those busy that do
CONNECTIONS = 8  # for each process, all at once: one that is alone accepts them all, two share them
GRACE = 2.0
HAS_ENDED = os.WEXITED | os.WNOWAIT | os.WNOHANG


class NotReady(Exception):
    """A contestant did not start, or only in part; the message has the end of its log."""


class Server:
    """A contestant on its database in `folder`, on a free port of 127.0.0.1; its output goes to the file `log`.

    It is there when all of its processes answer, `accepting` of them. `start_seconds` is when the first one did.
    """

    def __init__(
        self,
        command: Callable[[int, int], list[str]],
        environment: Callable[[Path, int], dict[str, str]],
        folder: Path,
        workers: int,
        ready_path: str,
        accepting: int,
    ) -> None:
        self.folder = folder
        self.workers = workers
        self.ready_path = ready_path
        self.accepting = accepting
        self.answering: set[int] = set()
        self.port = _free_port()
        self.log_path = folder / "log"
        started = time.perf_counter()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - the commands are the contestants' own
                command(self.port, workers),
                cwd=folder,
                env=clean_environment() | environment(folder, workers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a group of their own, so that exactly they can be ended
            )
        try:
            self._wait(self._is_ready, POLL)
            self.start_seconds = time.perf_counter() - started
            # Until its last process accepts, all connections land on the others, and stay there.
            self._wait(self._all_answer, PAUSE)
        except BaseException:
            self.stop()
            raise

    def _wait(self, is_over: Callable[[], bool], pause: float) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_over():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = self.log_path.read_text(errors="replace")[-2_000:]
                count = f"{len(self.answering)} of {self.accepting}"
                raise NotReady(f"{self.process.args}: {count} processes have answered. {log}")
            time.sleep(pause)

    def _all_answer(self) -> bool:
        """Whether every process has answered by now one of some requests that are sent at once, again and again."""
        request = Call("GET", self.ready_path).raw(self.port)
        with ExitStack() as stack:
            connections = [
                stack.enter_context(socket.create_connection((client.HOST, self.port), client.TIMEOUT))
                for _ in range(CONNECTIONS * self.accepting)
            ]
            for connection in connections:
                connection.sendall(request)
            for connection in connections:
                connection.recv(1)  # the answer, so that the connection is accepted
            self.answering.update(self.accepted(os.getpid()))
        return len(self.answering) >= self.accepting

    def accepted(self, client_pid: int) -> Counter[int]:
        """How many connections of a process each process of the server has accepted."""
        return accepted(client_pid, self.port, self._processes())

    def _is_ready(self) -> bool:
        try:
            return client.ask(self.port, Call("GET", self.ready_path)).status == 200
        except OSError:  # nobody listens yet
            return False

    def resident_megabytes(self) -> tuple[float, float]:
        """The memory of its largest process, and of all of them together."""
        sizes = [_resident_megabytes(pid) for pid in self._processes()]
        return max(sizes), sum(sizes)

    def _processes(self) -> list[int]:
        """Every process of the group that we started."""
        found: list[int] = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if os.getpgid(int(folder.name)) == self.process.pid:
                        found.append(int(folder.name))
                except ProcessLookupError:  # it ended meanwhile
                    continue
        return found

    def stop(self) -> None:
        """Ask it to end, and end what is left of its group after two seconds; its database is thrown away anyway."""
        if self.process.poll() is None:
            self.process.terminate()
            deadline = time.monotonic() + GRACE
            # It is left unreaped until its group is gone: as long as it is there, nobody else gets its id.
            while os.waitid(os.P_PID, self.process.pid, HAS_ENDED) is None and time.monotonic() < deadline:
                time.sleep(POLL)
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def clean_environment() -> dict[str, str]:
    """The environment without anybody's settings; contestants may keep their bytecode, as they do in production."""
    others = ("APP_", "BENCH_", "DJANGO_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(others)}


def _resident_megabytes(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), "0")
    return int(kilobytes) / 1024


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((client.HOST, 0))
        return free.getsockname()[1]
