"""Errors: the one shape of RFC 9457, and the handlers that bring every exception into it."""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from loguru import logger
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, IntegrityError, NoResultFound, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kit import problems as faults
from kit.problems import BROKEN_CONSTRAINTS, Problem
from kit.sqlite import SQLITE
from kit.strict import UnreadableBody

MEDIA_TYPE = "application/problem+json"
Responses = dict[int | str, dict[str, Any]]


@dataclass(frozen=True)
class Credentials:
    """Where passwords and tokens travel, which the machinery treats more strictly; made once, by the app's `auth`."""

    prefix: str
    """Requests below this path have the strict rate, and their answers are never stored."""

    token_path: str
    """The token endpoint of OAuth 2: its errors also have that standard's members."""

    sign_in: str = "/sign-in"
    """The page to which whoever is not signed in is sent."""

    forms: tuple[str, ...] = ()
    """Where these paths begin, what is posted by a page has the strict rate, too."""

    secret_paths: tuple[str, ...] = ()
    """Where these paths begin, what follows is a secret, and is not in the log."""


class ProblemDetails(BaseModel):
    """The body of every error (RFC 9457); a client decides by `error_code`, a person reads `detail`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    error_code: str
    request_id: str
    errors: list[dict[str, Any]] | None = None


# SQLite's primary result codes, https://sqlite.org/rescode.html, and PostgreSQL's SQLSTATEs and their classes,
# https://www.postgresql.org/docs/current/errcodes-appendix.html; anything else is the app's own fault.
DATABASE_PROBLEMS: dict[int | str, type[Problem]] = {
    5: faults.DatabaseBusy,  # SQLITE_BUSY
    6: faults.DatabaseBusy,  # SQLITE_LOCKED
    8: faults.DatabaseUnavailable,  # SQLITE_READONLY
    9: faults.DatabaseBusy,  # SQLITE_INTERRUPT: the statement took longer than APP_STATEMENT_SECONDS
    10: faults.DatabaseUnavailable,  # SQLITE_IOERR
    11: faults.DatabaseUnavailable,  # SQLITE_CORRUPT
    13: faults.StorageFull,  # SQLITE_FULL
    14: faults.DatabaseUnavailable,  # SQLITE_CANTOPEN
    15: faults.DatabaseBusy,  # SQLITE_PROTOCOL
    26: faults.DatabaseUnavailable,  # SQLITE_NOTADB
    "08": faults.DatabaseUnavailable,  # the connection broke
    "25006": faults.DatabaseUnavailable,  # read-only: the server is not the primary any more
    "40": faults.DatabaseBusy,  # serialization failure, deadlock
    "53": faults.DatabaseBusy,  # insufficient resources, such as connections
    "53100": faults.StorageFull,  # disk full
    "55": faults.DatabaseBusy,  # lock not available
    "57": faults.DatabaseUnavailable,  # admin shutdown, cannot connect now
    "57014": faults.DatabaseBusy,  # the statement took longer than APP_STATEMENT_SECONDS
}


def database_problem(error: BaseException | None) -> Problem | None:
    """The problem behind an error of the database or its driver, or None where it is the app's own fault."""
    if isinstance(error, DBAPIError):
        error = error.orig
    if hasattr(error, "sqlstate"):  # PostgreSQL's; None where the server was never reached
        state: str = getattr(error, "sqlstate") or "08"  # noqa: B009 - psycopg's errors have it, BaseException does not
        problem = DATABASE_PROBLEMS.get(state) or DATABASE_PROBLEMS.get(state[:2])
    else:
        problem = DATABASE_PROBLEMS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    return problem() if problem else None


def shows_pages(request: Request) -> bool:
    """Whether an error is answered as a page: outside the API, to clients that name HTML among what they accept."""
    accepted = [part.replace(" ", "") for part in request.headers.get("accept", "").lower().split(",")]
    named = [part for part in accepted if part.partition(";")[0] == "text/html" and not part.endswith(";q=0")]
    return bool(named) and not request.scope["path"].startswith("/api/")


def problem_response(request: Request, problem: Problem) -> Response:
    """The one place where an error body is made."""
    if shows_pages(request):
        return request.app.problem_page(request, problem)
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "error_code": problem.code,
        "request_id": request.scope.get("state", {}).get("request_id", ""),
    }
    if problem.errors:
        body["errors"] = problem.errors
    if problem.status < 500 and _is_token_path(request):
        body |= {"error": problem.oauth_error, "error_description": problem.detail}
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def _is_token_path(request: Request) -> bool:
    credentials: Credentials = request.app.credentials
    return request.scope["path"] == credentials.token_path


def problem_for_status(status: int) -> Problem:
    """The problem for an error that a library answered by its status alone."""
    known: list[type[Problem]] = [faults.RouteNotFound, faults.MethodNotAllowed, faults.BodyTooLarge]
    if status >= 500:
        return faults.InternalError()
    return next((kind for kind in known if kind.status == status), faults.BadRequest)()


def problems(*kinds: type[Problem]) -> Responses:
    """Document problems for `responses=`: one entry a status, with the error codes."""
    return merged(*(_documented(kind.status, kind.code) for kind in kinds))


def documented_not_found(*entities: str) -> Responses:
    """Document the 404 for rows that a path or a body names by their ids."""
    return merged(*(_documented(404, f"{entity.upper()}_NOT_FOUND") for entity in entities))


def _documented(status: int, code: str) -> Responses:
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {str(status): {"description": code, "content": {MEDIA_TYPE: {"schema": schema}}}}


def merged(*parts: Responses) -> Responses:
    """Document several parts as one; the error codes of one status stand together."""
    documented: Responses = {}
    for part in parts:
        for status, entry in ((str(status), entry) for status, entry in part.items()):
            known = documented.get(status, {})
            if "description" in known and "description" in entry:
                codes = dict.fromkeys(f"{known['description']}, {entry['description']}".split(", "))
                entry = entry | {"description": ", ".join(codes)}
            documented[status] = known | entry
    return documented


# The handlers are `async def` so that FastAPI calls them on the event loop.


async def on_error(request: Request, error: Exception) -> Response:
    """Answer an exception that somebody foresaw; does no I/O."""
    problem = problem_of(request, error)
    if problem is None:
        raise error
    return problem_response(request, problem)


async def on_unforeseen(request: Request, _error: Exception) -> Response:
    """Answer everything else with a 500 that says nothing about its cause; does no I/O."""
    return problem_response(request, faults.InternalError())


FORESEEN = (Problem, HTTPException, RequestValidationError, SQLAlchemyError, SQLITE.Error)
HANDLERS: dict[Any, Any] = {**dict.fromkeys(FORESEEN, on_error), Exception: on_unforeseen}
"""Which handler answers which exception."""


def problem_of(request: Request, error: Exception) -> Problem | None:
    """The problem behind an exception of `FORESEEN`; None where it is the app's own fault."""
    match error:
        case Problem():
            return error
        case UnreadableBody():
            return error.problem
        case HTTPException():  # what Starlette and FastAPI raise by status
            return _with_allowed_methods(request, problem_for_status(error.status_code))
        case RequestValidationError():
            return _invalid(request, error)
        case NoResultFound():  # a `.one()`; `session.get_one` says by itself which row is missing
            return _missing_row(request)
        case StaleDataError():  # another transaction changed the row first
            return faults.VersionConflict()
        case IntegrityError():
            return BROKEN_CONSTRAINTS.get(broken_constraint(error), faults.Conflict)()
        case _:
            problem = faults.DatabaseBusy() if isinstance(error, PoolTimeout) else database_problem(error)
            if problem is not None:
                logger.warning("{}: {}", problem.code, error.orig if isinstance(error, DBAPIError) else error)
            return problem


def _with_allowed_methods(request: Request, problem: Problem) -> Problem:
    """Starlette names the methods of the first route with this path only."""
    if problem.status == 405:
        routes = [route for route in request.app.routes if isinstance(route, Route)]
        here = [route.methods or () for route in routes if route.path_regex.match(request.scope["path"])]
        problem.headers["Allow"] = ", ".join(sorted({method for methods in here for method in methods}))
    return problem


def _invalid(request: Request, error: RequestValidationError) -> Problem:
    if _is_token_path(request) and all(fault["loc"][0] == "body" for fault in error.errors()):
        return faults.BadRequest(faults.Invalid(error.errors()).detail)
    if isinstance(error.body, bytes):
        message = "Send JSON, and say so with 'Content-Type: application/json'"
        return faults.Invalid([{"loc": ("body",), "msg": message, "type": "content_type"}])
    return faults.Invalid(error.errors())


def _missing_row(request: Request) -> Problem:
    """The row is taken for the one that the path names last."""
    if not request.path_params:
        return faults.RouteNotFound("What this request names was not found.")
    name, value = list(request.path_params.items())[-1]
    return faults.NotFound(name.removesuffix("_id"), value)


def broken_constraint(error: IntegrityError) -> str:
    """The name of the constraint that was broken; empty where the database does not say it.

    PostgreSQL gives the name. SQLite gives that of a check, the columns of a unique one, from which the naming
    convention makes the name, and nothing of a foreign key.
    """
    diagnostics = getattr(error.orig, "diag", None)
    if diagnostics is not None:
        return diagnostics.constraint_name or ""
    kind, _, named = str(error.orig).partition(" constraint failed: ")
    if kind != "UNIQUE":
        return named
    table = named.partition(".")[0]
    return "_".join(["uq", table, *re.findall(r"\.(\w+)", named)])
