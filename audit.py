"""The route of the audit; what is written, and when, is at `models.AuditEntry`."""

from typing import Annotated

from fastapi import Query
from sqlmodel.sql.expression import SelectOfScalar

from callers import AdminUser
from kit.db import ReadSession
from kit.lists import Cursoring, Endless, EndlessOf, Filters, plain, remembered
from kit.routing import Router
from models import AuditedEntity, AuditEntry, AuditEntryPublic, Id

router = Router(prefix="/api/v1/audit", tags=["audit"])


class AuditFilters(Filters):
    """Which changes to list."""

    entity: AuditedEntity | None = None
    entity_id: Id | None = None
    actor_id: Id | None = None

    @remembered
    def entries(self) -> SelectOfScalar[AuditEntry]:
        """The changes that pass."""
        entries = plain(AuditEntry)
        if self.entity is not None:
            entries = entries.where(AuditEntry.entity == self.entity)
        if self.entity_id is not None:
            entries = entries.where(AuditEntry.entity_id == self.entity_id)
        if self.actor_id is not None:
            entries = entries.where(AuditEntry.actor_id == self.actor_id)
        return entries


@router.get("", response_model=EndlessOf[AuditEntryPublic])
def list_audit_entries(
    cursor: Cursoring, filters: Annotated[AuditFilters, Query()], admin: AdminUser, session: ReadSession
) -> Endless[AuditEntry]:
    """List who changed what, the newest first; a password change shows without its values."""
    return cursor.of(session, AuditEntry, filters.entries())
