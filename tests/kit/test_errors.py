"""Errors: one shape, the same words for the same fault, and never the input."""

from typing import Any

import psycopg
import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from kit.db import WriteSession
from kit.errors import database_problem
from kit.routing import Router
from kit.sqlite import SQLITE
from tests.kit.specimen import Footprint, Room
from tests.people import API, Person, Row

probes = Router(public=True, prefix="/probes")


@probes.get("/statuses/{status}")
def raise_status(status: int) -> None:
    raise HTTPException(status, "a detail of the library's")


@probes.get("/pool")
def wait_for_a_connection() -> None:
    raise PoolTimeout


@probes.get("/stale")
def lose_a_race() -> None:
    raise StaleDataError


@probes.post("/footprints")
def break_a_rule_of_the_table(session: WriteSession) -> None:
    session.add(Footprint(room_id=77))


@probes.post("/rooms")
def break_a_rule_with_a_name(seats: int, session: WriteSession) -> None:
    session.add(Room(name="Hall", seats=seats))


@probes.post("/statements")
def run_a_statement(sql: str, session: WriteSession) -> None:
    session.connection().exec_driver_sql(sql)


@pytest.mark.parametrize(
    ("status", "answered", "code"),
    [
        (400, 400, "BAD_REQUEST"),
        (404, 404, "NOT_FOUND"),
        (405, 405, "METHOD_NOT_ALLOWED"),
        (413, 413, "BODY_TOO_LARGE"),
        (500, 500, "INTERNAL_ERROR"),
        (502, 500, "INTERNAL_ERROR"),
    ],
)
def test_what_a_library_raises_by_status_has_our_words(
    client: TestClient, status: int, answered: int, code: str
) -> None:
    answer = client.get(f"/probes/statuses/{status}")

    assert (answer.status_code, answer.json()["status"], answer.json()["error_code"]) == (answered, answered, code)
    assert "library" not in answer.text


def test_the_same_fault_has_the_same_words_everywhere(ada: Person, hall: Row) -> None:
    answers = [ada.get("/rooms/77"), ada.patch("/rooms/77", {"seats": 1}), ada.delete("/rooms/77")]
    bodies = [answer.json() for answer in answers]

    assert {(body["status"], body["error_code"], body["detail"]) for body in bodies} == {
        (404, "ROOM_NOT_FOUND", "Room 77 was not found.")
    }


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/health", "GET"),
        ("DELETE", f"{API}/users", "GET, POST"),
        ("POST", f"{API}/users/me", "DELETE, GET, PATCH"),
        ("PUT", f"{API}/rooms/5", "DELETE, GET, PATCH"),
        ("OPTIONS", f"{API}/rooms/5", "DELETE, GET, PATCH"),
        ("PATCH", f"{API}/auth/token", "POST"),
        ("GET", f"{API}/auth/sessions/current", "DELETE"),
    ],
)
def test_a_wrong_method_is_told_every_right_one(client: TestClient, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)

    assert (answer.status_code, answer.json()["error_code"]) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"].split(", ") == sorted(allowed.split(", "))


@pytest.mark.parametrize("path", ["/nowhere", "/api/v1", f"{API}/rooms/", f"{API}/rooms/1/x", "/health/"])
def test_no_route_is_a_problem_and_never_a_redirect(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)

    assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND")


# Validation


@pytest.mark.parametrize(
    "body",
    [
        {"name": "hunter2" * 100, "seats": 1},
        {"name": ["hunter2"], "seats": "hunter2"},
        {"name": "Hall", "seats": 7777777777777},
        {"name": "Hall", "seats": 1, "tags": ["hunter2;"]},
        {"name": "Hall", "seats": 1, "tags": ["hunter2", "hunter2"]},
        {"name": "Hall", "seats": 1, "colour": {"hunter2": "hunter2"}},
        ["hunter2"],
        "hunter2",
    ],
)
def test_a_validation_error_never_echoes_the_input(ada: Person, body: Any) -> None:
    answer = ada.post("/rooms", body)

    assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR")
    assert "hunter2" not in answer.text
    assert "7777777777777" not in answer.text


@pytest.mark.parametrize(
    "path", ["/rooms/hunter2", "/rooms?sort=hunter2", "/rooms?is_tagged=hunter2", "/rooms?page=-77777"]
)
def test_a_validation_error_never_echoes_the_address(ada: Person, path: str) -> None:
    answer = ada.get(path)

    assert answer.status_code == 422
    assert "hunter2" not in answer.text
    assert "77777" not in answer.text


def test_a_validation_error_says_where_and_what(ada: Person) -> None:
    body = ada.post("/rooms", {"name": "", "seats": 1}).json()

    assert body["errors"] == [
        {"loc": ["body", "name"], "msg": "String should have at least 1 character", "type": "string_too_short"}
    ]
    assert body["detail"] == "body.name: String should have at least 1 character."


def test_a_body_without_end_of_faults_is_told_a_hundred(ada: Person) -> None:
    answer = ada.post("/rooms", {f"unknown-{number}": 1 for number in range(4000)})

    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert answer.json()["detail"].endswith("(99 more in errors).")
    assert len(answer.content) < 20_000


def test_a_query_without_end_of_faults_is_told_a_hundred(ada: Person) -> None:
    answer = ada.get("/rooms?" + "&".join(f"unknown{number}=1" for number in range(500)))

    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100


@pytest.mark.parametrize("where", ["body", "query"])
def test_a_long_name_that_a_client_made_up_is_cut_short(ada: Person, where: str) -> None:
    name = "x" * 10_000
    answer = ada.post("/rooms", {name: 1}) if where == "body" else ada.get(f"/rooms?{name}=1")

    assert answer.status_code == 422
    assert [where, "x" * 64] in [error["loc"] for error in answer.json()["errors"]]
    assert len(answer.content) < 1000


# The database


def test_a_taken_name_is_known_by_its_index(ada: Person, hall: Row) -> None:
    answer = ada.post("/rooms", {"name": "HALL", "seats": 1})

    assert (answer.status_code, answer.json()["error_code"]) == (409, "ROOM_NAME_TAKEN")
    assert answer.json()["detail"] == "Another room has this name."


def test_a_taken_e_mail_is_known_by_its_index(ada: Person, max: Person) -> None:
    answer = max.patch("/users/me", {"email": "ADA@example.com"})

    assert (answer.status_code, answer.json()["error_code"]) == (409, "EMAIL_TAKEN")


def test_any_other_broken_rule_is_a_conflict_that_names_no_table(client: TestClient) -> None:
    answer = client.post("/probes/footprints")

    assert (answer.status_code, answer.json()["error_code"]) == (409, "CONFLICT")
    assert "room" not in answer.text
    assert "footprint" not in answer.text


def test_a_broken_check_of_the_database_is_known_by_its_name(client: TestClient) -> None:
    answer = client.post("/probes/rooms?seats=-1")

    assert (answer.status_code, answer.json()["error_code"]) == (409, "ROOM_TOO_SMALL")


def test_a_statement_that_is_wrong_is_a_fault_of_ours(client: TestClient) -> None:
    answer = client.post("/probes/statements", params={"sql": "SELECT nothing FROM nowhere"})

    assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")
    assert "nowhere" not in answer.text


@pytest.mark.parametrize(
    ("path", "status", "code"), [("pool", 503, "DATABASE_BUSY"), ("stale", 412, "VERSION_CONFLICT")]
)
def test_what_the_library_of_the_database_raises_is_a_problem(
    client: TestClient, path: str, status: int, code: str
) -> None:
    answer = client.get(f"/probes/{path}")

    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (5, "DATABASE_BUSY"),
        (5 | 2 << 8, "DATABASE_BUSY"),  # SQLITE_BUSY_SNAPSHOT
        (6, "DATABASE_BUSY"),
        (8, "DATABASE_UNAVAILABLE"),
        (10, "DATABASE_UNAVAILABLE"),
        (10 | 13 << 8, "DATABASE_UNAVAILABLE"),  # SQLITE_IOERR_ACCESS
        (11, "DATABASE_UNAVAILABLE"),
        (13, "STORAGE_FULL"),
        (14, "DATABASE_UNAVAILABLE"),
        (15, "DATABASE_BUSY"),
        (26, "DATABASE_UNAVAILABLE"),
        (1, None),
        (19, None),
        (21, None),
    ],
)
def test_the_codes_of_sqlite_are_known(code: int, problem: str | None) -> None:
    error = SQLITE.OperationalError("a sentence")
    error.sqlite_errorcode = code
    found = database_problem(error)

    assert (found.code if found else None) == problem


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ("40001", "DATABASE_BUSY"),  # serialization failure
        ("40P01", "DATABASE_BUSY"),  # deadlock
        ("55P03", "DATABASE_BUSY"),  # lock not available
        ("53100", "STORAGE_FULL"),  # disk full
        ("53300", "DATABASE_BUSY"),  # too many connections
        ("57P01", "DATABASE_UNAVAILABLE"),  # the server is shut down
        ("57P03", "DATABASE_UNAVAILABLE"),  # the server is starting
        ("08006", "DATABASE_UNAVAILABLE"),  # the connection broke
        ("25P02", None),  # a statement after one that failed
        (None, "DATABASE_UNAVAILABLE"),  # the server was never reached
        ("42P01", None),  # no such table
        ("23505", None),  # a unique index, which is answered by its name
    ],
)
def test_the_states_of_postgres_are_known(state: str | None, problem: str | None) -> None:
    error = psycopg.OperationalError("a sentence")
    error.sqlstate = state
    found = database_problem(error)

    assert (found.code if found else None) == problem


def test_what_is_not_a_drivers_error_is_a_fault_of_ours() -> None:
    assert database_problem(ValueError("a sentence")) is None
    assert database_problem(None) is None
