"""Chromium, and a server with a made-up company to look at."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from kit import schema
from kit.auth import hash_password
from kit.db import Database, ending
from sample import add_company
from settings import Settings
from tests.missing import program
from tests.people import PASSWORD
from tests.postgres import Postgres
from tests.server import Server

WIDE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
IN_DEVELOPMENT = {"APP_ENVIRONMENT": "development"}

Open = Callable[..., "Window"]


class Window:
    """A window of a browser, in which nothing may go wrong unseen."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.faults: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _listen(self, message: ConsoleMessage) -> None:
        # A form that is refused is answered with an error on purpose, which Chromium writes down, too.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def go(self, path: str) -> Page:
        """Go to a page."""
        self.page.goto(self.url + path)
        return self.page

    def sign_in(self, email: str, password: str = PASSWORD) -> Page:
        """Sign in as a person would."""
        self.go("/sign-in")
        self.page.get_by_label("E-mail").fill(email)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        return self.page

    @property
    def path(self) -> str:
        """The address without the host."""
        return self.page.url.removeprefix(self.url)

    @property
    def said(self) -> str:
        """The message on top of the page."""
        return self.page.locator("main [role=status], main [role=alert]").first.inner_text()


@pytest.fixture(scope="module")  # while Playwright is open, no test of the process can have an event loop of its own
def chromium() -> Generator[Browser]:
    """The Chromium that is installed."""
    path = program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def database_url(request: pytest.FixtureRequest, folder: Path) -> str:
    """A new database of the kind that the tests run on."""
    if request.config.getoption("--database") == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        return postgres.create()
    return f"sqlite:///{folder}/app.db"


@pytest.fixture(scope="session")
def company(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server with a year of a small company, which nobody changes; all people have the usual password."""
    folder = tmp_path_factory.mktemp("company")
    database = Database(Settings(database_url=database_url(request, folder)))
    schema.upgrade(database)
    with ending(database.write()) as session:
        add_company(session, PASSWORD, hash_password(PASSWORD, 4), items=60, orders=80)
    database.close()
    server = Server(folder, settings=IN_DEVELOPMENT | {"APP_DATABASE_URL": database.settings.database_url})
    with server.running():
        yield server


@pytest.fixture
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Server]:
    """A server on which nobody has an account yet."""
    server = Server(tmp_path, settings=IN_DEVELOPMENT | {"APP_DATABASE_URL": database_url(request, tmp_path)})
    with server.running():
        yield server


@pytest.fixture(params=[True, False], ids=["with JavaScript", "without JavaScript"])
def has_script(request: pytest.FixtureRequest) -> bool:
    """Every flow works with and without the script."""
    return request.param


@pytest.fixture
def open_window(chromium: Browser) -> Generator[Open]:
    """Opens windows, each with cookies of its own; at the end none of them may have had a fault."""
    windows: list[Window] = []

    def open_window(
        server: Server, *, script: bool = True, phone: bool = False, dark: bool = False, zone: str = "Europe/Berlin"
    ) -> Window:
        context = chromium.new_context(
            viewport=PHONE if phone else WIDE,  # pyright: ignore[reportArgumentType] - a TypedDict that has no public name
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
            timezone_id=zone,
            accept_downloads=True,
        )
        windows.append(Window(context, server.url))
        return windows[-1]

    yield open_window
    faults = [fault for window in windows for fault in window.faults]
    for window in windows:
        window.context.close()
    assert faults == []
