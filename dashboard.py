"""The dashboard: what somebody sees first, in at most six statements, and its page, in two more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy import select as select_columns
from sqlalchemy.orm import Mapped
from sqlmodel import Session, SQLModel, col, desc, func, select

from auth import CurrentUser
from kit.db import ReadSession
from kit.models import now
from kit.pages import Menu, PageRouter, Template
from kit.routing import Router
from models import Item, ItemPublic, Notification, Order, OrderPublic, Principal, User, UserPublic
from settings import API

router = Router(prefix=f"{API}/dashboard", tags=["dashboard"])
pages = PageRouter(Menu("Dashboard", "/", "chart"))

DAYS = 30
MILLION = 1_000_000


class StockSummary(SQLModel):
    """The stock at a glance."""

    items: int
    units: int
    value_cents: int
    low_stock_count: int
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


@router.get("")
def get_dashboard(user: CurrentUser, session: ReadSession) -> Dashboard:
    """Show what somebody sees first: members their own orders, admins all of them. Days begin at midnight UTC."""
    unread, stock = _counts(session, user)
    recent = session.exec(Order.visible_to(user).order_by(desc(Order.created_at), col(Order.id)).limit(5))
    return Dashboard(
        profile=UserPublic.model_validate(user),
        unread_notifications=unread,
        recent_orders=[OrderPublic.model_validate(order) for order in recent],
        stock=stock,
        orders_per_day=_orders_per_day(session, user),
    )


@pages.get("/")
def show_dashboard(user: CurrentUser, session: ReadSession) -> Template:
    """Show what somebody sees first: what waits for them, then the figures, and what is new."""
    dashboard, waiting = get_dashboard(user, session), Waiting.for_(session, user)
    people = [order.user_id for order in (*dashboard.recent_orders, *waiting.oldest)]
    names = User.names(session, people) if user.is_admin and people else {}
    return Template("dashboard/home.html", dashboard=dashboard, waiting=waiting, names=names)


@dataclass
class Waiting:
    """The pending orders: how many there are, and the oldest ones."""

    count: int
    oldest: Sequence[Any]

    @classmethod
    def for_(cls, session: Session, user: Principal) -> "Waiting":
        """Those of a member, or everybody's for an admin; one statement."""
        columns = (col(Order.id), col(Order.user_id), col(Order.created_at), func.count().over().label("pending"))
        pending = select_columns(*columns).where(col(Order.status) == "pending")
        if not user.is_admin:
            pending = pending.where(col(Order.user_id) == user.id)
        oldest = session.connection().execute(pending.order_by(col(Order.created_at), col(Order.id)).limit(3)).all()
        return cls(oldest[0].pending if oldest else 0, oldest)


def _counts(session: Session, user: Principal) -> tuple[int, StockSummary]:
    """All the numbers that need no list of their own, in one statement."""
    unread = select(func.count()).where(Notification.user_id == user.id, col(Notification.read_at).is_(None))
    value_cents = col(Item.price_cents) * col(Item.quantity)
    is_low = col(Item.quantity) <= col(Item.reorder_level)
    low_count = select(func.count()).where(is_low).scalar_subquery()
    counted = select_columns(
        unread.scalar_subquery(), low_count, func.count(col(Item.id)), func.sum(Item.quantity), *_exact_sum(value_cents)
    )
    unread_count, low_stock_count, items, units, *value = session.connection().execute(counted).one()
    low = session.exec(select(Item).where(is_low).order_by(col(Item.name), col(Item.id)).limit(10))
    summary = StockSummary(
        items=items,
        units=int(units or 0),
        value_cents=_whole(*value),
        low_stock_count=low_stock_count,
        low_stock=[ItemPublic.model_validate(item) for item in low],
    )
    return unread_count, summary


def _orders_per_day(session: Session, user: Principal) -> list[DaySummary]:
    """The last days, those without an order included; one statement, grouped by the date in UTC."""
    today = now().replace(hour=0, minute=0, second=0, microsecond=0)
    days = [(today - timedelta(days=back)).date() for back in reversed(range(DAYS))]
    day = func.date(Order.created_at)
    counted = select_columns(day, func.count(), *_exact_sum(col(Order.total_cents)))
    counted = counted.where(col(Order.created_at) >= today - timedelta(days=DAYS - 1), col(Order.status) != "cancelled")
    if not user.is_admin:
        counted = counted.where(col(Order.user_id) == user.id)
    rows = session.connection().execute(counted.group_by(day))
    found = {str(date): (count, _whole(*total)) for date, count, *total in rows}
    summaries = [(date, *found.get(date.isoformat(), (0, 0))) for date in days]
    return [DaySummary(date=date, count=count, total_cents=total) for date, count, total in summaries]


def _exact_sum(cents: ColumnElement[int] | Mapped[int]) -> tuple[Any, Any]:
    """A sum in two parts: SQLite refuses one that passes 2^63, which a few absurd prices reach."""
    return func.sum(cents // MILLION), func.sum(cents % MILLION)


def _whole(millions: int | None, rest: int | None) -> int:
    return int(millions or 0) * MILLION + int(rest or 0)
