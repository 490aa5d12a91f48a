"""Who may call what: every route of the OpenAPI document, called by everybody."""

import re
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app import create_app
from kit.app import App
from settings import Settings
from tests.conftest import PASSWORD
from tests.routes import PLACE_ORDER, ROUTES, Route, let_reset

# All that anybody may call; everything else wants an access token.
PUBLIC = {
    "GET /health",
    "GET /ready",
    "POST /api/v1/auth/register",
    "POST /api/v1/auth/token",
    "POST /api/v1/auth/password-reset",
    "PUT /api/v1/auth/password-reset",
}


LAMP = {"name": "Lamp", "price_cents": 1200, "quantity": 10}
CASES = [(route, caller) for route in ROUTES for caller in route.expected]


@dataclass(frozen=True)
class Company:
    """A database with everybody in it, the token that each caller sends, and the ids for the paths."""

    path: Path
    tokens: dict[str, str | None]
    ids: dict[str, int]


@pytest.fixture(scope="module")
def company(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Company:
    """Made once, and copied for every test."""
    path = tmp_path_factory.mktemp("company") / "app.db"
    shutil.copy(template, path)
    tokens: dict[str, str | None] = {"anonymous": None}
    app = _app(path)
    with TestClient(app) as client:

        def call(caller: str, method: str, path: str, json: object = None) -> Response:
            headers = {"Authorization": f"Bearer {tokens[caller]}"}
            return client.request(method, f"/api/v1{path}", headers=headers, json=json)

        for caller in ("admin", "owner", "member", "deactivated"):  # the first account is the admin's
            account = {"email": f"{caller}@example.com", "full_name": caller, "password": PASSWORD}
            client.post("/api/v1/auth/register", json=account)
            form = {"username": account["email"], "password": PASSWORD}
            tokens[caller] = client.post("/api/v1/auth/token", data=form).json()["access_token"]
        deactivated_id = call("deactivated", "GET", "/users/me").json()["id"]
        call("admin", "PATCH", f"/users/{deactivated_id}", {"is_active": False})
        ids = {
            "user_id": call("owner", "GET", "/users/me").json()["id"],
            "session_id": call("owner", "GET", "/auth/sessions").json()[0]["id"],
            "item_id": call("admin", "POST", "/items", LAMP).json()["id"],
            "post_id": call("owner", "POST", "/posts", {"title": "News", "content": "Lamps"}).json()["id"],
            "comment_id": call("owner", "POST", "/posts/1/comments", {"content": "Good"}).json()["id"],
        }
        call("member", "POST", "/posts/1/comments", {"content": "Good"})
        ids["notification_id"] = call("owner", "GET", "/notifications").json()["items"][0]["id"]
        let_reset(app, ids["user_id"])
    return Company(path, tokens, ids)


@pytest.fixture
def call(company: Company, tmp_path: Path) -> Generator[Callable[[Route, str], Response]]:
    """Calls a route as one of the callers."""
    shutil.copy(company.path, tmp_path / "company.db")
    with TestClient(_app(tmp_path / "company.db"), raise_server_exceptions=False) as client:

        def call(route: Route, caller: str) -> Response:
            ids = company.ids
            if "{order_id}" in route.path:  # only there, because who ordered and what was ordered cannot be deleted
                ids = ids | {"order_id": PLACE_ORDER.send(client, ids, company.tokens["owner"]).json()["id"]}
            return route.send(client, ids, company.tokens[caller])

        yield call


@pytest.fixture(scope="module")
def operations(company: Company) -> dict[str, Any]:
    """The operations of the OpenAPI document, by method and path."""
    paths: dict[str, dict[str, Any]] = _app(company.path).openapi()["paths"]
    return {f"{method.upper()} {path}": operation for path, item in paths.items() for method, operation in item.items()}


def _app(path: Path) -> App:
    return create_app(
        Settings(
            database_url=f"sqlite:///{path}",
            environment="development",
            bcrypt_rounds=4,
            auth_rate_limit="100000/minute",
        )
    )


@pytest.mark.parametrize(("route", "caller"), CASES, ids=str)
def test_every_caller_gets_the_status_of_the_table(
    route: Route, caller: str, call: Callable[[Route, str], Response], operations: dict[str, Any]
) -> None:
    answer = call(route, caller)

    assert answer.status_code == route.expected[caller], answer.text
    documented = operations[str(route)]["responses"][str(answer.status_code)]
    assert {name for name in ("ETag", "Location") if name in answer.headers} == set(documented.get("headers", ()))


def test_every_route_has_a_line_and_every_line_a_route(operations: dict[str, Any]) -> None:
    assert sorted(map(str, ROUTES)) == sorted(operations)


def test_no_route_is_public_but_those_of_the_list(operations: dict[str, Any]) -> None:
    assert {str(route) for route in ROUTES if route.expected["anonymous"] != 401} == PUBLIC
    assert {name for name, operation in operations.items() if "security" not in operation} == PUBLIC


@pytest.mark.parametrize("caller", ["anonymous", "deactivated"])
def test_who_is_not_signed_in_is_told_how_to_by_every_route(
    caller: str, call: Callable[[Route, str], Response]
) -> None:
    answers = [call(route, caller) for route in ROUTES if str(route) not in PUBLIC]

    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert {answer.json()["error_code"] for answer in answers} == {"NOT_AUTHENTICATED"}


# What is wrong with a request is only told to those who may make a right one.
WRONG: dict[str, Callable[[Route], Route]] = {
    "an unknown query parameter": lambda route: replace(route, path=f"{route.path}?nonsense=1"),
    "an unknown field": lambda route: replace(route, body='{"nonsense": 1}'),
    "half a body": lambda route: replace(route, body="{"),
    "ids that cannot be": lambda route: replace(route, path=re.sub("{.*?}", "0", route.path)),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("caller", ["anonymous", "deactivated", "member"])
def test_who_may_not_call_is_told_so_first(caller: str, wrong: str, call: Callable[[Route, str], Response]) -> None:
    refusing = [route for route in ROUTES if route.refuses(caller)]
    answers = {str(route): call(WRONG[wrong](route), caller).status_code for route in refusing}

    assert answers == {str(route): route.expected[caller] for route in refusing}
