"""The route class: what a signature may ask for, in which order a request is refused, and what an answer carries."""

import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, Query, Response
from fastapi.testclient import TestClient
from pydantic import BaseModel
from sqlmodel import Session, select
from starlette.requests import Request
from starlette.types import Message

import auth
from auth import AdminUser, CurrentUser
from kit.app import App
from kit.audit import AuditEntry, actor_of
from kit.db import Database, ReadSession, WriteSession, ending, read_session, write_session
from kit.models import now
from kit.problems import Forbidden
from kit.routing import Prepared, Route, Router, callers_of
from kit.sessions import FailedSignIn, LoginSession
from models import Principal
from tests.kit.specimen import Room, RoomPublic
from tests.people import API, Person, Row

anybody = Router(public=True, prefix=f"{API}/anybody")
guarded = Router(prefix=f"{API}/guarded")
fastapis_own = APIRouter(prefix="/own")

SPARE = Principal(77, "tom@example.com", "Tom", "admin", True, now(), now(), 7)


def signed_in(person: Person) -> dict[str, str]:
    return {"Authorization": f"Bearer {person.access_token}"}


# What a signature may ask for


def without_a_caller(session: ReadSession) -> None: ...
def with_two_sessions(user: CurrentUser, session: ReadSession, other: WriteSession) -> None: ...


def test_a_route_without_a_caller_is_refused_at_import() -> None:
    with pytest.raises(TypeError, match="without_a_caller is open to everyone: take a CurrentUser"):
        Router().get("/")(without_a_caller)


def test_a_route_with_two_sessions_is_refused_at_import() -> None:
    with pytest.raises(TypeError, match="other: a route has one session, and session is one already"):
        Router().get("/")(with_two_sessions)


def test_a_public_router_takes_a_route_for_everybody() -> None:
    router = Router(public=True)
    router.get("/")(without_a_caller)

    assert len(router.routes) == 1


@guarded.post("/as-named", status_code=201)
def add_room_in_a_session_of_another_name(mine: WriteSession, whoever: CurrentUser) -> str:
    mine.add(Room(name="Attic", seats=1))
    mine.flush()
    return f"{threading.current_thread() is threading.main_thread()} {actor_of(mine) == whoever.id}"


def test_a_session_and_a_caller_may_have_any_name(max: Person) -> None:
    answer = max.post("/guarded/as-named")

    assert (answer.status_code, answer.json()) == (201, "False True")
    assert max.get("/rooms").json()["total"] == 1


def full_caller(user: CurrentUser) -> Principal:
    """What a dependency of a route is given, too."""
    return user


@guarded.get("/in-a-dependency")
def in_a_dependency(found: Annotated[Principal, Depends(full_caller)], session: ReadSession) -> Row:
    return {"id": found.id, "email": found.email, "session_id": found.session_id, "is_admin": found.is_admin}


@guarded.get("/only-guarded", dependencies=[Depends(auth.admin_user)])
def only_guarded(session: ReadSession) -> None: ...


@guarded.get("/async")
async def on_the_event_loop(user: CurrentUser) -> int:
    """Does no I/O."""
    return user.id


@guarded.get("/without-a-session")
def without_a_session(user: CurrentUser) -> int:
    return user.id


@fastapis_own.get("/me")
def whose_own(user: CurrentUser) -> int:
    return user.id


def test_a_caller_is_a_whole_account_wherever_a_signature_asks_for_one(max: Person) -> None:
    found = max.get("/guarded/in-a-dependency").json()
    ids = [max.get(f"/guarded/{path}").json() for path in ("async", "without-a-session")]
    own = max.client.get("/own/me", headers=signed_in(max))

    assert found.pop("session_id") > 0
    assert found == {"id": max.id, "email": max.email, "is_admin": False}
    assert [*ids, own.json()] == [max.id] * 3


def test_a_caller_is_looked_up_and_judged_wherever_a_signature_asks_for_one(
    ada: Person, max: Person, subtests: pytest.Subtests
) -> None:
    assert ada.get("/guarded/only-guarded").status_code == 200
    assert max.get("/guarded/only-guarded").json()["error_code"] == "FORBIDDEN"
    max.delete("/auth/sessions/current")
    for path in ("in-a-dependency", "only-guarded", "async", "without-a-session"):
        with subtests.test(path):
            answer = max.get(f"/guarded/{path}")
            assert (answer.status_code, answer.json()["error_code"]) == (401, "NOT_AUTHENTICATED")
    assert max.client.get("/own/me", headers=signed_in(max)).status_code == 401
    assert max.client.get("/own/me").status_code == 401


# In which order a request is refused


def broken_calls(path: str) -> list[dict[str, Any]]:
    """What may be wrong with a request besides its caller."""
    json_type = {"Content-Type": "application/json"}
    return [
        {"method": "POST", "path": path, "content": b"{", "headers": json_type},
        {"method": "POST", "path": path, "content": b"\xff", "headers": json_type},
        {"method": "POST", "path": path, "content": b"{}"},
        {"method": "POST", "path": path, "json": {}},
        {"method": "POST", "path": f"{path}?colour=red", "json": {"name": "Attic", "seats": 1}},
        {"method": "PATCH", "path": f"{path}/first", "json": {}},
        {"method": "DELETE", "path": f"{path}/0"},
    ]


FOR_ADMINS = broken_calls("/rooms")
FOR_ALL: list[dict[str, Any]] = [
    *FOR_ADMINS,
    {"method": "PATCH", "path": "/users/me", "json": {"role": "admin"}},
    {"method": "PUT", "path": "/users/me/password", "json": {}},
    {"method": "GET", "path": "/rooms/first"},
    {"method": "GET", "path": "/rooms?page=0"},
    {"method": "GET", "path": "/rooms?colour=red"},
    {"method": "GET", "path": "/rooms?q=%ff"},
    {"method": "GET", "path": "/users/me?x=1"},
]


def send(client: TestClient, call: dict[str, Any], authorization: str) -> tuple[int, str]:
    call = dict(call)
    headers = {"Authorization": authorization} | call.pop("headers", {})
    answer = client.request(call.pop("method"), API + call.pop("path"), headers=headers, **call)
    return answer.status_code, answer.json()["error_code"]


def anonymous(_ada: Person, _max: Person) -> str:
    return ""


def with_a_wrong_token(_ada: Person, _max: Person) -> str:
    return "Bearer nonsense"


def signed_out(_ada: Person, max: Person) -> str:
    max.delete("/auth/sessions/current")
    return f"Bearer {max.access_token}"


def deactivated(ada: Person, max: Person) -> str:
    ada.patch(f"/users/{max.id}", {"is_active": False})
    return f"Bearer {max.access_token}"


@pytest.mark.parametrize("caller", [anonymous, with_a_wrong_token, signed_out, deactivated])
def test_a_stranger_is_told_to_sign_in_whatever_else_is_wrong(
    ada: Person, max: Person, caller: Callable[[Person, Person], str], subtests: pytest.Subtests
) -> None:
    authorization = caller(ada, max)
    for call in FOR_ALL:
        with subtests.test(f"{call['method']} {call['path']}"):
            assert send(ada.client, call, authorization) == (401, "NOT_AUTHENTICATED")


def test_a_member_is_told_that_it_is_for_admins_whatever_else_is_wrong(max: Person, subtests: pytest.Subtests) -> None:
    for call in FOR_ADMINS:
        with subtests.test(f"{call['method']} {call['path']}"):
            assert send(max.client, call, f"Bearer {max.access_token}") == (403, "FORBIDDEN")


@pytest.mark.anyio
async def test_a_body_is_not_read_before_the_token_is_checked(app: App, client: TestClient) -> None:
    read: list[str] = []

    async def receive() -> Message:
        read.append("body")
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Message) -> None:
        read.append(str(message.get("status", "end")))

    headers = [(b"host", b"testserver"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": f"{API}/rooms", "query_string": b"", "headers": headers}
    await app(scope | {"client": None, "http_version": "1.1"}, receive, send)

    assert read == ["401", "end"]


@pytest.fixture
def hashed() -> list[str]:
    """The texts that took a slow hash in this test."""
    HASHED.clear()
    return HASHED


HASHED: list[str] = []


class Secret(BaseModel):
    text: str


def _slow(_request: Request, secret: Secret) -> Callable[[], str]:
    def hash_it() -> str:
        HASHED.append(secret.text)
        return secret.text[::-1]

    return hash_it


def _of_the_caller(_request: Request, user: Principal) -> Callable[[], str] | None:
    return (lambda: user.email) if user.is_admin else None


@guarded.put("/hash")
def keep_hash(secret: Secret, value: Annotated[str, Prepared(_slow)], admin: AdminUser, session: WriteSession) -> str:
    return value


@guarded.put("/hash-of-the-caller")
def keep_hash_of_the_caller(
    value: Annotated[str | None, Prepared(_of_the_caller)], user: CurrentUser, session: WriteSession
) -> str | None:
    return value


def test_a_hash_is_computed_when_all_else_is_right(
    ada: Person, max: Person, hashed: list[str], subtests: pytest.Subtests
) -> None:
    wrong: list[tuple[str, Person, str, dict[str, Any]]] = [
        ("a member", max, "", {"json": {"text": "abc"}}),
        ("a parameter", ada, "?x=1", {"json": {"text": "abc"}}),
        ("no body", ada, "", {"json": {}}),
        ("no JSON", ada, "", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    ]
    for name, person, query, options in wrong:
        with subtests.test(name):
            assert person.request("PUT", f"/guarded/hash{query}", **options).status_code in (403, 422)
            assert hashed == []
    assert ada.put("/guarded/hash", {"text": "abc"}).json() == "cba"
    assert hashed == ["abc"]


def test_a_hash_may_be_of_the_caller_and_may_be_none(ada: Person, max: Person) -> None:
    assert ada.put("/guarded/hash-of-the-caller").json() == ada.email
    assert max.put("/guarded/hash-of-the-caller").json() is None


def test_a_password_is_neither_checked_nor_counted_where_the_request_is_wrong(
    app: App, max: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise AssertionError("somebody checked the password")

    monkeypatch.setattr(auth, "check_password", refuse)
    body = {"current_password": "wrong", "new_password": "Correct-horse-2"}
    wrong = [max.put("/users/me/password?x=1", body), max.put("/users/me/password", body | {"more": 1})]
    with ending(app.state.database.read()) as session:
        failures = session.exec(select(FailedSignIn)).all()

    assert [answer.status_code for answer in wrong] == [422, 422]
    assert failures == []


# Versions


def test_a_version_that_the_caller_has_is_not_sent_again(ada: Person, hall: Row, subtests: pytest.Subtests) -> None:
    same = ['"1"', 'W/"1"', "*", '"7", "1"', '"7",W/"1" ,"8"', ' "1" ']
    other = ['"2"', 'W/"2", "11"', "1", "", "nonsense,,", '"é"']
    for tags, status in [*((tags, 304) for tags in same), *((tags, 200) for tags in other)]:
        with subtests.test(tags):
            headers = {b"Authorization": f"Bearer {ada.access_token}".encode(), b"If-None-Match": tags.encode()}
            answer = ada.client.get(f"{API}/rooms/{hall['id']}", headers=headers)
            assert (answer.status_code, answer.headers["etag"]) == (status, '"1"')
            assert answer.content == b"" if status == 304 else answer.json() == hall
            assert ("content-length" in answer.headers) == (status == 200)


def test_a_change_gives_a_version_of_its_own(ada: Person, hall: Row) -> None:
    changed = ada.patch(f"/rooms/{hall['id']}", {"seats": 3}, headers={"If-None-Match": "*"})
    read = ada.get(f"/rooms/{hall['id']}", headers={"If-None-Match": '"1"'})

    assert (changed.status_code, changed.headers["etag"], changed.json()["version"]) == (200, '"2"', 2)
    assert (read.status_code, read.headers["etag"], read.json()) == (200, '"2"', changed.json())


def test_a_version_that_is_not_the_latest_may_not_be_changed(ada: Person, hall: Row) -> None:
    path = f"/rooms/{hall['id']}"
    ada.patch(path, {"seats": 3})
    late = [ada.patch(path, {"seats": 4}, headers={"If-Match": '"1"'}), ada.delete(path, headers={"If-Match": '"1"'})]
    in_time = ada.patch(path, {"seats": 4}, headers={"If-Match": '"1", "2"'})

    assert [(answer.status_code, answer.json()["error_code"]) for answer in late] == [(412, "VERSION_CONFLICT")] * 2
    assert in_time.json()["seats"] == 4


def test_rows_without_a_version_have_no_tag(ada: Person, hall: Row) -> None:
    for path in ("/users/me", "/rooms", "/users"):
        assert "etag" not in ada.get(path).headers


# Answers


@guarded.get("/broken", response_model=RoomPublic)
def broken(user: CurrentUser, session: ReadSession) -> Any:
    return {"name": "a secret"}


@anybody.get("/headers")
def set_headers(response: Response) -> int:
    response.headers["X-Of-Ours"] = "1"
    return 1


def test_an_answer_tells_its_length_and_its_type(ada: Person, hall: Row) -> None:
    for answer in (ada.get("/rooms"), ada.post("/rooms", {"name": "Attic", "seats": 1})):
        assert answer.headers.get_list("content-type") == ["application/json"]
        assert answer.headers.get_list("content-length") == [str(len(answer.content))]


def test_a_new_row_says_where_it_is(ada: Person) -> None:
    answer = ada.post("/rooms", {"name": "Attic", "seats": 1})

    assert answer.headers["location"] == f"{API}/rooms/{answer.json()['id']}"
    assert answer.headers["etag"] == '"1"'


def test_an_answer_without_a_body_has_none(ada: Person, hall: Row) -> None:
    answer = ada.delete(f"/rooms/{hall['id']}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers


def test_an_answer_has_the_headers_that_the_route_gave_it(client: TestClient) -> None:
    answer = client.get(f"{API}/anybody/headers")

    assert (answer.headers["x-of-ours"], answer.headers.get_list("content-length")) == ("1", ["1"])


def test_an_answer_that_does_not_fit_its_model_is_a_fault_of_ours(ada: Person) -> None:
    answer = ada.get("/guarded/broken")

    assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in answer.text


def test_a_row_that_is_missing_is_named_wherever_its_id_came_from(ada: Person) -> None:
    in_a_path = ada.get("/rooms/77")
    in_a_body = ada.post("/bookings", {"room_id": 78, "starts_at": "2026-01-31T10:00:00Z"})

    assert (in_a_path.status_code, in_a_path.json()["error_code"]) == (404, "ROOM_NOT_FOUND")
    assert (in_a_body.status_code, in_a_body.json()["error_code"]) == (404, "ROOM_NOT_FOUND")
    assert in_a_body.json()["detail"] == "Room 78 was not found."


# FastAPI's own routes with our sessions


@fastapis_own.post("/rooms", status_code=201)
def add_room(name: str, session: WriteSession) -> int:
    room = Room(name=name, seats=1)
    session.add(room)
    session.flush()
    return room.id


@fastapis_own.post("/orphans", status_code=201)
def add_orphan(session: WriteSession) -> str:
    """With the foreign keys deferred, SQLite notices at the commit only."""
    session.connection().exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    session.add(LoginSession(user_id=999, family_hash="f", secret_hash="s", expires_at=now()))
    session.flush()
    return "stored"


@fastapis_own.post("/refusals")
def refuse(session: WriteSession) -> None:
    session.add(Room(name="Hall", seats=1))
    session.flush()
    raise Forbidden


@fastapis_own.get("/rooms")
def names(session: ReadSession) -> list[str]:
    return list(session.exec(select(Room.name)))


@fastapis_own.get("/rooms/{room_id}/seats")
def seats(room_id: int, session: ReadSession) -> int:
    return session.get_one(Room, room_id).seats


@pytest.fixture
def other(app: App) -> Generator[Database]:
    """The same database on connections of its own."""
    database = Database(app.settings)
    yield database
    database.close()


def rooms_in(database: Database) -> list[str]:
    with ending(database.read()) as session:
        return list(session.exec(select(Room.name)))


def test_a_route_of_fastapi_is_stored_before_it_is_answered(client: TestClient, other: Database) -> None:
    answer = client.post("/own/rooms?name=Hall")

    assert (answer.status_code, answer.json()) == (201, 1)
    assert rooms_in(other) == client.get("/own/rooms").json() == ["Hall"]
    assert client.get("/own/rooms/1/seats").json() == 1
    assert client.get("/own/rooms/2/seats").json()["error_code"] == "ROOM_NOT_FOUND"


@pytest.mark.sqlite_only("it defers foreign keys")
def test_a_route_of_fastapi_whose_commit_fails_is_not_answered_as_a_success(
    client: TestClient, other: Database
) -> None:
    answer = client.post("/own/orphans")

    assert (answer.status_code, answer.json()["error_code"]) == (409, "CONFLICT")
    with ending(other.read()) as session:
        assert session.exec(select(LoginSession)).all() == []
    assert client.post("/own/rooms?name=Hall").status_code == 201


def test_a_route_of_fastapi_that_raises_stores_nothing(client: TestClient, other: Database) -> None:
    assert client.post("/own/refusals").json()["error_code"] == "FORBIDDEN"
    assert rooms_in(other) == []


@pytest.mark.sqlite_only("it asks for its write lock")
def test_a_route_of_fastapi_gives_the_write_lock_back(client: TestClient, other: Database) -> None:
    for path in ("rooms?name=Hall", "orphans", "refusals", "rooms?name=hall"):
        client.post(f"/own/{path}")
        with ending(other.write()) as session:
            session.exec(select(Room)).all()


# Dependencies that a test overrides


@anybody.get("/names")
def names_of_rooms(session: ReadSession) -> list[str]:
    return list(session.exec(select(Room.name)))


@guarded.post("/rooms", status_code=201)
def add_room_as_admin(name: str, admin: AdminUser, session: WriteSession) -> str:
    session.add(Room(name=name, seats=1))
    session.flush()
    return f"{admin.full_name} {actor_of(session)}"


def plain_function() -> Principal:
    return SPARE


def generator() -> Generator[Principal]:
    yield SPARE


async def async_generator() -> AsyncGenerator[Principal]:
    yield SPARE


def of_the_query(name: Annotated[str, Query()] = "Tom") -> str:
    return name


def with_dependencies_of_its_own(request: Request, name: Annotated[str, Depends(of_the_query)]) -> Principal:
    assert request.url
    return SPARE._replace(full_name=name)


OVERRIDES: list[Callable[..., Any]] = [plain_function, generator, async_generator, with_dependencies_of_its_own]


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_caller_can_be_overridden_so_that_nobody_needs_a_token(
    app: App, client: TestClient, override: Callable[..., Any], subtests: pytest.Subtests
) -> None:
    app.dependency_overrides = {auth.current_user: override, auth.admin_user: override}
    for path in ("async", "without-a-session"):
        with subtests.test(path):
            assert client.get(f"{API}/guarded/{path}").json() == 77
    assert client.get(f"{API}/guarded/in-a-dependency").json()["id"] == 77
    assert client.get("/own/me").json() == 77
    assert client.get(f"{API}/guarded/only-guarded").status_code == 200
    named = client.post(f"{API}/guarded/rooms?name=Attic")

    assert (named.status_code, named.text) == (
        201,
        '"Attic 77"' if "name" in override.__code__.co_varnames else '"Tom 77"',
    )
    with app.state.database.read() as session:
        assert session.exec(select(AuditEntry.actor_id).where(AuditEntry.entity == "room")).all() == [77]


def test_an_override_of_a_caller_leaves_the_rest_of_the_route_as_it_is(app: App, client: TestClient) -> None:
    app.dependency_overrides = {auth.admin_user: plain_function}
    anonymous = client.get(f"{API}/rooms")  # its caller is not overridden
    new = client.post(f"{API}/rooms", json={"name": "Attic", "seats": 2})
    twice = client.post(f"{API}/rooms", json={"name": "ATTIC", "seats": 2})
    wrong = client.post(f"{API}/rooms", json={"name": "Cellar", "seats": 0})
    unknown_here = client.post(f"{API}/rooms?colour=red", json={"name": "Cellar", "seats": 1})

    assert anonymous.status_code == 401
    assert (new.status_code, new.headers["etag"], new.headers["location"]) == (201, '"1"', f"{API}/rooms/1")
    assert (twice.status_code, twice.json()["error_code"]) == (409, "ROOM_NAME_TAKEN")
    assert (wrong.status_code, unknown_here.status_code) == (422, 422)
    app.dependency_overrides = {}
    assert client.post(f"{API}/rooms", json={"name": "Cellar", "seats": 1}).status_code == 401


def test_a_hash_is_computed_for_a_caller_that_is_overridden(app: App, client: TestClient, hashed: list[str]) -> None:
    app.dependency_overrides = {auth.admin_user: plain_function, auth.current_user: plain_function}

    assert client.put(f"{API}/guarded/hash", json={"text": "abc"}).json() == "cba"
    assert client.put(f"{API}/guarded/hash-of-the-caller").json() == SPARE.email
    assert hashed == ["abc"]


def test_a_session_can_be_overridden_by_a_generator(app: App, client: TestClient) -> None:
    log: list[str] = []
    database: Database = app.state.database

    def reading() -> Generator[Session]:
        with database.read() as session:
            log.append("reads")
            yield session
        log.append("read")

    def writing() -> Generator[Session]:
        with ending(database.write()) as session:
            log.append("writes")
            yield session
        log.append("written")

    app.dependency_overrides = {read_session: reading, write_session: writing, auth.admin_user: plain_function}

    assert client.post(f"{API}/guarded/rooms?name=Attic").json() == "Tom 77"
    assert client.get(f"{API}/anybody/names").json() == client.get("/own/rooms").json() == ["Attic"]
    assert log == ["writes", "written", "reads", "read", "reads", "read"]


# What the documentation is told


def documented(app: App, method: str, path: str) -> dict[str, str]:
    operation = app.openapi()["paths"][path][method]
    return {status: answer["description"] for status, answer in operation["responses"].items()}


def test_a_route_documents_what_follows_from_its_signature(app: App, subtests: pytest.Subtests) -> None:
    for method, path, statuses in [
        ("get", f"{API}/rooms/{{room_id}}", "200 304 400 401 404 422 500 503"),
        ("patch", f"{API}/rooms/{{room_id}}", "200 400 401 403 404 409 412 413 422 500 503 507"),
        ("delete", f"{API}/rooms/{{room_id}}", "204 400 401 403 404 409 412 422 500 503 507"),
        ("get", f"{API}/rooms", "200 400 401 422 500 503"),
        ("get", f"{API}/guarded/in-a-dependency", "200 400 401 422 500 503"),
        ("get", f"{API}/guarded/only-guarded", "200 400 401 403 422 500 503"),
        ("get", f"{API}/anybody/names", "200 400 422 500 503"),
        ("post", f"{API}/auth/register", "201 400 403 409 413 422 429 500 503 507"),
        ("post", f"{API}/auth/token", "200 400 413 422 429 500 503 507"),
    ]:
        with subtests.test(f"{method} {path}"):
            assert sorted(documented(app, method, path)) == statuses.split()


def test_a_route_documents_the_codes_of_each_status(app: App) -> None:
    change = documented(app, "patch", f"{API}/rooms/{{room_id}}")
    booking = documented(app, "post", f"{API}/bookings")

    assert change["400"] == "BAD_REQUEST, HOST_NOT_ALLOWED"
    assert change["403"] == "FORBIDDEN"
    assert change["404"] == "ROOM_NOT_FOUND"
    assert change["409"] == "ROOM_NAME_TAKEN"
    assert change["503"] == "DATABASE_BUSY, DATABASE_UNAVAILABLE"
    assert booking["422"] == "VALIDATION_ERROR, IDEMPOTENCY_KEY_REUSED"


# What FastAPI keeps of a signature, which it documents nowhere


class Filter(BaseModel):
    colour: str = ""
    size: int = 1


def nested(
    size_name: Annotated[str, Query(alias="size-name")] = "", inner: Annotated[str, Depends(of_the_query)] = ""
) -> str:
    return size_name + inner


def test_the_names_of_all_parameters_and_all_callers_are_read_from_a_signature() -> None:
    def look(
        filters: Annotated[Filter, Query()],
        word: Annotated[str, Depends(nested)],
        who: Annotated[Any, Depends(full_caller)],
    ) -> None: ...

    router = Router()
    router.get("/{room_id}")(look)
    [route] = router.routes
    assert isinstance(route, Route)

    assert route.query_names == {"colour", "size", "size-name", "name"}
    assert callers_of(route) == [auth.current_user]
