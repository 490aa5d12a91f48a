"""The form that FastAPI handbooks teach: async routes, `AsyncSession` on aiosqlite, services, a structured log.

It does the work that is measured as such a project would: the user is read on every request, one middleware for the
request id, timing and the access line, one for the security headers. It has no audit, no notifications, no
revocation of sessions, no idempotency keys, no strict JSON and no limits.
"""

import asyncio
import base64
import logging
import os
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import bcrypt
import jwt
import structlog
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, event, func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from starlette.middleware.trustedhost import TrustedHostMiddleware

SECRET_KEY = os.environ["BENCH_SECRET_KEY"]
BCRYPT_ROUNDS = int(os.environ["BENCH_BCRYPT_ROUNDS"])

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    ],
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    cache_logger_on_first_use=True,
)
logger = structlog.get_logger()


# Database

engine = create_async_engine(f"sqlite+aiosqlite:///{os.environ['BENCH_DATABASE']}")
SessionLocal = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def get_db() -> AsyncGenerator[AsyncSession]:
    async with SessionLocal() as session:
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise


# scope="function": the commit comes before the answer, as ours does; without it a lost write is answered 201.
Db = Annotated[AsyncSession, Depends(get_db, scope="function")]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    pass


class Timestamped:
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class User(Timestamped, Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    full_name: Mapped[str]
    password_hash: Mapped[str]
    role: Mapped[str] = mapped_column(default="member")
    is_active: Mapped[bool] = mapped_column(default=True)


class Item(Timestamped, Base):
    __tablename__ = "item"
    __table_args__ = (CheckConstraint("quantity >= 0", name="quantity"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    name_key: Mapped[str] = mapped_column(unique=True)
    price_cents: Mapped[int]
    quantity: Mapped[int] = mapped_column(default=0)
    reorder_level: Mapped[int] = mapped_column(default=0)
    tags: Mapped[list[str]] = mapped_column(JSON, default=list)
    version: Mapped[int] = mapped_column(default=1)


class OrderLine(Base):
    __tablename__ = "order_line"
    order_id: Mapped[int] = mapped_column(ForeignKey("order.id", ondelete="CASCADE"), primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), primary_key=True, index=True)
    position: Mapped[int]
    item_name: Mapped[str]
    quantity: Mapped[int]
    unit_price_cents: Mapped[int]


class Order(Timestamped, Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)
    status: Mapped[str] = mapped_column(default="pending")
    total_cents: Mapped[int]
    note: Mapped[str | None]
    version: Mapped[int] = mapped_column(default=1)
    lines: Mapped[list[OrderLine]] = relationship(lazy="selectin", order_by=OrderLine.position)


class Post(Timestamped, Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    content: Mapped[str]
    creator_id: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)
    version: Mapped[int] = mapped_column(default=1)
    creator: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class Comment(Timestamped, Base):
    __tablename__ = "comment"
    __table_args__ = (Index("ix_comment_post_id", "post_id", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"))
    content: Mapped[str]
    creator_id: Mapped[int] = mapped_column(ForeignKey("user.id"))


# Schemas


class Schema(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ItemCreate(Schema):
    name: str = Field(min_length=1, max_length=100)
    price_cents: int = Field(ge=1, le=1_000_000_000)
    quantity: int = Field(default=0, ge=0, le=1_000_000_000)
    reorder_level: int = Field(default=0, ge=0, le=1_000_000_000)
    tags: list[Annotated[str, Field(min_length=1, max_length=30)]] = Field(default=[], max_length=10)


class ItemResponse(Schema):
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
    items: list[ItemResponse]
    total: int
    page: int
    page_size: int
    has_next: bool


class OrderLineCreate(Schema):
    item_id: int = Field(ge=1)
    quantity: int = Field(ge=1, le=10_000)


class OrderCreate(Schema):
    lines: list[OrderLineCreate] = Field(min_length=1, max_length=100)
    note: str | None = Field(default=None, max_length=500)


class OrderLineResponse(Schema):
    item_id: int
    item_name: str
    quantity: int
    unit_price_cents: int


class OrderResponse(Schema):
    id: int
    user_id: int
    status: str
    lines: list[OrderLineResponse]
    total_cents: int
    note: str | None
    version: int
    created_at: datetime
    updated_at: datetime


class PostResponse(Schema):
    id: int
    title: str
    content: str
    creator_id: int
    creator_name: str
    comment_count: int
    version: int
    created_at: datetime
    updated_at: datetime


class PostStretch(Schema):
    items: list[PostResponse]
    next_cursor: str | None


class Token(Schema):
    access_token: str
    token_type: str = "bearer"
    expires_in: int
    refresh_token: str


# Auth

oauth2_scheme = OAuth2PasswordBearer(tokenUrl="/api/v1/auth/token")


def create_token(user: User, kind: str, lifetime: timedelta) -> str:
    now = utc_now()
    claims = {"sub": str(user.id), "type": kind, "iat": now, "exp": now + lifetime, "jti": uuid.uuid4().hex}
    return jwt.encode(claims, SECRET_KEY, algorithm="HS256")


async def get_current_user(token: Annotated[str, Depends(oauth2_scheme)], db: Db) -> User:
    unauthorized = HTTPException(status.HTTP_401_UNAUTHORIZED, "Not authenticated", {"WWW-Authenticate": "Bearer"})
    try:
        claims = jwt.decode(token, SECRET_KEY, algorithms=["HS256"])
    except jwt.PyJWTError as error:
        raise unauthorized from error
    if claims.get("type") != "access":
        raise unauthorized
    user = await db.scalar(select(User).where(User.id == int(claims["sub"])))
    if user is None or not user.is_active:
        raise unauthorized
    return user


async def get_current_admin(user: Annotated[User, Depends(get_current_user)]) -> User:
    if user.role != "admin":
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Admins only")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]
CurrentAdmin = Annotated[User, Depends(get_current_admin)]


# Services


class ItemService:
    def __init__(self, db: AsyncSession) -> None:
        self.db = db

    async def get(self, item_id: int) -> Item:
        item = await self.db.scalar(select(Item).where(Item.id == item_id))
        if item is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "Item not found")
        return item

    async def list(self, page: int, page_size: int) -> ItemPage:
        total = await self.db.scalar(select(func.count()).select_from(Item)) or 0
        query = select(Item).order_by(Item.name, Item.id).offset((page - 1) * page_size).limit(page_size)
        items = [ItemResponse.model_validate(item) for item in (await self.db.scalars(query)).all()]
        return ItemPage(items=items, total=total, page=page, page_size=page_size, has_next=page * page_size < total)

    async def create(self, data: ItemCreate) -> Item:
        item = Item(**data.model_dump(), name_key=data.name.casefold())
        self.db.add(item)
        try:
            await self.db.flush()
        except IntegrityError as error:
            raise HTTPException(status.HTTP_409_CONFLICT, "Name taken") from error
        return item


class OrderService:
    def __init__(self, db: AsyncSession) -> None:
        self.db = db

    async def place(self, user: User, data: OrderCreate) -> Order:
        wanted = {line.item_id: line.quantity for line in data.lines}
        items = {item.id: item for item in await self.db.scalars(select(Item).where(Item.id.in_(wanted)))}
        if len(items) < len(wanted):
            raise HTTPException(status.HTTP_404_NOT_FOUND, "Item not found")
        for item_id, quantity in wanted.items():
            taken = await self.db.execute(
                update(Item)
                .where(Item.id == item_id, Item.quantity >= quantity)
                .values(quantity=Item.quantity - quantity, version=Item.version + 1)
                .execution_options(synchronize_session=False)
            )
            if taken.rowcount == 0:
                raise HTTPException(status.HTTP_409_CONFLICT, "Out of stock")
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
        order = Order(user_id=user.id, lines=lines, total_cents=total_cents, note=data.note)
        self.db.add(order)
        await self.db.flush()
        return order


class PostService:
    def __init__(self, db: AsyncSession) -> None:
        self.db = db

    async def list(self, cursor: str | None, limit: int) -> PostStretch:
        comments = select(func.count()).where(Comment.post_id == Post.id).scalar_subquery()
        query = select(Post, comments.label("comment_count")).order_by(Post.id.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(Post.id < int(base64.urlsafe_b64decode(cursor)))
        found = (await self.db.execute(query)).all()
        items = [
            PostResponse(
                id=post.id,
                title=post.title,
                content=post.content,
                creator_id=post.creator_id,
                creator_name=post.creator.full_name,
                comment_count=count,
                version=post.version,
                created_at=post.created_at,
                updated_at=post.updated_at,
            )
            for post, count in found[:limit]
        ]
        more = len(found) > limit
        return PostStretch(
            items=items, next_cursor=base64.urlsafe_b64encode(str(items[-1].id).encode()).decode() if more else None
        )


# Routes

router = APIRouter(prefix="/api/v1")


@router.post("/auth/token", response_model=Token)
async def sign_in(form: Annotated[OAuth2PasswordRequestForm, Depends()], db: Db) -> Token:
    user = await db.scalar(select(User).where(User.email == form.username.lower()))
    password_hash = user.password_hash if user else bcrypt.hashpw(b"", bcrypt.gensalt(BCRYPT_ROUNDS)).decode()
    proven = await run_in_threadpool(bcrypt.checkpw, form.password.encode(), password_hash.encode())
    if user is None or not proven or not user.is_active:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "Invalid credentials")
    return Token(
        access_token=create_token(user, "access", timedelta(minutes=15)),
        expires_in=900,
        refresh_token=create_token(user, "refresh", timedelta(days=30)),
    )


@router.get("/items", response_model=ItemPage)
async def list_items(
    user: CurrentUser,
    db: Db,
    page: Annotated[int, Query(ge=1)] = 1,
    page_size: Annotated[int, Query(ge=1, le=100)] = 20,
) -> ItemPage:
    return await ItemService(db).list(page, page_size)


@router.post("/items", response_model=ItemResponse, status_code=201)
async def create_item(response: Response, data: ItemCreate, admin: CurrentAdmin, db: Db) -> Item:
    item = await ItemService(db).create(data)
    response.headers["Location"] = f"/api/v1/items/{item.id}"
    return item


@router.get("/items/{item_id}", response_model=ItemResponse)
async def get_item(item_id: int, user: CurrentUser, db: Db) -> Item:
    return await ItemService(db).get(item_id)


@router.post("/orders", response_model=OrderResponse, status_code=201)
async def place_order(response: Response, data: OrderCreate, user: CurrentUser, db: Db) -> Order:
    order = await OrderService(db).place(user, data)
    response.headers["Location"] = f"/api/v1/orders/{order.id}"
    return order


@router.get("/posts", response_model=PostStretch)
async def list_posts(
    user: CurrentUser, db: Db, cursor: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> PostStretch:
    return await PostService(db).list(cursor, limit)


# App


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan, openapi_url=None)
app.include_router(router)


@app.get("/ready")
async def ready(db: Db) -> dict[str, str]:
    await db.execute(text("SELECT 1"))
    return {"status": "ready"}


Next = Callable[[Request], Awaitable[Response]]


@app.middleware("http")
async def security_headers(request: Request, call_next: Next) -> Response:
    response = await call_next(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Referrer-Policy"] = "strict-origin-when-cross-origin"
    response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
    response.headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    return response


@app.middleware("http")
async def request_log(request: Request, call_next: Next) -> Response:
    request_id = request.headers.get("X-Request-ID") or uuid.uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    started = time.perf_counter()
    response = await call_next(request)
    elapsed = time.perf_counter() - started
    response.headers["X-Request-ID"] = request_id
    response.headers["X-Process-Time"] = f"{elapsed:.4f}"
    logger.info(
        "request",
        method=request.method,
        path=request.url.path,
        status_code=response.status_code,
        duration_ms=round(elapsed * 1000, 2),
    )
    return response


app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"])


async def prepare() -> None:
    """Make the tables, and Ada, the admin."""
    password_hash = bcrypt.hashpw(os.environ["BENCH_PASSWORD"].encode(), bcrypt.gensalt(BCRYPT_ROUNDS)).decode()
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with SessionLocal() as session, session.begin():
        session.add(User(email="ada@example.com", full_name="Ada", password_hash=password_hash, role="admin"))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(prepare())
