"""What is added to FastAPI's document: problems, conditional requests, tokens, and true bounds."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openapi_spec_validator import validate

from kit.app import App
from kit.middleware import HEALTH
from settings import Settings
from tests.conftest import MakeApp

ROOM = "/api/v1/rooms/{room_id}"
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}


@pytest.fixture
def document(app: App) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def parameters(document: dict[str, Any], method: str) -> set[str]:
    return {parameter["name"].lower() for parameter in document["paths"][ROOM][method]["parameters"]}


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)


def test_the_document_is_made_once_and_served_whole(app: App, client: TestClient) -> None:
    assert app.openapi() is app.openapi()
    assert client.get("/api/v1/openapi.json").json() == json.loads(json.dumps(app.openapi()))


def test_every_error_of_an_operation_has_the_one_shape(document: dict[str, Any]) -> None:
    for operation in operations(document).values():
        contents = [answer["content"] for status, answer in operation["responses"].items() if int(status) >= 400]

        assert contents
        assert all(content == PROBLEM for content in contents)
    assert "ValidationError" not in json.dumps(document)


def test_an_operation_that_knows_its_caller_says_so(document: dict[str, Any]) -> None:
    [(name, scheme)] = document["components"]["securitySchemes"].items()
    secured = {name for name, operation in operations(document).items() if "security" in operation}

    assert scheme["flows"]["password"]["tokenUrl"] in document["paths"]
    assert operations(document)["POST /api/v1/rooms"]["security"] == [{name: []}]
    assert secured == {name for name, operation in operations(document).items() if "401" in operation["responses"]}
    assert "GET /api/v1/auth/sessions" in secured
    assert "POST /api/v1/auth/token" not in secured


def test_a_row_with_a_version_documents_its_conditional_requests(document: dict[str, Any]) -> None:
    responses = {method: document["paths"][ROOM][method]["responses"] for method in ("get", "patch", "delete")}

    assert parameters(document, "get") == {"room_id", "if-none-match"}
    assert parameters(document, "patch") == parameters(document, "delete") == {"room_id", "if-match"}
    assert set(responses["get"]["200"]["headers"]) == set(responses["get"]["304"]["headers"]) == {"ETag"}
    assert set(responses["patch"]["200"]["headers"]) == {"ETag"}
    assert responses["patch"]["412"]["description"] == responses["delete"]["412"]["description"] == "VERSION_CONFLICT"


def test_a_new_row_documents_where_it_is(document: dict[str, Any]) -> None:
    room = document["paths"]["/api/v1/rooms"]["post"]["responses"]["201"]
    booking = document["paths"]["/api/v1/bookings"]["post"]["responses"]["201"]

    assert (set(room["headers"]), set(booking["headers"])) == ({"Location", "ETag"}, {"Location"})


def test_an_id_says_its_bounds(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path" and parameter["name"].endswith("_id"):
                bounds = (parameter["schema"]["minimum"], parameter["schema"]["maximum"])
                assert bounds == (1, 2**63 - 1), name
    assert document["components"]["schemas"]["BookingCreate"]["properties"]["room_id"]["maximum"] == 2**63 - 1


def test_only_what_has_a_rate_documents_one(make_app: MakeApp, document: dict[str, Any]) -> None:
    def limited(document: dict[str, Any]) -> set[str]:
        return {
            path for path, item in document["paths"].items() for each in item.values() if "429" in each["responses"]
        }

    of_all = limited(make_app(Settings(rate_limit="100/minute")).openapi())
    of_auth = {path for path in document["paths"] if path.startswith("/api/v1/auth/")}

    assert of_auth <= limited(document) <= of_auth | {"/api/v1/users/me/password"}
    assert of_all == set(document["paths"]) - {HEALTH}


def test_an_operation_is_named_after_its_function(document: dict[str, Any]) -> None:
    assert document["paths"][ROOM]["get"]["operationId"] == "get_room"
    assert document["paths"][ROOM]["get"]["description"] == "Show one room."
