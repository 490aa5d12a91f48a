"""Lanes: threads of FastAPI's pool that do the work of one request after another."""

from asyncio import AbstractEventLoop, Future, Task, TimerHandle, get_running_loop
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread

from kit.problems import Problem

Result = TypeVar("Result")

TELL_WITHIN = 0.002  # seconds
MOST_IN_ONE = 16
LONGEST_GROUP = 0.05  # seconds until the last of a group begins


class Outcome(NamedTuple):
    """What came of a piece of work."""

    result: Any
    error: BaseException | None


class Job(NamedTuple):
    """A piece of work, and who waits for it."""

    future: Future[Outcome]
    context: Context
    work: Callable[[], Any]


class Lane:
    """Does so many pieces of work at once; the others wait for their turn without holding a thread.

    A thread that is at work takes what waits next by itself, and the event loop hears of what is finished when nothing
    waits any more, or within two milliseconds. To go to the loop and back after every piece wakes another core each
    time, and costs a busy process a third of its speed.

    With `in_one`, what waits together is done in groups, each within that context. Nobody hears of their own work
    before their context has ended, and where ending it raises, that is what they hear.
    """

    def __init__(self, width: int, in_one: Callable[[], AbstractContextManager[None]] | None = None) -> None:
        self.in_one = in_one
        self.limiter = CapacityLimiter(width)
        self.waiting: deque[Job] = deque()
        self.done: deque[tuple[Job, Outcome]] = deque()
        self.threads: set[Task[None]] = set()
        self.timer: TimerHandle | None = None

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do `work` in a thread, in the order of asking, and return or raise what it does. Does no I/O itself."""
        loop = get_running_loop()
        job = Job(loop.create_future(), copy_context(), work)
        self.waiting.append(job)
        if self.threads and self.timer is None:  # one of them may take it instead of telling what it has finished
            self.timer = loop.call_later(TELL_WITHIN, self._look, loop)
        self._see_to_threads(loop)
        result, error = await job.future
        if error is not None:
            raise error
        return result

    def _see_to_threads(self, loop: AbstractEventLoop) -> None:
        if self.waiting and len(self.threads) < self.limiter.total_tokens:
            thread = loop.create_task(to_thread.run_sync(self._work_off, loop, limiter=self.limiter))
            self.threads.add(thread)
            thread.add_done_callback(self._leave)

    def _leave(self, thread: "Task[None]") -> None:
        self.threads.discard(thread)
        error = None if thread.cancelled() else thread.exception()
        if error is not None and self.waiting:  # the system has no thread for us
            self.done.append((self.waiting.popleft(), Outcome(None, error)))
        self._tell()
        self._see_to_threads(thread.get_loop())  # for what came when it had just looked

    def _look(self, loop: AbstractEventLoop) -> None:
        # What is finished after this line, with nothing waiting, is told by its thread.
        self.timer = loop.call_later(TELL_WITHIN, self._look, loop) if self.waiting else None
        self._tell()

    def _work_off(self, loop: AbstractEventLoop) -> None:
        while self.waiting:
            self._do(self._next())
            if not self.waiting:
                loop.call_soon_threadsafe(self._tell)

    def _next(self) -> deque[Job]:
        jobs: deque[Job] = deque()
        with suppress(IndexError):  # another thread was faster
            while len(jobs) < (1 if self.in_one is None else MOST_IN_ONE):
                job = self.waiting.popleft()
                if not job.future.cancelled():
                    jobs.append(job)
        return jobs

    def _do(self, jobs: deque[Job]) -> None:
        done: list[tuple[Job, Outcome]] = []
        try:
            with self.in_one() if self.in_one and len(jobs) > 1 else nullcontext():
                end = monotonic() + LONGEST_GROUP
                while jobs and (not done or monotonic() < end):
                    job = jobs.popleft()
                    done.append((job, _outcome(job)))
        except BaseException as error:
            if not done:  # it could not begin
                done, jobs = [(job, Outcome(None, error)) for job in jobs], deque()
            else:  # nothing that was done is kept
                done = [(job, _undone(outcome, error)) for job, outcome in done]
        self.waiting.extendleft(reversed(jobs))
        self.done.extend(done)

    def _tell(self) -> None:
        while self.done:
            job, outcome = self.done.popleft()
            if not job.future.cancelled():
                job.future.set_result(outcome)


def _outcome(job: Job) -> Outcome:
    try:
        return Outcome(job.context.run(job.work), None)
    except BaseException as error:  # whatever it is, it belongs to whoever waits
        return Outcome(None, error)


def _undone(outcome: Outcome, error: BaseException) -> Outcome:
    # Whoever failed hears of that, unless their changes should have been kept all the same.
    keeps_changes = isinstance(outcome.error, Problem) and outcome.error.keeps_changes
    return outcome if outcome.error and not keeps_changes else Outcome(None, error)
