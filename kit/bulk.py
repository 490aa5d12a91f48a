"""Many rows in one statement: they travel as one JSON text, many times faster than as parameters of their own."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import JSON, ColumnElement, Dialect, Insert, bindparam, cast, func, insert, literal, select, update
from sqlalchemy.sql import Executable
from sqlmodel import Session, String, col

from kit.models import Entity

Rows = Sequence[Mapping[str, Any]]


def among(session: Session, column: Any, texts: Iterable[str]) -> ColumnElement[bool]:
    """The condition that `column` has one of these texts, however many there are."""
    text: Any = literal(to_json([*texts]).decode(), String)
    if session.get_bind().dialect.name == "sqlite":
        found = func.json_each(text).table_valued("value")
    else:
        found = func.json_array_elements_text(cast(text, JSON)).table_valued("value").render_derived()
    return column.in_(select(found.c.value))


def insert_rows(session: Session, table: type[Entity], rows: Rows) -> None:
    """Insert rows that all have the same columns, none of them binary."""
    _execute(session, _insertion, table, rows)


def insert_rows_with_ids(session: Session, table: type[Entity], rows: Rows) -> list[int]:
    """The same; returns the ids of the rows, in order."""
    return sorted(_execute(session, _insertion_with_ids, table, rows).scalars())


def update_rows(session: Session, table: type[Entity], rows: Rows) -> None:
    """Change rows, found by their `id`; all of them name the same columns, none of them binary."""
    _execute(session, _change, table, rows)


def _execute(session: Session, statement: Any, table: type[Any], rows: Rows) -> Any:
    dialect, names = session.get_bind().dialect, tuple(rows[0])
    stores = _stores(table, names, dialect)
    cells = [[store(row[name]) if store else row[name] for name, store in stores] for row in rows]
    return session.connection().execute(statement(table, names, dialect.name), {"rows": to_json(cells).decode()})


@lru_cache
def _stores(table: type[Any], names: tuple[str, ...], dialect: Dialect) -> list[tuple[str, Any]]:
    """What makes of a value what the database stores, by the name of the column; JSON is part of the JSON."""
    kinds = {name: getattr(table, name).type.dialect_impl(dialect) for name in names}
    return [(name, None if isinstance(kind, JSON) else kind.bind_processor(dialect)) for name, kind in kinds.items()]


@lru_cache
def _insertion(table: type[Any], names: tuple[str, ...], dialect: str) -> Insert:
    position, cells = _unpacked(table, names, dialect)
    return insert(table).from_select(names, select(*cells.values()).order_by(position))


@lru_cache
def _insertion_with_ids(table: type[Any], names: tuple[str, ...], dialect: str) -> Executable:
    return _insertion(table, names, dialect).returning(col(table.id))


@lru_cache
def _change(table: type[Any], names: tuple[str, ...], dialect: str) -> Executable:
    _, cells = _unpacked(table, names, dialect)
    return update(table).where(col(table.id) == cells.pop("id")).values(cells)


def _unpacked(table: type[Any], names: tuple[str, ...], dialect: str) -> tuple[Any, dict[str, ColumnElement[Any]]]:
    """The position of each row in the JSON text, and its cells by their names."""
    text = bindparam("rows", type_=String)
    if dialect == "sqlite":
        rows = func.json_each(text).table_valued("key", "value")
        return rows.c.key, {name: func.json_extract(rows.c.value, f"$[{i}]") for i, name in enumerate(names)}
    rows = func.json_array_elements(cast(text, JSON)).table_valued("value", with_ordinality="key").render_derived()
    found = {name: rows.c.value.op("->>")(i) for i, name in enumerate(names)}
    return rows.c.key, {name: cast(cell, getattr(table, name).type) for name, cell in found.items()}
