"""Problems: every fault the API can answer, as an exception with its status, its code and its words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

MOST_ERRORS = 100
RETRY_SECONDS = 1


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


class OutOfStock(Conflict):
    """409: too few are left of some items; `errors` names each with what was requested and what is available."""

    code = "OUT_OF_STOCK"
    detail = "There is not enough in stock; nothing was ordered."

    def __init__(self, short: Iterable[tuple[int, int, int]]) -> None:
        names = ("item_id", "requested", "available")
        super().__init__(errors=[dict(zip(names, item, strict=True)) for item in short])


class OrderNotPending(Conflict):
    """409: only a pending order can be fulfilled or cancelled."""

    code = "ORDER_NOT_PENDING"

    def __init__(self, status: str) -> None:
        super().__init__(f"The order is {status}; only a pending one can change.")


class ItemHasOrders(Conflict):
    """409: the item is part of an order."""

    code = "ITEM_HAS_ORDERS"
    detail = "This item was ordered before and cannot be deleted; set its quantity to 0 instead."


class UserHasOrders(Conflict):
    """409: the account placed orders."""

    code = "USER_HAS_ORDERS"
    detail = "This account has orders and cannot be deleted; deactivate it instead."


class IdempotencyKeyReused(Problem):
    """422: the idempotency key came with another body before."""

    status = 422
    code = "IDEMPOTENCY_KEY_REUSED"
    detail = "This Idempotency-Key was used with another body; take a new key for a new order."


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
        # A body that a dependency of the route reads, too, was validated twice.
        errors = list({(tuple(error["loc"]), error["type"]): error for error in errors}.values())
        shown = [_public_error(error) for error in errors[:MOST_ERRORS]]
        more = f" ({len(shown) - 1} more in errors)" if len(shown) > 1 else ""
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


class RateLimited(Problem):
    """429: too many requests from one client address; `Retry-After` is in seconds."""

    status = 429
    code = "RATE_LIMITED"
    detail = "Too many requests from this address; try again later."

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


def _public_error(error: Mapping[str, Any]) -> dict[str, Any]:
    """Where and what, never the input; a name that the client made up is cut short."""
    loc = [part[:64] if isinstance(part, str) else part for part in error["loc"]]
    return {"loc": loc, "msg": str(error["msg"]).removeprefix("Value error, "), "type": error["type"]}
