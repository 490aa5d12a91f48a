"""The app, put together from what it is handed: settings, nouns, and where credentials travel."""

import asyncio
import gc
import hmac
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import gettempdir
from types import FrameType, ModuleType
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp
from uvicorn import Server

from kit import openapi, schema
from kit.auth import CORES, HashingSlots
from kit.cleaning import clean, clean_regularly
from kit.db import Database
from kit.docs import add_docs
from kit.errors import HANDLERS, Credentials
from kit.logs import configure_logging
from kit.mail import Mailer
from kit.middleware import ConcurrencyLimit, HostMiddleware, RequestContext
from kit.outbox import Outbox
from kit.pages import PageRouter, See, problem_page
from kit.processes import Places
from kit.rates import RateLimit
from kit.rendering import Renderer
from kit.routing import Router
from kit.settings import KitSettings, resolve_secret_key

if sys.platform == "linux":
    import resource

AnyRoute = TypeVar("AnyRoute", bound=BaseRoute)

GRACEFUL_SHUTDOWN_SECONDS = 15
KEEP_ALIVE_SECONDS = 75
UVICORNS_KEEP_ALIVE = 5


class App(FastAPI):
    """FastAPI with our middleware around everything, Starlette's own error pages included.

    `nouns` are modules with routers; which route answers does not depend on their order, that of the menu does.
    `on_start` is called with the database at every start at which it has this version's schema; `outbox` says what does
    each kind of its entries; `options` are FastAPI's. Making an app opens nothing; its lifespan does.
    """

    problem_page = staticmethod(problem_page)
    """How a problem is shown to people."""

    def __init__(
        self,
        settings: KitSettings,
        *,
        api: str,
        nouns: Iterable[ModuleType],
        credentials: Credentials,
        on_start: Sequence[Callable[[Database], None]] = (),
        outbox: Mapping[str, Callable[["App", dict[str, Any]], None]] | None = None,
        **options: Any,
    ) -> None:
        schema.require_known_constraints()
        self.settings = settings
        self.credentials = credentials
        self.on_start = on_start
        self.outbox = outbox or {}
        found = [value for noun in nouns for value in vars(noun).values()]
        routers = {id(router): router for router in found if isinstance(router, APIRouter)}
        ours = [system, *(router for router in routers.values() if isinstance(router, Router))]
        page_routers = {id(router): router for router in found if isinstance(router, PageRouter)}.values()
        pages = _literal_first(route for router in page_routers for route in router.routes)
        self.menu = [entry for router in page_routers for entry in router.menu]
        self.page_routes = {page.path: page for page in pages if page.methods == {"GET"}}
        self.renderer = Renderer(settings, has_page=self.page_routes.__contains__)
        super().__init__(
            lifespan=lifespan,
            # Given flat: FastAPI searches a tree of included routers twice at every level, for every request. FastAPI
            # passes the parameter on to Starlette and advises against it; a test calls every route that is given here.
            routes=[*routes_of(ours), *pages],
            openapi_url=f"{api}/openapi.json" if settings.docs else None,
            docs_url=None,  # FastAPI's page takes Swagger UI from another host; ours is in kit/docs.py
            redoc_url=None,
            redirect_slashes=False,
            max_body_size=settings.max_body_bytes,
            exception_handlers=HANDLERS,
            **options,
        )
        for router in routers.values():
            if router not in ours:
                self.include_router(router)  # FastAPI's own routes know `dependency_overrides` only if it includes them
        self.add_route("/static/{hash}/{name}", _static_file, include_in_schema=False)
        self.add_route("/favicon.ico", _icon, include_in_schema=False)
        if self.menu and "/" not in self.page_routes:
            self.add_route("/", _first_page, include_in_schema=False)
        add_docs(self)

    def build_middleware_stack(self) -> ASGIApp:
        """The layers that a request passes, the innermost first; called once, at the first request or the start."""
        settings, credentials = self.settings, self.credentials
        inner: ASGIApp = RateLimit(super().build_middleware_stack(), settings, credentials)
        inner = HostMiddleware(ConcurrencyLimit(inner), settings.allowed_hosts)
        if settings.cors_origins:
            inner = CORSMiddleware(
                inner,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=[
                    "Authorization",
                    "Content-Type",
                    "Idempotency-Key",
                    "If-Match",
                    "If-None-Match",
                    "X-Request-ID",
                ],
                expose_headers=["ETag", "Location", "Idempotent-Replayed", "Retry-After", "X-Request-ID"],
            )
        return RequestContext(inner, settings, credentials)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, complete with everything that a route can answer."""
        if self.openapi_schema is None:
            rate_limited = self.settings.rate_limit is not None
            openapi.complete(super().openapi(), self.routes, self.credentials, rate_limited=rate_limited)
        return super().openapi()


def routes_of(routers: Iterable[Router]) -> list[BaseRoute]:
    """The routes of all routers; `/items/export` comes before `/items/{item_id}`."""
    return _literal_first(route for router in routers for route in router.routes)


def _literal_first(routes: Iterable[AnyRoute]) -> list[AnyRoute]:
    return sorted(routes, key=lambda route: ["{" in part for part in str(getattr(route, "path", "")).split("/")])


async def _static_file(request: Request) -> Response:
    """A file that pages load, from memory."""
    app: App = request.app
    return app.renderer.file(request.path_params["hash"], request.path_params["name"])


async def _icon(request: Request) -> Response:
    """The icon, where browsers ask for it by themselves."""
    app: App = request.app
    return app.renderer.file("", "icon.svg")


async def _first_page(request: Request) -> Response:
    """Lead to the first entry of the menu that is for everybody, where no page is at `/`."""
    app: App = request.app
    return See(min(app.menu, key=lambda entry: entry.for_admins).path)


class Health(BaseModel):
    """The process answers."""

    status: Literal["healthy"] = "healthy"


class Readiness(BaseModel):
    """The process can do its work."""

    status: Literal["ready"] = "ready"
    database: Literal["connected"] = "connected"


system = Router(public=True, tags=["system"])


@system.get("/health")
async def health() -> Health:
    """Say that the process answers; touches nothing else. Does no I/O."""
    return Health()


@system.get("/ready")
def ready(request: Request) -> Readiness:
    """Say whether the database can be read and has this version's schema."""
    database: Database = request.app.state.database
    schema.require_current(database)
    return Readiness()


# Start and stop


@asynccontextmanager
async def lifespan(app: App) -> AsyncGenerator[None]:
    """Start and stop the app; what blocks is done in a thread."""
    end_in_time()
    open_many_files()
    app.state.mailer = Mailer(app.settings, app.title)
    app.state.database = database = Database(app.settings)
    try:
        await run_in_threadpool(_start, app)
        app.state.hashing_slots = HashingSlots(places := Places(_hashing_folder(app), CORES))
        _tune_process()
        app.state.outbox = outbox = Outbox(database, {kind: partial(work, app) for kind, work in app.outbox.items()})
        cleaning = asyncio.create_task(clean_regularly(database))
        outbox.start()
        try:
            yield
        finally:
            cleaning.cancel()
            await outbox.stop()
            places.close()
    finally:
        await run_in_threadpool(database.close)


def _start(app: App) -> None:
    settings, database = app.settings, app.state.database
    configure_logging(settings)
    app.state.settings = settings
    app.state.secret_key = resolve_secret_key(settings)
    if settings.migrate_on_start:
        schema.upgrade(database)
    if schema.is_current(database):  # where it is not, /ready says so
        if settings.environment == "development":
            schema.warn_of_differences(database)
        clean(database)
        for call in app.on_start:
            call(database)
    database.log_version()


def _hashing_folder(app: App) -> Path:
    """By which the workers of a machine share its cores; among the files of others nobody can guess its name."""
    if app.settings.on_sqlite:
        return app.settings.sqlite_path.with_name(f"{app.settings.sqlite_path.name}-hashing")
    key, url = app.state.secret_key, app.settings.database_url
    return Path(gettempdir()) / f"hashing-{hmac.digest(key.encode(), url.encode(), 'sha256').hex()[:32]}"


@cache
def _tune_process() -> None:
    """Once in a process: keep garbage collection and threads from holding up the event loop."""
    gc.freeze()  # what is there now stays: to look through it for garbage stops everything for a tenth of a second
    gc.set_threshold(20_000)  # not several times in each request, which leaves little behind
    sys.setswitchinterval(0.001)  # seconds that a thread may keep the others waiting; the loop is one of them


def open_many_files() -> None:
    """Let the process have as many files open as it may: the usual 1,024 are used up by `MAX_IN_FLIGHT` connections.

    Connections beyond are reset without an answer, those that ask for /health included.
    """
    if sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def end_in_time() -> None:
    """Bound the time between SIGTERM and the end of the process, and let it end with code 0.

    uvicorn finishes what it accepted, and by default waits for it for ever: one client that never sends the rest of
    its body would keep the process alive. `--timeout-graceful-shutdown` still has the last word.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, Server):
        return
    if server.config.timeout_graceful_shutdown is None:
        server.config.timeout_graceful_shutdown = GRACEFUL_SHUTDOWN_SECONDS
    if server.config.timeout_keep_alive == UVICORNS_KEEP_ALIVE:
        # A proxy keeps idle connections for a minute or so; one that is closed under it is a request without an answer.
        server.config.timeout_keep_alive = KEEP_ALIVE_SECONDS

    def ask(_number: int, frame: FrameType | None) -> None:
        if not server.should_exit:  # asked twice, it would cut off what it should finish
            server.handle_exit(signal.SIGINT, frame)  # SIGTERM it would raise again at the end, and die of it

    signal.signal(signal.SIGTERM, ask)
