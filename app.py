"""Stockroom: the app, put together. `uv run fastapi dev app.py` starts it."""

import gc
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, IntegrityError, NoResultFound
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp

import audit
import auth
import inbox
import items
import items_csv
import orders
import passwords
import posts
import recovery
import users
from kit import errors, schema
from kit.db import Database
from kit.docs import add_docs
from kit.logs import Edge, configure_logging
from kit.mail import Mailer
from kit.middleware import HostGate, QueueGate, RateGate, end_in_time, open_many_files
from kit.problems import Problem
from kit.routing import Router
from kit.secret_key import resolve_secret_key
from kit.sqlite import SQLITE
from models import BIGGEST_ID
from settings import Settings, get_settings

API = "/api/v1"
VERSION = "0.1.0"


class Stockroom(FastAPI):
    """FastAPI with our edge around everything, Starlette's own error pages included."""

    settings: Settings

    def build_middleware_stack(self) -> ASGIApp:
        """The layers that a request passes; called once, at the first request or the start."""
        inner: ASGIApp = QueueGate(super().build_middleware_stack())
        inner = RateGate(HostGate(inner, self.settings.allowed_hosts), self.settings)
        if self.settings.cors_origins:
            inner = CORSMiddleware(
                inner,
                allow_origins=self.settings.cors_origins,
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
        return Edge(inner, self.settings)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with the one schema that all errors have."""
        document = super().openapi()
        document["components"]["schemas"]["ProblemDetails"] = errors.ProblemDetails.model_json_schema()
        for model in document["components"]["schemas"].values():
            for field in model.get("properties", {}).values():
                for bound in {"minimum", "maximum"} & set(field):  # FastAPI makes floats of them, which round 2^63-1 up
                    field[bound] = min(int(field[bound]), BIGGEST_ID)
        return document


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


# Given flat: a tree of included routers would be searched twice at every level, for every request.
ROUTES = [
    route
    for router in (
        system,
        auth.public_router,
        recovery.router,
        auth.router,
        users.router,
        items_csv.router,  # before the items: `export` is not the id of one
        items.router,
        orders.router,
        posts.router,
        inbox.router,
        audit.router,
    )
    for route in router.routes
]


@asynccontextmanager
async def lifespan(app: Stockroom) -> AsyncGenerator[None]:
    """Start and stop the app; what blocks is done in a thread."""
    end_in_time()
    open_many_files()
    app.state.hashing_slots = passwords.HashingSlots()
    app.state.mailer = Mailer(app.settings)
    await run_in_threadpool(_start, app)
    if gc.get_freeze_count() == 0:
        gc.freeze()  # what is there now stays: to look through it for garbage stops everything for a tenth of a second
    gc.set_threshold(20_000)  # not several times in each request, which leaves little behind
    sys.setswitchinterval(0.001)  # seconds that a thread may keep the others waiting; the loop is one of them
    try:
        yield
    finally:
        await run_in_threadpool(app.state.database.close)


def _start(app: Stockroom) -> None:
    settings = app.settings
    configure_logging(settings)
    app.state.settings = settings
    app.state.secret_key = resolve_secret_key(settings)
    app.state.database = database = Database(settings)
    if settings.migrate_on_start:
        schema.upgrade(database)
    if schema.is_current(database):  # where it is not, /ready says so
        passwords.ensure_admin(database)
    database.log_version()


def create_app(settings: Settings) -> Stockroom:
    """Put an app together; it opens nothing before its lifespan begins."""
    app = Stockroom(
        title="Stockroom",
        summary="What is in stock, who ordered it, and what people say about it.",
        version=VERSION,
        lifespan=lifespan,
        routes=ROUTES,
        openapi_url=f"{API}/openapi.json" if settings.docs else None,
        docs_url=None,  # FastAPI's page takes Swagger UI from another host; ours is in kit/docs.py
        redoc_url=None,
        redirect_slashes=False,
        max_body_size=settings.max_body_bytes,
        exception_handlers={
            Problem: errors.on_problem,
            HTTPException: errors.on_http_exception,
            RequestValidationError: errors.on_validation_error,
            NoResultFound: errors.on_no_result,
            StaleDataError: errors.on_stale_data,
            IntegrityError: errors.on_integrity_error,
            DBAPIError: errors.on_database_error,
            SQLITE.Error: errors.on_database_error,
            PoolTimeout: errors.on_database_error,
            Exception: errors.on_unforeseen,
        },
    )
    app.settings = settings
    add_docs(app)
    return app


app = create_app(get_settings())
