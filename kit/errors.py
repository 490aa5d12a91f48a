"""Errors: the one shape of RFC 9457, and the handlers that bring every exception into it."""

import re
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from loguru import logger
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, IntegrityError, NoResultFound
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kit.problems import (
    BadRequest,
    BodyTooLarge,
    Conflict,
    DatabaseBusy,
    DatabaseUnavailable,
    EmailTaken,
    InternalError,
    Invalid,
    ItemHasOrders,
    ItemNameTaken,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    Problem,
    RouteNotFound,
    StorageFull,
    UserHasOrders,
    VersionConflict,
)

MEDIA_TYPE = "application/problem+json"
Responses = dict[int | str, dict[str, Any]]
TOKEN_PATH = "/api/v1/auth/token"  # noqa: S105 - a path, not a secret


class ProblemDetails(BaseModel):
    """The body of every error (RFC 9457); a client decides by `error_code`, a person reads `detail`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    error_code: str
    request_id: str
    errors: list[dict[str, Any]] | None = None


# What a constraint says about the fault, by the names SQLite and PostgreSQL report.
CONSTRAINTS = {
    "user.email": EmailTaken,
    "uq_user_email": EmailTaken,
    "item.name_key": ItemNameTaken,
    "uq_item_name_key": ItemNameTaken,
    "fk_order_line_item_id": ItemHasOrders,
    "fk_order_user_id": UserHasOrders,
}

# What a new row says of its caller; somebody deleted the account while its request was under way.
CALLERS = {"fk_order_user_id", "fk_idempotency_key_user_id", "fk_post_creator_id", "fk_comment_creator_id"}

# SQLite's primary result codes, https://sqlite.org/rescode.html; anything else is the app's own fault.
SQLITE_PROBLEMS: dict[int, type[DatabaseBusy | DatabaseUnavailable | StorageFull]] = {
    5: DatabaseBusy,  # SQLITE_BUSY
    6: DatabaseBusy,  # SQLITE_LOCKED
    8: DatabaseUnavailable,  # SQLITE_READONLY
    10: DatabaseUnavailable,  # SQLITE_IOERR
    11: DatabaseUnavailable,  # SQLITE_CORRUPT
    13: StorageFull,  # SQLITE_FULL
    14: DatabaseUnavailable,  # SQLITE_CANTOPEN
    15: DatabaseBusy,  # SQLITE_PROTOCOL
    26: DatabaseUnavailable,  # SQLITE_NOTADB
}

# PostgreSQL's SQLSTATEs and their classes, https://www.postgresql.org/docs/current/errcodes-appendix.html.
POSTGRES_PROBLEMS: dict[str, type[DatabaseBusy | DatabaseUnavailable | StorageFull]] = {
    "08": DatabaseUnavailable,  # the connection broke
    "40": DatabaseBusy,  # serialization failure, deadlock
    "53": DatabaseBusy,  # insufficient resources, such as connections
    "53100": StorageFull,  # disk full
    "55": DatabaseBusy,  # lock not available
    "57": DatabaseUnavailable,  # admin shutdown, cannot connect now
}


def database_problem(error: BaseException | None) -> Problem | None:
    """The problem behind a driver's error, or None where it is the app's own fault."""
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        problem = SQLITE_PROBLEMS.get(code & 0xFF)
        return problem() if problem else None
    if not hasattr(error, "sqlstate"):
        return None
    state = getattr(error, "sqlstate", None)  # None where the server was never reached
    if not isinstance(state, str):
        return DatabaseUnavailable()
    problem = POSTGRES_PROBLEMS.get(state) or POSTGRES_PROBLEMS.get(state[:2])
    return problem() if problem else None


def problem_response(request: Request, problem: Problem) -> Response:
    """The one place where an error body is made."""
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
    if request.scope["path"] == TOKEN_PATH and problem.status < 500:
        body |= {"error": problem.oauth_error, "error_description": problem.detail}
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def problem_for_status(status: int) -> Problem:
    """The problem for an error that a library answered by its status alone."""
    known: dict[int, type[Problem]] = {404: RouteNotFound, 405: MethodNotAllowed, 413: BodyTooLarge}
    if status >= 500:
        return InternalError()
    return known.get(status, BadRequest)()


def problems(*kinds: type[Problem]) -> Responses:
    """Document problems for `responses=`: one entry a status, with the error codes."""
    documented: Responses = {}
    for kind in kinds:
        described = [documented[kind.status]["description"]] if kind.status in documented else []
        documented[kind.status] = problem_schema(*described, kind.code)
    return documented


def documented_not_found(*entities: str) -> Responses:
    """Document the 404 for rows that a path or a body names by their ids."""
    return {404: problem_schema(*(f"{entity.upper()}_NOT_FOUND" for entity in entities))}


def problem_schema(*codes: str) -> dict[str, Any]:
    """Document the problems of one status by their error codes."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {"description": ", ".join(codes), "content": {MEDIA_TYPE: {"schema": schema}}}


def merged(*parts: Responses) -> Responses:
    """Document several parts as one; the error codes of one status stand together."""
    documented: Responses = {}
    for part in parts:
        for status, entry in part.items():
            if status in documented and "description" in documented[status] and "description" in entry:
                codes = dict.fromkeys(f"{documented[status]['description']}, {entry['description']}".split(", "))
                entry = entry | {"description": ", ".join(codes)}
            documented[status] = entry
    return documented


# The handlers below are `async def` so that FastAPI calls them on the event loop; they do no I/O.


async def on_problem(request: Request, error: Problem) -> Response:
    """Answer a problem that the app itself raised."""
    return problem_response(request, error)


async def on_http_exception(request: Request, error: HTTPException) -> Response:
    """Answer what Starlette and FastAPI raise by status: no route, wrong method, unreadable body."""
    problem = problem_for_status(error.status_code)
    if error.status_code == 405:  # Starlette names the methods of the first route with this path only
        routes = [route for route in request.app.routes if isinstance(route, Route)]
        here = [route.methods or () for route in routes if route.path_regex.match(request.scope["path"])]
        problem.headers["Allow"] = ", ".join(sorted({method for methods in here for method in methods}))
    return problem_response(request, problem)


async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
    """Answer a request that does not fit the route's declaration."""
    if request.scope["path"] == TOKEN_PATH and all(e["loc"][0] == "body" for e in error.errors()):
        return problem_response(request, BadRequest(Invalid(error.errors()).detail))
    problem: Problem | None = request.scope.get("unreadable_body")
    if problem is None and isinstance(error.body, bytes):
        message = "Send JSON, and say so with 'Content-Type: application/json'"
        problem = Invalid([{"loc": ("body",), "msg": message, "type": "content_type"}])
    return problem_response(request, problem or Invalid(error.errors()))


async def on_no_result(request: Request, _error: NoResultFound) -> Response:
    """Answer a look-up that found nothing: the row is the one that the path names last, or the caller's own."""
    if not request.path_params:  # somebody deleted the account while its request was under way
        return problem_response(request, NotAuthenticated())
    name, value = list(request.path_params.items())[-1]
    return problem_response(request, NotFound(name.removesuffix("_id"), int(value)))


async def on_stale_data(request: Request, _error: StaleDataError) -> Response:
    """Answer a row that another transaction changed first."""
    return problem_response(request, VersionConflict())


async def on_integrity_error(request: Request, error: IntegrityError) -> Response:
    """Answer a broken constraint by the name of its index."""
    diagnostics = getattr(error.orig, "diag", None)
    named = str(getattr(diagnostics, "constraint_name", None) or error.orig)
    match = re.search(r"[\w.]+$", named)
    name = match.group() if match else ""
    if name in CALLERS and str(error.statement).startswith("INSERT"):
        return problem_response(request, NotAuthenticated())
    return problem_response(request, CONSTRAINTS.get(name, Conflict)())


async def on_database_error(request: Request, error: Exception) -> Response:
    """Answer a database that is busy, full or gone; anything else is a fault of the app."""
    driver_error = error.orig if isinstance(error, DBAPIError) else error
    problem = DatabaseBusy() if isinstance(error, PoolTimeout) else database_problem(driver_error)
    if problem is None:
        raise error
    logger.warning("{}: {}", problem.code, driver_error)
    return problem_response(request, problem)


async def on_unforeseen(request: Request, _error: Exception) -> Response:
    """Answer everything else with a 500 that says nothing about its cause."""
    return problem_response(request, InternalError())
