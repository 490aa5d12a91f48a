"""Every table and every schema, with the verbs of the domain on the table classes.

A noun `Thing` has up to four classes: `Thing` (the table), `ThingCreate` and `ThingUpdate` (what a client may
send, checked strictly) and `ThingPublic` (what a client sees). Table classes do not validate: make them from a
checked body with `Thing.model_validate(data)`.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, EmailStr, GetJsonSchemaHandler, StringConstraints, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Connection,
    Dialect,
    Integer,
    String,
    event,
    type_coerce,
)
from sqlalchemy.orm import Mapper, declared_attr
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, Session, SQLModel, col, delete, func, select
from sqlmodel._compat import SQLModelConfig

from problems import InvalidCredentials, LastAdmin, VersionConflict

BIGGEST_ID = 2**63 - 1
BILLION = 1_000_000_000
AUTOINCREMENT = {"sqlite_autoincrement": True}  # an id is never given twice, not even after a deletion

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def now() -> datetime:
    """The time in UTC, which is what every `_at` field holds."""
    return datetime.now(UTC)


def folded(text: str) -> str:
    """`text` as it compares without case, in every script and on every database."""
    return text.casefold()


# Types of fields


def plain_digits(value: object) -> object:
    """Take a whole number from a path or a query in plain digits only: no sign, space, point or underscore."""
    if isinstance(value, str) and not re.fullmatch("[0-9]{1,19}", value):
        raise PydanticCustomError("int_parsing", "Input should be a whole number in plain digits")
    return value


def _email(value: object) -> object:
    if isinstance(value, str) and "<" in value:  # EmailStr would take the address out of 'Ada <ada@example.com>'
        raise ValueError("Enter the e-mail address alone")
    return value


def _strong(password: str) -> str:
    kinds: list[Callable[[str], bool]] = [str.islower, str.isupper, str.isdigit, _is_special]
    if len(password) < 16 and not all(any(kind(character) for character in password) for kind in kinds):
        raise ValueError(
            "Use a lower-case letter, an upper-case letter, a digit and a special character, or at least 16 characters"
        )
    return password


def _is_special(character: str) -> bool:
    return not character.isalnum()


def _distinct(tags: list[str]) -> list[str]:
    if len(set(tags)) < len(tags):
        raise ValueError("No two tags may be alike")
    return tags


Id = Annotated[int, Field(ge=1, le=BIGGEST_ID), BeforeValidator(plain_digits)]
Role = Literal["member", "admin"]
Email = Annotated[EmailStr, BeforeValidator(_email), AfterValidator(str.lower), Field(max_length=254)]
FullName = Annotated[str, Field(min_length=1, max_length=255)]
GivenPassword = Annotated[str, StringConstraints(strip_whitespace=False, min_length=1, max_length=128)]
NewPassword = Annotated[
    str, StringConstraints(strip_whitespace=False, min_length=8, max_length=128), AfterValidator(_strong)
]
ItemName = Annotated[str, Field(min_length=1, max_length=100)]
Cents = Annotated[int, Field(ge=1, le=BILLION)]
Quantity = Annotated[int, Field(ge=0, le=BILLION)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=30, pattern="^[^;]*$")]
Tags = Annotated[list[Tag], Field(max_length=10), AfterValidator(_distinct)]


class CodePointText(TypeDecorator[str]):
    """Text that every database sorts by code point, whatever the language of its server."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """PostgreSQL's "C" collation; SQLite sorts so by itself."""
        text = String(collation="C") if dialect.name == "postgresql" else String()
        return dialect.type_descriptor(text)


class BigInt(TypeDecorator[int]):
    """A 64-bit integer; on SQLite `INTEGER`, which is one, and the only type with `AUTOINCREMENT`."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`INTEGER` on SQLite, `BIGINT` elsewhere."""
        return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else BigInteger())


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


class Table(SQLModel):
    """A table; its name is the class's in snake case."""

    @declared_attr.directive
    def __tablename__(cls) -> str:  # noqa: N805  # pyright: ignore[reportIncompatibleVariableOverride] - as SQLModel's own
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()


class RequestBody(SQLModel):
    """What a client may send: nothing unknown, no coercion, no surrounding white space."""

    model_config = SQLModelConfig(extra="forbid", strict=True, str_strip_whitespace=True)


class PatchBody(RequestBody):
    """The fields to change; one that is left out stays as it is, and `null` is refused."""

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: object) -> object:
        if value is None:
            raise PydanticCustomError("null_forbidden", "Leave the field out instead of sending null")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema without the `null` that only marks a field as left out."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        fields: Iterable[JsonSchemaValue] = schema.get("properties", {}).values()
        for field in fields:
            field.pop("default", None)
            kinds: list[JsonSchemaValue] = field.pop("anyOf", [])
            field.update(kinds[0] if kinds else {})
        return reference

    def changes(self) -> dict[str, Any]:
        """The fields that the client sent."""
        return self.model_dump(exclude_unset=True)


class Versioned(Table):
    """A row that counts its changes, so that nobody overwrites what they have not seen."""

    version: int = Field(default=1)

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805 - SQLAlchemy calls it with the class
        return {"version_id_col": cls.__table__.c.version}  # type: ignore[attr-defined] - set by the table class

    @property
    def etag(self) -> str:
        """The entity tag of this version (RFC 9110, 8.8.3)."""
        return f'"{self.version}"'

    def is_named_by(self, entity_tags: str | None) -> bool:
        """Whether an `If-None-Match` header names this version (RFC 9110, 13.1.2)."""
        tags = [tag.strip().removeprefix("W/") for tag in (entity_tags or "").split(",")]
        return "*" in tags or self.etag in tags

    def require_version(self, if_match: str | None) -> Self:
        """The row itself, unless `If-Match` names other versions only (RFC 9110, 13.1.1).

        Raises:
            VersionConflict: the row changed since the caller read it.
        """
        tags = [tag.strip() for tag in if_match.split(",")] if if_match is not None else ["*"]
        if "*" not in tags and self.etag not in tags:
            raise VersionConflict
        return self


# Users


class UserPublic(SQLModel):
    """An account, as its owner and admins see it."""

    id: int
    email: str
    full_name: str
    role: Role
    is_active: bool
    created_at: datetime
    updated_at: datetime


class UserRegister(RequestBody):
    """A new account."""

    email: Email
    full_name: FullName
    password: NewPassword


class UserCreate(UserRegister):
    """A new account, made by an admin."""

    role: Role = "member"


class ProfileUpdate(PatchBody):
    """What people may change of their own account."""

    full_name: FullName | None = None
    email: Email | None = None


class UserUpdate(ProfileUpdate):
    """What an admin may change of an account."""

    role: Role | None = None
    is_active: bool | None = None


class PasswordChange(RequestBody):
    """A new password, with the current one as proof."""

    current_password: GivenPassword
    new_password: NewPassword


class User(Table, table=True):
    """An account. E-mails are stored in lower case."""

    __table_args__ = (CheckConstraint("role IN ('member', 'admin')", "role"), AUTOINCREMENT)

    id: int = Field(default=None, primary_key=True, sa_type=BigInt)
    email: str = Field(unique=True, sa_type=CodePointText)
    full_name: str = Field(sa_type=CodePointText)
    full_name_key: str = ""
    password_hash: str
    role: str = "member"
    is_active: bool = True
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now, sa_column_kwargs={"onupdate": now})

    @property
    def is_admin(self) -> bool:
        """Whether this account may do what members may not."""
        return self.role == "admin"

    @classmethod
    def create(cls, session: Session, data: UserRegister, password_hash: str) -> Self:
        """Add an account; the first one ever becomes the admin.

        Raises:
            IntegrityError: the e-mail is taken (answered as `EMAIL_TAKEN`).
        """
        is_first = session.exec(select(User.id).limit(1)).first() is None
        user = cls.model_validate(data, update={"password_hash": password_hash})
        user.role = "admin" if is_first else user.role
        session.add(user)
        session.flush()
        return user

    def change(self, session: Session, changes: dict[str, Any]) -> Self:
        """Apply an admin's changes; a deactivation also ends every session of the account.

        Raises:
            LastAdmin: nobody would be in charge any more.
        """
        loses_power = changes.get("role", self.role) != "admin" or not changes.get("is_active", self.is_active)
        if self.is_admin and self.is_active and loses_power:
            self.require_another_admin(session)
        self.sqlmodel_update(changes)
        session.flush()
        if not self.is_active:
            self.sign_out_everywhere(session)
        return self

    def change_password(self, session: Session, password_hash: str, *, keep_session: int | None = None) -> None:
        """Set another password and end every session but `keep_session`."""
        self.password_hash = password_hash
        session.flush()
        self.sign_out_everywhere(session, but=keep_session)

    def remove(self, session: Session) -> None:
        """Delete the account with its sessions.

        Raises:
            LastAdmin: nobody would be in charge any more.
        """
        if self.is_admin and self.is_active:
            self.require_another_admin(session)
        session.delete(self)
        session.flush()

    def require_another_admin(self, session: Session) -> None:
        """Make sure that somebody else is in charge, and stays so until this transaction ends.

        Raises:
            LastAdmin: nobody is.
        """
        active_admins = select(User.id).where(User.role == "admin", col(User.is_active))
        # The rows are locked in one order (on SQLite the transaction itself is the lock), so of two admins who
        # demote each other at once the second one sees what the first one did.
        if set(session.exec(active_admins.order_by(col(User.id)).with_for_update())) <= {self.id}:
            raise LastAdmin

    def sign_out_everywhere(self, session: Session, *, but: int | None = None) -> None:
        """End every session of the account but one."""
        session.exec(delete(LoginSession).where(col(LoginSession.user_id) == self.id, col(LoginSession.id) != but))


class LoginSessionPublic(SQLModel):
    """A place where the caller is signed in; `last_used_at` is the last sign-in or refresh from there."""

    id: int
    created_at: datetime
    last_used_at: datetime
    user_agent: str
    ip: str
    current: bool


class LoginSession(Table, table=True):
    """One sign-in and all the refreshes that follow from it.

    A refresh token is `<family>.<secret>`: the family finds the row, the secret changes at every refresh. A right
    family with a wrong secret is a token that was spent, so somebody copied it: the whole session ends.
    """

    __table_args__ = AUTOINCREMENT

    id: int = Field(default=None, primary_key=True, sa_type=BigInt)
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", index=True, sa_type=BigInt)
    family_hash: str = Field(unique=True)
    secret_hash: str
    created_at: datetime = Field(default_factory=now)
    last_used_at: datetime = Field(default_factory=now)
    expires_at: datetime = Field(index=True)
    user_agent: str = ""
    ip: str = ""

    @classmethod
    def start(cls, session: Session, user: User, lifetime: timedelta, *, user_agent: str, ip: str) -> tuple[Self, str]:
        """Sign `user` in; returns the session and its first refresh token. Sessions that expired are cleaned up."""
        session.exec(delete(LoginSession).where(col(LoginSession.expires_at) <= now()))
        family, secret = token_urlsafe(16), token_urlsafe(32)
        login_session = cls(
            user_id=user.id,
            family_hash=digest(family),
            secret_hash=digest(secret),
            expires_at=now() + lifetime,
            user_agent=user_agent[:255],
            ip=ip,
        )
        session.add(login_session)
        session.flush()
        return login_session, f"{family}.{secret}"

    @classmethod
    def refresh(cls, session: Session, refresh_token: str, lifetime: timedelta) -> tuple[Self, str]:
        """Spend a refresh token; returns the session and its next refresh token.

        Raises:
            InvalidCredentials: the token is unknown, expired or spent; a spent one ends the session.
        """
        family, _, secret = refresh_token.partition(".")
        found = select(cls).where(cls.family_hash == digest(family)).with_for_update()
        login_session = session.exec(found).one_or_none()
        if login_session is None or login_session.expires_at <= now():
            raise InvalidCredentials
        if login_session.secret_hash != digest(secret):
            session.delete(login_session)
            raise InvalidCredentials
        secret = token_urlsafe(32)
        login_session.secret_hash = digest(secret)
        login_session.last_used_at = now()
        login_session.expires_at = now() + lifetime
        session.flush()
        return login_session, f"{family}.{secret}"


class FailedSignIn(Table, table=True):
    """How often signing in to one account failed of late, whether or not the account exists."""

    account_hash: str = Field(primary_key=True)
    failures: int = 0
    window_ends_at: datetime = Field(index=True)

    @classmethod
    def seconds_left(cls, session: Session, email: str, attempts: int) -> int:
        """For how long nobody can sign in to the account, in whole seconds; 0 where they can."""
        row = session.get(cls, digest(email))
        if row is None or row.failures < attempts or row.window_ends_at <= now():
            return 0
        return int((row.window_ends_at - now()).total_seconds()) + 1

    @classmethod
    def count(cls, session: Session, email: str, window: timedelta) -> None:
        """Count one more failure; the window begins with the first one. Windows that ended are cleaned up."""
        session.exec(delete(cls).where(col(cls.window_ends_at) <= now()))
        row = session.get(cls, digest(email), with_for_update=True)
        if row is None:
            row = cls(account_hash=digest(email), window_ends_at=now() + window)
        row.failures += 1
        session.add(row)
        session.flush()

    @classmethod
    def clear(cls, session: Session, email: str) -> None:
        """Forget the failures of an account, after a success."""
        session.exec(delete(cls).where(col(cls.account_hash) == digest(email)))


def digest(secret: str) -> str:
    """What is stored in place of a random token, which needs no salt and no slow hash."""
    return sha256(secret.encode()).hexdigest()


# Items


class ItemPublic(SQLModel):
    """Something that is in stock, or was."""

    id: int
    name: str
    price_cents: int
    quantity: int
    reorder_level: int
    tags: list[str]
    version: int
    created_at: datetime
    updated_at: datetime


class ItemCreate(RequestBody):
    """A new item; names are unique without case."""

    name: ItemName
    price_cents: Cents
    quantity: Quantity = 0
    reorder_level: Quantity = 0
    tags: Tags = []


class ItemUpdate(PatchBody):
    """What an admin may change of an item."""

    name: ItemName | None = None
    price_cents: Cents | None = None
    quantity: Quantity | None = None
    reorder_level: Quantity | None = None
    tags: Tags | None = None


class Item(Versioned, table=True):
    """Something that is in stock, or was."""

    __table_args__ = (
        CheckConstraint("quantity >= 0", "quantity"),
        CheckConstraint("price_cents > 0", "price_cents"),
        AUTOINCREMENT,
    )

    id: int = Field(default=None, primary_key=True, sa_type=BigInt)
    name: str = Field(sa_type=CodePointText, index=True)
    name_key: str = Field(default="", unique=True)
    price_cents: int = Field(sa_type=BigInt)
    quantity: int = Field(default=0, sa_type=BigInt)
    reorder_level: int = Field(default=0, sa_type=BigInt)
    tags: list[str] = Field(default_factory=list, sa_type=TagList)
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now, sa_column_kwargs={"onupdate": now})

    @classmethod
    def has_tag(cls, tag: str) -> ColumnElement[bool]:
        """The condition that an item has this tag. `replace` is in both databases, and it minds the case."""
        tags = type_coerce(col(cls.tags), String)
        return func.replace(tags, f";{tag};", "") != tags


@event.listens_for(Item, "before_insert")
@event.listens_for(Item, "before_update")
def _fold_item(_mapper: Mapper[Item], _connection: Connection, item: Item) -> None:
    item.name_key = folded(item.name)


@event.listens_for(User, "before_insert")
@event.listens_for(User, "before_update")
def _fold_user(_mapper: Mapper[User], _connection: Connection, user: User) -> None:
    user.full_name_key = folded(user.full_name)
