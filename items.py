"""The routes of the stock."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field
from sqlmodel import col, not_
from sqlmodel.sql.expression import SelectOfScalar

from callers import AdminUser, CurrentUser
from kit.db import ReadSession, WriteSession
from kit.errors import problems
from kit.lists import Digits, Filters, IfMatch, Page, PageOf, Paging, SearchText, order_by, plain, remembered, sortable
from kit.problems import ItemHasOrders, ItemNameTaken
from kit.routing import Router
from models import BIGGEST_ID, Id, Item, ItemCreate, ItemPublic, ItemUpdate, Tag, folded

router = Router(prefix="/api/v1/items", tags=["items"])

AnyCents = Annotated[int, Field(ge=0, le=BIGGEST_ID), Digits]


class ItemFilters(Filters):
    """Which items to list, and in which order."""

    q: SearchText = ""
    tag: tuple[Tag, ...] = Field(default=(), max_length=10, description="Items that have all of these tags.")
    min_price_cents: AnyCents | None = None
    max_price_cents: AnyCents | None = None
    in_stock: bool | None = Field(default=None, description="Whether any are left.")
    low_stock: bool | None = Field(default=None, description="Whether quantity ≤ reorder_level.")
    sort: Annotated[str, sortable("name", "price_cents", "quantity", "created_at", "updated_at")] = "name"

    @remembered
    def items(self) -> SelectOfScalar[Item]:
        """The items that pass, in their order."""
        items = plain(Item).where(*(Item.has_tag(tag) for tag in self.tag))
        if self.q:
            items = items.where(col(Item.name_key).contains(folded(self.q), autoescape=True))
        if self.min_price_cents is not None:
            items = items.where(Item.price_cents >= self.min_price_cents)
        if self.max_price_cents is not None:
            items = items.where(Item.price_cents <= self.max_price_cents)
        if self.in_stock is not None:
            items = items.where((col(Item.quantity) > 0) == self.in_stock)
        if self.low_stock is not None:
            is_low = col(Item.quantity) <= col(Item.reorder_level)
            items = items.where(is_low if self.low_stock else not_(is_low))
        return items.order_by(*order_by(Item, self.sort))


@router.get("", response_model=PageOf[ItemPublic])
def list_items(
    page: Paging, filters: Annotated[ItemFilters, Query()], user: CurrentUser, session: ReadSession
) -> Page[Item]:
    """List the stock; `q` is a part of the name, without case."""
    return page.of(session, filters.items())


@router.post("", status_code=201, response_model=ItemPublic, responses=problems(ItemNameTaken))
def create_item(response: Response, data: ItemCreate, admin: AdminUser, session: WriteSession) -> Item:
    """Add an item to the stock."""
    item = Item.model_validate(data)
    session.add(item)
    session.flush()
    response.headers["Location"] = item.link
    return item


@router.get("/{item_id}", response_model=ItemPublic)
def get_item(item_id: Id, user: CurrentUser, session: ReadSession) -> Item:
    """Show one item."""
    return session.get_one(Item, item_id)


@router.patch("/{item_id}", response_model=ItemPublic, responses=problems(ItemNameTaken))
def update_item(
    item_id: Id, data: ItemUpdate, admin: AdminUser, session: WriteSession, if_match: IfMatch = None
) -> Item:
    """Change an item: its name, its price, its tags, or how many there are."""
    item = session.get_one(Item, item_id, with_for_update=True).require_version(if_match)
    return item.change(session, data.changes())


@router.delete("/{item_id}", status_code=204, responses=problems(ItemHasOrders))
def delete_item(item_id: Id, admin: AdminUser, session: WriteSession, if_match: IfMatch = None) -> None:
    """Delete an item that was never ordered."""
    session.get_one(Item, item_id, with_for_update=True).require_version(if_match).remove(session)
