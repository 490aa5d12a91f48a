"""The pages of one's own account, and of the people whom an admin manages."""

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from kit.app import App
from kit.sessions import device
from tests.databases import counted_statements
from tests.people import PASSWORD, Person
from tests.visitors import View, Visitor, visiting

NEW_PASSWORD = "Correct-horse-2"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:146.0) Gecko/20100101 Firefox/146.0"
CHROME = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"
)
Visit = Callable[[Person], Visitor]


def handed_over(view: View) -> str:
    """The path of the link that a page shows, which leads to a new password."""
    found = re.search(r'<code id="link">http://testserver(/password-reset/[\w-]{43})<', view.html)
    assert found, view.text
    return found[1]


# One's own account


def test_one_changes_ones_own_name_and_email(visit: Visit, max: Person) -> None:
    browser = visit(max)
    browser.get("/account")
    view = browser.send(full_name="Maximilian", email="Max2@Example.com")

    assert (view.status, view.path) == (200, "/account")
    assert "Your account was saved." in view.text
    assert max.get("/users/me").json()["email"] == "max2@example.com"
    assert (view.form()["full_name"], view.form()["email"]) == ("Maximilian", "max2@example.com")


def test_an_email_that_somebody_has_is_said_beside_the_field(visit: Visit, ada: Person, max: Person) -> None:
    browser = visit(max)
    browser.get("/account")
    view = browser.send(full_name="Maximilian", email=ada.email)

    assert view.status == 409
    assert 'aria-describedby="field-email-error"' in view.html
    assert "Another account has this e-mail address." in view.text
    assert (view.form()["full_name"], view.form()["email"]) == ("Maximilian", ada.email)
    assert max.get("/users/me").json()["full_name"] == "Max"


@pytest.mark.parametrize(
    ("field", "typed"), [("full_name", " "), ("full_name", "M" * 256), ("email", "max"), ("full_name", "Max\0")]
)
def test_what_is_wrong_with_the_profile_is_said_beside_it(visit: Visit, max: Person, field: str, typed: str) -> None:
    browser = visit(max)
    browser.get("/account")
    view = browser.send(**{field: typed})

    assert view.status == 422
    assert 'role="alert"' in view.html
    assert view.form()["email"] == (typed if field == "email" else max.email)


def test_what_somebody_else_changed_meanwhile_is_shown_and_decided_by_me(
    visit: Visit, ada: Person, max: Person
) -> None:
    browser = visit(max)
    browser.get("/account")
    ada.patch(f"/users/{max.id}", {"full_name": "Maxim", "email": "max2@example.com"})
    view = browser.send(full_name="Maximilian")

    assert view.status == 412
    assert "Changed to Maxim meanwhile; it was Max." in view.text
    assert (view.form()["full_name"], view.form()["email"]) == ("Maximilian", "max2@example.com")
    assert browser.send().status == 200
    assert max.get("/users/me").json()["full_name"] == "Maximilian"


def test_the_rule_for_passwords_is_shown_before_typing(visit: Visit, max: Person) -> None:
    view = visit(max).get("/account")

    assert "At least 8 characters" in view.text
    assert view.answer.headers["Cache-Control"] == "no-store"


def test_a_new_password_keeps_this_browser_and_ends_all_others(visit: Visit, client: TestClient, max: Person) -> None:
    browser, other = visit(max), visit(max)
    browser.get("/account")
    view = browser.send("/account/password", current_password=PASSWORD, new_password=NEW_PASSWORD)

    assert (view.status, view.path) == (200, "/account")
    assert "Your password was changed." in view.text
    assert other.get("/account").path == "/sign-in"
    assert max.get("/users/me").status_code == 401
    assert visiting(client, max.email, NEW_PASSWORD).get("/account").path == "/account"


def test_a_wrong_current_password_is_said_and_nothing_typed_comes_back(visit: Visit, max: Person) -> None:
    browser = visit(max)
    browser.get("/account")
    view = browser.send("/account/password", current_password="wrong", new_password=NEW_PASSWORD)

    assert view.status == 400
    assert "The current password is not right." in view.text
    assert NEW_PASSWORD not in view.html
    assert "wrong" not in re.findall(r'value="([^"]*)"', view.html)
    assert view.form("/account")["full_name"] == "Max"


def test_a_weak_new_password_is_said_beside_its_field(visit: Visit, max: Person) -> None:
    browser = visit(max)
    browser.get("/account")
    view = browser.send("/account/password", current_password=PASSWORD, new_password="weak")

    assert view.status == 422
    assert "field-new_password-error" in view.html
    assert "field-full_name-error" not in view.html


def test_guesses_of_the_current_password_count_as_failed_sign_ins(visit: Visit, ada: Person, max: Person) -> None:
    browser = visit(max)
    browser.get("/account")
    views = [
        browser.post("/account/password", {"current_password": "wrong", "new_password": NEW_PASSWORD}) for _ in range(6)
    ]

    assert [view.status for view in views] == [400] * 5 + [429]
    assert "Try again in 15 minutes." in views[-1].text
    assert int(views[-1].answer.headers["Retry-After"]) > 800
    assert Visitor(ada.client).post("/sign-in", {"email": max.email, "password": PASSWORD}).status == 429


def test_one_sees_in_words_where_one_is_signed_in(client: TestClient, max: Person) -> None:
    browser, phone = Visitor(client), Visitor(client)
    for visitor, agent in ((phone, CHROME), (browser, FIREFOX)):
        visitor.post("/sign-in", {"email": max.email, "password": PASSWORD}, headers={"User-Agent": agent})
    view = browser.get("/account")

    assert "Firefox on Windows This one" in view.text
    assert "Chrome on Android" in view.text
    assert "A program (testclient)" in view.text
    assert view.text.count("This one") == 1


def test_one_signs_out_in_one_place(visit: Visit, max: Person) -> None:
    browser, other = visit(max), visit(max)
    view = browser.get("/account")
    places = [form.action for form in view.forms if form.action.startswith("/account/sessions/")]
    view = browser.post(places[0])

    assert len(places) == 2  # the API's own session, too
    assert "You are signed out there." in view.text
    assert other.get("/account").path == "/sign-in"
    assert max.get("/users/me").status_code == 200


def test_one_signs_out_everywhere_else(visit: Visit, max: Person, eva: Person) -> None:
    browser, other = visit(max), visit(max)
    browser.get("/account")
    view = browser.send("/account/sessions")

    assert "You are signed out everywhere but here." in view.text
    assert "Sign out everywhere else" not in view.text
    assert other.get("/account").path == "/sign-in"
    assert [max.get("/users/me").status_code, eva.get("/users/me").status_code] == [401, 200]


def test_a_session_of_somebody_else_is_not_found(visit: Visit, max: Person, eva: Person) -> None:
    [theirs] = eva.get("/auth/sessions").json()
    browser = visit(max)

    for session_id in (theirs["id"], 0, "x", "9" * 30):
        assert browser.post(f"/account/sessions/{session_id}").status == 404
    assert eva.get("/users/me").status_code == 200


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        (FIREFOX, "Firefox on Windows"),
        (CHROME, "Chrome on Android"),
        (f"{CHROME} EdgA/142.0.0.0", "Edge on Android"),
        (f"{FIREFOX.replace('Windows NT 10.0', 'X11; Linux')}", "Firefox on Linux"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/26.0 Safari/605.1.15", "Safari on macOS"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) CriOS/142.0 Mobile Safari/604.1", "Chrome on iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0)", "A browser on Windows"),
        ("Mozilla/5.0", "A browser"),
        ("curl/8.17.0", "A program (curl)"),
        ("python-httpx2/2.0", "A program (python-httpx2)"),
        ("<script>", "A program"),
        ("", "A program"),
    ],
)
def test_a_user_agent_is_said_in_words(user_agent: str, words: str) -> None:
    assert device(user_agent) == words


# People


def test_the_people_of_the_company_are_listed(visit: Visit, ada: Person, max: Person, eva: Person) -> None:
    ada.patch(f"/users/{eva.id}", {"is_active": False})
    view = visit(ada).get("/people")

    assert [link for link in view.links if link.startswith("/users/")] == [
        f"/users/{one.id}" for one in (ada, eva, max)
    ]
    assert "Ada ada@example.com Admin" in view.text
    assert "Eva eva@example.com Member Inactive" in view.text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=MAX", ["max"]),
        ("q=example.com&sort=-email", ["max", "eva", "ada"]),
        ("role=admin", ["ada"]),
        ("is_active=false", ["eva"]),
        ("is_active=&role=&q=", ["ada", "eva", "max"]),
        ("page_size=2&page=2", ["max"]),
        ("utm_source=mail", ["ada", "eva", "max"]),
    ],
)
def test_people_are_found_as_in_the_api(
    visit: Visit, ada: Person, max: Person, eva: Person, query: str, found: list[str]
) -> None:
    ada.patch(f"/users/{eva.id}", {"is_active": False})
    view = visit(ada).get(f"/people?{query}")

    assert re.findall(r"(\w+)@example.com", view.html) == found


def test_a_search_keeps_the_tab_and_a_tab_keeps_the_search(visit: Visit, ada: Person) -> None:
    view = visit(ada).get("/people?q=a&role=admin&sort=-email")

    [search] = [form for form in view.forms if form.method == "get"]
    assert dict(search.fields) == {"role": "admin", "sort": "-email", "q": "a"}
    assert "/people?q=a&sort=-email&is_active=false" in view.links


@pytest.mark.parametrize(("query", "says"), [("q=nobody", "Nobody found"), ("page=9", "The list ends before")])
def test_an_empty_list_says_what_to_do_next(visit: Visit, ada: Person, query: str, says: str) -> None:
    view = visit(ada).get(f"/people?{query}")

    assert view.status == 200
    assert says in view.text
    assert "/people" in view.links


def test_somebody_is_added_with_a_password(visit: Visit, client: TestClient, ada: Person) -> None:
    browser = visit(ada)
    browser.get("/people/new")
    view = browser.send(email="Kim@example.com", full_name="Kim", password=NEW_PASSWORD, role="admin")

    assert (view.status, view.path) == (200, "/people")
    assert "Kim was added" in view.text
    assert visiting(client, "kim@example.com", NEW_PASSWORD).get("/people").status == 200


def test_somebody_is_added_without_a_password_and_gets_a_link(visit: Visit, client: TestClient, ada: Person) -> None:
    browser = visit(ada)
    browser.get("/people/new")
    view = browser.send(email="kim@example.com", full_name="Kim")
    link = handed_over(view)

    assert (view.status, view.path, view.answer.headers["Cache-Control"]) == (201, "/people/new", "no-store")
    assert link.rpartition("/")[2] not in str(view.answer.headers) + str(browser.cookies)
    kim = Visitor(client)
    kim.get(link)
    assert kim.send(new_password=NEW_PASSWORD).path == "/sign-in"
    assert visiting(client, "kim@example.com", NEW_PASSWORD).get("/").status == 200
    assert kim.get(link).status == 400


def test_the_link_leads_to_the_public_address_where_there_is_one(
    visit: Visit, ada: Person, max: Person, change_settings: Callable[..., None]
) -> None:
    browser = visit(ada)
    change_settings(public_url="https://stock.example.com")
    view = browser.post(f"/users/{max.id}/password-reset")

    assert '<code id="link">https://stock.example.com/password-reset/' in view.html


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ("https://testserver", "https://testserver"),
        ("https://evil.com", "http://testserver"),
        ("null", "http://testserver"),
    ],
)
def test_the_link_leads_to_the_address_at_which_the_admin_sees_the_app(
    visit: Visit, ada: Person, max: Person, origin: str, address: str
) -> None:
    view = visit(ada).post(f"/users/{max.id}/password-reset", headers={"Origin": origin})

    assert f'<code id="link">{address}/password-reset/' in view.html


@pytest.mark.parametrize(
    ("field", "typed", "status"),
    [
        ("email", "ADA@example.com", 409),
        ("email", "kim", 422),
        ("email", "", 422),
        ("full_name", "", 422),
        ("full_name", "Ki\0m", 422),
        ("password", "weak", 422),
        ("role", "king", 422),
    ],
)
def test_what_is_wrong_with_a_new_account_is_said_and_what_was_typed_stays(
    visit: Visit, ada: Person, field: str, typed: str, status: int
) -> None:
    browser = visit(ada)
    browser.get("/people/new")
    typed_in = {"email": "kim@example.com", "full_name": "Kim", "password": NEW_PASSWORD} | {field: typed}
    view = browser.send(**typed_in)

    assert view.status == status
    assert 'aria-invalid="true"' in view.html or "\0" in typed
    assert NEW_PASSWORD not in view.html
    assert view.form()["email"] == typed_in["email"]
    assert ada.get("/users").json()["total"] == 1


def test_an_admin_changes_an_account(visit: Visit, ada: Person, max: Person) -> None:
    browser = visit(ada)
    browser.get(f"/users/{max.id}")
    view = browser.send(f"/users/{max.id}", full_name="Maximilian", role="admin")

    assert view.path == "/people"
    assert "Maximilian was saved." in view.text
    assert f"/users/{max.id}" in view.links
    assert max.get("/users").status_code == 200


def test_one_comes_back_to_the_list_as_it_was(visit: Visit, ada: Person, max: Person) -> None:
    browser = visit(ada)
    answer = browser.request("GET", f"/users/{max.id}", headers={"Referer": "http://testserver/people?q=max&page=1"})
    view = View(answer, f"/users/{max.id}")
    saved = browser.request("POST", f"/users/{max.id}", data=dict(view.form(f"/users/{max.id}").fields))

    assert saved.headers["Location"] == "/people?q=max&page=1"


def test_a_deactivation_signs_out_at_once(visit: Visit, ada: Person, max: Person) -> None:
    browser, theirs = visit(ada), visit(max)
    browser.get(f"/users/{max.id}")
    browser.send(f"/users/{max.id}", is_active="no")

    assert theirs.get("/account").path == "/sign-in"
    view = browser.get(f"/users/{max.id}")
    assert "Inactive" in view.text
    assert f"/users/{max.id}/password-reset" not in view.html
    browser.send(f"/users/{max.id}", is_active="yes")
    assert visit(max).get("/account").status == 200


def test_two_admins_change_different_fields_of_one_account(visit: Visit, ada: Person, max: Person) -> None:
    first, second = visit(ada), visit(ada)
    for browser in (first, second):
        browser.get(f"/users/{max.id}")
    first.send(f"/users/{max.id}", full_name="Maximilian")
    second.send(f"/users/{max.id}", role="admin")

    found = ada.get(f"/users/{max.id}").json()
    assert (found["full_name"], found["role"]) == ("Maximilian", "admin")


def test_the_second_one_to_change_one_field_sees_both_values(visit: Visit, ada: Person, max: Person) -> None:
    first, second = visit(ada), visit(ada)
    for browser in (first, second):
        browser.get(f"/users/{max.id}")
    first.send(f"/users/{max.id}", full_name="Maximilian")
    view = second.send(f"/users/{max.id}", full_name="Maxim")

    assert view.status == 412
    assert "Changed to Maximilian meanwhile; it was Max." in view.text
    assert view.form(f"/users/{max.id}")["full_name"] == "Maxim"


@pytest.mark.parametrize("change", [{"role": "member"}, {"is_active": "no"}, None])
def test_the_last_admin_stays_and_the_page_says_why(visit: Visit, ada: Person, change: dict[str, str] | None) -> None:
    browser = visit(ada)
    browser.get(f"/users/{ada.id}")
    action = f"/users/{ada.id}"
    view = browser.send(f"{action}/delete") if change is None else browser.send(action, **change)

    assert view.status == 409
    assert "This is the last active admin; make another admin first." in view.text
    assert 'role="alert"' in view.html
    assert f"{action}/delete" in view.html
    assert ada.get("/users/me").json()["role"] == "admin"


def test_a_deletion_asks_first_and_leads_back_to_the_list(visit: Visit, ada: Person, max: Person) -> None:
    browser = visit(ada)
    view = browser.get(f"/users/{max.id}")
    assert "Delete Max?" in view.text
    view = browser.send(f"/users/{max.id}/delete")

    assert (view.status, view.path) == (200, "/people")
    assert "Max was deleted." in view.text
    assert browser.get(f"/users/{max.id}").status == 404


def test_the_page_of_somebody_has_their_history(visit: Visit, ada: Person, max: Person) -> None:
    ada.patch(f"/users/{max.id}", {"full_name": "Maximilian"})
    view = visit(ada).get(f"/users/{max.id}")

    assert "History" in view.text
    assert "<del>Max</del>" in view.html


# Who may not


@pytest.mark.parametrize("path", ["/people", "/people/new"])
def test_members_see_no_people(visit: Visit, max: Person, path: str) -> None:
    browser = visit(max)

    assert browser.get(path).status == 403
    assert "/people" not in browser.get("/account").links


def test_a_member_is_led_from_their_own_page_to_their_account_and_finds_nobody_else(
    visit: Visit, ada: Person, max: Person
) -> None:
    browser = visit(max)

    assert browser.get(f"/users/{max.id}").path == "/account"
    assert browser.get(f"/users/{ada.id}").status == 404


@pytest.mark.parametrize("path", ["/people/new", "/users/{}", "/users/{}/password-reset", "/users/{}/delete"])
def test_a_member_changes_nobody(visit: Visit, ada: Person, max: Person, path: str) -> None:
    before = ada.get("/users").json()
    fields = {"email": "kim@example.com", "full_name": "Kim", "role": "admin"}
    view = visit(max).post(path.format(max.id), fields)

    assert view.status == 403
    assert ada.get("/users").json() == before


@pytest.mark.parametrize("path", ["/account", "/people", "/people/new", "/users/1"])
def test_whoever_is_not_signed_in_is_led_to_the_sign_in_page(client: TestClient, ada: Person, path: str) -> None:
    browser = Visitor(client)

    assert browser.request("GET", path).headers["Location"] == f"/sign-in?next={path.replace('/', '%2F')}"
    assert browser.request("POST", f"{path}/password").status_code in (303, 404)


@pytest.mark.parametrize("user_id", ["0", "-1", "x", "99999", "9" * 30, "1.0", "%00"])
@pytest.mark.parametrize("rest", ["", "/delete", "/password-reset"])
def test_somebody_who_is_not_there_is_not_found(visit: Visit, ada: Person, user_id: str, rest: str) -> None:
    browser = visit(ada)

    assert browser.post(f"/users/{user_id}{rest}").status == 404
    assert rest or browser.get(f"/users/{user_id}").status == 404


def test_names_are_never_taken_for_html(visit: Visit, ada: Person, max: Person) -> None:
    ada.patch(f"/users/{max.id}", {"full_name": '<b>"Max"</b>'})
    browser = visit(ada)

    assert "<b>" not in browser.get("/people").html + browser.get(f"/users/{max.id}").html
    assert "<b>" not in browser.send(f"/users/{max.id}", full_name='<b>"Maxim"</b>').html


def test_pages_are_not_large(visit: Visit, ada: Person, sign_in: Callable[[str], Person]) -> None:
    for number in range(100):
        ada.post("/users", {"email": f"{number}@example.com", "full_name": f"Number {number}"}).raise_for_status()
        sign_in(ada.email)
    browser = visit(ada)

    for path in ("/account", "/people?page_size=100", "/people/new", f"/users/{ada.id}"):
        assert len(browser.get(path).answer.content) < 60_000, path


def test_pages_cost_few_statements(visit: Visit, app: App, ada: Person, max: Person) -> None:
    browser = visit(ada)
    costs: dict[str, int] = {}
    for path in ("/account", "/people?q=a", "/people/new", "/users/2"):
        with counted_statements(app) as statements:
            browser.get(path)
        costs[path] = len([one for one in statements if one.startswith("SELECT")])

    assert costs == {"/account": 2, "/people?q=a": 3, "/people/new": 1, "/users/2": 4}
