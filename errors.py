"""Errors: every fault the API can answer, in the one shape of RFC 9457, and the handlers that make it."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

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

MEDIA_TYPE = "application/problem+json"
TOKEN_PATH = "/api/v1/auth/token"  # noqa: S105 - a path, not a secret
MOST_ERRORS = 100
RETRY_SECONDS = 1


class ProblemDetails(BaseModel):
    """The body of every error (RFC 9457); a client decides by `error_code`, a person reads `detail`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    error_code: str
    request_id: str
    errors: list[dict[str, Any]] | None = None


class Problem(Exception):
    """A fault with its status, its code and a sentence that a person can act on.

    What was written before it is raised is rolled back, unless `keeps_changes` says otherwise.
    """

    status: ClassVar[int] = 400
    code: str = "BAD_REQUEST"
    detail: str = "The request could not be understood."
    keeps_changes: ClassVar[bool] = False
    oauth_error: ClassVar[str] = "invalid_request"

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.detail = detail or type(self).detail
        self.errors = [dict(error) for error in errors][:MOST_ERRORS]
        self.headers = dict(headers or {})
        super().__init__(self.detail)


class BadRequest(Problem):
    """400: the request could not be decoded."""


class HostNotAllowed(Problem):
    """400: the `Host` header names a host that this app does not serve."""

    code = "HOST_NOT_ALLOWED"
    detail = "This host is not served here; add it to APP_ALLOWED_HOSTS if it should be."


class InvalidCredentials(Problem):
    """400: unknown, wrong, spent or expired credentials; which of them is not said."""

    code = "INVALID_CREDENTIALS"
    detail = "The credentials are not valid."
    keeps_changes = True  # the count of failed sign-ins, or the end of a replayed session, must stay
    oauth_error = "invalid_grant"


class UnsupportedGrantType(Problem):
    """400: a grant type that the token endpoint does not offer (RFC 6749, 5.2)."""

    detail = "The grant type must be 'password' or 'refresh_token'."
    oauth_error = "unsupported_grant_type"


class NotAuthenticated(Problem):
    """401: no access token, or one that is malformed, expired or revoked."""

    status = 401
    code = "NOT_AUTHENTICATED"
    detail = "Sign in and send a valid access token as 'Authorization: Bearer <token>'."

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"})


class Forbidden(Problem):
    """403: the route is for admins."""

    status = 403
    code = "FORBIDDEN"
    detail = "Only an admin may do this."


class NotOwner(Problem):
    """403: the row belongs to someone else."""

    status = 403
    code = "NOT_OWNER"
    detail = "Only its creator may do this."


class RegistrationClosed(Problem):
    """403: accounts are made by an admin here."""

    status = 403
    code = "REGISTRATION_CLOSED"
    detail = "Registration is closed; ask an admin for an account."


class NotFound(Problem):
    """404: no such row, or none that the caller may know of."""

    status = 404

    def __init__(self, entity: str, entity_id: object) -> None:
        super().__init__(f"{entity.capitalize()} {entity_id} was not found.")
        self.code = f"{entity.upper()}_NOT_FOUND"


class RouteNotFound(Problem):
    """404: no such route."""

    status = 404
    code = "NOT_FOUND"
    detail = "There is nothing at this address."


class MethodNotAllowed(Problem):
    """405: the address exists, the method does not."""

    status = 405
    code = "METHOD_NOT_ALLOWED"
    detail = "This address does not take this method."


class Conflict(Problem):
    """409: the change contradicts what is stored."""

    status = 409
    code = "CONFLICT"
    detail = "The change contradicts what is stored; read it again and retry."


class EmailTaken(Conflict):
    """409: e-mails are unique, without case."""

    code = "EMAIL_TAKEN"
    detail = "Another account has this e-mail address."


class ItemNameTaken(Conflict):
    """409: item names are unique, without case."""

    code = "ITEM_NAME_TAKEN"
    detail = "Another item has this name."


class LastAdmin(Conflict):
    """409: the change would leave nobody in charge."""

    code = "LAST_ADMIN"
    detail = "This is the last active admin; make another admin first."


class VersionConflict(Problem):
    """412: the row changed since the caller read it (RFC 9110, 13.1.1)."""

    status = 412
    code = "VERSION_CONFLICT"
    detail = "It was changed meanwhile; read it again and repeat the change."


class BodyTooLarge(Problem):
    """413: the body is longer than APP_MAX_BODY_BYTES allows."""

    status = 413
    code = "BODY_TOO_LARGE"
    detail = "The body is too large."


class Invalid(Problem):
    """422: the request was understood and is not acceptable; `errors` says where."""

    status = 422
    code = "VALIDATION_ERROR"

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        shown = [_public_error(error) for error in errors[:MOST_ERRORS]]
        more = f" ({len(errors) - 1} more in errors)" if len(errors) > 1 else ""
        where = ".".join(str(part) for part in shown[0]["loc"])
        super().__init__(f"{where}: {shown[0]['msg'].rstrip('.')}{more}.", errors=shown)


class TooManyAttempts(Problem):
    """429: too many failed sign-ins for this account; `Retry-After` is in seconds."""

    status = 429
    code = "TOO_MANY_ATTEMPTS"
    detail = "Too many failed sign-ins for this account; try again later."
    keeps_changes = True

    def __init__(self, retry_after: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after)})


class InternalError(Problem):
    """500: a fault of the app; its cause is in the log under the request id."""

    status = 500
    code = "INTERNAL_ERROR"
    detail = "Something went wrong here; the log has it under the request id."


class DatabaseBusy(Problem):
    """503: others kept the database for too long."""

    status = 503
    code = "DATABASE_BUSY"
    detail = "The database is busy; try again in a moment."

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": str(RETRY_SECONDS)})


class DatabaseUnavailable(Problem):
    """503: the database cannot be read or written, or is not at this version's schema."""

    status = 503
    code = "DATABASE_UNAVAILABLE"
    detail = "The database is not available; try again later."

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "5"})


class StorageFull(Problem):
    """507: there is no room left to write."""

    status = 507
    code = "STORAGE_FULL"
    detail = "The storage is full; nothing was written."


# What a unique index says about the fault, by the names SQLite and PostgreSQL report.
UNIQUE = {
    "user.email": EmailTaken,
    "uq_user_email": EmailTaken,
    "item.name_key": ItemNameTaken,
    "uq_item_name_key": ItemNameTaken,
}

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

# PostgreSQL's SQLSTATE classes, https://www.postgresql.org/docs/current/errcodes-appendix.html.
POSTGRES_PROBLEMS: dict[str, type[DatabaseBusy | DatabaseUnavailable | StorageFull]] = {
    "40": DatabaseBusy,  # serialization failure, deadlock
    "53": StorageFull,  # insufficient resources
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
    problem = POSTGRES_PROBLEMS.get(state[:2]) if isinstance(state, str) else DatabaseUnavailable
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


def _public_error(error: Mapping[str, Any]) -> dict[str, Any]:
    """Where and what, never the input; a name that the client made up is cut short."""
    loc = [part[:64] if isinstance(part, str) else part for part in error["loc"]]
    return {"loc": loc, "msg": str(error["msg"]).removeprefix("Value error, "), "type": error["type"]}


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
    """Answer a look-up that found nothing: the row is the one that the path names last."""
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
    problem = UNIQUE.get(match.group() if match else "", Conflict)()
    return problem_response(request, problem)


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
