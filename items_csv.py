"""The stock as CSV (RFC 4180): export, and an import that is all or nothing. Both stream."""

import csv
import io
import re
from collections.abc import Generator, Sequence
from itertools import islice
from typing import Annotated, Any

from fastapi import Form, Query, Request, Response, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from callers import AdminUser
from kit.db import Database, ReadSession, WriteSession
from kit.lists import Digits
from kit.problems import BodyTooLarge, Invalid
from kit.routing import Router
from models import Cents, Item, ItemName, Quantity, Tags, folded

router = Router(prefix="/api/v1/items", tags=["items"])

COLUMNS = ("name", "price_cents", "quantity", "reorder_level", "tags")
REQUIRED = {"name", "price_cents"}
MOST_BYTES = 16 * 1024 * 1024
AROUND_IT = 64 * 1024  # of the form
MOST_ROWS = 100_000
MOST_MESSAGES = 1_000
BATCH = 1_000
PREFIX = "Value error, "  # pydantic's, before the words of our own
Stripped = BeforeValidator(str.strip)

# What a spreadsheet takes for a formula (https://owasp.org/www-community/attacks/CSV_Injection), also behind quotes
# that are part of the text itself: so that taking one quote away always gives back what was there.
FORMULA = re.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile("[+-]?[0-9]+([.,][0-9]+)?")


class ItemRow(BaseModel):
    """One record of an import; a column that the file does not have stays unset."""

    model_config = ConfigDict(str_strip_whitespace=True)

    name: ItemName
    price_cents: Annotated[Cents, Digits, Stripped]
    quantity: Annotated[Quantity, Digits, Stripped] = 0
    reorder_level: Annotated[Quantity, Digits, Stripped] = 0
    tags: Tags = []


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


@router.get(
    "/export",
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "The items, by id."}},
)
def export_items(request: Request, admin: AdminUser, session: ReadSession) -> StreamingResponse:
    """Download the stock as CSV.

    Cells that a spreadsheet would take for a formula begin with `'`; an import takes it away again. It is read in
    steps, so an item that changes meanwhile is in it as it was or as it became.
    """
    headers = {"Content-Disposition": 'attachment; filename="items.csv"'}
    return StreamingResponse(_exported(request.app.state.database), media_type="text/csv", headers=headers)


@router.post("/import", max_body_size=MOST_BYTES + AROUND_IT)
def import_items(
    form: Annotated[ImportForm, Form(media_type="multipart/form-data")],
    admin: AdminUser,
    session: WriteSession,
    dry_run: Annotated[bool, Query(description="Only say what would happen.")] = False,
) -> ImportReport:
    """Upload a CSV file (UTF-8, `,` or `;`) of at most 16 MiB and 100,000 rows, matched by name without case.

    All or nothing: with any error nothing is written. `name` and `price_cents` are required, the other columns may be
    missing. At most 1,000 errors are reported.
    """
    if (form.file.size or 0) > MOST_BYTES:
        raise BodyTooLarge
    return Import(session, form.file, dry_run=dry_run).run()


def neutral(cell: str) -> str:
    """`cell` as no spreadsheet takes it for a formula; plain numbers are left alone."""
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def original(cell: str) -> str:
    """`cell` as it was before `neutral`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _exported(database: Database) -> Generator[str]:
    """The file in parts, each read in a short session of its own: a slow client must not hold a connection."""
    yield _lines([COLUMNS])
    wanted = select_columns(col(Item.id), *(getattr(Item, column) for column in COLUMNS)).order_by(col(Item.id))
    last_id = 0
    while True:
        with database.read() as session:
            rows = session.connection().execute(wanted.where(col(Item.id) > last_id).limit(BATCH)).all()
        if not rows:
            return
        last_id = rows[-1][0]
        yield _lines([neutral(name), *numbers, neutral(";".join(tags))] for _, name, *numbers, tags in rows)


def _lines(rows: Any) -> str:  # Any: what `csv` takes for rows has no public type
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


class Import:
    """One import: reads the file in batches, and rolls everything back when a row is wrong."""

    def __init__(self, session: Session, file: UploadFile, *, dry_run: bool) -> None:
        self.session = session
        self.text = io.TextIOWrapper(file.file, encoding="utf-8-sig", newline="")
        self.writes = not dry_run
        self.report = ImportReport()
        self.names: set[str] = set()

    def run(self) -> ImportReport:
        """Read all rows and write them, or nothing.

        Raises:
            Invalid: the file has no header, a wrong one, too many rows, or is not UTF-8.
        """
        try:
            rows = self._rows()
            while batch := list(islice(rows, BATCH)):
                self._apply(batch)
        except UnicodeDecodeError:
            raise _wrong_file("Save the file as UTF-8") from None
        except csv.Error as error:
            raise _wrong_file(f"The header is not CSV: {error}") from None
        finally:
            self.text.detach()  # or closing the wrapper would close the upload, which is FastAPI's to close
        if self.report.errors:
            self.session.rollback()
        return self.report

    def _rows(self) -> Generator[ItemRow]:
        """The records that are right; the others go into the report."""
        header_line = self.text.readline()
        delimiter = ";" if header_line.count(";") > header_line.count(",") else ","
        header = list(csv.reader([header_line], delimiter=delimiter))
        columns = _checked_header(header[0] if header else [])
        records = csv.reader(self.text, delimiter=delimiter, strict=True)
        line, count = 2, 0
        try:
            for record in records:
                count += bool(record)
                if count > MOST_ROWS:
                    raise _wrong_file(f"Split the file: it has more than {MOST_ROWS} rows")
                if record and (row := self._checked(line, columns, record)):
                    yield row
                line = records.line_num + 2
        except csv.Error as error:
            self._refuse(line, f"This is not CSV: {error}")

    def _checked(self, line: int, columns: list[str], record: list[str]) -> ItemRow | None:
        if len(record) != len(columns):
            return self._refuse(line, f"It has {len(record)} cells, and the header has {len(columns)}")
        if any("\0" in cell for cell in record):
            return self._refuse(line, "It must not have NUL characters")
        cells: dict[str, Any] = {column: original(cell) for column, cell in zip(columns, record, strict=True)}
        if "tags" in cells:
            cells["tags"] = [tag for tag in cells["tags"].split(";") if tag.strip(" ")]
        try:
            row = ItemRow.model_validate(cells)
        except ValidationError as error:
            faults = [(fault["loc"][0], fault["msg"]) for fault in error.errors(include_input=False)]
            return self._refuse(line, "; ".join(f"{column}: {said.removeprefix(PREFIX)}" for column, said in faults))
        if folded(row.name) in self.names:
            return self._refuse(line, "name: It stands in this file twice")
        self.names.add(folded(row.name))
        return row

    def _refuse(self, line: int, message: str) -> None:
        self.writes = False
        if len(self.report.errors) < MOST_MESSAGES:
            self.report.errors.append(RowError(line=line, message=message))

    def _apply(self, rows: Sequence[ItemRow]) -> None:
        """Create and change the items of one batch, in a constant number of statements."""
        found = select(Item).where(col(Item.name_key).in_([folded(row.name) for row in rows])).with_for_update()
        known = {item.name_key: item for item in self.session.exec(found)}
        new = [row.model_dump() for row in rows if folded(row.name) not in known]
        matched = [(known[folded(row.name)], _values(row)) for row in rows if folded(row.name) in known]
        changed = [(item, values) for item, values in matched if not _has(item, values)]
        self.report.created += len(new)
        self.report.updated += len(changed)
        self.report.unchanged += len(matched) - len(changed)
        if self.writes:
            Item.create_many(self.session, new)
            Item.change_many(self.session, changed)
        self.session.expunge_all()


def _values(row: ItemRow) -> dict[str, Any]:
    """What the file says of an item; a column that it does not have is left as it is."""
    return row.model_dump(exclude_unset=True)


def _has(item: Item, values: dict[str, Any]) -> bool:
    return all(getattr(item, field) == value for field, value in values.items())


def _checked_header(cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    known = ", ".join(COLUMNS)
    if not any(columns):
        raise _wrong_file(f"Begin the file with a header of {known}")
    for column in columns:
        if column not in COLUMNS:
            raise _wrong_file(f"The column {column[:64]!r} is not known; the columns are {known}")
        if columns.count(column) > 1:
            raise _wrong_file(f"The column {column!r} stands in the header twice")
    if missing := REQUIRED - set(columns):
        raise _wrong_file(f"The column {min(missing)!r} is missing; the columns are {known}")
    return columns


def _wrong_file(message: str) -> Invalid:
    return Invalid([{"loc": ("body", "file"), "msg": message, "type": "csv"}])
