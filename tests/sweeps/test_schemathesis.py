"""Requests made up from the OpenAPI document: the app does what it promises, and refuses what it forbids."""

import shutil
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.python.asgi import shutdown_lifespans

from app import create_app
from kit.sqlite import SQLITE
from settings import Settings
from tests.conftest import API, PASSWORD

# The methods of `/users/me` and `/items/export` are those of `/users/{user_id}` and `/items/{item_id}`, too, whose
# ids they are not: a DELETE there is 422 and no 405.
LOOKALIKES = {"include-path": [f"{API}/users/me", f"{API}/items/export", f"{API}/items/import"]}
CONFIG = SchemathesisConfig.from_dict(  # pyright: ignore[reportUnknownMemberType] - it takes any dict
    {
        "seed": 1,
        "generation": {
            "deterministic": True,
            "max-examples": 5,
            "no-shrink": True,
            "database": "none",
            "allow-x00": False,  # which no schema can forbid, and every string here does
        },
        "checks": {"positive_data_acceptance": {"enabled": False}},  # see REASONS
        "operations": [
            {
                **LOOKALIKES,
                "checks": {
                    "unsupported_method": {"enabled": False},
                    "allow_header_conformance": {"enabled": False},
                },
            }
        ],
    }
)
APP = create_app(Settings(environment="development"))  # opens nothing yet; its database is given below
DOCUMENT = APP.openapi()
# Of a scheme of OAuth 2 the library does not know that its tokens are in a header, and would never leave one out.
[BEARER] = DOCUMENT["components"]["securitySchemes"]
DOCUMENT["components"]["securitySchemes"][BEARER] = {"type": "http", "scheme": "bearer"}
# Any: the types of its decorator and of a case are not complete.
SCHEMA: Any = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
SCHEMA.app = APP

# Why a request is refused that its schema allows: the code of the problem, or where and what the error is.
REASONS = {
    "BAD_REQUEST",  # at the token endpoint: the fields of another grant type
    "VERSION_CONFLICT",
    "IDEMPOTENCY_KEY_REUSED",
    "INVALID_CREDENTIALS",
    "body.email value_error",  # a domain that no mail reaches, such as `.test`
    "body.password value_error",  # which is too weak
    "body.new_password value_error",
    "body.lines value_error",  # an item twice
    "body.file csv",
    "query.cursor cursor",
}


def reasons(answer: schemathesis.Response) -> set[str]:
    problem = answer.json()
    if problem["error_code"] != "VALIDATION_ERROR":
        return {problem["error_code"]}
    # 1.0 is a whole number for JSON Schema, and none here.
    errors = [error for error in problem["errors"] if error["type"] != "int_type"]
    return {f"{'.'.join(map(str, error['loc']))} {error['type']}" for error in errors}


@dataclass
class Caller:
    """Somebody signed in, and the state of the database in which they are."""

    access_token: str
    saved: Any  # a connection; two modules can be its driver
    live: Any

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}

    def restore(self) -> None:
        """Undo what the requests did."""
        self.saved.backup(self.live)


@pytest.fixture(scope="module")
def furnished(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    path = tmp_path_factory.mktemp("furnished") / "app.db"
    shutil.copy(template, path)
    return Settings(
        database_url=f"sqlite:///{path}",
        environment="development",
        bcrypt_rounds=4,
        auth_rate_limit="1000000/minute",
        login_attempts=1_000_000,
        log_level="CRITICAL",
    )


@pytest.fixture(scope="module")
def tokens(furnished: Settings) -> dict[str, str]:
    """The access tokens of people in a database with three of everything; the ids are 1, 2 and 3."""
    tokens: dict[str, str] = {}
    with TestClient(create_app(furnished)) as client:

        def call(name: str, path: str, body: object, method: str = "POST") -> Any:
            headers = {"Authorization": f"Bearer {tokens.get(name)}"}
            return client.request(method, API + path, json=body, headers=headers).raise_for_status().json()

        for name in ("root", "admin", "member"):
            call(name, "/auth/register", {"email": f"{name}@example.com", "full_name": name, "password": PASSWORD})
            form = {"username": f"{name}@example.com", "password": PASSWORD}
            tokens[name] = client.post(f"{API}/auth/token", data=form).json()["access_token"]
        call("root", "/users/2", {"role": "admin"}, "PATCH")
        for name in ("Lamp", "Desk", "Chair"):
            call("root", "/items", {"name": name, "price_cents": 100, "quantity": 1_000, "tags": ["wood"]})
        for name in ("member", "admin", "root"):
            call(name, "/orders", {"lines": [{"item_id": 1, "quantity": 1}]})
            call(name, "/posts", {"title": "News", "content": f"From {name}"})
            call("root", "/posts/1/comments", {"content": "Good"})
    return tokens


@pytest.fixture(scope="module")
def app(furnished: Settings, tokens: dict[str, str]) -> Generator[None]:
    APP.settings = furnished
    yield  # the library starts the app at its first request
    shutdown_lifespans()


@pytest.fixture(scope="module")
def saved(furnished: Settings, tokens: dict[str, str]) -> Generator[Any]:
    """The furnished database, in memory."""
    with closing(SQLITE.connect(furnished.sqlite_path)) as file, closing(SQLITE.connect(":memory:")) as saved:
        file.backup(saved)
        yield saved


@pytest.fixture(params=["member", "admin"])
def caller(
    request: pytest.FixtureRequest, app: None, furnished: Settings, tokens: dict[str, str], saved: Any
) -> Generator[Caller]:
    with closing(SQLITE.connect(furnished.sqlite_path)) as live:
        caller = Caller(tokens[request.param], saved, live)
        caller.restore()
        yield caller


@SCHEMA.parametrize()
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_app_keeps_to_its_document(case: Any, caller: Caller) -> None:
    if case.method != "GET":
        caller.restore()
    for name, value in case.path_parameters.items():
        if isinstance(value, int) and 0 < value < 2**63:
            case.path_parameters[name] = 1 + value % 3  # a row that is there
    answer = case.call_and_validate(headers=caller.headers())

    if case.meta and case.meta.generation.mode.is_positive and answer.status_code in (400, 412, 422):
        assert reasons(answer) <= REASONS
