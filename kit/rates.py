"""How often one client address may come: the strict rate where credentials travel, and one for everything."""

import time
from asyncio import Semaphore
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import ceil
from typing import Any

from limits import RateLimitItem, aio, parse, strategies
from limits.storage import MemoryStorage
from loguru import logger
from starlette.types import ASGIApp, Receive, Scope, Send

from kit.errors import Credentials
from kit.middleware import HEALTH, refuse, route_path
from kit.problems import Problem, RateLimited
from kit.settings import KitSettings

REDIS_CONNECTIONS = 32
REDIS_SECONDS = 0.5


class RateLimit:
    """Counts the requests of each client address, with a stricter rate for signing in; /health always passes.

    The address is the one of the connection; behind a proxy uvicorn takes it from `X-Forwarded-For`, from the peers
    that `FORWARDED_ALLOW_IPS` names only.
    """

    def __init__(self, app: ASGIApp, settings: KitSettings, credentials: Credentials) -> None:
        self.app = app
        self.credentials = credentials
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
            await refuse(problem, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _problem(self, scope: Scope) -> Problem | None:
        path = route_path(scope)
        rates = [("auth", self.auth_rate)] if path.startswith(self.credentials.prefix) else []
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
