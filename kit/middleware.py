"""What a request must pass before the app looks at it: its host, how many are under way, and how often it comes."""

import re
import signal
import sys
import time
from asyncio import Semaphore
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import ceil
from types import FrameType
from typing import Any

from limits import RateLimitItem, aio, parse, strategies
from limits.storage import MemoryStorage
from loguru import logger
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Server

from kit.errors import problem_response
from kit.problems import DatabaseBusy, HostNotAllowed, Problem, RateLimited
from settings import Settings

if sys.platform == "linux":
    import resource

HOST_AND_PORT = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
AUTH = "/api/v1/auth/"
HEALTH = "/health"
MOST_UNDER_WAY = 1_000  # some seconds of work; whoever comes later would only wait for a time-out
REDIS_CONNECTIONS = 32
REDIS_SECONDS = 0.5
LAST_SECONDS = 15


class HostGate:
    """Answers only to the hosts that the settings list; `*.example.com` stands for every name below it."""

    def __init__(self, app: ASGIApp, allowed_hosts: list[str]) -> None:
        self.app = app
        self.names = {host.lower() for host in allowed_hosts}
        self.endings = tuple(host[1:].lower() for host in allowed_hosts if host.startswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it. Does no I/O of its own."""
        # Of two hosts a proxy may have taken the other one (RFC 9112, 3.2).
        if scope["type"] != "http" or self.serves(", ".join(Headers(scope=scope).getlist("host"))):
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
        self.under_way: set[object] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it. Does no I/O of its own."""
        if scope["type"] != "http" or _path(scope) == HEALTH:
            await self.app(scope, receive, send)
        elif len(self.under_way) >= MOST_UNDER_WAY:
            await _refuse(DatabaseBusy(), scope, receive, send)
        else:
            await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.under_way.add(request := object())

        async def count_out(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.under_way.discard(request)  # here and not below: mail that is sent after the answer may take long

        try:
            await self.app(scope, receive, count_out)
        finally:
            self.under_way.discard(request)


class RateGate:
    """Counts the requests of each client address, with a stricter rate for signing in; /health always passes.

    The address is the one of the connection; behind a proxy uvicorn takes it from `X-Forwarded-For`, from the peers
    that `FORWARDED_ALLOW_IPS` names only.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.auth_rate = parse(settings.auth_rate_limit)
        self.rate = parse(settings.rate_limit) if settings.rate_limit else None
        storage = settings.rate_limit_storage
        self.count = MemoryCount() if storage == "memory://" else RedisCount(storage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; a shared count is asked for without blocking."""
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            finally:
                await self.count.close()
        elif scope["type"] == "http" and (problem := await self._problem(scope)):
            await _refuse(problem, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _problem(self, scope: Scope) -> Problem | None:
        path = _path(scope)
        rates = [("auth", self.auth_rate)] if path.startswith(AUTH) else []
        rates += [("all", self.rate)] if self.rate and path != HEALTH else []
        for name, rate in rates:
            if (seconds := await self.count.seconds_to_wait(rate, name, _client(scope))) > 0:
                return RateLimited(ceil(seconds))
        return None


class MemoryCount:
    """Counts in this process, on the event loop: it is not safe to ask the memory from several threads."""

    def __init__(self) -> None:
        self.limiter = strategies.MovingWindowRateLimiter(ForgetfulMemory())

    async def seconds_to_wait(self, rate: RateLimitItem, *names: str) -> float:
        """Count one more; 0 where the rate allows it. Does no I/O."""
        if self.limiter.hit(rate, *names):
            return 0
        return self.limiter.get_window_stats(rate, *names).reset_time - time.time()

    async def close(self) -> None:
        """There is nothing to give back."""


class ForgetfulMemory(MemoryStorage):
    """The memory of `limits` keeps every name that it ever heard, and walks through all of them again and again."""

    most_names = 1_000

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count, if the limit allows it; names whose entries have all expired are forgotten from time to time."""
        if len(self.events) > self.most_names:
            for name in [name for name, entries in self.events.items() if not entries]:
                del self.events[name]
            self.most_names = 2 * len(self.events) + 1_000
        return super().acquire_entry(key, limit, expiry, amount)


class RedisCount:
    """Counts in Redis, for all processes and machines that share it.

    Where it does not answer, everybody passes, and the log says so: the count of failed sign-ins, which is in the
    database, still stands. It is asked again after a second, so that its time-outs do not add up.
    """

    def __init__(self, url: str) -> None:
        redis: Any = import_module("redis.asyncio")  # Any: the package is optional
        limits = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
        self.pool = redis.ConnectionPool.from_url(url, max_connections=REDIS_CONNECTIONS, **limits)
        self.turns = Semaphore(REDIS_CONNECTIONS)  # the pool itself would refuse whoever comes when all are taken
        self.storage = aio.storage.RedisStorage(f"async+{url}", implementation="redispy", connection_pool=self.pool)
        self.limiter = aio.strategies.MovingWindowRateLimiter(self.storage)
        self.silent_until = 0.0

    async def seconds_to_wait(self, rate: RateLimitItem, *names: str) -> float:
        """Count one more; 0 where the rate allows it, and where Redis is gone."""
        async with self.turns:
            if time.monotonic() < self.silent_until:
                return 0
            try:
                if await self.limiter.hit(rate, *names):
                    return 0
                return (await self.limiter.get_window_stats(rate, *names)).reset_time - time.time()
            except self.storage.base_exceptions as error:
                logger.warning("The rate limits cannot be counted: {}", error)
                self.silent_until = time.monotonic() + 1
                return 0

    async def close(self) -> None:
        """Give back the connections."""
        await self.pool.disconnect()


def _path(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _client(scope: Scope) -> str:
    """The address that is counted; of IPv6 its network, because whoever has one address has all 2^64 of it."""
    host: str = scope["client"][0] if scope["client"] else ""
    try:
        address = ip_address(host)
    except ValueError:  # the path of a socket, or whatever else a trusted proxy calls its client
        return host
    if isinstance(address, IPv4Address):
        return host
    return str(address.ipv4_mapped or IPv6Address(address.packed[:8] + bytes(8)))


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    await problem_response(Request(scope), problem)(scope, receive, send)


def open_many_files() -> None:
    """Let the process have as many files open as it may: the usual 1,024 are used up by `MOST_UNDER_WAY` connections.

    Connections beyond are reset without an answer, those that ask for /health included.
    """
    if sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
