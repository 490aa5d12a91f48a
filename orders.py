"""The routes of orders; the rules of ordering are at `models.Order`."""

from typing import Annotated

from fastapi import Header, Query, Response
from sqlmodel.sql.expression import SelectOfScalar

from callers import CurrentUser
from kit.db import ReadSession, WriteSession
from kit.errors import documented_not_found, problems
from kit.lists import Filters, IfMatch, Page, PageOf, Paging, order_by, remembered, sortable
from kit.problems import Forbidden, IdempotencyKeyReused, OrderNotPending, OutOfStock
from kit.routing import Router
from models import Id, IdempotencyKey, Order, OrderCreate, OrderPublic, OrderStatus, OrderUpdate, Principal

router = Router(prefix="/api/v1/orders", tags=["orders"])

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern="^[!-~]{1,255}$",
        description="A text of your own: the same key with the same body orders once and is answered again.",
    ),
]


class OrderFilters(Filters):
    """Which orders to list, and in which order."""

    status: OrderStatus | None = None
    user_id: Id | None = None
    sort: Annotated[str, sortable("created_at", "total_cents")] = "-created_at"

    @remembered
    def orders(self, user: Principal) -> SelectOfScalar[Order]:
        """The orders that pass and that `user` may see, in their order."""
        orders = Order.visible_to(user)
        if self.user_id is not None:
            orders = orders.where(Order.user_id == self.user_id)
        if self.status is not None:
            orders = orders.where(Order.status == self.status)
        return orders.order_by(*order_by(Order, self.sort))


@router.get("", response_model=PageOf[OrderPublic], responses=problems(Forbidden))
def list_orders(
    page: Paging, filters: Annotated[OrderFilters, Query()], user: CurrentUser, session: ReadSession
) -> Page[Order]:
    """List one's own orders; admins see all of them, and may ask by `user_id`."""
    if filters.user_id is not None:
        user.require_admin()
    return page.of(session, filters.orders(user))


@router.post(
    "",
    status_code=201,
    response_model=OrderPublic,
    responses=problems(OutOfStock, IdempotencyKeyReused) | documented_not_found("item"),
)
def place_order(
    response: Response,
    data: OrderCreate,
    user: CurrentUser,
    session: WriteSession,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Order | Response:
    """Order items: the stock of all lines is taken, or of none."""
    kept = IdempotencyKey.claim(session, user, idempotency_key, data) if idempotency_key else None
    if kept and kept.answer:
        return kept.replay()
    order = Order.place(session, user, data)
    if kept:
        kept.keep(order)
    response.headers["Location"] = order.link
    return order


@router.get("/{order_id}", response_model=OrderPublic)
def get_order(order_id: Id, user: CurrentUser, session: ReadSession) -> Order:
    """Show one order, to its owner and to admins."""
    return session.exec(Order.visible_to(user).where(Order.id == order_id)).one()


@router.patch("/{order_id}", response_model=OrderPublic, responses=problems(Forbidden, OrderNotPending))
def update_order(
    order_id: Id, data: OrderUpdate, user: CurrentUser, session: WriteSession, if_match: IfMatch = None
) -> Order:
    """Fulfil a pending order (admins), or cancel it (its owner and admins), which puts the stock back."""
    order = session.exec(Order.visible_to(user).where(Order.id == order_id).with_for_update()).one()
    if data.status == "fulfilled":
        user.require_admin()
    order.require_version(if_match)
    return order.fulfil(session) if data.status == "fulfilled" else order.cancel(session)
