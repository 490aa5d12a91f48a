"""Looking at an import before it is done: the file that waits meanwhile, and all that it would change."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple
from zlib import compress, decompress

from pydantic import BaseModel
from sqlalchemy import ColumnElement, delete
from sqlmodel import Field, Session, col
from starlette.datastructures import UploadFile

from kit.db import Database
from kit.fields import cents_of, in_words
from kit.models import BigInt, Table, folded, now, upsert
from kit.problems import Conflict
from kit.spreadsheets import ImportReport, Reader, Records, original, read_records
from kit.strict import FORBIDDEN_TEXT

CENTS = "_cents"
SHOWN = 200  # rows and wrong lines that a page shows


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


class ReaderForPeople(Reader):
    """Takes `Reorder level` for `reorder_level`, and `Price`, with amounts such as 12.50, for `price_cents`."""

    def __init__(self, text: io.TextIOWrapper, row: type[BaseModel], key: str) -> None:
        super().__init__(text, row, key)
        self.amounts: set[str] = {name for name in row.model_fields if name.endswith(CENTS)}

    def column(self, cell: str) -> str:
        """The field for which a cell of the header stands, in whatever case."""
        column = folded(cell).replace(" ", "_")
        if column in self.amounts:
            self.amounts.remove(column)  # the file has cents
        return f"{column}{CENTS}" if f"{column}{CENTS}" in self.amounts else column

    def called(self, column: str) -> str:
        """What a column is called on pages."""
        return (column.removesuffix(CENTS) if column in self.amounts else column).replace("_", " ")

    def text_of(self, column: str, cell: str) -> str:
        """What stands in a cell, with cents for an amount."""
        plain = original(cell)
        return str(cents_of(plain) or plain) if column in self.amounts else plain

    def words(self, fault: Any) -> str:
        """What is wrong with a cell, in words for people."""
        is_amount = fault["loc"][0] in self.amounts
        if fault["type"] == "int_parsing" and not is_amount:
            return "Enter a whole number in digits alone"
        return in_words(self.row, fault, amounts=is_amount)


class ImportChanged(Conflict):
    """409: an import would do something else than its preview showed."""

    detail = "What this import would do has changed since it was shown. Nothing was imported; look at it once more."


def checked_file(upload: UploadFile, row: type[BaseModel], key: str) -> CheckedFile:
    """A file that somebody chose, if it can be read at all; takes seconds for the largest one.

    Raises:
        BodyTooLarge: the file is larger than 16 MiB.
        Invalid: it has no header, a wrong one, too many rows, or is not UTF-8.
    """
    read_records(upload.file, upload.size or 0, row, key, ReaderForPeople)
    upload.file.seek(0)
    return CheckedFile(FORBIDDEN_TEXT.sub("", upload.filename or "")[:100], compress(upload.file.read(), 1))


@dataclass(frozen=True)
class WaitingFile:
    """A file that somebody chose, and what is in it."""

    name: str
    hash: bytes
    records: Records

    @classmethod
    def of(cls, database: Database, user_id: int, row: type[BaseModel], key: str) -> "WaitingFile | None":
        """The file that this person chose last; None where it was imported, or has expired."""
        with database.read() as session:
            upload = session.get(Upload, user_id)
        if upload is None:
            return None
        content = decompress(upload.content)
        records = read_records(io.BytesIO(content), len(content), row, key, ReaderForPeople)
        return cls(upload.name, sha256(content).digest(), records)


class PreviewRow(NamedTuple):
    """A row that an import would add, where there is nothing old, or change."""

    old: Mapping[str, Any] | None
    new: Mapping[str, Any]

    def was(self, column: str) -> Any:
        """What a column has now, if it would get something else; None if not."""
        changes = self.old is not None and column in self.new and self.old[column] != self.new[column]
        return self.old[column] if self.old is not None and changes else None

    def value(self, column: str) -> Any:
        """What a column would have."""
        return self.new[column] if column in self.new else (self.old or {})[column]


class Preview:
    """Watches an import, with `watch`: its first rows, and a seal on all that it would change."""

    def __init__(self, file: WaitingFile) -> None:
        self.rows: list[PreviewRow] = []
        self._hash = sha256(file.hash)

    def watch(
        self, new: Sequence[Mapping[str, Any]], changed: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
    ) -> None:
        """Take notice of a part of the import."""
        rows = [PreviewRow(None, given) for given in new] + [PreviewRow(old, given) for old, given in changed]
        for old, given in rows:
            before = old and (old["id"], [old[name] for name in given])
            self._hash.update(repr((before, [*given.items()])).encode())
        self.rows += rows[: SHOWN - len(self.rows)]

    @property
    def seal(self) -> str:
        """A hash of the file, and of old and new values of every row that would be added or changed."""
        return self._hash.hexdigest()

    def require(self, seal: str, report: ImportReport) -> None:
        """Refuse an import with wrong lines, and one that is not the one whose seal this is, after all was watched.

        Raises:
            ImportChanged: it is another one.
        """
        if report.errors or seal != self.seal:
            raise ImportChanged
