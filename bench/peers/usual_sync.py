"""The form of SQLModel's own tutorial, grown to a project: sync routes, a generator session, no limits, plain logging.

It has no audit, no notifications, no revocation of sessions, no idempotency keys, no strict JSON and no limits.
"""

import base64
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import bcrypt
import jwt
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from sqlalchemy import JSON, CheckConstraint, Index, event, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Relationship, Session, SQLModel, col, create_engine, func, select, text
from starlette.middleware.trustedhost import TrustedHostMiddleware

SECRET_KEY = os.environ["BENCH_SECRET_KEY"]
BCRYPT_ROUNDS = int(os.environ["BENCH_BCRYPT_ROUNDS"])

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
logger = logging.getLogger("app")


# Tables and schemas


def utc_now() -> datetime:
    return datetime.now(UTC)


class User(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(unique=True)
    full_name: str
    password_hash: str
    role: str = "member"
    is_active: bool = True
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now, sa_column_kwargs={"onupdate": utc_now})


class ItemCreate(SQLModel):
    name: str = Field(min_length=1, max_length=100, index=True)
    price_cents: int = Field(ge=1, le=1_000_000_000)
    quantity: int = Field(default=0, ge=0, le=1_000_000_000)
    reorder_level: int = Field(default=0, ge=0, le=1_000_000_000)
    tags: list[Annotated[str, Field(min_length=1, max_length=30)]] = Field(default=[], max_length=10, sa_type=JSON)


class ItemPublic(SQLModel):
    id: int
    name: str
    price_cents: int
    quantity: int
    reorder_level: int
    tags: list[str]
    version: int
    created_at: datetime
    updated_at: datetime


class Item(ItemCreate, table=True):
    __table_args__ = (CheckConstraint("quantity >= 0", name="quantity"),)

    id: int | None = Field(default=None, primary_key=True)
    name_key: str = Field(unique=True)
    version: int = 1
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now, sa_column_kwargs={"onupdate": utc_now})


class ItemPage(SQLModel):
    items: list[ItemPublic]
    total: int
    page: int
    page_size: int
    has_next: bool


class OrderLineCreate(SQLModel):
    item_id: int = Field(ge=1)
    quantity: int = Field(ge=1, le=10_000)


class OrderCreate(SQLModel):
    lines: list[OrderLineCreate] = Field(min_length=1, max_length=100)
    note: str | None = Field(default=None, max_length=500)


class OrderLinePublic(SQLModel):
    item_id: int
    item_name: str
    quantity: int
    unit_price_cents: int


class OrderLine(OrderLinePublic, table=True):
    __tablename__ = "order_line"

    order_id: int | None = Field(default=None, foreign_key="order.id", primary_key=True)
    item_id: int = Field(foreign_key="item.id", primary_key=True, index=True)
    position: int


class OrderPublic(SQLModel):
    id: int
    user_id: int
    status: str
    lines: list[OrderLinePublic]
    total_cents: int
    note: str | None
    version: int
    created_at: datetime
    updated_at: datetime


class Order(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user.id", index=True)
    status: str = "pending"
    total_cents: int
    note: str | None = None
    version: int = 1
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now, sa_column_kwargs={"onupdate": utc_now})
    lines: list[OrderLine] = Relationship(sa_relationship_kwargs={"lazy": "selectin", "order_by": "OrderLine.position"})


class Post(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str
    content: str
    creator_id: int = Field(foreign_key="user.id", index=True)
    version: int = 1
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now, sa_column_kwargs={"onupdate": utc_now})
    creator: User = Relationship(sa_relationship_kwargs={"lazy": "joined", "innerjoin": True})


class Comment(SQLModel, table=True):
    __table_args__ = (Index("ix_comment_post_id", "post_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    post_id: int = Field(foreign_key="post.id")
    content: str
    creator_id: int = Field(foreign_key="user.id")
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now)


class PostPublic(SQLModel):
    id: int
    title: str
    content: str
    creator_id: int
    creator_name: str
    comment_count: int
    version: int
    created_at: datetime
    updated_at: datetime


class PostStretch(SQLModel):
    items: list[PostPublic]
    next_cursor: str | None


class Token(SQLModel):
    access_token: str
    token_type: str = "bearer"
    expires_in: int
    refresh_token: str


# Database

engine = create_engine(f"sqlite:///{os.environ['BENCH_DATABASE']}", connect_args={"check_same_thread": False})


@event.listens_for(engine, "connect")
def set_pragmas(connection: Any, _record: object) -> None:
    for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def get_session() -> Generator[Session]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]


# Auth

oauth2_scheme = OAuth2PasswordBearer(tokenUrl="/api/v1/auth/token")


def create_token(user: User, kind: str, lifetime: timedelta) -> str:
    now = utc_now()
    claims = {"sub": str(user.id), "type": kind, "iat": now, "exp": now + lifetime, "jti": uuid.uuid4().hex}
    return jwt.encode(claims, SECRET_KEY, algorithm="HS256")


def get_current_user(token: Annotated[str, Depends(oauth2_scheme)], session: SessionDep) -> User:
    unauthorized = HTTPException(401, "Not authenticated", {"WWW-Authenticate": "Bearer"})
    try:
        claims = jwt.decode(token, SECRET_KEY, algorithms=["HS256"])
    except jwt.PyJWTError as error:
        raise unauthorized from error
    if claims.get("type") != "access":
        raise unauthorized
    user = session.get(User, int(claims["sub"]))
    if user is None or not user.is_active:
        raise unauthorized
    return user


def get_current_admin(user: Annotated[User, Depends(get_current_user)]) -> User:
    if user.role != "admin":
        raise HTTPException(403, "Admins only")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]
CurrentAdmin = Annotated[User, Depends(get_current_admin)]


# App and routes

app = FastAPI(openapi_url=None)
Next = Callable[[Request], Awaitable[Response]]


@app.middleware("http")
async def request_log(request: Request, call_next: Next) -> Response:
    request_id = request.headers.get("X-Request-ID") or uuid.uuid4().hex
    started = time.perf_counter()
    response = await call_next(request)
    elapsed = time.perf_counter() - started
    response.headers["X-Request-ID"] = request_id
    response.headers["X-Process-Time"] = f"{elapsed:.4f}"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Referrer-Policy"] = "strict-origin-when-cross-origin"
    response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
    response.headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    logger.info(
        "%s %s %s %s %.2f ms", request_id, request.method, request.url.path, response.status_code, elapsed * 1e3
    )
    return response


app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"])


@app.get("/ready")
def ready(session: SessionDep) -> dict[str, str]:
    session.exec(text("SELECT 1"))
    return {"status": "ready"}


@app.post("/api/v1/auth/token")
def sign_in(form: Annotated[OAuth2PasswordRequestForm, Depends()], session: SessionDep) -> Token:
    user = session.exec(select(User).where(User.email == form.username.lower())).first()
    password_hash = user.password_hash if user else bcrypt.hashpw(b"", bcrypt.gensalt(BCRYPT_ROUNDS)).decode()
    proven = bcrypt.checkpw(form.password.encode(), password_hash.encode())
    if user is None or not proven or not user.is_active:
        raise HTTPException(400, "Invalid credentials")
    return Token(
        access_token=create_token(user, "access", timedelta(minutes=15)),
        expires_in=900,
        refresh_token=create_token(user, "refresh", timedelta(days=30)),
    )


@app.get("/api/v1/items", response_model=ItemPage)
def list_items(
    user: CurrentUser,
    session: SessionDep,
    page: Annotated[int, Query(ge=1)] = 1,
    page_size: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Any:
    total = session.exec(select(func.count()).select_from(Item)).one()
    query = select(Item).order_by(Item.name, Item.id).offset((page - 1) * page_size).limit(page_size)
    items = session.exec(query).all()
    return {"items": items, "total": total, "page": page, "page_size": page_size, "has_next": page * page_size < total}


@app.post("/api/v1/items", response_model=ItemPublic, status_code=201)
def create_item(response: Response, data: ItemCreate, admin: CurrentAdmin, session: SessionDep) -> Item:
    item = Item.model_validate(data, update={"name_key": data.name.casefold()})
    session.add(item)
    try:
        session.commit()
    except IntegrityError as error:
        raise HTTPException(409, "Name taken") from error
    session.refresh(item)
    response.headers["Location"] = f"/api/v1/items/{item.id}"
    return item


@app.get("/api/v1/items/{item_id}", response_model=ItemPublic)
def get_item(item_id: int, user: CurrentUser, session: SessionDep) -> Item:
    item = session.get(Item, item_id)
    if item is None:
        raise HTTPException(404, "Item not found")
    return item


@app.post("/api/v1/orders", response_model=OrderPublic, status_code=201)
def place_order(response: Response, data: OrderCreate, user: CurrentUser, session: SessionDep) -> Order:
    wanted = {line.item_id: line.quantity for line in data.lines}
    items = {item.id: item for item in session.exec(select(Item).where(col(Item.id).in_(wanted)))}
    if len(items) < len(wanted):
        raise HTTPException(404, "Item not found")
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
    for item_id, quantity in wanted.items():
        taking = update(Item).where(col(Item.id) == item_id, col(Item.quantity) >= quantity)
        taking = taking.values(quantity=Item.quantity - quantity, version=Item.version + 1)
        if session.exec(taking.execution_options(synchronize_session=False)).rowcount == 0:
            raise HTTPException(409, "Out of stock")
    total_cents = sum(line.quantity * line.unit_price_cents for line in lines)
    order = Order(user_id=user.id, lines=lines, total_cents=total_cents, note=data.note)
    session.add(order)
    session.commit()
    session.refresh(order)
    response.headers["Location"] = f"/api/v1/orders/{order.id}"
    return order


@app.get("/api/v1/posts", response_model=PostStretch)
def list_posts(
    user: CurrentUser,
    session: SessionDep,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Any:
    comments = select(func.count()).where(Comment.post_id == Post.id).scalar_subquery()
    query = select(Post, comments).order_by(col(Post.id).desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(col(Post.id) < int(base64.urlsafe_b64decode(cursor)))
    found = session.exec(query).all()
    items = [
        post.model_dump() | {"creator_name": post.creator.full_name, "comment_count": count}
        for post, count in found[:limit]
    ]
    more = len(found) > limit
    next_cursor = base64.urlsafe_b64encode(str(items[-1]["id"]).encode()).decode() if more else None
    return {"items": items, "next_cursor": next_cursor}


def prepare() -> None:
    """Make the tables, and Ada, the admin."""
    password_hash = bcrypt.hashpw(os.environ["BENCH_PASSWORD"].encode(), bcrypt.gensalt(BCRYPT_ROUNDS)).decode()
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(User(email="ada@example.com", full_name="Ada", password_hash=password_hash, role="admin"))
        session.commit()
    engine.dispose()


if __name__ == "__main__":
    prepare()
