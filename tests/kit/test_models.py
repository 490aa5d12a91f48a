"""What every table and every schema is made of: the types of their fields, patches, versions and owners."""

import re
from collections.abc import Generator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlmodel import Session, col, select
from sqlmodel._compat import SQLModelConfig

from kit.app import App
from kit.db import Database, ending
from kit.models import (
    Day,
    Email,
    Id,
    Nullable,
    Owned,
    PatchBody,
    RequestBody,
    Table,
    Time,
    clock_at,
    digest,
    folded,
    moments_of,
    normalized_email,
    now,
)
from kit.problems import NotOwner, VersionConflict
from models import User, UserRegister
from tests.kit.specimen import Booking, BookingNote, Room, RoomKey, RoomUpdate
from tests.people import Person, Row

HOUR = timedelta(hours=1)


@pytest.fixture
def database(app: App) -> Database:
    return app.state.database


@pytest.fixture
def session(database: Database) -> Generator[Session]:
    with ending(database.write()) as session:
        yield session


def add_room(session: Session, **values: Any) -> Room:
    room = Room.model_validate({"name": "Hall", "seats": 10} | values)
    session.add(room)
    session.flush()
    return room


def refusal(kind: Any, value: object) -> str:
    """Why a value is none of this type."""
    with pytest.raises(ValidationError) as refused:
        TypeAdapter[Any](kind).validate_python(value)
    return refused.value.errors()[0]["msg"]


# The clock


def test_the_clock_can_be_set_for_what_happened_in_the_past() -> None:
    moment = datetime(2020, 2, 29, tzinfo=UTC)
    with clock_at(moment):
        within = now()

    assert within == moment
    assert datetime.now(UTC) - now() < timedelta(seconds=1)


# Types of fields


def test_a_time_is_iso_text_with_an_offset_and_becomes_utc(subtests: pytest.Subtests) -> None:
    times: TypeAdapter[datetime] = TypeAdapter(Time)
    assert times.validate_python("2026-01-31T10:00:00+02:00") == datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert times.validate_python("2026-01-31T10:00Z").utcoffset() == timedelta(0)
    for given, reason in [
        ("2026-01-31T10:00:00", "timezone"),
        ("2026-01-31", "timezone"),
        ("10:00:00Z", "ISO 8601"),
        ("1790000000", "ISO 8601"),
        ("0", "ISO 8601"),
        ("", "ISO 8601"),
        (1790000000, "ISO 8601"),
        (datetime(2026, 1, 31, tzinfo=UTC), "ISO 8601"),
        (None, "ISO 8601"),
        ("2026-02-29T10:00:00Z", "day"),
        ("0001-01-01T00:00:00+01:00", "between the years 1 and 9999"),
        ("9999-12-31T23:59:59-01:00", "between the years 1 and 9999"),
    ]:
        with subtests.test(str(given)):
            assert reason in refusal(Time, given)


def test_a_time_at_the_ends_of_the_calendar_is_one() -> None:
    times: TypeAdapter[datetime] = TypeAdapter(Time)

    assert times.validate_python("0001-01-01T00:00:00Z").year == 1
    assert times.validate_python("9999-12-31T23:59:59.999999Z").year == 9999


def test_a_day_is_iso_text(subtests: pytest.Subtests) -> None:
    days: TypeAdapter[date] = TypeAdapter(Day)
    for day in ("0001-01-01", "2024-02-29", "9999-12-31"):
        assert days.validate_python(day).isoformat() == day
    for given in ("0", "2026-02-29", "2026-1-1", "20260131", "2026-01-31T00:00:00", "1790000000", " 2026-01-31", 0, ""):
        with subtests.test(str(given)):
            assert "date" in refusal(Day, given)


def test_the_moments_of_a_day_are_there_on_the_last_day_too() -> None:
    first, last = moments_of(date(9999, 12, 31))

    assert (first.isoformat(), last.isoformat()) == ("9999-12-31T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00")


def test_an_id_is_plain_digits_of_64_bits() -> None:
    ids: TypeAdapter[int] = TypeAdapter(Id)

    assert [ids.validate_python(given) for given in ("1", 7, str(2**63 - 1))] == [1, 7, 2**63 - 1]
    for given in ("0", "-1", "+1", "1.0", "1_0", " 1", "x", "\u0661", str(2**63), 0):
        assert refusal(Id, given)


def test_an_email_is_an_address_alone_in_lower_case() -> None:
    emails: TypeAdapter[str] = TypeAdapter(Email)

    assert emails.validate_python("Ada@Example.COM") == "ada@example.com"
    assert "address alone" in refusal(Email, "Ada <ada@example.com>")
    assert normalized_email(" Ada@Example.com ") == "ada@example.com"
    assert normalized_email(" No Address ") == "no address"


@pytest.mark.parametrize(("one", "other"), [("Straße", "STRASSE"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("ÉA", "éa"), ("A", "a")])
def test_text_that_differs_by_case_alone_folds_alike(one: str, other: str) -> None:
    assert folded(one) == folded(other)


def test_a_digest_says_nothing_of_its_secret() -> None:
    assert re.fullmatch("[0-9a-f]{64}", digest("hunter2"))
    assert digest("hunter2") == digest("hunter2") != digest("hunter3")


# Bodies


def test_a_patch_tells_a_field_that_was_sent_from_one_that_was_not() -> None:
    assert RoomUpdate.model_validate({"seats": 1}).changes() == {"seats": 1}
    assert RoomUpdate.model_validate({"note": None}).changes() == {"note": None}
    assert RoomUpdate.model_validate({}).changes() == {}


def test_a_patch_refuses_null_where_nothing_says_nullable() -> None:
    for field in ("name", "seats", "tags", "cleaned_at"):
        with pytest.raises(ValidationError, match="Leave the field out instead of sending null"):
            RoomUpdate.model_validate({field: None})


def test_a_patch_empties_what_is_nullable(ada: Person, hall: Row) -> None:
    path = f"/rooms/{hall['id']}"
    given = ada.patch(path, {"note": "Bright", "opens_on": "2026-02-01"})
    other = ada.patch(path, {"seats": 11})
    emptied = ada.patch(path, {"note": None, "opens_on": None})
    refused = ada.patch(path, {"seats": None})

    assert (given.json()["note"], given.json()["opens_on"]) == ("Bright", "2026-02-01")
    assert other.json()["note"] == "Bright"
    assert (emptied.json()["note"], emptied.json()["opens_on"]) == (None, None)
    assert refused.json()["errors"] == [
        {"loc": ["body", "seats"], "msg": "Leave the field out instead of sending null", "type": "null_forbidden"}
    ]


def test_the_schema_of_a_patch_has_null_only_where_it_is_taken() -> None:
    fields = RoomUpdate.model_json_schema()["properties"]

    assert fields["seats"] == {"type": "integer", "minimum": 1, "maximum": 1_000_000_000, "title": "Seats"}
    assert fields["note"]["anyOf"][-1] == fields["opens_on"]["anyOf"][-1] == {"type": "null"}
    assert [name for name, field in fields.items() if "default" in field] == []


def test_a_body_with_a_bare_date_or_time_is_refused_at_import() -> None:
    for kind in (datetime, date, datetime | None, list[date]):
        with pytest.raises(TypeError, match=r"^Meeting\.begins_at takes no JSON: use Time or Day of kit\.models"):
            type("Meeting", (RequestBody,), {"__annotations__": {"begins_at": kind}})


def test_a_body_with_our_dates_and_times_is_taken() -> None:
    class Meeting(PatchBody):
        begins_at: Time
        day: Nullable[Day] = None
        others: list[Day] = Field(default=[])

    body = '{"begins_at": "2026-01-31T10:00Z", "day": "2026-01-31", "others": ["2026-02-01"]}'
    meeting = Meeting.model_validate_json(body)

    assert (meeting.begins_at.hour, meeting.day, meeting.others) == (10, date(2026, 1, 31), [date(2026, 2, 1)])


def test_a_body_takes_no_white_space_around_text_and_no_other_field() -> None:
    assert RoomUpdate.model_validate({"name": "  Hall \n"}).name == "Hall"
    for wrong in ({"colour": "red"}, {"seats": "1"}, {"seats": True}, {"seats": 1.0}, {"tags": ["a", "a"]}):
        with pytest.raises(ValidationError):
            RoomUpdate.model_validate(wrong)


def test_the_config_of_sqlmodel_has_the_options_of_pydantic() -> None:
    """It stands in no public module of SQLModel."""
    assert SQLModelConfig(extra="forbid", strict=True) == {"extra": "forbid", "strict": True}


# Rows


def test_a_table_is_called_after_its_class_in_snake_case() -> None:
    assert [table.entity_name() for table in (Room, RoomKey, BookingNote)] == ["room", "room_key", "booking_note"]
    assert BookingNote.__tablename__ == "booking_note"


def test_tags_come_back_in_their_order(database: Database, subtests: pytest.Subtests) -> None:
    lists = [[], ["red"], ["red", "blue"], ["a,b", "c d", "%", "_"], ["é" * 30], ["[]"], ['"'], ["null"]]
    for number, tags in enumerate(lists):
        with subtests.test(str(tags)):
            with ending(database.write()) as session:
                room_id = add_room(session, name=str(number), tags=tags).id
            with database.read() as session:
                assert session.get_one(Room, room_id).tags == tags


def test_times_come_back_in_utc_and_days_as_they_are(database: Database) -> None:
    moment = datetime(2026, 1, 1, 1, 30, tzinfo=timezone(2 * HOUR))
    with ending(database.write()) as session:
        add_room(session, cleaned_at=moment, opens_on=date(2026, 2, 1))
    with database.read() as session:
        room = session.exec(select(Room)).one()

    assert room.cleaned_at is not None
    assert (room.cleaned_at, room.cleaned_at.utcoffset()) == (moment, timedelta(0))
    assert room.opens_on == date(2026, 2, 1)


def test_a_time_without_a_zone_is_not_stored(session: Session) -> None:
    room = add_room(session)
    room.cleaned_at = datetime(2026, 1, 1)

    with pytest.raises(StatementError, match="timezone"):
        session.flush()
    session.rollback()


def test_the_database_itself_refuses(session: Session) -> None:
    add_room(session)

    with pytest.raises(IntegrityError, match="ck_room_seats"):
        session.connection().execute(text("UPDATE room SET seats = 0"))
    session.rollback()


def test_text_is_sorted_by_code_point(database: Database) -> None:
    with ending(database.write()) as session:
        for name in ("b1", "Ä2", "a3", "B4", "é5", "A6", "Z7", "_8"):
            add_room(session, name=name)
        names = session.exec(select(Room.name).order_by(col(Room.name))).all()

    assert names == sorted(names)


# What follows from other columns


def test_a_column_that_folds_follows_its_text_and_nothing_else(session: Session) -> None:
    room = add_room(session, name="Große Halle")
    room.seats = 3
    session.flush()
    before = (room.name_key, room.version)
    room.name = "KLEINE HALLE"
    session.flush()

    assert before == ("grosse halle", 2)
    assert (room.name_key, room.version) == ("kleine halle", 3)


def test_the_same_text_is_no_new_version(session: Session) -> None:
    room = add_room(session)
    room.name = "Hall"
    session.flush()

    assert room.version == 1


def test_several_columns_may_fold_into_one() -> None:
    class Both(Table):
        folds: ClassVar = {"search_key": ("name", "note")}

    assert Both.folded_values({"name": "Hall", "note": "ÉT"}) == {"search_key": "hall\nét"}
    assert Both.folded_values({"name": "Hall"}) == {}


# Versions


def test_a_row_counts_its_versions(session: Session) -> None:
    room = add_room(session)
    versions = [room.version]
    for seats in (5, 5, 6):
        room.seats = seats
        session.flush()
        versions.append(room.version)

    assert versions == [1, 2, 2, 3]
    assert room.etag == '"3"'


def test_a_row_may_be_changed_only_by_who_has_seen_it(session: Session) -> None:
    room = add_room(session)

    assert room.require_version(None) is room
    assert room.require_version('"7", "1"') is room
    assert room.require_version("*") is room
    for tags in ('W/"1"', '"2"', "1", ""):
        with pytest.raises(VersionConflict):
            room.require_version(tags)


# Owners


class Caller(BaseModel):
    id: int
    is_admin: bool = False


def test_a_row_belongs_to_whom_its_column_of_any_name_names() -> None:
    booking = Booking(room_id=1, guest_id=7, starts_at=now())

    assert booking.require_owner(Caller(id=7)) is booking
    assert booking.require_owner_or_admin(Caller(id=8, is_admin=True)) is booking
    for refuse, caller in (
        (booking.require_owner, Caller(id=8)),
        (booking.require_owner, Caller(id=8, is_admin=True)),
        (booking.require_owner_or_admin, Caller(id=8)),
    ):
        with pytest.raises(NotOwner):
            refuse(caller)
    assert Owned.owner == "creator_id"


def test_an_owner_is_asked_for_in_every_route_that_says_so(ada: Person, max: Person, eva: Person, hall: Row) -> None:
    body = {"room_id": hall["id"], "starts_at": "2026-01-31T10:00:00+01:00"}
    path = f"/bookings/{max.post('/bookings', body).json()['id']}"
    later = {"starts_at": "2026-01-31T11:00:00+01:00"}

    assert [person.patch(path, later).status_code for person in (ada, eva, max)] == [403, 403, 200]
    assert eva.patch(path, later).json()["error_code"] == "NOT_OWNER"
    assert max.get(path).json()["starts_at"] == "2026-01-31T10:00:00Z"
    assert eva.get(path).json()["error_code"] == "BOOKING_NOT_FOUND"
    assert [person.delete(path).status_code for person in (eva, ada)] == [403, 204]


def test_no_id_is_given_twice(session: Session) -> None:
    first = add_room(session)
    first_id = first.id
    session.delete(first)
    session.flush()

    assert add_room(session).id > first_id


def test_who_is_deleted_takes_along_what_refers_to_them(ada: Person, max: Person, hall: Row) -> None:
    max.post("/bookings", {"room_id": hall["id"], "starts_at": "2026-01-31T10:00:00Z"})

    assert ada.delete(f"/users/{max.id}").status_code == 204
    assert ada.get("/bookings").json()["items"] == []


def test_an_account_is_made_from_a_checked_body(session: Session) -> None:
    body = UserRegister(email="Ada@example.com", full_name=" Ada ", password="Correct-horse-1")
    user = User.create(session, body, "hash")

    assert (user.email, user.full_name, user.full_name_key) == ("ada@example.com", "Ada", "ada")


Positive = Annotated[int, Field(gt=0)]


def test_a_nullable_type_keeps_its_bounds() -> None:
    class Change(PatchBody):
        amount: Nullable[Positive] = None

    assert Change.model_validate({"amount": None}).changes() == {"amount": None}
    with pytest.raises(ValidationError, match="greater than 0"):
        Change.model_validate({"amount": 0})
