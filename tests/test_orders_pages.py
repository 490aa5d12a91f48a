"""Pages of orders: the basket, the review of an order, the list, and the page of one order."""

import re
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

import pytest

from kit.app import App
from tests.databases import counted_statements, on_both_databases
from tests.people import Person, Row, at_once, place, stock_of
from tests.visitors import View, Visitor

Visit = Callable[[Person], Visitor]


@pytest.fixture
def desk(ada: Person) -> Row:
    """Another item: three desks."""
    return ada.post("/items", {"name": "Desk", "price_cents": 34_900, "quantity": 3}).json()


@pytest.fixture
def browser(visit: Visit, max: Person, lamp: Row) -> Visitor:
    """The browser of a member, in a company that has lamps."""
    return visit(max)


def field(item: Row) -> str:
    return f"quantity-{item['id']}"


def choose(browser: Visitor, *wanted: tuple[Row, int | str], **more: str) -> View:
    """Put so many of each item into the basket."""
    return browser.post("/cart", {field(item): str(quantity) for item, quantity in wanted} | {"next": "/order"} | more)


def send(browser: Visitor, **typed: str) -> View:
    """Place the order that a page shows, with what is typed into it before."""
    assert browser.last is not None
    return browser.post("/order", dict(browser.last.form("/order").fields) | typed)


def basket(browser: Visitor) -> dict[str, str]:
    """What the review has in its fields."""
    view = browser.get("/order")
    forms = [form for form in view.forms if form.method == "post" and "key" in form]
    return {name: text for form in forms for name, text in form.fields if name.startswith("quantity-")}


def orders_of(person: Person) -> list[Row]:
    return person.get("/orders?sort=created_at").json()["items"]


# The basket


def test_the_basket_keeps_what_another_form_does_not_name(browser: Visitor, lamp: Row, desk: Row) -> None:
    choose(browser, (lamp, 2))
    choose(browser, (desk, 1))

    assert basket(browser) == {field(lamp): "2", field(desk): "1"}


@pytest.mark.parametrize("nothing", ["", "0", " "])
def test_an_empty_field_takes_a_line_out(browser: Visitor, lamp: Row, desk: Row, nothing: str) -> None:
    choose(browser, (lamp, 2), (desk, 1))
    choose(browser, (lamp, nothing))

    assert basket(browser) == {field(desk): "1"}


def test_updating_the_basket_leads_back_to_the_list_as_it_was(browser: Visitor, lamp: Row) -> None:
    answer = browser.request("POST", "/cart", data={field(lamp): "2", "back": "/items?q=la&page=2"})
    elsewhere = browser.request("POST", "/cart", data={field(lamp): "2", "back": "//example.com"})

    assert (answer.status_code, answer.headers["location"]) == (303, "/items?q=la&page=2")
    assert elsewhere.headers["location"] == "/items"


@pytest.mark.parametrize("wrong", ["1,5", "-1", "10001", "two", "9" * 30, "1\0"])
def test_what_is_no_quantity_is_refused_and_nothing_is_chosen(
    browser: Visitor, lamp: Row, desk: Row, wrong: str
) -> None:
    view = choose(browser, (desk, 1), (lamp, wrong))

    assert view.status == 422
    assert "whole number from 1 to 10,000" in view.text or "\0" in wrong
    assert wrong.strip("\0") in view.html
    assert basket(browser) == {}


def test_fields_that_name_no_item_are_left_alone(browser: Visitor, lamp: Row) -> None:
    fields = {field(lamp): "2", "quantity-": "1", "quantity-x": "1", f"quantity-{2**63}": "1", "quantity-99": "1"}
    view = browser.post("/cart", fields | {"next": "/order"})

    assert view.status == 200
    assert view.form("/order")[field(lamp)] == "2"
    assert "not there any more" in view.text


def test_a_basket_has_at_most_a_hundred_lines(browser: Visitor) -> None:
    browser.post("/cart", {f"quantity-{item_id}": "1" for item_id in range(1, 101)})
    view = browser.post("/cart", {"quantity-101": "1"})

    assert view.status == 422
    assert "at most 100 lines" in view.text


def test_the_basket_is_empty_after_signing_out(visit: Visit, max: Person, browser: Visitor, lamp: Row) -> None:
    choose(browser, (lamp, 2))
    cart = browser.cookies["cart"]
    browser.post("/sign-out")
    assert "cart" not in browser.cookies
    again = visit(max)
    again.cookies["cart"] = cart  # not even the cookie of then has anything in it

    assert "nothing in your order" in again.get("/order").text


def test_an_empty_basket_says_what_to_do(browser: Visitor) -> None:
    view = browser.get("/order")

    assert view.status == 200
    assert "/items" in view.links
    assert "nothing in your order" in view.text


# The review


def test_the_review_shows_lines_and_total(browser: Visitor, lamp: Row, desk: Row) -> None:
    view = choose(browser, (lamp, 2), (desk, 1))

    assert (view.status, view.path) == (200, "/order")
    assert f"/items/{lamp['id']}" in view.links
    assert all(amount in view.text for amount in ("€12.00", "€24.00", "€349.00", "€373.00"))


def test_an_order_is_placed_as_it_was_seen(browser: Visitor, max: Person, lamp: Row, desk: Row) -> None:
    choose(browser, (lamp, 2), (desk, 1))
    view = send(browser, note=" For the new room\r\nupstairs ")
    [order] = orders_of(max)

    assert (view.status, view.path) == (200, f"/orders/{order['id']}")
    assert f"Order {order['id']} was placed." in view.text
    assert order["note"] == "For the new room\nupstairs"
    assert [(line["item_id"], line["quantity"]) for line in order["lines"]] == [(lamp["id"], 2), (desk["id"], 1)]
    assert basket(browser) == {}


def test_the_quantities_of_the_review_count(browser: Visitor, max: Person, lamp: Row, desk: Row) -> None:
    choose(browser, (lamp, 2), (desk, 1))
    send(browser, **{field(lamp): "5", field(desk): ""})

    assert [(line["item_id"], line["quantity"]) for line in orders_of(max)[0]["lines"]] == [(lamp["id"], 5)]
    assert basket(browser) == {}


def test_what_was_chosen_in_another_tab_meanwhile_stays(browser: Visitor, lamp: Row, desk: Row) -> None:
    fields = dict(choose(browser, (lamp, 2)).form("/order").fields)
    choose(browser, (desk, 1))
    browser.post("/order", fields)

    assert basket(browser) == {field(desk): "1"}


def test_update_shows_the_review_anew_and_orders_nothing(browser: Visitor, max: Person, lamp: Row) -> None:
    fields = dict(choose(browser, (lamp, 2)).form("/order").fields)
    view = browser.post("/order?update=yes", fields | {field(lamp): "3", "note": "Soon, please\n& all"})

    assert (view.status, view.path) == (200, "/order")
    assert "€36.00" in view.text
    assert (view.form()[field(lamp)], view.form()["note"]) == ("3", "Soon, please\n& all")
    assert orders_of(max) == []


def test_a_double_click_orders_once(browser: Visitor, max: Person, lamp: Row) -> None:
    fields = dict(choose(browser, (lamp, 2)).form("/order").fields)
    first, second = browser.post("/order", fields), browser.post("/order", fields)

    assert first.path == second.path == f"/orders/{orders_of(max)[0]['id']}"
    assert "was placed" in second.text
    assert len(orders_of(max)) == 1


@on_both_databases
def test_of_many_clicks_at_once_one_orders(browser: Visitor, max: Person, lamp: Row) -> None:
    fields = dict(choose(browser, (lamp, 2)).form("/order").fields)
    headers = {
        "Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items()),
        "Sec-Fetch-Site": "same-origin",
    }
    answers = at_once(4, lambda _: browser.client.post("/order", data=fields, headers=headers, follow_redirects=False))

    assert {answer.headers["location"] for answer in answers} == {f"/orders/{orders_of(max)[0]['id']}"}
    assert len(orders_of(max)) == 1


def test_the_same_page_with_something_else_asks_first_and_then_orders(browser: Visitor, max: Person, lamp: Row) -> None:
    fields = dict(choose(browser, (lamp, 2)).form("/order").fields)
    browser.post("/order", fields)
    asked = browser.post("/order", fields | {field(lamp): "3"})

    assert asked.status == 422
    assert "placed this order already" in asked.text
    assert send(browser).path.startswith("/orders/")
    assert [order["lines"][0]["quantity"] for order in orders_of(max)] == [2, 3]


def test_a_form_without_a_key_orders_too(browser: Visitor, max: Person, lamp: Row) -> None:
    view = browser.post("/order", {field(lamp): "2"})

    assert view.path == f"/orders/{orders_of(max)[0]['id']}"


def test_a_short_line_says_how_many_are_left(browser: Visitor, ada: Person, max: Person, lamp: Row, desk: Row) -> None:
    choose(browser, (lamp, 2), (desk, 3))
    place(ada, (desk, 2))
    view = send(browser, note="Soon")

    assert view.status == 409
    assert "Only 1 left." in view.text
    assert re.search(rf'formaction="/order\?update=yes" name="{field(desk)}" value="1">Take 1', view.html)
    assert (view.form()[field(lamp)], view.form()[field(desk)], view.form()["note"]) == ("2", "3", "Soon")
    assert (orders_of(max), stock_of(max, lamp)) == ([], 10)


def test_the_button_takes_what_is_left(browser: Visitor, max: Person, desk: Row) -> None:
    fields = [*choose(browser, (desk, 9)).form("/order").fields, (field(desk), "3")]
    taken = browser.post("/order?update=yes", fields)

    assert taken.form()[field(desk)] == "3"
    assert "left." not in taken.text
    assert send(browser).path == f"/orders/{orders_of(max)[0]['id']}"


def test_nothing_left_is_said_before_anything_is_sent(browser: Visitor, ada: Person, desk: Row) -> None:
    place(ada, (desk, 3))
    view = choose(browser, (desk, 1))

    assert view.status == 200
    assert "None left." in view.text


def test_a_price_that_changed_is_asked_about(browser: Visitor, ada: Person, max: Person, lamp: Row) -> None:
    choose(browser, (lamp, 2))
    ada.patch(f"/items/{lamp['id']}", {"price_cents": 1_350})
    asked = send(browser, note="Soon")

    assert asked.status == 409
    assert "It costs €13.50 now; it was €12.00." in asked.text
    assert (asked.form()[field(lamp)], asked.form()["note"], orders_of(max)) == ("2", "Soon", [])
    assert send(browser).path.startswith("/orders/")
    assert orders_of(max)[0]["total_cents"] == 2_700


def test_an_item_that_was_deleted_is_said_and_left_out(browser: Visitor, ada: Person, max: Person, lamp: Row) -> None:
    desk = ada.post("/items", {"name": "Desk", "price_cents": 34_900, "quantity": 3}).json()
    choose(browser, (lamp, 2), (desk, 1))
    ada.delete(f"/items/{desk['id']}")
    view = send(browser)

    assert view.status == 404
    assert "not there any more" in view.text
    assert field(desk) not in view.form()
    assert send(browser).path == f"/orders/{orders_of(max)[0]['id']}"


@pytest.mark.parametrize("wrong", ["1,234", "-1", "10001", "two", "9" * 30])
def test_a_wrong_quantity_is_said_beside_it(browser: Visitor, max: Person, lamp: Row, wrong: str) -> None:
    choose(browser, (lamp, 2))
    view = send(browser, note="Soon", **{field(lamp): wrong})

    assert view.status == 422
    assert f'aria-describedby="{field(lamp)}-error"' in view.html
    assert (view.form()[field(lamp)], view.form()["note"], orders_of(max)) == (wrong, "Soon", [])


def test_a_note_that_is_too_long_is_said_beside_it(browser: Visitor, max: Person, lamp: Row) -> None:
    choose(browser, (lamp, 2))
    view = send(browser, note="n" * 501)

    assert view.status == 422
    assert 'aria-describedby="field-note-error"' in view.html
    assert (view.form()["note"], orders_of(max)) == ("n" * 501, [])


@pytest.mark.parametrize("fields", [{}, {"key": "k"}, {"quantity-1": "0"}, {"quantity-1": "1", "note": "\0"}])
def test_what_is_no_order_is_refused(browser: Visitor, max: Person, fields: dict[str, str]) -> None:
    assert browser.post("/order", fields).status == 422
    assert orders_of(max) == []


# The list


def test_members_see_their_own_orders(visit: Visit, max: Person, eva: Person, lamp: Row) -> None:
    mine, other = place(max, (lamp, 1)), place(eva, (lamp, 1))
    view = visit(max).get("/orders")

    assert f"/orders/{mine['id']}" in view.links
    assert f"/orders/{other['id']}" not in view.links
    assert "Lamp × 1" in view.text
    assert "Fulfil" not in view.text.replace("Fulfilled", "")


def test_admins_see_who_ordered(visit: Visit, ada: Person, max: Person, eva: Person, lamp: Row) -> None:
    mine, other = place(max, (lamp, 1)), place(eva, (lamp, 1))
    browser = visit(ada)
    everybody, of_max = browser.get("/orders"), browser.get(f"/orders?user_id={max.id}")

    assert "Max" in everybody.text
    assert "Eva" in everybody.text
    assert f"/orders/{mine['id']}" in of_max.links
    assert f"/orders/{other['id']}" not in of_max.links
    assert "Show everybody's orders" in of_max.text


def test_a_tab_shows_the_orders_of_one_status(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    pending, done = place(max, (lamp, 1)), place(max, (lamp, 2))
    ada.patch(f"/orders/{done['id']}", {"status": "fulfilled"})
    view = visit(max).get("/orders?status=fulfilled&sort=-total_cents")

    assert f"/orders/{done['id']}" in view.links
    assert f"/orders/{pending['id']}" not in view.links
    assert "/orders?sort=-total_cents" in view.links


def test_the_list_of_orders_has_pages(visit: Visit, max: Person, lamp: Row) -> None:
    orders = [place(max, (lamp, 1)) for _ in range(3)]
    browser = visit(max)
    first, second = browser.get("/orders?page_size=2"), browser.get("/orders?page_size=2&page=2")

    assert "/orders?page_size=2&page=2" in first.links
    assert f"/orders/{orders[0]['id']}" in second.links
    assert browser.get("/orders?page=9").status == 200


def test_an_order_shows_two_of_its_lines_in_the_list(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    more = [ada.post("/items", {"name": name, "price_cents": 1, "quantity": 9}).json() for name in ("Bin", "Pen")]
    place(max, (lamp, 2), *((item, 1) for item in more))

    assert "Lamp × 2, Bin × 1 and 1 more" in visit(max).get("/orders").text


def test_an_empty_list_says_what_to_do(visit: Visit, max: Person) -> None:
    browser = visit(max)

    assert "Nothing was ordered yet" in browser.get("/orders").text
    assert "No cancelled orders" in browser.get("/orders?status=cancelled").text


def test_a_member_may_not_ask_for_the_orders_of_somebody(visit: Visit, ada: Person, max: Person) -> None:
    assert visit(max).get(f"/orders?user_id={ada.id}").status == 403
    assert "somebody who is not here" in visit(ada).get("/orders?user_id=999").text.lower()


@pytest.mark.parametrize("query", ["status=lost", "sort=note", "page=0", "user_id=x", "user_id=9223372036854775808"])
def test_a_query_that_means_nothing_is_refused(visit: Visit, ada: Person, query: str) -> None:
    assert visit(ada).get(f"/orders?{query}").status == 422


def test_names_in_the_query_that_nobody_knows_are_ignored(visit: Visit, ada: Person) -> None:
    assert visit(ada).get("/orders?utm_source=mail&status=").status == 200


def test_an_admin_fulfils_several_orders_at_once(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    orders = [place(max, (lamp, 1)) for _ in range(3)]
    browser = visit(ada)
    form = browser.get("/orders?status=pending&sort=created_at").form("/orders")
    ticked = [("order", str(order["id"])) for order in orders[:2]]
    view = browser.post("/orders", [*form.fields, *ticked])

    assert "2 orders were fulfilled." in view.text
    assert parse_qsl(urlsplit(form["back"]).query) == [("status", "pending"), ("sort", "created_at")]
    assert [order["status"] for order in orders_of(ada)] == ["fulfilled", "fulfilled", "pending"]
    assert len(max.get("/notifications").json()["items"]) == 2


def test_what_is_not_pending_any_more_is_left_alone(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    pending, cancelled = place(max, (lamp, 1)), place(max, (lamp, 1))
    max.patch(f"/orders/{cancelled['id']}", {"status": "cancelled"})
    ticked = [("order", str(order_id)) for order_id in (pending["id"], cancelled["id"], 999)]
    view = visit(ada).post("/orders", ticked)

    assert "1 order was fulfilled. What else you ticked was not pending any more." in view.text
    assert [order["status"] for order in orders_of(ada)] == ["fulfilled", "cancelled"]


@pytest.mark.parametrize("order", ["", "x", "0", str(2**63), "9" * 40])
def test_what_names_no_order_fulfils_none(visit: Visit, ada: Person, order: str) -> None:
    assert "Tick the orders" in visit(ada).post("/orders", [("order", order)]).text


def test_more_than_a_page_or_what_cannot_be_stored_fulfils_none(visit: Visit, ada: Person, lamp: Row) -> None:
    order = place(ada, (lamp, 1))
    browser = visit(ada)

    assert browser.post("/orders", [("order", str(order_id)) for order_id in range(1, 102)]).status == 422
    assert browser.post("/orders", [("order", str(order["id"])), ("note", "\0")]).status == 422
    assert orders_of(ada)[0]["status"] == "pending"


def test_a_member_fulfils_nothing(visit: Visit, max: Person, lamp: Row) -> None:
    order = place(max, (lamp, 1))
    browser = visit(max)

    assert browser.post("/orders", [("order", str(order["id"]))]).status == 403
    assert browser.post(f"/orders/{order['id']}", {"status": "fulfilled"}).status == 403
    assert orders_of(max)[0]["status"] == "pending"


# One order


def test_the_page_of_an_order_shows_it_all(visit: Visit, max: Person, lamp: Row) -> None:
    body = {"lines": [{"item_id": lamp["id"], "quantity": 2}], "note": "First\n<b>second</b>"}
    order = max.post("/orders", body).json()
    view = visit(max).get(f"/orders/{order['id']}")

    assert all(text in view.text for text in ("Lamp", "€12.00", "€24.00", "Pending", "Max"))
    assert "First<br>&lt;b&gt;second&lt;/b&gt;" in view.html
    assert f"/items/{lamp['id']}" in view.links
    assert "History" not in view.text


def test_admins_see_the_history_of_an_order(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    order = place(max, (lamp, 2))

    assert "History" in visit(ada).get(f"/orders/{order['id']}").text


def test_an_admin_fulfils_an_order(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    order = place(max, (lamp, 2))
    browser = visit(ada)
    browser.get(f"/orders/{order['id']}")
    view = browser.post(f"/orders/{order['id']}", {"status": "fulfilled"})

    assert (view.path, view.status) == (f"/orders/{order['id']}", 200)
    assert f"Order {order['id']} was fulfilled." in view.text
    assert "Cancel the order" not in view.text


def test_the_button_in_the_list_leads_back_to_the_list(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    order = place(max, (lamp, 2))
    browser = visit(ada)
    form = browser.get("/orders?status=pending").form("/orders")
    answer = browser.request("POST", f"/orders/{order['id']}", data={"status": "fulfilled", "back": form["back"]})

    assert (answer.status_code, answer.headers["location"]) == (303, "/orders?status=pending")


def test_its_owner_cancels_an_order_after_being_asked(visit: Visit, max: Person, lamp: Row) -> None:
    order = place(max, (lamp, 2))
    browser = visit(max)
    view = browser.get(f"/orders/{order['id']}")

    assert f"Cancel order {order['id']}?" in view.text
    assert "was cancelled." in browser.send().text
    assert stock_of(max, lamp) == 10


def test_what_was_closed_meanwhile_is_said_on_the_page_of_the_order(
    visit: Visit, ada: Person, max: Person, lamp: Row
) -> None:
    order = place(max, (lamp, 2))
    browser = visit(max)
    browser.get(f"/orders/{order['id']}")
    ada.patch(f"/orders/{order['id']}", {"status": "fulfilled"})
    view = browser.send()

    assert view.status == 409
    assert "The order is fulfilled; only a pending one can change." in view.text
    assert f"Order {order['id']}" in view.text


@pytest.mark.parametrize("status", ["", "pending", "lost", "fulfilled\0"])
def test_a_status_that_is_none_is_refused(visit: Visit, ada: Person, lamp: Row, status: str) -> None:
    order = place(ada, (lamp, 2))
    view = visit(ada).post(f"/orders/{order['id']}", {"status": status})

    assert view.status == 422
    assert orders_of(ada)[0]["status"] == "pending"


def test_the_same_is_ordered_again(visit: Visit, max: Person, lamp: Row, desk: Row) -> None:
    order = place(max, (lamp, 2), (desk, 1))
    browser = visit(max)
    form = browser.get(f"/orders/{order['id']}").form("/cart")
    view = browser.post("/cart", form.fields)

    assert (view.path, basket(browser)) == ("/order", {field(lamp): "2", field(desk): "1"})


def test_the_order_of_somebody_else_is_not_there(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    order = place(ada, (lamp, 1))
    browser = visit(max)

    assert browser.get(f"/orders/{order['id']}").status == 404
    assert browser.post(f"/orders/{order['id']}", {"status": "cancelled"}).status == 404


@pytest.mark.parametrize("order_id", ["0", "x", "-1", "1.5", "999", str(2**63), "9" * 40])
def test_what_names_no_order_is_not_found(visit: Visit, ada: Person, order_id: str) -> None:
    assert visit(ada).get(f"/orders/{order_id}").status == 404


@pytest.mark.parametrize("path", ["/orders", "/orders/1", "/order"])
def test_whoever_is_not_signed_in_is_asked_to(visit: Visit, max: Person, path: str) -> None:
    browser = visit(max)
    browser.cookies.clear()
    asked, posted = browser.request("GET", path), browser.request("POST", path)

    assert asked.headers["location"] == f"/sign-in?next={path.replace('/', '%2F')}"
    assert (asked.status_code, posted.status_code, posted.headers["location"]) == (303, 303, "/sign-in")


def test_pages_of_orders_cost_at_most_six_statements(
    app: App, visit: Visit, ada: Person, max: Person, lamp: Row
) -> None:
    order = place(max, (lamp, 1))
    place(ada, (lamp, 1))
    browser = visit(ada)
    choose(browser, (lamp, 2))
    costs: dict[str, int] = {}
    for path in ("/order", "/orders", f"/orders/{order['id']}"):
        with counted_statements(app) as statements:
            browser.get(path)
        costs[path] = len(statements)

    assert [*costs.values()] == [2, 5, 6]


# At somebody's account


def test_the_page_of_somebody_leads_to_their_orders(visit: Visit, ada: Person, max: Person) -> None:
    assert f"/orders?user_id={max.id}" in visit(ada).get(f"/users/{max.id}").links


def test_somebody_who_ordered_is_not_deleted_and_the_page_says_what_to_do(
    visit: Visit, ada: Person, max: Person, lamp: Row
) -> None:
    place(max, (lamp, 1))
    visitor = visit(ada)
    visitor.get(f"/users/{max.id}")
    view = visitor.send(f"/users/{max.id}/delete")

    assert view.status == 409
    assert "deactivate it instead" in view.text
    assert view.form(f"/users/{max.id}")["full_name"] == "Max"
