"""When a 201 leaves, the order is on the disk: what the kernel was told, and in which order."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import missing
from tests.server import RoughServer, add_items, lines

Record = Callable[[str, object], None]

pytestmark = pytest.mark.slow

ORDERS = 10
CALLS = "pwrite64,fsync,fdatasync,write,writev,sendto,sendmsg"
# "813 fdatasync(5</folder/app.db-wal>) = 0", or in two lines where another thread came in between.
CALL = re.compile(r"^(?P<thread>\d+) +(?:<\.\.\. )?(?P<name>\w+)(?P<rest>.*)$")


def events(trace: str) -> list[str]:
    """What was done, in order: `write` and `sync` of the journal when they ended, and `answer` when it began."""
    found: list[str] = []
    unfinished: dict[str, str] = {}  # what a thread is in the middle of
    for line in trace.splitlines():
        match = CALL.match(line)
        if match is None:
            continue
        thread, name, rest = match["thread"], match["name"], match["rest"]
        if '"HTTP/1.1 201 Created' in rest:
            found.append("answer")
        event = {"pwrite64": "write", "fsync": "sync", "fdatasync": "sync"}.get(name, "")
        event = event if "app.db-wal>" in rest or "resumed>" in rest else ""
        if rest.endswith("<unfinished ...>"):
            unfinished[thread] = event
        elif "resumed>" in rest:
            event = unfinished.pop(thread, "")
        if event and not rest.endswith("<unfinished ...>"):
            found.append(event)
    return found


def traced_orders(folder: Path, synchronous: str) -> list[list[str]]:
    """What the server did with its journal before each of its answers to orders, which came one by one."""
    trace = folder / "trace"
    command = [
        missing.program("strace"),
        "-f",
        "-y",
        "-s",
        "32",
        "--seccomp-bpf",
        f"--trace={CALLS}",
        f"--output={trace}",
    ]
    server = RoughServer(folder, wrapped_in=command, settings={"APP_SQLITE_SYNCHRONOUS": synchronous})
    with server.running(), server.as_ada() as ada:
        item_ids = add_items(ada)
        before = len(events(trace.read_text()))
        for _ in range(ORDERS):
            ada.post("/orders", json=lines(item_ids)).raise_for_status()
    parts = " ".join(events(trace.read_text())[before:]).split("answer")
    return [part.split() for part in parts[:ORDERS]]


def test_the_journal_is_synced_before_the_answer_leaves(folder: Path, record_property: Record) -> None:
    orders = traced_orders(folder, "FULL")

    assert len(orders) == ORDERS
    for order in orders:
        assert "write" in order
        assert order[-1] == "sync"
    record_property("answers after a sync of the journal", f"{ORDERS} of {ORDERS}")


def test_with_normal_the_answer_does_not_wait_for_the_disk(folder: Path, record_property: Record) -> None:
    orders = traced_orders(folder, "NORMAL")

    assert len(orders) == ORDERS
    for order in orders:
        assert "write" in order
        assert "sync" not in order
    record_property("answers after a sync of the journal", f"0 of {ORDERS}")
