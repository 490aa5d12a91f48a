"""The app as a whole: how it starts and stops, what it says of itself, and how its modules hang together."""

import ast
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app import create_app
from settings import Settings, StartRefused
from tests.conftest import API, PASSWORD, Person

ROOT = Path(__file__).parent.parent


# Health and readiness


def test_a_healthy_process_says_so(client: TestClient) -> None:
    answer = client.get("/health")

    assert answer.status_code == 200
    assert answer.json() == {"status": "healthy"}


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_health_does_not_need_the_database(client: TestClient, settings: Settings) -> None:
    settings.sqlite_path.unlink()

    assert client.get("/health").status_code == 200


def test_an_app_with_its_database_is_ready(client: TestClient) -> None:
    answer = client.get("/ready")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "database": "connected"}


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_an_app_whose_database_is_deleted_is_not_ready(client: TestClient, ada: Person, settings: Settings) -> None:
    settings.sqlite_path.unlink()
    answer = client.get("/ready")

    assert answer.status_code == 503
    assert answer.json()["error_code"] == "DATABASE_UNAVAILABLE"
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_an_app_whose_database_is_damaged_is_not_ready(client: TestClient, settings: Settings) -> None:
    settings.sqlite_path.write_bytes(b"not a database at all" * 1000)

    assert client.get("/ready").status_code == 503


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_an_app_whose_database_has_another_schema_is_not_ready(client: TestClient, settings: Settings) -> None:
    database = sqlite3.connect(settings.sqlite_path)
    with database:
        database.execute("UPDATE alembic_version SET version_num = 'another'")
    database.close()

    assert client.get("/ready").status_code == 503


def test_an_app_that_may_not_migrate_starts_and_is_not_ready_without_a_schema(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/none.db", migrate_on_start=False)
    with TestClient(create_app(settings)) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503


# Addresses


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/v1", "/api/v1/nothing", "/api/v2/items", "/health/more"])
def test_an_address_where_nothing_is_answers_404(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 404
    assert answer.json()["error_code"] == "NOT_FOUND"


@pytest.mark.parametrize("path", ["/health/", "/ready/", "/api/v1/items/", "/api/v1/items/1/", "/api/v1/users/me/"])
def test_a_trailing_slash_is_another_address_and_no_redirect(client: TestClient, ada: Person, path: str) -> None:
    answer = client.get(path, headers={"Authorization": f"Bearer {ada.access_token}"}, follow_redirects=False)

    assert answer.status_code == 404
    assert "Location" not in answer.headers


def test_a_method_that_an_address_does_not_take_is_answered_with_those_that_it_takes(client: TestClient) -> None:
    answer = client.put(f"{API}/items/1")

    assert answer.status_code == 405
    assert answer.json()["error_code"] == "METHOD_NOT_ALLOWED"
    assert answer.headers["Allow"] == "DELETE, GET, PATCH"


# Start and stop


def test_the_first_start_makes_folder_database_and_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APP_SECRET_KEY")
    folder = tmp_path / "a" / "new" / "folder"
    with TestClient(create_app(Settings(database_url=f"sqlite:///{folder}/app.db"))) as client:
        assert client.get("/ready").status_code == 200

    assert sorted(path.name for path in folder.iterdir()) == ["app.db", "secret_key"]
    assert (folder / "secret_key").stat().st_mode & 0o777 == 0o600


def test_an_app_opens_nothing_before_it_starts(tmp_path: Path) -> None:
    create_app(Settings(database_url=f"sqlite:///{tmp_path}/new/app.db"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.sqlite_only("it looks at the file of the database")
def test_a_graceful_stop_leaves_the_whole_database_in_one_file(settings: Settings) -> None:
    log = settings.sqlite_path.with_name("app.db-wal")
    account = {"email": "ada@example.com", "full_name": "Ada", "password": PASSWORD}
    with TestClient(create_app(settings)) as client:
        client.post(f"{API}/auth/register", json=account)
        assert log.exists()

    assert not log.exists()


def _with_admin(settings: Settings, password: str = PASSWORD) -> Settings:
    """The settings as an operator gives them who wants an admin from the start."""
    admin = {"admin_email": "Boss@example.com", "admin_password": password}
    return Settings.model_validate(settings.model_dump(exclude_unset=True) | admin)


def _sign_in(client: TestClient, email: str) -> int:
    return client.post(f"{API}/auth/token", data={"username": email, "password": PASSWORD}).status_code


def test_the_settings_make_an_admin_where_there_is_no_user(settings: Settings) -> None:
    with TestClient(create_app(_with_admin(settings))) as client:
        token = client.post(f"{API}/auth/token", data={"username": "boss@example.com", "password": PASSWORD}).json()
        boss = Person(client, 1, "boss@example.com", token["access_token"], token["refresh_token"])

        assert boss.get("/users/me").json()["role"] == "admin"


def test_the_settings_make_no_admin_where_there_is_a_user(ada: Person, settings: Settings) -> None:
    with TestClient(create_app(_with_admin(settings))) as client:
        assert _sign_in(client, "boss@example.com") == 400
        assert _sign_in(client, ada.email) == 200


def test_a_second_start_leaves_the_admin_alone(settings: Settings) -> None:
    for _ in range(2):
        with TestClient(create_app(_with_admin(settings))) as client:
            assert _sign_in(client, "boss@example.com") == 200


def test_a_weak_admin_password_refuses_the_start(settings: Settings) -> None:
    app = create_app(_with_admin(settings, "weak"))

    with pytest.raises(StartRefused, match=r"^APP_ADMIN_PASSWORD is wrong: .*\.$"), TestClient(app):
        pass
    app.state.database.close()  # else the process would end here


def _start(program: list[str], folder: Path, **settings: str) -> subprocess.Popen[str]:
    """A process of its own, with these settings and no others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
    environment |= {"APP_DATABASE_URL": f"sqlite:///{folder}/app.db", "APP_BCRYPT_ROUNDS": "4"} | settings
    return subprocess.Popen(  # noqa: S603 - this very Python, with options from here
        [sys.executable, *program],
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_refused_start_says_one_sentence_and_no_traceback(tmp_path: Path) -> None:
    admin = {"APP_ADMIN_EMAIL": "ada@example.com", "APP_ADMIN_PASSWORD": "weak"}
    process = _start(["-m", "uvicorn", "app:app", "--port", "0"], tmp_path, **admin)
    _, log = process.communicate(timeout=60)

    assert process.returncode != 0
    assert "APP_ADMIN_PASSWORD is wrong: " in log
    assert "Traceback" not in log


# Importing takes long and hashing is slow here, so that the starts overlap where it matters.
START_TOGETHER = """
from fastapi.testclient import TestClient
from app import app
print("imported", flush=True)
input()
with TestClient(app) as client:
    client.get("/ready").raise_for_status()
"""


def test_four_workers_that_start_at_once_make_one_schema_one_key_and_one_admin(tmp_path: Path) -> None:
    admin = {"APP_ADMIN_EMAIL": "boss@example.com", "APP_ADMIN_PASSWORD": PASSWORD, "APP_BCRYPT_ROUNDS": "12"}
    workers = [_start(["-c", START_TOGETHER], tmp_path / "new", **admin) for _ in range(4)]
    imported = [worker.stdout.readline() for worker in workers if worker.stdout]
    for worker in workers:
        print(file=worker.stdin, flush=True)
    logs = [worker.communicate(timeout=60)[1] for worker in workers]
    users = sqlite3.connect(tmp_path / "new" / "app.db")
    rows = users.execute("SELECT email, role FROM user").fetchall()
    users.close()

    assert imported == ["imported\n"] * 4
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0], logs
    assert rows == [("boss@example.com", "admin")]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["app.db", "secret_key"]


def test_two_apps_in_one_process_keep_their_settings_apart(client: TestClient, ada: Person, tmp_path: Path) -> None:
    other = Settings(
        database_url=f"sqlite:///{tmp_path}/other.db",
        environment="production",
        secret_key=SecretStr("another key for the tests of two apps"),
    )
    bearer = {"Authorization": f"Bearer {ada.access_token}"}
    account = {"email": "tom@example.com", "full_name": "Tom", "password": PASSWORD}
    with TestClient(create_app(other)) as stranger:
        assert stranger.get(f"{API}/users/me", headers=bearer).status_code == 401
        assert stranger.post(f"{API}/auth/register", json=account).status_code == 403
        assert stranger.get("/docs").status_code == 404
        assert "Strict-Transport-Security" in stranger.get("/health").headers

    assert ada.get("/users/me").status_code == 200
    assert client.get("/docs").status_code == 200
    assert "Strict-Transport-Security" not in client.get("/health").headers


# How the modules hang together

# Each module imports only from those below it.
ORDER = [
    "app",
    "manage",
    "company",
    "history",
    "recovery",
    "users",
    "items_csv",
    "items",
    "orders",
    "posts",
    "inbox",
    "audit",
    "auth",
    "callers",
    "passwords",
    "mail",
    "lists",
    "schema",
    "routing",
    "models",
    "db",
    "sqlite_engine",
    "lanes",
    "gates",
    "logs",
    "errors",
    "strict",
    "problems",
    "secret_key",
    "settings",
]
MODULES = {path.stem: ast.parse(path.read_text()) for path in ROOT.glob("*.py")}
MOST_LINES = 280


def _imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


ROUTE_MODULES = [name for name, tree in MODULES.items() if "routing" in _imported(tree) and name != "app"]


def test_every_module_has_its_place() -> None:
    assert sorted(ORDER) == sorted(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_below_it(module: str) -> None:
    below = ORDER[ORDER.index(module) + 1 :]

    assert _imported(MODULES[module]) & set(ORDER) <= set(below)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"db"}))
def test_nobody_commits_but_db(module: str) -> None:
    attributes = {node.attr for node in ast.walk(MODULES[module]) if isinstance(node, ast.Attribute)}

    assert "commit" not in attributes


@pytest.mark.parametrize("module", ROUTE_MODULES)
def test_no_route_names_a_404_or_builds_an_error(module: str) -> None:
    nodes = list(ast.walk(MODULES[module]))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    constants = {node.value for node in nodes if isinstance(node, ast.Constant)}

    assert names.isdisjoint({"HTTPException", "JSONResponse", "problem_response"})
    assert 404 not in constants


# A catalogue of small classes is read by looking one up, and may be longer.
@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"models", "problems"}))
def test_a_module_can_be_read_in_one_sitting(module: str) -> None:
    assert len((ROOT / f"{module}.py").read_text().splitlines()) <= MOST_LINES
