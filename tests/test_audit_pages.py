"""The page of the audit, and what it says in words."""

from collections.abc import Callable

import pytest

from kit.app import App
from kit.audit import record
from kit.db import ending
from models import Post
from tests.people import Person
from tests.visitors import Visitor

Visit = Callable[[Person], Visitor]
NEWS = {"title": "News", "content": "All is new."}


def test_a_change_is_said_with_names_and_values(visit: Visit, ada: Person, max: Person) -> None:
    max.post("/posts", NEWS)
    max.patch("/posts/1", {"title": "Old news", "content": "Nothing is new."})

    view = visit(ada).get("/audit")

    assert "Max changed the title and the content of post Old news" in view.text
    assert "Title was News is now Old news" in view.text
    assert "/posts/1" in view.links
    assert f"/users/{max.id}" in view.links


def test_a_number_is_raised_or_lowered(visit: Visit, app: App, ada: Person, max: Person) -> None:
    max.post("/posts", NEWS)
    with ending(app.state.database.write()) as session:
        record(session, "update", Post, [(1, {"version": [1200, 1000]}), (1, {"version": [1, 9]})])

    view = visit(ada).get("/audit?entity=post")

    assert "lowered the version of post News by 200" in view.text
    assert "raised the version of post News by 8" in view.text


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


def test_a_time_is_said_in_the_zone_of_the_reader(visit: Visit, app: App, ada: Person) -> None:
    with ending(app.state.database.write()) as session:
        record(session, "update", Post, [(1, {"created_at": ["2026-01-02T03:04:05Z", "2026-07-02T03:04:05Z"]})])
    visitor = visit(ada)
    visitor.cookies["zone"] = "Europe/Berlin"

    assert "Created at was 2 Jan 2026, 04:04 is now 2 Jul 2026, 05:04" in visitor.get("/audit").text


def test_what_is_deleted_is_named_and_leads_nowhere(visit: Visit, ada: Person) -> None:
    ada.post("/posts", NEWS)
    ada.delete("/posts/1")

    view = visit(ada).get("/audit?entity=post")

    assert "Ada deleted post News" in view.text
    assert "/posts/1" not in view.links


def test_what_nobody_did_was_done_by_the_system(visit: Visit, ada: Person) -> None:
    assert "The system created user Ada" in visit(ada).get("/audit").text


def test_a_deleted_account_is_not_named(visit: Visit, ada: Person, max: Person) -> None:
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


def test_changes_are_found_by_thing_and_person(visit: Visit, ada: Person, max: Person) -> None:
    max.post("/posts", NEWS)
    ada.delete("/posts/1")
    visitor = visit(ada)

    view = visitor.get(f"/audit?entity=post&entity_id=1&actor_id={max.id}")

    assert "Max created post News" in view.text
    assert "deleted post" not in view.text
    form = next(form for form in view.forms if "actor_id" in form)
    assert (form.method, form["entity"], form["entity_id"], form["actor_id"]) == ("get", "post", "1", str(max.id))
    assert "Nothing was found" in visitor.get("/audit?entity=post&entity_id=9").text


def test_empty_filters_are_none(visit: Visit, ada: Person) -> None:
    assert "created user Ada" in visit(ada).get("/audit?entity=&entity_id=&actor_id=").text


@pytest.mark.parametrize("query", ["entity=planet", "entity_id=x", "actor_id=0", f"entity_id={2**63}", "cursor=x"])
def test_what_no_filter_can_be_is_a_page_that_says_so(visit: Visit, ada: Person, query: str) -> None:
    view = visit(ada).get(f"/audit?{query}")

    assert view.status == 422
    assert "Back to the start" in view.text


def test_somebody_who_is_gone_can_be_asked_for(visit: Visit, ada: Person) -> None:
    view = visit(ada).get("/audit?actor_id=99")

    assert (view.status, next(form for form in view.forms if "actor_id" in form)["actor_id"]) == (200, "99")


def test_older_changes_follow(visit: Visit, ada: Person) -> None:
    ada.post("/posts", NEWS)
    for number in range(20, 41):
        ada.patch("/posts/1", {"content": f"It is {number}."})
    visitor = visit(ada)

    view = visitor.get("/audit?entity=post")
    older = visitor.get(next(link for link in view.links if "cursor=" in link))

    assert "created post News" not in view.text
    assert "created post News" in older.text
    assert len(view.html) < 30_000


def test_only_admins_see_it(visit: Visit, max: Person) -> None:
    visitor = visit(max)

    assert visitor.get("/audit").status == 403
    assert "/audit" not in visitor.get("/posts").links
    visitor.cookies.clear()
    assert visitor.request("GET", "/audit").headers["location"] == "/sign-in?next=%2Faudit"
