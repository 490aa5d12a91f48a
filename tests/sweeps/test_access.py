"""Who may call what: every route of the app, called by everybody, with the rights that its signature says."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from httpx2 import Response

from tests.routes import CALLERS, Operation, all_exceptions, documented_app, operations
from tests.world import World

OPERATIONS = operations()


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_every_caller_gets_the_status_that_the_signature_says(
    operation: Operation, world: World, subtests: pytest.Subtests
) -> None:
    for caller in CALLERS:
        with subtests.test(caller):
            world.begin()
            answer = world.call(operation, caller)

            assert answer.status_code == operation.expected[caller], answer.text
            documented = operation.document["responses"][str(answer.status_code)]
            assert {name for name in ("ETag", "Location") if name in answer.headers} == set(
                documented.get("headers", ())
            )
            if answer.status_code == 401:
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert answer.json()["error_code"] == "NOT_AUTHENTICATED"


def test_every_documented_operation_is_swept() -> None:
    documented = [(m.upper(), path) for path, found in documented_app().openapi()["paths"].items() for m in found]

    assert sorted(documented) == sorted((operation.method, operation.path) for operation in OPERATIONS)


def test_no_route_is_public_but_those_that_their_tests_name() -> None:
    named = {name for exceptions in all_exceptions() for name in exceptions.public}

    assert {str(operation) for operation in OPERATIONS if operation.is_public} == named
    assert {str(operation) for operation in OPERATIONS if "security" not in operation.document} == named


def test_every_exception_is_about_a_route_that_is_there() -> None:
    known = {str(operation) for operation in OPERATIONS}
    named = {
        name
        for exceptions in all_exceptions()
        for names in (exceptions.statuses, exceptions.bodies, exceptions.lists, exceptions.costs)
        for name in names
    }

    assert named <= known


def test_every_exception_is_one() -> None:
    costs = {name: cost for exceptions in all_exceptions() for name, cost in exceptions.costs.items()}
    usual = {str(operation): operation.usual_cost for operation in OPERATIONS}

    assert {name for name, cost in costs.items() if cost == usual[name]} == set()


# What is wrong with a request is only told to those who may make a right one: what to add to its path, and its body.
WRONG: dict[str, Callable[[str, Any], tuple[str, Any]]] = {
    "an unknown query parameter": lambda path, body: (f"{path}?nonsense=1", body),
    "an unknown field": lambda path, body: (path, b'{"nonsense": 1}'),
    "half a body": lambda path, body: (path, b"{"),
    "ids that cannot be": lambda path, body: (re.sub("/[0-9]+", "/0", path), body),
}


def wrong_answer(world: World, operation: Operation, caller: str, wrong: str) -> Response:
    """What a caller gets for a request that has something wrong with it."""
    url, body = world.url(operation), operation.body(world)
    url, wrong_body = WRONG[wrong](url, body)
    if wrong_body is body:
        return operation.send(world.client, url, body, world.token(caller))
    token = world.token(caller)
    headers = {"Content-Type": operation.media_type or "application/json"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    return world.client.request(operation.method, url, headers=headers, content=wrong_body)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("caller", ["anonymous", "deactivated", "member"])
def test_who_may_not_call_is_told_so_first(caller: str, wrong: str, world: World) -> None:
    refusing = [operation for operation in OPERATIONS if operation.refuses(caller)]
    answers: dict[str, int] = {}
    for operation in refusing:
        world.begin()
        answers[str(operation)] = wrong_answer(world, operation, caller, wrong).status_code

    assert answers == {str(operation): operation.expected[caller] for operation in refusing}
