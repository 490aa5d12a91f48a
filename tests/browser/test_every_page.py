"""Every page that a person can reach by links: what is said of all of them, and pictures of them if wanted.

`uv run pytest tests/browser/test_every_page.py -n0 --screenshots screenshots` keeps the pictures.
"""

import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Open, Window
from tests.server import Server

pytestmark = pytest.mark.slow

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
MAX_PAGE = 60 * 1024  # bytes
MAX_PAGES = 60


def kind_of(address: str) -> str:
    """What the pages of other rows, and all that sort and filter the same list, have in common."""
    parts = urlsplit(address)
    return re.sub("[0-9]+", "N", parts.path) + ("?" if parts.query else "")


def linked(page: Page) -> Iterable[str]:
    """The addresses of this app to which a page links."""
    for href in page.eval_on_selector_all("a[href]", "links => links.map(link => link.getAttribute('href'))"):
        if href.startswith("/") and not href.startswith(("/static", "/docs")) and not href.endswith("/export"):
            yield href.partition("#")[0]


def pages_of(window: Window) -> dict[str, str]:
    """One address of each kind that can be reached from the dashboard."""
    found: dict[str, str] = {"/": "/"}
    waiting = ["/"]
    while waiting and len(found) < MAX_PAGES:
        for address in linked(window.go(waiting.pop(0))):
            if kind_of(address) not in found:
                found[kind_of(address)] = address
                waiting.append(address)
    return found


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Path | None:
    """Where the pictures go."""
    name = request.config.getoption("--screenshots")
    return Path(name) if name else None


def looked_at(window: Window, address: str, folder: Path | None, look: str) -> list[str]:
    """What is wrong with a page."""
    page = window.page
    response = page.goto(window.url + address)
    assert response is not None
    if folder is not None:
        name = re.sub(r"\W+", "-", kind_of(address).replace("?", "-listed")).strip("-") or "dashboard"
        page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
    wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    page.evaluate(AXE)
    violations: list[dict[str, Any]] = page.evaluate("axe.run().then(found => found.violations)")
    faults = [f"axe: {fault['id']} {[node['html'][:120] for node in fault['nodes']]}" for fault in violations]
    faults += [f"status {response.status}"] if response.status != 200 else []
    faults += ["wider than the window"] if wide else []
    faults += [f"{count} headings of the first level"] if (count := page.locator("h1").count()) != 1 else []
    faults += [f"{size} bytes"] if (size := len(response.body())) > MAX_PAGE else []
    return [f"{address} ({look}): {fault}" for fault in faults]


@pytest.mark.parametrize("who", ["ada@example.com", "max@example.com"], ids=["an admin", "a member"])
def test_no_page_has_a_fault(company: Server, open_window: Open, folder: Path | None, who: str) -> None:
    first = open_window(company)
    first.sign_in(who)
    addresses = [*pages_of(first).values()]
    looks = {
        "wide-light": first,
        "phone-dark": open_window(company, phone=True, dark=True),
        **({"wide-dark": open_window(company, dark=True)} if folder else {}),
        **({"phone-light": open_window(company, phone=True)} if folder else {}),
    }
    for window in [*looks.values()][1:]:
        window.sign_in(who)
    if folder is not None:
        folder.mkdir(exist_ok=True)
    faults = [
        fault
        for look, window in looks.items()
        for address in addresses
        for fault in looked_at(window, address, folder and folder / who.partition("@")[0], look)
    ]

    assert faults == []
    assert len(addresses) > 10
