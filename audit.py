"""The route of the audit; what is written, and when, is in `kit/audit.py`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, NamedTuple

from fastapi import Query
from sqlmodel import Session
from sqlmodel.sql.expression import SelectOfScalar

from auth import AdminUser
from kit.audit import Audited, AuditedEntity, AuditEntry, AuditEntryPublic
from kit.db import ReadSession
from kit.lists import CursorPage, CursorPageOf, CursorPaging, CursorRequest, Filters, cached_statement, rows_of
from kit.models import Id
from kit.routing import Router
from models import User
from settings import API

router = Router(prefix=f"{API}/audit", tags=["audit"])


class AuditFilters(Filters):
    """Which changes to list."""

    entity: AuditedEntity | None = None
    entity_id: Id | None = None
    actor_id: Id | None = None

    @cached_statement
    def entries(self) -> SelectOfScalar[AuditEntry]:
        """The changes that pass."""
        return rows_of(AuditEntry).filter_by(**self.model_dump(exclude_none=True))


@router.get("", response_model=CursorPageOf[AuditEntryPublic])
def list_audit_entries(
    cursor: CursorPaging, filters: Annotated[AuditFilters, Query()], admin: AdminUser, session: ReadSession
) -> CursorPage[AuditEntry]:
    """List who changed what, the newest first; a password change shows without its values."""
    return cursor.of(session, AuditEntry, filters.entries())


# Pages


class Change(NamedTuple):
    """One change in words, as the macro `history` shows it: what was changed, from what to what."""

    at: datetime
    who: str
    what: str
    changes: list[tuple[str, str | None, str | None]]


def history_of(session: Session, table: type[Audited], row_id: int) -> list[Change]:
    """The latest changes of a row in words, for its page; two statements."""
    rows = rows_of(AuditEntry).filter_by(entity=table.entity_name(), entity_id=row_id)
    return in_words(session, CursorRequest(limit=10).of(session, AuditEntry, rows).items)


def in_words(session: Session, entries: Sequence[AuditEntry]) -> list[Change]:
    """Changes with names in place of ids, and amounts in place of cents."""
    names = User.names(session, [entry.actor_id for entry in entries])
    return [
        Change(
            entry.at,
            names.get(entry.actor_id or 0, "Nobody"),
            f"{entry.action} {entry.entity} {entry.entity_id}",
            [(name, str(old), str(new)) for name, (old, new) in entry.changes.items()],
        )
        for entry in entries
    ]
