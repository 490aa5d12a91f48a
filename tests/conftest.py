"""What every test starts from: a fresh database on a real SQLite file, the app on it, and people who are signed in."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from settings import Settings

# The settings of whoever runs the tests must not change them; `app` reads its own when it is imported.
for name in [name for name in os.environ if name.startswith("APP_")]:
    del os.environ[name]
os.environ["APP_SECRET_KEY"] = "a key for the tests that nobody else may use"
Settings.model_config["env_file"] = None

from app import Stockroom, create_app
from kit import schema
from kit.db import Database

API = "/api/v1"
PASSWORD = "Correct-horse-1"


@dataclass
class Person:
    """Somebody signed in; paths are below `/api/v1`."""

    client: TestClient
    id: int
    email: str
    access_token: str
    refresh_token: str

    def request(self, method: str, path: str, **options: Any) -> Response:
        headers = {"Authorization": f"Bearer {self.access_token}"} | options.pop("headers", {})
        return self.client.request(method, API + path, headers=headers, **options)

    def get(self, path: str, **options: Any) -> Response:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> Response:
        return self.request("POST", path, json=json, **options)

    def put(self, path: str, json: Any = None, **options: Any) -> Response:
        return self.request("PUT", path, json=json, **options)

    def patch(self, path: str, json: Any = None, **options: Any) -> Response:
        return self.request("PATCH", path, json=json, **options)

    def delete(self, path: str, **options: Any) -> Response:
        return self.request("DELETE", path, **options)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database to copy: faster than migrating for every test."""
    path = tmp_path_factory.mktemp("template") / "app.db"
    database = Database(Settings(database_url=f"sqlite:///{path}"))
    schema.upgrade(database)
    database.close()
    return path


@pytest.fixture
def settings(tmp_path: Path, template: Path) -> Settings:
    path = tmp_path / "app.db"
    shutil.copy(template, path)
    return Settings(
        database_url=f"sqlite:///{path}", environment="development", bcrypt_rounds=4, auth_rate_limit="100000/minute"
    )


@pytest.fixture
def app(settings: Settings) -> Stockroom:
    return create_app(settings)


@pytest.fixture
def client(app: Stockroom) -> Generator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def sign_in(client: TestClient) -> Callable[..., Person]:
    """Signs somebody in who has an account."""

    def sign_in(email: str, password: str = PASSWORD) -> Person:
        tokens = client.post(f"{API}/auth/token", data={"username": email, "password": password}).json()
        person = Person(client, 0, email, tokens["access_token"], tokens["refresh_token"])
        person.id = person.get("/users/me").json()["id"]
        return person

    return sign_in


@pytest.fixture
def join(client: TestClient, sign_in: Callable[..., Person]) -> Callable[[str], Person]:
    """Registers somebody by their first name, and signs them in."""

    def join(name: str) -> Person:
        email = f"{name}@example.com"
        body = {"email": email, "full_name": name.capitalize(), "password": PASSWORD}
        assert client.post(f"{API}/auth/register", json=body).status_code == 201
        return sign_in(email)

    return join


@pytest.fixture
def ada(join: Callable[[str], Person]) -> Person:
    """The admin: the first account."""
    return join("ada")


@pytest.fixture
def max(ada: Person, join: Callable[[str], Person]) -> Person:
    """A member."""
    return join("max")


@pytest.fixture
def eva(ada: Person, join: Callable[[str], Person]) -> Person:
    """Another member."""
    return join("eva")


@pytest.fixture
def lamp(ada: Person) -> dict[str, Any]:
    """An item: ten lamps."""
    body = {"name": "Lamp", "price_cents": 1200, "quantity": 10, "reorder_level": 2, "tags": ["light"]}
    return ada.post("/items", body).json()


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
