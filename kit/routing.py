"""The route class that every route shares: one thread, one end of the session, strict input, whole documentation."""

import functools
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Generic, TypeVar, cast

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from kit.db import Database, ReadSession, WriteSession, ending
from kit.errors import Responses, documented_not_found, merged, problems
from kit.problems import (
    BadRequest,
    BodyTooLarge,
    DatabaseBusy,
    DatabaseUnavailable,
    HostNotAllowed,
    InternalError,
    Invalid,
    NotAuthenticated,
    Problem,
    StorageFull,
    VersionConflict,
)
from kit.strict import StrictRequest, refuse_unknown_query
from models import Versioned

Value = TypeVar("Value")
Function = TypeVar("Function", bound=Callable[..., Any])

_RAISED: dict[Callable[..., Any], tuple[type[Problem], ...]] = {}


class Deferred(ABC, Generic[Value]):
    """What a dependency gives when its value has to be read from the database.

    The route resolves it in its own thread and session, before the endpoint runs: a dependency that read it itself
    would cost a second thread and a second connection.
    """

    @abstractmethod
    def resolve(self, request: Request, session: Session) -> Value:
        """Read the value that the endpoint is given."""

    def resolve_alone(self, request: Request) -> Value:
        """Read it in a session of its own, where it is needed before the route has one."""
        database: Database = request.app.state.database
        with database.read() as session:
            return self.resolve(request, session)


class Route(APIRoute):
    """A route that runs its endpoint, its response model and the end of its session in one thread.

    Beyond FastAPI's own route it refuses query parameters that nobody declared, answers a row with a `version`
    with its `ETag` (or 304), and documents the problems that follow from the signature.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.is_async = inspect.iscoroutinefunction(endpoint)
        if not self.is_async:
            endpoint = _in_one_thread(endpoint, self)
        super().__init__(path, endpoint, **options)
        self.fixed_part = path.partition("{")[0]
        self.responses = merged(_implied_problems(self), _implied_headers(self), self.responses)
        self.query_names = frozenset(_query_names(self.dependant))
        self.shape: TypeAdapter[Any] | None = TypeAdapter(self.response_model) if self.response_model else None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Starlette's answer, after a glance that costs less: a request asks one route after the other."""
        return super().matches(scope) if self.fixed_part in scope["path"] else (Match.NONE, {})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, reading the body strictly. Does no I/O of its own."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            request = StrictRequest(request.scope, request.receive)
            if self.is_async:  # the others look in their thread, once the caller is known
                refuse_unknown_query(request, self.query_names)
            try:
                return await handle(request)
            except RequestValidationError:
                # Who is calling comes before what is wrong with the call.
                caller: Deferred[object] | None = request.scope.get("caller")
                if caller is not None:
                    await run_in_threadpool(caller.resolve_alone, request)
                raise

        return strictly

    def respond(self, request: Request, result: object, declared: Response | None) -> Response:
        """Shape what the endpoint returned; FastAPI would take another thread for it."""
        if isinstance(result, Response):
            return result
        response = Response(status_code=self.status_code or 200)
        if declared is not None:
            response.raw_headers = [header for header in declared.raw_headers if header[0] != b"content-length"]
        if isinstance(result, Versioned):
            response.headers["ETag"] = result.etag
            if request.method == "GET" and result.is_named_by(request.headers.get("if-none-match")):
                response.status_code = 304
                del response.headers["Content-Length"]  # it would be that of the row (RFC 9110, 8.6)
                return response
        if self.shape is not None:
            response.body = _shaped(self.shape, result)
            response.headers["Content-Length"] = str(len(response.body))
            response.headers["Content-Type"] = "application/json"
        return response


def _shaped(shape: TypeAdapter[Any], result: object) -> bytes:
    try:
        return shape.dump_json(shape.validate_python(result, from_attributes=True))
    except ValidationError as error:
        raise ResponseValidationError(errors=error.errors(include_input=False)) from error


class Router(APIRouter):
    """The routes of one noun, all of the class above.

    Every route must know its caller, by `CurrentUser` or a dependency on it, unless the router says `public=True`.
    """

    def __init__(self, *, public: bool = False, **options: Any) -> None:
        self.public = public
        super().__init__(route_class=Route, generate_unique_id_function=_operation_id, **options)

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route.

        Raises:
            TypeError: anybody could call it, or its caller would never be looked up.
        """
        super().add_api_route(path, endpoint, **options)
        dependant = cast(Route, self.routes[-1]).dependant
        callers = [part.name for part in dependant.dependencies if NotAuthenticated in _raised_by(part)]
        if not callers and not self.public:
            raise TypeError(f"{endpoint.__name__} is open to everyone: take a CurrentUser, or use a public router.")
        # The caller is looked up in the route's own thread and session, if it is a parameter.
        in_thread = "session" in inspect.signature(endpoint).parameters and not inspect.iscoroutinefunction(endpoint)
        if callers and (not in_thread or None in callers):
            raise TypeError(f"{endpoint.__name__} cannot know its caller: take it and a session as plain parameters.")


def _operation_id(route: APIRoute) -> str:
    """The name of the endpoint, which makes a good name for a method of a generated client."""
    return route.name


def raises(*kinds: type[Problem]) -> Callable[[Function], Function]:
    """Declare what a dependency can raise, so that every route that takes it documents it."""

    def declare(function: Function) -> Function:
        _RAISED[function] = kinds
        return function

    return declare


def _implied_problems(route: APIRoute) -> Responses:
    """What a route can answer because of its signature."""
    kinds: list[type[Problem]] = [BadRequest, HostNotAllowed, Invalid, InternalError, DatabaseBusy, DatabaseUnavailable]
    kinds += dict.fromkeys(_raised_by(route.dependant))
    if any(field.alias == "if-match" for field in route.dependant.header_params):
        kinds.append(VersionConflict)
    if route.body_field is not None:
        kinds.append(BodyTooLarge)
    if route.methods != {"GET"}:
        kinds.append(StorageFull)
    documented = problems(*kinds)
    if ids := re.findall(r"{(\w+)_id}", route.path):
        documented |= documented_not_found(*ids)
    return documented


def _implied_headers(route: APIRoute) -> Responses:
    """The headers of a new row and of a row with a version, and the answer to who has that version already."""
    text = {"schema": {"type": "string"}}
    location = {"Location": {"description": "The path of the new row."} | text}
    etag = {"ETag": {"description": "The version, for `If-Match` and `If-None-Match`."} | text}
    headers = location if route.status_code == 201 and route.dependant.response_param_name else {}
    if "version" not in getattr(route.response_model, "model_fields", {}):
        return {201: {"headers": headers}} if headers else {}
    if route.methods != {"GET"}:
        return {route.status_code or 200: {"headers": headers | etag}}
    route.openapi_extra = {"parameters": [{"name": "If-None-Match", "in": "header"} | text]}
    return {200: {"headers": etag}, 304: {"description": "The version is that of `If-None-Match`.", "headers": etag}}


def _raised_by(dependant: Dependant) -> Iterable[type[Problem]]:
    if dependant.call is not None:
        yield from _RAISED.get(dependant.call, ())
    for dependency in dependant.dependencies:
        yield from _raised_by(dependency)


def _in_one_thread(endpoint: Callable[..., Any], route: Route) -> Callable[..., Any]:
    """Wrap an endpoint so that one thread does all its work, its session included.

    FastAPI does not see the session: to enter and to leave a dependency costs it more than a row costs SQLite.
    """
    signature = inspect.signature(endpoint, eval_str=True)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "session"]
    session_kind = getattr(signature.parameters.get("session"), "annotation", None)
    reads, writes = session_kind == ReadSession, session_kind == WriteSession
    names = {parameter.annotation: parameter.name for parameter in parameters}
    takes_request = Request in names
    request_name = names.get(Request, "http_request")
    response_name = names.get(Response, "")

    def work(request: Request, values: dict[str, Any]) -> Response:
        if not (reads or writes):
            refuse_unknown_query(request, route.query_names)
            return route.respond(request, endpoint(**values), values.get(response_name))
        database: Database = request.app.state.database
        with ending(database.write() if writes else database.read()) as session:
            if caller := request.scope.get("caller"):  # be it a parameter or only a dependency of one
                caller.resolve(request, session)
            values = {name: _resolved(value, request, session) for name, value in values.items()}
            refuse_unknown_query(request, route.query_names)  # after the caller is known
            return route.respond(request, endpoint(session=session, **values), values.get(response_name))

    @functools.wraps(endpoint)
    async def run(**values: Any) -> Response:
        """Wait for a turn and have the work done; does no I/O itself."""
        request: Request = values[request_name] if takes_request else values.pop(request_name)
        if not (reads or writes):
            return await run_in_threadpool(work, request, values)
        database: Database = request.app.state.database
        lane = database.writers if writes else database.readers
        return await lane.run(partial(work, request, values))

    if not takes_request:
        parameters.append(inspect.Parameter(request_name, inspect.Parameter.KEYWORD_ONLY, annotation=Request))
    run.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue] - PEP 362 lets any callable carry one
    return run


def _resolved(value: object, request: Request, session: Session) -> object:
    return cast(Deferred[object], value).resolve(request, session) if isinstance(value, Deferred) else value


def _query_names(dependant: Dependant) -> Iterable[str]:
    for field in dependant.query_params:
        kind = field.field_info.annotation
        # a model of parameters stands for its fields
        yield from kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else [field.alias]
    for dependency in dependant.dependencies:
        yield from _query_names(dependency)
