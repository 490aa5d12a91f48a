"""The routes of orders; the rules of ordering are at `models.Order`."""

from typing import Annotated

from fastapi import Query, Response
from sqlmodel.sql.expression import SelectOfScalar

from auth import CurrentUser
from kit.db import ReadSession, WriteSession
from kit.errors import documented_not_found, problems
from kit.idempotency import IdempotencyKeyHeader
from kit.lists import Filters, IfMatch, Page, PageOf, Paging, cached_statement, order_by, sortable
from kit.models import Id
from kit.problems import Forbidden
from kit.routing import Router
from models import Order, OrderCreate, OrderNotPending, OrderPublic, OrderStatus, OrderUpdate, OutOfStock, Principal
from settings import API

router = Router(prefix=f"{API}/orders", tags=["orders"])


class OrderFilters(Filters):
    """Which orders to list, and in which order."""

    status: OrderStatus | None = None
    user_id: Id | None = None
    sort: Annotated[str, sortable("created_at", "total_cents")] = "-created_at"

    @cached_statement
    def orders(self, user: Principal) -> SelectOfScalar[Order]:
        """The orders that pass and that `user` may see, in their order."""
        chosen = self.model_dump(include={"user_id", "status"}, exclude_none=True)
        return Order.visible_to(user).filter_by(**chosen).order_by(*order_by(Order, self.sort))


@router.get("", response_model=PageOf[OrderPublic], responses=problems(Forbidden))
def list_orders(
    page: Paging, filters: Annotated[OrderFilters, Query()], user: CurrentUser, session: ReadSession
) -> Page[Order]:
    """List one's own orders; admins see all of them, and may ask by `user_id`."""
    if filters.user_id is not None:
        user.require_admin()
    return page.of(session, filters.orders(user))


@router.post(
    "", status_code=201, response_model=OrderPublic, responses=problems(OutOfStock) | documented_not_found("item")
)
def place_order(
    response: Response,
    data: OrderCreate,
    user: CurrentUser,
    session: WriteSession,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Order:
    """Order items: the stock of all lines is taken, or of none."""
    order = Order.place(session, user, data)
    response.headers["Location"] = order.link
    return order


@router.get("/{order_id}", response_model=OrderPublic)
def get_order(order_id: Id, user: CurrentUser, session: ReadSession) -> Order:
    """Show one order, to its owner and to admins."""
    return session.get_one(Order, order_id, among=Order.visible_to(user))


@router.patch("/{order_id}", response_model=OrderPublic, responses=problems(Forbidden, OrderNotPending))
def update_order(
    order_id: Id, data: OrderUpdate, user: CurrentUser, session: WriteSession, if_match: IfMatch = None
) -> Order:
    """Fulfil a pending order (admins), or cancel it (its owner and admins), which puts the stock back."""
    order = session.get_one(Order, order_id, among=Order.visible_to(user))
    if data.status == "fulfilled":
        user.require_admin()
    order.require_version(if_match)
    return order.close(session, data.status)
