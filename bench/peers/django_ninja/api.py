"""The routes."""

import base64
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, F, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path
from ninja import Field, Form, NinjaAPI, Query, Schema
from ninja.errors import HttpError
from ninja.security import HttpBearer

from django_ninja.models import Comment, Item, Order, OrderLine, Post, User


class ItemIn(Schema):
    name: str = Field(min_length=1, max_length=100)
    price_cents: int = Field(ge=1, le=1_000_000_000)
    quantity: int = Field(default=0, ge=0, le=1_000_000_000)
    reorder_level: int = Field(default=0, ge=0, le=1_000_000_000)
    tags: list[Annotated[str, Field(min_length=1, max_length=30)]] = Field(default=[], max_length=10)


class ItemOut(Schema):
    id: int
    name: str
    price_cents: int
    quantity: int
    reorder_level: int
    tags: list[str]
    version: int
    created_at: datetime
    updated_at: datetime


class ItemPage(Schema):
    items: list[ItemOut]
    total: int
    page: int
    page_size: int
    has_next: bool


class OrderLineIn(Schema):
    item_id: int = Field(ge=1)
    quantity: int = Field(ge=1, le=10_000)


class OrderIn(Schema):
    lines: list[OrderLineIn] = Field(min_length=1, max_length=100)
    note: str | None = Field(default=None, max_length=500)


class OrderLineOut(Schema):
    item_id: int
    item_name: str
    quantity: int
    unit_price_cents: int


class OrderOut(Schema):
    id: int
    user_id: int
    status: str
    lines: list[OrderLineOut]
    total_cents: int
    note: str | None
    version: int
    created_at: datetime
    updated_at: datetime


class PostOut(Schema):
    id: int
    title: str
    content: str
    creator_id: int
    creator_name: str = Field(alias="creator.full_name")
    comment_count: int
    version: int
    created_at: datetime
    updated_at: datetime


class PostStretch(Schema):
    items: list[PostOut]
    next_cursor: str | None


class TokenOut(Schema):
    access_token: str
    token_type: str = "bearer"
    expires_in: int
    refresh_token: str


class Bearer(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        try:
            claims = jwt.decode(token, settings.SECRET_KEY, algorithms=["HS256"])
        except jwt.PyJWTError:
            return None
        if claims.get("type") != "access":
            return None
        return User.objects.filter(pk=int(claims["sub"]), is_active=True).first()


api = NinjaAPI(auth=Bearer(), openapi_url=None, docs_url=None)


def create_token(user: User, kind: str, lifetime: timedelta) -> str:
    now = datetime.now(UTC)
    claims = {"sub": str(user.id), "type": kind, "iat": now, "exp": now + lifetime, "jti": uuid.uuid4().hex}
    return jwt.encode(claims, settings.SECRET_KEY, algorithm="HS256")


@api.post("/auth/token", response=TokenOut, auth=None)
def sign_in(request: HttpRequest, username: Form[str], password: Form[str]) -> TokenOut:
    user = User.objects.filter(email=username.lower()).first()
    if user is None:
        make_password(password)  # as long as checking one
        raise HttpError(400, "Invalid credentials")
    if not check_password(password, user.password_hash) or not user.is_active:
        raise HttpError(400, "Invalid credentials")
    return TokenOut(
        access_token=create_token(user, "access", timedelta(minutes=15)),
        expires_in=900,
        refresh_token=create_token(user, "refresh", timedelta(days=30)),
    )


@api.get("/items", response=ItemPage)
def list_items(
    request: HttpRequest, page: int = Query(1, ge=1), page_size: int = Query(20, ge=1, le=100)
) -> dict[str, object]:
    total = Item.objects.count()
    start = (page - 1) * page_size
    items = list(Item.objects.order_by("name", "id")[start : start + page_size])
    return {"items": items, "total": total, "page": page, "page_size": page_size, "has_next": page * page_size < total}


@api.post("/items", response={201: ItemOut})
def create_item(request: HttpRequest, data: ItemIn, response: HttpResponse) -> tuple[int, Item]:
    if request.auth.role != "admin":
        raise HttpError(403, "Admins only")
    try:
        item = Item.objects.create(**data.dict(), name_key=data.name.casefold())
    except IntegrityError as error:
        raise HttpError(409, "Name taken") from error
    response["Location"] = f"/api/v1/items/{item.id}"
    return 201, item


@api.get("/items/{item_id}", response=ItemOut)
def get_item(request: HttpRequest, item_id: int) -> Item:
    return get_object_or_404(Item, pk=item_id)


@api.post("/orders", response={201: OrderOut})
@transaction.atomic
def place_order(request: HttpRequest, data: OrderIn, response: HttpResponse) -> tuple[int, Order]:
    wanted = {line.item_id: line.quantity for line in data.lines}
    items = Item.objects.in_bulk(wanted)
    if len(items) < len(wanted):
        raise HttpError(404, "Item not found")
    for item_id, quantity in wanted.items():
        enough = Item.objects.filter(pk=item_id, quantity__gte=quantity)
        now = datetime.now(UTC)
        if not enough.update(quantity=F("quantity") - quantity, version=F("version") + 1, updated_at=now):
            raise HttpError(409, "Out of stock")
    total_cents = sum(items[item_id].price_cents * quantity for item_id, quantity in wanted.items())
    order = Order.objects.create(user=request.auth, total_cents=total_cents, note=data.note)
    lines = [
        OrderLine(
            order=order,
            item_id=item_id,
            position=position,
            item_name=items[item_id].name,
            quantity=quantity,
            unit_price_cents=items[item_id].price_cents,
        )
        for position, (item_id, quantity) in enumerate(wanted.items())
    ]
    order._prefetched_objects_cache = {"lines": OrderLine.objects.bulk_create(lines)}
    response["Location"] = f"/api/v1/orders/{order.id}"
    return 201, order


@api.get("/posts", response=PostStretch)
def list_posts(
    request: HttpRequest, cursor: str | None = None, limit: int = Query(20, ge=1, le=100)
) -> dict[str, object]:
    # Count("comment") would group the whole table, so this is written as an experienced Django author would.
    counted = Comment.objects.filter(post=OuterRef("pk")).order_by().values("post").annotate(n=Count("pk")).values("n")
    comment_count = Coalesce(Subquery(counted), 0)
    posts = Post.objects.select_related("creator").annotate(comment_count=comment_count).order_by("-id")
    if cursor is not None:
        posts = posts.filter(id__lt=int(base64.urlsafe_b64decode(cursor)))
    found = list(posts[: limit + 1])
    items = found[:limit]
    more = len(found) > limit
    next_cursor = base64.urlsafe_b64encode(str(items[-1].id).encode()).decode() if more else None
    return {"items": items, "next_cursor": next_cursor}


def ready(request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return HttpResponse('{"status": "ready"}', content_type="application/json")


urlpatterns = [path("api/v1/", api.urls), path("ready", ready)]
