"""Every table and every schema, with the verbs of the domain on the table classes.

A noun `Thing` has up to four classes: `Thing` (the table), `ThingCreate` and `ThingUpdate` (what a client may
send, checked strictly) and `ThingPublic` (what a client sees). Table classes do not validate: make them from a
checked body with `Thing.model_validate(data)`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    EmailStr,
    GetJsonSchemaHandler,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Connection,
    Dialect,
    Index,
    Integer,
    String,
    bindparam,
    event,
    insert,
    text,
    type_coerce,
    update,
)
from sqlalchemy import inspect as sa_inspect
from sqlalchemy import select as select_columns
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapper, QueryableAttribute, column_property, declared_attr, defer
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, Relationship, Session, SQLModel, col, delete, func, select
from sqlmodel._compat import SQLModelConfig
from sqlmodel.sql.expression import SelectOfScalar
from starlette.responses import Response

from kit.db import TransactionSession, lock_table
from kit.logs import REQUEST_ID
from kit.problems import (
    Forbidden,
    IdempotencyKeyReused,
    InvalidCredentials,
    ItemHasOrders,
    LastAdmin,
    NotFound,
    NotOwner,
    OrderNotPending,
    OutOfStock,
    TooManyAttempts,
    UserHasOrders,
    VersionConflict,
)

BIGGEST_ID = 2**63 - 1
BILLION = 1_000_000_000
MOST_RESETS = 5
LOW_STOCK = "quantity <= reorder_level"
WITH_ITS_ROW = {"lazy": "joined", "innerjoin": True}  # read in the same statement as the row
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


def upsert(session: Session, table: type[SQLModel]) -> "postgresql.Insert | sqlite.Insert":
    """An INSERT with `on_conflict_do_nothing`, which SQLAlchemy spells once for each database."""
    on_postgres = session.get_bind().dialect.name == "postgresql"
    return postgresql.insert(table) if on_postgres else sqlite.insert(table)


# Types of fields


def plain_digits(value: object) -> object:
    """Take a whole number from a path or a query in plain digits only: no sign, space, point or underscore."""
    if isinstance(value, str) and not re.fullmatch("[0-9]{1,19}", value):
        raise PydanticCustomError("int_parsing", "Input should be a whole number in plain digits")
    return value


def stored_email(text: str) -> str:
    """An e-mail as it is stored when somebody registers with it, for looking it up; any other text in lower case."""
    try:
        return EMAIL.validate_python(text.strip())
    except ValidationError:
        return text.strip().lower()


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
EMAIL: TypeAdapter[str] = TypeAdapter(Email)
FullName = Annotated[str, Field(min_length=1, max_length=255)]
GivenPassword = Annotated[str, StringConstraints(strip_whitespace=False, min_length=1, max_length=128)]
NewPassword = Annotated[
    str, StringConstraints(strip_whitespace=False, min_length=8, max_length=128), AfterValidator(_strong)
]
ItemName = Annotated[str, Field(min_length=1, max_length=100)]
Cents = Annotated[int, Field(ge=1, le=BILLION)]
Quantity = Annotated[int, Field(ge=0, le=BILLION)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=30, pattern="^[^;]*$")]
NoTwoAlike: Any = Field(max_length=10, schema_extra={"json_schema_extra": {"uniqueItems": True}})
Tags = Annotated[list[Tag], NoTwoAlike, AfterValidator(_distinct)]


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


class Audited(Table):
    """A table whose every change is in the audit, in the same transaction."""

    audited: ClassVar[tuple[str, ...]] = ()
    """The fields whose values the audit keeps; a secret is not among them."""

    def audited_values(self) -> dict[str, Any]:
        """What the row says now, as far as the audit keeps it."""
        return {field: getattr(self, field) for field in self.audited}


class Versioned(Audited):
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


class Principal(NamedTuple):
    """Who calls: an account as it is when the request begins, of which nothing can be changed.

    The rules ask no more than this of the caller, and it is read three times as fast as a `User`.
    """

    id: int
    email: str
    full_name: str
    role: str
    is_active: bool
    created_at: datetime
    updated_at: datetime

    @property
    def is_admin(self) -> bool:
        """Whether the caller may do what members may not."""
        return self.role == "admin"

    def require_admin(self) -> None:
        """Let nobody pass but an admin.

        Raises:
            Forbidden: it is a member who calls.
        """
        if not self.is_admin:
            raise Forbidden


class User(Audited, table=True):
    """An account. E-mails are stored in lower case."""

    __table_args__ = (CheckConstraint("role IN ('member', 'admin')", "role"), AUTOINCREMENT)
    audited: ClassVar = ("email", "full_name", "role", "is_active")

    id: int = Field(default=None, primary_key=True, sa_type=BigInt)
    email: str = Field(unique=True, sa_type=CodePointText)
    full_name: str = Field(sa_type=CodePointText)
    full_name_key: str = ""
    password_hash: str
    role: str = "member"
    is_active: bool = True
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now, sa_column_kwargs={"onupdate": now})

    # Deleted one by one and not by the database, because the audit has to see them go.
    posts: list["Post"] = Relationship(back_populates="creator", cascade_delete=True)
    comments: list["Comment"] = Relationship(back_populates="creator", cascade_delete=True)

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
        anybody = select(User.id).limit(1)
        is_first = session.exec(anybody).first() is None
        if is_first:
            lock_table(session, "user")  # two first accounts at once must not both become admins
            is_first = session.exec(anybody).first() is None
        user = cls.model_validate(data, update={"password_hash": password_hash})
        user.role = "admin" if is_first else user.role
        session.add(user)
        session.flush()
        return user

    def change(self, session: Session, changes: dict[str, Any]) -> Self:
        """Apply changes; a deactivation also ends every session, and a new e-mail every token that the old one has.

        Raises:
            LastAdmin: nobody would be in charge any more.
        """
        loses_power = changes.get("role", self.role) != "admin" or not changes.get("is_active", self.is_active)
        if self.is_admin and self.is_active and loses_power:
            self.require_another_admin(session)
        self.sqlmodel_update(changes)
        session.flush()
        if not self.is_active:
            LoginSession.end_all(session, self.id)
        if "email" in changes or not self.is_active:
            PasswordReset.end_all(session, self.id)
        return self

    def change_password(self, session: Session, password_hash: str, *, keep_session: int | None = None) -> None:
        """Set another password; every session but `keep_session` ends, and every token to reset it."""
        self.password_hash = password_hash
        session.flush()
        PasswordReset.end_all(session, self.id)
        LoginSession.end_all(session, self.id, but=keep_session)

    def remove(self, session: Session) -> None:
        """Delete the account with its posts, comments, notifications and sessions.

        Raises:
            UserHasOrders: somebody has to answer for them; deactivate the account instead.
            LastAdmin: nobody would be in charge any more.
        """
        if session.exec(select(Order.id).where(Order.user_id == self.id).limit(1)).first() is not None:
            raise UserHasOrders
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
    def end_all(cls, session: Session, user_id: int, *, but: int | None = None) -> None:
        """End every session of an account but one."""
        session.exec(delete(cls).where(col(cls.user_id) == user_id, col(cls.id) != but))

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
    def refuse_blocked(cls, session: Session, email: str, attempts: int, *, lock: bool = False) -> None:
        """Let nobody sign in to an account that used up its attempts, until the window has passed.

        Raises:
            TooManyAttempts: it did.
        """
        row = session.get(cls, digest(email), with_for_update=lock)
        if row is not None and row.failures >= attempts and row.window_ends_at > now():
            raise TooManyAttempts(int((row.window_ends_at - now()).total_seconds()) + 1)

    @classmethod
    def count(cls, session: Session, email: str, attempts: int, window: timedelta) -> None:
        """Count one more failure; the window begins with the first one. Windows that ended are cleaned up.

        Raises:
            TooManyAttempts: others used up the attempts at the same moment.
        """
        session.exec(delete(cls).where(col(cls.window_ends_at) <= now()))
        first = {"account_hash": digest(email), "failures": 0, "window_ends_at": now() + window}
        session.exec(upsert(session, cls).values(first).on_conflict_do_nothing())
        cls.refuse_blocked(session, email, attempts, lock=True)
        session.get_one(cls, digest(email)).failures += 1
        session.flush()

    @classmethod
    def clear(cls, session: Session, email: str) -> None:
        """Forget the failures of an account, after a success."""
        session.exec(delete(cls).where(col(cls.account_hash) == digest(email)))


class PasswordResetRequest(RequestBody):
    """Whose password was forgotten."""

    email: Email


class PasswordResetUse(RequestBody):
    """The token from the mail, and the new password."""

    token: Annotated[str, Field(min_length=1, max_length=255)]
    new_password: NewPassword


class PasswordReset(Table, table=True):
    """A one-time token that was mailed to somebody; it lives for an hour."""

    token_hash: str = Field(primary_key=True)
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", index=True, sa_type=BigInt)
    expires_at: datetime = Field(index=True)

    @classmethod
    def issue(cls, session: Session, user: User) -> str | None:
        """A new token; None where the account has enough living ones, so that nobody's mailbox is flooded."""
        session.exec(delete(cls).where(col(cls.expires_at) <= now()))
        if session.exec(select(func.count()).where(cls.user_id == user.id)).one() >= MOST_RESETS:
            return None
        token = token_urlsafe(32)
        session.add(cls(token_hash=digest(token), user_id=user.id, expires_at=now() + timedelta(hours=1)))
        return token

    @classmethod
    def end_all(cls, session: Session, user_id: int) -> None:
        """End every token of an account."""
        session.exec(delete(cls).where(col(cls.user_id) == user_id))

    @classmethod
    def require_living(cls, session: Session, token: str) -> None:
        """Refuse a token before its password is hashed.

        Raises:
            InvalidCredentials: it is used, expired or unknown.
        """
        row = session.get(cls, digest(token))
        if row is None or row.expires_at <= now():
            raise InvalidCredentials

    @classmethod
    def redeem(cls, session: Session, token: str) -> User:
        """Spend a token; of two uses at once exactly one succeeds.

        Raises:
            InvalidCredentials: it is used, expired or unknown, or its account is not active.
        """
        spent = delete(cls).where(col(cls.token_hash) == digest(token), col(cls.expires_at) > now())
        user_id = session.exec(spent.returning(col(cls.user_id))).scalar_one_or_none()
        user = session.get(User, user_id, with_for_update=True) if user_id else None
        if user is None or not user.is_active:
            raise InvalidCredentials
        return user


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
    """Something that is in stock, or was. Its quantity is never negative, whatever runs at once."""

    __table_args__ = (
        CheckConstraint("quantity >= 0", "quantity"),
        CheckConstraint("price_cents > 0", "price_cents"),
        Index("ix_item_low_stock", "name", sqlite_where=text(LOW_STOCK), postgresql_where=text(LOW_STOCK)),
        AUTOINCREMENT,
    )
    audited: ClassVar = ("name", "price_cents", "quantity", "reorder_level", "tags")

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
    def create_many(cls, session: Session, rows: Sequence[dict[str, Any]]) -> None:
        """Add many items in two statements: one for the items, one for their audit."""
        if not rows:
            return
        values = [row | {"name_key": folded(row["name"]), "version": 1} for row in rows]
        statement = insert(cls).returning(col(cls.id), sort_by_parameter_order=True)
        ids = session.exec(statement, params=values).scalars().all()
        created = [{field: [None, row[field]] for field in cls.audited} for row in rows]
        AuditEntry.record(session, "create", "item", list(zip(ids, created, strict=True)))

    @classmethod
    def change_many(cls, session: Session, changes: Sequence[tuple["Item", dict[str, Any]]]) -> None:
        """Do what `change` does to many items: one statement for the items, one for their audit, two for warnings.

        The changes of all of them must name the same fields.
        """
        if not changes:
            return
        rows: list[dict[str, Any]] = []
        audited: list[tuple[int, dict[str, list[Any]]]] = []
        notices: list[Notice] = []
        for item, values in changes:
            old = item.audited_values()
            _take_over(item, values | {"version": item.version + 1})
            rows.append(values | {"row_id": item.id, "version": item.version, "name_key": folded(item.name)})
            audited.append((item.id, {field: [old[field], new] for field, new in values.items() if new != old[field]}))
            notices += item.low_stock_notice(old["quantity"])
        statement = update(cls).where(col(cls.id) == bindparam("row_id"))
        session.connection().execute(statement, rows)
        AuditEntry.record(session, "update", "item", audited)
        Notification.tell_admins(session, notices)

    @property
    def link(self) -> str:
        """Where the item is found."""
        return f"/api/v1/items/{self.id}"

    def change(self, session: Session, changes: dict[str, Any]) -> Self:
        """Apply an admin's changes, and warn the other admins where they make the stock low."""
        before = self.quantity
        self.sqlmodel_update(changes)
        session.flush()
        Notification.tell_admins(session, self.low_stock_notice(before))
        return self

    def remove(self, session: Session) -> None:
        """Delete an item that nobody ever ordered.

        Raises:
            ItemHasOrders: somebody did.
        """
        if session.exec(select(OrderLine.order_id).where(OrderLine.item_id == self.id).limit(1)).first() is not None:
            raise ItemHasOrders
        session.delete(self)
        session.flush()

    @classmethod
    def take(cls, session: Session, wanted: "Sequence[tuple[Item, int]]") -> None:
        """Take so many of each item out of the stock, or none of any; no quantity can go below zero.

        Raises:
            OutOfStock: too few are left; it names every short item.
        """
        if cls._restock(session, [(item, -quantity) for item, quantity in wanted]) < len(wanted):
            raise OutOfStock(
                (item.id, quantity, item.quantity) for item, quantity in wanted if quantity > item.quantity
            )

    @classmethod
    def put_back(cls, session: Session, taken: "Sequence[tuple[Item, int]]") -> None:
        """Put so many of each item back into the stock."""
        cls._restock(session, taken)

    @classmethod
    def _restock(cls, session: Session, changes: "Sequence[tuple[Item, int]]") -> int:
        """Change quantities, in one statement for the items and one for their audit; returns how many it changed."""
        at = now()
        rows = [{"row_id": item.id, "by": by, "at": at} for item, by in changes]
        changed: int = session.connection().execute(RESTOCK, rows).rowcount
        if changed == len(rows):
            AuditEntry.record(
                session,
                "update",
                "item",
                [(item.id, {"quantity": [item.quantity, item.quantity + by]}) for item, by in changes],
            )
            for item, by in changes:
                _take_over(item, {"quantity": item.quantity + by, "version": item.version + 1, "updated_at": at})
        return changed

    def low_stock_notice(self, quantity_before: int) -> "list[Notice]":
        """The warning that the quantity crossed its level downward, if it did."""
        if not quantity_before > self.reorder_level >= self.quantity:
            return []
        message = f"{self.name} is low: {self.quantity} left, the level is {self.reorder_level}."
        return [Notice("low_stock", message, self.link)]

    @classmethod
    def has_tag(cls, tag: str) -> ColumnElement[bool]:
        """The condition that an item has this tag. `replace` is in both databases, and it minds the case."""
        tags = type_coerce(col(cls.tags), String)
        return func.replace(tags, f";{tag};", "") != tags


def _take_over(row: Table, values: dict[str, Any]) -> None:
    """Let an object say what a statement made of its row, without the next flush writing it once more."""
    for field, value in values.items():
        set_committed_value(row, field, value)


# Made once: building a statement takes longer than SQLite needs for it.
# One order of items for everybody: two orders that want the same ones cannot wait for each other.
ITEMS_TO_CHANGE = (
    select(Item).where(col(Item.id).in_(bindparam("ids", expanding=True))).order_by(col(Item.id)).with_for_update()
)
RESTOCK = (
    update(Item)
    .where(col(Item.id) == bindparam("row_id"), col(Item.quantity) + bindparam("by") >= 0)
    .values(quantity=Item.quantity + bindparam("by"), version=Item.version + 1, updated_at=bindparam("at"))
)


@event.listens_for(Item, "before_insert")
@event.listens_for(Item, "before_update")
def _fold_item(_mapper: Mapper[Item], _connection: Connection, item: Item) -> None:
    item.name_key = folded(item.name)


@event.listens_for(User, "before_insert")
@event.listens_for(User, "before_update")
def _fold_user(_mapper: Mapper[User], _connection: Connection, user: User) -> None:
    user.full_name_key = folded(user.full_name)


# Orders

OrderStatus = Literal["pending", "fulfilled", "cancelled"]


class OrderLineCreate(RequestBody):
    """How many of which item."""

    item_id: Id
    quantity: Annotated[int, Field(ge=1, le=10_000)]


def _one_line_an_item(lines: list[OrderLineCreate]) -> list[OrderLineCreate]:
    if len({line.item_id for line in lines}) < len(lines):
        raise ValueError("No item may stand in two lines")
    return lines


class OrderCreate(RequestBody):
    """A new order."""

    lines: Annotated[list[OrderLineCreate], Field(min_length=1, max_length=100), AfterValidator(_one_line_an_item)]
    note: Annotated[str, Field(max_length=500)] | None = None


class OrderUpdate(RequestBody):
    """What becomes of a pending order."""

    status: Literal["fulfilled", "cancelled"]


class OrderLinePublic(SQLModel):
    """One line of an order, with the name and the price of the moment of ordering."""

    item_id: int
    item_name: str
    quantity: int
    unit_price_cents: int


class OrderPublic(SQLModel):
    """An order."""

    id: int
    user_id: int
    status: OrderStatus
    lines: list[OrderLinePublic]
    total_cents: int
    note: str | None
    version: int
    created_at: datetime
    updated_at: datetime


class OrderLine(Table, table=True):
    """How many of one item, under the name and at the price of the moment of ordering."""

    order_id: int = Field(default=None, foreign_key="order.id", ondelete="CASCADE", primary_key=True, sa_type=BigInt)
    item_id: int = Field(foreign_key="item.id", primary_key=True, index=True, sa_type=BigInt)
    position: int
    item_name: str
    quantity: int
    unit_price_cents: int = Field(sa_type=BigInt)


class Order(Versioned, table=True):
    """What somebody ordered. Its stock is taken when it is placed, and put back when it is cancelled."""

    __table_args__ = (
        CheckConstraint("status IN ('pending', 'fulfilled', 'cancelled')", "status"),
        Index("ix_order_created_at", text("created_at DESC"), "id"),
        Index("ix_order_user_id_created_at", "user_id", text("created_at DESC"), "id"),
        AUTOINCREMENT,
    )
    audited: ClassVar = ("user_id", "status", "total_cents", "note")

    id: int = Field(default=None, primary_key=True, sa_type=BigInt)
    user_id: int = Field(foreign_key="user.id", sa_type=BigInt)
    status: str = "pending"
    total_cents: int = Field(default=0, sa_type=BigInt)
    note: str | None = None
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now, sa_column_kwargs={"onupdate": now})

    lines: list[OrderLine] = Relationship(
        cascade_delete=True, sa_relationship_kwargs={"lazy": "selectin", "order_by": "OrderLine.position"}
    )

    @property
    def link(self) -> str:
        """Where the order is found."""
        return f"/api/v1/orders/{self.id}"

    @classmethod
    def visible_to(cls, user: Principal) -> SelectOfScalar["Order"]:
        """The orders that `user` may see: their own, or all of them for an admin."""
        return select(Order) if user.is_admin else select(Order).where(Order.user_id == user.id)

    @classmethod
    def place(cls, session: Session, user: Principal, data: OrderCreate) -> Self:
        """Take the stock of all lines, or of none, and tell the admins.

        Raises:
            NotFound: there is no such item.
            OutOfStock: too few are left; it names every short item.
        """
        wanted = {line.item_id: line.quantity for line in data.lines}
        items = {item.id: item for item in session.exec(ITEMS_TO_CHANGE, params={"ids": list(wanted)})}
        for item_id in wanted:
            if item_id not in items:
                raise NotFound("item", item_id)
        Item.take(session, [(item, wanted[item.id]) for item in items.values()])
        lines = [
            OrderLine(
                item_id=item_id,
                position=position,
                item_name=items[item_id].name,
                quantity=quantity,
                unit_price_cents=items[item_id].price_cents,
            )
            for position, (item_id, quantity) in enumerate(wanted.items())
        ]
        total_cents = sum(line.quantity * line.unit_price_cents for line in lines)
        order = cls(user_id=user.id, lines=lines, total_cents=total_cents, note=data.note)
        session.add(order)
        session.flush()
        notices = [Notice("order_placed", f"{user.full_name} placed order {order.id}.", order.link)]
        for item in items.values():
            notices += item.low_stock_notice(item.quantity + wanted[item.id])
        Notification.tell_admins(session, notices)
        return order

    def fulfil(self, session: Session) -> Self:
        """Mark a pending order as delivered.

        Raises:
            OrderNotPending: it was fulfilled or cancelled before.
        """
        return self._leave_pending(session, "fulfilled")

    def cancel(self, session: Session) -> Self:
        """Cancel a pending order and put its stock back.

        Raises:
            OrderNotPending: it was fulfilled or cancelled before.
        """
        self._leave_pending(session, "cancelled")
        ordered = {line.item_id: line.quantity for line in self.lines}
        found = session.exec(ITEMS_TO_CHANGE, params={"ids": list(ordered)})
        Item.put_back(session, [(item, ordered[item.id]) for item in found])
        return self

    def _leave_pending(self, session: Session, status: OrderStatus) -> Self:
        if self.status != "pending":
            raise OrderNotPending(self.status)
        self.status = status
        session.flush()
        if session.info.get("actor_id") != self.user_id:
            notice = Notice(f"order_{status}", f"Your order {self.id} was {status}.", self.link)
            Notification.tell(session, self.user_id, notice)
        return self

    def audited_values(self) -> dict[str, Any]:
        """What the order says now, with its lines."""
        lines = [line.model_dump(include={"item_id", "quantity", "unit_price_cents"}) for line in self.lines]
        return super().audited_values() | {"lines": lines}


class IdempotencyKey(Table, table=True):
    """The answer to a request that carried an `Idempotency-Key`, kept so that a repetition gets it again."""

    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", primary_key=True, sa_type=BigInt)
    key: str = Field(primary_key=True)
    body_hash: str
    answer: str = ""
    created_at: datetime = Field(default_factory=now, index=True)

    @classmethod
    def claim(cls, session: Session, user: Principal, key: str, data: OrderCreate) -> Self:
        """The row of this key: new and without an answer, or the one with the first answer.

        Keys are kept for a day; older ones are cleaned up here. Of two requests with one key the second waits here
        until the first is done.

        Raises:
            IdempotencyKeyReused: the key came with another body before.
        """
        session.exec(delete(cls).where(col(cls.created_at) < now() - timedelta(days=1)))
        body_hash = digest(data.model_dump_json())
        values = {"user_id": user.id, "key": key, "body_hash": body_hash, "answer": "", "created_at": now()}
        session.exec(upsert(session, cls).values(values).on_conflict_do_nothing())
        row = session.get_one(cls, (user.id, key))
        if row.body_hash != body_hash:
            raise IdempotencyKeyReused
        return row

    def keep(self, order: Order) -> None:
        """Keep the answer, as the client gets it now."""
        self.answer = OrderPublic.model_validate(order).model_dump_json()

    def replay(self) -> Response:
        """The first answer again."""
        order = OrderPublic.model_validate_json(self.answer)
        headers = {
            "Idempotent-Replayed": "true",
            "Location": f"/api/v1/orders/{order.id}",
            "ETag": f'"{order.version}"',
        }
        return Response(self.answer, 201, headers, "application/json")


# Posts and comments


class PostPublic(SQLModel):
    """A note to everybody."""

    id: int
    title: str
    content: str
    creator_id: int
    creator_name: str
    comment_count: int
    version: int
    created_at: datetime
    updated_at: datetime


class PostCreate(RequestBody):
    """A new note."""

    title: Annotated[str, Field(min_length=1, max_length=255)]
    content: Annotated[str, Field(min_length=1, max_length=20_000)]


class PostUpdate(PatchBody):
    """What its creator may change of a post."""

    title: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    content: Annotated[str, Field(min_length=1, max_length=20_000)] | None = None


class CommentPublic(SQLModel):
    """What somebody says about a post."""

    id: int
    post_id: int
    content: str
    creator_id: int
    creator_name: str
    created_at: datetime
    updated_at: datetime


class CommentCreate(RequestBody):
    """A new comment."""

    content: Annotated[str, Field(min_length=1, max_length=5_000)]


class CommentUpdate(PatchBody):
    """What its creator may change of a comment."""

    content: Annotated[str, Field(min_length=1, max_length=5_000)] | None = None


class Created(Audited):
    """A row that somebody wrote, and that only they may change."""

    creator_id: int = Field(foreign_key="user.id", sa_type=BigInt)

    if TYPE_CHECKING:
        creator: "User"  # each table declares its relationship

    @property
    def creator_name(self) -> str:
        """The name of the person who wrote it."""
        return self.creator.full_name

    def require_creator(self, user: Principal) -> Self:
        """The row itself, for the person who wrote it.

        Raises:
            NotOwner: `user` is somebody else.
        """
        if self.creator_id != user.id:
            raise NotOwner
        return self

    def require_creator_or_admin(self, user: Principal) -> Self:
        """The row itself, for the person who wrote it and for admins.

        Raises:
            NotOwner: `user` is neither.
        """
        return self if user.is_admin else self.require_creator(user)


class Comment(Created, table=True):
    """What somebody says about a post."""

    __table_args__ = (
        Index("ix_comment_post_id", "post_id", "id"),
        Index("ix_comment_creator_id", "creator_id"),
        AUTOINCREMENT,
    )
    audited: ClassVar = ("post_id", "content", "creator_id")

    id: int = Field(default=None, primary_key=True, sa_type=BigInt)
    post_id: int = Field(foreign_key="post.id", sa_type=BigInt)
    content: str
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now, sa_column_kwargs={"onupdate": now})

    creator: User = Relationship(back_populates="comments", sa_relationship_kwargs=WITH_ITS_ROW)


class Post(Created, Versioned, table=True):
    """A note to everybody. A comment changes neither its version nor its time."""

    __table_args__ = (Index("ix_post_creator_id", "creator_id", "id"), AUTOINCREMENT)
    audited: ClassVar = ("title", "content", "creator_id")

    id: int = Field(default=None, primary_key=True, sa_type=BigInt)
    title: str
    content: str
    search_key: str = ""
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now, sa_column_kwargs={"onupdate": now})

    creator: User = Relationship(back_populates="posts", sa_relationship_kwargs=WITH_ITS_ROW)
    comments: list[Comment] = Relationship(cascade_delete=True)

    if TYPE_CHECKING:
        comment_count: int  # a subquery, mapped below

    @classmethod
    def shown(cls) -> SelectOfScalar["Post"]:
        """Posts, without the copy of their text that only searching needs."""
        return select(Post).options(defer(cast(QueryableAttribute[str], Post.search_key)))

    @property
    def link(self) -> str:
        """Where the post is found."""
        return f"/api/v1/posts/{self.id}"

    def comment(self, session: Session, user: Principal, data: CommentCreate) -> Comment:
        """Add a comment, and tell the creator of the post unless it is their own."""
        comment = Comment.model_validate(data, update={"post_id": self.id, "creator_id": user.id})
        session.add(comment)
        session.flush()
        if user.id != self.creator_id:
            link = f"{self.link}/comments/{comment.id}"
            Notification.tell(session, self.creator_id, Notice("comment", f"{user.full_name} on {self.title!r}.", link))
        return comment


def _comment_count() -> ColumnElement[int]:
    return select(func.count()).where(col(Comment.post_id) == Post.id).correlate_except(Comment).scalar_subquery()


sa_inspect(Post).add_property("comment_count", column_property(_comment_count()))


@event.listens_for(Post, "before_insert")
def _fold_new_post(_mapper: Mapper[Post], _connection: Connection, post: Post) -> None:
    post.search_key = folded(f"{post.title}\n{post.content}")


@event.listens_for(Post, "before_update")
def _fold_changed_post(mapper: Mapper[Post], connection: Connection, post: Post) -> None:
    # Setting a deferred column counts as a change, and so as a new version, even where the text stays the same.
    if any(sa_inspect(post).attrs[field].history.has_changes() for field in ("title", "content")):
        _fold_new_post(mapper, connection, post)


# Notifications


class NotificationPublic(SQLModel):
    """Something the caller should know."""

    id: int
    kind: str
    message: str
    link: str
    read_at: datetime | None
    created_at: datetime


class NotificationUpdate(RequestBody):
    """Whether it was read."""

    read: bool


class AllNotificationsUpdate(RequestBody):
    """All of them were read."""

    read: Literal[True]

    @field_validator("read", mode="before")
    @classmethod
    def _is_boolean(cls, value: object) -> object:
        if not isinstance(value, bool):  # 1 equals True, which is all that a Literal asks for
            raise PydanticCustomError("bool_type", "Input should be a valid boolean")
        return value


@dataclass(frozen=True)
class Notice:
    """What there is to tell."""

    kind: str
    message: str
    link: str


class Notification(Table, table=True):
    """Something that one person should know; written in the transaction that it tells of."""

    __table_args__ = (
        Index("ix_notification_user_id", "user_id", "id"),
        Index("ix_notification_user_id_read_at", "user_id", "read_at", "id"),
        AUTOINCREMENT,
    )

    id: int = Field(default=None, primary_key=True, sa_type=BigInt)
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", sa_type=BigInt)
    kind: str
    message: str
    link: str
    read_at: datetime | None = None
    created_at: datetime = Field(default_factory=now)

    @classmethod
    def tell(cls, session: Session, user_id: int, notice: Notice) -> None:
        """Tell one person."""
        session.add(cls(user_id=user_id, kind=notice.kind, message=notice.message, link=notice.link))

    @classmethod
    def tell_admins(cls, session: Session, notices: Sequence[Notice]) -> None:
        """Tell every active admin but the one who caused it: one statement, however many there are."""
        if notices:
            actor_id = session.info.get("actor_id", 0)
            session.connection().execute(TELL_ADMINS, [asdict(notice) | {"actor_id": actor_id} for notice in notices])

    def mark(self, *, read: bool) -> Self:
        """Mark it as read, at the time of the first reading, or as unread."""
        self.read_at = (self.read_at or now()) if read else None
        return self


TELL_ADMINS = insert(Notification).from_select(
    ["user_id", "kind", "message", "link"],
    select_columns(col(User.id), *(bindparam(name, type_=String) for name in ("kind", "message", "link"))).where(
        col(User.role) == "admin", col(User.is_active), col(User.id) != bindparam("actor_id")
    ),
)


# Audit

AuditedEntity = Literal["user", "item", "order", "post", "comment"]


class AuditEntryPublic(SQLModel):
    """One change: who changed what, when, from which value to which."""

    id: int
    at: datetime
    actor_id: int | None
    action: Literal["create", "update", "delete"]
    entity: AuditedEntity
    entity_id: int
    changes: dict[str, list[Any]]
    request_id: str | None


class AuditEntry(Table, table=True):
    """One change of an audited row. The actor is nobody for the command line and for what is done at start."""

    __table_args__ = (
        Index("ix_audit_entry_entity", "entity", "entity_id", "id"),
        Index("ix_audit_entry_entity_latest", "entity", "id"),
        Index("ix_audit_entry_actor_id", "actor_id", "id"),
        AUTOINCREMENT,
    )

    id: int = Field(default=None, primary_key=True, sa_type=BigInt)
    at: datetime = Field(default_factory=now)
    actor_id: int | None = Field(default=None, sa_type=BigInt)
    action: str
    entity: str
    entity_id: int = Field(sa_type=BigInt)
    changes: dict[str, list[Any]] = Field(sa_type=JSON)
    request_id: str | None = None

    @classmethod
    def record(
        cls, session: Session, action: str, entity: str, changes: Sequence[tuple[int, dict[str, list[Any]]]]
    ) -> None:
        """Write down what became of rows of one entity: the id and the changes of each; one statement for all."""
        common = {
            "actor_id": session.info.get("actor_id"),
            "action": action,
            "entity": entity,
            "request_id": REQUEST_ID.get() or None,
        }
        rows = [common | {"entity_id": entity_id, "changes": change} for entity_id, change in changes]
        session.connection().execute(NEW_AUDIT_ENTRY, rows)


NEW_AUDIT_ENTRY = insert(AuditEntry)


@event.listens_for(TransactionSession, "before_flush")
def _audit_changes(session: Session, _context: object, _instances: object) -> None:
    """Write down what a flush will change and delete, while the old values are at hand."""
    _audit(session, "update", ((row, _changes_of(row)) for row in session.dirty if isinstance(row, Audited)))
    deleted = (row for row in session.deleted if isinstance(row, Audited))
    _audit(
        session, "delete", ((row, {name: [old, None] for name, old in row.audited_values().items()}) for row in deleted)
    )


@event.listens_for(TransactionSession, "after_flush")
def _audit_creations(session: Session, _context: object) -> None:
    """Write down what a flush created, now that it has its ids."""
    created = (row for row in session.new if isinstance(row, Audited))
    _audit(
        session, "create", ((row, {name: [None, new] for name, new in row.audited_values().items()}) for row in created)
    )


def _audit(session: Session, action: str, rows: Iterable[tuple[Audited, dict[str, list[Any]]]]) -> None:
    entities: dict[str, list[tuple[int, dict[str, list[Any]]]]] = {}
    for row, changes in rows:
        if changes:
            row_id: int = getattr(row, "id")  # noqa: B009 - every audited table has one, their base does not
            entities.setdefault(type(row).__name__.lower(), []).append((row_id, changes))
    for entity, changed in entities.items():
        AuditEntry.record(session, action, entity, changed)


def _changes_of(row: Audited) -> dict[str, list[Any]]:
    state = sa_inspect(row)
    histories = {field: state.attrs[field].history for field in row.audited}
    changes = {field: [past.deleted[0], past.added[0]] for field, past in histories.items() if past.has_changes()}
    if isinstance(row, User) and state.attrs["password_hash"].history.has_changes():
        changes["password"] = [None, None]
    return changes


# Dashboard


class StockSummary(SQLModel):
    """The stock at a glance."""

    items: int
    units: int
    value_cents: int
    low_stock: list[ItemPublic]


class DaySummary(SQLModel):
    """The orders of one day in UTC, without those that were cancelled."""

    date: date
    count: int
    total_cents: int


class Dashboard(SQLModel):
    """What somebody sees first."""

    profile: UserPublic
    unread_notifications: int
    recent_orders: list[OrderPublic]
    stock: StockSummary
    orders_per_day: list[DaySummary]
