"""Lists: pages with a total, filters, and the order of rows."""

import inspect
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Generic, ParamSpec, TypeVar, cast

from annotated_types import GroupedMetadata
from fastapi import Header, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from sqlalchemy import BigInteger, Boolean, ColumnElement, Integer, UnaryExpression, bindparam
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlmodel import Session, SQLModel, asc, col, desc, func, select
from sqlmodel.sql.expression import SelectOfScalar

from kit.models import BIGGEST_ID, Digits, Entity
from kit.problems import Invalid

Row = TypeVar("Row")
Shape = TypeVar("Shape")
Built = TypeVar("Built")
Asked = ParamSpec("Asked")

LIKE_LENGTH = 32
SearchText = Annotated[str, Field(max_length=255, description="A part of the text, without case.")]
IfMatch = Annotated[str | None, Header(description='The version that may be changed, such as `"3"`; any by default.')]


def cached_statement(build: Callable[Asked, Built]) -> Callable[Asked, Built]:
    """Keep the hundred last used statements of a function, by its arguments: most lists are asked for in few ways.

    To build a statement, and to find out that it is like one from before, takes longer than SQLite needs to answer it.
    Statements are compared by identity: give `of` a constant, or one that is cached by this.
    """
    return cast(Callable[Asked, Built], lru_cache(maxsize=100)(build))


class Filters(BaseModel):
    """The query parameters that choose the rows of a list; the statement that they make is cached."""

    model_config = ConfigDict(str_strip_whitespace=True, frozen=True)


class PageOf(BaseModel, Generic[Shape]):
    """One page of a list."""

    items: list[Shape]
    total: int
    page: int
    page_size: int
    has_next: bool


@dataclass(frozen=True)
class Page(Generic[Row]):
    """The rows of one page, before they are shaped."""

    items: Sequence[Row]
    total: int
    page: int
    page_size: int

    @property
    def has_next(self) -> bool:
        """Whether another page follows."""
        return self.page * self.page_size < self.total


class PageRequest(BaseModel):
    """Which page a client asks for."""

    page: Annotated[int, Field(ge=1, le=BIGGEST_ID, description="The page, from 1."), Digits] = 1
    page_size: Annotated[int, Field(ge=1, le=100, description="How many rows a page has."), Digits] = 20

    def of(self, session: Session, rows: SelectOfScalar[Row]) -> Page[Row]:
        """This page of `rows`: one statement counts them all, one reads the page."""
        count, page = _counted_and_paged(rows)
        total: int = session.connection().execute(count).scalar_one()
        offset = min((self.page - 1) * self.page_size, BIGGEST_ID)
        items = _read(session, page, {"offset": offset, "limit": self.page_size})
        return Page(items, total, self.page, self.page_size)


@cached_statement
def _counted_and_paged(rows: SelectOfScalar[Row]) -> tuple[SelectOfScalar[int], SelectOfScalar[Row]]:
    count = select(func.count()).select_from(rows.order_by(None).subquery())
    return count, rows.offset(bindparam("offset", type_=BigInteger)).limit(bindparam("limit", type_=Integer))


Paging = Annotated[PageRequest, Query()]


class CursorPageOf(BaseModel, Generic[Shape]):
    """One part of an endless list; `next_cursor` asks for the next one."""

    items: list[Shape]
    next_cursor: str | None


@dataclass(frozen=True)
class CursorPage(Generic[Row]):
    """The rows of one part, before they are shaped."""

    items: Sequence[Row]
    next_cursor: str | None


class CursorRequest(BaseModel):
    """Where in an endless list a client wants to go on.

    A cursor names the last row that was seen, so the next part costs the same at any depth, and rows that come or
    go meanwhile are neither skipped nor repeated.
    """

    cursor: Annotated[str, Field(max_length=100, description="The `next_cursor` of the last answer.")] | None = None
    limit: Annotated[int, Field(ge=1, le=100, description="How many rows to answer."), Digits] = 20

    def of(
        self,
        session: Session,
        table: type[Entity],
        rows: SelectOfScalar[Row],
        *,
        oldest_first: bool = False,
        **values: int,
    ) -> CursorPage[Row]:
        """The next rows of this table, by id; `values` are those of the statement's own parameters."""
        last_id = _read_cursor(self.cursor, table) if self.cursor is not None else None
        page = _cursor_page(table, rows, oldest_first=oldest_first, goes_on=last_id is not None)
        found = _read(session, page, values | {"last_id": last_id, "limit": self.limit + 1})
        last: Any = found[self.limit - 1] if len(found) > self.limit else None
        return CursorPage(found[: self.limit], cursor_after(table, last.id) if last else None)


@cached_statement
def _cursor_page(
    table: type[Entity], rows: SelectOfScalar[Row], *, oldest_first: bool, goes_on: bool
) -> SelectOfScalar[Row]:
    ids = col(table.id)
    if goes_on:
        last_id = bindparam("last_id", type_=BigInteger)
        rows = rows.where(ids > last_id if oldest_first else ids < last_id)
    return rows.order_by(asc(ids) if oldest_first else desc(ids)).limit(bindparam("limit", type_=Integer))


CursorPaging = Annotated[CursorRequest, Query()]


def cursor_after(table: type[SQLModel], row_id: int) -> str:
    """The cursor of what follows a row."""
    return urlsafe_b64encode(f"{table.__name__}:{row_id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str, table: type[SQLModel]) -> int:
    try:
        row_id = int(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().rpartition(":")[2])
    except ValueError:  # broken base64, UTF-8 and numbers alike
        row_id = 0
    if not 0 < row_id <= BIGGEST_ID or cursor_after(table, row_id) != cursor:
        raise Invalid([{"loc": ("query", "cursor"), "msg": "This is no cursor of this list", "type": "cursor"}])
    return row_id


class sortable(GroupedMetadata):  # noqa: N801 - reads like the functions of pydantic beside it
    """Declares a `sort` parameter: some of `fields`, by commas, each with `-` in front for descending order."""

    def __init__(self, *fields: str) -> None:
        self.fields = fields
        self.rule = f"Sort by {', '.join(fields)}, separated by commas, with '-' in front for descending"

    def __iter__(self) -> Iterator[object]:
        """What pydantic checks, with a message that names the fields, and documents, where a pattern says it best."""
        one = f"-?({'|'.join(self.fields)})"
        yield AfterValidator(self._checked)
        yield WithJsonSchema(
            {"type": "string", "pattern": f"^{one}(,{one})*$", "description": f"{self.rule}; ties go by id."}
        )

    def _checked(self, sort: str) -> str:
        if not all(part.removeprefix("-") in self.fields for part in sort.split(",")):
            raise PydanticCustomError("sort_unknown", "{rule}", {"rule": self.rule})
        return sort


class contains_text(GenericFunction[bool]):  # noqa: N801 - SQLAlchemy calls a function by the name of its class
    """Whether a text contains another one; SQLite gets the function from `kit.sqlite`."""

    type = Boolean()
    inherit_cache = True


@compiles(contains_text, "postgresql")
def _strpos(element: contains_text, compiler: SQLCompiler, **options: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **options)}) > 0"


def contains(column: Mapped[str], text: str) -> ColumnElement[bool]:
    """Whether a column contains a text.

    LIKE is the fastest for short ones. It takes up to the product of both lengths, so long ones are not its matter.
    """
    return column.contains(text, autoescape=True) if len(text) <= LIKE_LENGTH else contains_text(column, text)


class Rows(SelectOfScalar[Row]):
    """A statement that reads tuples, which have the columns and the properties of the objects that they stand for."""

    inherit_cache = True


def rows_of(table: type[Row]) -> SelectOfScalar[Row]:
    """`select(table)` for a list that shows no relationships: tuples instead of objects, which are read faster.

    A tuple has the columns of its table as attributes, and its properties; no relationships and no methods.
    """
    mapper: Any = sa_inspect(table)
    return Rows(*(getattr(table, attribute.key) for attribute in mapper.column_attrs))


def _read(session: Session, statement: SelectOfScalar[Row], values: dict[str, Any]) -> Sequence[Row]:
    if not isinstance(statement, Rows):
        return session.exec(statement, params=values).all()
    # A session would take the rows for parts of objects, and SQLAlchemy's rows are slow to say what they hold.
    found = session.connection().execute(statement, values)
    table: type[Any] = statement.column_descriptions[0]["entity"]
    return [*map(_row_maker(table, tuple(found.keys())), found)]


@lru_cache
def _row_maker(table: type[Any], names: tuple[str, ...]) -> Callable[[Iterable[Any]], Any]:
    columns: Any = namedtuple("columns", names)  # pyright: ignore[reportUntypedNamedTuple] - a statement gives the names
    properties = {name: found for name, found in inspect.getmembers(table) if isinstance(found, property)}
    return type(f"{table.__name__}Row", (columns,), properties | {"__slots__": ()})._make


def order_by(table: type[SQLModel], sort: str) -> list[UnaryExpression[Any]]:
    """The order that a checked `sort` asks for; ties go by ascending id, so it is total.

    A field that is named again changes nothing, and is left out: SQLite takes 2,000 terms.
    """
    directions: dict[str, Callable[[Any], UnaryExpression[Any]]] = {}
    for part in [*sort.split(","), "id"]:
        directions.setdefault(part.removeprefix("-"), desc if part.startswith("-") else asc)
    return [direction(getattr(table, name)) for name, direction in directions.items()]
