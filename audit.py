"""The route of the audit; what is written, and when, is in `kit/audit.py`."""

from typing import Annotated

from fastapi import Query
from sqlmodel.sql.expression import SelectOfScalar

from auth import AdminUser
from kit.audit import AuditedEntity, AuditEntry, AuditEntryPublic
from kit.db import ReadSession
from kit.lists import CursorPage, CursorPageOf, CursorPaging, Filters, cached_statement, rows_of
from kit.models import Id
from kit.routing import Router
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
