"""CSV of any table: what is neutralised, which files are read, what is wrong with a record, and a file in batches."""

import csv
import io
import tracemalloc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field as Column
from sqlmodel import SQLModel, col, select

from kit.app import App
from kit.db import Database, ending
from kit.models import DISTINCT, Digits, TagList
from kit.problems import BodyTooLarge, Invalid
from kit.settings import KitSettings
from kit.spreadsheets import (
    BATCH,
    MAX_BYTES,
    MAX_MESSAGES,
    MAX_ROWS,
    Export,
    ImportReport,
    Records,
    import_records,
    neutral,
    original,
    read_records,
)
from tests.kit.specimen import Room as StoredRoom

HEADER = "name,seats,tags"


class Own(SQLModel, registry=registry(metadata=MetaData())):
    """What only these tests have."""


class Room(Own, table=True):
    """A table."""

    id: int = Column(default=None, primary_key=True)
    name: str
    seats: int = 1
    tags: list[str] = Column(default=[], sa_type=TagList)


class RoomRow(BaseModel):
    """A record of it."""

    model_config = ConfigDict(str_strip_whitespace=True)

    name: Annotated[str, Field(min_length=1, max_length=20)]
    seats: Annotated[int, Field(ge=1), Digits]
    tags: Annotated[list[str], Field(max_length=3), DISTINCT] = []


def read(content: str | bytes) -> Records:
    file = content.encode() if isinstance(content, str) else content
    return read_records(io.BytesIO(file), len(file), RoomRow, "name")


def rows_in(content: str | bytes) -> list[dict[str, Any]]:
    """The records of a file that has no error."""
    records = read(content)
    assert records.errors == []
    return [dict(zip(records.columns, values, strict=True)) for values in records.values]


def errors_in(*lines: str, end: str = "\r\n") -> list[tuple[int, str]]:
    return [(error.line, error.message) for error in read(end.join([*lines, ""])).errors]


def why_refused(content: str | bytes) -> str:
    with pytest.raises(Invalid) as refused:
        read(content)
    [error] = refused.value.errors
    assert tuple(error["loc"]) == ("body", "file")
    return error["msg"]


# Formulas

FORMULAS = [
    ("=1+1", "'=1+1"),
    ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
    ("+SUM(1)", "'+SUM(1)"),
    ("-a", "'-a"),
    ("@a", "'@a"),
    ("-5-6", "'-5-6"),
    ("+3.5.1", "'+3.5.1"),
    ("\tx", "'\tx"),
    ("\rx", "'\rx"),
    ("'=x", "''=x"),
    ("''+x", "'''+x"),
    ("'-5", "''-5"),
    ("'\tx", "''\tx"),
    ("\uff1d1", "'\uff1d1"),  # full-width, which spreadsheets take for the plain character
    ("\uff0b1", "'\uff0b1"),
    ("\uff0d1", "'\uff0d1"),
    ("\uff20a", "'\uff20a"),
    ("-5", "-5"),
    ("+3.5", "+3.5"),
    ("-1,5", "-1,5"),
    ("'hello", "'hello"),
    ("'5", "'5"),
    ("'", "'"),
    ("", ""),
    ("a=1", "a=1"),
    ("a;=1+1", "a;'=1+1"),  # which is a cell of its own where the delimiter is `;`
    ("a;-5;@b;'=c", "a;-5;'@b;''=c"),
    (";\t", ";'\t"),
]


def test_a_cell_that_a_spreadsheet_would_run_is_neutralised(subtests: pytest.Subtests) -> None:
    for text, cell in FORMULAS:
        with subtests.test(text):
            assert (neutral(text), original(cell)) == (cell, text)


# What is special in CSV and in spreadsheets, among all that text can be.
SPECIAL = st.sampled_from("'=+-@\t\r\n\",; a1.,\uff1d\x1c\x85\ufeff")
CHARACTERS = st.one_of(SPECIAL, st.characters(codec="utf-8", exclude_characters="\0"))


@settings(derandomize=True, deadline=None)
@given(st.text(CHARACTERS))
def test_neutralising_any_text_can_be_undone(text: str) -> None:
    assert original(neutral(text)) == text


# Export


@pytest.fixture
def database(tmp_path: Path) -> Iterable[Database]:
    (tmp_path / "rooms.db").touch()
    database = Database(KitSettings(database_url=f"sqlite:///{tmp_path}/rooms.db"))
    with database.engine.begin() as connection:
        Room.metadata.create_all(connection)
    yield database
    database.close()


def add(database: Database, *rooms: dict[str, Any]) -> None:
    with ending(database.write()) as session:
        session.add_all([Room(**room) for room in rooms])


def exported(database: Database) -> list[str]:
    """The parts of the file."""

    async def read() -> list[str]:
        return [str(part) async for part in Export(database, Room, RoomRow).response("rooms.csv").body_iterator]

    return anyio.run(read)


def test_an_export_is_quoted_where_rfc_4180_says_so(database: Database) -> None:
    cells = {
        "Plain": "Plain",
        "Hall, large": '"Hall, large"',
        'A 3" pipe': '"A 3"" pipe"',
        "Two\nlines": '"Two\nlines"',
        "Two\r\nlines": '"Two\r\nlines"',
        "Two\rlines": '"Two\rlines"',
        "Lampe für Zoë 💡": "Lampe für Zoë 💡",
        "a;b": "a;b",
        "a;=1": "a;'=1",
        "=1+1": "'=1+1",
    }
    add(database, *({"name": name, "tags": ["=a", "-5"]} for name in cells))

    assert "".join(exported(database)) == "".join(
        [f"{HEADER}\r\n", *(f"{cell},1,'=a;-5\r\n" for cell in cells.values())]
    )


def test_an_export_comes_in_parts_and_has_every_row_once(database: Database) -> None:
    add(database, *({"name": f"Room {number}"} for number in range(2 * BATCH + 1)))
    parts = exported(database)
    names = [row["name"] for row in csv.DictReader(io.StringIO("".join(parts)))]

    assert len(parts) == 1 + 3
    assert names == [f"Room {number}" for number in range(2 * BATCH + 1)]


def test_an_empty_table_exports_as_the_header(database: Database) -> None:
    response = Export(database, Room, RoomRow).response("rooms.csv")

    assert exported(database) == [f"{HEADER}\r\n"]
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="rooms.csv"'


# Import: which files are read


def test_delimiters_byte_order_marks_and_line_ends_are_recognised(subtests: pytest.Subtests) -> None:
    for delimiter in (",", ";"):
        for mark in ("", "\ufeff"):
            for end in ("\r\n", "\n", "\r"):
                with subtests.test(delimiter=delimiter, mark=mark, end=end):
                    lines = [f"{mark}name{delimiter}seats", f"Hall{delimiter}12", f"Attic{delimiter}9"]

                    assert rows_in(end.join([*lines, ""])) == [
                        {"name": "Hall", "seats": 12},
                        {"name": "Attic", "seats": 9},
                    ]


def test_the_last_line_needs_no_end() -> None:
    assert rows_in("name,seats\nHall,1") == [{"name": "Hall", "seats": 1}]


def test_a_semicolon_file_quotes_its_lists() -> None:
    expected = [{"name": "Hall, large", "seats": 1, "tags": ["big", "new"]}]

    assert rows_in('name;seats;tags\r\nHall, large;1;"big;new"\r\n') == expected


def test_columns_come_in_any_order_and_cells_are_stripped() -> None:
    assert rows_in(" tags , name , seats\r\nbig; ;new , Hall ,12\r\n") == [
        {"tags": ["big", "new"], "name": "Hall", "seats": 12}
    ]


def test_a_column_that_is_absent_is_not_given_and_an_empty_list_is() -> None:
    assert rows_in("name,seats\r\nHall,1\r\n") == [{"name": "Hall", "seats": 1}]
    assert rows_in("name,seats,tags\r\nHall,1,\r\n") == [{"name": "Hall", "seats": 1, "tags": []}]


def test_a_file_of_a_header_alone_does_nothing() -> None:
    assert (read(HEADER).values, read(HEADER).errors) == ([], [])


def test_blank_lines_are_passed_over() -> None:
    assert rows_in("name,seats\n\nHall,1\n\n\nAttic,2\n\n") == [
        {"name": "Hall", "seats": 1},
        {"name": "Attic", "seats": 2},
    ]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_what_was_neutralised_is_read_as_it_was(delimiter: str, subtests: pytest.Subtests) -> None:
    for text, cell in FORMULAS:
        if text.strip():
            with subtests.test(text):
                file = io.StringIO()
                csv.writer(file, delimiter=delimiter).writerows([["name", "seats"], [cell, 1]])

                assert [row["name"] for row in rows_in(file.getvalue())] == [text.strip()]


# Import: the file is wrong

KNOWN = HEADER.replace(",", ", ")
WRONG_FILES: list[tuple[bytes, str]] = [
    (b"", f"Begin the file with a header of {KNOWN}"),
    (b"\r\n", f"Begin the file with a header of {KNOWN}"),
    (b",,\r\nHall,1,", f"Begin the file with a header of {KNOWN}"),
    (b"Hall,12\r\n", f"The column 'Hall' is not known; the columns are {KNOWN}"),
    (b"name,seats,colour\r\n", f"The column 'colour' is not known; the columns are {KNOWN}"),
    (b"name,seats,\r\n", f"The column '' is not known; the columns are {KNOWN}"),
    (b"Name,seats\r\n", f"The column 'Name' is not known; the columns are {KNOWN}"),
    (b"name," + b"x" * 100, f"The column {'x' * 64!r} is not known; the columns are {KNOWN}"),
    (b"name,tags\r\nHall,\r\n", f"The column 'seats' is missing; the columns are {KNOWN}"),
    (b"seats\r\n1\r\n", f"The column 'name' is missing; the columns are {KNOWN}"),
    (b"name,seats,name\r\n", "The column 'name' stands in the header twice"),
    (b"a" * 200_000, "The header is not CSV: field larger than field limit (131072)"),
    (b"name,seats\r\nH\xe4ll,1\r\n", "Save the file as UTF-8"),
    ("name,seats\r\nHall,1\r\n".encode("utf-16"), "Save the file as UTF-8"),
    (b"name,seats\n" + b"x,1\n" * (MAX_ROWS + 1), f"Split the file: it has more than {MAX_ROWS} rows"),
]


def test_a_wrong_file_is_refused_with_what_to_do(subtests: pytest.Subtests) -> None:
    for content, message in WRONG_FILES:
        with subtests.test(content[:50].decode("latin-1")):
            assert why_refused(content) == message


def test_a_file_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(BodyTooLarge):
        read(b"x" * (MAX_BYTES + 1))


def test_the_upload_stays_open_whatever_becomes_of_it() -> None:
    for content in (b"name,seats\r\nHall,1\r\n", b"", b"\xff"):
        file = io.BytesIO(content)
        with suppress(Invalid):
            read_records(file, len(content), RoomRow, "name")

        assert not file.closed


# Import: a record is wrong

NO_NUMBER = "seats: Input should be a whole number in plain digits"
WRONG_ROWS: list[tuple[str, str]] = [
    (",1,", "name: String should have at least 1 character"),
    (",0,", "name: String should have at least 1 character; seats: Input should be greater than or equal to 1"),
    (f"{'x' * 21},1,", "name: String should have at most 20 characters"),
    ("Ha\0ll,1,", "It must not have NUL characters"),
    *((f"Hall,{cell},", NO_NUMBER) for cell in ("", "12.50", "1e3", "٣", "-1", "many", "1_0", "9" * 5_000)),
    ("Hall,1,a;a", "tags: No two may be alike"),
    ("Hall,1,a;b;c;d", "tags: List should have at most 3 items after validation, not 4"),
    ("Hall", "It has 1 cells, and the header has 3"),
    ("Hall,1", "It has 2 cells, and the header has 3"),
    ("Hall,1,,", "It has 4 cells, and the header has 3"),
    (f"Hall,1,{'x' * 200_000}", "This is not CSV: field larger than field limit (131072)"),
    ('"Hall"x,1,', "This is not CSV: ',' expected after '\"'"),
    ('"Hall,1,', "This is not CSV: unexpected end of data"),
]


def test_what_is_wrong_with_a_record_is_named(subtests: pytest.Subtests) -> None:
    for row, message in WRONG_ROWS:
        with subtests.test(row[:50]):
            assert errors_in(HEADER, "Attic,1,", row) == [(3, message)]


def test_a_key_twice_in_one_file_is_an_error_of_its_record_across_batches_too() -> None:
    rooms = [f"Room {number},1" for number in range(BATCH)]
    expected = [(BATCH + 3, "name: It stands in this file twice")]

    assert errors_in("name,seats", "Straße,1", *rooms, "STRASSE,3") == expected


def test_a_record_is_in_the_line_where_it_begins(subtests: pytest.Subtests) -> None:
    for end in ("\r\n", "\n", "\r"):
        with subtests.test(end):
            lines = ["name,seats", "", f'"Two{end}lines",1', "", f'"So{end}long{end}lines",0', "Hall,-1"]

            assert [line for line, _ in errors_in(*lines, end=end)] == [6, 9]


def test_only_so_many_errors_are_reported() -> None:
    found = read("name,seats\n" + "".join(f"Room {number},0\n" for number in range(MAX_MESSAGES + 1)) + "Hall,1\n")

    assert (len(found.values), len(found.errors)) == (1, MAX_MESSAGES)


# Import: files that would take long, or much memory

HOSTILE: list[tuple[str, bytes, str]] = [
    ("empty lines", b"name,seats\n" + b"\n" * (MAX_BYTES - 11), "Split the file: it has more than"),
    (
        "empty lines of two characters",
        b"name,seats\r\n" + b"\r\n" * (MAX_BYTES // 2 - 6),
        "Split the file: it has more than",
    ),
    ("one long line", b"name,seats\n" + b"x" * (MAX_BYTES - 11), "This is not CSV: a record has more than"),
    ("one long record", b'name,seats\n"' + b"x\n" * (MAX_BYTES // 2 - 6), "This is not CSV: field larger than"),
    ("one record of many cells", b"name,seats\n" + b"," * (MAX_BYTES - 11), "This is not CSV: a record has more"),
    ("a long header", b"name," * (MAX_BYTES // 5), "The column 'name' stands in the header twice"),
    ("a header without an end", b"," * MAX_BYTES, "Begin the file with a header of"),
    ("a header of one cell", b"n" * MAX_BYTES, "The header is not CSV"),
]


@pytest.mark.parametrize(("content", "message"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_a_hostile_file_is_refused_quickly_and_in_little_memory(content: bytes, message: str) -> None:
    file = io.BytesIO(content)
    tracemalloc.start()
    began = process_time()
    try:
        said = [error.message for error in read_records(file, len(content), RoomRow, "name").errors]
    except Invalid as refused:
        said = [error["msg"] for error in refused.errors]
    seconds, (_, peak) = process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [text[: len(message)] for text in said] == [message]
    assert seconds < 5  # with all that watching memory costs
    assert peak < MAX_BYTES / 2


# What becomes of the records


Changed = Sequence[tuple[Mapping[str, Any], dict[str, Any]]]
AfterChange = Callable[[Changed], None]


def ignore(_: Changed) -> None:
    pass


def room_report(app: App, content: str, *, dry_run: bool = False, after_change: AfterChange = ignore) -> ImportReport:
    records = read(content)
    with ending(app.state.database.write()) as session:
        return import_records(session, StoredRoom, RoomRow, "name", records, dry_run=dry_run, after_change=after_change)


def stored(app: App) -> list[tuple[str, int, list[str], int]]:
    with app.state.database.read() as session:
        rooms = session.exec(select(StoredRoom).order_by(col(StoredRoom.id))).all()
        return [(room.name, room.seats, room.tags, room.version) for room in rooms]


def test_rows_are_created_changed_and_left_alone(app: App) -> None:
    changed: list[tuple[int, int]] = []

    def note(changes: Changed) -> None:
        changed.extend((old["seats"], new["seats"]) for old, new in changes)

    first = room_report(app, "name,seats,tags\nHall,1,big\nAttic,2,\n", after_change=note)
    second = room_report(app, "name,seats\nHALL,1\nAttic,3\nCellar,1\n", after_change=note)

    assert first == ImportReport(created=2)
    assert second == ImportReport(created=1, updated=2)  # a name in another case is a change
    assert stored(app) == [("HALL", 1, ["big"], 2), ("Attic", 3, [], 2), ("Cellar", 1, [], 1)]
    assert room_report(app, "name,seats\nHALL,1\n") == ImportReport(unchanged=1)
    assert changed == [(1, 1), (2, 3)]


def test_a_file_goes_in_by_batches(app: App) -> None:
    file = "name,seats\n" + "".join(f"Room {number},1\n" for number in range(2 * BATCH + 1))

    assert room_report(app, file) == ImportReport(created=2 * BATCH + 1)
    assert room_report(app, file.replace(",1\n", ",2\n")) == ImportReport(updated=2 * BATCH + 1)
    assert [room[1:] for room in stored(app)] == [(2, [], 2)] * (2 * BATCH + 1)


def test_a_dry_run_and_a_file_with_an_error_count_and_write_nothing(app: App) -> None:
    room_report(app, "name,seats\nHall,1\n")
    good, bad = "name,seats\nHall,2\nAttic,1\n", "name,seats\nHall,2\nAttic,1\nCellar,0\n"
    tried, wrong = room_report(app, good, dry_run=True), room_report(app, bad)

    assert tried == ImportReport(created=1, updated=1)
    assert (wrong.created, wrong.updated, [error.line for error in wrong.errors]) == (1, 1, [4])
    assert stored(app) == [("Hall", 1, [], 1)]
