"""Executors: threads of FastAPI's pool that do the work of one request after another."""

from asyncio import AbstractEventLoop, Future, Task, TimerHandle, get_running_loop
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from kit.problems import Problem

Result = TypeVar("Result")

REPORT_INTERVAL = 0.002  # seconds
MAX_GROUP_SIZE = 16
MAX_GROUP_SECONDS = 0.05  # until the last job of a group begins


@dataclass(slots=True)
class Job:
    """A piece of work, the context in which it runs, the future that its caller awaits, and what came of it."""

    work: Callable[[], Any]
    context: Context
    future: Future[None]
    result: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        """Do the work; an error, whatever it is, belongs to the caller."""
        try:
            self.result = self.context.run(self.work)
        except BaseException as error:
            self.error = error

    def undo(self, error: BaseException) -> None:
        """Take back what was done; a job that failed by itself keeps its own error, unless its changes should stay."""
        if self.error is None or (isinstance(self.error, Problem) and self.error.keeps_changes):
            self.error = error


class Executor:
    """Runs up to `width` jobs at once; the others wait for their turn without holding a thread.

    A worker thread takes the next waiting job by itself. It wakes the event loop only when no job waits any more;
    until then the loop collects finished jobs every two milliseconds. Waking the loop after each job costs a busy
    process a third of its speed.

    With `group`, jobs that wait together run in groups, each group inside one such context. The outcome of a job is
    reported after its context has ended; if ending it raises, that error is the outcome of every job of the group.
    """

    def __init__(self, width: int, group: Callable[[], AbstractContextManager[None]] | None = None) -> None:
        self.group = group
        self.limiter = CapacityLimiter(width)
        self.waiting: deque[Job] = deque()
        self.done: deque[Job] = deque()
        self.workers: set[Task[None]] = set()
        self.timer: TimerHandle | None = None

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do `work` in a thread, in the order of asking; return its result or raise its error. Does no I/O itself."""
        loop = get_running_loop()
        job = Job(work, copy_context(), loop.create_future())
        self.waiting.append(job)
        self._start_workers(loop)
        await job.future
        if job.error is not None:
            raise job.error
        return job.result

    def _start_workers(self, loop: AbstractEventLoop) -> None:
        if self.waiting and self.workers and self.timer is None:  # a worker may take a job before it reports the last
            self.timer = loop.call_later(REPORT_INTERVAL, self._report_soon, loop)
        if self.waiting and len(self.workers) < self.limiter.total_tokens:
            worker = loop.create_task(to_thread.run_sync(self._drain, loop, limiter=self.limiter))
            self.workers.add(worker)
            worker.add_done_callback(self._on_worker_end)

    def _on_worker_end(self, worker: "Task[None]") -> None:
        self.workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None and self.waiting:  # the system has no thread for us
            job = self.waiting.popleft()
            job.error = error
            self.done.append(job)
        self._report()
        self._start_workers(worker.get_loop())  # for a job that came after the worker had looked for the last time

    def _report_soon(self, loop: AbstractEventLoop) -> None:
        # For as long as a worker runs: what it has finished must not wait for what it does now.
        self.timer = loop.call_later(REPORT_INTERVAL, self._report_soon, loop) if self.workers else None
        self._report()

    def _drain(self, loop: AbstractEventLoop) -> None:
        """Run jobs in a worker thread until none waits."""
        while self.waiting:
            self._run_group(self._next_group())
            if not self.waiting:
                loop.call_soon_threadsafe(self._report)

    def _next_group(self) -> deque[Job]:
        jobs: deque[Job] = deque()
        with suppress(IndexError):  # another worker took the last one
            while len(jobs) < (1 if self.group is None else MAX_GROUP_SIZE):
                job = self.waiting.popleft()
                if not job.future.cancelled():
                    jobs.append(job)
        return jobs

    def _run_group(self, jobs: deque[Job]) -> None:
        done: list[Job] = []
        try:
            with self.group() if self.group and len(jobs) > 1 else nullcontext():
                end = monotonic() + MAX_GROUP_SECONDS
                while jobs and (not done or monotonic() < end):
                    done.append(jobs.popleft())
                    done[-1].run()
        except BaseException as error:
            if not done:  # the group could not begin
                done, jobs = [*jobs], deque()
            for job in done:
                job.undo(error)
        self.waiting.extendleft(reversed(jobs))
        self.done.extend(done)

    def _report(self) -> None:
        while self.done:
            job = self.done.popleft()
            if not job.future.cancelled():
                job.future.set_result(None)
