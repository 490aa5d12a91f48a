"""The route of the audit; what is written, and when, is in `kit/audit.py`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import takewhile
from typing import Annotated, Any, NamedTuple, cast

from fastapi import Query, Request
from sqlalchemy import Date, DateTime, desc, literal, union_all
from sqlalchemy import inspect as sa_inspect
from sqlalchemy import select as select_columns
from sqlmodel import Session, col
from sqlmodel.sql.expression import SelectOfScalar

from auth import AdminUser
from kit.audit import Audited, AuditedEntity, AuditEntry, AuditEntryPublic, audited_entities
from kit.db import ReadSession
from kit.fields import label_of
from kit.lists import CursorPage, CursorPageOf, CursorPaging, CursorRequest, Filters, cached_statement, rows_of
from kit.models import Entity, Id, folded
from kit.pages import Menu, PageRouter, Template
from kit.rendering import Cents
from kit.routing import Router
from models import User
from settings import API

router = Router(prefix=f"{API}/audit", tags=["audit"])
pages = PageRouter(Menu("Audit", "/audit", "history", for_admins=True))


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


@pages.get("/audit")
def show_audit(
    request: Request,
    cursor: CursorPaging,
    filters: Annotated[AuditFilters, Query()],
    admin: AdminUser,
    session: ReadSession,
) -> Template:
    """Show who changed what, the newest first, by thing and person."""
    entries = list_audit_entries(cursor, filters, admin, session)
    changes = [*zip(entries.items, in_words(session, entries.items), strict=True)]
    shown: dict[str, Any] = {"paths": _paths(session, request.app.page_routes, entries.items), "changes": changes}
    shown |= {"people": _people(session, filters.actor_id), "entities": audited_entities()}
    return Template(
        "audit/list.html", next_cursor=entries.next_cursor, filters=filters, cursor=cursor, gone=GONE, **shown
    )


def _people(session: Session, chosen: int | None) -> list[tuple[int, str]]:
    """Whom one can choose, by their names, and who is chosen; one statement."""
    by_name = select_columns(col(User.id), col(User.full_name))
    by_name = by_name.order_by(desc(col(User.id) == (chosen or 0)), User.full_name_key, col(User.id)).limit(PEOPLE)
    found = [(row.id, row.full_name) for row in session.connection().execute(by_name)]
    people = sorted(found, key=lambda person: folded(person[1]))
    return [*people, (chosen, GONE)] if chosen and chosen not in dict(people) else people


def _paths(session: Session, pages: Iterable[str], entries: Sequence[AuditEntry]) -> dict[tuple[str, int], str]:
    """The pages of things, by entity and id: those whose path ends with their id, such as `/items/{item_id}`.

    A path that names another row as well takes a statement, because that row is looked up.
    """
    found: dict[tuple[str, int], str] = {}
    for entity, table in _tables().items():
        own = f"{entity}_id"
        ids = {entry.entity_id for entry in entries if entry.entity == entity}
        path = next((path for path in pages if path.endswith(f"/{{{own}}}")), "")
        if ids and path:
            others = [name for name in re.findall("{([a-z_]+)}", path) if name != own]
            for row_id, *values in _columns(session, table, others, ids) if others else [[row_id] for row_id in ids]:
                found[entity, row_id] = path.format_map({own: row_id, **dict(zip(others, values, strict=True))})
    return found


def _columns(session: Session, table: type[Entity], names: Sequence[str], ids: set[int]) -> Iterable[Sequence[Any]]:
    columns = [getattr(table, name) for name in names]
    return session.connection().execute(select_columns(col(table.id), *columns).where(col(table.id).in_(ids))).all()


# In words

Tables = dict[str, type[Entity]]
Names = dict[tuple[str, int], str]

NAMES = ("full_name", "name", "title")
"""The columns by which people know a row: the first of these that a table has."""

SECRETLY = {"password_reset": "made a link to set a new password"}
"""What was done where the audit keeps no values, beyond changing what it names."""

GONE = "A deleted account"
PEOPLE = 200  # of whom one can choose one
SHORT = 120  # characters of a text that are shown


class Change(NamedTuple):
    """One change in words, as the macro `history` shows it: what was changed, from what to what.

    Old and new values have the types by which the filter `shown` shows them.
    """

    at: datetime
    who: str
    what: str
    did: tuple[str, str]
    """The same as what stands before and after `thing`, on other pages than that of the row."""
    changes: list[tuple[str, Any, Any]]
    thing: str
    is_there: bool
    """Whether the row still exists, as far as that was looked up."""


def history_of(session: Session, table: type[Audited], row_id: int) -> list[Change]:
    """The latest changes of a row in words, for its page; two statements."""
    rows = rows_of(AuditEntry).filter_by(entity=table.entity_name(), entity_id=row_id)
    return in_words(session, CursorRequest(limit=10).of(session, AuditEntry, rows).items)


def in_words(session: Session, entries: Sequence[AuditEntry]) -> list[Change]:
    """Changes with names in place of ids, and amounts in place of cents; one statement."""
    tables = _tables()
    names = _names(session, tables, entries)
    return [_in_words(entry, tables, names) for entry in entries]


def _tables() -> Tables:
    tables = [mapper.class_ for mapper in sa_inspect(AuditEntry).registry.mappers]
    return {table.entity_name(): table for table in tables if issubclass(table, Entity)}


def _names(session: Session, tables: Tables, entries: Sequence[AuditEntry]) -> Names:
    """The names of all rows that the entries mention, by entity and id; one statement, whatever the tables are."""
    wanted: dict[str, set[int]] = {"user": {entry.actor_id for entry in entries if entry.actor_id}}
    for entry in entries:
        for entity, row_id in [(entry.entity, entry.entity_id), *_mentioned(tables, entry)]:
            wanted.setdefault(entity, set()).add(row_id)
    parts = [
        select_columns(literal(entity), col(table.id), getattr(table, name)).where(col(table.id).in_(wanted[entity]))
        for entity, table in tables.items()
        if wanted.get(entity) and (name := _name_column(table))
    ]
    found: Any = session.connection().execute(union_all(*parts)) if parts else ()
    return {(entity, row_id): name for entity, row_id, name in found}


def _name_column(table: type[Entity]) -> str:
    return next((name for name in NAMES if name in table.model_fields), "")


def _mentioned(tables: Tables, entry: AuditEntry) -> Iterator[tuple[str, int]]:
    """The rows that the values of an entry refer to, those in lists of rows included."""
    for field, values in entry.changes.items():
        parts = [(field, value) for value in values]
        rows = [row for value in values if isinstance(value, list) for row in cast(list[Any], value)]
        for row in rows:
            parts += cast(dict[str, Any], row).items() if isinstance(row, dict) else []
        for name, value in parts:
            if isinstance(value, int) and (entity := _referred(tables, entry.entity, name)):
                yield entity, value


def _referred(tables: Tables, entity: str, field: str) -> str:
    """The entity of which a field holds the id: by its foreign key, or else by its name."""
    column = _column(tables, entity, field)
    targets = {key.column.table for key in column.foreign_keys} if column is not None else set[Any]()
    for name, table in tables.items():
        if sa_inspect(table).local_table in targets or field == f"{name}_id":
            return name
    return ""


def _column(tables: Tables, entity: str, field: str) -> Any:
    return sa_inspect(tables[entity]).columns.get(field) if entity in tables else None


def _in_words(entry: AuditEntry, tables: Tables, names: Names) -> Change:
    noun = entry.entity.replace("_", " ")
    name = names.get((entry.entity, entry.entity_id), "")
    named = _name_column(tables[entry.entity]) if entry.entity in tables else ""
    old, new = entry.changes.get(named, (None, None))
    verb, preposition, after = _done(entry)
    who = names.get(("user", entry.actor_id), GONE) if entry.actor_id else "The system"
    return Change(
        at=entry.at,
        who=who,
        what=f"{verb} {after}".strip() if entry.action == "update" else f"{verb} this {noun}",
        did=(f"{verb} {preposition}".strip(), after),
        changes=[*_changed(entry, tables, names)],
        thing=f"{noun} {name or new or old or entry.entity_id}",
        is_there=entry.action != "delete" and (bool(name) or not named),
    )


def _done(entry: AuditEntry) -> tuple[str, str, str]:
    """What was done, the preposition that leads to what it was done to, and what follows that."""
    if entry.action != "update":
        return f"{entry.action}d", "", ""
    labels = [f"the {label_of(field)[0].lower()}{label_of(field)[1:]}" for field in entry.changes]
    field, (old, new) = next(iter(entry.changes.items()))
    if field in SECRETLY:
        return SECRETLY[field], "for", ""
    if len(labels) == 1 and isinstance(new, bool):
        return f"set {labels[0].removeprefix('the ')} to {'yes' if new else 'no'}", "for", ""
    if len(labels) == 1 and type(old) is type(new) is int and not field.endswith(("_cents", "_id")):
        return f"{'raised' if new > old else 'lowered'} {labels[0]}", "of", f"by {abs(new - old):,}"
    if len(labels) > 3:
        labels = [*labels[:2], f"{len(labels) - 2} more"]
    changed = ", ".join(labels[:-1]) + (" and " if labels[1:] else "") + labels[-1]
    return f"changed {changed}", "of", ""


def _changed(entry: AuditEntry, tables: Tables, names: Names) -> Iterator[tuple[str, Any, Any]]:
    """The label, the old and the new value of each field that has one; None where there was no row."""
    for field, (old, new) in entry.changes.items():
        if (old in (None, "", []) and new in (None, "", [])) or _goes_without_saying(entry, field, tables, names):
            continue
        if isinstance(old, str) or isinstance(new, str):
            old, new = _shortened(old, new)
        was, now = (_typed(value, entry.entity, field, tables, names) for value in (old, new))
        if entry.action == "update":
            was, now = "none" if was is None else was, "none" if now is None else now
        yield label_of(field), was, now


def _goes_without_saying(entry: AuditEntry, field: str, tables: Tables, names: Names) -> bool:
    """Whether a value of a new or deleted row is what its name or who did it says already."""
    value = next((value for value in entry.changes[field] if value is not None), None)
    if entry.action == "update" or entry.entity not in tables:
        return False
    if field == _name_column(tables[entry.entity]):
        return value == names.get((entry.entity, entry.entity_id), value)
    return value == entry.actor_id and _referred(tables, entry.entity, field) == "user"


def _typed(value: Any, entity: str, field: str, tables: Tables, names: Names) -> Any:
    column = _column(tables, entity, field)
    kind = getattr(column.type, "impl", column.type) if column is not None else None
    match value:
        case bool() | None:
            return value
        case int() if field.endswith("_cents"):
            return Cents(value)
        case int() if referred := _referred(tables, entity, field):
            return names.get((referred, value)) or f"{referred.replace('_', ' ')} {value}"
        case str() if isinstance(kind, DateTime):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        case str() if isinstance(kind, Date):
            return date.fromisoformat(value)
        case list():
            return [_typed(one, entity, "", tables, names) for one in cast(list[Any], value)]
        case dict():
            parts = cast(Mapping[str, Any], value).items()
            return {label_of(name): _typed(part, entity, name, tables, names) for name, part in parts}
        case _:
            return value


def _shortened(old: Any, new: Any) -> tuple[Any, Any]:
    """Long texts without most of what comes before their first difference, and without their ends."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old or "", new or "", strict=False)))
    start = max(same - 20, 0) if max(len(old or ""), len(new or "")) > SHORT else 0
    return _excerpt(old, start), _excerpt(new, start)


def _excerpt(text: Any, start: int) -> Any:
    if not isinstance(text, str):
        return text
    return f"{'…' if start else ''}{text[start : start + SHORT]}{'…' if len(text) > start + SHORT else ''}"
