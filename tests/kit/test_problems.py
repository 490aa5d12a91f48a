"""Problems: every one has its status, its code and the one shape."""

import inspect
from http import HTTPStatus

import pytest
from fastapi.testclient import TestClient

from kit import problems
from kit.problems import BROKEN_CONSTRAINTS, Conflict, Invalid, NotFound, Problem, RateLimited, TooManyAttempts
from kit.routing import Router
from kit.schema import require_known_constraints

KINDS = {kind.__name__: kind for _, kind in inspect.getmembers(problems, inspect.isclass) if issubclass(kind, Problem)}

# class: status, code
CONTRACT = {
    "BadRequest": (400, "BAD_REQUEST"),
    "HostNotAllowed": (400, "HOST_NOT_ALLOWED"),
    "InvalidCredentials": (400, "INVALID_CREDENTIALS"),
    "NotAuthenticated": (401, "NOT_AUTHENTICATED"),
    "Forbidden": (403, "FORBIDDEN"),
    "NotOwner": (403, "NOT_OWNER"),
    "NotFound": (404, "ROOM_NOT_FOUND"),
    "RouteNotFound": (404, "NOT_FOUND"),
    "MethodNotAllowed": (405, "METHOD_NOT_ALLOWED"),
    "Conflict": (409, "CONFLICT"),
    "VersionConflict": (412, "VERSION_CONFLICT"),
    "BodyTooLarge": (413, "BODY_TOO_LARGE"),
    "Invalid": (422, "VALIDATION_ERROR"),
    "IdempotencyKeyReused": (422, "IDEMPOTENCY_KEY_REUSED"),
    "TooManyAttempts": (429, "TOO_MANY_ATTEMPTS"),
    "RateLimited": (429, "RATE_LIMITED"),
    "InternalError": (500, "INTERNAL_ERROR"),
    "DatabaseBusy": (503, "DATABASE_BUSY"),
    "DatabaseUnavailable": (503, "DATABASE_UNAVAILABLE"),
    "StorageFull": (507, "STORAGE_FULL"),
}

probes = Router(public=True, prefix="/probes")


def made(name: str) -> Problem:
    if name == "NotFound":
        return NotFound("room", 5)
    if name == "Invalid":
        return Invalid([{"loc": ("body", "name"), "msg": "Field required", "type": "missing"}])
    if name in ("TooManyAttempts", "RateLimited"):
        return {"TooManyAttempts": TooManyAttempts, "RateLimited": RateLimited}[name](7)
    return KINDS[name]()


@probes.get("/problems/{name}")
def raise_problem(name: str) -> None:
    raise made(name)


def test_every_problem_has_its_row() -> None:
    assert set(KINDS) - {"Problem"} == set(CONTRACT)


@pytest.mark.parametrize("name", CONTRACT)
def test_every_problem_has_the_one_shape(client: TestClient, name: str) -> None:
    status, code = CONTRACT[name]
    answer = client.get(f"/probes/problems/{name}", headers={"X-Request-ID": "the-first"})
    body = answer.json()

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert body.pop("detail").endswith(".")
    assert (body.pop("errors", None) is not None) == (name == "Invalid")
    assert body == {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "error_code": code,
        "request_id": "the-first",
    }


@pytest.mark.parametrize(
    ("name", "header", "value"),
    [
        ("NotAuthenticated", "www-authenticate", "Bearer"),
        ("TooManyAttempts", "retry-after", "7"),
        ("RateLimited", "retry-after", "7"),
        ("DatabaseBusy", "retry-after", "1"),
        ("DatabaseUnavailable", "retry-after", "5"),
    ],
)
def test_a_problem_says_in_a_header_what_to_do(client: TestClient, name: str, header: str, value: str) -> None:
    assert client.get(f"/probes/problems/{name}").headers[header] == value


def test_a_problem_is_called_after_its_class_unless_it_says_otherwise() -> None:
    class DeskTaken(Conflict):
        """409: somebody sits there."""

    class CornerDeskTaken(DeskTaken):
        """409: the same, and clients know it as the same."""

        code = "DESK_TAKEN"

    assert (DeskTaken.code, DeskTaken().status, CornerDeskTaken().code) == ("DESK_TAKEN", 409, "DESK_TAKEN")
    assert "" not in BROKEN_CONSTRAINTS


def test_a_problem_is_that_of_the_constraint_that_it_names_and_its_heirs_are_not() -> None:
    class ChairTaken(Conflict):
        """409: there is one chair."""

        constraint = "uq_chair_of_this_test"

    class RedChairTaken(ChairTaken):
        """409: it is red."""

    with pytest.raises(
        TypeError, match=r"^ChairTaken.constraint is 'uq_chair_of_this_test', which no table has; .* ck_"
    ):
        require_known_constraints()
    assert BROKEN_CONSTRAINTS.pop("uq_chair_of_this_test") is ChairTaken
    require_known_constraints()
    assert RedChairTaken not in BROKEN_CONSTRAINTS.values()
