"""Tables as CSV (RFC 4180): an export that streams, and an import that is all or nothing.

The columns are the fields of a model, which also checks each record. Lists are joined by `;`.
"""

import csv
import io
import re
from collections.abc import Generator, Sequence
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar, cast, get_origin

from fastapi import UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select as select_columns
from sqlmodel import Session, SQLModel

from kit.db import Database
from kit.errors import Responses
from kit.models import folded
from kit.problems import BodyTooLarge, Invalid

Record = TypeVar("Record", bound=BaseModel)

MAX_BYTES = 16 * 1024 * 1024
FORM_OVERHEAD = 64 * 1024
MAX_ROWS = 100_000
MAX_MESSAGES = 1_000
BATCH = 1_000
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
    """`cell` as no spreadsheet takes it for a formula; plain numbers are left alone."""
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def original(cell: str) -> str:
    """`cell` as it was before `neutral`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


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


class ImportReport(BaseModel):
    """What an import did; with errors, or as a dry run, what it would have done."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: list[RowError] = []


class Import(Generic[Record]):
    """One import: reads the file in batches, and rolls everything back when a record is wrong.

    A table has a class of its own, which says what a record is, by which column it is matched (without case), and how
    a batch of records that are right is applied.
    """

    row: ClassVar[type[BaseModel]]
    key: ClassVar[str]

    def __init__(self, session: Session, form: ImportForm, *, dry_run: bool) -> None:
        if (form.file.size or 0) > MAX_BYTES:
            raise BodyTooLarge
        self.session = session
        self.text = io.TextIOWrapper(form.file.file, encoding="utf-8-sig", newline="")
        self.writes = not dry_run
        self.report = ImportReport()
        self.keys: set[str] = set()

    def apply(self, rows: Sequence[Record]) -> None:
        """Count what becomes of these records, and write them if `writes` says so."""
        raise NotImplementedError

    def given(self, row: Record) -> dict[str, Any]:
        """What the file says of a row; a column that it does not have is left as it is."""
        return row.model_dump(exclude_unset=True)

    def count(self, *, created: int, updated: int, unchanged: int) -> None:
        """Add to the report."""
        self.report.created += created
        self.report.updated += updated
        self.report.unchanged += unchanged

    def run(self) -> ImportReport:
        """Read all rows and write them, or nothing.

        Raises:
            Invalid: the file has no header, a wrong one, too many rows, or is not UTF-8.
        """
        try:
            rows = self._rows()
            while batch := list(islice(rows, BATCH)):
                self.apply(batch)
                self.session.expunge_all()
        except UnicodeDecodeError:
            raise _wrong_file("Save the file as UTF-8") from None
        except csv.Error as error:
            raise _wrong_file(f"The header is not CSV: {error}") from None
        finally:
            self.text.detach()  # or closing the wrapper would close the upload, which is FastAPI's to close
        if self.report.errors:
            self.session.rollback()
        return self.report

    def _rows(self) -> Generator[Record]:
        """The records that are right; the others go into the report."""
        header_line = self.text.readline()
        delimiter = ";" if header_line.count(";") > header_line.count(",") else ","
        header = list(csv.reader([header_line], delimiter=delimiter))
        columns = self._checked_header(header[0] if header else [])
        records = csv.reader(self.text, delimiter=delimiter, strict=True)
        line, count = 2, 0
        try:
            for record in records:
                count += bool(record)
                if count > MAX_ROWS:
                    raise _wrong_file(f"Split the file: it has more than {MAX_ROWS} rows")
                if record and (row := self._checked(line, columns, record)):
                    yield row
                line = records.line_num + 2
        except csv.Error as error:
            self._refuse(line, f"This is not CSV: {error}")

    def _checked(self, line: int, columns: list[str], record: list[str]) -> Record | None:
        if len(record) != len(columns):
            return self._refuse(line, f"It has {len(record)} cells, and the header has {len(columns)}")
        if any("\0" in cell for cell in record):
            return self._refuse(line, "It must not have NUL characters")
        cells: dict[str, Any] = {column: original(cell) for column, cell in zip(columns, record, strict=True)}
        for column in columns:
            if get_origin(self.row.model_fields[column].annotation) is list:
                cells[column] = [part for part in cells[column].split(";") if part.strip(" ")]
        try:
            row = cast(Record, self.row.model_validate(cells))
        except ValidationError as error:
            faults = [(fault["loc"][0], fault["msg"]) for fault in error.errors(include_input=False)]
            return self._refuse(line, "; ".join(f"{column}: {said.removeprefix(PREFIX)}" for column, said in faults))
        key = folded(getattr(row, self.key))
        if key in self.keys:
            return self._refuse(line, f"{self.key}: It stands in this file twice")
        self.keys.add(key)
        return row

    def _refuse(self, line: int, message: str) -> None:
        self.writes = False
        if len(self.report.errors) < MAX_MESSAGES:
            self.report.errors.append(RowError(line=line, message=message))

    def _checked_header(self, cells: list[str]) -> list[str]:
        columns = [cell.strip() for cell in cells]
        fields = self.row.model_fields
        known = ", ".join(fields)
        if not any(columns):
            raise _wrong_file(f"Begin the file with a header of {known}")
        for column in columns:
            if column not in fields:
                raise _wrong_file(f"The column {column[:64]!r} is not known; the columns are {known}")
            if columns.count(column) > 1:
                raise _wrong_file(f"The column {column!r} stands in the header twice")
        required = {name for name, field in fields.items() if field.is_required()}
        if missing := required - set(columns):
            raise _wrong_file(f"The column {min(missing)!r} is missing; the columns are {known}")
        return columns


def _wrong_file(message: str) -> Invalid:
    return Invalid([{"loc": ("body", "file"), "msg": message, "type": "csv"}])
