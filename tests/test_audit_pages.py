"""The page of the audit, and what it says in words."""

from collections.abc import Callable

import pytest

from tests.people import Person, Row, place
from tests.visitors import Visitor

Visit = Callable[[Person], Visitor]


def test_a_change_is_said_with_names_and_amounts(visit: Visit, ada: Person, lamp: Row) -> None:
    ada.patch("/items/1", {"price_cents": 1350, "tags": ["light", "new"]})

    view = visit(ada).get("/audit")

    assert "Ada changed the price and the tags of item Lamp" in view.text
    assert "Price was €12.00 is now €13.50" in view.text
    assert "Tags was light is now light, new" in view.text
    assert "/items/1" in view.links
    assert f"/users/{ada.id}" in view.links


def test_a_number_is_raised_or_lowered(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    place(max, (lamp, 3))
    ada.patch("/items/1", {"quantity": 27})

    view = visit(ada).get("/audit?entity=item")

    assert "Max lowered the quantity of item Lamp by 3" in view.text
    assert "Ada raised the quantity of item Lamp by 20" in view.text


def test_an_order_is_said_with_the_names_of_its_items(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    place(max, (lamp, 3))

    view = visit(ada).get("/audit?entity=order")

    assert "Max created order 1" in view.text
    assert "Total is now €36.00" in view.text
    assert "item Lamp, quantity 3, unit price €12.00" in view.text
    assert "/orders/1" in view.links


def test_a_password_has_no_values(visit: Visit, ada: Person, max: Person) -> None:
    max.put("/users/me/password", {"current_password": "Correct-horse-1", "new_password": "Other-horse-22"})
    ada.post(f"/users/{max.id}/password-reset")

    view = visit(ada).get("/audit?entity=user")

    assert "changed the password of user Max" in view.text
    assert "made a link to set a new password for user Max" in view.text
    assert "None" not in view.text


def test_yes_and_no_are_said(visit: Visit, ada: Person, max: Person) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})

    assert "Ada set active to no for user Max" in visit(ada).get("/audit").text


def test_what_is_deleted_is_named_and_leads_nowhere(visit: Visit, ada: Person, lamp: Row) -> None:
    ada.delete("/items/1")

    view = visit(ada).get("/audit?entity=item")

    assert "Ada deleted item Lamp" in view.text
    assert "/items/1" not in view.links


def test_what_nobody_did_was_done_by_the_system(visit: Visit, ada: Person) -> None:
    assert "The system created user Ada" in visit(ada).get("/audit").text


def test_a_deleted_account_is_not_named(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    max.post("/posts", {"title": "Bye", "content": "I leave."})
    ada.delete(f"/users/{max.id}")

    view = visit(ada).get("/audit?entity=post")

    assert "A deleted account created post Bye" in view.text
    assert f"/users/{max.id}" not in view.links


def test_a_comment_leads_to_its_place(visit: Visit, ada: Person, max: Person) -> None:
    max.post("/posts", {"title": "Printing", "content": "It is out of paper."})
    max.post("/posts/1/comments", {"content": "Bring some."})
    max.patch("/posts/1/comments/1", {"content": "Bring some, please."})
    visitor = visit(ada)

    assert visitor.get("/audit?entity=comment").links.count("/posts/1/comments/1") == 2
    max.delete("/posts/1/comments/1")
    assert "/posts/1/comments/1" not in visitor.get("/audit?entity=comment").links


def test_a_long_text_is_shown_where_it_differs(visit: Visit, ada: Person) -> None:
    ada.post("/posts", {"title": "Long", "content": "word " * 3000})
    ada.patch("/posts/1", {"content": "word " * 2000 + "end"})

    view = visit(ada).get("/audit?entity=post")

    assert "word end" in view.text
    assert len(view.html) < 10_000


def test_changes_are_found_by_thing_and_person(visit: Visit, ada: Person, max: Person, lamp: Row) -> None:
    place(max, (lamp, 3))
    visitor = visit(ada)

    view = visitor.get(f"/audit?entity=item&entity_id=1&actor_id={max.id}")

    assert "Max lowered the quantity" in view.text
    assert "created item" not in view.text
    form = next(form for form in view.forms if "actor_id" in form)
    assert (form.method, form["entity"], form["entity_id"], form["actor_id"]) == ("get", "item", "1", str(max.id))
    assert "Nothing was found" in visitor.get("/audit?entity=item&entity_id=9").text


def test_empty_filters_are_none(visit: Visit, ada: Person, lamp: Row) -> None:
    assert "created item Lamp" in visit(ada).get("/audit?entity=&entity_id=&actor_id=").text


@pytest.mark.parametrize("query", ["entity=planet", "entity_id=x", "actor_id=0", f"entity_id={2**63}", "cursor=x"])
def test_what_no_filter_can_be_is_a_page_that_says_so(visit: Visit, ada: Person, query: str) -> None:
    view = visit(ada).get(f"/audit?{query}")

    assert view.status == 422
    assert "Back to the start" in view.text


def test_somebody_who_is_gone_can_be_asked_for(visit: Visit, ada: Person) -> None:
    view = visit(ada).get("/audit?actor_id=99")

    assert (view.status, next(form for form in view.forms if "actor_id" in form)["actor_id"]) == (200, "99")


def test_older_changes_follow(visit: Visit, ada: Person, lamp: Row) -> None:
    for quantity in range(20, 41):
        ada.patch("/items/1", {"quantity": quantity})
    visitor = visit(ada)

    view = visitor.get("/audit?entity=item")
    older = visitor.get(next(link for link in view.links if "cursor=" in link))

    assert "created item Lamp" not in view.text
    assert "created item Lamp" in older.text
    assert len(view.html) < 30_000


def test_only_admins_see_it(visit: Visit, max: Person) -> None:
    visitor = visit(max)

    assert visitor.get("/audit").status == 403
    assert "/audit" not in visitor.get("/posts").links
    visitor.cookies.clear()
    assert visitor.request("GET", "/audit").headers["location"] == "/sign-in?next=%2Faudit"
