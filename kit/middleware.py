"""What every request passes before the app looks at it, and what every answer carries. Plain ASGI, outermost first."""

import re
import sys
from time import perf_counter
from uuid import uuid4

from loguru import logger
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.errors import MEDIA_TYPE, Credentials, problem_for_status, problem_response
from kit.logs import REQUEST_ID
from kit.problems import DatabaseBusy, HostNotAllowed, InternalError, Problem
from kit.settings import KitSettings, StartRefused

VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
HOST_AND_PORT = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
HEALTH = "/health"
NO_REFERRER = (b"referrer-policy", b"no-referrer")
OUR_TYPES = {(b"content-type", MEDIA_TYPE.encode()), (b"content-type", b"text/html; charset=utf-8")}
MAX_IN_FLIGHT = 1_000  # some seconds of work; more would only wait for a time-out


class RequestContext:
    """The outermost ASGI layer: what every answer carries, whoever made it.

    It gives each request its id, writes the access line, adds the security headers, brings errors that were
    made outside the routes into the problem shape, and is the last resort for an exception nobody foresaw.
    """

    def __init__(self, app: ASGIApp, settings: KitSettings, credentials: Credentials) -> None:
        self.app = app
        self.credentials = credentials
        self.headers = _security_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the start and the end of the app. Does no I/O of its own."""
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self._start_and_stop(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def secret_start(self, scope: Scope) -> str:
        """How the path begins, if it ends with a secret."""
        return next((start for start in self.credentials.secret_paths if scope["path"].startswith(start)), "")

    async def _start_and_stop(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A start that is refused says its sentence instead of a traceback."""

        async def plainly(message: Message) -> None:
            error = sys.exc_info()[1]
            if message["type"] == "lifespan.startup.failed" and isinstance(error, StartRefused):
                message["message"] = str(error)
            await send(message)

        await self.app(scope, receive, plainly)


class _Exchange:
    """One request and its answer."""

    def __init__(self, context: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
        self.context = context
        self.scope = scope
        self.receive = receive
        self.send = send
        self.status = 0
        self.replaced = False
        self.started = self.ended = perf_counter()
        self.extra = context.headers

    async def run(self) -> None:
        request_id = self._read_headers()
        self.scope.setdefault("state", {})["request_id"] = request_id
        token = REQUEST_ID.set(request_id)
        try:
            await self.context.app(self.scope, self.receive, self.answer)
        except Exception as error:  # the last resort: whatever it is, it is logged once and answered as a 500
            logger.opt(exception=error).error("Unhandled {}", type(error).__name__)
            if not self.status:
                await self._answer_problem(InternalError(), [])
        finally:
            self._log()
            REQUEST_ID.reset(token)

    def _read_headers(self) -> str:
        """Find the request id, and what may be cached of the answer."""
        request_id = b""
        cache_control: tuple[bytes, bytes] | None = None
        for name, value in self.scope["headers"]:
            if name == b"x-request-id":
                request_id = value
            elif name == b"authorization":
                cache_control = (b"cache-control", b"private, no-cache")
        if self.scope["path"].startswith(self.context.credentials.prefix):
            cache_control = (b"cache-control", b"no-store")
        if not VALID_REQUEST_ID.fullmatch(request_id):
            request_id = uuid4().hex.encode()
        if self.context.secret_start(self.scope):
            self.extra = [header for header in self.extra if header[0] != b"referrer-policy"] + [NO_REFERRER]
        self.extra = [*self.extra, (b"x-request-id", request_id)]
        if cache_control:
            self.extra.append(cache_control)
        return request_id.decode()

    async def answer(self, message: Message) -> None:
        """Pass an answer on, with the headers that all answers have."""
        if self.replaced:
            return
        if message["type"] == "http.response.start":
            headers: list[tuple[bytes, bytes]] = list(message["headers"])
            is_ours = not OUR_TYPES.isdisjoint(headers)
            if message["status"] >= 400 and not self.status and not is_ours:
                self.replaced = True
                await self._answer_problem(problem_for_status(message["status"]), headers)
                return
            self.status = message["status"]
            own = {name for name, _ in headers}  # such as the policy of /docs, which is not the usual one
            message["headers"] = headers + [header for header in self.extra if header[0] not in own]
        elif not message.get("more_body", False):
            self.ended = perf_counter()
        await self.send(message)

    async def _answer_problem(self, problem: Problem, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer with `problem`, keeping what `headers` say besides the length and type of another body."""
        response = problem_response(Request(self.scope), problem)
        response.raw_headers += [header for header in headers if header[0] not in (b"content-length", b"content-type")]
        self.status = problem.status
        response.raw_headers += self.extra
        await response(self.scope, self.receive, self.send)
        self.ended = perf_counter()

    def _log(self) -> None:
        secret = self.context.secret_start(self.scope)
        logger.info(
            "{method} {path} {status} {duration_ms} ms",
            method=self.scope["method"],
            path=f"{secret}…" if secret else self.scope.get("raw_path", b"").decode("latin-1"),
            status=self.status,
            duration_ms=round((self.ended - self.started) * 1000, 2),
            user_id=self.scope["state"].get("user_id"),
        )


def _security_headers(settings: KitSettings) -> list[tuple[bytes, bytes]]:
    policy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
    headers = {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "strict-origin-when-cross-origin",
        "cross-origin-opener-policy": "same-origin",
        "content-security-policy": policy,
    }
    if settings.environment == "production":
        headers["strict-transport-security"] = "max-age=31536000; includeSubDomains"
    return [(name.encode(), value.encode()) for name, value in headers.items()]


class HostMiddleware:
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
            await refuse(HostNotAllowed(), scope, receive, send)

    def serves(self, host: str) -> bool:
        """Whether a `Host` header, with or without a port, names one of the hosts."""
        match = HOST_AND_PORT.fullmatch(host.lower())
        return match is not None and (match[1] in self.names or match[1].endswith(self.endings))


class ConcurrencyLimit:
    """Lets a bounded number of requests wait for their turn, and refuses the rest at once; /health always passes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.in_flight: set[object] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it. Does no I/O of its own."""
        if scope["type"] != "http" or route_path(scope) == HEALTH:
            await self.app(scope, receive, send)
        elif len(self.in_flight) >= MAX_IN_FLIGHT:
            await refuse(DatabaseBusy(), scope, receive, send)
        else:
            await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.in_flight.add(request := object())

        async def count_out(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.in_flight.discard(request)  # here and not below: mail that is sent after the answer may take long

        try:
            await self.app(scope, receive, count_out)
        finally:
            self.in_flight.discard(request)


def route_path(scope: Scope) -> str:
    """The path below the one at which the app is mounted."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem."""
    await problem_response(Request(scope), problem)(scope, receive, send)
