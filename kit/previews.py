"""Looking at an import before it is done: the file that waits meanwhile, and all that it would change."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple
from zlib import compress, decompress

from pydantic import BaseModel
from starlette.datastructures import UploadFile

from kit.db import Database
from kit.problems import Conflict
from kit.spreadsheets import CheckedFile, ImportReport, Records, Upload, read_records
from kit.strict import FORBIDDEN_TEXT

SHOWN = 200  # rows and wrong lines that a page shows


class ImportChanged(Conflict):
    """409: an import would do something else than its preview showed."""

    detail = "What this import would do has changed since it was shown. Nothing was imported; look at it once more."


def checked_file(upload: UploadFile, row: type[BaseModel], key: str) -> CheckedFile:
    """A file that somebody chose, if it can be read at all; takes seconds for the largest one.

    Raises:
        BodyTooLarge: the file is larger than 16 MiB.
        Invalid: it has no header, a wrong one, too many rows, or is not UTF-8.
    """
    read_records(upload.file, upload.size or 0, row, key, for_people=True)
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
        records = read_records(io.BytesIO(content), len(content), row, key, for_people=True)
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
