"""The page of the dashboard: what needs somebody, figures that lead to their lists, and the first minute."""

from collections.abc import Callable

import pytest

from kit.app import App
from tests.databases import counted_statements
from tests.people import Person, Row, place
from tests.visitors import Visitor

Visit = Callable[[Person], Visitor]


@pytest.fixture
def low(ada: Person) -> Row:
    """An item of which too few are left."""
    return ada.post("/items", {"name": "Stapler", "price_cents": 250, "quantity": 1, "reorder_level": 5}).json()


def test_an_admin_sees_what_waits(visit: Visit, ada: Person, max: Person, lamp: Row, low: Row) -> None:
    first, second = place(max, (lamp, 1)), place(max, (lamp, 2))
    view = visit(ada).get("/")

    assert "2 pending orders" in view.text
    assert f"Order {first['id']} of Max" in view.text
    assert "1 item is running low" in view.text
    assert {f"/orders/{first['id']}", f"/orders/{second['id']}", f"/items/{low['id']}"} <= {*view.links}
    assert "/orders?status=pending&sort=created_at" in view.links
    assert view.text.index("What needs you") < view.text.index("Stock value")


def test_a_member_sees_their_own_pending_orders(visit: Visit, ada: Person, max: Person, lamp: Row, low: Row) -> None:
    place(ada, (lamp, 1))
    mine = place(max, (lamp, 2))
    view = visit(max).get("/")

    assert "1 pending order " in view.text
    assert f"/orders/{mine['id']}" in view.links
    assert "Restock" not in view.text


def test_every_figure_leads_to_the_list_that_it_counts(visit: Visit, ada: Person, lamp: Row, low: Row) -> None:
    place(ada, (lamp, 2))
    view = visit(ada).get("/")

    assert {"/items", "/orders", "/items?low_stock=true", "/notifications"} <= {*view.links}
    assert "€98.50" in view.text
    assert "2 items, 9 units" in view.text
    assert "€24.00" in view.text


def test_the_chart_has_the_same_numbers_as_a_table(visit: Visit, ada: Person, lamp: Row) -> None:
    place(ada, (lamp, 2))
    view = visit(ada).get("/")

    assert 'role="img" aria-label="Orders per day: 1 in 30 days, €24.00."' in view.html
    assert view.html.count('<th scope="row">') == 30
    assert "As a table" in view.text


def test_running_low_is_counted_beyond_those_that_are_shown(visit: Visit, ada: Person) -> None:
    for number in range(12):
        ada.post("/items", {"name": f"Pen {number}", "price_cents": 1})
    view = visit(ada).get("/")

    assert "12 items are running low" in view.text
    assert "All 12" in view.text


def test_the_first_admin_is_led_on(visit: Visit, ada: Person) -> None:
    view = visit(ada).get("/")

    assert {"/items/new", "/items/import", "/people/new"} <= {*view.links}
    assert "uv run manage.py seed --force" in view.text
    assert "<svg viewBox" not in view.html


def test_a_member_of_an_empty_company_hears_that_nothing_is_there_yet(visit: Visit, max: Person) -> None:
    view = visit(max).get("/")

    assert "Nothing is in stock yet" in view.text
    assert "/items/new" not in view.links


def test_a_day_without_anything_to_do_says_so(visit: Visit, max: Person, lamp: Row) -> None:
    view = visit(max).get("/")

    assert "Nothing is waiting for you." in view.text
    assert "You have ordered nothing yet." in view.text
    assert "<svg viewBox" not in view.html


def test_the_names_of_things_are_shown_as_text(visit: Visit, ada: Person) -> None:
    item = ada.post("/items", {"name": "<b>Pen</b>", "price_cents": 1, "quantity": 9, "reorder_level": 9}).json()
    place(ada, (item, 1))

    assert "<b>Pen" not in visit(ada).get("/").html


def test_whoever_is_not_signed_in_is_asked_to(visit: Visit, ada: Person) -> None:
    browser = visit(ada)
    browser.cookies.clear()
    answer = browser.request("GET", "/")

    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2F")


def test_the_dashboard_costs_at_most_eight_statements(
    app: App, visit: Visit, ada: Person, max: Person, lamp: Row
) -> None:
    place(max, (lamp, 1))
    place(ada, (lamp, 1))
    browser = visit(ada)
    with counted_statements(app) as statements:
        browser.get("/")

    assert len(statements) <= 8
