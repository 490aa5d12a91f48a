"""The route class: who must be known, what a version answers, and what the documentation is told."""

from collections.abc import Callable, Generator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends
from fastapi.testclient import TestClient
from sqlmodel import select

from app import Stockroom, create_app
from callers import AdminUser, Caller, CurrentUser, admin_user, current_user
from kit.db import Database, ReadSession, WriteSession, ending
from kit.problems import Forbidden, InvalidCredentials
from kit.routing import Route, Router
from kit.sqlite import SQLITE
from models import Item, ItemPublic, LoginSession, now
from settings import Settings
from tests.conftest import API, Person

plain = APIRouter(prefix="/plain")


@plain.post("/items", status_code=201)
def add_item(name: str, session: WriteSession) -> int:
    item = Item(name=name, price_cents=1)
    session.add(item)
    session.flush()
    return item.id


@plain.post("/orphans", status_code=201)
def add_orphan(session: WriteSession) -> str:
    """With the foreign keys deferred, SQLite notices at the commit only."""
    session.connection().exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    session.add(LoginSession(user_id=999, family_hash="f", secret_hash="s", expires_at=now()))
    session.flush()
    return "stored"


@plain.post("/refusals")
def refuse(session: WriteSession) -> None:
    session.add(Item(name="Lamp", price_cents=1))
    session.flush()
    raise Forbidden


@plain.get("/items")
def names(session: ReadSession) -> list[str]:
    return list(session.exec(select(Item.name)))


@plain.get("/items/{item_id}/price")
def price(item_id: int, session: ReadSession) -> int:
    return session.get_one(Item, item_id).price_cents


async def callers_id(caller: Annotated[Caller, Depends(current_user)]) -> int:
    """What a dependency might do that never looks the caller up."""
    return caller.user_id


guarded = Router(prefix="/guarded")


@guarded.get("/id")
def own_id(user_id: Annotated[int, Depends(callers_id)], session: ReadSession) -> int:
    return user_id


@guarded.get("/broken", response_model=ItemPublic)
def broken(user: CurrentUser, session: ReadSession) -> Any:
    return {"name": "a secret"}


@pytest.fixture
def app(settings: Settings) -> Stockroom:
    app = create_app(settings)
    app.include_router(plain)
    app.include_router(guarded)
    return app


@pytest.fixture
def other(settings: Settings) -> Generator[Database]:
    """The same file on connections of its own."""
    database = Database(settings)
    yield database
    database.close()


def count(database: Database) -> int:
    with ending(database.read()) as session:
        return len(session.exec(select(Item.id)).all())


# Who must be known


def without_a_caller(session: ReadSession) -> None: ...
def without_a_session(user: CurrentUser) -> None: ...
async def on_the_event_loop(user: CurrentUser, session: ReadSession) -> None: ...
def with_another_session_name(user: CurrentUser, database: ReadSession) -> None: ...


@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        (without_a_caller, "without_a_caller is open to everyone"),
        (without_a_session, "without_a_session cannot know its caller"),
        (on_the_event_loop, "on_the_event_loop cannot know its caller"),
        (with_another_session_name, "with_another_session_name cannot know its caller"),
    ],
)
def test_a_route_that_would_not_know_its_caller_is_refused_at_import(
    endpoint: Callable[..., Any], sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence):
        Router().get("/")(endpoint)


@pytest.mark.parametrize("guard", [current_user, admin_user])
def test_a_caller_that_is_no_parameter_is_refused_at_import(guard: Callable[..., Any]) -> None:
    def look(user: CurrentUser, session: ReadSession) -> None: ...

    for public in (True, False):
        with pytest.raises(TypeError, match="look cannot know its caller"):
            Router(public=public).get("/", dependencies=[Depends(guard)])(look)


def test_a_public_router_takes_a_route_for_everybody() -> None:
    router = Router(public=True)
    router.get("/")(without_a_caller)

    assert len(router.routes) == 1


def test_a_caller_is_looked_up_even_where_only_a_dependency_asks(ada: Person) -> None:
    signed_in = {"Authorization": f"Bearer {ada.access_token}"}
    before = ada.client.get("/guarded/id", headers=signed_in)
    ada.delete("/auth/sessions/current")
    after = ada.client.get("/guarded/id", headers=signed_in)

    assert before.json() == ada.id
    assert (after.status_code, after.json()["error_code"]) == (401, "NOT_AUTHENTICATED")


# Versions


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ('"1"', 304),
        ('W/"1"', 304),
        ("*", 304),
        ('"7", "1"', 304),
        ('"7",W/"1" ,"8"', 304),
        (' "1" ', 304),
        ('"2"', 200),
        ('W/"2", "11"', 200),
        ("1", 200),
        ("", 200),
        ("nonsense,,", 200),
        ('"é"', 200),
    ],
)
def test_a_version_that_the_caller_has_is_not_sent_again(
    ada: Person, lamp: dict[str, Any], tags: str, status: int
) -> None:
    answer = ada.client.get(
        f"{API}/items/{lamp['id']}",
        headers={b"Authorization": f"Bearer {ada.access_token}".encode(), b"If-None-Match": tags.encode()},
    )

    assert answer.status_code == status
    assert answer.headers["etag"] == '"1"'
    assert answer.content == b"" if status == 304 else answer.json() == lamp
    assert ("content-length" in answer.headers) == (status == 200)


def test_a_change_gives_a_version_of_its_own(ada: Person, lamp: dict[str, Any]) -> None:
    changed = ada.patch(f"/items/{lamp['id']}", {"quantity": 3}, headers={"If-None-Match": "*"})
    read = ada.get(f"/items/{lamp['id']}", headers={"If-None-Match": '"1"'})

    assert (changed.status_code, changed.headers["etag"], changed.json()["version"]) == (200, '"2"', 2)
    assert (read.status_code, read.headers["etag"], read.json()) == (200, '"2"', changed.json())


def test_rows_without_a_version_have_no_tag(ada: Person, lamp: dict[str, Any]) -> None:
    for path in ("/users/me", "/items", "/users"):
        assert "etag" not in ada.get(path).headers


# Answers


def test_an_answer_tells_its_length_and_its_type(ada: Person, lamp: dict[str, Any]) -> None:
    for answer in (ada.get("/items"), ada.post("/items", {"name": "Chair", "price_cents": 1})):
        assert answer.headers.get_list("content-type") == ["application/json"]
        assert answer.headers.get_list("content-length") == [str(len(answer.content))]


def test_an_answer_without_a_body_has_none(ada: Person, lamp: dict[str, Any]) -> None:
    answer = ada.delete(f"/items/{lamp['id']}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers


def test_an_answer_that_does_not_fit_its_model_is_a_fault_of_ours(ada: Person) -> None:
    answer = ada.client.get("/guarded/broken", headers={"Authorization": f"Bearer {ada.access_token}"})

    assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in answer.text


# FastAPI's own routes with our sessions


def test_a_plain_route_is_stored_before_it_is_answered(client: TestClient, other: Database) -> None:
    answer = client.post("/plain/items?name=Lamp")

    assert (answer.status_code, answer.json()) == (201, 1)
    assert count(other) == 1
    assert client.get("/plain/items").json() == ["Lamp"]
    assert client.get("/plain/items/1/price").json() == 1


@pytest.mark.sqlite_only("it sets or reads a PRAGMA")
def test_a_plain_route_whose_commit_fails_is_not_answered_as_a_success(client: TestClient, other: Database) -> None:
    answer = client.post("/plain/orphans")

    assert (answer.status_code, answer.json()["error_code"]) == (409, "CONFLICT")
    with ending(other.read()) as session:
        assert session.exec(select(LoginSession)).all() == []
    assert client.post("/plain/items?name=Lamp").status_code == 201


def test_a_plain_route_that_raises_stores_nothing(client: TestClient, other: Database) -> None:
    assert client.post("/plain/refusals").json()["error_code"] == "FORBIDDEN"
    assert count(other) == 0


@pytest.mark.sqlite_only("another connection holds the one write lock")
def test_a_plain_route_gives_the_write_lock_back(client: TestClient, settings: Settings) -> None:
    for path in ("items?name=Lamp", "orphans", "refusals", "items?name=lamp"):
        client.post(f"/plain/{path}")
        another = SQLITE.connect(settings.sqlite_path, isolation_level=None, timeout=0)
        another.execute("BEGIN IMMEDIATE")
        another.close()


# What the documentation is told


def documented(app: Stockroom, method: str, path: str) -> dict[str, str]:
    operation = app.openapi()["paths"][path][method]
    return {status: answer["description"] for status, answer in operation["responses"].items()}


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("get", f"{API}/items/{{item_id}}", "200 304 400 401 404 422 500 503"),
        ("patch", f"{API}/items/{{item_id}}", "200 400 401 403 404 409 412 413 422 500 503 507"),
        ("delete", f"{API}/items/{{item_id}}", "204 400 401 403 404 409 412 422 500 503 507"),
        ("get", f"{API}/items", "200 400 401 422 500 503"),
        ("post", f"{API}/auth/register", "201 400 403 409 413 422 500 503 507"),
        ("post", f"{API}/auth/token", "200 400 413 422 429 500 503 507"),
        ("get", f"{API}/users/me", "200 400 401 422 500 503"),
    ],
)
def test_a_route_documents_what_follows_from_its_signature(
    app: Stockroom, method: str, path: str, statuses: str
) -> None:
    assert sorted(documented(app, method, path)) == statuses.split()


def test_a_route_documents_the_codes_of_each_status(app: Stockroom) -> None:
    change = documented(app, "patch", f"{API}/items/{{item_id}}")

    assert change["400"] == "BAD_REQUEST, HOST_NOT_ALLOWED"
    assert change["404"] == "ITEM_NOT_FOUND"
    assert change["409"] == "ITEM_NAME_TAKEN"
    assert change["503"] == "DATABASE_BUSY, DATABASE_UNAVAILABLE"


def test_a_problem_of_a_dependency_is_documented_with_it() -> None:
    def look(admin: AdminUser, session: ReadSession) -> None: ...

    router = Router()
    router.get("/things/{thing_id}", responses={400: {"description": InvalidCredentials.code}})(look)
    route = router.routes[-1]
    assert isinstance(route, Route)
    responses = route.responses

    assert responses[403]["description"] == "FORBIDDEN"
    assert responses[404]["description"] == "THING_NOT_FOUND"
    assert responses[400]["description"] == "BAD_REQUEST, HOST_NOT_ALLOWED, INVALID_CREDENTIALS"
