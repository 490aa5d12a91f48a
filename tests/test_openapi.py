"""What the API says about itself: the OpenAPI document and its page."""

import json
import keyword
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openapi_spec_validator import validate

from app import create_app
from settings import Settings
from tests.routes import ROUTES, Route

DOCUMENT: dict[str, Any] = create_app(Settings(environment="development")).openapi()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
PATCHES = [name for name in OPERATIONS if name.startswith("PATCH ")]


def test_the_document_is_valid_openapi() -> None:
    validate(DOCUMENT)


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_a_name_that_makes_a_good_method(name: str) -> None:
    operation_id = OPERATIONS[name]["operationId"]

    assert re.fullmatch("[a-z]+(_[a-z]+){0,4}", operation_id)
    assert not keyword.iskeyword(operation_id)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_a_summary_and_a_sentence(name: str) -> None:
    operation = OPERATIONS[name]

    assert operation["summary"]
    assert operation["description"].rstrip().endswith(".")
    assert operation["tags"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_error_of_an_operation_has_the_one_shape(name: str) -> None:
    responses = OPERATIONS[name]["responses"]
    contents = [responses[status]["content"] for status in responses if int(status) >= 400]
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}

    assert contents
    assert all(content == problem for content in contents)


def test_fastapis_own_error_shape_is_gone() -> None:
    assert "ValidationError" not in json.dumps(DOCUMENT)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_every_status_that_a_caller_can_get_is_documented(route: Route) -> None:
    documented = {int(status) for status in OPERATIONS[str(route)]["responses"]}

    assert documented >= set(route.expected.values())


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_says_that_null_is_refused(name: str) -> None:
    reference: str = OPERATIONS[name]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = SCHEMAS[reference.rpartition("/")[2]]

    assert schema["additionalProperties"] is False
    assert "null" not in json.dumps(schema["properties"])
    assert all("type" in field or "enum" in field for field in schema["properties"].values())


@pytest.mark.parametrize("name", [name for name in OPERATIONS if "_id}" in name])
def test_an_id_says_its_bounds(name: str) -> None:
    schemas = [parameter["schema"] for parameter in OPERATIONS[name]["parameters"] if parameter["in"] == "path"]

    assert schemas
    assert all((schema["minimum"], schema["maximum"]) == (1, 2**63 - 1) for schema in schemas)


def test_a_row_with_a_version_documents_its_conditional_requests() -> None:
    headers = {
        method: {
            parameter["name"].lower() for parameter in OPERATIONS[f"{method} /api/v1/items/{{item_id}}"]["parameters"]
        }
        for method in ("GET", "PATCH", "DELETE")
    }

    assert "304" in OPERATIONS["GET /api/v1/items/{item_id}"]["responses"]
    assert headers["GET"] == {"item_id", "if-none-match"}
    assert headers["PATCH"] == headers["DELETE"] == {"item_id", "if-match"}


def test_the_document_says_where_to_sign_in() -> None:
    [scheme] = DOCUMENT["components"]["securitySchemes"].values()

    assert scheme["flows"]["password"]["tokenUrl"] in DOCUMENT["paths"]


# Where the document is served


def _statuses(settings: Settings) -> list[int]:
    with TestClient(create_app(settings)) as client:
        return [client.get(path).status_code for path in ("/docs", "/api/v1/openapi.json")]


def test_the_docs_are_there_in_development(settings: Settings) -> None:
    assert _statuses(settings) == [200, 200]


def test_the_docs_are_not_there_in_production(settings: Settings) -> None:
    production = Settings(environment="production", database_url=settings.database_url)

    assert _statuses(production) == [404, 404]


def test_a_setting_brings_the_docs_to_production(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_DOCS", "true")
    production = Settings(environment="production", database_url=settings.database_url)

    assert _statuses(production) == [200, 200]


def test_the_served_document_is_the_whole_one(client: TestClient) -> None:
    assert client.get("/api/v1/openapi.json").json() == json.loads(json.dumps(DOCUMENT))


def test_only_the_page_of_the_docs_allows_inline_scripts(client: TestClient) -> None:
    paths = [re.sub("{.*?}", "1", path) for path in DOCUMENT["paths"]]
    others = [*paths, "/api/v1/openapi.json", "/docs/", "/docs/oauth2-redirect", "/redoc", "/nothing"]

    assert "'unsafe-inline'" in client.get("/docs").headers["Content-Security-Policy"]
    assert not [path for path in others if "unsafe-inline" in client.get(path).headers["Content-Security-Policy"]]


@pytest.mark.parametrize("path", ["/docs/oauth2-redirect", "/redoc"])
def test_no_other_page_of_the_docs_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
