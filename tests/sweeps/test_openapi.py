"""What the API says about itself: the OpenAPI document."""

import json
import keyword
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openapi_spec_validator import validate
from pydantic import ValidationError

import models
from kit.models import RequestBody, Versioned
from tests.routes import documented_app, operations
from tests.routes import operation as operation_at

DOCUMENT: dict[str, Any] = documented_app().openapi()
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


def test_every_operation_has_a_name_that_makes_a_good_method(subtests: pytest.Subtests) -> None:
    for name, operation in OPERATIONS.items():
        with subtests.test(name):
            assert re.fullmatch("[a-z]+(_[a-z]+){0,4}", operation["operationId"])
            assert not keyword.iskeyword(operation["operationId"])


def test_every_operation_has_a_summary_and_a_sentence(subtests: pytest.Subtests) -> None:
    for name, operation in OPERATIONS.items():
        with subtests.test(name):
            assert operation["summary"]
            assert operation["description"].rstrip().endswith(".")
            assert operation["tags"]


def test_every_error_of_an_operation_has_the_one_shape(subtests: pytest.Subtests) -> None:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    for name, operation in OPERATIONS.items():
        with subtests.test(name):
            responses = operation["responses"]
            contents = [responses[status]["content"] for status in responses if int(status) >= 400]

            assert contents
            assert all(content == problem for content in contents)


def test_fastapis_own_error_shape_is_gone() -> None:
    assert "ValidationError" not in json.dumps(DOCUMENT)


def test_every_status_that_a_caller_can_get_is_documented(subtests: pytest.Subtests) -> None:
    for operation in operations():
        with subtests.test(str(operation)):
            assert operation.statuses >= set(operation.expected.values())


def test_a_patch_says_that_null_is_refused_unless_it_empties_a_field(subtests: pytest.Subtests) -> None:
    assert PATCHES
    for name in PATCHES:
        with subtests.test(name):
            reference: str = OPERATIONS[name]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            schema = SCHEMAS[reference.rpartition("/")[2]]
            nullable = {field for field, value in schema["properties"].items() if "null" in json.dumps(value)}
            body = getattr(models, reference.rpartition("/")[2])

            assert schema["additionalProperties"] is False
            assert nullable == {field for field in schema["properties"] if takes_null(body, field)}
            assert all({"type", "enum", "anyOf"} & set(field) for field in schema["properties"].values())


def takes_null(body: type[RequestBody], field: str) -> bool:
    """Whether `null` is refused for no reason of its own."""
    try:
        body.model_validate({field: None})
    except ValidationError as error:
        return field not in {wrong["loc"][0] for wrong in error.errors()}
    return True


def test_every_id_says_its_bounds(subtests: pytest.Subtests) -> None:
    with_id = [name for name in OPERATIONS if "_id}" in name]
    assert with_id
    for name in with_id:
        with subtests.test(name):
            parameters = OPERATIONS[name]["parameters"]
            schemas = [parameter["schema"] for parameter in parameters if parameter["in"] == "path"]

            assert schemas
            assert all((schema["minimum"], schema["maximum"]) == (1, 2**63 - 1) for schema in schemas)


def test_a_row_with_a_version_documents_its_conditional_requests(subtests: pytest.Subtests) -> None:
    rows = [operation for operation in operations() if operation.ids and operation.method == "GET"]
    versioned = [operation for operation in rows if operation.row and issubclass(operation.row, Versioned)]
    shown = [operation for operation in versioned if not operation.list_kind]
    assert shown
    for operation in shown:
        with subtests.test(operation.path):
            assert 304 in operation.statuses
            assert {name.lower() for name in operation.parameters("header")} == {"if-none-match"}
            for method in ("PATCH", "DELETE"):
                change = operation_at(method, operation.path)
                headers = {name.lower() for name in change.parameters("header")} if change else {"if-match"}
                assert headers == {"if-match"}, f"Take an IfMatch: {method} {operation.path}"


def test_the_document_says_where_to_sign_in() -> None:
    [scheme] = DOCUMENT["components"]["securitySchemes"].values()

    assert scheme["flows"]["password"]["tokenUrl"] in DOCUMENT["paths"]


def test_the_served_document_is_the_whole_one(client: TestClient) -> None:
    assert client.get("/api/v1/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
