"""Many rows in one statement, on whichever database."""

from collections.abc import Generator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlmodel import Session, col, select

from kit.app import App
from kit.audit import AuditEntry
from kit.bulk import among, insert_rows, insert_rows_with_ids, update_rows
from kit.db import ending
from kit.models import BIGGEST_ID
from tests.kit.specimen import Room

MOMENT = datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC)
TEXTS = ["", "null", "1", "01", "1e5", 'O\'Hara; "quoted" \\ [0] $', "Straße 🪑\n\u2028", "%s :rows"]


@pytest.fixture
def session(app: App) -> Generator[Session]:
    with ending(app.state.database.write()) as session:
        yield session


def row(name: str, **values: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"name": name, "name_key": name, "seats": 1, "tags": [], "note": None, "cleaned_at": None}
    return common | values


def test_what_is_stored_is_what_an_object_would_store(session: Session) -> None:
    values = row("Hall", seats=10, tags=["red", "1"], opens_on=date(2026, 2, 1), cleaned_at=MOMENT)
    ids = insert_rows_with_ids(session, Room, [values])
    session.add(Room.model_validate(values | {"name": "Other"}))
    session.flush()
    session.expire_all()
    bulk, flushed = session.exec(select(Room).order_by(col(Room.id))).all()

    assert [bulk.id] == ids
    names = ("seats", "tags", "note", "opens_on", "cleaned_at", "door_code", "version")
    assert [getattr(bulk, name) for name in names] == [getattr(flushed, name) for name in names]
    assert bulk.cleaned_at == MOMENT
    assert session.exec(select(Room).where(col(Room.cleaned_at) == MOMENT, col(Room.tags) == ["red", "1"])).first()


def test_ids_come_in_the_order_of_the_rows_and_texts_are_kept(session: Session) -> None:
    ids = insert_rows_with_ids(session, Room, [row(text) for text in TEXTS])

    assert [session.get_one(Room, room_id).name for room_id in ids] == TEXTS


def test_only_the_columns_that_are_named_are_changed(session: Session) -> None:
    one, other, third = insert_rows_with_ids(session, Room, [row(name, note="as it was") for name in "abc"])
    update_rows(
        session, Room, [{"id": other, "seats": 3, "cleaned_at": MOMENT}, {"id": one, "seats": 2, "cleaned_at": None}]
    )
    session.expire_all()
    rooms = [session.get_one(Room, room_id) for room_id in (one, other, third)]

    assert [(room.seats, room.cleaned_at, room.note) for room in rooms] == [
        (2, None, "as it was"),
        (3, MOMENT, "as it was"),
        (1, None, "as it was"),
    ]
    assert rooms[0].updated_at > rooms[2].updated_at


def test_json_and_the_biggest_numbers_arrive_whole(session: Session) -> None:
    changes = {"a": [None, BIGGEST_ID], "b": [["red"], {"text": TEXTS[5]}], "c": [1.5, True]}
    insert_rows(session, AuditEntry, [{"action": "update", "entity": "x", "entity_id": BIGGEST_ID, "changes": changes}])
    entry = session.exec(select(AuditEntry).where(AuditEntry.entity == "x")).one()

    assert (entry.entity_id, entry.changes, entry.actor_id) == (BIGGEST_ID, changes, None)


def test_rows_are_found_by_one_of_many_texts(session: Session) -> None:
    insert_rows(session, Room, [row(text) for text in TEXTS])

    assert set(session.exec(select(Room.name).where(among(session, Room.name, [*TEXTS[1:], "none"])))) == {*TEXTS[1:]}
    assert session.exec(select(Room.name).where(among(session, Room.name, []))).all() == []
