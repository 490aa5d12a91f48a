"""The stock: its routes, and its CSV."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import Form, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlmodel import col, not_
from sqlmodel.sql.expression import SelectOfScalar

from auth import AdminUser, CurrentUser
from kit.audit import refusals
from kit.db import ReadSession, WriteSession
from kit.errors import problems
from kit.lists import (
    Filters,
    IfMatch,
    Page,
    PageOf,
    Paging,
    SearchText,
    cached_statement,
    contains,
    order_by,
    rows_of,
    sortable,
)
from kit.models import BIGGEST_ID, Digits, Id, folded
from kit.routing import Prepared, ReadsIf, Router
from kit.spreadsheets import (
    CSV,
    FORM_OVERHEAD,
    MAX_BYTES,
    Export,
    ImportForm,
    ImportReport,
    Records,
    import_records,
    read_records,
)
from models import (
    Cents,
    Item,
    ItemCreate,
    ItemName,
    ItemNameTaken,
    ItemPublic,
    ItemUpdate,
    Quantity,
    Tag,
    Tags,
)
from settings import API

router = Router(prefix=f"{API}/items", tags=["items"])

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

    @cached_statement
    def items(self) -> SelectOfScalar[Item]:
        """The items that pass, in their order."""
        items = rows_of(Item).where(*(Item.has_tag(tag) for tag in self.tag))
        if self.q:
            items = items.where(contains(col(Item.name_key), folded(self.q)))
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
    item = session.insert(Item.model_validate(data))
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
    item = session.get_one(Item, item_id).require_version(if_match)
    return item.change(session, data.changes())


@router.delete("/{item_id}", status_code=204, responses=problems(*refusals(Item)))
def delete_item(item_id: Id, admin: AdminUser, session: WriteSession, if_match: IfMatch = None) -> None:
    """Delete an item that was never ordered."""
    session.delete(session.get_one(Item, item_id).require_version(if_match))


# CSV

Stripped = BeforeValidator(str.strip)


class ItemRow(BaseModel):
    """One record of a file; a column that the file does not have stays unset."""

    model_config = ConfigDict(str_strip_whitespace=True)

    name: ItemName
    price_cents: Annotated[Cents, Digits, Stripped]
    quantity: Annotated[Quantity, Digits, Stripped] = 0
    reorder_level: Annotated[Quantity, Digits, Stripped] = 0
    tags: Tags = []


def _records(_: Request, form: ImportForm) -> Callable[[], Records]:
    return partial(read_records, form, ItemRow, "name")


@router.get("/export", response_class=Response, responses=CSV)
def export_items(request: Request, admin: AdminUser, session: ReadSession) -> StreamingResponse:
    """Download the stock as CSV.

    Cells that a spreadsheet would take for a formula begin with `'`; an import takes it away again. It is read in
    steps, so an item that changes meanwhile is in it as it was or as it became.
    """
    return Export(request.app.state.database, Item, ItemRow).response("items.csv")


@router.post("/import", max_body_size=MAX_BYTES + FORM_OVERHEAD)
def import_items(
    form: Annotated[ImportForm, Form(media_type="multipart/form-data")],
    records: Annotated[Records, Prepared(_records)],
    admin: AdminUser,
    session: Annotated[WriteSession, ReadsIf("dry_run")],
    dry_run: Annotated[bool, Query(description="Only say what would happen.")] = False,
) -> ImportReport:
    """Upload a CSV file (UTF-8, `,` or `;`) of at most 16 MiB and 100,000 rows, matched by name without case.

    All or nothing: with any error nothing is written. `name` and `price_cents` are required, the other columns may be
    missing. At most 1,000 errors are reported.
    """
    warn = partial(Item.warn_of_low_stock, session)
    return import_records(session, Item, ItemRow, "name", records, dry_run=dry_run, after_change=warn)
