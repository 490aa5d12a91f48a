"""Logs: loguru for everything, and the edge that every request passes (id, access line, headers, error shape)."""

import json
import logging
import re
import sys
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import uuid4

from loguru import logger
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.errors import MEDIA_TYPE, problem_for_status, problem_response
from kit.problems import InternalError, Problem
from settings import Settings, StartRefused

if TYPE_CHECKING:
    from loguru import Message as LogMessage
    from loguru import Record

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
DEVELOPMENT_LINE = (
    "<green>{time:HH:mm:ss.SSS}</green> <level>{level: <8}</level> {message} <dim>{extra[request_id]}</dim>"
)


as_json = json.JSONEncoder(default=str).encode  # made once: `json.dumps` would make one for every line


def configure_logging(settings: Settings) -> None:
    """Make loguru the only logger: JSON lines or readable lines on standard error."""
    logger.remove()
    logger.configure(patcher=_add_request_id)
    # diagnose=False: a traceback must not print the values of variables, some of which are secrets.
    if settings.log_json:
        logger.add(_write_json, format="{message}", level=settings.log_level, diagnose=False, backtrace=False)
    else:
        logger.add(sys.stderr, format=DEVELOPMENT_LINE, level=settings.log_level, diagnose=False, backtrace=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)
    for name in ("uvicorn", "uvicorn.error", "fastapi", "alembic"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    # uvicorn's access line prints the query, and every request has our own line already.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False


def _add_request_id(record: "Record") -> None:
    record["extra"].setdefault("request_id", REQUEST_ID.get())


def _write_json(message: "LogMessage") -> None:
    """One event, one line, whatever is in it: JSON escapes every control character."""
    record = message.record
    event = {"time": record["time"].isoformat(), "level": record["level"].name, "message": record["message"]}
    event |= record["extra"]
    if record["exception"] is not None:
        event["exception"] = str(message).removeprefix(record["message"]).strip()
    sys.stderr.write(as_json(event) + "\n")


class _ToLoguru(logging.Handler):
    """Hands the records of the standard `logging` to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "INFO"
        logger.opt(exception=record.exc_info).bind(logger=record.name).log(level, "{}", record.getMessage())


class Edge:
    """The outermost ASGI layer: what every answer carries, whoever made it.

    It gives each request its id, writes the access line, adds the security headers, brings errors that were
    made outside the routes into the problem shape, and is the last resort for an exception nobody foresaw.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.headers = _security_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the start and the end of the app. Does no I/O of its own."""
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self._start_and_stop(scope, receive, send)
        else:
            await self.app(scope, receive, send)

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

    __slots__ = ("edge", "ended", "extra", "receive", "replaced", "scope", "send", "started", "status")

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        self.edge = edge
        self.scope = scope
        self.receive = receive
        self.send = send
        self.status = 0
        self.replaced = False
        self.started = self.ended = perf_counter()
        self.extra = edge.headers

    async def run(self) -> None:
        request_id = self._read_headers()
        self.scope.setdefault("state", {})["request_id"] = request_id
        token = REQUEST_ID.set(request_id)
        try:
            await self.edge.app(self.scope, self.receive, self.answer)
        except Exception as error:  # the last resort: whatever it is, it is logged once and answered as a 500
            logger.opt(exception=error).error("Unhandled {}", type(error).__name__)
            if self.status:
                return
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
        if self.scope["path"].startswith("/api/v1/auth/"):
            cache_control = (b"cache-control", b"no-store")
        if not VALID_REQUEST_ID.fullmatch(request_id):
            request_id = uuid4().hex.encode()
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
            if message["status"] >= 400 and not self.status and not _is_problem(headers):
                self.replaced = True
                await self._answer_problem(problem_for_status(message["status"]), headers)
                return
            self.status = message["status"]
            own = {name for name, _ in headers}  # such as the policy of /docs, which comes before the usual one
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
        logger.info(
            "{method} {path} {status} {duration_ms} ms",
            method=self.scope["method"],
            path=self.scope.get("raw_path", b"").decode("latin-1"),
            status=self.status,
            duration_ms=round((self.ended - self.started) * 1000, 2),
            user_id=self.scope["state"].get("user_id"),
        )


def _is_problem(headers: list[tuple[bytes, bytes]]) -> bool:
    return (b"content-type", MEDIA_TYPE.encode()) in headers


def _security_headers(settings: Settings) -> list[tuple[bytes, bytes]]:
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
