"""What the API says about itself: the OpenAPI document."""

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


def test_the_served_document_is_the_whole_one(client: TestClient) -> None:
    assert client.get("/api/v1/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
