"""Requests made up from the OpenAPI document: the app does what it promises, and refuses what it forbids."""

import re
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.python.asgi import shutdown_lifespans

from app import create_app
from settings import Settings
from tests.databases import SqliteFile
from tests.routes import all_exceptions, operations
from tests.shared_app import SharedApp
from tests.world import World

# The methods of `/users/me` are those of `/users/{user_id}`, too, whose id it is not: a DELETE there is 422 and no 405.
PATHS = {operation.path for operation in operations()}
LOOKALIKES = sorted(
    path for path in PATHS for other in PATHS - {path} if re.fullmatch(re.sub("{.*?}", "[^/{}]+", other), path)
)
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
                "include-path": LOOKALIKES,
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
USUAL = {
    "VERSION_CONFLICT",
    "IDEMPOTENCY_KEY_REUSED",
    "query.cursor cursor",
    "body.email value_error",  # a domain that no mail reaches, such as `.test`
}
REASONS = USUAL | {reason for exceptions in all_exceptions() for reason in exceptions.reasons}


def reasons(answer: schemathesis.Response) -> set[str]:
    problem = answer.json()
    if problem["error_code"] != "VALIDATION_ERROR":
        return {problem["error_code"]}
    # 1.0 is a whole number for JSON Schema, and none here.
    errors = [error for error in problem["errors"] if error["type"] != "int_type"]
    return {f"{'.'.join(map(str, error['loc']))} {error['type']}" for error in errors}


@dataclass
class Caller:
    """Somebody signed in, in a database with three of everything; the ids are 1, 2 and 3."""

    access_token: str
    database: SqliteFile
    saved: Any

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}

    def restore(self) -> None:
        """Undo what the requests did."""
        self.database.restore(self.saved)


@pytest.fixture(scope="module")
def furnished(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, Caller]]:
    """An app that has three of everything; gives two of its people."""
    path = tmp_path_factory.mktemp("furnished") / "app.db"
    shutil.copy(template, path)
    furnished = Settings(
        database_url=f"sqlite:///{path}",
        environment="development",
        bcrypt_rounds=4,
        auth_rate_limit="1000000/minute",
        login_attempts=1_000_000,
        log_level="CRITICAL",
    )
    with SharedApp(create_app(furnished), SqliteFile(path)) as shared_app:
        world = World(shared_app, ("admin", "owner", "member"))
        names = sorted({name for operation in operations() for name in operation.ids})
        for creator in world.people:
            world.creator = creator
            world.keep_only(())
            for name in names:
                world.id(name)
    database = SqliteFile(path)
    saved = database.save()
    APP.settings = furnished
    yield {name: Caller(world.people[name].access_token, database, saved) for name in ("member", "admin")}
    shutdown_lifespans()  # the library starts the app at its first request
    database.close()


@pytest.fixture(params=["member", "admin"])
def caller(request: pytest.FixtureRequest, furnished: dict[str, Caller]) -> Caller:
    caller = furnished[request.param]
    caller.restore()
    return caller


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
