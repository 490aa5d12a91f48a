"""CSV of any table: what is neutralised, which files are read, what is wrong with a record, and a file in batches."""

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from fastapi import UploadFile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field as Column
from sqlmodel import Session, SQLModel

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
    Import,
    ImportForm,
    ImportReport,
    neutral,
    original,
)

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


class RoomImport(Import[RoomRow]):
    """An import that notes its batches."""

    row = RoomRow
    key = "name"

    def __init__(self, session: Session, form: ImportForm, *, dry_run: bool = False) -> None:
        super().__init__(session, form, dry_run=dry_run)
        self.batches: list[Sequence[RoomRow]] = []
        self.wrote: list[bool] = []

    def apply(self, rows: Sequence[RoomRow]) -> None:
        self.batches.append(rows)
        self.wrote.append(self.writes)
        self.count(created=len(rows), updated=0, unchanged=0)


def opened(content: str | bytes, *, dry_run: bool = False) -> RoomImport:
    file = content.encode() if isinstance(content, str) else content
    return RoomImport(Session(), ImportForm(file=UploadFile(io.BytesIO(file), size=len(file))), dry_run=dry_run)


def rows_in(content: str | bytes) -> list[tuple[str, int, list[str]]]:
    """The records of a file that has no error."""
    rooms = opened(content)
    assert rooms.run().errors == []
    return [(row.name, row.seats, row.tags) for batch in rooms.batches for row in batch]


def errors_in(*lines: str, end: str = "\r\n") -> list[tuple[int, str]]:
    report = opened(end.join([*lines, ""])).run()
    return [(error.line, error.message) for error in report.errors]


def why_refused(content: str | bytes) -> str:
    with pytest.raises(Invalid) as refused:
        opened(content).run()
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

                    assert rows_in(end.join([*lines, ""])) == [("Hall", 12, []), ("Attic", 9, [])]


def test_the_last_line_needs_no_end() -> None:
    assert rows_in("name,seats\nHall,1") == [("Hall", 1, [])]


def test_a_semicolon_file_quotes_its_lists() -> None:
    assert rows_in('name;seats;tags\r\nHall, large;1;"big;new"\r\n') == [("Hall, large", 1, ["big", "new"])]


def test_columns_come_in_any_order_and_cells_are_stripped() -> None:
    assert rows_in(" tags , name , seats\r\nbig; ;new , Hall ,12\r\n") == [("Hall", 12, ["big", "new"])]


def test_a_column_that_is_absent_is_not_given_and_an_empty_list_is() -> None:
    absent, empty = opened("name,seats\r\nHall,1\r\n"), opened("name,seats,tags\r\nHall,1,\r\n")
    for rooms in (absent, empty):
        rooms.run()

    assert [rooms.given(rooms.batches[0][0]) for rooms in (absent, empty)] == [
        {"name": "Hall", "seats": 1},
        {"name": "Hall", "seats": 1, "tags": []},
    ]


def test_a_file_of_a_header_alone_does_nothing() -> None:
    assert opened(HEADER).run() == ImportReport()


def test_blank_lines_are_passed_over() -> None:
    assert rows_in("name,seats\n\nHall,1\n\n\nAttic,2\n\n") == [("Hall", 1, []), ("Attic", 2, [])]


def test_what_was_neutralised_is_read_as_it_was(subtests: pytest.Subtests) -> None:
    for text, cell in FORMULAS:
        if text.strip():
            with subtests.test(text):
                file = io.StringIO()
                csv.writer(file).writerows([["name", "seats"], [cell, 1]])

                assert [name for name, *_ in rows_in(file.getvalue())] == [text.strip()]


def test_a_file_is_applied_in_batches() -> None:
    rooms = opened("name,seats\n" + "".join(f"Room {number},1\n" for number in range(2 * BATCH + 1)))

    assert rooms.run() == ImportReport(created=2 * BATCH + 1)
    assert [len(batch) for batch in rooms.batches] == [BATCH, BATCH, 1]


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
        opened(b"x" * (MAX_BYTES + 1))


def test_the_upload_stays_open_whatever_becomes_of_it() -> None:
    for content in (b"name,seats\r\nHall,1\r\n", b"", b"\xff"):
        form = ImportForm(file=UploadFile(io.BytesIO(content), size=len(content)))
        with suppress(Invalid):
            RoomImport(Session(), form).run()

        assert not form.file.file.closed


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
    report = opened("name,seats\n" + "".join(f"Room {number},0\n" for number in range(MAX_MESSAGES + 1)) + "Hall,1\n")

    assert (report.run().created, len(report.report.errors)) == (1, MAX_MESSAGES)


# All or nothing


class WatchedSession(Session):
    """A session that says whether it was rolled back."""

    was_rolled_back = False

    def rollback(self) -> None:
        self.was_rolled_back = True


def test_one_error_takes_back_what_was_written_and_ends_the_writing() -> None:
    lines = [f"Room {number},1\n" for number in range(2 * BATCH)]
    lines.insert(BATCH + 1, "Hall,none\n")
    rooms = opened("name,seats\n" + "".join(lines))
    rooms.session = session = WatchedSession()

    assert rooms.run().created == 2 * BATCH
    assert rooms.wrote == [True, False]
    assert session.was_rolled_back


def test_without_an_error_nothing_is_taken_back() -> None:
    rooms = opened("name,seats\nHall,1\n")
    rooms.session = session = WatchedSession()
    rooms.run()

    assert (rooms.wrote, session.was_rolled_back) == ([True], False)


def test_a_dry_run_counts_and_never_writes() -> None:
    rooms = opened("name,seats\nHall,1\nAttic,0\n", dry_run=True)
    report = rooms.run()

    assert (report.created, [error.line for error in report.errors], rooms.wrote) == (1, [3], [False])
