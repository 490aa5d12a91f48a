"""The pages of the stock: the list, an item, an import in two steps, and the basket that the list fills."""

from collections.abc import Callable
from typing import Any

import pytest

from items import BASKET_SECONDS
from kit.spreadsheets import MAX_BYTES
from tests.people import LAMP, Person, place, stock_of
from tests.visitors import View, Visitor

Row = dict[str, Any]
Visit = Callable[[Person], Visitor]

HOSTILE_TEXT = ["1,234", "12.345", "-1", "0", "1e3", "9" * 30, "", "zwölf", "\x001"]


def chairs(count: int = 3, **fields: Any) -> list[Row]:
    return [LAMP | {"name": f"Chair {number}", "tags": []} | fields for number in range(count)]


def upload(visitor: Visitor, content: str | bytes, name: str = "stock.csv") -> View:
    return visitor.post("/items/import", files={"file": (name, content, "text/csv")})


# The list


def test_the_list_shows_each_item_with_its_price_tags_and_stock(visit: Visit, max: Person, lamp: Row) -> None:
    view = visit(max).get("/items")

    assert "Lamp light €12.00 10" in view.text
    assert f"/items/{lamp['id']}" in view.links
    assert f"quantity-{lamp['id']}" in view.form("/cart")


def test_what_is_low_and_what_is_gone_is_marked(visit: Visit, ada: Person) -> None:
    ada.post("/items", LAMP | {"name": "Low", "quantity": 2})
    ada.post("/items", LAMP | {"name": "Gone", "quantity": 0})

    html = visit(ada).get("/items").html

    assert '<span class="badge warn">2 left</span>' in html
    assert '<span class="badge bad">None left</span>' in html


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("q=LAM", {"Lamp"}),
        ("tag=light", {"Lamp"}),
        ("in_stock=true", {"Lamp", "Chair"}),
        ("in_stock=false", {"Desk"}),
        ("low_stock=true", {"Chair", "Desk"}),
        ("q=&tag=&in_stock=&utm_source=mail", {"Lamp", "Chair", "Desk"}),
    ],
)
def test_the_address_chooses_what_is_shown(visit: Visit, ada: Person, lamp: Row, query: str, names: set[str]) -> None:
    ada.post("/items", LAMP | {"name": "Chair", "quantity": 1, "tags": []})
    ada.post("/items", LAMP | {"name": "Desk", "quantity": 0, "tags": []})

    text = visit(ada).get(f"/items?{query}").text

    assert {name for name in ("Lamp", "Chair", "Desk") if f"Tick {name}" in text} == names


def test_a_page_and_an_order_keep_what_was_filtered(visit: Visit, ada: Person) -> None:
    for body in chairs(3, tags=["seat"]):
        ada.post("/items", body)

    view = visit(ada).get("/items?tag=seat&page_size=2&sort=-name")

    assert "1–2 of 3" in view.text
    assert "/items?tag=seat&page_size=2&sort=-name&page=2" in view.html.replace("&amp;", "&")
    assert "/items?tag=seat&page_size=2&sort=price_cents" in view.html.replace("&amp;", "&")


def test_one_of_several_tags_can_be_taken_back(visit: Visit, max: Person, lamp: Row) -> None:
    view = visit(max).get("/items?tag=light&tag=a%26b")

    assert "Nothing was found" in view.text
    assert {"/items?tag=light", "/items?tag=a%26b", "/items"} <= {*view.links}


def test_an_empty_stock_says_what_to_do_next(visit: Visit, ada: Person, max: Person) -> None:
    view = visit(ada).get("/items")

    assert "Add the first item" in view.text
    assert "uv run manage.py seed --force" in view.text
    assert {"/items/new", "/items/import"} <= {*view.links}
    assert "Nothing is in stock yet" in visit(max).get("/items").text


def test_a_page_beyond_the_last_one_leads_back(visit: Visit, max: Person, lamp: Row) -> None:
    view = visit(max).get("/items?q=lamp&page=9")

    assert (view.status, "This page is empty" in view.text) == (200, True)
    assert "/items?q=lamp" in view.links


@pytest.mark.parametrize("query", ["page=0", "page=x", "sort=secret", "tag=%00", "tag=%ff", "in_stock=perhaps"])
def test_an_address_that_means_nothing_is_refused_as_a_page(visit: Visit, max: Person, query: str) -> None:
    view = visit(max).get(f"/items?{query}")

    assert (view.status, "<h1>" in view.html) == (422, True)


def test_what_an_item_is_called_is_never_markup(visit: Visit, ada: Person) -> None:
    made = ada.post("/items", LAMP | {"name": "<b>Lamp", "tags": ['"><script>']}).json()

    visitor = visit(ada)

    for path in ("/items", f"/items/{made['id']}"):
        html = visitor.get(path).html
        assert "<b>Lamp" not in html
        assert '"><script>' not in html


# Who may

ADMINS_ONLY = [
    ("GET", "/items/new"),
    ("POST", "/items/new"),
    ("POST", "/items/tags"),
    ("GET", "/items/export"),
    ("GET", "/items/import"),
    ("POST", "/items/import"),
    ("GET", "/items/import/preview"),
    ("POST", "/items/import/preview"),
    ("GET", "/items/import/wrong"),
    ("POST", "/items/1"),
    ("POST", "/items/1/stock"),
    ("POST", "/items/1/delete"),
]


@pytest.mark.parametrize(("method", "path"), ADMINS_ONLY)
def test_members_change_nothing(visit: Visit, max: Person, lamp: Row, method: str, path: str) -> None:
    answer = visit(max).request(method, path.replace("1", str(lamp["id"])))

    assert answer.status_code == 403
    assert "Only an admin may do this." in answer.text


@pytest.mark.parametrize(("method", "path"), [("GET", "/items"), ("GET", "/items/1"), *ADMINS_ONLY])
def test_strangers_are_asked_to_sign_in(client: Any, ada: Person, method: str, path: str) -> None:
    answer = Visitor(client).request(method, path)

    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in")


def test_members_see_the_facts_and_nothing_to_change_them(visit: Visit, max: Person, lamp: Row) -> None:
    view = visit(max).get(f"/items/{lamp['id']}")

    assert "Price €12.00 In stock 10 Tags light" in view.text
    assert [form.action for form in view.forms if form.method == "post"] == ["/sign-out", "/cart"]


@pytest.mark.parametrize("item_id", ["0", "99", "x", "1.5", "-1", "9" * 30, "%00"])
def test_an_id_that_is_none_is_not_found(visit: Visit, ada: Person, item_id: str) -> None:
    visitor = visit(ada)

    assert visitor.get(f"/items/{item_id}").status == 404
    for verb in ("", "/stock", "/delete"):
        assert visitor.post(f"/items/{item_id}{verb}", {"by": "1"}).status == 404


# New, changed, deleted


def test_an_admin_adds_an_item_and_is_led_to_it(visit: Visit, ada: Person) -> None:
    visitor = visit(ada)
    visitor.get("/items/new")

    view = visitor.send(name="Desk", price_cents="12,50", quantity="3", tags="wood, big")

    assert "Desk was added." in view.text
    made = ada.get("/items").json()["items"][0]
    assert (made["price_cents"], made["quantity"], made["tags"]) == (1250, 3, ["wood", "big"])
    assert f'<a href="/items/{made["id"]}">Show it</a>' in view.html


@pytest.mark.parametrize("price", HOSTILE_TEXT)
def test_a_price_that_is_no_amount_is_refused_beside_its_field(visit: Visit, ada: Person, price: str) -> None:
    visitor = visit(ada)
    visitor.get("/items/new")

    view = visitor.send(name="Desk", price_cents=price)

    assert view.status == 422
    assert "\0" in price or 'aria-invalid="true"' in view.html
    assert view.form()["name"] == "Desk"
    assert ada.get("/items").json()["total"] == 0


def test_a_name_that_is_taken_is_said_beside_it(visit: Visit, ada: Person, lamp: Row) -> None:
    visitor = visit(ada)
    visitor.get("/items/new")

    view = visitor.send(name="LAMP", price_cents="1")

    assert (view.status, view.form()["name"], view.form()["price_cents"]) == (409, "LAMP", "1")
    assert "Another item has this name." in view.text


def test_after_saving_one_is_back_at_the_list_as_it_was(visit: Visit, ada: Person, lamp: Row) -> None:
    visitor = visit(ada)
    there = "/items?q=lam&sort=-name"
    path = f"/items/{lamp['id']}"
    visitor.last = View(visitor.request("GET", path, headers={"Referer": f"http://testserver{there}"}), path)

    wrong = visitor.send(path, price_cents="x")
    answer = visitor.request("POST", path, data=dict(wrong.form(path).fields) | {"price_cents": "20"})

    assert answer.headers["location"] == there
    view = visitor.get(there)
    assert "Lamp was saved." in view.text
    assert f'<tr id="item-{lamp["id"]}" class="said">' in view.html
    assert "Lamp was saved." not in visitor.get(there).text


@pytest.mark.parametrize("referer", ["http://[", "https://evil.example/items//evil", "/orders?x=1", "\x7f", ""])
def test_one_never_comes_back_to_another_place(visit: Visit, ada: Person, lamp: Row, referer: str) -> None:
    answer = visit(ada).request("GET", "/items/new", headers={"Referer": referer})

    assert View(answer, "/items/new").form()["back"] == "/items"


def test_a_back_that_was_forged_leads_to_the_list(visit: Visit, ada: Person, lamp: Row) -> None:
    answer = visit(ada).request("POST", f"/items/{lamp['id']}/stock", data={"by": "1", "back": "//evil.example"})

    assert answer.headers["location"] == "/items"


def test_two_who_change_different_fields_both_succeed(visit: Visit, ada: Person, lamp: Row) -> None:
    visitor, path = visit(ada), f"/items/{lamp['id']}"
    visitor.get(path)
    ada.patch(path, {"quantity": 7})

    assert visitor.send(path, price_cents="13").status == 200

    item = ada.get(path).json()
    assert (item["quantity"], item["price_cents"]) == (7, 1300)


def test_who_changes_the_same_field_second_sees_both_values(visit: Visit, ada: Person, lamp: Row) -> None:
    visitor, path = visit(ada), f"/items/{lamp['id']}"
    visitor.get(path)
    ada.patch(path, {"price_cents": 1400})

    view = visitor.send(path, price_cents="13")

    assert (view.status, view.form(path)["price_cents"]) == (412, "13")
    assert "Changed to 14.00 meanwhile; it was 12.00." in view.text
    assert visitor.send(path).status == 200
    assert ada.get(path).json()["price_cents"] == 1300


def test_tags_can_be_cleared(visit: Visit, ada: Person, lamp: Row) -> None:
    visitor, path = visit(ada), f"/items/{lamp['id']}"
    visitor.get(path)
    visitor.send(path, tags=" , ")

    assert ada.get(path).json()["tags"] == []


def test_stock_is_added_to_whatever_there_is(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    visitor, path = visit(ada), f"/items/{lamp['id']}"
    visitor.get(path)
    place(max, (lamp, 4))

    view = visitor.send(f"{path}/stock", by="10")

    assert "Now 16 of Lamp are in stock." in view.text
    assert stock_of(ada, lamp) == 16


def test_stock_that_is_taken_out_warns_the_other_admins(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    ada.patch(f"/users/{max.id}", {"role": "admin"})
    visit(ada).post(f"/items/{lamp['id']}/stock", {"by": "-9"})

    assert [found["kind"] for found in max.get("/notifications").json()["items"]] == ["low_stock"]
    entry = ada.get(f"/audit?entity=item&entity_id={lamp['id']}").json()["items"][0]
    assert (entry["actor_id"], entry["changes"]) == (ada.id, {"quantity": [10, 1]})


@pytest.mark.parametrize(
    ("by", "status", "said"),
    [
        ("-11", 409, "Only 10 are left."),
        ("1000000000", 409, "At most 1,000,000,000 can be in stock."),
        ("9" * 15, 422, "Enter at most 1000000000"),
        ("1.5", 422, "Enter a whole number"),
        ("", 422, "Enter a whole number"),
        ("\x001", 422, "cannot be stored"),
    ],
)
def test_stock_never_becomes_what_it_cannot_be(
    visit: Visit, ada: Person, lamp: Row, by: str, status: int, said: str
) -> None:
    view = visit(ada).post(f"/items/{lamp['id']}/stock", {"by": by})

    assert (view.status, said in view.text) == (status, True), view.text
    assert view.form(f"/items/{lamp['id']}")["name"] == "Lamp"
    assert stock_of(ada, lamp) == 10


def test_an_item_that_was_never_ordered_can_be_deleted(visit: Visit, ada: Person, lamp: Row) -> None:
    visitor = visit(ada)
    visitor.get(f"/items/{lamp['id']}")

    assert "Lamp was deleted." in visitor.send(f"/items/{lamp['id']}/delete").text
    assert visitor.post(f"/items/{lamp['id']}/delete").status == 404


def test_an_item_that_was_ordered_stays_and_its_page_says_why(
    visit: Visit, ada: Person, max: Person, lamp: Row
) -> None:
    place(max, (lamp, 1))

    view = visit(ada).post(f"/items/{lamp['id']}/delete")

    assert (view.status, "was ordered before and cannot be deleted" in view.text) == (409, True)
    assert view.form(f"/items/{lamp['id']}")["name"] == "Lamp"


def test_admins_see_who_changed_an_item(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    place(max, (lamp, 1))

    assert "Max" in visit(ada).get(f"/items/{lamp['id']}").text
    assert "History" not in visit(max).get(f"/items/{lamp['id']}").text


# Several at once


def tagged(visitor: Visitor, tag: str, *items: Row, do: str = "add") -> View:
    fields = [("tag", tag), ("do", do), ("back", "/items?q=a"), *(("items", str(item["id"])) for item in items)]
    return visitor.post("/items/tags?q=a", fields)


def test_several_items_get_a_tag_and_lose_it(visit: Visit, ada: Person, lamp: Row) -> None:
    chair = ada.post("/items", LAMP | {"name": "Chair", "tags": []}).json()
    visitor = visit(ada)

    assert "light was given to 1 item." in tagged(visitor, "light", lamp, chair).text
    assert ada.get("/items?tag=light").json()["total"] == 2
    assert "light was taken from 2 items." in tagged(visitor, "light", lamp, chair, do="remove").text
    assert ada.get("/items?tag=light").json()["total"] == 0


def test_an_item_with_ten_tags_gets_no_eleventh(visit: Visit, ada: Person, lamp: Row) -> None:
    full = ada.post("/items", LAMP | {"name": "Atlas", "tags": [str(number) for number in range(10)]}).json()

    view = tagged(visit(ada), "new", lamp, full)

    assert (view.status, "Atlas has 10 tags" in view.text) == (409, True)
    assert 'value="new"' in view.html
    assert ada.get("/items?tag=new").json()["total"] == 0


@pytest.mark.parametrize(("tag", "said"), [("", "Enter the tag."), ("a;b", "character"), ("x" * 31, "at most 30")])
def test_a_tag_that_cannot_be_is_refused_on_the_list(visit: Visit, ada: Person, lamp: Row, tag: str, said: str) -> None:
    view = tagged(visit(ada), tag, lamp)

    assert (view.status, said in view.text) == (422, True)
    assert "/items?q=a&amp;sort=price_cents" in view.html
    assert f'name="items" value="{lamp["id"]}" checked' in view.html


def test_tagging_nothing_or_what_is_gone_says_so(visit: Visit, ada: Person, lamp: Row) -> None:
    visitor = visit(ada)

    assert "Tick the items that you mean." in tagged(visitor, "new").text
    assert tagged(visitor, "new", lamp, {"id": 99}).status == 404
    assert tagged(visitor, "new", {"id": "x"}).status == 422
    assert stock_of(ada, lamp) == 10


# The basket


def keep(visitor: Visitor, value: str) -> None:
    visitor.cookies["cart"] = value


def test_the_list_shows_what_one_means_to_order(visit: Visit, max: Person, lamp: Row) -> None:
    visitor = visit(max)
    session_id = max.get("/auth/sessions").json()[0]["id"]
    keep(visitor, f"{session_id}.{lamp['id']}:3")

    view = visitor.get("/items")

    assert view.form("/cart")[f"quantity-{lamp['id']}"] == "3"
    assert "1 item in your order, €36.00" in view.text


@pytest.mark.parametrize(
    "basket", ["", "x", "1", "{}.", "{}.1:0", "{}.1:99999", "{}." + "9" * 19 + ":1", "{}x", "1.1:1"]
)
def test_a_basket_that_is_none_is_empty(visit: Visit, max: Person, lamp: Row, basket: str) -> None:
    visitor = visit(max)
    keep(visitor, basket.replace("{}", str(max.get("/auth/sessions").json()[0]["id"])))

    assert "Enter how many you need." in visitor.get("/items").text


def test_a_basket_is_good_for_a_day() -> None:
    assert BASKET_SECONDS == 86_400


# Import

FILE = "name,price_cents,quantity\r\nLamp,1300,10\r\nChair,500,4\r\n"
AMOUNTS = "Name;Price;Quantity;Tags\r\nLamp;13,00;10;light\r\nChair;5;4;\r\n"


@pytest.mark.parametrize("content", [FILE, AMOUNTS])
def test_a_file_is_shown_before_anything_is_written(visit: Visit, ada: Person, lamp: Row, content: str) -> None:
    visitor = visit(ada)

    view = upload(visitor, content)

    assert "stock.csv" in view.text
    assert "New 1 Changed 1 As they are 0 Wrong 0" in view.text
    assert "was €12.00 becomes €13.00" in view.text
    assert (ada.get("/items").json()["total"], ada.get(f"/items/{lamp['id']}").json()["price_cents"]) == (1, 1200)


@pytest.mark.parametrize("content", [FILE, AMOUNTS])
def test_what_was_shown_is_imported_once(visit: Visit, ada: Person, lamp: Row, content: str) -> None:
    visitor = visit(ada)
    upload(visitor, content)

    view = visitor.send("/items/import/preview")

    assert "stock.csv was imported: 1 new, 1 changed." in view.text
    found = {item["name"]: item for item in ada.get("/items").json()["items"]}
    assert (found["Lamp"]["price_cents"], found["Chair"]["price_cents"], found["Lamp"]["tags"]) == (
        1300,
        500,
        ["light"],
    )
    again = visitor.post("/items/import/preview", {"seen": "x"})
    assert "imported before" in again.text


@pytest.mark.parametrize(
    "change",
    [{"price_cents": 1250}, {"price_cents": 1300}, {"quantity": 9}, {"name": "Lamps"}],
    ids=["another old value", "nothing left to change", "more to change", "another name"],
)
def test_an_import_that_would_do_something_else_shows_itself_again(
    visit: Visit, ada: Person, lamp: Row, change: Row
) -> None:
    visitor = visit(ada)
    upload(visitor, FILE)
    ada.patch(f"/items/{lamp['id']}", change)
    before = ada.get("/items").json()

    view = visitor.send("/items/import/preview")

    assert (view.status, "has changed since it was shown" in view.text) == (409, True)
    assert ada.get("/items").json() == before
    assert "imported: " in visitor.send("/items/import/preview").text


def test_another_file_than_was_shown_is_not_imported(visit: Visit, ada: Person, lamp: Row) -> None:
    visitor, other_window = visit(ada), visit(ada)
    seen = upload(visitor, FILE).form("/items/import/preview")["seen"]
    upload(other_window, FILE.replace("Chair", "Table"))

    view = visitor.post("/items/import/preview", {"seen": seen})

    assert (view.status, "Table" in view.text) == (409, True)
    assert ada.get("/items").json()["total"] == 1


def test_what_somebody_else_changes_beside_it_hinders_no_import(visit: Visit, ada: Person, lamp: Row) -> None:
    visitor = visit(ada)
    upload(visitor, "name,price_cents\r\nLamp,1300\r\n")
    ada.patch(f"/items/{lamp['id']}", {"quantity": 3})

    assert "imported: 0 new, 1 changed." in visitor.send("/items/import/preview").text
    assert stock_of(ada, lamp) == 3


WRONG = (
    "Name,Price,Quantity,Reorder level\r\nDesk,1234x,1,0\r\nDesk,1,-1,0\r\n\r\n"
    "Table,0,1,0\r\nDESK,1,1,0\r\nDesk,1,1,0\r\nx,1\r\n"
)


def test_wrong_lines_are_named_and_nothing_is_imported(visit: Visit, ada: Person) -> None:
    visitor = visit(ada)

    view = upload(visitor, WRONG)

    assert "2 price: Enter an amount such as 12.50" in view.text
    assert "3 quantity: Enter a whole number in digits alone" in view.text
    assert "5 price: Enter at least 0.01" in view.text
    assert "7 name: It stands in this file twice" in view.text
    assert visitor.post("/items/import/preview", {"seen": ""}).status == 409
    assert ada.get("/items").json()["total"] == 0


def test_wrong_lines_can_be_downloaded(visit: Visit, ada: Person) -> None:
    visitor = visit(ada)
    upload(visitor, WRONG)

    answer = visitor.request("GET", "/items/import/wrong")

    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.splitlines()[:2] == ["line,what is wrong", "2,price: Enter an amount such as 12.50"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "This file is empty"),
        (b"\xff\xfe", "Save the file as UTF-8"),
        (b"\n", "Begin the file with a header of name, price, quantity, reorder level, tags"),
        (b"Name,Colour\n", "The column 'colour' is not known"),
        (b"Name\n", "The column 'price' is missing"),
        (b"Name,Price,Price_cents\n", "stands in the header twice"),
        (b"\x89PNG\r\n\x1a\n\x00", "Save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_list_says_so_where_it_was_chosen(
    visit: Visit, ada: Person, content: bytes, said: str
) -> None:
    view = upload(visit(ada), content)

    assert (view.status, said in view.text) == (422, True), view.text
    assert view.form("/items/import").files == ["file"]


def test_no_file_at_all_is_asked_for(visit: Visit, ada: Person) -> None:
    view = visit(ada).post("/items/import", {"file": "text"})

    assert (view.status, "Choose a file" in view.text) == (422, True)


def test_a_file_that_is_too_large_says_so_where_it_was_chosen(visit: Visit, ada: Person) -> None:
    view = upload(visit(ada), b"x" * (MAX_BYTES + 1))

    assert (view.status, "larger than 16 MiB" in view.text) == (413, True)
    assert view.form("/items/import").files == ["file"]


def test_a_file_that_is_far_too_large_is_not_read(visit: Visit, ada: Person) -> None:
    view = upload(visit(ada), b"x" * (2 * MAX_BYTES + 1))

    assert (view.status, "too large" in view.text) == (413, True)


def test_a_preview_without_a_file_asks_for_one(visit: Visit, ada: Person) -> None:
    visitor = visit(ada)

    for path in ("/items/import/preview", "/items/import/wrong"):
        assert "Choose a file first." in visitor.get(path).text


def test_each_admin_has_a_file_of_their_own(visit: Visit, ada: Person, max: Person) -> None:
    ada.patch(f"/users/{max.id}", {"role": "admin"})
    upload(visit(ada), FILE)

    assert "Choose a file first." in visit(max).get("/items/import/preview").text


def test_a_file_that_changes_nothing_is_not_imported(visit: Visit, ada: Person, lamp: Row) -> None:
    view = upload(visit(ada), "name,price_cents\r\nLamp,1200\r\n")

    assert "Nothing to import" in view.text


def test_a_preview_of_many_rows_shows_the_first_and_stays_small(visit: Visit, ada: Person) -> None:
    rows = "".join(f"Chair {number},500,4,furniture;oak\r\n" for number in range(1_000))

    view = upload(visit(ada), f"name,price_cents,quantity,tags\r\n{rows}")

    assert "These are the first 200 of 1,000." in view.text
    assert len(view.html) < 60_000


def test_the_import_warns_of_what_becomes_low(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    ada.patch(f"/users/{max.id}", {"role": "admin"})
    visitor = visit(ada)
    upload(visitor, "name,price_cents,quantity\r\nLamp,1200,1\r\n")
    visitor.send("/items/import/preview")

    assert max.get("/notifications").json()["items"][0]["kind"] == "low_stock"


def test_the_export_is_that_of_the_api(visit: Visit, ada: Person, lamp: Row) -> None:
    answer = visit(ada).request("GET", "/items/export")

    assert answer.text == ada.get("/items/export").text
    assert "attachment" in answer.headers["content-disposition"]


def test_ordering_starts_at_the_list(visit: Visit, max: Person, lamp: Row) -> None:
    visitor = visit(max)
    visitor.get("/items")

    view = visitor.send("/cart", **{f"quantity__{lamp['id']}": "2"})

    assert "1 item in your order, €24.00" in view.text
