"""The floor: what FastAPI takes for a bare route with the same response. No database, token, log or middleware."""

from datetime import UTC, datetime

from fastapi import FastAPI
from pydantic import BaseModel

NOW = datetime.now(UTC).replace(microsecond=123456)
app = FastAPI(openapi_url=None)


class Item(BaseModel):
    id: int
    name: str
    price_cents: int
    quantity: int
    reorder_level: int
    tags: list[str]
    version: int
    created_at: datetime
    updated_at: datetime


class Page(BaseModel):
    items: list[Item]
    total: int
    page: int
    page_size: int
    has_next: bool


def an_item(number: int) -> Item:
    return Item(
        id=number,
        name=f"Desk lamp {number:07d}",
        price_cents=3_900,
        quantity=1_000_000_000,
        reorder_level=5,
        tags=["light", f"shelf {number % 20}"],
        version=1,
        created_at=NOW,
        updated_at=NOW,
    )


def a_page() -> Page:
    return Page(items=[an_item(number) for number in range(1, 21)], total=1_000, page=1, page_size=20, has_next=True)


@app.get("/ready")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.get("/sync/items")
def list_items() -> Page:
    return a_page()


@app.get("/sync/items/{item_id}")
def get_item(item_id: int) -> Item:
    return an_item(item_id)


@app.get("/async/items")
async def list_items_async() -> Page:
    return a_page()


@app.get("/async/items/{item_id}")
async def get_item_async(item_id: int) -> Item:
    return an_item(item_id)
