"""The app as a whole: how it is put together, how it starts and stops, and what it asks of its process."""

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.routing import Match
from uvicorn import Config, Server

import auth
from auth import CurrentUser
from kit import app as kit_app
from kit.app import App, end_in_time, routes_of
from kit.db import Database
from kit.pages import Menu, PageRouter
from kit.routing import Route, Router
from kit.settings import StartRefused
from settings import Settings
from tests.conftest import MakeApp
from tests.missing import require_linux
from tests.people import API, PASSWORD, Person
from tests.server import ROOT

# How it is put together


def noun(*routers: APIRouter) -> ModuleType:
    module = ModuleType("noun")
    vars(module).update({f"router_{number}": router for number, router in enumerate(routers)})
    return module


def made_of(settings: Settings, *nouns: ModuleType, on_start: Callable[[Database], None] | None = None) -> App:
    calls = [on_start] if on_start else []
    texts: dict[str, Any] = {"title": "House", "summary": "Who sits where.", "version": "1.0", "api": API}
    return App(settings, **texts, nouns=nouns, credentials=auth.CREDENTIALS, on_start=calls)


def one(user: CurrentUser, room_id: str) -> str:
    return room_id


def fixed(user: CurrentUser) -> str:
    return "fixed"


def test_a_fixed_path_comes_before_one_with_a_parameter_in_whatever_order_they_are_declared() -> None:
    router = Router()
    router.get("/rooms/{room_id}")(one)
    router.get("/rooms/{room_id}/keys")(fixed)
    router.get("/rooms/export")(fixed)
    paths = [route.path for route in routes_of([router]) if isinstance(route, Route)]

    assert paths == ["/rooms/export", "/rooms/{room_id}", "/rooms/{room_id}/keys"]


def test_every_route_of_every_router_of_a_noun_is_served_once(app: App) -> None:
    """FastAPI advises against giving it routes, and may stop to take them."""
    given = [route for route in app.routes if isinstance(route, Route)]
    paths = [(route.path, method) for route in given for method in route.methods or ()]

    assert len(paths) == len(set(paths)) > 15
    for path, method in paths:
        scope: dict[str, Any] = {"type": "http", "method": method, "path": path.replace("{", "").replace("}", "")}
        matching = [route for route in given if route.matches(scope | {"headers": []})[0] is Match.FULL]
        assert path in [route.path for route in matching], (method, path)


def test_a_router_of_fastapi_is_served_beside_ours(settings: Settings) -> None:
    plain = APIRouter()
    plain.get("/plain")(lambda: "plain")
    with TestClient(made_of(settings, noun(plain))) as client:
        assert client.get("/plain").json() == "plain"
        assert client.get("/health").status_code == 200


def test_what_is_to_be_done_at_a_start_is_done_where_the_schema_is_right(settings: Settings, tmp_path: Path) -> None:
    started: list[Database] = []
    with TestClient(made_of(settings, on_start=started.append)) as client:
        assert started == [client.app.state.database]  # pyright: ignore
    unready = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/none.db", "migrate_on_start": False})
    with TestClient(made_of(unready, on_start=started.append)):
        assert len(started) == 1


# Health and readiness


def test_a_healthy_process_says_so(client: TestClient) -> None:
    answer = client.get("/health")

    assert answer.status_code == 200
    assert answer.json() == {"status": "healthy"}


@pytest.mark.sqlite_only("it deletes the file")
def test_health_does_not_need_the_database(client: TestClient, settings: Settings) -> None:
    settings.sqlite_path.unlink()

    assert client.get("/health").status_code == 200


def test_an_app_with_its_database_is_ready(client: TestClient) -> None:
    answer = client.get("/ready")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "database": "connected"}


@pytest.mark.sqlite_only("it deletes the file")
def test_an_app_whose_database_is_deleted_is_not_ready(client: TestClient, ada: Person, settings: Settings) -> None:
    settings.sqlite_path.unlink()
    answer = client.get("/ready")

    assert answer.status_code == 503
    assert answer.json()["error_code"] == "DATABASE_UNAVAILABLE"
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.sqlite_only("it writes over the file")
def test_an_app_whose_database_is_damaged_is_not_ready(client: TestClient, settings: Settings) -> None:
    settings.sqlite_path.write_bytes(b"not a database at all" * 1000)

    assert client.get("/ready").status_code == 503


def test_an_app_whose_database_has_another_schema_is_not_ready(client: TestClient, settings: Settings) -> None:
    with closing(Database(settings)) as database, database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'another'")

    assert client.get("/ready").status_code == 503


def test_an_app_that_may_not_migrate_starts_and_is_not_ready_without_a_schema(
    tmp_path: Path, make_app: MakeApp
) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/none.db", migrate_on_start=False)
    with TestClient(make_app(settings)) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503


# Addresses


@pytest.mark.parametrize("path", ["/nothing", "/api/v1", "/api/v1/nothing", "/api/v2/rooms", "/health/more"])
def test_an_address_where_nothing_is_answers_404(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 404
    assert answer.json()["error_code"] == "NOT_FOUND"


def page_router(*menu: Menu) -> PageRouter:
    """A router with such a menu, and with a page at `/rooms`."""
    pages = PageRouter(*menu)
    pages.get("/rooms")(fixed)
    return pages


def first_page(settings: Settings, *menu: Menu) -> tuple[int, str]:
    """How the address without a path is answered."""
    module = noun()
    vars(module)["pages"] = page_router(*menu)
    with TestClient(made_of(settings, module)) as client:
        answer = client.get("/", follow_redirects=False)
    return answer.status_code, answer.headers.get("Location", "")


def test_without_a_path_one_is_led_to_the_first_page_of_the_menu_that_is_for_everybody(settings: Settings) -> None:
    keys = Menu("Keys", "/keys", "key", for_admins=True)
    rooms, people = Menu("Rooms", "/rooms", "box"), Menu("People", "/people", "users")

    assert first_page(settings, keys, rooms, people) == (303, "/rooms")
    assert first_page(settings, keys) == (303, "/keys")
    assert first_page(settings) == (404, "")


def test_a_template_may_ask_whether_there_is_a_page(settings: Settings) -> None:
    module = noun()
    vars(module)["pages"] = page_router()
    template = made_of(settings, module).renderer.environment.from_string(
        "{{ has_page('/rooms') }} {{ has_page('/keys') }}"
    )

    assert template.render() == "True False"


@pytest.mark.parametrize("path", ["/health/", "/ready/", "/api/v1/rooms/", "/api/v1/rooms/1/", "/api/v1/users/me/"])
def test_a_trailing_slash_is_another_address_and_no_redirect(client: TestClient, ada: Person, path: str) -> None:
    answer = client.get(path, headers={"Authorization": f"Bearer {ada.access_token}"}, follow_redirects=False)

    assert answer.status_code == 404
    assert "Location" not in answer.headers


def test_a_method_that_an_address_does_not_take_is_answered_with_those_that_it_takes(client: TestClient) -> None:
    answer = client.put(f"{API}/rooms/1")

    assert answer.status_code == 405
    assert answer.json()["error_code"] == "METHOD_NOT_ALLOWED"
    assert answer.headers["Allow"] == "DELETE, GET, PATCH"


# Start and stop


def test_the_first_start_makes_folder_database_and_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_app: MakeApp
) -> None:
    monkeypatch.delenv("APP_SECRET_KEY")
    folder = tmp_path / "a" / "new" / "folder"
    with TestClient(make_app(Settings(database_url=f"sqlite:///{folder}/app.db"))) as client:
        assert client.get("/ready").status_code == 200

    assert sorted(path.name for path in folder.iterdir()) == ["app.db", "app.db-hashing", "app.db-lock", "secret_key"]
    assert (folder / "secret_key").stat().st_mode & 0o777 == 0o600


def test_an_app_opens_nothing_before_it_starts(tmp_path: Path, make_app: MakeApp) -> None:
    make_app(Settings(database_url=f"sqlite:///{tmp_path}/new/app.db"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_a_graceful_stop_leaves_the_whole_database_in_one_file(settings: Settings, make_app: MakeApp) -> None:
    log = settings.sqlite_path.with_name("app.db-wal")
    account = {"email": "ada@example.com", "full_name": "Ada", "password": PASSWORD}
    with TestClient(make_app(settings)) as client:
        client.post(f"{API}/auth/register", json=account)
        assert log.exists()

    assert not log.exists()


def test_a_start_that_is_refused_closes_its_connections(settings: Settings) -> None:
    def refuse(database: Database) -> None:
        with database.read() as session:
            session.connection()
        raise StartRefused("Not today.")

    app = made_of(settings, on_start=refuse)
    with pytest.raises(StartRefused, match="Not today"), TestClient(app):
        pass

    assert app.state.database.engine.pool.checkedin() == 0


def test_two_apps_in_one_process_keep_their_settings_apart(
    client: TestClient, ada: Person, tmp_path: Path, make_app: MakeApp
) -> None:
    other = Settings(
        database_url=f"sqlite:///{tmp_path}/other.db",
        environment="production",
        secret_key=SecretStr("another key for the tests of two apps"),
    )
    bearer = {"Authorization": f"Bearer {ada.access_token}"}
    account = {"email": "tom@example.com", "full_name": "Tom", "password": PASSWORD}
    with TestClient(make_app(other)) as stranger:
        assert stranger.get(f"{API}/users/me", headers=bearer).status_code == 401
        assert stranger.post(f"{API}/auth/register", json=account).status_code == 403
        assert stranger.get("/docs").status_code == 404
        assert "Strict-Transport-Security" in stranger.get("/health").headers

    assert ada.get("/users/me").status_code == 200
    assert client.get("/docs").status_code == 200
    assert "Strict-Transport-Security" not in client.get("/health").headers


# What it asks of its process


def test_a_process_may_have_as_many_files_open_as_the_system_allows() -> None:
    require_linux()
    limits = (
        "import resource; from kit.app import open_many_files;"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE);"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, most)); open_many_files();"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)"
    )

    subprocess.run([sys.executable, "-c", limits], cwd=ROOT, check=True)  # noqa: S603 - our own


def test_a_process_is_tuned_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, make_app: MakeApp, tmp_path: Path
) -> None:
    """The app of `client` has started, so nothing is left to be tuned."""
    monkeypatch.setattr("gc.freeze", lambda: pytest.fail("It was tuned twice."))
    with TestClient(make_app(Settings(database_url=f"sqlite:///{tmp_path}/app.db", environment="development"))):
        assert client.get("/health").status_code == 200
    assert sys.getswitchinterval() == pytest.approx(0.001)


@pytest.mark.parametrize(("environment", "warned"), [("development", True), ("production", False)])
def test_in_development_the_log_says_at_start_what_the_database_lacks(
    settings: Settings, make_app: MakeApp, capsys: pytest.CaptureFixture[str], environment: str, warned: bool
) -> None:
    with closing(Database(settings)) as database, database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE post RENAME COLUMN title TO heading")
    with TestClient(make_app(settings.model_copy(update={"environment": environment}))) as client:
        assert client.get("/ready").status_code == 200

    differ = "The models and the database differ (post.heading, post.title): 'uv run manage.py revision TEXT' writes"
    assert (differ in capsys.readouterr().err) is warned


class Asked(Server):
    """A server that notes which signals it is asked to handle."""

    def __init__(self) -> None:
        super().__init__(Config("app:app"))
        self.signals: list[int] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.signals.append(sig)
        self.should_exit = True


def test_the_server_is_found_through_its_signal_handler_and_ends_in_time() -> None:
    """uvicorn gives an app no way to ask for its server."""
    server = Asked()
    with server.capture_signals():
        end_in_time()
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)

    assert server.config.timeout_graceful_shutdown == kit_app.GRACEFUL_SHUTDOWN_SECONDS
    assert server.signals == [signal.SIGINT]


def test_a_bound_that_somebody_gave_the_server_is_kept() -> None:
    server = Asked()
    server.config.timeout_graceful_shutdown = 3
    with server.capture_signals():
        end_in_time()

    assert server.config.timeout_graceful_shutdown == 3


def test_without_a_server_the_signal_stays_what_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    end_in_time()

    assert signal.getsignal(signal.SIGTERM) is before
