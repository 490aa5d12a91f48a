"""Every table and every schema, with the verbs of the domain on the table classes, and the faults of each noun.

A noun `Thing` has up to four classes: `Thing` (the table), `ThingCreate` and `ThingUpdate` (what a client may
send, checked strictly) and `ThingPublic` (what a client sees). Table classes do not validate: make them from a
checked body with `Thing.model_validate(data)`.

A row whose every change is in the audit derives from `Audited`, one with a version from `Versioned`, one that belongs
to somebody from `Owned`. What happens to a row when another one is deleted stands at its foreign key: with
`ondelete="CASCADE"` it goes along, and is in the audit; else the fault that names the key is the answer.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, cast

from pydantic import AfterValidator, BeforeValidator, Strict, StringConstraints
from pydantic_core import PydanticCustomError
from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    Index,
    String,
    and_,
    bindparam,
    insert,
    or_,
    text,
    type_coerce,
    update,
)
from sqlalchemy import inspect as sa_inspect
from sqlalchemy import select as select_columns
from sqlalchemy.orm import QueryableAttribute, column_property, defer
from sqlmodel import Field, Relationship, Session, SQLModel, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from kit.audit import Audited, actor_of, record
from kit.auth import Claims, GivenPassword, NewPassword
from kit.db import TransactionSession, lock_table
from kit.models import (
    BILLION,
    DISTINCT,
    JOINED,
    BigInt,
    CodePointText,
    Email,
    Entity,
    Id,
    Owned,
    PatchBody,
    RequestBody,
    Table,
    TagList,
    Timestamped,
    Versioned,
    now,
    set_loaded,
)
from kit.problems import Conflict, Forbidden, NotAuthenticated, NotFound, Problem
from kit.sessions import LoginSession, PasswordReset
from settings import API

# Users

Role = Literal["member", "admin"]


def _one_line(name: str) -> str:
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", name):  # a mail that begins with it would say what somebody wants
        raise ValueError("A name is one line of text")
    return name


FullName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_one_line)]


class EmailTaken(Conflict):
    """409: e-mails are unique, without case."""

    constraint = "uq_user_email"
    field = "email"
    detail = "Another account has this e-mail address."


class LastAdmin(Conflict):
    """409: the change would leave nobody in charge."""

    detail = "This is the last active admin; make another admin first."


class RegistrationClosed(Problem):
    """403: accounts are made by an admin here."""

    status = 403
    detail = "Registration is closed; ask an admin for an account."


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


class UserCreate(RequestBody):
    """A new account, made by an admin; without a password nobody can sign in until one is set with a token."""

    email: Email
    full_name: FullName
    password: NewPassword = Field(default_factory=str)  # not a default in the documentation: it is too short
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
    session_id: int
    """The login session from which the call comes."""
    unread: int = 0
    """How many notifications are unread; only pages ask for it."""

    @classmethod
    def read(cls, session: Session, claims: Claims) -> "Principal | None":
        """The active account behind a token, as of now; None where it or its login session is gone."""
        ids = {"user_id": claims.sub, "session_id": claims.sid}
        statement = LIVING_VISITOR if claims.type == "page" else LIVING_PRINCIPAL
        row = session.connection().execute(statement, ids).one_or_none()
        return cls(*row) if row is not None else None

    @property
    def is_admin(self) -> bool:
        """Whether the caller may do what members may not."""
        return self.role == "admin"

    def account(self, session: Session) -> "User":
        """The account itself, locked for a change; `NotAuthenticated` if it was deleted meanwhile."""
        user = session.get(User, self.id, with_for_update=True)
        if user is None:
            raise NotAuthenticated
        return user

    def require_admin(self) -> None:
        """Let nobody pass but an admin; a member gets `Forbidden`."""
        if not self.is_admin:
            raise Forbidden


class User(Audited, Timestamped, table=True):
    """An account. E-mails are stored in lower case."""

    __table_args__ = (CheckConstraint("role IN ('member', 'admin')", "role"),)
    audited: ClassVar = ("email", "full_name", "role", "is_active")
    secrets: ClassVar = {"password_hash": "password"}
    folds: ClassVar = {"full_name_key": ("full_name",)}

    email: str = Field(unique=True, sa_type=CodePointText)
    full_name: str = Field(sa_type=CodePointText)
    full_name_key: str = ""
    password_hash: str
    role: str = "member"
    is_active: bool = True

    @property
    def is_admin(self) -> bool:
        """Whether this account may do what members may not."""
        return self.role == "admin"

    @property
    def account(self) -> str:
        """By which name failed sign-ins are counted; another e-mail does not change it."""
        return f"user {self.id}"

    @classmethod
    def create(cls, session: Session, data: UserRegister | UserCreate, password_hash: str) -> Self:
        """Add an account; the first one ever becomes the admin.

        Raises:
            IntegrityError: the e-mail is taken (answered as `EMAIL_TAKEN`).
        """
        is_first = not cls.anybody(session)
        if is_first:
            lock_table(session, "user")  # two first accounts at once must not both become admins
            is_first = not cls.anybody(session)
        user = cls.model_validate(data, update={"password_hash": password_hash})
        user.role = "admin" if is_first else user.role
        session.add(user)
        session.flush()
        return user

    @classmethod
    def anybody(cls, session: Session) -> bool:
        """Whether there is an account."""
        return session.exec(ANYBODY).first() is not None

    @classmethod
    def names(cls, session: Session, ids: Iterable[int | None]) -> dict[int, str]:
        """The full names of accounts, for pages; one statement."""
        wanted = select_columns(col(cls.id), col(cls.full_name)).where(col(cls.id).in_({*ids}))
        rows = session.connection().execute(wanted)
        return {row.id: row.full_name for row in rows}

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

    def renew_hash(self, session: Session, password_hash: str) -> None:
        """Keep the same password under another hash; that is no change of the account."""
        renewed = {"password_hash": password_hash, "updated_at": col(User.updated_at)}
        session.connection().execute(update(User).where(col(User.id) == self.id).values(renewed))
        set_loaded(self, {"password_hash": password_hash})

    def issue_reset(self, session: Session) -> "PasswordResetToken":
        """A token for a day, in place of earlier ones; the audit says that there was one."""
        PasswordReset.end_all(session, self.id)
        lifetime = timedelta(days=1)
        token = PasswordReset.issue(session, self.id, lifetime)
        record(session, "update", User, [(self.id, {"password_reset": [None, None]})])
        return PasswordResetToken(token=str(token), expires_at=now() + lifetime)

    def remove(self, session: Session) -> None:
        """Delete the account with its posts, comments, notifications and sessions.

        Raises:
            LastAdmin: nobody would be in charge any more.
            Problem: something refers to the account that does not go with it, such as its orders.
        """
        if self.is_admin and self.is_active:
            self.require_another_admin(session)
        session.delete(self)
        session.flush()

    @classmethod
    def find_with_admins(cls, session: Session, user_id: int) -> "User":
        """An account to be changed; nobody else can change it, or who is in charge, until the transaction ends.

        All rows are locked in one order (on SQLite the transaction itself is the lock), so two admins who demote each
        other at once do not wait for each other, and the second one sees what the first one did.

        Raises:
            NotFound: there is no such account.
        """
        is_admin = and_(col(cls.role) == "admin", col(cls.is_active))
        locked = select(User).where(or_(col(cls.id) == user_id, is_admin)).order_by(col(cls.id))
        locked = locked.with_for_update(key_share=True).execution_options(populate_existing=True)
        for user in session.exec(locked):
            if user.id == user_id:
                return user
        raise NotFound("user", user_id)

    def require_another_admin(self, session: Session) -> None:
        """Refuse with `LastAdmin` unless somebody else is in charge; for an account found by `find_with_admins`."""
        active_admins = select(User.id).where(User.role == "admin", col(User.is_active))
        if set(session.exec(active_admins)) <= {self.id}:
            raise LastAdmin


ANYBODY = select(User.id).limit(1)
# Made once: every request runs it, and building a statement takes longer than SQLite needs to answer it.
LIVING_PRINCIPAL = (
    select_columns(*(getattr(User, field) for field in Principal._fields[:-2]), col(LoginSession.id))
    .join(LoginSession, col(LoginSession.user_id) == User.id)
    .where(col(User.id) == bindparam("user_id"), col(LoginSession.id) == bindparam("session_id"), col(User.is_active))
)


class PasswordResetRequest(RequestBody):
    """Whose password was forgotten."""

    email: Email


class PasswordResetToken(SQLModel):
    """A one-time token for `PUT /auth/password-reset`, to be handed over."""

    token: str
    expires_at: datetime


class PasswordResetUse(RequestBody):
    """The token from the mail, and the new password."""

    token: Annotated[str, Field(min_length=1, max_length=255)]
    new_password: NewPassword


# Items

LOW_STOCK = "quantity <= reorder_level"
ItemName = Annotated[str, Field(min_length=1, max_length=100)]
Cents = Annotated[int, Field(ge=1, le=BILLION)]
Quantity = Annotated[int, Field(ge=0, le=BILLION)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=30, pattern="^[^;]*$")]
MAX_TAGS = 10
UniqueItems: Any = Field(max_length=MAX_TAGS, schema_extra={"json_schema_extra": {"uniqueItems": True}})
Tags = Annotated[list[Tag], UniqueItems, DISTINCT]


class ItemNameTaken(Conflict):
    """409: item names are unique, without case."""

    constraint = "uq_item_name_key"
    field = "name"
    detail = "Another item has this name."


class OutOfStock(Conflict):
    """409: too few are left of some items; `errors` names each with what was requested and what is available."""

    detail = "There is not enough in stock; nothing was ordered."

    def __init__(self, short: Iterable[tuple[int, int, int]]) -> None:
        names = ("item_id", "requested", "available")
        super().__init__(errors=[dict(zip(names, item, strict=True)) for item in short])


class NotSoMany(Conflict):
    """409: more would be taken out of the stock than there is, or more put in than can be counted."""

    field = "by"


class TooManyTags(Conflict):
    """409: an item would have more tags than it may."""

    field = "tag"


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
    tags: Tags = Field(default_factory=list)


class ItemUpdate(PatchBody):
    """What an admin may change of an item."""

    name: ItemName | None = None
    price_cents: Cents | None = None
    quantity: Quantity | None = None
    reorder_level: Quantity | None = None
    tags: Tags | None = None


class Delivery(RequestBody):
    """How many more there are of an item than before; fewer, where the number is negative."""

    by: Annotated[int, Field(ge=-BILLION, le=BILLION)]


def _not_empty(tag: object) -> object:
    if not str(tag).strip():
        raise ValueError("Enter the tag")
    return tag


def _some(items: list[int]) -> list[int]:
    if not items:
        raise ValueError("Tick the items that you mean")
    return items


class Tagging(RequestBody):
    """A tag that several items get or lose."""

    tag: Annotated[Tag, BeforeValidator(_not_empty)]
    items: Annotated[list[Annotated[Id, Strict(False)]], Field(max_length=100), AfterValidator(_some)]


class Item(Audited, Versioned, Timestamped, table=True):
    """Something that is in stock, or was. Its quantity is never negative, whatever runs at once."""

    __table_args__ = (
        CheckConstraint("quantity >= 0", "quantity"),
        CheckConstraint("price_cents > 0", "price_cents"),
        Index("ix_item_low_stock", "name", sqlite_where=text(LOW_STOCK), postgresql_where=text(LOW_STOCK)),
    )
    audited: ClassVar = ("name", "price_cents", "quantity", "reorder_level", "tags")
    folds: ClassVar = {"name_key": ("name",)}

    name: str = Field(sa_type=CodePointText, index=True)
    name_key: str = Field(default="", unique=True)
    price_cents: int = Field(sa_type=BigInt)
    quantity: int = Field(default=0, sa_type=BigInt)
    reorder_level: int = Field(default=0, sa_type=BigInt)
    tags: list[str] = Field(default_factory=list, sa_type=TagList)

    @classmethod
    def warn_of_low_stock(cls, session: Session, changes: Sequence[tuple[Mapping[str, Any], dict[str, Any]]]) -> None:
        """Warn the other admins where old and new values of many items say that the stock became low."""
        notices: list[Notice] = []
        for old, new in changes:
            values = {**old, **new}
            if (
                old["quantity"] > values["reorder_level"] >= values["quantity"]
            ):  # seldom, and an item takes long to make
                notices += cls.model_construct(**values).low_stock_notice(old["quantity"])
        Notification.tell_admins(session, notices)

    @property
    def link(self) -> str:
        """Where the item is found."""
        return f"{API}/items/{self.id}"

    def change(self, session: TransactionSession, changes: dict[str, Any]) -> Self:
        """Apply an admin's changes, and warn the other admins where they make the stock low."""
        before = self.quantity
        session.change(self, changes)
        Notification.tell_admins(session, self.low_stock_notice(before))
        return self

    def take_in(self, session: TransactionSession, by: int) -> Self:
        """Add so many to the stock, or take them out where the number is negative, whatever was ordered meanwhile.

        Raises:
            NotSoMany: the stock would be less than nothing, or too much to be counted.
        """
        if self.quantity + by < 0:
            raise NotSoMany(f"Only {self.quantity:,} are left." if self.quantity else "None are left.")
        if self.quantity + by > BILLION:
            raise NotSoMany(f"At most {BILLION:,} can be in stock.")
        return self.change(session, {"quantity": self.quantity + by})

    @classmethod
    def tag_all(cls, session: TransactionSession, data: Tagging, *, remove: bool = False) -> int:
        """Give a tag to several items, or take it away; returns how many it changed.

        Raises:
            NotFound: there is no such item any more.
            TooManyTags: one of them has as many tags as it may; none is changed.
        """
        items = session.exec(ITEMS_TO_CHANGE, params={"ids": data.items}).all()
        if missing := set(data.items) - {item.id for item in items}:
            raise NotFound("item", min(missing))
        changed = [item for item in items if (data.tag in item.tags) == remove]
        for item in changed:
            item.tags = [tag for tag in item.tags if tag != data.tag] if remove else [*item.tags, data.tag]
            if len(item.tags) > MAX_TAGS:
                raise TooManyTags(f"{item.name} has {MAX_TAGS} tags, which is as many as can be.")
        session.flush()
        return len(changed)

    @classmethod
    def restock(cls, session: Session, changes: "Sequence[tuple[Item, int]]") -> None:
        """Add so many of each item to the stock, or take them out where the number is negative: all, or none of any.

        It is one statement for the items and one for their audit; no quantity goes below zero, whatever runs at once.

        Raises:
            OutOfStock: too few are left; it names every short item.
        """
        at = now()
        rows = [{"row_id": item.id, "by": by, "at": at} for item, by in changes]
        if session.connection().execute(RESTOCK, rows).rowcount < len(rows):
            raise OutOfStock((item.id, -by, item.quantity) for item, by in changes if item.quantity + by < 0)
        quantities = [(item.id, {"quantity": [item.quantity, item.quantity + by]}) for item, by in changes]
        record(session, "update", cls, quantities)
        for item, by in changes:
            set_loaded(item, {"quantity": item.quantity + by, "version": item.version + 1, "updated_at": at})

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


# Orders

OrderStatus = Literal["pending", "fulfilled", "cancelled"]
FinalStatus = Literal["fulfilled", "cancelled"]
MAX_LINES = 100
MAX_OF_ONE = 10_000
MAX_NOTE = 500


class OrderNotPending(Conflict):
    """409: only a pending order can be fulfilled or cancelled."""

    def __init__(self, status: str) -> None:
        super().__init__(f"The order is {status}; only a pending one can change.")


class PriceChanged(Conflict):
    """409: something costs more or less than the person saw who orders it."""

    detail = "A price has changed since you looked, so nothing was ordered. Look at it, and place the order again."


class ItemHasOrders(Conflict):
    """409: the item is part of an order."""

    constraint = "fk_order_line_item_id"
    detail = "This item was ordered before and cannot be deleted; set its quantity to 0 instead."


class UserHasOrders(Conflict):
    """409: the account placed orders."""

    constraint = "fk_order_user_id"
    detail = "This account has orders and cannot be deleted; deactivate it instead."


class OrderLineCreate(RequestBody):
    """How many of which item."""

    item_id: Id
    quantity: Annotated[int, Field(ge=1, le=MAX_OF_ONE)]


def _one_line_an_item(lines: list[OrderLineCreate]) -> list[OrderLineCreate]:
    if len({line.item_id for line in lines}) < len(lines):
        raise ValueError("No item may stand in two lines")
    return lines


class OrderCreate(RequestBody):
    """A new order."""

    lines: Annotated[
        list[OrderLineCreate], Field(min_length=1, max_length=MAX_LINES), AfterValidator(_one_line_an_item)
    ]
    note: Annotated[str, Field(max_length=MAX_NOTE)] | None = None


class OrderUpdate(RequestBody):
    """What becomes of a pending order."""

    status: FinalStatus


class OrdersToFulfil(RequestBody):
    """Orders that are to be fulfilled together."""

    orders: Annotated[list[Id], Field(max_length=100)]


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


class Order(Audited, Versioned, Timestamped, table=True):
    """What somebody ordered. Its stock is taken when it is placed, and put back when it is cancelled."""

    __table_args__ = (
        CheckConstraint("status IN ('pending', 'fulfilled', 'cancelled')", "status"),
        Index("ix_order_created_at", text("created_at DESC"), "id"),
        Index("ix_order_user_id_created_at", "user_id", text("created_at DESC"), "id"),
    )
    audited: ClassVar = ("user_id", "status", "total_cents", "note")

    user_id: int = Field(foreign_key="user.id", sa_type=BigInt)
    status: str = "pending"
    total_cents: int = Field(default=0, sa_type=BigInt)
    note: str | None = None

    lines: list[OrderLine] = Relationship(
        cascade_delete=True, sa_relationship_kwargs={"lazy": "selectin", "order_by": "OrderLine.position"}
    )

    @property
    def link(self) -> str:
        """Where the order is found."""
        return f"{API}/orders/{self.id}"

    @classmethod
    def visible_to(cls, user: Principal) -> SelectOfScalar["Order"]:
        """The orders that `user` may see: their own, or all of them for an admin."""
        return select(Order) if user.is_admin else select(Order).where(Order.user_id == user.id)

    @classmethod
    def place(cls, session: TransactionSession, user: Principal, data: OrderCreate) -> Self:
        """Take the stock of all lines, or of none, and tell the admins.

        Raises:
            NotFound: there is no such item.
            OutOfStock: too few are left; it names every short item.
        """
        wanted = {line.item_id: line.quantity for line in data.lines}
        items = {item.id: item for item in session.exec(ITEMS_TO_CHANGE, params={"ids": list(wanted)})}
        if unknown := [item_id for item_id in wanted if item_id not in items]:
            raise NotFound("item", unknown[0])
        Item.restock(session, [(item, -wanted[item.id]) for item in items.values()])
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
        order = session.insert(cls(user_id=user.id, lines=lines, total_cents=total_cents, note=data.note))
        notices = [Notice("order_placed", f"{user.full_name} placed order {order.id}.", order.link)]
        for item in items.values():
            notices += item.low_stock_notice(item.quantity + wanted[item.id])
        Notification.tell_admins(session, notices)
        return order

    def close(self, session: Session, status: FinalStatus) -> Self:
        """Mark a pending order as delivered, or cancel it, which puts its stock back.

        Raises:
            OrderNotPending: it was fulfilled or cancelled before.
        """
        if self.status != "pending":
            raise OrderNotPending(self.status)
        self.status = status
        session.flush()
        if actor_of(session) != self.user_id:
            notice = Notice(f"order_{status}", f"Your order {self.id} was {status}.", self.link)
            Notification.tell(session, self.user_id, notice)
        if status == "cancelled":
            ordered = {line.item_id: line.quantity for line in self.lines}
            found = session.exec(ITEMS_TO_CHANGE, params={"ids": list(ordered)})
            Item.restock(session, [(item, ordered[item.id]) for item in found])
        return self

    def require_prices(self, seen: Mapping[int, int]) -> Self:
        """The order itself; `PriceChanged` if a line has another price than was seen, by the ids of items."""
        if any(seen.get(line.item_id, line.unit_price_cents) != line.unit_price_cents for line in self.lines):
            raise PriceChanged
        return self

    @classmethod
    def fulfil_pending(cls, session: Session, ids: Iterable[int]) -> list["Order"]:
        """Fulfil those of these orders that are still pending."""
        pending = select(Order).where(col(Order.id).in_(ids), Order.status == "pending")
        return [order.close(session, "fulfilled") for order in session.exec(pending.with_for_update())]

    def audited_values(self) -> dict[str, Any]:
        """What the order says now, with its lines."""
        lines = [line.model_dump(include={"item_id", "quantity", "unit_price_cents"}) for line in self.lines]
        return super().audited_values() | {"lines": lines}


# Posts and comments

PostTitle = Annotated[str, Field(min_length=1, max_length=255)]
PostText = Annotated[str, Field(min_length=1, max_length=20_000)]
CommentText = Annotated[str, Field(min_length=1, max_length=5_000)]


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

    title: PostTitle
    content: PostText


class PostUpdate(PatchBody):
    """What its creator may change of a post."""

    title: PostTitle | None = None
    content: PostText | None = None


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

    content: CommentText


class CommentUpdate(PatchBody):
    """What its creator may change of a comment."""

    content: CommentText | None = None


class Comment(Owned, Audited, Timestamped, table=True):
    """What somebody says about a post."""

    __table_args__ = (
        Index("ix_comment_post_id", "post_id", "id"),
        Index("ix_comment_creator_id", "creator_id"),
    )
    audited: ClassVar = ("post_id", "content", "creator_id")

    post_id: int = Field(foreign_key="post.id", ondelete="CASCADE", sa_type=BigInt)
    creator_id: int = Field(foreign_key="user.id", ondelete="CASCADE", sa_type=BigInt)
    content: str

    creator: User = Relationship(sa_relationship_kwargs=JOINED)

    @property
    def creator_name(self) -> str:
        """The name of the person who wrote it."""
        return self.creator.full_name


class Post(Owned, Audited, Versioned, Timestamped, table=True):
    """A note to everybody. A comment changes neither its version nor its time."""

    __table_args__ = (Index("ix_post_creator_id", "creator_id", "id"),)
    audited: ClassVar = ("title", "content", "creator_id")
    folds: ClassVar = {"search_key": ("title", "content")}

    creator_id: int = Field(foreign_key="user.id", ondelete="CASCADE", sa_type=BigInt)
    title: str
    content: str
    search_key: str = ""

    creator: User = Relationship(sa_relationship_kwargs=JOINED)

    if TYPE_CHECKING:
        comment_count: int  # a subquery, mapped below

    @classmethod
    def shown(cls) -> SelectOfScalar["Post"]:
        """Posts, without the copy of their text that only searching needs."""
        return select(Post).options(defer(cast(QueryableAttribute[str], Post.search_key)))

    @property
    def creator_name(self) -> str:
        """The name of the person who wrote it."""
        return self.creator.full_name

    @property
    def shown_beside(self) -> str:
        """What an answer shows beyond the row."""
        return f"{self.comment_count} {self.creator_name}"

    @property
    def link(self) -> str:
        """Where the post is found."""
        return f"{API}/posts/{self.id}"

    def comment(self, session: TransactionSession, user: Principal, data: CommentCreate) -> Comment:
        """Add a comment, and tell the creator of the post unless it is their own."""
        comment = session.insert(Comment.model_validate(data, update={"post_id": self.id, "creator_id": user.id}))
        if user.id != self.creator_id:
            link = f"{self.link}/comments/{comment.id}"
            Notification.tell(session, self.creator_id, Notice("comment", f"{user.full_name} on {self.title!r}.", link))
        return comment


comments = select(func.count()).where(col(Comment.post_id) == Post.id).correlate_except(Comment)
sa_inspect(Post).add_property("comment_count", column_property(comments.scalar_subquery()))


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


def _boolean(value: object) -> object:
    if not isinstance(value, bool):  # 1 equals True, which is all that a Literal asks for
        raise PydanticCustomError("bool_type", "Input should be a valid boolean")
    return value


class AllNotificationsUpdate(RequestBody):
    """All of them were read."""

    read: Annotated[Literal[True], BeforeValidator(_boolean)]


@dataclass(frozen=True)
class Notice:
    """What there is to tell."""

    kind: str
    message: str
    link: str


class Notification(Entity, table=True):
    """Something that one person should know; written in the transaction that it tells of."""

    __table_args__ = (
        Index("ix_notification_user_id", "user_id", "id"),
        Index("ix_notification_user_id_read_at", "user_id", "read_at", "id"),
    )

    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", sa_type=BigInt)
    kind: str
    message: str
    link: str
    read_at: datetime | None = None
    created_at: datetime = Field(default_factory=now)

    @classmethod
    def expired(cls) -> ColumnElement[bool]:
        """What was read a year ago."""
        return col(cls.read_at) < now() - timedelta(days=365)

    @classmethod
    def tell(cls, session: Session, user_id: int, notice: Notice) -> None:
        """Tell one person."""
        session.add(cls(user_id=user_id, **asdict(notice)))

    @classmethod
    def tell_admins(cls, session: Session, notices: Sequence[Notice]) -> None:
        """Tell every active admin but the one who caused it: one statement, however many there are."""
        if notices:
            actor_id = actor_of(session) or 0
            session.connection().execute(TELL_ADMINS, [asdict(notice) | {"actor_id": actor_id} for notice in notices])

    def mark(self, *, read: bool) -> Self:
        """Mark it as read, at the time of the first reading, or as unread."""
        self.read_at = (self.read_at or now()) if read else None
        return self


UNREAD = select(func.count()).where(col(Notification.user_id) == User.id, col(Notification.read_at).is_(None))
LIVING_VISITOR = LIVING_PRINCIPAL.add_columns(UNREAD.scalar_subquery())
TELL_ADMINS = insert(Notification).from_select(
    ["user_id", "kind", "message", "link"],
    select_columns(col(User.id), *(bindparam(name, type_=String) for name in ("kind", "message", "link")))
    .where(col(User.role) == "admin", col(User.is_active), col(User.id) != bindparam("actor_id"))
    # who is being deleted at this moment is gone, or stays until the notification is there
    .with_for_update(read=True, key_share=True),
)
