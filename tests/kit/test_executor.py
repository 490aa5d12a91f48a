"""Executors: work is done in order, so many at once, and everybody gets what their own work gave."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from time import monotonic, sleep

import pytest
from anyio import to_thread

import kit.executor
from kit.executor import Executor
from kit.problems import DatabaseBusy

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")

PATIENCE = 10  # seconds

pytestmark = pytest.mark.anyio


async def test_everybody_gets_what_their_own_work_gave() -> None:
    executor = Executor(2)

    found = await asyncio.gather(*(executor.run(lambda number=number: number * number) for number in range(500)))

    assert found == [number * number for number in range(500)]


async def test_an_executor_of_one_does_one_thing_after_the_other_in_the_order_of_asking() -> None:
    executor, done = Executor(1), list[int]()

    def work(number: int) -> None:
        sleep(0.0005)
        done.append(number)

    await asyncio.gather(*(executor.run(lambda number=number: work(number)) for number in range(50)))

    assert done == list(range(50))


async def test_no_more_is_done_at_once_than_the_executor_is_wide() -> None:
    executor, at_work, most = Executor(3), set[int](), list[int]()

    def work() -> None:
        at_work.add(threading.get_ident())
        most.append(len(at_work))
        sleep(0.001)
        at_work.discard(threading.get_ident())

    await asyncio.gather(*(executor.run(work) for _ in range(60)))

    assert max(most) == 3


async def test_those_who_wait_hold_no_thread() -> None:
    executor, gate = Executor(1), threading.Event()
    waiting = [asyncio.create_task(executor.run(gate.wait)) for _ in range(200)]
    await asyncio.sleep(0.05)

    assert await to_thread.run_sync(lambda: "a thread is free") == "a thread is free"
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 200


class Odd(BaseException):
    """Not even an `Exception`."""


@pytest.mark.parametrize(
    ("error", "raised"),
    [(ValueError("no"), ValueError), (Odd(), Odd), (StopIteration(), RuntimeError)],  # as from any coroutine
)
async def test_an_error_reaches_whoever_asked_and_nobody_else(
    error: BaseException, raised: type[BaseException]
) -> None:
    executor = Executor(1)

    def fail() -> None:
        raise error

    other = asyncio.create_task(executor.run(lambda: "done"))
    with pytest.raises(raised):
        await executor.run(fail)

    assert await other == "done"
    assert await executor.run(lambda: "still at work") == "still at work"


async def test_work_that_nobody_waits_for_any_more_is_not_begun() -> None:
    executor, gate, done = Executor(1), threading.Event(), list[str]()
    first = asyncio.create_task(executor.run(gate.wait))
    second = asyncio.create_task(executor.run(lambda: done.append("second")))
    third = asyncio.create_task(executor.run(lambda: done.append("third")))
    await asyncio.sleep(0.01)

    second.cancel()
    gate.set()
    await first
    await third

    assert done == ["third"]
    assert second.cancelled()


@pytest.mark.parametrize("group", [None, nullcontext])
async def test_what_waits_for_somebody_who_is_gone_is_dropped(
    monkeypatch: pytest.MonkeyPatch, group: Callable[[], AbstractContextManager[None]] | None
) -> None:
    monkeypatch.setattr(kit.executor, "LOOK_INTERVAL", 0)
    executor, gate, done = Executor(1, group), threading.Event(), list[str]()

    def is_gone(name: str) -> Callable[[], Awaitable[bool]]:
        async def is_gone() -> bool:
            return name == "max"

        return is_gone

    def work(name: str) -> None:
        done.append(name)

    first = asyncio.create_task(executor.run(gate.wait))
    names = ["ada", "max", "eva", "max"]
    others = [asyncio.create_task(executor.run(partial(work, name), is_gone(name))) for name in names]
    dropped = await asyncio.wait_for(asyncio.gather(others[1], others[3], return_exceptions=True), PATIENCE)
    gate.set()
    await asyncio.gather(first, others[0], others[2])

    assert [type(error) for error in dropped] == [DatabaseBusy, DatabaseBusy]
    assert done == ["ada", "eva"]


async def test_whoever_leaves_while_a_group_waits_for_its_lock_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit.executor, "LOOK_INTERVAL", 0)
    began, lock, left, done = threading.Event(), threading.Event(), threading.Event(), list[int]()

    @contextmanager
    def group() -> Generator[None]:
        began.set()
        lock.wait(PATIENCE)
        yield

    async def is_gone() -> bool:
        return left.is_set()

    executor = Executor(1, group)
    waiting = [asyncio.create_task(executor.run(partial(done.append, number), is_gone)) for number in range(5)]
    await to_thread.run_sync(began.wait)
    left.set()
    errors = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE)
    lock.set()

    assert [type(error) for error in errors] == [DatabaseBusy] * 5
    assert done == []


async def test_work_runs_in_the_context_of_whoever_asks() -> None:
    executor = Executor(1)

    async def ask(name: str) -> str:
        NAME.set(name)
        return await executor.run(NAME.get)

    assert await asyncio.gather(*(ask(name) for name in ("ada", "max", "eva"))) == ["ada", "max", "eva"]


@pytest.mark.parametrize("width", [1, 2])
async def test_what_is_finished_does_not_wait_for_what_takes_long(width: int) -> None:
    executor, began, gate = Executor(width), monotonic(), threading.Event()
    first = [asyncio.create_task(executor.run(lambda: "quick")) for _ in range(20)]
    last = [asyncio.create_task(executor.run(lambda: gate.wait(PATIENCE))) for _ in range(width)]

    assert await asyncio.gather(*first) == ["quick"] * 20
    assert monotonic() - began < PATIENCE
    assert not any(task.done() for task in last)
    gate.set()
    assert await asyncio.gather(*last) == [True] * width


async def test_an_executor_without_a_thread_fails_what_waits_and_goes_on_when_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    executor = Executor(1)
    with monkeypatch.context() as patched:
        patched.setattr("anyio._backends._asyncio.WorkerThread.start", refuse)
        failed = await asyncio.gather(*(executor.run(lambda: "done") for _ in range(3)), return_exceptions=True)

    assert [str(error) for error in failed] == ["can't start new thread"] * 3
    assert await executor.run(lambda: "done") == "done"
