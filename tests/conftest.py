"""What every test starts from: a fresh database on a real SQLite file, the app on it, and people who are signed in."""

import os
import shutil
import sys
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from settings import Settings

# The settings of whoever runs the tests must not change them; `app` reads its own when it is imported.
for name in [name for name in os.environ if name.startswith("APP_")]:
    del os.environ[name]
os.environ["APP_SECRET_KEY"] = "a key for the tests that nobody else may use"
Settings.model_config["env_file"] = None

import manage
from app import create_app
from kit import app as kit_app
from kit import schema
from kit.app import App
from kit.db import Database
from kit.settings import load_settings
from tests.databases import PostgresDatabase, SqliteFile
from tests.outbox import Outbox
from tests.people import API, LAMP, PASSWORD, Person, Row, joined, signed_in
from tests.postgres import Postgres, running_postgres
from tests.scheduling import Scheduling, is_heavy
from tests.shared_app import SharedApp
from tests.visitors import Visitor, visiting

__all__ = ["API", "PASSWORD", "Person"]

MakeApp = Callable[[Settings], App]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="what the tests run on that do not name a database themselves (default: %(default)s)",
    )
    parser.addoption("--screenshots", metavar="FOLDER", help="keep a picture of every page in this folder")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not is_heavy(item.nodeid))  # they take longest, so they come first
    if config.getoption("--database") == "sqlite":
        return
    for item in items:
        if mark := item.get_closest_marker("sqlite_only"):
            item.add_marker(pytest.mark.skip(f"It needs SQLite: {mark.args[0]}."))


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Leave nothing in the folder of the system, where apps on PostgreSQL share the cores of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("temporary")
        patch.setattr(kit_app, "gettempdir", lambda: str(folder))
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file to copy: faster than migrating for every test."""
    path = tmp_path_factory.mktemp("template") / "app.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    """A PostgreSQL server of our own for as long as the tests run."""
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    """The name of a migrated, empty database on that server."""
    url = postgres.create()
    _migrate(url)
    return url.rpartition("/")[2]


def _migrate(url: str) -> None:
    database = Database(Settings(database_url=url))
    schema.upgrade(database)
    database.close()


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, template: Path) -> Generator[Settings]:
    """The settings of an app that is this test's alone, with an empty database: who asks for them gets such an app."""
    if getattr(request, "param", request.config.getoption("--database")) == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create(request.getfixturevalue("postgres_template"))
        yield _settings(url)
        postgres.drop(url)
    else:
        path = tmp_path / "app.db"
        shutil.copy(template, path)
        yield _settings(f"sqlite:///{path}")


def _settings(database_url: str) -> Settings:
    return Settings(
        database_url=database_url, environment="development", bcrypt_rounds=4, auth_rate_limit="100000/minute"
    )


@pytest.fixture(scope="session")
def make_app() -> MakeApp:
    """What makes an app for a test; `tests/kit` makes its own, with a noun that only the tests have."""
    return create_app


@pytest.fixture(scope="session")
def shared_app(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_app: MakeApp
) -> Generator[SharedApp]:
    """The app of all tests that do not need one of their own; it starts with the first of them."""
    yield from sharing(request, tmp_path_factory, make_app)


def sharing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_app: MakeApp
) -> Generator[SharedApp]:
    """One app, started on a database that can be put back."""
    if request.config.getoption("--database") == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create(request.getfixturevalue("postgres_template"))
        database = PostgresDatabase(url)
    else:
        path = tmp_path_factory.mktemp("shared") / "app.db"
        shutil.copy(request.getfixturevalue("template"), path)
        url, database = f"sqlite:///{path}", SqliteFile(path)
    with SharedApp(make_app(_settings(url)), database) as shared_app:
        yield shared_app


def _shared(request: pytest.FixtureRequest) -> SharedApp | None:
    """The shared app, unless this test needs one of its own.

    That is so if it asks for `settings`, itself or by a fixture such as an `app` of its module; if its module has
    `settings` of its own; or if it looks at the log, whose stream an app finds when it starts.
    """
    of_module: object = vars(sys.modules[request.function.__module__]).get("settings")
    own_settings = of_module is not None and not isinstance(of_module, type)  # Hypothesis has a class of that name
    if own_settings or {"settings", "capsys", "capfd"} & set(request.fixturenames):
        return None
    return request.getfixturevalue("shared_app")


@pytest.fixture
def fresh_app(settings: Settings) -> None:
    """For a test that would leave traces in the shared app: it gets one of its own, as with `settings`."""


@pytest.fixture
def app(request: pytest.FixtureRequest, make_app: MakeApp) -> App:
    """The app: the shared one as if it had just started, or one of the test's own, which `client` starts."""
    shared = _shared(request)
    if shared is None:
        return make_app(request.getfixturevalue("settings"))
    wanted = [name for name in request.fixturenames if name in ("max", "eva")]
    admin = [name for name in ("ada",) if name in request.fixturenames]
    shared.begin([*admin, *wanted, *(name for name in ("lamp",) if name in request.fixturenames)])
    return shared.app


@pytest.fixture
def client(request: pytest.FixtureRequest, app: App) -> Generator[TestClient]:
    shared = _shared(request)
    if shared is not None:
        yield shared.client
        return
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def swap(app: App, client: TestClient) -> Generator[Callable[[str, object], None]]:
    """Puts something else into the state of the app, until the test ends."""
    before: dict[str, object] = {}

    def swap(name: str, value: object) -> None:
        before.setdefault(name, getattr(app.state, name))
        setattr(app.state, name, value)

    yield swap
    for name, value in before.items():
        setattr(app.state, name, value)


@pytest.fixture
def change_settings(app: App, swap: Callable[[str, object], None]) -> Callable[..., None]:
    """Lets the app go on with other settings, of those that it asks for with every request."""

    def change(**changes: Any) -> None:
        swap("settings", app.state.settings.model_copy(update=changes))

    return change


@pytest.fixture
def other_worker(app: App, client: TestClient) -> Generator[TestClient]:
    """Another worker of the app, on the same database."""
    with TestClient(create_app(app.state.settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def outbox(app: App, client: TestClient, swap: Callable[[str, object], None]) -> Outbox:
    """The mail that is written while the test runs."""
    outbox = Outbox(app, client)
    swap("mailer", outbox)
    return outbox


@pytest.fixture
def command(app: App, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command of `manage.py` on the database of the app."""
    monkeypatch.setenv("APP_DATABASE_URL", app.settings.database_url)
    monkeypatch.setenv("APP_BCRYPT_ROUNDS", "4")
    monkeypatch.setattr(manage, "get_settings", partial(load_settings, Settings))  # not those of the process

    def command(*words: str, stdin: str = "") -> Result:
        return CliRunner().invoke(manage.app, words, input=stdin)

    return command


@pytest.fixture
def sign_in(client: TestClient) -> Callable[..., Person]:
    """Signs somebody in who has an account."""
    return partial(signed_in, client)


@pytest.fixture
def join(client: TestClient) -> Callable[[str], Person]:
    """Registers somebody by their first name, and signs them in."""
    return partial(joined, client)


def _person(request: pytest.FixtureRequest, client: TestClient) -> Person:
    """Whom a fixture is named after: signed in since the test began, or now."""
    shared = _shared(request)
    name = request.fixturename or ""
    return (shared and shared.person(name)) or joined(client, name)


@pytest.fixture
def ada(request: pytest.FixtureRequest, client: TestClient) -> Person:
    """The admin: the first account."""
    return _person(request, client)


@pytest.fixture
def max(request: pytest.FixtureRequest, ada: Person) -> Person:
    """A member."""
    return _person(request, ada.client)


@pytest.fixture
def eva(request: pytest.FixtureRequest, ada: Person) -> Person:
    """Another member."""
    return _person(request, ada.client)


@pytest.fixture
def zoe(ada: Person, sign_in: Callable[..., Person]) -> Person:
    """Another admin."""
    ada.post("/users", {"email": "zoe@example.com", "full_name": "Zoe", "password": PASSWORD, "role": "admin"})
    return sign_in("zoe@example.com")


@pytest.fixture
def visit(client: TestClient) -> Callable[[Person], Visitor]:
    """Opens a browser in which somebody is signed in."""
    return lambda person: visiting(client, person.email)


@pytest.fixture
def lamp(request: pytest.FixtureRequest, ada: Person) -> dict[str, Any]:
    """An item: ten lamps."""
    shared = _shared(request)
    return (shared and shared.lamp()) or ada.post("/items", LAMP).json()


@pytest.fixture
def written(ada: Person) -> Callable[[], list[Row]]:
    """What was written since the last look, the oldest first, without what the tests of their own are about."""
    seen = 0

    def look() -> list[Row]:
        nonlocal seen
        entries: list[Row] = ada.get("/audit?limit=100").json()["items"]
        new = [entry for entry in reversed(entries) if entry["id"] > seen]
        seen = entries[0]["id"]
        names = ("actor_id", "action", "entity", "entity_id", "changes")
        return [{name: entry[name] for name in names} for entry in new]

    return look
