"""The kit is tested on an app of its own: accounts, the audit, the specimen, and the routers of each test module."""

from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest

import audit
import auth
import users
from kit.app import App
from kit.db import Database
from settings import API, Settings
from tests.conftest import MakeApp, sharing
from tests.kit import specimen
from tests.people import Person, Row
from tests.postgres import Postgres
from tests.shared_app import SharedApp


@pytest.fixture(scope="session")
def template(template: Path) -> Path:
    """The migrated, empty SQLite file to copy, with the tables of the specimen."""
    path = template.with_name("kit.db")
    path.write_bytes(template.read_bytes())
    _add_specimen(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres, postgres_template: str) -> str:
    """The name of such a database on PostgreSQL."""
    url = postgres.create(postgres_template)
    _add_specimen(url)
    return url.rpartition("/")[2]


def _add_specimen(url: str) -> None:
    database = Database(Settings(database_url=url))
    with database.engine.begin() as connection:
        specimen.METADATA.create_all(connection)
    database.close()


@pytest.fixture(scope="module")
def make_app(request: pytest.FixtureRequest) -> MakeApp:
    """Makes an app whose nouns are accounts, the audit, the specimen, and the test module itself.

    The module may also say, as `OUTBOX`, what does further kinds of entries of the outbox.
    """
    module: ModuleType = getattr(request, "module")  # noqa: B009 - pytest does not say its type
    nouns = (auth, users, audit, specimen, module)

    def make_app(settings: Settings) -> App:
        return App(
            settings,
            title="House",
            summary="Who sits where.",
            version="1.0",
            api=API,
            nouns=nouns,
            credentials=auth.CREDENTIALS,
            outbox=auth.OUTBOX | getattr(module, "OUTBOX", {}),
        )

    return make_app


@pytest.fixture(scope="module")
def shared_app(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_app: MakeApp
) -> Generator[SharedApp]:
    """The app of the tests of one module."""
    yield from sharing(request, tmp_path_factory, make_app)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def hall(ada: Person) -> Row:
    """A room: a hall with ten seats."""
    return ada.post("/rooms", {"name": "Hall", "seats": 10, "tags": ["big"]}).json()
