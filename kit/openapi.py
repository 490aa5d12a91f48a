"""The OpenAPI document: what follows from the signature and the place of a route is added to what FastAPI says."""

import re
from collections.abc import Iterable
from typing import Any, cast

from starlette.routing import BaseRoute

from kit import problems as faults
from kit.errors import Credentials, ProblemDetails, Responses, documented_not_found, merged, problems
from kit.middleware import HEALTH
from kit.models import BIGGEST_ID
from kit.routing import Caller, Route, callers_of

Document = dict[str, Any]
TEXT = {"schema": {"type": "string"}}
FASTAPIS_OWN = ("HTTPValidationError", "ValidationError")


def complete(document: Document, routes: Iterable[BaseRoute], credentials: Credentials, *, rate_limited: bool) -> None:
    """Add to a document of FastAPI's, in place: every problem of each operation, conditional requests, and tokens.

    `rate_limited` says whether all routes have a rate; those below the prefix of `credentials` always have one.
    """
    schemas: dict[str, Document] = document["components"]["schemas"]
    for name in FASTAPIS_OWN:
        schemas.pop(name, None)
    schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
    for schema in schemas.values():
        _keep_whole_numbers(schema)
    path = credentials.token_path
    flow: Document = {"scopes": {}, "tokenUrl": path, "refreshUrl": path}
    scheme = {"type": "oauth2", "flows": {"password": flow}}
    document["components"]["securitySchemes"] = {Caller.scheme_name: scheme}
    for route in routes:
        if isinstance(route, Route) and route.include_in_schema:
            has_rate = route.path.startswith(credentials.prefix) or (rate_limited and route.path != HEALTH)
            for method in route.methods or ():
                _complete(document["paths"][route.path_format][method.lower()], route, method, has_rate=has_rate)


def _complete(operation: Document, route: Route, method: str, *, has_rate: bool) -> None:
    own: Responses = operation["responses"]
    if any(name in str(own.get("422", "")) for name in FASTAPIS_OWN):
        del own["422"]
    if callers_of(route):
        operation["security"] = [{Caller.scheme_name: []}]
    parameters = {parameter["name"] for parameter in operation.get("parameters", [])}
    kinds: list[type[faults.Problem]] = [faults.BadRequest, faults.HostNotAllowed, faults.Invalid]
    kinds += [faults.InternalError, faults.DatabaseBusy, faults.DatabaseUnavailable]
    kinds += [kind for caller in callers_of(route) for kind in caller.problems]
    kinds += [faults.VersionConflict] if "if-match" in parameters else []
    kinds += [faults.BodyTooLarge] if "requestBody" in operation else []
    kinds += [faults.StorageFull] if method != "GET" else []
    kinds += [faults.IdempotencyKeyReused] if route.declared.key else []
    kinds += [faults.RateLimited] if has_rate else []
    implied = merged(problems(*kinds), documented_not_found(*re.findall(r"{(\w+)_id}", route.path)))
    operation["responses"] = dict(sorted(merged(implied, _headers(operation, route, method), own).items()))


def _headers(operation: Document, route: Route, method: str) -> Responses:
    """The headers of a new row and of a row with a version, and the answer to a client that has that version."""
    location = {"Location": {"description": "The path of the new row."} | TEXT}
    etag = {"ETag": {"description": "The version, for `If-Match` and `If-None-Match`."} | TEXT}
    headers = location if route.status_code == 201 and route.declared.response else {}
    if "version" not in getattr(route.response_model, "model_fields", {}):
        return {201: {"headers": headers}} if headers else {}
    if method != "GET":
        return {route.status_code or 200: {"headers": headers | etag}}
    operation.setdefault("parameters", []).append({"name": "If-None-Match", "in": "header"} | TEXT)
    return {200: {"headers": etag}, 304: {"description": "The version is that of `If-None-Match`.", "headers": etag}}


def _keep_whole_numbers(schema: Document) -> None:
    """FastAPI makes floats of bounds, which round 2^63-1 up."""
    for field in cast(dict[str, Document], schema.get("properties", {})).values():
        for bound in {"minimum", "maximum"} & set(field):
            field[bound] = min(int(field[bound]), BIGGEST_ID)
