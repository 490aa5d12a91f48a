"""The route class that every noun shares: one fixed order for a request, one thread, one end of the session.

What a route needs beyond FastAPI stands in its signature, and is recognised by its type:

- `ReadSession` or `WriteSession`: the session, opened and ended in the thread that runs the route;
- a `Caller`, such as `CurrentUser`: who calls, read from the database in that thread and session;
- a type with `Prepared(…)`: what takes long, such as a password hash, computed when all else is right;
- `IdempotencyKeyHeader`: a repetition is answered with the first answer.

FastAPI sees none of the first three, because each dependency costs it as much as SQLite needs for a row. Where FastAPI
has to see them (in `async def` routes, in routes of its own `APIRouter`, in dependencies of a route, and as soon as
`app.dependency_overrides` has anything in it) they are ordinary dependencies, and do the same.
"""

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args

from fastapi import APIRouter, UploadFile, params
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Scope

from kit.audit import act_as
from kit.auth import Claims, Hashing, HashingSlots, bearer_claims, client_address
from kit.db import Database, ending, read_session, retried, write_session
from kit.idempotency import IdempotencyKey, IdempotencyKeyHeader, request_hash
from kit.models import Person, Versioned
from kit.problems import NotAuthenticated, Problem
from kit.strict import StrictRequest, check_query

Who = TypeVar("Who", bound=Person)

# What is wrong with a request, or became wrong with its caller while it was under way.
FAULTS_AFTER_THE_CALLER = (RequestValidationError, HTTPException, IntegrityError)


class Caller(Generic[Who]):
    """A dependency on who calls, by the access token in `Authorization`.

    `read` looks the caller up for checked claims, and returns None where the account or its session is gone; `require`
    may refuse the caller with one of `problems`.
    """

    scheme_name: ClassVar[str] = "OAuth2PasswordBearer"

    def __init__(
        self,
        read: Callable[[Session, Claims], Who | None],
        require: Callable[[Who], None] | None = None,
        problems: tuple[type[Problem], ...] = (),
    ) -> None:
        self.read = read
        self.require = require
        self.problems = (NotAuthenticated, *problems)

    def identify(self, request: Request, session: Session, claims: Claims) -> Who:
        """The caller as of now, who acts in `session` from here on; raises one of `problems` if they may not."""
        who = self.read(session, claims)
        if who is None:
            raise NotAuthenticated
        request.state.user_id = who.id
        request.state.caller = who  # whom a page shows even where the call is refused
        act_as(session, who.id)
        if self.require is not None:
            self.require(who)
        return who

    def identify_alone(self, request: Request, claims: Claims) -> Who:
        """The same, in a short session of its own."""
        database: Database = request.app.state.database
        with ending(database.read()) as session:
            return self.identify(request, session, claims)

    async def __call__(self, request: Request) -> Who:
        """The caller, where FastAPI resolves the dependency; reads the database in a thread."""
        claims = getattr(request, "claims", None) or bearer_claims(request)
        return await run_in_threadpool(self.identify_alone, request, claims)


class Prepared:
    """Marks a parameter whose value takes long and no session: `Annotated[str, Prepared(new_password_hash)]`.

    `prepare` is called with the request and with those parameters of the route that it names, on the event loop, when
    caller, query and body are right. What it returns is done in a thread before the route has its session: a `Hashing`
    in one of the slots for hashing, anything else that can be called at once. None stands for itself.
    """

    def __init__(self, prepare: Callable[..., Hashing | Callable[[], Any] | None]) -> None:
        self.prepare = prepare
        self.names = tuple(inspect.signature(prepare).parameters)[1:]

    async def value(self, request: Request, values: Mapping[str, Any]) -> Any:
        """Wait for a slot and compute the value; does no I/O itself."""
        work = self.prepare(request, **{name: values[name] for name in self.names})
        if isinstance(work, Hashing):
            slots: HashingSlots = request.app.state.hashing_slots
            return await slots.run(client_address(request.scope), work)
        return None if work is None else await run_in_threadpool(work)


class ReadsIf:
    """Marks a session that only reads where a parameter is true: `Annotated[WriteSession, ReadsIf("dry_run")]`."""

    def __init__(self, parameter: str) -> None:
        self.parameter = parameter


class Declaration:
    """What the signature of an endpoint asks for beyond FastAPI, by the names of the parameters."""

    def __init__(self, endpoint: Callable[..., Any]) -> None:
        self.signature = inspect.signature(endpoint, eval_str=True)
        self.session = self.key = self.request = self.response = self.reads_if = ""
        self.writes = False
        self.callers: dict[str, Caller[Any]] = {}
        self.optional: set[str] = set()
        """The callers that a page can do without: their parameters have a default."""
        self.prepared: dict[str, Prepared] = {}
        for name, parameter in self.signature.parameters.items():
            self._read(name, parameter.annotation)
            if name in self.callers and parameter.default is not inspect.Parameter.empty:
                self.optional.add(name)

    def _read(self, name: str, annotation: Any) -> None:
        if annotation is Request:
            self.request = name
        elif annotation is Response:
            self.response = name
        elif annotation == IdempotencyKeyHeader:
            self.key = name
        for mark in get_args(annotation)[1:]:
            if isinstance(mark, Prepared):
                self.prepared[name] = mark
            elif isinstance(mark, ReadsIf):
                self.reads_if = mark.parameter
            dependency = mark.dependency if isinstance(mark, params.Depends) else None
            if dependency in (read_session, write_session):
                if self.session:
                    raise TypeError(f"{name}: a route has one session, and {self.session} is one already.")
                self.session, self.writes = name, dependency is write_session
            elif isinstance(dependency, Caller):
                self.callers[name] = cast(Caller[Any], dependency)

    def writes_with(self, values: Mapping[str, Any]) -> bool:
        """Whether a call with these values has a session that writes."""
        return self.writes and not values.get(self.reads_if)

    def visible_to_fastapi(self, hidden: Iterable[str]) -> tuple[inspect.Signature, str]:
        """The signature without `hidden` but with the request, and the name that the request has in it."""
        parameters = [part for name, part in self.signature.parameters.items() if name not in hidden]
        name = self.request or "http_request"
        if not self.request:
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Request))
        return self.signature.replace(parameters=parameters), name


class Route(APIRoute):
    """A route that runs its endpoint, its response model and the end of its session in one thread.

    Beyond FastAPI's own route it refuses query parameters that nobody declared, and answers a row with a `version`
    with its `ETag` (or 304).
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], *, in_one_thread: bool = True, **options: Any) -> None:
        self.declared = Declaration(endpoint)
        self.in_one_thread = in_one_thread and not inspect.iscoroutinefunction(endpoint)
        self.declaration = (path, endpoint, options)
        self.resolved_by_fastapi: dict[ASGIApp, Callable[[Request], Coroutine[Any, Any, Response]]] = {}
        super().__init__(path, self._wrapped(endpoint), **options)
        self.fixed_part = path.partition("{")[0]
        # `dependant` is how FastAPI keeps what it read from a signature. It is in no documentation; a test looks at
        # the names that are found here.
        self.query_names = frozenset(_query_names(self.dependant))
        self.shape: TypeAdapter[Any] | None = TypeAdapter(self.response_model) if self.response_model else None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Starlette's answer, after a glance that costs less: a request asks one route after the other."""
        return super().matches(scope) if self.fixed_part in scope["path"] else (Match.NONE, {})

    # The path of a request

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The first half of the path of a request, on the event loop; `_work` is the second, in a thread."""
        read_and_call = super().get_route_handler()

        async def handle(request: Request) -> Response:
            overridden = bool(request.app.dependency_overrides)
            if overridden and self.dependency_overrides_provider is not request.app:
                return await self._handler_for_overrides(request.app)(request)
            request = StrictRequest(request.scope, request.receive)
            if self.declared.callers and not overridden:
                request.claims = self.claims_of(request)  # before a stranger's body is read
            try:
                self.check_query(request)
                return await read_and_call(request)  # the body, its schema, then the endpoint as `_wrapped` made it
            except FAULTS_AFTER_THE_CALLER:
                if request.claims is not None and self.in_one_thread:
                    await run_in_threadpool(self._identify_alone, request, request.claims)
                raise

        return handle

    def _wrapped(self, endpoint: Callable[..., Any]) -> Callable[..., Any]:
        """The endpoint as FastAPI calls it, with the values of what FastAPI sees."""
        declared = self.declared
        hidden = {*declared.prepared, *((declared.session, *declared.callers) if self.in_one_thread else ())}
        signature, request_name = declared.visible_to_fastapi(hidden)

        @functools.wraps(endpoint)
        async def run(**values: Any) -> Any:
            """Have the hashes computed and the work done; does no I/O itself."""
            request: StrictRequest = values[request_name] if declared.request else values.pop(request_name)
            if declared.prepared:
                known = values
                if request.claims is not None and self.in_one_thread:
                    # Nobody but a living caller, with the right role, may make this work.
                    known = values | await run_in_threadpool(self._identify_alone, request, request.claims)
                values |= {name: await mark.value(request, known) for name, mark in declared.prepared.items()}
            if inspect.iscoroutinefunction(endpoint):
                return self.respond(request, await endpoint(**values), values.get(declared.response))
            if not self.in_one_thread or not (declared.session or declared.callers):
                return await run_in_threadpool(self._work_resolved, endpoint, request, values)
            database: Database = request.app.state.database
            executor = database.writers if declared.writes_with(values) else database.readers
            return await executor.run(partial(self._work, endpoint, request, values), request.is_disconnected)

        run.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue] - PEP 362 lets any callable carry one
        return run

    def _work(self, endpoint: Callable[..., Any], request: StrictRequest, values: dict[str, Any]) -> Response:
        """The second half: session, caller and role, the endpoint, its shape, the commit."""
        declared = self.declared
        database: Database = request.app.state.database

        def transaction() -> Response:
            with ending(database.write() if declared.writes_with(values) else database.read()) as session:
                if request.claims is not None:
                    values.update(self.identify(request, session, request.claims))
                if declared.session:
                    values[declared.session] = session
                return self._once(session, request, values, endpoint)

        return retried(transaction, partial(_rewind, values))

    def _work_resolved(self, endpoint: Callable[..., Any], request: Request, values: dict[str, Any]) -> Response:
        """The same, where there is no session, or where FastAPI resolved session and caller and ends the session."""
        for name in self.declared.callers if self.declared.session else ():
            act_as(values[self.declared.session], values[name].id)
        return self._once(values.get(self.declared.session), request, values, endpoint)

    def _once(
        self, session: Session | None, request: Request, values: dict[str, Any], endpoint: Callable[..., Any]
    ) -> Response:
        """Call the endpoint, or answer a repetition of a request that carried an `Idempotency-Key`."""
        key: str | None = values.get(self.declared.key)
        if key is None or session is None:
            return self.respond(request, endpoint(**values), values.get(self.declared.response))
        caller: Person = values[next(iter(self.declared.callers))]
        same = request_hash(request.method, request.url.path, values.values())
        kept = IdempotencyKey.claim(session, caller.id, key, same)
        if kept.status:
            return kept.replay()
        response = self.respond(request, endpoint(**values), values.get(self.declared.response))
        if response.status_code < 400:
            kept.keep(response)
        return response

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

    # Who calls

    def claims_of(self, request: Request) -> Claims | None:
        """What the caller shows for themselves; `NotAuthenticated` if it is nothing good."""
        return bearer_claims(request)

    def check_query(self, request: Request) -> None:
        """Refuse query parameters that nobody declared."""
        check_query(request, self.query_names)

    def identify(self, request: Request, session: Session, claims: Claims) -> dict[str, Person | None]:
        """The callers, by the names of their parameters."""
        return {name: caller.identify(request, session, claims) for name, caller in self.declared.callers.items()}

    def _identify_alone(self, request: Request, claims: Claims) -> dict[str, Person]:
        return {name: caller.identify_alone(request, claims) for name, caller in self.declared.callers.items()}

    def _handler_for_overrides(self, app: ASGIApp) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the same route with everything resolved by FastAPI, which asks `app.dependency_overrides`."""
        if app not in self.resolved_by_fastapi:
            path, endpoint, options = self.declaration
            options = options | {"dependency_overrides_provider": app}
            route = type(self)(path, endpoint, in_one_thread=False, **options)
            self.resolved_by_fastapi[app] = route.get_route_handler()
        return self.resolved_by_fastapi[app]


def _rewind(values: Mapping[str, Any]) -> None:
    """Let uploads be read from their beginning again."""
    for form in values.values():
        for upload in vars(form).values() if isinstance(form, BaseModel) else ():
            if isinstance(upload, UploadFile):
                upload.file.seek(0)


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
        # The name of the endpoint makes a good name for a method of a generated client.
        super().__init__(route_class=Route, generate_unique_id_function=lambda route: route.name, **options)

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route; a `TypeError` if anybody could call it."""
        super().add_api_route(path, endpoint, **options)
        route = cast(Route, self.routes[-1])
        if not (self.public or callers_of(route)):
            raise TypeError(f"{endpoint.__name__} is open to everyone: take a CurrentUser, or use a public router.")


def callers_of(route: Route) -> list[Caller[Any]]:
    """Every `Caller` that a route asks for, by its own parameters or those of its dependencies."""
    return [*route.declared.callers.values(), *_callers_among(route.dependant)]


def _callers_among(dependant: Dependant) -> Iterable[Caller[Any]]:
    call: Any = dependant.call
    if isinstance(call, Caller):
        yield cast(Caller[Any], call)
    for dependency in dependant.dependencies:
        yield from _callers_among(dependency)


def _query_names(dependant: Dependant) -> Iterable[str]:
    for field in dependant.query_params:
        kind = field.field_info.annotation
        # a model of parameters stands for its fields
        yield from kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else [field.alias]
    for dependency in dependant.dependencies:
        yield from _query_names(dependency)
