"""What every test starts from: a fresh database on a real SQLite file, the app on it, and people who are signed in."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from fastapi.testclient import TestClient

from settings import Settings

# The settings of whoever runs the tests must not change them; `app` reads its own when it is imported.
for name in [name for name in os.environ if name.startswith("APP_")]:
    del os.environ[name]
os.environ["APP_SECRET_KEY"] = "a key for the tests that nobody else may use"
Settings.model_config["env_file"] = None

from app import Stockroom, create_app
from kit import schema
from kit.db import Database
from tests.databases import SqliteFile
from tests.people import API, LAMP, PASSWORD, Person, joined, signed_in
from tests.shared_app import SharedApp

__all__ = ["API", "PASSWORD", "Person"]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database to copy: faster than migrating for every test."""
    path = tmp_path_factory.mktemp("template") / "app.db"
    database = Database(Settings(database_url=f"sqlite:///{path}"))
    schema.upgrade(database)
    database.close()
    return path


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, template: Path) -> Settings:
    """The settings of an app that is this test's alone, with an empty database: who asks for them gets such an app."""
    path = tmp_path / "app.db"
    shutil.copy(template, path)
    settings = _settings(f"sqlite:///{path}")
    if getattr(request, "param", "sqlite") == "sqlite":
        return settings
    server: str = request.getfixturevalue("postgres_url")
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return settings.model_copy(update={"database_url": f"{server.rpartition('/')[0]}/{name}"})


def _settings(database_url: str) -> Settings:
    return Settings(
        database_url=database_url, environment="development", bcrypt_rounds=4, auth_rate_limit="100000/minute"
    )


@pytest.fixture(scope="session")
def shared_app(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[SharedApp]:
    """The app of all tests that do not need one of their own; it starts with the first of them."""
    path = tmp_path_factory.mktemp("shared") / "app.db"
    shutil.copy(template, path)
    with SharedApp(_settings(f"sqlite:///{path}"), SqliteFile(path)) as shared_app:
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
def app(request: pytest.FixtureRequest) -> Stockroom:
    """The app: the shared one as if it had just started, or one of the test's own, which `client` starts."""
    shared = _shared(request)
    if shared is None:
        return create_app(request.getfixturevalue("settings"))
    wanted = [name for name in request.fixturenames if name in ("max", "eva")]
    admin = [name for name in ("ada",) if name in request.fixturenames]
    shared.begin([*admin, *wanted, *(name for name in ("lamp",) if name in request.fixturenames)])
    return shared.app


@pytest.fixture
def client(request: pytest.FixtureRequest, app: Stockroom) -> Generator[TestClient]:
    shared = _shared(request)
    if shared is not None:
        yield shared.client
        return
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


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
def lamp(request: pytest.FixtureRequest, ada: Person) -> dict[str, Any]:
    """An item: ten lamps."""
    shared = _shared(request)
    return (shared and shared.lamp()) or ada.post("/items", LAMP).json()


@pytest.fixture(scope="session")
def postgres_url() -> Generator[str]:
    """The URL of a PostgreSQL server of our own, on a free port of this machine, for as long as the tests run."""
    debian = (str(folder) for folder in Path("/usr/lib/postgresql").glob("*/bin"))  # which are not on its PATH
    path = os.pathsep.join([os.environ["PATH"], *debian])
    initdb, pg_ctl = shutil.which("initdb", path=path), shutil.which("pg_ctl", path=path)
    if initdb is None or pg_ctl is None:
        pytest.fail("These tests start a PostgreSQL server; install one, so that initdb and pg_ctl can be found.")
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # it refuses to run as root
    user, group = (nobody.pw_uid, nobody.pw_gid) if nobody else (None, None)

    def run(*command: str) -> None:
        done = subprocess.run(  # noqa: S603 - PostgreSQL's own programs
            command, cwd=folder, user=user, group=group, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.fail(f"PostgreSQL does not start: {done.stdout}{done.stderr}")

    with tempfile.TemporaryDirectory(prefix="stockroom-") as folder, socket.socket() as free:
        if user is not None and group is not None:
            os.chown(folder, user, group)
        run(initdb, "--pgdata=data", "--username=stockroom", "--auth=trust", "--encoding=UTF8", "--no-sync")
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        free.close()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        run(pg_ctl, "start", "--wait", "--pgdata=data", "--log=log", f"--options={options}")
        yield f"postgresql://stockroom@127.0.0.1:{port}/postgres"
        run(pg_ctl, "stop", "--pgdata=data", "--mode=immediate")
