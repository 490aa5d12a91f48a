"""The audit: every change of a table that derives from `Audited`, in the same transaction, and who made it.

Listeners see what a session flushes. A bulk statement passes them by, so one on an audited table is refused unless it
is one of the bulk verbs below.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from sqlalchemy import JSON, Column, ForeignKey, Index, event
from sqlalchemy import inspect as sa_inspect
from sqlalchemy import select as select_columns
from sqlalchemy.orm import Mapper, ORMExecuteState
from sqlmodel import Field, Session, SQLModel, select

from kit.bulk import insert_rows, insert_rows_with_ids, update_rows
from kit.db import TransactionSession
from kit.logs import REQUEST_ID
from kit.models import BigInt, Entity, Versioned, now
from kit.problems import BROKEN_CONSTRAINTS, Problem

Row = TypeVar("Row", bound="Audited")
Changes = dict[str, list[Any]]
Action = Literal["create", "update", "delete"]

_ACTOR = object()

# Who acts


def act_as(session: Session, user_id: int) -> None:
    """Let the audit name this account as the one who makes the changes of `session`."""
    session.info[_ACTOR] = user_id


def actor_of(session: Session) -> int | None:
    """The id of the account that makes the changes of `session`; None where nobody is signed in."""
    return session.info.get(_ACTOR)


# What is audited


class Audited(Entity):
    """A table whose every change is in the audit, in the same transaction."""

    audited: ClassVar[tuple[str, ...]] = ()
    """The fields whose values the audit keeps; a secret is not among them."""

    secrets: ClassVar[Mapping[str, str]] = {}
    """Columns of which the audit says that they changed and not how, and what it calls them."""

    def audited_values(self) -> dict[str, Any]:
        """What the row says now, as far as the audit keeps it."""
        return {field: getattr(self, field) for field in self.audited}


def audited_entities() -> list[str]:
    """The names of everything that is audited, as `AuditEntry.entity` has them."""
    tables = [mapper.class_ for mapper in sa_inspect(AuditEntry).registry.mappers]
    return sorted(table.entity_name() for table in tables if issubclass(table, Audited))


class _Entities:
    """Tells the documentation which entities there are, when all of them are known."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "enum": audited_entities()}


def _known(entity: str) -> str:
    if entity not in (known := audited_entities()):
        raise PydanticCustomError("enum", "Input should be one of {known}", {"known": ", ".join(known)})
    return entity


EntityName = Annotated[str, _Entities()]
AuditedEntity = Annotated[EntityName, AfterValidator(_known)]


class AuditEntryPublic(SQLModel):
    """One change: who changed what, when, from which value to which."""

    id: int
    at: datetime
    actor_id: int | None
    action: Action
    entity: EntityName
    entity_id: int
    changes: Changes
    request_id: str | None


class AuditEntry(Entity, table=True):
    """One change of an audited row. The actor is nobody for the command line and for what is done at start."""

    __table_args__ = (
        Index("ix_audit_entry_entity", "entity", "entity_id", "id"),
        Index("ix_audit_entry_entity_latest", "entity", "id"),
        Index("ix_audit_entry_actor_id", "actor_id", "id"),
    )

    at: datetime = Field(default_factory=now)
    actor_id: int | None = Field(default=None, sa_type=BigInt)
    action: str
    entity: str
    entity_id: int = Field(sa_type=BigInt)
    changes: Changes = Field(sa_type=JSON)
    request_id: str | None = None


def record(session: Session, action: Action, table: type[Audited], changes: Sequence[tuple[int, Changes]]) -> None:
    """Write down what became of rows of one table: the id and the changes of each; one statement for all."""
    changes = [(row_id, change) for row_id, change in changes if change]
    if not changes:
        return
    common = {
        "actor_id": actor_of(session),
        "action": action,
        "entity": table.entity_name(),
        "request_id": REQUEST_ID.get() or None,
    }
    insert_rows(session, AuditEntry, [common | {"entity_id": row_id, "changes": change} for row_id, change in changes])


# What a session flushes


@event.listens_for(TransactionSession, "before_flush")
def _record_changes(session: Session, _context: object, _instances: object) -> None:
    """Write down what a flush will change and delete, while the old values are at hand."""
    _record_all(session, "update", ((row, _changes_of(row)) for row in session.dirty if isinstance(row, Audited)))
    deleted = [row for row in session.deleted if isinstance(row, Entity)]
    for row in deleted:
        _refuse_while_in_use(session, row)
    _record_all(session, "delete", _deleted_with(session, deleted))


@event.listens_for(TransactionSession, "after_flush")
def _record_creations(session: Session, _context: object) -> None:
    """Write down what a flush created, now that it has its ids."""
    created = [row for row in session.new if isinstance(row, Audited)]
    changes = [{name: [None, new] for name, new in row.audited_values().items()} for row in created]
    _record_all(session, "create", zip(created, changes, strict=True))


@event.listens_for(TransactionSession, "do_orm_execute")
def _refuse_bulk(statement: ORMExecuteState) -> None:
    """Refuse a bulk statement on an audited table: the audit would not see what it changes."""
    if statement.is_insert or statement.is_update or statement.is_delete:
        mapper = statement.bind_mapper
        if mapper is not None and issubclass(mapper.class_, Audited):
            raise RuntimeError(
                f"{mapper.class_.__name__} is audited, and the audit does not see a bulk statement: change or delete "
                "its objects, or use create_many and change_many of kit.audit."
            )


def _changes_of(row: Audited) -> Changes:
    attributes = sa_inspect(row).attrs
    histories = {field: attributes[field].history for field in row.audited}
    changes = {field: [past.deleted[0], past.added[0]] for field, past in histories.items() if past.has_changes()}
    changed_secrets = [shown for field, shown in row.secrets.items() if attributes[field].history.has_changes()]
    return changes | {shown: [None, None] for shown in changed_secrets}


def _record_all(session: Session, action: Action, rows: Iterable[tuple[Audited, Changes]]) -> None:
    tables: dict[type[Audited], list[tuple[int, Changes]]] = {}
    for row, changes in rows:
        tables.setdefault(type(row), []).append((row.id, changes))
    for table, changed in tables.items():
        record(session, action, table, changed)


# What refers to a row that is deleted: the foreign key of the one who refers says what happens


@cache
def _referring(mapper: Mapper[Any]) -> Sequence[tuple[type[Entity], Column[Any], ForeignKey]]:
    """The tables with a foreign key on this one, their columns and their keys."""
    mappers = sorted(mapper.registry.mappers, key=lambda other: str(other.class_.__name__))
    return [
        (other.class_, column, key)
        for other in mappers
        for column in other.columns
        for key in column.foreign_keys
        if key.column.table is mapper.local_table
    ]


def refusals(table: type[Entity]) -> list[type[Problem]]:
    """The problems that refuse the deletion of a row of `table` while others refer to it, for documenting them."""
    return [problem for _, problem in _keeping(sa_inspect(table))]


@cache
def _keeping(mapper: Mapper[Any]) -> Sequence[tuple[Column[Any], type[Problem]]]:
    """The columns that keep a row from being deleted, and the problem that names their keys."""
    keys = [(column, key) for _, column, key in _referring(mapper) if key.ondelete is None and key.constraint]
    named = [(column, BROKEN_CONSTRAINTS.get(str(key.constraint and key.constraint.name))) for column, key in keys]
    return [(column, problem) for column, problem in named if problem is not None]


def _refuse_while_in_use(session: Session, row: Entity) -> None:
    """Refuse a deletion with the fault that names the foreign key; SQLite, unlike PostgreSQL, does not name it."""
    for column, problem in _keeping(sa_inspect(type(row))):
        used = select_columns(column).where(column == row.id).limit(1)
        if session.connection().execute(used).first() is not None:
            raise problem


def _deleted_with(session: Session, rows: Iterable[Entity]) -> Iterator[tuple[Audited, Changes]]:
    """The audited ones of `rows` and of all that the database deletes with them, each once."""
    seen: set[tuple[type[Entity], int]] = set()
    waiting = [*rows]
    while waiting:
        row = waiting.pop(0)
        if (type(row), row.id) in seen:
            continue
        seen.add((type(row), row.id))
        if isinstance(row, Audited):
            yield row, {name: [old, None] for name, old in row.audited_values().items()}
        for table, column, key in _referring(sa_inspect(type(row))):
            if issubclass(table, Audited) and (key.ondelete or "").upper() == "CASCADE":
                with session.no_autoflush:
                    waiting += session.exec(select(table).where(column == row.id).order_by(column)).all()


# Many rows at once


def create_many(session: Session, table: type[Row], rows: Sequence[dict[str, Any]]) -> list[int]:
    """Add many rows in two statements, one for them and one for their audit; returns their ids, in order.

    All of `rows` must have the same fields, those that are audited among them.
    """
    if not rows:
        return []
    version = {"version": 1} if issubclass(table, Versioned) else {}
    found = insert_rows_with_ids(session, table, [row | table.folded_values(row) | version for row in rows])
    created = [{field: [None, row[field]] for field in table.audited} for row in rows]
    record(session, "create", table, list(zip(found, created, strict=True)))
    return found


def change_many(
    session: Session, table: type[Row], changes: Sequence[tuple[Mapping[str, Any], dict[str, Any]]]
) -> None:
    """Change many rows in two statements, one for them and one for their audit.

    Each change is what the row has, its `id` and `version` included, and the new values; all must name the same fields.
    """
    sources = {source for names in table.folds.values() for source in names}
    changed = [(old, {name: new for name, new in values.items() if new != old[name]}) for old, values in changes]
    names = {name for _, values in changed for name in values}
    if not names:
        return
    # Only what changes in any of them: the database need not write the indexes of the others.
    rows = [
        {name: values[name] for name in names}
        | (table.folded_values({**old, **values}) if names & sources else {})
        | ({"version": old["version"] + 1} if "version" in old else {})
        | {"id": old["id"]}
        for old, values in changes
    ]
    update_rows(session, table, rows)
    audited = [
        (old["id"], {name: [old[name], new] for name, new in values.items() if name in table.audited})
        for old, values in changed
    ]
    record(session, "update", table, audited)
