"""Problems: the exception that every fault is, and the faults of the machinery. Those of a noun stand beside it."""

import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, ClassVar

MAX_ERRORS = 100
RETRY_SECONDS = 1

BROKEN_CONSTRAINTS: dict[str, type["Problem"]] = {}
"""The problem behind a broken constraint, by the constraint's name; filled by `Problem.constraint`."""


class Problem(Exception):
    """A fault with its status, its code and a sentence that a person can act on.

    Its code is its name: `EmailTaken` is answered as `EMAIL_TAKEN`. What was written before it is raised is rolled
    back, unless `keeps_changes` says otherwise.
    """

    status: ClassVar[int] = 400
    code: str = ""
    detail: str = "The request could not be understood."
    constraint: ClassVar[str] = ""
    """The constraint of the database that is broken by this fault, such as `uq_user_email` or `fk_order_user_id`."""
    keeps_changes: ClassVar[bool] = False
    for_people: ClassVar[str] = ""
    """The sentence on a page, where `detail` has words of programmers in it."""
    field: ClassVar[str] = ""
    """The field of a form beside which a page says it."""
    default_headers: ClassVar[Mapping[str, str]] = {}
    oauth_error: ClassVar[str] = "invalid_request"

    def __init_subclass__(cls) -> None:
        """Name the code after the class, and register the constraint; both only where the class itself says so."""
        if "code" not in vars(cls):
            cls.code = re.sub("(?<=[a-z])(?=[A-Z])", "_", cls.__name__).upper()
        if "constraint" in vars(cls):
            BROKEN_CONSTRAINTS[cls.constraint] = cls

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.detail = detail or type(self).detail
        self.errors = [dict(error) for error in errors][:MAX_ERRORS]
        self.headers = {**self.default_headers, **(headers or {})}
        super().__init__(self.detail)

    @property
    def said(self) -> str:
        """What a page says."""
        return self.for_people or self.detail

    @property
    def wait(self) -> str:
        """For how long to wait, such as "14 minutes"; empty where waiting does not help."""
        seconds = int(self.headers.get("Retry-After", 0))
        count, unit = (seconds, "second") if seconds < 90 else (ceil(seconds / 60), "minute")
        return f"{count} {unit}{'s' if count > 1 else ''}" if count else ""


class BadRequest(Problem):
    """400: the request could not be decoded."""


class HostNotAllowed(Problem):
    """400: the `Host` header names a host that this app does not serve."""

    detail = "This host is not served here; add it to APP_ALLOWED_HOSTS if it should be."


class InvalidCredentials(Problem):
    """400: unknown, wrong, spent or expired credentials; which of them is not said."""

    detail = "The credentials are not valid."
    for_people = "That is not right; try again."
    keeps_changes = True  # the count of failed sign-ins, or the end of a replayed session, must stay
    oauth_error = "invalid_grant"


class NotAuthenticated(Problem):
    """401: no access token, or one that is malformed, expired or revoked."""

    status = 401
    detail = "Sign in and send a valid access token as 'Authorization: Bearer <token>'."
    default_headers: ClassVar = {"WWW-Authenticate": "Bearer"}


class Forbidden(Problem):
    """403: the route is for admins."""

    status = 403
    detail = "Only an admin may do this."


class NotOwner(Problem):
    """403: the row belongs to someone else."""

    status = 403
    detail = "Only the person to whom it belongs may do this."


class NotFound(Problem):
    """404: no such row, or none that the caller may know of."""

    status = 404

    def __init__(self, entity: str, entity_id: object) -> None:
        super().__init__(f"{entity.replace('_', ' ').capitalize()} {entity_id} was not found.")
        self.entity = entity
        self.code = f"{entity.upper()}_NOT_FOUND"


class RouteNotFound(Problem):
    """404: no such route."""

    status = 404
    code = "NOT_FOUND"
    detail = "There is nothing at this address."


class MethodNotAllowed(Problem):
    """405: the address exists, the method does not."""

    status = 405
    detail = "This address does not take this method."


class Conflict(Problem):
    """409: the change contradicts what is stored."""

    status = 409
    detail = "The change contradicts what is stored; read it again and retry."


class IdempotencyKeyReused(Problem):
    """422: the idempotency key came with another body before."""

    status = 422
    detail = "This Idempotency-Key was used with another body; take a new key for a new request."
    for_people = "This page was sent before. Look at what came of it, then start anew."


class VersionConflict(Problem):
    """412: the row changed since the caller read it (RFC 9110, 13.1.1)."""

    status = 412
    detail = "It was changed meanwhile; read it again and repeat the change."
    for_people = "Somebody else changed this meanwhile. Look at what is marked, then save again."


class BodyTooLarge(Problem):
    """413: the body is longer than APP_MAX_BODY_BYTES allows."""

    status = 413
    detail = "The body is too large."
    for_people = "This is too large to be taken in; nothing was saved."


class Invalid(Problem):
    """422: the request was understood and is not acceptable; `errors` says where."""

    status = 422
    code = "VALIDATION_ERROR"

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        # A body that a dependency of the route reads, too, was validated twice.
        errors = list({(tuple(error["loc"]), error["type"]): error for error in errors}.values())
        shown = [_public_error(error) for error in errors[:MAX_ERRORS]]
        more = f" ({len(shown) - 1} more in errors)" if len(shown) > 1 else ""
        where = ".".join(str(part) for part in shown[0]["loc"])
        super().__init__(f"{where}: {shown[0]['msg'].rstrip('.')}{more}.", errors=shown)

    @property
    def said(self) -> str:
        """Every fault without its place, which a page shows by itself."""
        return " ".join(dict.fromkeys(f"{error['msg'].rstrip('.')}." for error in self.errors))


class RateLimited(Problem):
    """429: too many requests from one client address; `Retry-After` is in seconds."""

    status = 429
    detail = "Too many requests from this address; try again later."

    def __init__(self, retry_after: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after)})


class TooManyAttempts(RateLimited):
    """429: too many failed sign-ins for this account; `Retry-After` is in seconds."""

    detail = "Too many failed sign-ins for this account; try again later."
    keeps_changes = True


class InternalError(Problem):
    """500: a fault of the app; its cause is in the log under the request id."""

    status = 500
    detail = "Something went wrong here; the log has it under the request id."


class DatabaseBusy(Problem):
    """503: others kept the database for too long."""

    status = 503
    detail = "The database is busy; try again in a moment."
    default_headers: ClassVar = {"Retry-After": str(RETRY_SECONDS)}


class DatabaseUnavailable(Problem):
    """503: the database cannot be read or written, or is not at this version's schema."""

    status = 503
    detail = "The database is not available; try again later."
    default_headers: ClassVar = {"Retry-After": "5"}


class StorageFull(Problem):
    """507: there is no room left to write."""

    status = 507
    detail = "The storage is full; nothing was written."


def _public_error(error: Mapping[str, Any]) -> dict[str, Any]:
    """Where and what, never the input; a name that the client made up is cut short."""
    loc = [part[:64] if isinstance(part, str) else part for part in error["loc"]]
    return {"loc": loc, "msg": str(error["msg"]).removeprefix("Value error, "), "type": error["type"]}
