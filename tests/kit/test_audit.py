"""The engine of the audit: what a session flushes, what goes with a deletion, and many rows at once."""

import subprocess
import sys
from collections.abc import Generator
from datetime import UTC, date, datetime

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, delete, insert, select, update

from kit.app import App
from kit.audit import AuditEntry, act_as, actor_of, audited_entities, change_many, create_many, record
from kit.db import Database, ending
from kit.logs import REQUEST_ID
from kit.models import now
from kit.problems import BROKEN_CONSTRAINTS
from models import User, UserRegister
from tests.kit.specimen import Booking, BookingNote, Footprint, Room, RoomHasKeys, RoomKey, RoomNameTaken, RoomTooSmall
from tests.people import API, Person, Row
from tests.server import ROOT

MOMENT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


@pytest.fixture
def database(app: App) -> Database:
    return app.state.database


@pytest.fixture
def session(database: Database) -> Generator[Session]:
    """A writing session in which account 7 acts."""
    with ending(database.write()) as session:
        act_as(session, 7)
        yield session


def entries(session: Session) -> list[tuple[str, str, int, Row]]:
    """What is in the audit, the oldest first."""
    found = session.exec(select(AuditEntry).order_by(col(AuditEntry.id)))
    return [(entry.action, entry.entity, entry.entity_id, entry.changes) for entry in found]


def new_entries(session: Session) -> list[tuple[str, str, int, Row]]:
    """The same, and they are forgotten."""
    session.flush()
    found = entries(session)
    session.connection().exec_driver_sql("DELETE FROM audit_entry")
    return found


def add_room(session: Session, name: str = "Hall", **values: object) -> Room:
    room = Room.model_validate({"name": name, "seats": 10} | values)
    session.add(room)
    session.flush()
    return room


def all_of_room(name: str = "Hall") -> Row:
    return {"name": name, "seats": 10, "tags": [], "note": None, "opens_on": None, "cleaned_at": None}


# What a session flushes


def test_a_new_row_is_recorded_with_its_values(session: Session) -> None:
    room = add_room(session, tags=["big"], opens_on=date(2026, 2, 1), cleaned_at=MOMENT, door_code="hunter2")
    values = all_of_room() | {"tags": ["big"], "opens_on": "2026-02-01", "cleaned_at": "2026-01-31T09:30:00Z"}

    assert entries(session) == [("create", "room", room.id, {name: [None, value] for name, value in values.items()})]


def test_a_change_is_recorded_from_which_value_to_which(session: Session) -> None:
    room = add_room(session, tags=["big"], cleaned_at=MOMENT)
    new_entries(session)
    room.sqlmodel_update(
        {"tags": [], "opens_on": date(2026, 2, 1), "cleaned_at": None, "name": "Hall", "note": "Quiet"}
    )

    changes = {
        "tags": [["big"], []],
        "opens_on": [None, "2026-02-01"],
        "cleaned_at": ["2026-01-31T09:30:00Z", None],
        "note": [None, "Quiet"],
    }
    assert new_entries(session) == [("update", "room", room.id, changes)]


def test_what_nobody_audits_is_not_recorded(session: Session) -> None:
    room = add_room(session)
    new_entries(session)
    room.name_key = "another key"
    session.add(Footprint(room_id=room.id))

    assert new_entries(session) == []


def test_of_a_secret_is_recorded_that_it_changed_and_under_another_name(session: Session) -> None:
    room = add_room(session, door_code="hunter2")
    new_entries(session)
    room.door_code = "hunter3"
    room.seats = 11

    assert new_entries(session) == [("update", "room", room.id, {"seats": [10, 11], "code": [None, None]})]


def test_an_entry_says_who_did_it_in_which_request_and_when(database: Database) -> None:
    token = REQUEST_ID.set("the-first")
    with ending(database.write()) as session:
        assert actor_of(session) is None
        act_as(session, 7)
        add_room(session)
    REQUEST_ID.reset(token)
    with ending(database.write()) as session:
        add_room(session, "Attic")
        first, second = session.exec(select(AuditEntry).order_by(col(AuditEntry.id)))

    assert (first.actor_id, first.request_id) == (7, "the-first")
    assert (second.actor_id, second.request_id) == (None, None)
    assert now() >= second.at >= first.at


def test_an_entity_is_named_in_snake_case(session: Session) -> None:
    room = add_room(session)
    session.add(RoomKey(room_id=room.id))

    assert [entity for _, entity, _, _ in new_entries(session)] == ["room", "room_key"]


def test_what_is_rolled_back_is_not_recorded(ada: Person, hall: Row) -> None:
    before = ada.get("/audit").json()["items"]
    refused = ada.post("/rooms", {"name": "HALL", "seats": 1})
    same = ada.patch(f"/rooms/{hall['id']}", {"seats": 10, "name": "Hall"})

    assert (refused.status_code, same.status_code) == (409, 200)
    assert ada.get("/audit").json()["items"] == before


# Deletions


@pytest.fixture
def booked(session: Session) -> Room:
    """A room with two bookings, of which the first has two notes, and with a footprint."""
    body = UserRegister(email="ada@example.com", full_name="Ada", password="Correct-horse-1")
    ada = User.create(session, body, "")
    room = add_room(session)
    session.add_all(Booking(room_id=room.id, guest_id=ada.id, starts_at=MOMENT) for _ in range(2))
    session.flush()
    session.add_all(BookingNote(booking_id=1, text=text) for text in ("Quiet", "Please"))
    session.add(Footprint(room_id=room.id))
    new_entries(session)
    return room


def test_what_goes_with_a_row_is_recorded_down_to_the_last(session: Session, booked: Room) -> None:
    session.delete(booked)
    gone = new_entries(session)

    assert sorted((action, entity, entity_id) for action, entity, entity_id, _ in gone) == [
        ("delete", "booking", 1),
        ("delete", "booking", 2),
        ("delete", "booking_note", 1),
        ("delete", "booking_note", 2),
        ("delete", "room", 1),
    ]
    assert ("delete", "booking_note", 1, {"booking_id": [1, None], "text": ["Quiet", None]}) in gone
    assert [session.exec(select(table)).all() for table in (Booking, BookingNote, Footprint)] == [[], [], []]


@pytest.mark.filterwarnings("ignore:DELETE statement on table")  # the database deleted it first
def test_what_is_deleted_beside_what_it_goes_with_is_recorded_once(session: Session, booked: Room) -> None:
    for row in (*session.exec(select(BookingNote)), *session.exec(select(Booking)), booked):
        session.delete(row)
    gone = [(entity, entity_id) for _, entity, entity_id, _ in new_entries(session)]

    assert len(gone) == len(set(gone)) == 5


def test_a_row_to_which_another_refers_is_refused_with_the_fault_of_the_key(session: Session) -> None:
    room = add_room(session)
    session.add(RoomKey(room_id=room.id))
    new_entries(session)
    session.delete(room)
    with pytest.raises(RoomHasKeys):
        session.flush()
    session.rollback()

    assert BROKEN_CONSTRAINTS["fk_room_key_room_id"] is RoomHasKeys
    assert entries(session) == []


def test_a_refusal_is_answered_with_its_code_and_changes_nothing(app: App, ada: Person, hall: Row) -> None:
    with ending(app.state.database.write()) as session:
        session.add(RoomKey(room_id=hall["id"]))
    before = ada.get("/audit").json()["items"]
    answer = ada.delete(f"/rooms/{hall['id']}")

    assert (answer.status_code, answer.json()["error_code"]) == (409, "ROOM_HAS_KEYS")
    assert answer.json()["detail"] == "Collect the keys first."
    assert ada.get("/audit").json()["items"] == before
    assert ada.get(f"/rooms/{hall['id']}").json() == hall


def test_the_fault_of_a_constraint_is_known_by_the_name_of_the_constraint(ada: Person, hall: Row) -> None:
    taken = ada.patch(f"/rooms/{ada.post('/rooms', {'name': 'Attic', 'seats': 1}).json()['id']}", {"name": "hALL"})

    assert (taken.status_code, taken.json()["error_code"]) == (409, "ROOM_NAME_TAKEN")
    assert taken.json()["detail"] == RoomNameTaken.detail
    assert BROKEN_CONSTRAINTS["ck_room_seats"] is RoomTooSmall


# Bulk statements


def test_a_bulk_statement_on_an_audited_table_is_refused_with_a_sentence(session: Session) -> None:
    add_room(session)
    sentence = "^Room is audited, and the audit does not see a bulk statement: .* create_many and change_many"
    for statement in (update(Room).values(seats=1), delete(Room), insert(Room).values(name="Attic", seats=1)):
        with pytest.raises(RuntimeError, match=sentence):
            session.exec(statement)


def test_a_bulk_statement_on_any_other_table_is_run(session: Session, booked: Room) -> None:
    session.exec(update(Footprint).values(room_id=booked.id))
    session.exec(delete(Footprint))

    assert session.exec(select(Footprint)).all() == []
    assert new_entries(session) == []


# Many rows at once


def test_many_rows_are_created_with_their_entries_and_all_that_follows(session: Session) -> None:
    rows = [
        all_of_room(name) | {"created_at": now(), "updated_at": now(), "door_code": ""} for name in ("ZWEI", "Eins")
    ]
    ids = create_many(session, Room, rows)
    found = [session.get_one(Room, room_id) for room_id in ids]

    assert [(room.name, room.name_key, room.version) for room in found] == [("ZWEI", "zwei", 1), ("Eins", "eins", 1)]
    assert new_entries(session) == [
        ("create", "room", room_id, {name: [None, value] for name, value in all_of_room(room.name).items()})
        for room_id, room in zip(ids, found, strict=True)
    ]
    assert create_many(session, Room, []) == []


def test_many_rows_are_changed_with_their_entries_and_all_that_follows(session: Session) -> None:
    one, other = add_room(session, "Eins", opens_on=date(2026, 2, 1)), add_room(session, "Zwei")
    new_entries(session)
    march = {"opens_on": date(2026, 3, 1)}
    change_many(
        session, Room, [(one.model_dump(), {"name": "UNO"} | march), (other.model_dump(), {"name": "Zwei"} | march)]
    )
    change_many(session, Room, [])

    assert new_entries(session) == [
        ("update", "room", one.id, {"name": ["Eins", "UNO"], "opens_on": ["2026-02-01", "2026-03-01"]}),
        ("update", "room", other.id, {"opens_on": [None, "2026-03-01"]}),
    ]
    session.expire_all()
    assert [(room.name, room.name_key, room.version, room.opens_on) for room in (one, other)] == [
        ("UNO", "uno", 2, date(2026, 3, 1)),
        ("Zwei", "zwei", 2, date(2026, 3, 1)),
    ]


def test_many_rows_that_stay_as_they_are_leave_no_entry(session: Session) -> None:
    room = add_room(session)
    new_entries(session)
    change_many(session, Room, [(room.model_dump(), {"seats": 10})])

    assert new_entries(session) == []


def test_many_rows_of_which_one_is_refused_are_all_refused(session: Session) -> None:
    rows = [
        all_of_room(name) | {"created_at": now(), "updated_at": now(), "door_code": ""} for name in ("Eins", "EINS")
    ]
    with pytest.raises(IntegrityError):
        create_many(session, Room, rows)
    session.rollback()

    assert (entries(session), session.exec(select(Room)).all()) == ([], [])


def test_what_has_no_changes_is_not_recorded(session: Session) -> None:
    record(session, "update", Room, [(1, {}), (2, {"seats": [1, 2]}), (3, {})])

    assert entries(session) == [("update", "room", 2, {"seats": [1, 2]})]


# What is audited


def test_the_list_of_entities_is_that_of_the_tables_of_the_app() -> None:
    assert "user" in audited_entities()
    assert not {"room", "booking", "login_session", "audit_entry"} & set(audited_entities())


def test_an_entity_that_is_unknown_is_refused_with_the_known_ones(ada: Person) -> None:
    answer = ada.get("/audit?entity=User")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["msg"] == f"Input should be one of {', '.join(audited_entities())}"
    assert [entry["entity"] for entry in ada.get("/audit?entity=user").json()["items"]] == ["user"]


NEW_TABLE = """
from fastapi.testclient import TestClient
import app
from kit.audit import Audited, audited_entities
class MeetingRoom(Audited, table=True):
    seats: int
document = app.app.openapi()
[entity] = [each for each in document["paths"]["/api/v1/audit"]["get"]["parameters"] if each["name"] == "entity"]
shown = document["components"]["schemas"]["AuditEntryPublic"]["properties"]["entity"]["enum"]
assert "meeting_room" in audited_entities() == shown == entity["schema"]["anyOf"][0]["enum"], entity
"""


def test_a_table_that_is_audited_is_in_the_filter_and_in_the_documentation_by_itself() -> None:
    """In a process of its own, so that no other test sees it."""
    found = subprocess.run([sys.executable, "-c", NEW_TABLE], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own

    assert (found.returncode, found.stderr) == (0, "")


def test_the_list_of_the_audit_shows_the_newest_first(ada: Person, max: Person) -> None:
    newest, before = ada.get("/audit?limit=2").json()["items"]

    assert [entry["entity_id"] for entry in (newest, before)] == [max.id, ada.id]
    assert newest["changes"]["email"] == [None, max.email]
    assert max.client.get(f"{API}/audit").status_code == 401
    assert max.get("/audit").status_code == 403
