"""What a request must pass before the app looks at it: its host, how many are under way, and how often it comes."""

import re
import signal
import time
from types import FrameType

from limits import RateLimitItem, aio, parse, strategies
from limits.storage import MemoryStorage
from loguru import logger
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Server

from errors import problem_response
from problems import DatabaseBusy, HostNotAllowed, Problem, RateLimited
from settings import Settings

HOST_AND_PORT = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:\[\]/@]+)(?::[0-9]{1,5})?")
AUTH = "/api/v1/auth/"
MOST_UNDER_WAY = 1_000  # about a second of work; whoever comes later would only wait for a time-out
LAST_SECONDS = 15


class HostGate:
    """Answers only to the hosts that the settings list; `*.example.com` stands for every name below it."""

    def __init__(self, app: ASGIApp, allowed_hosts: list[str]) -> None:
        self.app = app
        self.names = {host.lower() for host in allowed_hosts}
        self.endings = tuple(host[1:].lower() for host in allowed_hosts if host.startswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it. Does no I/O of its own."""
        if scope["type"] != "http" or self.serves(Headers(scope=scope).get("host", "")):
            await self.app(scope, receive, send)
        else:
            await _refuse(HostNotAllowed(), scope, receive, send)

    def serves(self, host: str) -> bool:
        """Whether a `Host` header, with or without a port, names one of the hosts."""
        match = HOST_AND_PORT.fullmatch(host.lower())
        return match is not None and (match[1] in self.names or match[1].endswith(self.endings))


class QueueGate:
    """Lets a bounded number of requests wait for their turn, and refuses the rest at once; /health always passes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it. Does no I/O of its own."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self.app(scope, receive, send)
        elif self.under_way >= MOST_UNDER_WAY:
            await _refuse(DatabaseBusy(), scope, receive, send)
        else:
            self.under_way += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self.under_way -= 1


class RateGate:
    """Counts the requests of each client address, with a stricter rate for signing in.

    The address is the one of the connection; behind a proxy uvicorn takes it from `X-Forwarded-For`, from the peers
    that `FORWARDED_ALLOW_IPS` names only. A storage that does not answer lets everybody pass, and says so in the log:
    the count of failed sign-ins, which is in the database, still stands.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.auth_rate = parse(settings.auth_rate_limit)
        self.rate = parse(settings.rate_limit) if settings.rate_limit else None
        self.storage = settings.rate_limit_storage
        self.limiter = _limiter(settings.rate_limit_storage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; a shared count is asked for without blocking."""
        if scope["type"] == "http" and (problem := await self._problem(scope)):
            await _refuse(problem, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _problem(self, scope: Scope) -> Problem | None:
        address = scope["client"][0] if scope["client"] else ""
        rates = [("auth", self.auth_rate)] if scope["path"].startswith(AUTH) else []
        rates += [("all", self.rate)] if self.rate else []
        for name, rate in rates:
            if seconds := await self._seconds_to_wait(rate, name, address):
                return RateLimited(seconds)
        return None

    async def _seconds_to_wait(self, rate: RateLimitItem, *names: str) -> int:
        # The memory is asked here, on the event loop, because it is not safe to ask it from several threads.
        if isinstance(self.limiter, strategies.RateLimiter):
            if self.limiter.hit(rate, *names):
                return 0
            reset_time = self.limiter.get_window_stats(rate, *names).reset_time
        else:
            try:
                if await self.limiter.hit(rate, *names):
                    return 0
                reset_time = (await self.limiter.get_window_stats(rate, *names)).reset_time
            except self.limiter.storage.base_exceptions as error:
                logger.warning("The rate limits cannot be counted: {}", error)
                return 0
        return max(1, round(reset_time - time.time()))


def _limiter(storage: str) -> strategies.RateLimiter | aio.strategies.RateLimiter:
    if storage == "memory://":
        return strategies.MovingWindowRateLimiter(MemoryStorage())
    redis = aio.storage.RedisStorage(f"async+{storage}", implementation="redispy")
    return aio.strategies.MovingWindowRateLimiter(redis)


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    await problem_response(Request(scope), problem)(scope, receive, send)


def end_in_time() -> None:
    """Bound the time between SIGTERM and the end of the process, and let it end with code 0.

    uvicorn finishes what it accepted, and by default waits for it for ever: one client that never sends the rest of
    its body would keep the process alive. `--timeout-graceful-shutdown` still has the last word.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, Server):
        return
    if server.config.timeout_graceful_shutdown is None:
        server.config.timeout_graceful_shutdown = LAST_SECONDS

    def ask(_number: int, frame: FrameType | None) -> None:
        if not server.should_exit:  # asked twice, it would cut off what it should finish
            server.handle_exit(signal.SIGINT, frame)  # SIGTERM it would raise again at the end, and die of it

    signal.signal(signal.SIGTERM, ask)
