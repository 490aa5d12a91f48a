"""Who may call what: every route of the OpenAPI document, called by everybody."""

import re
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app import Stockroom, create_app
from kit.db import ending
from models import PasswordReset, digest, now
from settings import Settings
from tests.conftest import PASSWORD

# One line a route: the status that each caller gets for a right request, and its body (JSON, a form or a file).
# `owner` is the member whom the path is about, `-` where a route has none; `member` is another one.
# `deactivated` sends the access token of an account that was active when it was issued.
TABLE = """
route                                                anonymous deactivated member owner admin body
GET    /health                                       200       200         200    -     200
GET    /ready                                        200       200         200    -     200
POST   /api/v1/auth/register                         201       201         201    -     201   {"email": "new@example.com", "full_name": "New", "password": "Correct-horse-1"}
POST   /api/v1/auth/token                            200       200         200    -     200   username=owner@example.com&password=Correct-horse-1
POST   /api/v1/auth/password-reset                   202       202         202    -     202   {"email": "owner@example.com"}
PUT    /api/v1/auth/password-reset                   204       204         204    -     204   {"token": "the token of the owner", "new_password": "Correct-horse-2"}
GET    /api/v1/auth/sessions                         401       401         200    -     200
DELETE /api/v1/auth/sessions                         401       401         204    -     204
DELETE /api/v1/auth/sessions/current                 401       401         204    -     204
DELETE /api/v1/auth/sessions/{session_id}            401       401         404    204   404
GET    /api/v1/users/me                              401       401         200    -     200
PATCH  /api/v1/users/me                              401       401         200    -     200   {"full_name": "New"}
PUT    /api/v1/users/me/password                     401       401         204    -     204   {"current_password": "Correct-horse-1", "new_password": "Correct-horse-2"}
GET    /api/v1/users                                 401       401         403    -     200
POST   /api/v1/users                                 401       401         403    -     201   {"email": "new@example.com", "full_name": "New", "password": "Correct-horse-1"}
GET    /api/v1/users/{user_id}                       401       401         404    200   200
PATCH  /api/v1/users/{user_id}                       401       401         403    403   200   {"full_name": "New"}
DELETE /api/v1/users/{user_id}                       401       401         403    403   204
GET    /api/v1/users/{user_id}/posts                 401       401         200    200   200
GET    /api/v1/items                                 401       401         200    -     200
POST   /api/v1/items                                 401       401         403    -     201   {"name": "Desk", "price_cents": 100}
GET    /api/v1/items/{item_id}                       401       401         200    -     200
PATCH  /api/v1/items/{item_id}                       401       401         403    -     200   {"quantity": 1}
DELETE /api/v1/items/{item_id}                       401       401         403    -     204
GET    /api/v1/items/export                          401       401         403    -     200
POST   /api/v1/items/import                          401       401         403    -     200   file=@name,price_cents
GET    /api/v1/orders                                401       401         200    -     200
POST   /api/v1/orders                                401       401         201    -     201   {"lines": [{"item_id": 1, "quantity": 1}]}
GET    /api/v1/orders/{order_id}                     401       401         404    200   200
PATCH  /api/v1/orders/{order_id}                     401       401         404    200   200   {"status": "cancelled"}
GET    /api/v1/posts                                 401       401         200    -     200
POST   /api/v1/posts                                 401       401         201    -     201   {"title": "News", "content": "The lamps are here."}
GET    /api/v1/posts/{post_id}                       401       401         200    200   200
PATCH  /api/v1/posts/{post_id}                       401       401         403    200   403   {"title": "New"}
DELETE /api/v1/posts/{post_id}                       401       401         403    204   204
GET    /api/v1/posts/{post_id}/comments              401       401         200    200   200
POST   /api/v1/posts/{post_id}/comments              401       401         201    201   201   {"content": "Good"}
GET    /api/v1/posts/{post_id}/comments/{comment_id} 401       401         200    200   200
PATCH  /api/v1/posts/{post_id}/comments/{comment_id} 401       401         403    200   403   {"content": "New"}
DELETE /api/v1/posts/{post_id}/comments/{comment_id} 401       401         403    204   204
GET    /api/v1/notifications                         401       401         200    -     200
PATCH  /api/v1/notifications                         401       401         200    -     200   {"read": true}
PATCH  /api/v1/notifications/{notification_id}       401       401         404    200   404   {"read": true}
GET    /api/v1/dashboard                             401       401         200    -     200
GET    /api/v1/audit                                 401       401         403    -     200
"""  # noqa: E501 - one line a route

# All that anybody may call; everything else wants an access token.
PUBLIC = {
    "GET /health",
    "GET /ready",
    "POST /api/v1/auth/register",
    "POST /api/v1/auth/token",
    "POST /api/v1/auth/password-reset",
    "PUT /api/v1/auth/password-reset",
}


@dataclass(frozen=True)
class Route:
    """A line of the table."""

    method: str
    path: str
    expected: dict[str, int]
    body: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def refuses(self, caller: str) -> bool:
        """Whether no request of theirs can be right, because they are not signed in or not an admin."""
        is_for_admins = self.expected["member"] == 403 and self.expected.get("owner", 403) == 403
        return self.expected[caller] == 401 or (caller == "member" and is_for_admins)

    def send(self, client: TestClient, ids: dict[str, int], token: str | None) -> Response:
        """Call the route with the ids that its path asks for."""
        path, headers = self.path.format(**ids), {"Authorization": f"Bearer {token}"} if token else {}
        if self.body.startswith("file=@"):
            return client.request(self.method, path, headers=headers, files={"file": self.body[6:].encode()})
        kind = "application/x-www-form-urlencoded" if self.body[:1] not in ("", "{") else "application/json"
        return client.request(self.method, path, headers=headers | {"Content-Type": kind}, content=self.body)


def _read(table: str) -> list[Route]:
    title, *lines = table.strip().splitlines()
    callers = title.split()[1:-1]
    routes: list[Route] = []
    for line in lines:
        method, path, *cells = line.split(maxsplit=len(callers) + 2)
        statuses = dict(zip(callers, cells, strict=False))
        expected = {caller: int(status) for caller, status in statuses.items() if status != "-"}
        routes.append(Route(method, path, expected, "".join(cells[len(callers) :])))
    return routes


ROUTES = _read(TABLE)
LAMP = {"name": "Lamp", "price_cents": 1200, "quantity": 10}
PLACE_ORDER = next(route for route in ROUTES if str(route) == "POST /api/v1/orders")
CASES = [(route, caller) for route in ROUTES for caller in route.expected]


def let_reset(app: Stockroom, user_id: int) -> None:
    """Let the password of an account be set with the token of the table, as if it had been mailed."""
    token_hash, an_hour = digest("the token of the owner"), timedelta(hours=1)
    with ending(app.state.database.write()) as session:
        session.add(PasswordReset(token_hash=token_hash, user_id=user_id, expires_at=now() + an_hour))


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


def _app(path: Path) -> Stockroom:
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
