"""How often one client address may come: the strict rate where credentials travel, and one for everything."""

import time
from asyncio import Semaphore
from collections import OrderedDict, deque
from importlib import import_module
from math import ceil
from time import monotonic
from typing import Any

from limits import RateLimitItem, aio, parse
from loguru import logger
from starlette.types import ASGIApp, Receive, Scope, Send

from kit.auth import client_address
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
        longest = max(rate.get_expiry() for rate in (self.auth_rate, self.rate) if rate)
        self.count = MemoryCount(longest) if storage == "memory://" else RedisCount(storage)

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
        is_strict = path.startswith(self.credentials.prefix) or (
            scope["method"] == "POST" and path.startswith(self.credentials.forms)
        )
        rates = [("auth", self.auth_rate)] if is_strict else []
        rates += [("all", self.rate)] if self.rate and path != HEALTH else []
        for name, rate in rates:
            if (seconds := await self.count.seconds_to_wait(rate, name, client_address(scope))) > 0:
                return RateLimited(ceil(seconds))
        return None


class MemoryCount:
    """Counts in this process, by a clock that nobody can set.

    The memory of `limits` goes by the time of day, and walks through all addresses again and again.
    """

    def __init__(self, longest_window: int) -> None:
        self.longest_window = longest_window  # seconds, after which an address is forgotten
        self.times: OrderedDict[tuple[str, ...], deque[float]] = OrderedDict()  # the address that came last is last

    async def seconds_to_wait(self, rate: RateLimitItem, *names: str) -> float:
        """Count one more; 0 where the rate allows it. Does no I/O."""
        now, window = monotonic(), rate.get_expiry()
        times = self.times.setdefault(names, deque(maxlen=rate.amount))
        if len(times) == rate.amount and times[0] > now - window:
            return times[0] + window - now
        times.append(now)
        self.times.move_to_end(names)
        while next(iter(self.times.values()))[-1] < now - self.longest_window:
            self.times.popitem(last=False)
        return 0

    async def close(self) -> None:
        """There is nothing to give back."""


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
            if monotonic() < self.silent_until:
                return 0
            try:
                if await self.limiter.hit(rate, *names):
                    return 0
                return (await self.limiter.get_window_stats(rate, *names)).reset_time - time.time()
            except self.storage.base_exceptions as error:
                logger.warning("The rate limits cannot be counted: {}", error)
                self.silent_until = monotonic() + 1
                return 0

    async def close(self) -> None:
        """Give back the connections."""
        await self.pool.disconnect()
