"""What people do with the pages, from beginning to end, with JavaScript and without it."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Window
from tests.people import PASSWORD
from tests.server import Server

pytestmark = pytest.mark.slow


def sign_up(window: Window, name: str) -> Page:
    """Make an account as a person would."""
    page = window.go("/sign-up")
    page.get_by_label("E-mail").fill(f"{name.lower()}@example.com")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Make the account").click()
    return page


def add_item(window: Window, name: str, price: str = "12.50", quantity: str = "10") -> Page:
    """Add an item by its form."""
    page = window.go("/items/new")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Price").fill(price)
    page.get_by_label("In stock").fill(quantity)
    page.get_by_role("button", name="Add the item").click()
    return page


def row(page: Page, name: str) -> str:
    """The row of a table that begins with this name."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name)).inner_text()


def text(page: Page) -> str:
    return page.locator("main").inner_text()


def test_the_first_minute_leads_from_nothing_to_an_item(empty: Server, open_window: Open, has_script: bool) -> None:
    ada = open_window(empty, script=has_script)
    page = ada.go("/")
    assert "you become the admin" in text(page)
    sign_up(ada, "Ada")
    assert ada.path == "/"
    page.get_by_role("link", name="Add the first item").click()
    page.get_by_label("Name").fill("Desk lamp")
    page.get_by_label("Price").fill("39,50")
    page.get_by_role("button", name="Add the item").click()

    assert "Desk lamp" in ada.said
    assert "€39.50" in row(page, "Desk lamp")
    page.reload()
    assert page.locator("main [role=status]").count() == 0


def test_what_is_wrong_stands_beside_its_field_and_what_was_typed_stays(
    empty: Server, open_window: Open, has_script: bool
) -> None:
    ada = open_window(empty, script=has_script)
    page = sign_up(ada, "Ada")
    add_item(ada, "", "1,234")
    price, name = page.get_by_label("Price"), page.get_by_label("Name")

    expect(price).to_have_value("1,234")
    expect(price).to_have_accessible_description(re.compile("Enter an amount such as 12.50"))
    expect(name).to_have_accessible_description(re.compile("Fill this in"))
    assert page.title().startswith("Error: ")


def test_a_list_is_imported_once_its_wrong_lines_are_mended(
    empty: Server, open_window: Open, has_script: bool, tmp_path: Path
) -> None:
    lines = [f"Item {number},{100 + number},{number},0," for number in range(50)]
    right = tmp_path / "right.csv"
    right.write_text("\n".join(["name,price_cents,quantity,reorder_level,tags", *lines]))
    lines[6], lines[20] = "Item 6,cheap,1,0,", ",100,1,0,"
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("\n".join(["name,price_cents,quantity,reorder_level,tags", *lines]))
    ada = open_window(empty, script=has_script)
    page = sign_up(ada, "Ada")

    def choose(path: Path) -> str:
        ada.go("/items/import")
        page.locator("input[type=file]").set_input_files(path)
        page.locator("main form button").last.click()
        assert ada.path == "/items/import/preview"
        return text(page)

    said = choose(wrong)
    assert "8" in said
    assert "22" in said
    assert page.get_by_role("button", name=re.compile("^Import")).count() == 0
    assert "50" in choose(right)
    page.get_by_role("button", name=re.compile("^Import")).click()
    assert "50" in ada.said
    assert "50" in page.get_by_role("navigation", name="Pages").inner_text()


def test_ordering_takes_the_stock_until_something_is_short_and_cancelling_puts_it_back(
    empty: Server, open_window: Open, has_script: bool
) -> None:
    ada = open_window(empty, script=has_script)
    page = sign_up(ada, "Ada")
    add_item(ada, "Desk lamp", "12.50", "10")
    add_item(ada, "Chair", "100", "1")
    page.get_by_label("How many of Desk lamp").fill("3")
    page.get_by_label("How many of Chair").fill("2")
    page.get_by_role("button", name="Add to order").click()
    page.get_by_role("button", name="Review and order").click()
    assert ada.path == "/order"
    assert "€237.50" in text(page)
    page.get_by_role("button", name="Place order").click()
    assert "Only 1 left." in text(page)
    page.get_by_role("button", name="Take 1 of Chair").click()
    page.get_by_label("Note").fill("To the second floor")
    page.get_by_role("button", name="Place order").click()

    assert re.fullmatch("/orders/[0-9]+", ada.path)
    assert "€137.50" in text(page)
    assert "To the second floor" in text(page)
    ada.go("/items")
    assert "7" in row(page, "Desk lamp")
    assert "None left" in row(page, "Chair")
    ada.go("/orders/1")
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the order").click()
    assert "Cancelled" in text(page)
    ada.go("/items")
    assert "10" in row(page, "Desk lamp")


def test_a_double_click_orders_once(empty: Server, open_window: Open, has_script: bool) -> None:
    ada = open_window(empty, script=has_script)
    page = sign_up(ada, "Ada")
    add_item(ada, "Desk lamp")
    page.get_by_label("How many of Desk lamp").fill("1")
    page.get_by_role("button", name="Add to order").click()
    ada.go("/order")
    page.get_by_role("button", name="Place order").dblclick()
    expect(page).to_have_url(re.compile("/orders/1$"))  # the second click ends the loading that the first one began

    ada.go("/orders")
    assert page.get_by_role("rowheader").count() == 1
    ada.go("/items")
    assert "9" in row(page, "Desk lamp")


def test_two_who_change_different_fields_both_succeed_and_one_field_is_asked_about(
    empty: Server, open_window: Open, has_script: bool
) -> None:
    ada, bea = open_window(empty, script=has_script), open_window(empty, script=has_script)
    sign_up(ada, "Ada")
    add_item(ada, "Desk lamp", "12.50", "10")
    bea.sign_in("ada@example.com")
    mine, theirs = ada.go("/items/1"), bea.go("/items/1")
    theirs.get_by_label("In stock").first.fill("7")
    theirs.get_by_role("button", name="Save").click()
    mine.get_by_label("Price").fill("13.00")
    mine.get_by_role("button", name="Save").click()
    assert "€13.00" in row(mine, "Desk lamp")
    assert "7" in row(mine, "Desk lamp")

    mine, theirs = ada.go("/items/1"), bea.go("/items/1")
    theirs.get_by_label("Price").fill("14.00")
    theirs.get_by_role("button", name="Save").click()
    mine.get_by_label("Price").fill("15.00")
    mine.get_by_role("button", name="Save").click()
    price = mine.get_by_label("Price")
    expect(price).to_have_value("15.00")
    expect(price).to_have_accessible_description("Changed to 14.00 meanwhile; it was 13.00.")
    mine.get_by_role("button", name="Save").click()
    assert "€15.00" in row(mine, "Desk lamp")


def test_a_colleague_is_invited_without_mail_and_is_told_of_a_comment(
    empty: Server, open_window: Open, has_script: bool
) -> None:
    ada, max_ = open_window(empty, script=has_script), open_window(empty, script=has_script)
    page = sign_up(ada, "Ada")
    ada.go("/people/new")
    page.get_by_label("E-mail").fill("max@example.com")
    page.get_by_label("Name", exact=True).fill("Max")
    page.get_by_role("button", name="Add").click()
    link = page.locator("#link").inner_text()
    assert link.startswith(f"{empty.url}/password-reset/")

    theirs = max_.go(link.removeprefix(empty.url))
    theirs.get_by_label("New password").fill(PASSWORD)
    theirs.get_by_role("button", name="Set the password").click()
    max_.sign_in("max@example.com")
    assert max_.path == "/"
    max_.go("/posts/new")
    theirs.get_by_label("Title").fill("Lunch")
    theirs.get_by_label("Content").fill("At noon\nin the hall")
    theirs.locator("main form").get_by_role("button").last.click()
    ada.go("/posts/1")
    page.locator("main textarea").fill("Gladly")
    page.locator("main form[action$=comments]").get_by_role("button").click()
    assert "#comment-1" in ada.path
    max_.go("/notifications")
    theirs.get_by_role("button", name="Unread: Ada on 'Lunch'").click()
    assert "#comment-1" in max_.path
    assert "Gladly" in text(theirs)


def test_signed_out_elsewhere_means_signed_out_here(empty: Server, open_window: Open, has_script: bool) -> None:
    here, there = open_window(empty, script=has_script), open_window(empty, script=has_script)
    sign_up(here, "Ada")
    there.sign_in("ada@example.com")
    page = there.go("/account")
    page.get_by_role("button", name="Sign out everywhere else").click()
    assert there.path.partition("#")[0] == "/account"

    page = here.go("/items?q=lamp")
    assert here.path == "/sign-in?next=%2Fitems%3Fq%3Dlamp"
    page.get_by_label("E-mail").fill("ada@example.com")
    page.get_by_label("Password").fill("wrong-Password-1")
    page.get_by_role("button", name="Sign in").click()
    assert "wrong" in here.said
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    assert here.path == "/items?q=lamp"


def test_back_shows_nothing_after_signing_out(empty: Server, open_window: Open, has_script: bool) -> None:
    ada = open_window(empty, script=has_script)
    page = sign_up(ada, "Ada")
    add_item(ada, "Secret lamp")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.go_back()

    assert ada.path.startswith("/sign-in")
    assert "Secret lamp" not in page.content()


def test_the_keyboard_finds_the_search_and_enter_searches(company: Server, open_window: Open) -> None:
    ada = open_window(company)
    ada.sign_in("ada@example.com")
    page = ada.go("/items")
    page.keyboard.press("/")
    page.keyboard.type("lamp")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=lamp"))

    assert ada.path == "/items?q=lamp"
    names = page.get_by_role("rowheader").all_inner_texts()
    assert names
    assert all("lamp" in name.lower() for name in names)


def test_times_are_in_the_zone_of_the_reader_and_say_so_where_it_is_not_known(
    company: Server, open_window: Open
) -> None:
    with_zone, without = open_window(company, zone="Asia/Tokyo"), open_window(company, script=False)
    shown: list[tuple[str, str]] = []
    for window in (with_zone, without):
        window.sign_in("ada@example.com")
        page = window.go("/orders/1")
        moment = page.locator("main time").first
        shown.append((moment.get_attribute("datetime") or "", moment.inner_text()))

    (moment, there), (same_moment, utc) = shown
    assert moment == same_moment
    assert utc.endswith("UTC")
    assert there != utc


# Other sites


ATTACK = """<!doctype html><form method="post" action="{url}/people/new" id="form">
<input name="email" value="mallory@example.com"><input name="full_name" value="Mallory">
<input name="role" value="admin"></form><button form="form">Win a prize</button>"""


@contextmanager
def another_site(page: str) -> Generator[int]:
    """A server on another port that shows one page."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - nobody reads it
            pass

    with HTTPServer(("127.0.0.1", 0), Site) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["another site", "another port of the same site"])
def test_a_form_of_another_site_does_nothing(empty: Server, open_window: Open, host: str) -> None:
    ada = open_window(empty)
    page = sign_up(ada, "Ada")
    with another_site(ATTACK.format(url=empty.url)) as port:
        page.goto(f"http://{host}:{port}/")
        page.get_by_role("button").click()
        page.wait_for_load_state()

    assert page.get_by_text("This came from another site").count() == 1
    page = ada.go("/people")
    assert "Mallory" not in text(page)
