"""Tables as CSV (RFC 4180): an export that streams, and an import that is all or nothing.

The columns are the fields of a model, which also checks each record. Lists are joined by `;`.
"""

import csv
import io
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, BinaryIO, NamedTuple, cast, get_origin

from fastapi import Response, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import ColumnElement, delete
from sqlalchemy import select as select_columns
from sqlmodel import Field, Session, SQLModel, col

from kit.audit import Audited, change_many, create_many
from kit.bulk import among
from kit.db import Database, lock_table
from kit.errors import Responses
from kit.forms import cents_of, in_words
from kit.models import BigInt, Table, Versioned, folded, now, upsert
from kit.problems import BodyTooLarge, Invalid

MAX_BYTES = 16 * 1024 * 1024
FORM_OVERHEAD = 64 * 1024
MAX_ROWS = 100_000
MAX_MESSAGES = 1_000
BATCH = 1_000
MAX_RECORD = 256 * 1024  # characters
CENTS = "_cents"
PREFIX = "Value error, "  # pydantic's, before the words of our own

# What a spreadsheet takes for a formula (https://owasp.org/www-community/attacks/CSV_Injection), also behind quotes
# that are part of the text itself: so that taking one quote away always gives back what was there.
FORMULA = re.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile("[+-]?[0-9]+([.,][0-9]+)?")

CSV: Responses = {
    200: {
        "content": {"text/csv": {"schema": {"type": "string"}}},
        "description": "The rows, by id.",
    }
}


def neutral(cell: str) -> str:
    """`cell` as no spreadsheet takes it for a formula, not even cut at `;`; plain numbers are left alone."""
    return ";".join(
        f"'{part}" if FORMULA.match(part) and not NUMBER.fullmatch(part) else part for part in cell.split(";")
    )


def original(cell: str) -> str:
    """`cell` as it was before `neutral`."""
    return ";".join(part[1:] if part.startswith("'") and FORMULA.match(part) else part for part in cell.split(";"))


class Export:
    """The rows of a table, in the columns of `record`."""

    def __init__(self, database: Database, table: type[SQLModel], record: type[BaseModel]) -> None:
        self.database = database
        self.columns = list(record.model_fields)
        self.ids: Any = getattr(table, "id")  # noqa: B009 - every table here has one, SQLModel does not
        self.wanted = select_columns(self.ids, *(getattr(table, name) for name in self.columns)).order_by(self.ids)

    def response(self, filename: str) -> StreamingResponse:
        """The file, as a download."""
        headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
        return StreamingResponse(self._parts(), media_type="text/csv", headers=headers)

    def _parts(self) -> Generator[str]:
        """Each part is read in a short session of its own: a slow client must not hold a connection."""
        yield _lines([self.columns])
        last_id = 0
        while True:
            with self.database.read() as session:
                rows = session.connection().execute(self.wanted.where(self.ids > last_id).limit(BATCH)).all()
            if not rows:
                return
            last_id = rows[-1][0]
            yield _lines([[_cell(value) for value in values] for _, *values in rows])


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = ";".join(cast(list[str], value))
    return neutral(value) if isinstance(value, str) else value


def _lines(rows: Any) -> str:  # Any: what `csv` takes for rows has no public type
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


class ImportForm(BaseModel):
    """The upload."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile


class RowError(BaseModel):
    """What is wrong with the record that begins in this line; line 1 is the header."""

    line: int
    message: str


def error_list(errors: Sequence[RowError], filename: str) -> Response:
    """What is wrong with which line, as a download."""
    content = _lines([["line", "what is wrong"], *([error.line, neutral(error.message)] for error in errors)])
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return Response(content, media_type="text/csv", headers=headers)


class ImportReport(BaseModel):
    """What an import did; with errors, or as a dry run, what it would have done."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: list[RowError] = []


class Upload(Table, table=True):
    """The file that somebody wants to import, between its preview and the import; each person has one at most."""

    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", primary_key=True, sa_type=BigInt)
    name: str
    content: bytes
    """Compressed by zlib."""
    created_at: datetime = Field(default_factory=now, index=True)

    @classmethod
    def expired(cls) -> ColumnElement[bool]:
        """Files are kept for an hour."""
        return col(cls.created_at) < now() - timedelta(hours=1)

    @classmethod
    def keep(cls, session: Session, user_id: int, file: "CheckedFile") -> None:
        """Keep a file in place of the one that this person chose before."""
        values = {"name": file.name, "content": file.content, "created_at": now()}
        statement = upsert(session, cls).values(user_id=user_id, **values)
        session.connection().execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=values))

    @classmethod
    def forget(cls, session: Session, user_id: int) -> None:
        """Delete the file that this person chose."""
        session.connection().execute(delete(cls).where(col(cls.user_id) == user_id))


class CheckedFile(NamedTuple):
    """A file that can be read as a table, and whatever may be wrong with single rows of it."""

    name: str
    content: bytes
    """Compressed by zlib."""


@dataclass
class Records:
    """The records of a file that are right, as tuples, which take little memory, and what is wrong with the others."""

    columns: list[str] = field(default_factory=list[str])
    values: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    errors: list[RowError] = field(default_factory=list[RowError])


def read_records(file: BinaryIO, size: int, row: type[BaseModel], key: str, *, for_people: bool = False) -> Records:
    """Read and check a whole file; takes seconds for the largest one, so do it before anything is locked.

    `row` says what a record is; by its field `key` each must differ from all others, without case. `for_people` takes
    columns by their names on pages, too, with amounts for cents, and says in words for people what is wrong.

    Raises:
        BodyTooLarge: the file is larger than 16 MiB.
        Invalid: it has no header, a wrong one, too many rows, or is not UTF-8.
    """
    if size > MAX_BYTES:
        raise BodyTooLarge
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        return (_ReaderForPeople if for_people else _Reader)(text, row, key).read()
    except UnicodeDecodeError:
        raise _wrong_file("Save the file as UTF-8") from None
    except csv.Error as error:
        raise _wrong_file(f"The header is not CSV: {error}") from None
    finally:
        text.detach()  # or closing the wrapper would close the upload, which is FastAPI's to close


class _Reader:
    def __init__(self, text: io.TextIOWrapper, row: type[BaseModel], key: str) -> None:
        self.text = text
        self.row = row
        self.key = key
        self.keys: set[str] = set()
        self.found = Records()
        self.size = 0  # of the record that is being read, in characters

    def read(self) -> Records:
        header_line = self.text.readline(MAX_RECORD)
        delimiter = ";" if header_line.count(";") > header_line.count(",") else ","
        header = list(csv.reader([header_line], delimiter=delimiter))
        columns = self.found.columns = self._checked_header(header[0] if header else [])
        records = csv.reader(self._lines(), delimiter=delimiter, strict=True)
        line, count, empty = 2, 0, 0
        try:
            for record in records:
                count, empty, self.size = count + bool(record), empty + (not record), 0
                if count > MAX_ROWS or empty > MAX_ROWS:
                    raise _wrong_file(f"Split the file: it has more than {MAX_ROWS} rows")
                if record:
                    self._take(line, columns, record)
                line = records.line_num + 2
        except csv.Error as error:
            self._refuse(line, f"This is not CSV: {error}")
        return self.found

    def _lines(self) -> Iterator[str]:
        while line := self.text.readline(MAX_RECORD):
            self.size += len(line)
            if self.size >= MAX_RECORD:
                raise csv.Error(f"a record has more than {MAX_RECORD} characters")
            yield line

    def _take(self, line: int, columns: list[str], record: list[str]) -> None:
        if fault := self._fault_of(columns, record):
            self._refuse(line, fault)

    def _fault_of(self, columns: list[str], record: list[str]) -> str:
        """Take a record that is right; else say what is wrong with it."""
        if len(record) != len(columns):
            return f"It has {len(record)} cells, and the header has {len(columns)}"
        if any("\0" in cell for cell in record):
            return "It must not have NUL characters"
        cells: dict[str, Any] = {column: self._read(column, cell) for column, cell in zip(columns, record, strict=True)}
        for column in columns:
            if get_origin(self.row.model_fields[column].annotation) is list:
                cells[column] = [part for part in cells[column].split(";") if part.strip(" ")]
        try:
            row = self.row.model_validate(cells)
        except ValidationError as error:
            faults = error.errors(include_input=False)
            return "; ".join(f"{self._called(str(fault['loc'][0]))}: {self._words(fault)}" for fault in faults)
        key = folded(getattr(row, self.key))
        if key in self.keys:
            return f"{self._called(self.key)}: It stands in this file twice"
        self.keys.add(key)
        self.found.values.append(tuple(getattr(row, column) for column in columns))
        return ""

    def _refuse(self, line: int, message: str) -> None:
        if len(self.found.errors) < MAX_MESSAGES:
            self.found.errors.append(RowError(line=line, message=message))

    def _checked_header(self, cells: list[str]) -> list[str]:
        columns = [self._column(cell.strip()) for cell in cells]
        fields = self.row.model_fields
        known = ", ".join(map(self._called, fields))
        if not any(columns):
            raise _wrong_file(f"Begin the file with a header of {known}")
        for column in columns:
            if column not in fields:
                raise _wrong_file(f"The column {column[:64]!r} is not known; the columns are {known}")
            if columns.count(column) > 1:
                raise _wrong_file(f"The column {column!r} stands in the header twice")
        required = {name for name, found in fields.items() if found.is_required()}
        if missing := required - set(columns):
            raise _wrong_file(f"The column {self._called(min(missing))!r} is missing; the columns are {known}")
        return columns

    # What differs between programs and people

    def _column(self, cell: str) -> str:
        """The field for which a cell of the header stands."""
        return cell

    def _called(self, column: str) -> str:
        """What a column is called."""
        return column

    def _read(self, column: str, cell: str) -> str:
        """What stands in a cell."""
        return original(cell)

    def _words(self, fault: Any) -> str:
        """What is wrong with a cell."""
        return str(fault["msg"]).removeprefix(PREFIX)


class _ReaderForPeople(_Reader):
    """Takes `Reorder level` for `reorder_level`, and `Price`, with amounts such as 12.50, for `price_cents`."""

    def __init__(self, text: io.TextIOWrapper, row: type[BaseModel], key: str) -> None:
        super().__init__(text, row, key)
        self.amounts: set[str] = {name for name in row.model_fields if name.endswith(CENTS)}

    def _column(self, cell: str) -> str:
        column = folded(cell).replace(" ", "_")
        if column in self.amounts:
            self.amounts.remove(column)  # the file has cents
        return f"{column}{CENTS}" if f"{column}{CENTS}" in self.amounts else column

    def _called(self, column: str) -> str:
        return (column.removesuffix(CENTS) if column in self.amounts else column).replace("_", " ")

    def _read(self, column: str, cell: str) -> str:
        plain = original(cell)
        return str(cents_of(plain) or plain) if column in self.amounts else plain

    def _words(self, fault: Any) -> str:
        is_amount = fault["loc"][0] in self.amounts
        if fault["type"] == "int_parsing" and not is_amount:
            return "Enter a whole number in digits alone"
        return in_words(self.row, fault, amounts=is_amount)


def import_records(
    session: Session,
    table: type[Audited],
    row: type[BaseModel],
    key: str,
    records: Records,
    *,
    dry_run: bool,
    after_change: Callable[[Sequence[tuple[Mapping[str, Any], dict[str, Any]]]], None] = lambda _: None,
    watch: Callable[[Sequence[dict[str, Any]], Sequence[tuple[Mapping[str, Any], dict[str, Any]]]], None] | None = None,
) -> ImportReport:
    """Create and change rows, matched by `key` without case (its column `<key>_key` follows from it); or only count.

    All or nothing: where any record is wrong, nothing is written, and the report says what would have happened.
    `after_change` is called with old and new values of the rows that were changed, `watch` also where nothing is
    written: with the new rows, and with old and new values of the others.
    """
    report, writes = ImportReport(errors=records.errors), not (dry_run or records.errors)
    if writes:
        lock_table(session, str(table.__tablename__))
    fields = {name: table.model_fields[name] for name in table.audited} | row.model_fields
    defaults = {name: found.get_default(call_default_factory=True) for name, found in fields.items()}
    names = ["id", f"{key}_key", *row.model_fields, *(["version"] if issubclass(table, Versioned) else [])]
    columns = [getattr(table, name) for name in names]
    for start in range(0, len(records.values), BATCH):
        rows = [dict(zip(records.columns, given, strict=True)) for given in records.values[start : start + BATCH]]
        batch = {folded(given[key]): given for given in rows}
        found = session.connection().execute(select_columns(*columns).where(among(session, columns[1], batch)))
        known = {old[1]: dict(zip(names, old, strict=True)) for old in found}
        new = [defaults | given for folded_key, given in batch.items() if folded_key not in known]
        matched = [(known[folded_key], given) for folded_key, given in batch.items() if folded_key in known]
        changed = [(old, given) for old, given in matched if any(old[name] != value for name, value in given.items())]
        report.created += len(new)
        report.updated += len(changed)
        report.unchanged += len(matched) - len(changed)
        if watch is not None:
            watch(new, changed)
        if writes:
            create_many(session, table, new)
            change_many(session, table, changed)
            after_change(changed)
    return report


def _wrong_file(message: str) -> Invalid:
    return Invalid([{"loc": ("body", "file"), "msg": message, "type": "csv"}])
