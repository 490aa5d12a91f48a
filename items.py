"""The stock: its routes, its CSV, and its pages, with the basket that the list of items fills."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import Form as FormBody
from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy import bindparam
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, not_
from sqlmodel.sql.expression import SelectOfScalar

from audit import history_of
from auth import AdminUser, CurrentUser
from kit.audit import refusals
from kit.db import ReadSession, WriteSession
from kit.errors import problems
from kit.forms import Form, Sent, SentForm
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
from kit.pages import Menu, PageRouter, See, Template
from kit.previews import SHOWN, CheckedFile, Preview, Upload, WaitingFile, checked_file
from kit.routing import Prepared, ReadsIf, Router
from kit.spreadsheets import (
    CSV,
    FORM_OVERHEAD,
    MAX_BYTES,
    Export,
    ImportForm,
    ImportReport,
    Records,
    error_list,
    import_records,
    read_records,
)
from kit.visits import back_to, cookie, visit_of
from models import (
    Cents,
    Delivery,
    Item,
    ItemCreate,
    ItemName,
    ItemNameTaken,
    ItemPublic,
    ItemUpdate,
    Principal,
    Quantity,
    Tag,
    Tagging,
    Tags,
)
from settings import API

router = Router(prefix=f"{API}/items", tags=["items"])
pages = PageRouter(Menu("Items", "/items", "box"))

PRICES = select_columns(col(Item.id), col(Item.price_cents)).where(col(Item.id).in_(bindparam("ids", expanding=True)))
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
    return partial(read_records, form.file.file, form.file.size or 0, ItemRow, "name")


@router.get("/export", response_class=Response, responses=CSV)
def export_items(request: Request, admin: AdminUser, session: ReadSession) -> StreamingResponse:
    """Download the stock as CSV.

    Cells that a spreadsheet would take for a formula begin with `'`; an import takes it away again. It is read in
    steps, so an item that changes meanwhile is in it as it was or as it became.
    """
    return Export(request.app.state.database, Item, ItemRow).response("items.csv")


@router.post("/import", max_body_size=MAX_BYTES + FORM_OVERHEAD)
def import_items(
    form: Annotated[ImportForm, FormBody(media_type="multipart/form-data")],
    records: Annotated[Records, Prepared(_records)],
    admin: AdminUser,
    session: Annotated[WriteSession, ReadsIf("dry_run")],
    dry_run: Annotated[bool, Query(description="Only say what would happen.")] = False,
) -> ImportReport:
    """Upload a CSV file (UTF-8, `,` or `;`) of at most 16 MiB and 100,000 rows, matched by name without case.

    All or nothing: with any error nothing is written. `name` and `price_cents` are required, the other columns may be
    missing. At most 1,000 errors are reported.
    """
    return _import(session, records, dry_run=dry_run)


def _import(session: Session, records: Records, *, dry_run: bool, preview: Preview | None = None) -> ImportReport:
    warn, watch = partial(Item.warn_of_low_stock, session), preview and preview.watch
    return import_records(session, Item, ItemRow, "name", records, dry_run=dry_run, after_change=warn, watch=watch)


# Pages

LABELS = {"quantity": "In stock", "reorder_level": "Running low at"}
HINTS = {"reorder_level": "With so many left, or fewer, it counts as running low."}


@pages.get("/items")
def show_items(
    request: Request, page: Paging, filters: Annotated[ItemFilters, Query()], user: CurrentUser, session: ReadSession
) -> Template:
    """List the stock; what somebody means to order is entered here."""
    basket = basket_of(request, user)
    lines, total_cents = _worth(session, basket)
    shown: dict[str, Any] = {"filters": filters, "basket": lines, "total_cents": total_cents}
    shown |= {"page": list_items(page, filters, user, session), "kept": _kept(request)}
    return Template("items/list.html", **shown, **_typed(request, basket))


def _kept(request: Request) -> dict[str, str]:
    """What a new search keeps of the address."""
    return {
        name: text for name, text in request.query_params.items() if name in ItemFilters.model_fields.keys() - {"q"}
    }


def _worth(session: Session, basket: Mapping[int, int]) -> tuple[int, int]:
    """How many lines a basket has, and what it costs, as far as its items are still there."""
    if not basket:
        return 0, 0
    rows = session.connection().execute(PRICES, {"ids": [*basket]})
    worth = [basket[row.id] * row.price_cents for row in rows]
    return len(worth), sum(worth)


def _typed(request: Request, basket: Mapping[int, int]) -> dict[str, Any]:
    """What the fields of the list hold: the basket, and what was typed into a form that was refused."""
    visit = visit_of(request)
    sent, errors = visit.sent or Sent([]), visit.problem.errors if visit.problem else []
    quantities = {f"quantity-{item_id}": str(quantity) for item_id, quantity in basket.items()}
    quantities |= {name: sent.text(name) for name in sent.parts if name.startswith("quantity-")}
    wrong = {str(place) for error in errors for place in error.get("loc", ())}
    return {"quantities": quantities, "wrong": wrong, "ticked": sent.texts("items"), "tag": sent.text("tag")}


@pages.get("/items/new")
def show_new_item(request: Request, admin: AdminUser) -> Template:
    """Ask what the new item is."""
    back = back_to(request, "/items")
    return Template(
        "items/new.html", form=Form(ItemCreate, hidden={"back": back}, labels=LABELS, hints=HINTS), back=back
    )


@pages.post("/items/new")
def add_item(response: Response, sent: SentForm, admin: AdminUser, session: WriteSession) -> See:
    """Add an item to the stock."""
    item = create_item(response, sent.read(ItemCreate), admin, session)
    return See(sent.path("back", "/items"), f"{item.name} was added.", link=f"/items/{item.id}")


@pages.post("/items/tags", shown_on="/items")
def tag_items(sent: SentForm, admin: AdminUser, session: WriteSession) -> See:
    """Give a tag to several items, or take it away."""
    data = sent.checked(Tagging, {"tag": sent.text("tag"), "items": sent.texts("items")})
    removes = sent.text("do") == "remove"
    count = Item.tag_all(session, data, remove=removes)
    done = f"{data.tag} was {'taken from' if removes else 'given to'} {count} {'item' if count == 1 else 'items'}."
    return See(sent.path("back", "/items"), done)


def _chosen(_: Request, sent: Sent) -> Callable[[], CheckedFile]:
    return partial(checked_file, sent.file(ImportForm, "file"), ItemRow, "name")


def _waiting(request: Request, admin: Principal) -> Callable[[], WaitingFile | None]:
    return partial(WaitingFile.of, request.app.state.database, admin.id, ItemRow, "name")


@pages.get("/items/import")
def show_import(admin: AdminUser) -> Template:
    """Ask for a file."""
    too_large = {"BODY_TOO_LARGE": "This file is larger than 16 MiB. Split it, and import one part after the other."}
    form = Form(ImportForm, labels={"file": "A file with comma-separated values (CSV)"}, problems=too_large)
    return Template("items/import.html", form=form)


# What is somewhat too large is read all the same, to say so on the page; a browser would only see a broken connection.
@pages.post("/items/import", max_body_size=2 * MAX_BYTES)
def take_file(
    sent: SentForm, file: Annotated[CheckedFile, Prepared(_chosen)], admin: AdminUser, session: WriteSession
) -> See:
    """Keep a file until its preview was looked at."""
    Upload.keep(session, admin.id, file)
    return See("/items/import/preview")


@pages.get("/items/import/preview")
def show_preview(
    file: Annotated[WaitingFile | None, Prepared(_waiting)], admin: AdminUser, session: ReadSession
) -> Template | See:
    """Show what the file that was chosen would change, as things are now."""
    if file is None:
        return See("/items/import", "Choose a file first.", wrong=True)
    preview = Preview(file)
    report = _import(session, file.records, dry_run=True, preview=preview)
    return Template("items/preview.html", file=file, preview=preview, report=report, most=SHOWN)


@pages.post("/items/import/preview")
def import_file(
    sent: SentForm, file: Annotated[WaitingFile | None, Prepared(_waiting)], admin: AdminUser, session: WriteSession
) -> See:
    """Import what the preview showed, or nothing."""
    if file is None:
        return See("/items/import", "This file was imported before, or has expired. Choose it again.", wrong=True)
    preview = Preview(file)
    report = _import(session, file.records, dry_run=False, preview=preview)
    preview.require(sent.text("seen"), report)
    Upload.forget(session, admin.id)
    return See("/items", f"{file.name} was imported: {report.created:,} new, {report.updated:,} changed.")


@pages.get("/items/import/wrong")
def download_wrong_lines(file: Annotated[WaitingFile | None, Prepared(_waiting)], admin: AdminUser) -> Response | See:
    """Download what is wrong with the file that was chosen, as CSV."""
    if file is None:
        return See("/items/import", "Choose a file first.", wrong=True)
    return error_list(file.records.errors, "wrong-lines.csv")


@pages.get("/items/export")
def download_items(request: Request, admin: AdminUser, session: ReadSession) -> StreamingResponse:
    """Download the stock as CSV."""
    return export_items(request, admin, session)


@pages.get("/items/{item_id}")
def show_item(request: Request, item_id: Id, user: CurrentUser, session: ReadSession) -> Template:
    """Show one item: what it is, to be ordered; to admins also a form to change it, and who did so before."""
    item, basket = get_item(item_id, user, session), basket_of(request, user)
    back = back_to(request, "/items")
    shown: dict[str, Any] = {"item": item, "back": back, "basket": len(basket), "form": None, "history": None}
    if user.is_admin:
        shown |= _editing(item, back) | {"history": history_of(session, Item, item.id)}
    return Template("items/item.html", **shown, **_typed(request, basket))


def _editing(item: Item, back: str) -> dict[str, Form]:
    hidden, by, hint = {"back": back}, {"by": "How many more"}, {"by": "Such as 10, or -2 to take two out."}
    return {
        "form": Form(ItemUpdate, item, hidden=hidden, labels=LABELS, hints=HINTS),
        "delivery": Form(Delivery, hidden=hidden, labels=by, hints=hint),
    }


@pages.post("/items/{item_id}")
def save_item(item_id: Id, sent: SentForm, admin: AdminUser, session: WriteSession) -> See:
    """Change an item, as far as the form says something new."""
    item = session.get_one(Item, item_id)
    item.change(session, sent.changes(ItemUpdate, item).changes())
    return See(sent.path("back", "/items"), f"{item.name} was saved.", link=f"/items/{item.id}")


@pages.post("/items/{item_id}/stock", shown_on="/items/{item_id}")
def restock_item(item_id: Id, sent: SentForm, admin: AdminUser, session: WriteSession) -> See:
    """Add to the stock of an item, or take out of it, whatever was ordered meanwhile."""
    item = session.get_one(Item, item_id).take_in(session, sent.read(Delivery).by)
    done = f"Now {item.quantity:,} of {item.name} are in stock."
    return See(sent.path("back", "/items"), done, link=f"/items/{item.id}")


@pages.post("/items/{item_id}/delete", shown_on="/items/{item_id}")
def remove_item(item_id: Id, sent: SentForm, admin: AdminUser, session: WriteSession) -> See:
    """Delete an item that was never ordered."""
    name = session.get_one(Item, item_id).name
    delete_item(item_id, admin, session)
    return See(sent.path("back", "/items"), f"{name} was deleted.")


# The basket: what somebody means to order, in a cookie that is good for one login session

BASKET = re.compile(r"([0-9]{1,19})((?:\.[1-9][0-9]{0,18}:[1-9][0-9]{0,4}){1,100})")
BASKET_SECONDS = 24 * 60 * 60
MAX_ORDERED = 10_000


def basket_of(request: Request, user: Principal) -> dict[int, int]:
    """How many of which item somebody means to order, by the ids of items; what is wrong in the cookie is left out."""
    found = BASKET.fullmatch(cookie(request, "cart"))
    if found is None or int(found[1]) != user.session_id:
        return {}
    lines = [line.split(":") for line in found[2].split(".")[1:]]
    basket = {int(item_id): int(quantity) for item_id, quantity in lines}
    return {id_: quantity for id_, quantity in basket.items() if id_ <= BIGGEST_ID and quantity <= MAX_ORDERED}


def with_basket(see: See, user: Principal, basket: Mapping[int, int]) -> See:
    """`see`, which also keeps a basket of at most 100 lines until its login session ends, for a day at most."""
    lines = "".join(f".{item_id}:{quantity}" for item_id, quantity in basket.items())
    return see.remember("cart", f"{user.session_id}{lines}", BASKET_SECONDS if lines else 0)
