"""What the processes of one machine know of each other."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio

from kit.processes import Places, Presence
from tests import missing
from tests.server import ROOT

ENTER = (
    "import sys, pathlib, kit.processes as p; p.Presence(pathlib.Path(sys.argv[1])).enter(); print(flush=True); input()"
)

HOLD = """
import asyncio, pathlib, sys, kit.processes as p
async def hold():
    async with p.Places(pathlib.Path(sys.argv[1]), 1).place(after_own=False):
        print(flush=True)
        input()
asyncio.run(hold())
"""


def test_another_process_is_seen_until_it_ends_in_whatever_way(tmp_path: Path) -> None:
    missing.require_linux()
    presence = Presence(tmp_path / "lock")
    presence.enter()
    alone = presence.has_others()
    command = [sys.executable, "-c", ENTER, str(presence.path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: S603
        assert other.stdout
        other.stdout.readline()
        seen = presence.has_others(), presence.has_others()
        other.kill()
    alone_again = presence.has_others()
    presence.leave()

    assert (alone, seen, alone_again) == (False, (True, True), False)


def test_where_there_is_no_lock_it_counts_on_others(tmp_path: Path) -> None:
    presence = Presence(tmp_path / "gone" / "lock")
    presence.enter()

    assert presence.has_others()


# Places: two on the same files know no more of each other than those of two processes


def several(*calls: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    async def all_of_them() -> None:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for call in calls:
                    tasks.start_soon(call)

    anyio.run(all_of_them)


def test_no_more_places_are_taken_than_there_are_and_nobody_is_left_out(tmp_path: Path) -> None:
    missing.require_linux()
    workers = [Places(tmp_path / "places", 2) for _ in range(2)]
    under_way, peak, done = 0, 0, Counter[int]()

    async def work(worker: int) -> None:
        nonlocal under_way, peak
        async with workers[worker].place(after_own=True):
            under_way += 1
            peak = max(peak, under_way)
            await anyio.sleep(0.01)
            under_way -= 1
            done[worker] += 1

    several(*[lambda: work(0)] * 8, *[lambda: work(1)] * 8)

    assert (peak, done) == (2, {0: 8, 1: 8})


def test_who_is_busy_all_the_time_leaves_places_to_others(tmp_path: Path) -> None:
    missing.require_linux()
    busy, other = Places(tmp_path / "places", 1), Places(tmp_path / "places", 1)
    is_over, done = anyio.Event(), 0

    async def be_busy() -> None:
        while not is_over.is_set():
            async with busy.place(after_own=True):
                await anyio.sleep(0.02)

    async def ask() -> None:
        nonlocal done
        for _ in range(5):
            async with other.place(after_own=False):
                done += 1
        is_over.set()

    several(be_busy, ask)

    assert done == 5


def test_the_places_of_a_process_that_was_killed_are_free_at_once(tmp_path: Path) -> None:
    missing.require_linux()
    places = Places(tmp_path / "places", 1)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "places")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: S603
        assert other.stdout
        other.stdout.readline()
        taken = is_free(places)
        other.kill()

    assert (taken, is_free(places)) == (False, True)


def is_free(places: Places) -> bool:
    async def tried() -> bool:
        with anyio.move_on_after(0.1):
            async with places.place(after_own=False):
                return True
        return False

    return anyio.run(tried)


def test_where_there_is_no_lock_everybody_finds_a_place(tmp_path: Path) -> None:
    places = Places(tmp_path / "gone" / "places", 1)

    assert is_free(places)
