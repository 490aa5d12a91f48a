"""The made-up company of `seed`: the same every time, obedient to every rule, and worth looking at."""

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, col, select
from typer.testing import Result

import manage
from kit.app import App
from kit.audit import AuditEntry
from kit.auth import hash_password
from kit.db import Database, ending
from kit.models import folded, now
from models import Comment, Item, ItemCreate, Notification, Order, Post, PostCreate, User, UserCreate
from sample import COMPANY, YEAR, add_company
from settings import Settings
from tests.people import PASSWORD, Person

Command = Callable[..., Result]
HOUR = timedelta(hours=1)


def seed(database: Database, items: int = 60, orders: int = 400) -> tuple[list[User], int]:
    with ending(database.write()) as session:
        return add_company(session, PASSWORD, hash_password(PASSWORD, 4), items=items, orders=orders)


@contextmanager
def seeded(template: Path, folder: Path) -> Generator[Session]:
    """The rows of a new company."""
    shutil.copy(template, folder / "app.db")
    database = Database(Settings(database_url=f"sqlite:///{folder}/app.db"))
    seed(database)
    with database.read() as session:
        yield session
    database.close()


@pytest.fixture(scope="module")
def company(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Session]:
    """The rows of a company, which the tests only read."""
    with seeded(template, tmp_path_factory.mktemp("company")) as rows:
        yield rows


@pytest.fixture
def rows(app: App) -> Generator[Session]:
    """What is in the database of the app when the test looks."""
    with app.state.database.read() as session:
        yield session


def quantities(rows: Session, item: Item) -> list[list[int | None]]:
    """How the stock of an item changed, from the audit."""
    entries = select(AuditEntry).where(AuditEntry.entity == "item", AuditEntry.entity_id == item.id)
    return [entry.changes["quantity"] for entry in rows.exec(entries.order_by(col(AuditEntry.id)))]


# People


def test_seed_names_an_admin_and_members_who_can_sign_in(
    command: Callable[..., Result], client: TestClient, sign_in: Callable[[str, str], Person]
) -> None:
    output = command("seed", "--items", "50", "--orders", "40").stdout
    password = output.partition("have the password ")[2].partition(".")[0]
    ada, max = sign_in("ada@example.com", password), sign_in("max@example.com", password)

    assert "Added 12 people, 50 items and 40 orders.\n" in output
    assert "  ada@example.com (Ada Lindqvist, admin)\n  max@example.com (Max Adeyemi, member)\n" in output
    assert (ada.get("/users").json()["total"], ada.get("/items").json()["total"]) == (12, 50)
    assert ada.get("/orders").json()["total"] == 40
    assert max.get("/users/me").json()["full_name"] == "Max Adeyemi"
    assert ada.get("/dashboard").json()["recent_orders"] != []


def test_there_is_one_admin_among_people_with_real_names(company: Session) -> None:
    people = company.exec(select(User).order_by(col(User.id))).all()

    assert {user.email: user.full_name for user in people} == COMPANY.people
    assert [user.email for user in people if user.role == "admin"] == ["ada@example.com"]
    for user in people:
        fields = user.model_dump(include={"email", "full_name", "role"})
        assert UserCreate.model_validate(fields | {"password": PASSWORD}).email == user.email
        assert user.full_name_key == folded(user.full_name)


# Always the same


def told(rows: Session) -> list[object]:
    """All that a company is, without the times, which end now."""
    items = [
        item.model_dump(exclude={"created_at", "updated_at"}) for item in rows.exec(select(Item).order_by(col(Item.id)))
    ]
    orders = [
        (order.user_id, order.status, order.total_cents, [(line.item_id, line.quantity) for line in order.lines])
        for order in rows.exec(select(Order).order_by(col(Order.id)))
    ]
    posts = [(post.creator_id, post.title) for post in rows.exec(select(Post).order_by(col(Post.id)))]
    comments = [
        (row.post_id, row.creator_id, row.content) for row in rows.exec(select(Comment).order_by(col(Comment.id)))
    ]
    return [items, orders, posts, comments]


def test_the_company_is_the_same_every_time(company: Session, template: Path, tmp_path: Path) -> None:
    with seeded(template, tmp_path) as another:
        assert told(another) == told(company)


# Stock and orders


def test_no_unit_is_lost_or_made_up(company: Session) -> None:
    kept: Counter[int] = Counter()
    for order in company.exec(select(Order)):
        assert order.total_cents == sum(line.quantity * line.unit_price_cents for line in order.lines)
        if order.status != "cancelled":
            kept.update({line.item_id: line.quantity for line in order.lines})

    for item in company.exec(select(Item)):
        steps = quantities(company, item)
        assert steps[0][0] is None
        assert all(before[1] == after[0] for before, after in pairwise(steps))
        assert min(step[1] or 0 for step in steps) >= 0
        assert (steps[-1][1], len(steps)) == (item.quantity, item.version)
        assert item.quantity + kept[item.id] == steps[0][1]


def test_every_item_is_one_that_an_admin_could_add(company: Session) -> None:
    items = company.exec(select(Item)).all()

    assert len({item.name_key for item in items}) == 60
    for item in items:
        ItemCreate.model_validate(item.model_dump(include=set(ItemCreate.model_fields)))
        assert item.name_key == folded(item.name)


def test_the_stock_is_worth_looking_at(app: App, rows: Session) -> None:
    seed(app.state.database, items=200, orders=0)
    items = rows.exec(select(Item)).all()

    assert 0 < sum(item.quantity <= item.reorder_level for item in items) < 100
    assert {"light", "furniture", "paper"} <= {tag for item in items for tag in item.tags}
    assert len({item.price_cents for item in items}) > 50


def test_more_items_than_the_catalogue_has_are_editions_of_it(app: App, rows: Session) -> None:
    seed(app.state.database, items=3_000, orders=0)
    names = rows.exec(select(Item.name_key)).all()

    assert len(set(names)) == 3_000
    assert any("edition 3" in name for name in names)


def test_most_orders_are_fulfilled_and_some_cancelled_or_pending(company: Session) -> None:
    statuses = Counter(order.status for order in company.exec(select(Order)))

    assert statuses.total() == 400
    assert statuses["fulfilled"] > 300
    assert statuses["cancelled"] > 10
    assert 0 < statuses["pending"] < 40


def test_many_orders_of_few_items_are_filled_from_the_stock(app: App, rows: Session) -> None:
    joined, placed = seed(app.state.database, items=3, orders=500)

    assert (len(joined), placed) == (12, 500)
    assert len(rows.exec(select(Order.id)).all()) == 500
    assert all(item.quantity >= 0 for item in rows.exec(select(Item)))


# Times


def test_what_happened_is_spread_over_the_year(company: Session) -> None:
    first_day = now() - YEAR
    for table in (Order, Post, Comment, Notification):
        times = sorted(row.created_at for row in company.exec(select(table)))

        assert first_day - HOUR < times[0] < first_day + timedelta(days=15), table
        assert now() - timedelta(days=15) < times[-1] <= now(), table
        assert max(after - before for before, after in pairwise(times)) < timedelta(days=15), table


def test_orders_are_closed_after_they_were_placed_and_in_the_order_of_time(company: Session) -> None:
    orders = company.exec(select(Order).order_by(col(Order.id))).all()
    entries = company.exec(select(AuditEntry).order_by(col(AuditEntry.id))).all()

    assert [order.created_at for order in orders] == sorted(order.created_at for order in orders)
    for order in orders:
        closed_after = order.updated_at - order.created_at
        assert closed_after == timedelta(0) if order.status == "pending" else 2 * HOUR <= closed_after <= 120 * HOUR
        assert order.updated_at <= now()
    at_of_orders = [entry.at for entry in entries if entry.entity in ("order", "item")]
    assert at_of_orders == sorted(at_of_orders)


def test_posts_have_the_texts_that_belong_together(company: Session) -> None:
    texts = {title: (content, answers) for title, content, answers in COMPANY.posts}
    posts = company.exec(select(Post)).all()

    assert {post.title for post in posts} == set(texts)
    for post in posts:
        content, answers = texts[post.title]
        PostCreate(title=post.title, content=post.content)
        comments = company.exec(select(Comment).where(Comment.post_id == post.id).order_by(col(Comment.id))).all()
        assert (post.content, [comment.content for comment in comments]) == (content, answers)
        assert all(comment.creator_id != post.creator_id for comment in comments)
        assert all(comment.created_at > post.created_at for comment in comments)
        assert post.version == 1


# Audit and notifications


def test_the_audit_says_who_did_what(company: Session) -> None:
    entries = company.exec(select(AuditEntry)).all()
    [admin_id] = company.exec(select(User.id).where(User.role == "admin")).all()
    acted = {(entry.entity, entry.entity_id, entry.action): entry for entry in entries if entry.action != "update"}

    for order in company.exec(select(Order)):
        assert acted["order", order.id, "create"].actor_id == order.user_id
        assert acted["order", order.id, "create"].at == order.created_at
    for table in (Post, Comment):
        for row in company.exec(select(table)):
            assert acted[table.__name__.lower(), row.id, "create"].actor_id == row.creator_id
    closed = [entry for entry in entries if entry.entity == "order" and entry.action == "update"]
    assert {entry.actor_id for entry in closed} == {admin_id}


def test_the_admin_is_told_of_every_order_of_the_others(company: Session) -> None:
    ada = company.exec(select(User).where(User.role == "admin")).one()
    placed = select(Notification).where(Notification.kind == "order_placed", Notification.user_id == ada.id)
    others = [order for order in company.exec(select(Order)) if order.user_id != ada.id]

    assert len(company.exec(placed).all()) == len(others)


def test_what_is_older_than_a_week_was_read(company: Session) -> None:
    notifications = company.exec(select(Notification)).all()
    a_week_ago = now() - timedelta(days=7)

    assert {row.kind for row in notifications} >= {"order_placed", "order_fulfilled", "order_cancelled", "comment"}
    assert all((row.read_at is not None) == (row.created_at < a_week_ago + HOUR) for row in notifications)


# Adding to what is there


def test_seed_adds_to_a_database_with_users_when_forced(
    command: Callable[..., Result], ada: Person, max: Person
) -> None:
    refused = command("seed")
    first = command("seed", "--force", "--items", "20", "--orders", "10").stdout
    second = command("seed", "--force", "--items", "1300", "--orders", "0").stdout

    assert refused.stderr == "Error: The database has users already; use --force to add to them.\n"
    assert "Added 10 people, 20 items and 10 orders." in first
    assert "Added 0 people, 1300 items and 0 orders." in second
    assert "password" not in second
    assert (ada.get("/users").json()["total"], ada.get("/items").json()["total"]) == (12, 1_320)
    assert ada.get("/users/me").json()["full_name"] == "Ada"


def test_without_items_nothing_is_ordered(app: App) -> None:
    joined, placed = seed(app.state.database, items=0, orders=10)

    assert (len(joined), placed) == (12, 0)


# The command


def test_seed_says_how_much_it_adds_by_itself(command: Command) -> None:
    assert [f"[default: {number}]" in command("seed", "--help").stdout for number in (200, 400)] == [True, True]


def test_seed_wants_right_settings_and_a_database_that_is_migrated(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/none.db")
    monkeypatch.setenv("APP_MIGRATE_ON_START", "false")
    assert "run 'uv run manage.py migrate' first" in command("seed").stderr
    assert not (tmp_path / "none.db").exists()
    monkeypatch.setenv("APP_LOGIN_ATTEMPTS", "many")
    assert str(command("seed").exception).startswith("APP_LOGIN_ATTEMPTS is wrong")


def test_seed_takes_no_negative_number(command: Command) -> None:
    assert command("seed", "--items", "-1").exit_code == 2
    assert "Added 12 people, 0 items and 0 orders." in command("seed", "--items", "0").stdout


@pytest.mark.sqlite_only("it watches the file")
def test_seeding_that_is_stopped_leaves_nothing_behind(app: App, settings: Settings, tmp_path: Path) -> None:
    log = Path(f"{settings.sqlite_path}-wal")
    seeding = subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
        [sys.executable, manage.__file__, "seed", "--items", "1000000", "--orders", "0"],
        cwd=tmp_path,
        env={"APP_DATABASE_URL": settings.database_url, "APP_BCRYPT_ROUNDS": "4"},
        stderr=subprocess.DEVNULL,
        preexec_fn=heed_interrupts,
    )
    while not (log.exists() and log.stat().st_size > 1_000_000):  # until thousands of items are written
        assert seeding.poll() is None
        time.sleep(0.01)
    seeding.send_signal(signal.SIGINT)

    assert seeding.wait() == 130
    with TestClient(app), app.state.database.read() as session:
        assert session.exec(select(User)).all() == []
        assert session.exec(select(Item)).all() == []


def heed_interrupts() -> None:
    """A process that was started in the background hands down that it ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
