"""What every table and every schema is made of: base classes, types of fields, and the clock."""

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, date, datetime, time
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar, get_args
from zlib import crc32

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    EmailStr,
    GetJsonSchemaHandler,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from sqlalchemy import BigInteger, ColumnElement, Connection, Dialect, Integer, String, event
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapper, declared_attr
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, Session, SQLModel

# The typed dict of SQLModel's `model_config` is in no public module. When it moves, use a plain dict here.
from sqlmodel._compat import SQLModelConfig

from kit.problems import NotOwner, VersionConflict

Value = TypeVar("Value")

BIGGEST_ID = 2**63 - 1
BILLION = 1_000_000_000
JOINED = {"lazy": "joined", "innerjoin": True}  # a relationship that is read in the same statement as its row

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# The clock

_CLOCK: ContextVar[datetime | None] = ContextVar("clock", default=None)


def now() -> datetime:
    """The time in UTC, which is what every `_at` field holds."""
    return _CLOCK.get() or datetime.now(UTC)


@contextmanager
def clock_at(moment: datetime) -> Generator[None]:
    """Let `now` say `moment`, for whoever writes what happened in the past."""
    token = _CLOCK.set(moment)
    try:
        yield
    finally:
        _CLOCK.reset(token)


# Types of fields


def folded(text: str) -> str:
    """`text` as it compares without case, in every script and on every database."""
    return text.casefold()


def digest(secret: str) -> str:
    """What is stored in place of a random token, which needs no salt and no slow hash."""
    return sha256(secret.encode()).hexdigest()


def plain_digits(value: object) -> object:
    """Take a whole number from a path or a query in plain digits only: no sign, space, point or underscore."""
    if isinstance(value, str) and not re.fullmatch("[0-9]{1,19}", value):
        raise PydanticCustomError("int_parsing", "Input should be a whole number in plain digits")
    return value


def normalized_email(text: str) -> str:
    """An e-mail as it is stored when somebody registers with it, for looking it up; any other text in lower case."""
    try:
        return EMAIL.validate_python(text.strip())
    except ValidationError:
        return text.strip().lower()


def _address_alone(value: object) -> object:
    if isinstance(value, str) and "<" in value:  # EmailStr would take the address out of 'Ada <ada@example.com>'
        raise ValueError("Enter the e-mail address alone")
    return value


def _iso_text(value: object) -> object:
    """Refuse what pydantic would take for a date or a time besides ISO 8601, such as the number of seconds."""
    if not isinstance(value, str) or not re.match("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise PydanticCustomError("iso_format", "Input should be in the form of ISO 8601, such as 2026-01-31")
    return value


def _iso_day(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise PydanticCustomError("date_parsing", "Input should be a date in the form YYYY-MM-DD")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # at the ends of the calendar an offset leads out of it
        raise PydanticCustomError("datetime_parsing", "Input should be a time between the years 1 and 9999") from None


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("No two may be alike")
    return values


Id = Annotated[int, Field(ge=1, le=BIGGEST_ID), BeforeValidator(plain_digits)]
Digits = BeforeValidator(plain_digits)
Email = Annotated[EmailStr, BeforeValidator(_address_alone), AfterValidator(str.lower), Field(max_length=254)]
EMAIL: TypeAdapter[str] = TypeAdapter(Email)

# Bodies are strict, and a strict model refuses every date and time in JSON: these take ISO 8601's text.
Time = Annotated[AwareDatetime, AfterValidator(_in_utc), Strict(False), BeforeValidator(_iso_text)]
Day = Annotated[date, Strict(False), BeforeValidator(_iso_day)]


def moments_of(day: date) -> tuple[datetime, datetime]:
    """The first and the last moment of a day in UTC, for `between`; the next midnight is too late for 9999-12-31."""
    return datetime.combine(day, time.min, UTC), datetime.combine(day, time.max, UTC)


DISTINCT = AfterValidator(_distinct)


class _MayBeNull:
    """Marks a field of a `PatchBody` that `null` empties."""


Nullable = Annotated[Value | None, _MayBeNull()]
"""A field of a `PatchBody` that may be emptied: `note: Nullable[Note] = None`."""


# Any: SQLModel declares the type of a column as a class, and takes an object as well.
CodePointText: Any = String().with_variant(String(collation="C"), "postgresql")
"""Text that every database sorts by code point, whatever the language of its server; SQLite does so by itself."""

BigInt: Any = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit integer; on SQLite `INTEGER`, which is one, and the only type with `AUTOINCREMENT`."""


class TagList(TypeDecorator[list[str]]):
    """Tags in one column, each between two `;`, which no tag can contain: `;red;small;`."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> str:
        """Join the tags; a plain list compares by value, so assign a new one instead of changing it."""
        return "".join(f";{tag}" for tag in value) + ";" if value else ";"

    def process_result_value(self, value: str | None, dialect: Dialect) -> list[str]:
        """Split the tags."""
        return [tag for tag in (value or "").split(";") if tag]


# Schemas


class RequestBody(SQLModel):
    """What a client may send: nothing unknown, no coercion, no surrounding white space."""

    model_config = SQLModelConfig(extra="forbid", strict=True, str_strip_whitespace=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Refuse a bare `datetime` or `date`, which no JSON could ever fill."""
        super().__pydantic_init_subclass__(**options)
        for name, field in cls.model_fields.items():
            kinds = get_args(field.annotation) or (field.annotation,)
            if not field.metadata and (date in kinds or datetime in kinds):
                raise TypeError(f"{cls.__name__}.{name} takes no JSON: use Time or Day of kit.models for it.")


class PatchBody(RequestBody):
    """The fields to change; one that is left out stays as it is, and `null` is refused unless it is `Nullable`."""

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: object, info: ValidationInfo) -> object:
        if value is None and not _may_be_null(cls, info.field_name or ""):
            raise PydanticCustomError("null_forbidden", "Leave the field out instead of sending null")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema without the `null` that only marks a field as left out."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        fields: dict[str, JsonSchemaValue] = schema.get("properties", {})
        for name, field in fields.items():
            field.pop("default", None)
            if not _may_be_null(cls, name):
                field.update(field.pop("anyOf", [{}])[0])
        return reference

    def changes(self) -> dict[str, Any]:
        """The fields that the client sent."""
        return self.model_dump(exclude_unset=True)


def _may_be_null(schema: type[PatchBody], name: str) -> bool:
    return any(isinstance(mark, _MayBeNull) for mark in schema.model_fields[name].metadata)


# Tables


class Table(SQLModel):
    """A table; its name is the class's in snake case."""

    called: ClassVar[str] = ""
    """What a row is called where it is not found and in the audit; the name of the table unless it is given."""

    folds: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Columns that follow from others: the text of these, to be searched and compared without case."""

    @declared_attr.directive
    def __tablename__(cls) -> str:  # noqa: N805  # pyright: ignore[reportIncompatibleVariableOverride] - as SQLModel's own
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def entity_name(cls) -> str:
        """`called`, or the name of the table."""
        return cls.called or str(cls.__tablename__)

    @classmethod
    def expired(cls) -> ColumnElement[bool] | None:
        """The condition of rows that nobody needs any more; they are deleted from time to time."""
        return None

    @classmethod
    def folded_values(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """The columns of `folds` that follow from `values`, as far as those have what they follow from."""
        return {
            column: folded("\n".join(values[source] for source in sources))
            for column, sources in cls.folds.items()
            if all(source in values for source in sources)
        }


@event.listens_for(Table, "before_insert", propagate=True)
def _fold_new_row(_mapper: Mapper[Table], _connection: Connection, row: Table) -> None:
    for column, sources in row.folds.items():
        setattr(row, column, folded("\n".join(getattr(row, source) for source in sources)))


@event.listens_for(Table, "before_update", propagate=True)
def _fold_changed_row(mapper: Mapper[Table], connection: Connection, row: Table) -> None:
    # Setting a deferred column counts as a change, and so as a new version, even where the text stays the same.
    sources = [source for sources in row.folds.values() for source in sources]
    if sources and any(sa_inspect(row).attrs[source].history.has_changes() for source in sources):
        _fold_new_row(mapper, connection, row)


def set_loaded(row: Table, values: Mapping[str, Any]) -> None:
    """Let an object say what a statement made of its row, without the next flush writing it once more."""
    for field, value in values.items():
        set_committed_value(row, field, value)


class Entity(Table):
    """A table whose rows have an id, which is never given twice, not even after a deletion."""

    id: int = Field(default=None, primary_key=True, sa_type=BigInt)


@event.listens_for(Entity, "instrument_class", propagate=True)
def _never_reuse_ids(mapper: Mapper[Entity], _class: type[Entity]) -> None:
    # SQLite gives the highest id again, unless it is told not to: https://sqlite.org/autoinc.html
    table: Any = mapper.local_table
    table.dialect_options["sqlite"]["autoincrement"] = True


class Timestamped(Entity):
    """A row that says when it was made and when it was last changed."""

    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now, sa_column_kwargs={"onupdate": now})


class Versioned(Entity):
    """A row that counts its changes, so that nobody overwrites what they have not seen."""

    version: int = Field(default=1)

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805 - SQLAlchemy calls it with the class
        return {"version_id_col": cls.__table__.c.version}  # type: ignore[attr-defined] - set by the table class

    @property
    def shown_beside(self) -> str:
        """What an answer shows beyond the row, such as a count of others; its entity tag minds that, too."""
        return ""

    @property
    def etag(self) -> str:
        """The entity tag of the whole answer (RFC 9110, 8.8.3): the version, and a checksum of what is beside it."""
        beside = self.shown_beside
        return f'"{self.version}-{crc32(beside.encode()):08x}"' if beside else f'"{self.version}"'

    def is_named_by(self, entity_tags: str | None) -> bool:
        """Whether an `If-None-Match` header names this version (RFC 9110, 13.1.2)."""
        tags = [tag.strip().removeprefix("W/") for tag in (entity_tags or "").split(",")]
        return "*" in tags or self.etag in tags

    def require_version(self, if_match: str | None) -> Self:
        """The row itself; `VersionConflict` if `If-Match` names other versions only (RFC 9110, 13.1.1)."""
        tags = [tag.strip() for tag in if_match.split(",")] if if_match is not None else ["*"]
        versions = [re.sub('-[0-9a-f]{8}"$', '"', tag) for tag in tags]
        if "*" not in tags and f'"{self.version}"' not in versions:
            raise VersionConflict
        return self


class Person(Protocol):
    """What the rules of ownership ask of a caller."""

    @property
    def id(self) -> int:
        """The id of the account."""
        ...

    @property
    def is_admin(self) -> bool:
        """Whether the caller may do what members may not."""
        ...


class Owned(Entity):
    """A row that belongs to the person whom its column `owner` names."""

    owner: ClassVar[str] = "creator_id"

    def require_owner(self, user: Person) -> Self:
        """The row itself, for the person to whom it belongs; `NotOwner` for anybody else."""
        if getattr(self, self.owner) != user.id:
            raise NotOwner
        return self

    def require_owner_or_admin(self, user: Person) -> Self:
        """The row itself, for the person to whom it belongs and for admins; `NotOwner` for anybody else."""
        return self if user.is_admin else self.require_owner(user)


def upsert(session: Session, table: type[SQLModel]) -> "postgresql.Insert | sqlite.Insert":
    """An INSERT with `on_conflict_do_nothing`, which SQLAlchemy spells once for each database."""
    on_postgres = session.get_bind().dialect.name == "postgresql"
    return postgresql.insert(table) if on_postgres else sqlite.insert(table)
