"""The routes and the pages of orders; the rules of ordering are at `models.Order`."""

import re
from collections.abc import Sized
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from audit import history_of
from auth import AdminUser, CurrentUser
from items import basket_of, with_basket
from kit.db import ReadSession, TransactionSession, WriteSession
from kit.errors import documented_not_found, problems
from kit.forms import Field, Sent, SentForm
from kit.idempotency import IdempotencyKey, IdempotencyKeyHeader, request_hash
from kit.lists import Filters, IfMatch, Page, PageOf, Paging, cached_statement, order_by, sortable
from kit.models import BIGGEST_ID, Id, digest
from kit.pages import Menu, PageRouter, See, Template
from kit.problems import Forbidden, Invalid, Problem
from kit.routing import Router
from kit.visits import visit_of
from models import (
    MAX_LINES,
    MAX_NOTE,
    MAX_OF_ONE,
    Item,
    Order,
    OrderCreate,
    OrderNotPending,
    OrderPublic,
    OrderStatus,
    OrdersToFulfil,
    OrderUpdate,
    OutOfStock,
    Principal,
    User,
)
from settings import API

router = Router(prefix=f"{API}/orders", tags=["orders"])
pages = PageRouter(Menu("Orders", "/orders", "orders"))


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


# Pages

ROW_ID = re.compile("[1-9][0-9]{0,18}")
COUNT = re.compile("[0-9]{0,5}")
# What these problems mean to somebody who looks at what they are about to order.
SAID = {
    "ITEM_NOT_FOUND": "Something in your order is not there any more. It was taken out; look at the rest once more.",
    "IDEMPOTENCY_KEY_REUSED": "You have placed this order already. Place it again only if you want it twice.",
}


@pages.post("/cart", shown_on="/items")
def fill_basket(request: Request, sent: SentForm, user: CurrentUser) -> See:
    """Take over the quantities of a form; lines that are not in it stay as they are."""
    basket = _changed(basket_of(request, user), quantities_in(sent))
    if sent.text("next") == "/order":
        return with_basket(See("/order"), user, basket)
    said = "" if basket else "There is nothing in your order now."
    return with_basket(See(sent.path("back", "/items"), said), user, basket)


@pages.get("/order")
def show_review(request: Request, user: CurrentUser, session: ReadSession, note: str = "") -> Template:
    """Show what is about to be ordered, at the prices of now; `note` is what was typed already."""
    visit = visit_of(request)
    sent = visit.sent or Sent([(f"quantity-{id_}", str(count)) for id_, count in basket_of(request, user).items()])
    review = Review.of(session, sent, visit.problem, note)
    return Template("orders/review.html", review=review, key=token_urlsafe(16), alert=review.alert)


@pages.post("/order")
def place_reviewed_order(
    request: Request, sent: SentForm, user: CurrentUser, session: WriteSession, update: bool = False
) -> See:
    """Place the order that the review shows, once however often it is sent; with `update` only show it anew."""
    basket = basket_of(request, user)
    if update:
        path = f"/order?{urlencode({'note': note[:MAX_NOTE]})}" if (note := sent.text("note")) else "/order"
        return with_basket(See(path), user, _changed(basket, quantities_in(sent)))
    path = _place_once(sent, user, session)
    see = See(path, f"Order {path.rpartition('/')[2]} was placed.")
    return with_basket(see, user, _changed(basket, dict.fromkeys(quantities_in(sent), 0)))


@pages.get("/orders")
def show_orders(
    page: Paging, filters: Annotated[OrderFilters, Query()], user: CurrentUser, session: ReadSession
) -> Template:
    """List one's own orders; admins see all of them, and who placed them."""
    orders = list_orders(page, filters, user, session)
    people = [filters.user_id, *(order.user_id for order in orders.items)]
    names = User.names(session, people) if user.is_admin else {}
    return Template("orders/list.html", orders=orders, filters=filters, names=names)


@pages.post("/orders")
def fulfil_orders(sent: SentForm, admin: AdminUser, session: WriteSession) -> See:
    """Fulfil the orders that were ticked; those that somebody else closed meanwhile stay as they are."""
    ticked = [int(text) for text in sent.texts("order") if ROW_ID.fullmatch(text) and int(text) <= BIGGEST_ID]
    wanted = {*sent.checked(OrdersToFulfil, {"orders": ticked}).orders}
    count, back = len(Order.fulfil_pending(session, wanted)), sent.path("back", "/orders")
    return See(back, _what_was_fulfilled(count, wanted), wrong=not wanted or count < len(wanted))


def _what_was_fulfilled(count: int, wanted: set[int]) -> str:
    if not wanted:
        return "Tick the orders that you want to fulfil."
    said = f"{count or 'No'} {'order was' if count == 1 else 'orders were'} fulfilled."
    return said if count == len(wanted) else f"{said} What else you ticked was not pending any more."


@pages.get("/orders/{order_id}")
def show_order(order_id: Id, user: CurrentUser, session: ReadSession) -> Template:
    """Show one order, to its owner and to admins, who also see its history."""
    order = get_order(order_id, user, session)
    owner = User.names(session, [order.user_id])[order.user_id]
    history = history_of(session, Order, order.id) if user.is_admin else []
    return Template("orders/order.html", order=order, owner=owner, history=history)


@pages.post("/orders/{order_id}")
def close_order(order_id: Id, sent: SentForm, user: CurrentUser, session: WriteSession) -> See:
    """Fulfil a pending order, or cancel it. Its status is all that changes of an order, so it stands for a version."""
    order = update_order(order_id, sent.read(OrderUpdate), user, session)
    path = f"/orders/{order.id}"
    back = sent.path("back", "/orders") if sent.has("back") else path
    return See(back, f"Order {order.id} was {order.status}.", link="" if back == path else path)


# What is about to be ordered


def quantities_in(sent: Sent) -> dict[int, int]:
    """What was typed into the fields `quantity-<item id>`; an empty one means none.

    Raises:
        Invalid: something else than a whole number was typed, or too large a one; it names every such field.
    """
    typed = {name: sent.text(name).strip() for name in _quantity_fields(sent)}
    wrong = [name for name, text in typed.items() if not _is_quantity(text)]
    if sent.is_wrong:
        raise Invalid([{"loc": ("body",), "msg": "There is a character in it that cannot be stored", "type": "nul"}])
    if wrong:
        said = f"Enter a whole number from 1 to {MAX_OF_ONE:,}"
        raise Invalid([{"loc": ("body", name), "msg": said, "type": "quantity"} for name in wrong])
    return {_quantity_fields(sent)[name]: int(text or 0) for name, text in typed.items()}


def _quantity_fields(sent: Sent) -> dict[str, int]:
    """The ids of the items by the names of their fields."""
    ids = {name: name.removeprefix("quantity-") for name in sent.parts if name.startswith("quantity-")}
    return {name: int(id_) for name, id_ in ids.items() if ROW_ID.fullmatch(id_) and int(id_) <= BIGGEST_ID}


def _is_quantity(text: str) -> bool:
    return COUNT.fullmatch(text) is not None and int(text or 0) <= MAX_OF_ONE


def _changed(basket: dict[int, int], quantities: dict[int, int]) -> dict[int, int]:
    """The basket with these quantities; none takes a line out.

    Raises:
        Invalid: that are too many lines for one order.
    """
    basket = {item_id: quantity for item_id, quantity in (basket | quantities).items() if quantity}
    _require_at_most(basket)
    return basket


def _require_at_most(lines: Sized) -> None:
    if len(lines) > MAX_LINES:
        said = f"An order has at most {MAX_LINES} lines; place one with some of them first"
        raise Invalid([{"loc": ("body", "lines"), "msg": said, "type": "too_long"}])


def _place_once(sent: Sent, user: Principal, session: TransactionSession) -> str:
    """Place the order that a form has, or find the one that came of the same form before; returns the path of its page.

    Raises:
        Invalid: nothing is wanted, or too much.
        PriceChanged: a price is not the one that the form showed.
        Problem: the order cannot be placed.
    """
    lines = [
        {"item_id": item_id, "quantity": quantity} for item_id, quantity in quantities_in(sent).items() if quantity
    ]
    _require_at_most(lines)
    if not lines:
        raise Invalid([{"loc": ("body", "lines"), "msg": "Enter how many you want", "type": "too_short"}])
    data = sent.checked(OrderCreate, {"lines": lines, "note": sent.text("note").strip() or None})
    same = request_hash("POST", "/order", [data])
    kept = IdempotencyKey.claim(session, user.id, digest(sent.text("key") or token_urlsafe(16)), same)
    if not kept.status:
        order = Order.place(session, user, data).require_prices(_prices_in(sent))
        kept.keep(See(f"/orders/{order.id}"))
    return kept.headers["location"]


def _prices_in(sent: Sent) -> dict[int, int]:
    """The prices that somebody saw, by the ids of items, in cents."""
    seen = {item_id: sent.text(f"price-{item_id}") for item_id in _quantity_fields(sent).values()}
    return {item_id: int(text) for item_id, text in seen.items() if ROW_ID.fullmatch(text)}


@dataclass
class ReviewedLine:
    """A line of what is about to be ordered: the item as it is now, and what stands in the field."""

    item: Item
    typed: str
    seen_cents: int | None
    error: str = ""

    @property
    def quantity(self) -> int:
        """How many are wanted; none where that cannot be read."""
        return int(self.typed or 0) if _is_quantity(self.typed) else 0

    @property
    def is_short(self) -> bool:
        """Whether fewer are left."""
        return self.quantity > self.item.quantity

    @property
    def has_new_price(self) -> bool:
        """Whether somebody saw another price before."""
        return self.seen_cents not in (None, self.item.price_cents)

    @property
    def total_cents(self) -> int:
        """What the line costs."""
        return self.quantity * self.item.price_cents


@dataclass
class Review:
    """What is about to be ordered, as it is now."""

    lines: list[ReviewedLine]
    note: Field
    gone: int
    """How many of its items are not there any more."""
    alert: str = ""

    @property
    def total_cents(self) -> int:
        """What the order costs."""
        return sum(line.total_cents for line in self.lines)

    @classmethod
    def of(cls, session: Session, sent: Sent, problem: Problem | None, note: str) -> "Review":
        """What a form has, or the basket as if it were one; one statement."""
        fields, prices = _quantity_fields(sent), _prices_in(sent)
        items = {item.id: item for item in session.exec(select(Item).where(col(Item.id).in_(fields.values())))}
        found = problem.errors if isinstance(problem, Invalid) else []
        errors = {error["loc"][-1]: error["msg"] for error in found}
        lines = [
            ReviewedLine(items[item_id], sent.text(name).strip(), prices.get(item_id), errors.get(name, ""))
            for name, item_id in fields.items()
            if item_id in items
        ]
        text = sent.text("note", note)
        shown = Field("note", "Note", "textarea", text, error=errors.get("note", ""), max_length=MAX_NOTE)
        alert = SAID.get(problem.code, problem.said) if problem else ""
        return cls(lines, shown, len(fields) - len(lines), alert)
