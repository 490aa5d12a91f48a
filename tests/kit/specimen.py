"""A noun that only the tests of the kit have: rooms, who booked them, and what hangs on them.

Its tables have metadata and a registry of their own, so that no other test sees them: not the comparison of the schema,
not the list of what is audited, not the deletion of an account. `tests/kit/conftest.py` adds them to its databases.
"""

from datetime import date, datetime
from typing import Annotated, Any, ClassVar

from fastapi import Query, Request, Response
from pydantic import StringConstraints
from sqlalchemy import CheckConstraint, ForeignKey, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from auth import AdminUser, CurrentUser
from kit.audit import Audited
from kit.db import ReadSession, WriteSession
from kit.errors import problems
from kit.idempotency import IdempotencyKeyHeader
from kit.lists import (
    CursorPage,
    CursorPageOf,
    CursorPaging,
    Filters,
    IfMatch,
    Page,
    PageOf,
    Paging,
    SearchText,
    cached_statement,
    order_by,
    rows_of,
    sortable,
)
from kit.models import (
    BIGGEST_ID,
    BILLION,
    DISTINCT,
    BigInt,
    CodePointText,
    Day,
    Digits,
    Entity,
    Id,
    Nullable,
    Owned,
    PatchBody,
    RequestBody,
    Table,
    TagList,
    Time,
    Timestamped,
    Versioned,
    folded,
)
from kit.problems import Conflict
from kit.routing import Router
from models import User
from settings import API

METADATA = MetaData(naming_convention=Table.metadata.naming_convention)
USER_ID: Any = col(User.id)

RoomName = Annotated[str, Field(min_length=1, max_length=100)]
Seats = Annotated[int, Field(ge=1, le=BILLION)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=30, pattern="^[^;]*$")]
Tags = Annotated[list[Tag], Field(max_length=10), DISTINCT]
Note = Annotated[str, Field(max_length=500)]


class RoomNameTaken(Conflict):
    """409: names of rooms are unique, without case."""

    constraint = "uq_room_name_key"
    detail = "Another room has this name."


class RoomTooSmall(Conflict):
    """409: the database itself knows this rule."""

    constraint = "ck_room_seats"
    detail = "A room needs a seat."


class RoomHasKeys(Conflict):
    """409: somebody has a key to it."""

    constraint = "fk_room_key_room_id"
    detail = "Collect the keys first."


class Specimen(Table, registry=registry(metadata=METADATA)):
    """A table of the tests."""


class RoomPublic(SQLModel):
    """A room, as everybody sees it."""

    id: int
    name: str
    seats: int
    tags: list[str]
    note: str | None
    opens_on: date | None
    cleaned_at: datetime | None
    version: int


class RoomCreate(RequestBody):
    """A new room."""

    name: RoomName
    seats: Seats
    tags: Tags = Field(default=[])
    note: Note | None = None
    opens_on: Day | None = None
    cleaned_at: Time | None = None


class RoomUpdate(PatchBody):
    """What may be changed of a room."""

    name: RoomName | None = None
    seats: Seats | None = None
    tags: Tags | None = None
    note: Nullable[Note] = None
    opens_on: Nullable[Day] = None
    cleaned_at: Time | None = None


class Room(Specimen, Audited, Versioned, Timestamped, table=True):
    """A room; its door code is a secret."""

    __table_args__ = (CheckConstraint("seats > 0", "seats"),)
    audited: ClassVar = ("name", "seats", "tags", "note", "opens_on", "cleaned_at")
    secrets: ClassVar = {"door_code": "code"}
    folds: ClassVar = {"name_key": ("name",)}

    name: str = Field(sa_type=CodePointText)
    name_key: str = Field(default="", unique=True)
    seats: int
    tags: list[str] = Field(default=[], sa_type=TagList)
    note: str | None = None
    opens_on: date | None = None
    cleaned_at: datetime | None = None
    door_code: str = ""

    @property
    def link(self) -> str:
        """Where it is."""
        return f"{API}/rooms/{self.id}"


class RoomKey(Specimen, Audited, table=True):
    """A key to a room, which keeps it from being deleted."""

    audited: ClassVar = ("room_id",)

    room_id: int = Field(foreign_key="room.id", sa_type=BigInt)


class Booking(Specimen, Owned, Audited, table=True):
    """Who has a room, and from when on; it goes with its room and with its guest."""

    audited: ClassVar = ("room_id", "guest_id", "starts_at")
    owner: ClassVar = "guest_id"

    room_id: int = Field(foreign_key="room.id", ondelete="CASCADE", index=True, sa_type=BigInt)
    guest_id: int = Field(sa_type=BigInt, sa_column_args=[ForeignKey(USER_ID, ondelete="CASCADE")])
    starts_at: datetime


class BookingNote(Specimen, Audited, table=True):
    """What somebody wrote on a booking, with which it goes."""

    audited: ClassVar = ("booking_id", "text")

    booking_id: int = Field(foreign_key="booking.id", ondelete="CASCADE", sa_type=BigInt)
    text: str


class Footprint(Specimen, Entity, table=True):
    """What nobody audits; it goes with its room."""

    room_id: int = Field(foreign_key="room.id", ondelete="CASCADE", sa_type=BigInt)


class BookingPublic(SQLModel):
    """A booking, as everybody sees it."""

    id: int
    room_id: int
    guest_id: int
    starts_at: datetime


class BookingCreate(RequestBody):
    """A new booking of one's own."""

    room_id: Id
    starts_at: Time


class BookingUpdate(PatchBody):
    """What a guest may change."""

    starts_at: Time | None = None


router = Router(prefix=f"{API}/rooms", tags=["rooms"])
bookings = Router(prefix=f"{API}/bookings", tags=["bookings"])
anybody = Router(public=True, prefix="/anybody", tags=["anybody"])


class RoomFilters(Filters):
    """Which rooms to list, and in which order."""

    q: SearchText = ""
    min_seats: Annotated[int, Field(ge=0, le=BIGGEST_ID), Digits] | None = None
    is_tagged: bool | None = None
    day: Day | None = None
    sort: Annotated[str, sortable("name", "seats", "opens_on")] = "name"

    @cached_statement
    def rooms(self) -> SelectOfScalar[Room]:
        """The rooms that pass, in their order."""
        rooms = rows_of(Room)
        if self.q:
            rooms = rooms.where(col(Room.name_key).contains(folded(self.q), autoescape=True))
        if self.min_seats is not None:
            rooms = rooms.where(Room.seats >= self.min_seats)
        if self.is_tagged is not None:
            rooms = rooms.where((col(Room.tags) != []) == self.is_tagged)
        if self.day is not None:
            rooms = rooms.where(col(Room.opens_on) <= self.day)
        return rooms.order_by(*order_by(Room, self.sort))


@router.get("", response_model=PageOf[RoomPublic])
def list_rooms(
    page: Paging, filters: Annotated[RoomFilters, Query()], user: CurrentUser, session: ReadSession
) -> Page[Room]:
    """List the rooms."""
    return page.of(session, filters.rooms())


@router.post("", status_code=201, response_model=RoomPublic, responses=problems(RoomNameTaken))
def create_room(response: Response, data: RoomCreate, admin: AdminUser, session: WriteSession) -> Room:
    """Add a room."""
    room = Room.model_validate(data)
    session.add(room)
    session.flush()
    response.headers["Location"] = room.link
    return room


@router.get("/{room_id}", response_model=RoomPublic)
def get_room(room_id: Id, user: CurrentUser, session: ReadSession) -> Room:
    """Show one room."""
    return session.get_one(Room, room_id)


@router.patch("/{room_id}", response_model=RoomPublic, responses=problems(RoomNameTaken))
def update_room(
    room_id: Id, data: RoomUpdate, admin: AdminUser, session: WriteSession, if_match: IfMatch = None
) -> Room:
    """Change a room."""
    room = session.get_one(Room, room_id).require_version(if_match)
    room.sqlmodel_update(data.changes())
    session.flush()
    return room


@router.delete("/{room_id}", status_code=204, responses=problems(RoomHasKeys))
def delete_room(room_id: Id, admin: AdminUser, session: WriteSession, if_match: IfMatch = None) -> None:
    """Delete a room, unless somebody has a key to it."""
    session.delete(session.get_one(Room, room_id).require_version(if_match))


@bookings.get("", response_model=CursorPageOf[BookingPublic])
def list_bookings(cursor: CursorPaging, user: CurrentUser, session: ReadSession) -> CursorPage[Booking]:
    """List all bookings, the newest first."""
    return cursor.of(session, Booking, BOOKINGS)


BOOKINGS = rows_of(Booking)


@bookings.post("", status_code=201, response_model=BookingPublic)
def create_booking(
    response: Response,
    data: BookingCreate,
    user: CurrentUser,
    session: WriteSession,
    key: IdempotencyKeyHeader = None,
) -> Booking:
    """Book a room."""
    room = session.get_one(Room, data.room_id)
    booking = Booking(room_id=room.id, guest_id=user.id, starts_at=data.starts_at)
    session.add(booking)
    session.flush()
    response.headers["Location"] = f"{API}/bookings/{booking.id}"
    return booking


@bookings.patch("/{booking_id}", response_model=BookingPublic)
def update_booking(booking_id: Id, data: BookingUpdate, user: CurrentUser, session: WriteSession) -> Booking:
    """Move a booking of one's own."""
    booking = session.get_one(Booking, booking_id).require_owner(user)
    booking.sqlmodel_update(data.changes())
    session.flush()
    return booking


@bookings.delete("/{booking_id}", status_code=204)
def delete_booking(booking_id: Id, user: CurrentUser, session: WriteSession) -> None:
    """Give a room back."""
    session.delete(session.get_one(Booking, booking_id).require_owner_or_admin(user))


@bookings.get("/{booking_id}", response_model=BookingPublic)
def get_booking(booking_id: Id, user: CurrentUser, session: ReadSession) -> Booking:
    """Show one's own booking."""
    mine = select(Booking).where(Booking.guest_id == user.id)
    return session.get_one(Booking, booking_id, among=mine)


@anybody.get("/fails")
def fails(request: Request) -> None:
    """Fail as nobody foresaw, with a secret at hand."""
    password = request.headers["x-password"]
    raise RuntimeError("the shelf broke" + password[:0])
