"""Requests that may be repeated: the first answer is given again, and only that of a success is kept."""

from datetime import timedelta
from typing import Any

import pytest
from httpx2 import Response
from sqlmodel import select

import auth
from auth import CurrentUser
from kit.app import App
from kit.cleaning import clean
from kit.db import WriteSession, ending
from kit.idempotency import IdempotencyKey, IdempotencyKeyHeader, request_hash
from kit.models import RequestBody, now
from kit.problems import Forbidden
from kit.routing import Router
from models import Principal
from tests.kit.specimen import Booking, Room, RoomPublic
from tests.people import API, Person, Row, at_once, with_key

keyed = Router(prefix=f"{API}/keyed")


class Wish(RequestBody):
    """What somebody wishes for."""

    name: str
    seats: int


@keyed.post("/rooms", status_code=201, response_model=RoomPublic)
def add_room(data: Wish, user: CurrentUser, session: WriteSession, key: IdempotencyKeyHeader = None) -> Room:
    """Add a room with a version."""
    room = Room(name=data.name, seats=data.seats)
    session.add(room)
    session.flush()
    return room


@keyed.post("/refusals/{number}")
def refuse(number: int, user: CurrentUser, session: WriteSession, key: IdempotencyKeyHeader = None) -> None:
    """Refuse whatever comes."""
    session.add(Room(name="Refused", seats=1))
    session.flush()
    raise Forbidden


@keyed.post("/numbers/{number}")
def answer_a_number(number: int, user: CurrentUser, session: WriteSession, key: IdempotencyKeyHeader = None) -> int:
    """Answer without a body to tell requests apart."""
    return number


def booking(hall: Row, hour: int = 10) -> dict[str, Any]:
    return {"room_id": hall["id"], "starts_at": f"2026-01-31T{hour}:00:00Z"}


def amount(app: App, table: type[Booking | Room | IdempotencyKey]) -> int:
    with ending(app.state.database.read()) as session:
        return len(session.exec(select(table)).all())


def told(answer: Response) -> tuple[int, str, str | None, str | None]:
    return answer.status_code, answer.text, answer.headers.get("location"), answer.headers.get("etag")


def test_a_repetition_is_answered_with_the_first_answer_and_done_once(app: App, max: Person, hall: Row) -> None:
    first, again = [max.post("/bookings", booking(hall), **with_key("monday")) for _ in range(2)]

    assert told(first) == told(again)
    assert first.status_code == 201
    assert first.headers["location"] == f"/api/v1/bookings/{first.json()['id']}"
    assert again.headers["content-type"] == "application/json"
    assert [answer.headers.get("idempotent-replayed") for answer in (first, again)] == [None, "true"]
    assert amount(app, Booking) == 1


def test_a_repetition_has_the_version_of_the_first_answer(ada: Person) -> None:
    body = {"name": "Attic", "seats": 3}
    first = ada.post("/keyed/rooms", body, **with_key("monday"))
    ada.patch(f"/rooms/{first.json()['id']}", {"seats": 4})
    again = ada.post("/keyed/rooms", body, **with_key("monday"))

    assert told(first) == told(again)
    assert (again.headers["etag"], again.json()["seats"]) == ('"1"', 3)


def test_a_body_is_the_same_however_it_is_written(app: App, max: Person, hall: Row) -> None:
    first = max.post("/bookings", booking(hall), **with_key("monday"))
    reordered = dict(reversed(booking(hall).items())) | {"starts_at": "2026-01-31T11:00:00+01:00"}

    assert told(max.post("/bookings", reordered, **with_key("monday"))) == told(first)
    assert amount(app, Booking) == 1


def test_another_body_or_another_path_is_refused(app: App, max: Person, hall: Row) -> None:
    max.post("/bookings", booking(hall), **with_key("monday"))
    max.post("/keyed/numbers/1", **with_key("tuesday"))
    refused = [
        max.post("/bookings", booking(hall, 11), **with_key("monday")),
        max.post("/keyed/numbers/1", **with_key("monday")),
        max.post("/keyed/numbers/2", **with_key("tuesday")),
    ]

    assert {(answer.status_code, answer.json()["error_code"]) for answer in refused} == {
        (422, "IDEMPOTENCY_KEY_REUSED")
    }
    assert amount(app, Booking) == 1


def test_a_key_is_its_callers_own(app: App, max: Person, eva: Person, hall: Row) -> None:
    answers = [person.post("/bookings", booking(hall, 10), **with_key("monday")) for person in (max, eva)]

    assert [answer.json()["guest_id"] for answer in answers] == [max.id, eva.id]
    assert amount(app, Booking) == 2


def test_without_a_key_a_request_is_done_as_often_as_it_comes(app: App, max: Person, hall: Row) -> None:
    for _ in range(2):
        max.post("/bookings", booking(hall))

    assert (amount(app, Booking), amount(app, IdempotencyKey)) == (2, 0)


def test_of_many_at_once_one_is_done_and_all_have_its_answer(app: App, max: Person, hall: Row) -> None:
    answers = at_once(8, lambda _: max.post("/bookings", booking(hall), **with_key("monday")))

    assert len({told(answer) for answer in answers}) == 1
    assert [answer.status_code for answer in answers] == [201] * 8
    assert sorted("idempotent-replayed" in answer.headers for answer in answers) == [False] + [True] * 7
    assert amount(app, Booking) == 1


def test_only_a_success_is_kept(app: App, max: Person, hall: Row) -> None:
    refused = [max.post("/keyed/refusals/1", **with_key("monday")) for _ in range(2)]
    missing = max.post("/bookings", {"room_id": 77, "starts_at": "2026-01-31T10:00Z"}, **with_key("tuesday"))
    wrong = max.post("/bookings", {}, **with_key("wednesday"))
    mended = max.post("/bookings", booking(hall), **with_key("tuesday"))

    assert [answer.status_code for answer in (*refused, missing, wrong, mended)] == [403, 403, 404, 422, 201]
    assert [answer for answer in refused if "idempotent-replayed" in answer.headers] == []
    assert (amount(app, IdempotencyKey), amount(app, Room)) == (1, 1)


def test_a_key_is_kept_for_a_day(app: App, max: Person, hall: Row) -> None:
    max.post("/bookings", booking(hall), **with_key("monday"))
    with ending(app.state.database.write()) as session:
        [key] = session.exec(select(IdempotencyKey))
        key.created_at = now() - timedelta(days=1, seconds=1)
    clean(app.state.database)
    again = max.post("/bookings", booking(hall), **with_key("monday"))

    assert "idempotent-replayed" not in again.headers
    assert (amount(app, Booking), amount(app, IdempotencyKey)) == (2, 1)


def test_a_key_is_printable_text_of_255_characters_at_most(max: Person, hall: Row, subtests: pytest.Subtests) -> None:
    for number, key in enumerate(("a", "~!" * 127 + "~")):
        assert max.post("/bookings", booking(hall, 10 + number), **with_key(key)).status_code == 201
    for key in ("", "x" * 256, "a b", "é".encode(), b"a\tb"):
        with subtests.test(str(key)[:10]):
            answer = max.post("/bookings", booking(hall), **with_key(key))
            assert answer.status_code == 422
            assert [error["loc"] for error in answer.json()["errors"]] == [["header", "Idempotency-Key"]]


def test_a_key_goes_with_its_account(app: App, ada: Person, max: Person, hall: Row) -> None:
    max.post("/bookings", booking(hall), **with_key("monday"))
    ada.delete(f"/users/{max.id}")

    assert amount(app, IdempotencyKey) == 0


def test_a_repetition_for_a_caller_that_is_overridden_is_one_too(app: App, max: Person, hall: Row) -> None:
    first = max.post("/bookings", booking(hall), **with_key("monday"))

    def as_max() -> Principal:
        return Principal(
            max.id, max.email, "Max", "member", is_active=True, created_at=now(), updated_at=now(), session_id=1
        )

    app.dependency_overrides = {auth.current_user: as_max}
    again = max.client.post("/api/v1/bookings", json=booking(hall), **with_key("monday"))

    assert told(first) == told(again)
    assert again.headers["idempotent-replayed"] == "true"


def test_the_hash_of_a_request_is_of_its_method_its_path_and_its_bodies() -> None:
    body = Wish(name="Attic", seats=1)
    same = request_hash("POST", "/rooms", ["not a body", body, 7])

    assert same == request_hash("POST", "/rooms", [body])
    assert len({same, request_hash("PUT", "/rooms", [body]), request_hash("POST", "/room", [body])}) == 3
    assert same != request_hash("POST", "/rooms", [body.model_copy(update={"seats": 2})])
