"""Signing in at a browser: the pages, the cookie and its renewal, forms of other sites, and forgotten passwords."""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

import kit.auth
import kit.sessions
from kit.app import App
from kit.models import now
from kit.visits import CrossSite
from settings import Settings
from tests.databases import on_both_databases
from tests.outbox import Outbox
from tests.people import API, PASSWORD, Person, at_once, joined, refusal
from tests.visitors import HEADERS, View, Visitor, visiting

NEW_PASSWORD = "Correct-horse-2"
MAX = {"email": "max@example.com", "password": PASSWORD}
KIM = {"email": "kim@example.com", "full_name": "Kim", "password": PASSWORD}
MONTH = 30 * 24 * 3600

Visit = Callable[[Person], Visitor]
MakeApp = Callable[[Settings], App]


@pytest.fixture
def browser(client: TestClient) -> Visitor:
    """A browser in which nobody is signed in."""
    return Visitor(client)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets time pass for whatever expires; it begins long ago, because no token may be from the future."""
    passed = timedelta(days=-200)

    def shifted() -> datetime:
        return now() + passed

    def pass_time(**amount: float) -> None:
        nonlocal passed
        passed += timedelta(**amount)

    for module in (kit.auth, kit.sessions):
        monkeypatch.setattr(module, "now", shifted)
    return pass_time


@pytest.fixture
def in_production(settings: Settings, make_app: MakeApp) -> Generator[TestClient]:
    """The app as it is deployed."""
    deployed = settings.model_copy(update={"environment": "production", "registration_open": False})
    with TestClient(make_app(deployed), raise_server_exceptions=False) as client:
        yield client


def asked(client: TestClient, path: str, cookie: str, **headers: str) -> Response:
    """The answer to a browser that has this cookie."""
    cookies = {"Cookie": f"session={cookie}"} if cookie else {}
    return client.get(path, headers=HEADERS | cookies | headers, follow_redirects=False)


def renewed(answer: Response) -> str:
    """The cookie that an answer brought."""
    return SimpleCookie(answer.headers["set-cookie"])["session"].value


def location(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.headers.get("location", "")


# The first minute


def test_whoever_is_not_signed_in_is_asked_who_they_are(browser: Visitor, ada: Person) -> None:
    assert location(browser.request("GET", "/account")) == (303, "/sign-in?next=%2Faccount")
    assert browser.get("/").path == "/sign-in"


def test_the_first_one_is_led_to_make_the_account_of_the_admin(browser: Visitor) -> None:
    view = browser.get("/")

    assert view.path == "/sign-up"
    assert "with the first account you become the admin" in view.text
    assert location(browser.request("POST", "/sign-up", data=KIM)) == (303, "/")
    assert browser.get("/people").status == 200


def test_the_next_one_makes_an_account_of_a_member(browser: Visitor, ada: Person) -> None:
    view = browser.get("/sign-up")

    assert "admin" not in view.text
    assert "At least 8 characters" in view.text
    assert location(browser.request("POST", "/sign-up", data=KIM)) == (303, "/")
    assert browser.get("/people").status == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_makes_an_account_where_registration_is_closed(
    browser: Visitor, ada: Person, change_settings: Callable[..., None], method: str
) -> None:
    change_settings(registration_open=False)
    answers = [browser.request(method, "/sign-up", data=fields) for fields in (KIM, {})]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert "ask an admin for an account" in answers[0].text
    assert "/sign-up" not in browser.get("/sign-in").links
    assert ada.get("/users").json()["total"] == 1


def test_in_production_the_page_says_which_command_makes_the_admin(in_production: TestClient) -> None:
    view = Visitor(in_production).get("/")

    assert (view.status, view.path) == (200, "/sign-in")
    assert "manage.py create-admin" in view.text
    assert "/sign-up" not in view.links


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"email": "kim"}, 422),
        ({"email": "ADA@example.com"}, 409),
        ({"full_name": ""}, 422),
        ({"full_name": "Kim\nMin"}, 422),
        ({"password": "weak"}, 422),
    ],
)
def test_what_is_wrong_with_a_new_account_is_said_beside_its_field(
    browser: Visitor, ada: Person, wrong: dict[str, str], status: int
) -> None:
    browser.get("/sign-up?next=/account")
    view = browser.send(**(KIM | wrong))

    assert view.status == status
    assert f'aria-describedby="field-{next(iter(wrong))}-error' in view.html
    assert PASSWORD not in view.html
    assert view.form()["email"] == (KIM | wrong)["email"]
    assert browser.send(**KIM).path == "/account"


# Signing in


def test_signing_in_leads_to_where_one_wanted_to_go(browser: Visitor, max: Person) -> None:
    view = browser.get("/account?a=1&b=%26")
    assert view.path == "/sign-in"
    assert view.form()["next"] == "/account?a=1&b=%26"

    view = browser.send(email=max.email, password="wrong")
    answer = browser.request("POST", "/sign-in", data=dict(view.form().fields) | MAX)

    assert location(answer) == (303, "/account?a=1&b=%26")


@pytest.mark.parametrize("wrong", [{"password": "Wrong-horse-9"}, {"email": "nobody@example.com"}])
def test_a_wrong_sign_in_says_so_and_keeps_the_email_alone(
    browser: Visitor, max: Person, wrong: dict[str, str]
) -> None:
    browser.get("/sign-in")
    typed = MAX | wrong
    view = browser.send(**typed)

    assert (view.status, view.path) == (400, "/sign-in")
    assert "The e-mail address or the password is wrong." in view.text
    assert view.form()["email"] == typed["email"]
    assert typed["password"] not in view.html
    assert "session" not in browser.cookies


def test_an_inactive_account_is_as_wrong_as_an_unknown_one(browser: Visitor, ada: Person, max: Person) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})

    assert browser.post("/sign-in", MAX).status == 400


@pytest.mark.parametrize("typed", [{"email": "max"}, {"email": ""}, {"password": ""}, {"email": "m\0@example.com"}])
def test_a_sign_in_that_is_none_is_said_beside_its_fields(browser: Visitor, max: Person, typed: dict[str, str]) -> None:
    view = browser.post("/sign-in", MAX | typed)

    assert view.status == 422
    assert 'role="alert"' in view.html
    assert PASSWORD not in view.html


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", ""),
        (b'{"email": 1}', "application/json"),
        (b"email=%ff%ed%a0%80&password=%ff", "application/x-www-form-urlencoded"),
        (b"\xff\xfe=\xff", "application/x-www-form-urlencoded; charset=utf-16"),
        (b"--x", "multipart/form-data; boundary=x"),
        (b"--x", "multipart/form-data"),
        (b"&".join(b"a=1" for _ in range(5_000)), "application/x-www-form-urlencoded"),
    ],
)
def test_a_hostile_form_is_refused(browser: Visitor, max: Person, content: bytes, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    view = View(browser.request("POST", "/sign-in", content=content, headers=headers), "/sign-in")

    assert view.status in (400, 422)
    assert "Sign in" in view.text


def test_after_five_wrong_sign_ins_the_page_says_how_long_to_wait(browser: Visitor, max: Person) -> None:
    browser.get("/sign-in?next=/account")
    views = [browser.send(email=max.email, password="wrong") for _ in range(5)]
    view = browser.send(**MAX)

    assert [view.status for view in views] == [400] * 5
    assert view.status == 429
    assert "Too many failed sign-ins for this account. Try again in 15 minutes." in view.text
    assert int(view.answer.headers["Retry-After"]) > 800
    assert (view.form()["email"], view.form()["next"]) == (max.email, "/account")


def test_whoever_is_signed_in_goes_straight_on(visit: Visit, max: Person) -> None:
    browser = visit(max)

    for page in ("/sign-in", "/sign-up"):
        assert location(browser.request("GET", f"{page}?next=/account%3Fa=1")) == (303, "/account?a=1")
        assert location(browser.request("GET", f"{page}?next=//evil.com")) == (303, "/")
    assert browser.post("/sign-in", MAX | {"password": "wrong"}).status == 400


ELSEWHERE = [
    "//evil.com",
    "/\\evil.com",
    "\\\\evil.com",
    "https://evil.com",
    "https:evil.com",
    "javascript:alert(1)",
    "evil.com",
    "",
    " /account",
    "/\t/evil.com",
    "/\n/evil.com",
    "/account\r\nSet-Cookie: a=b",
]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_nobody_is_led_to_another_site(browser: Visitor, max: Person, path: str) -> None:
    view = browser.get(f"/sign-in?next={quote(path)}")

    assert view.form()["next"] == "/"
    answer = browser.request("POST", "/sign-in", data=MAX | {"next": path})
    assert location(answer) == (303, "/")
    assert set(SimpleCookie(answer.headers["set-cookie"])) == {"session"}


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/account#sessions", "/account#sessions"),
        ("/people?q=a%20b&page=2", "/people?q=a%20b&page=2"),
        ("/%0d%0aSet-Cookie:%20a=b", "/%0d%0aSet-Cookie:%20a=b"),
        ("/käse", "/k%C3%A4se"),
    ],
)
def test_every_path_of_this_app_is_kept(browser: Visitor, max: Person, path: str, where: str) -> None:
    assert browser.get(f"/sign-in?next={quote(path)}").form()["next"] == path
    assert location(browser.request("POST", "/sign-in", data=MAX | {"next": path})) == (303, where)


# The cookie


def test_the_cookie_is_for_this_browser_alone(client: TestClient, max: Person) -> None:
    answer = client.post("/sign-in", data=MAX, headers=HEADERS, follow_redirects=False)
    [header] = answer.headers.get_list("set-cookie")

    name, *attributes = header.split("; ")
    assert name.startswith("session=")
    assert {part.lower() for part in attributes} == {"httponly", "samesite=lax", "path=/", f"max-age={MONTH}"}


def test_in_production_the_cookie_is_bound_to_the_host_and_to_tls(
    in_production: TestClient, settings: Settings, make_app: MakeApp
) -> None:
    with TestClient(make_app(settings)) as registering:
        joined(registering, "max")
    answer = in_production.post("/sign-in", data=MAX, headers=HEADERS, follow_redirects=False)
    [header] = answer.headers.get_list("set-cookie")

    name, *attributes = header.split("; ")
    assert name.startswith("__Host-session=")
    assert {part.lower() for part in attributes} == {"httponly", "samesite=lax", "path=/", f"max-age={MONTH}", "secure"}
    browser = Visitor(in_production)
    browser.cookies = {"__Host-session": name.partition("=")[2]}
    assert browser.get("/account").path == "/account"
    browser.cookies = {"session": name.partition("=")[2]}
    assert browser.get("/account").path == "/sign-in"


def test_a_cookie_is_no_token_and_no_token_is_a_cookie(visit: Visit, client: TestClient, max: Person) -> None:
    cookie = visit(max).cookies["session"]
    as_bearer = client.get(f"{API}/users/me", headers={"Authorization": f"Bearer {cookie}"})
    as_refresh = client.post(f"{API}/auth/token", data={"grant_type": "refresh_token", "refresh_token": cookie})

    assert (refusal(as_bearer), as_refresh.status_code) == ((401, "NOT_AUTHENTICATED"), 400)
    for token in (max.access_token, max.refresh_token):
        assert asked(client, "/account", token).status_code == 303
    assert asked(client, "/account", "", Authorization=f"Bearer {max.access_token}").status_code == 303
    assert client.get(f"{API}/users/me", headers={"Cookie": f"session={cookie}"}).status_code == 401


HOSTILE = [
    "",
    "x",
    "a.b.c",
    "." * 100,
    "A" * 5_000,
    "\x00",
    "\xff\xfe",
    '"',
    "e30.e30.",
    "eyJhbGciOiJub25lIn0.e30.",
    ";;;=",
]


@pytest.mark.parametrize("cookie", HOSTILE)
def test_a_cookie_of_garbage_leads_to_the_sign_in_page(client: TestClient, max: Person, cookie: str) -> None:
    for name in ("session", "said", "zone"):
        headers: Any = HEADERS | {"Cookie": f"{name}={cookie}".encode("latin-1")}
        assert client.get("/account", headers=headers, follow_redirects=False).status_code == 303
        assert client.get("/sign-in", headers=headers, follow_redirects=False).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": -float("inf")},
        {"exp": "soon"},
        {"exp": None},
        {"sub": "99"},
        {"sub": "x"},
        {"sid": 2**70},
        {"sid": "1"},
        {"sid": 99},
        {"type": "access"},
        {"type": "none"},
        {"renewals": "x"},
        {"jti": None},
    ],
)
def test_a_cookie_with_hostile_claims_leads_to_the_sign_in_page(
    app: App, client: TestClient, visit: Visit, max: Person, change: dict[str, Any]
) -> None:
    claims = jwt.decode(visit(max).cookies["session"], options={"verify_signature": False})
    cookie = jwt.encode(claims | change, app.state.secret_key, algorithm="HS256")

    answer = asked(client, "/account", cookie)
    assert location(answer) == (303, "/sign-in?next=%2Faccount")
    assert "max-age=0" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("key", "algorithm"), [("another key that is long enough for it", "HS256"), ("", "none"), (None, "HS512")]
)
def test_a_cookie_that_somebody_else_signed_is_none(
    app: App, client: TestClient, visit: Visit, max: Person, key: str | None, algorithm: str
) -> None:
    claims = jwt.decode(visit(max).cookies["session"], options={"verify_signature": False})
    signing = app.state.secret_key * 2 if key is None else key

    assert asked(client, "/account", jwt.encode(claims, signing, algorithm=algorithm)).status_code == 303


# Its renewal


def test_an_expired_cookie_renews_itself(
    client: TestClient, visit: Visit, max: Person, pass_time: Callable[..., None]
) -> None:
    first = visit(max).cookies["session"]
    assert "set-cookie" not in asked(client, "/account", first).headers
    pass_time(minutes=16)
    answer = asked(client, "/account", first)
    second = renewed(answer)

    assert answer.status_code == 200
    assert f"max-age={MONTH}" in answer.headers["set-cookie"].lower()
    assert second != first
    assert "set-cookie" not in asked(client, "/account", second).headers


def test_a_browser_stays_signed_in_for_as_long_as_it_is_used(
    visit: Visit, max: Person, pass_time: Callable[..., None]
) -> None:
    browser = visit(max)
    for _ in range(4):
        pass_time(days=20)
        assert browser.get("/account").path == "/account"
    pass_time(days=31)

    assert browser.get("/account").path == "/sign-in"
    assert "session" not in browser.cookies


def test_a_post_renews_the_cookie_too(visit: Visit, max: Person, pass_time: Callable[..., None]) -> None:
    browser = visit(max)
    browser.get("/account")
    pass_time(minutes=16)

    assert "was saved" in browser.send(full_name="Maximilian").text


@on_both_databases
def test_tabs_that_renew_at_once_sign_nobody_out(
    client: TestClient, other_worker: TestClient, visit: Visit, max: Person, pass_time: Callable[..., None]
) -> None:
    cookie = visit(max).cookies["session"]
    pass_time(minutes=16)
    answers = at_once(8, lambda number: asked((client, other_worker)[number % 2], "/account", cookie))

    assert [answer.status_code for answer in answers] == [200] * 8
    pass_time(minutes=16)
    assert [asked(client, "/account", renewed(answer)).status_code for answer in answers] == [200] * 8


def test_an_answer_that_got_lost_signs_nobody_out(
    client: TestClient, visit: Visit, max: Person, pass_time: Callable[..., None]
) -> None:
    first = visit(max).cookies["session"]
    for _ in range(3):
        pass_time(minutes=16)
        assert asked(client, "/account", first).status_code == 200


@on_both_databases
def test_a_copied_cookie_ends_the_session_on_every_worker(
    client: TestClient, other_worker: TestClient, visit: Visit, max: Person, pass_time: Callable[..., None]
) -> None:
    copied = visit(max).cookies["session"]
    pass_time(minutes=16)
    second = renewed(asked(client, "/account", copied))
    pass_time(minutes=16)
    third = renewed(asked(other_worker, "/account", second))
    assert asked(client, "/account", third).status_code == 200
    stolen = asked(other_worker, "/account", copied)

    assert location(stolen) == (303, "/sign-in?next=%2Faccount")
    assert [asked(worker, "/account", third).status_code for worker in (client, other_worker)] == [303, 303]


# Its end


def _end_each(_ada: Person, max: Person) -> None:
    for one in max.get("/auth/sessions").json():
        max.delete(f"/auth/sessions/{one['id']}")


def _change_password(_ada: Person, max: Person) -> None:
    max.put("/users/me/password", {"current_password": PASSWORD, "new_password": NEW_PASSWORD})


def _end_all(_ada: Person, max: Person) -> None:
    max.delete("/auth/sessions")


def _deactivate(ada: Person, max: Person) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})


def _delete(ada: Person, max: Person) -> None:
    ada.delete(f"/users/{max.id}")


ENDS = {
    "each": _end_each,
    "all": _end_all,
    "password": _change_password,
    "deactivated": _deactivate,
    "deleted": _delete,
}


@on_both_databases
@pytest.mark.parametrize(
    "end",
    [*ENDS.values()],
    ids=[*ENDS],
)
def test_what_ends_a_session_ends_it_in_the_browser_at_once(
    other_worker: TestClient, visit: Visit, ada: Person, max: Person, end: Callable[[Person, Person], None]
) -> None:
    browser = visit(max)
    end(ada, max)

    for worker in (other_worker, max.client):
        answer = asked(worker, "/account", browser.cookies["session"])
        assert location(answer) == (303, "/sign-in?next=%2Faccount")
        assert "max-age=0" in answer.headers["set-cookie"].lower()


def test_whoever_was_signed_out_meanwhile_comes_back_to_the_form(visit: Visit, max: Person) -> None:
    browser = visit(max)
    max.delete("/auth/sessions")
    sites = ("http://testserver/account?a=1", "http://[", "https://evil.com//evil.com", "")
    answers = [browser.request("POST", "/account", headers={"Referer": site}) for site in sites]

    assert [location(answer) for answer in answers] == [
        (303, "/sign-in?next=%2Faccount%3Fa%3D1"),
        *[(303, "/sign-in")] * 3,
    ]


def test_a_change_of_role_takes_effect_at_once(visit: Visit, ada: Person, max: Person) -> None:
    browser = visit(max)
    statuses = [browser.get("/people").status]
    for role in ("admin", "member"):
        ada.patch(f"/users/{max.id}", {"role": role})
        statuses.append(browser.get("/people").status)

    assert statuses == [403, 200, 403]


def test_signing_out_ends_the_session_and_what_the_browser_kept(client: TestClient, visit: Visit, max: Person) -> None:
    browser = visit(max)
    cookie = browser.cookies["session"]
    page = browser.get("/account").answer
    answer = browser.request("POST", "/sign-out")

    assert location(answer) == (303, "/sign-in")
    assert answer.headers["Clear-Site-Data"] == '"cache"'
    assert "session" not in browser.cookies
    assert page.headers["Cache-Control"] == "no-store"
    assert (
        client.get("/account", headers=HEADERS | {"Cookie": f"session={cookie}"}, follow_redirects=False).status_code
        == 303
    )
    assert "You are signed out." in browser.get("/sign-in").text
    assert "You are signed out." not in browser.get("/sign-in").text


def test_somebody_who_is_not_signed_in_may_sign_out(browser: Visitor, max: Person) -> None:
    assert location(browser.request("POST", "/sign-out")) == (303, "/sign-in")
    assert browser.request("GET", "/sign-out").status_code == 405


def test_pages_are_asked_for_again_and_those_with_a_password_field_are_not_kept(
    visit: Visit, browser: Visitor, max: Person
) -> None:
    mine = visit(max)
    kept = {path: mine.get(path).answer.headers["Cache-Control"] for path in ("/posts", "/account", "/people", "/x")}
    kept |= {path: browser.get(path).answer.headers["Cache-Control"] for path in ("/sign-in", "/sign-up")}
    moved = browser.request("GET", "/account").headers["Cache-Control"]

    asked_again = "private, no-cache"
    assert kept == {
        "/posts": asked_again,
        "/account": "no-store",
        "/people": asked_again,
        "/x": asked_again,
        "/sign-in": "no-store",
        "/sign-up": "no-store",
    }
    assert moved == asked_again


# Other sites


OURS: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
    {"Origin": "http://testserver"},
    {"Origin": "https://testserver"},
    {"Origin": "http://testserver:8000", "Host": "testserver:8000"},
]
FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "same-origin, cross-site"},
    {"Origin": "https://evil.com"},
    {"Origin": "http://testserver.evil.com"},
    {"Origin": "http://testserver:8001", "Host": "testserver:8000"},
    {"Origin": "http://testserver:8000"},
    {"Origin": "http://testserver", "Host": "testserver:8000"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "testserver"},
    {},
]


def sent_by(client: TestClient, cookie: str, headers: dict[str, str], **fields: str) -> Response:
    known = {"Accept": "text/html", "Cookie": f"session={cookie}"}
    return client.post("/account", data=fields, headers=known | headers, follow_redirects=False)


@pytest.mark.parametrize("headers", OURS)
def test_a_form_of_ours_is_taken(client: TestClient, visit: Visit, max: Person, headers: dict[str, str]) -> None:
    answer = sent_by(client, visit(max).cookies["session"], headers, full_name="Maximilian")

    assert location(answer) == (303, "/account")
    assert max.get("/users/me").json()["full_name"] == "Maximilian"


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_form_of_another_site_changes_nothing(
    client: TestClient, visit: Visit, max: Person, headers: dict[str, str]
) -> None:
    answer = sent_by(client, visit(max).cookies["session"], headers, full_name="Maximilian")

    assert answer.status_code == 403
    assert CrossSite.detail.partition(";")[0] in answer.text
    assert max.get("/users/me").json()["full_name"] == "Max"


@pytest.mark.parametrize(
    "path",
    [
        "/sign-in",
        "/sign-up",
        "/sign-out",
        "/password-reset",
        "/password-reset/x",
        "/account/password",
        "/account/sessions",
        "/people/new",
        "/users/1/delete",
    ],
)
def test_every_form_is_refused_from_another_site(client: TestClient, visit: Visit, ada: Person, path: str) -> None:
    cookie = {"Cookie": f"session={visit(ada).cookies['session']}", "Sec-Fetch-Site": "cross-site"}
    answer = client.post(path, data=KIM | {"email": ada.email}, headers=cookie, follow_redirects=False)

    assert refusal(answer) == (403, "CROSS_SITE")
    assert "set-cookie" not in answer.headers
    assert (ada.get("/users").json()["total"], len(ada.get("/auth/sessions").json())) == (1, 2)


def test_the_body_of_another_site_is_not_read(app: App, client: TestClient) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("The body was read.")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/sign-in",
        "raw_path": b"/sign-in",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"sec-fetch-site", b"cross-site"), (b"content-length", b"1000")],
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "server": ("testserver", 80),
        "http_version": "1.1",
    }
    assert client.portal
    client.portal.call(app, scope, receive, send)

    assert sent[0]["status"] == 403


def test_a_link_on_another_site_finds_one_signed_in(client: TestClient, visit: Visit, max: Person) -> None:
    answer = asked(client, "/account", visit(max).cookies["session"], **{"Sec-Fetch-Site": "cross-site"})

    assert answer.status_code == 200


# Who does not read HTML


@pytest.mark.parametrize("accept", ["application/json", "*/*", ""])
def test_programs_get_problems_in_place_of_pages(client: TestClient, max: Person, accept: str) -> None:
    headers = {"Accept": accept, "Sec-Fetch-Site": "none"}
    unknown = client.get("/account", headers=headers, follow_redirects=False)
    wrong = client.post("/sign-in", data=MAX | {"password": "wrong"}, headers=headers)

    assert refusal(unknown) == (401, "NOT_AUTHENTICATED")
    assert unknown.headers["WWW-Authenticate"] == "Bearer"
    assert refusal(wrong) == (400, "INVALID_CREDENTIALS")
    assert refusal(client.get("/nothing", headers=headers)) == (404, "NOT_FOUND")


def test_an_error_is_a_page_with_the_number_of_the_request(browser: Visitor, max: Person) -> None:
    view = browser.get("/nothing")

    assert view.status == 404
    assert view.answer.headers["X-Request-ID"] in view.text


# Rates


@pytest.mark.parametrize("path", ["/sign-in", "/sign-up", "/password-reset", "/password-reset/x", "/account/password"])
def test_forms_with_a_password_or_a_token_have_the_strict_rate(
    settings: Settings, make_app: MakeApp, path: str
) -> None:
    slow = make_app(settings.model_copy(update={"auth_rate_limit": "3/minute"}))
    with TestClient(slow, raise_server_exceptions=False) as client:
        browser = Visitor(client)
        statuses = [browser.request("POST", path).status_code for _ in range(3)]
        view = View(browser.request("POST", path), path)

        assert 429 not in statuses
        assert view.status == 429
        assert "Try again in" in view.text
        assert int(view.answer.headers["Retry-After"]) > 0
        assert browser.request("GET", "/sign-in").status_code in (200, 303)
        assert client.post(f"{API}/auth/token").status_code == 429


# Forgotten passwords


def a_link(ada: Person, max: Person) -> str:
    """The path of a link with which max sets a new password."""
    return f"/password-reset/{ada.post(f'/users/{max.id}/password-reset').json()['token']}"


def test_a_link_sets_a_new_password_once_and_ends_every_session(
    browser: Visitor, visit: Visit, client: TestClient, ada: Person, max: Person
) -> None:
    before, link = visit(max), a_link(ada, max)
    view = browser.get(link)
    assert "At least 8 characters" in view.text
    view = browser.send(new_password=NEW_PASSWORD)

    assert view.path == "/sign-in"
    assert "Your new password is set; sign in with it." in view.text
    assert before.get("/account").path == "/sign-in"
    assert visiting(client, max.email, NEW_PASSWORD).get("/account").status == 200
    assert [browser.get(link).status, browser.post(link, {"new_password": PASSWORD}).status] == [400, 400]
    assert "was used before, or has expired" in browser.get(link).text


def test_a_link_goes_on_living_when_the_new_password_is_too_weak(browser: Visitor, ada: Person, max: Person) -> None:
    browser.get(a_link(ada, max))
    view = browser.send(new_password="weak")

    assert view.status == 422
    assert "field-new_password-error" in view.html
    assert view.answer.headers["Referrer-Policy"] == "no-referrer"
    assert browser.send(new_password=NEW_PASSWORD).path == "/sign-in"


@pytest.mark.parametrize("token", ["x", "x" * 300, "%00", "%ED%A0%80", "..%2Fx", "a.b", "x" * 5_000])
def test_a_link_that_nobody_made_is_refused(browser: Visitor, max: Person, token: str) -> None:
    path = f"/password-reset/{token}"
    statuses = [browser.get(path).status, browser.post(path, {"new_password": NEW_PASSWORD}).status]

    assert set(statuses) <= {400, 404, 422}


def test_an_expired_link_is_refused(browser: Visitor, ada: Person, max: Person, pass_time: Callable[..., None]) -> None:
    link = a_link(ada, max)
    pass_time(hours=25)

    assert browser.get(link).status == 400
    assert browser.post(link, {"new_password": NEW_PASSWORD}).status == 400
    assert browser.post("/sign-in", MAX).status == 200


def test_of_two_browsers_at_once_one_sets_the_password(
    client: TestClient, other_worker: TestClient, ada: Person, max: Person
) -> None:
    link = a_link(ada, max)

    def use(number: int) -> Response:
        fields = {"new_password": f"{NEW_PASSWORD}{number}"}
        return (client, other_worker)[number % 2].post(link, data=fields, headers=HEADERS, follow_redirects=False)

    assert sorted(answer.status_code for answer in at_once(6, use)) == [303, *[400] * 5]


def test_the_page_of_a_link_tells_nobody_its_address(browser: Visitor, ada: Person, max: Person) -> None:
    link = a_link(ada, max)

    for path in (link, "/password-reset/x"):
        answer = browser.get(path).answer
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert browser.get(link).answer.headers["Cache-Control"] == "no-store"
    assert link.rpartition("/")[2] not in browser.get(link).html


def test_the_log_has_no_token(settings: Settings, make_app: MakeApp, capfd: pytest.CaptureFixture[str]) -> None:
    with TestClient(make_app(settings.model_copy(update={"log_level": "DEBUG"}))) as client:
        ada, max = joined(client, "ada"), joined(client, "max")
        link = a_link(ada, max)
        browser = Visitor(client)
        browser.get(link)
        browser.send(new_password="weak")
        browser.send(new_password=NEW_PASSWORD)
    lines = [line for line in capfd.readouterr().err.splitlines() if "HTTP Request" not in line]  # those of the client

    assert len([line for line in lines if "/password-reset/…" in line]) == 3
    assert link.rpartition("/")[2] not in "".join(lines)


def test_a_mail_is_asked_for_and_the_answer_does_not_tell_who_is_known(
    browser: Visitor, max: Person, outbox: Outbox, settings: Settings, make_app: MakeApp
) -> None:
    views = [browser.post("/password-reset", {"email": email}) for email in (max.email, "nobody@example.com")]

    assert views[0].text == views[1].text
    assert "a mail is on its way" in views[0].text
    [mail] = outbox.mails
    assert mail["To"] == max.email
    assert browser.post("/password-reset", {"email": "max"}).status == 422


@pytest.mark.parametrize("public_url", [None, "https://stock.example.com"])
def test_a_mail_has_a_link_to_the_public_address_and_never_to_a_host_of_a_request(
    settings: Settings, make_app: MakeApp, public_url: str | None
) -> None:
    app = make_app(settings.model_copy(update={"public_url": public_url}))
    with TestClient(app) as client:
        max = joined(client, "max")
        app.state.mailer = outbox = Outbox(app, client)
        browser = Visitor(client)
        browser.request("POST", "/password-reset", data={"email": max.email}, headers={"Host": "testserver:1234"})
        texts = [outbox.part("plain"), outbox.part("html")]
        token = re.findall(r"[\w-]{43}", texts[0])[0]

        assert not any("testserver" in text for text in texts)
        for text in texts:
            assert (f"{public_url}/password-reset/{token}" in text) == (public_url is not None)
        assert browser.get(f"/password-reset/{token}").status == 200


def test_where_mail_is_off_the_page_says_whom_to_ask(browser: Visitor, max: Person) -> None:
    view = browser.get("/password-reset")

    assert "Ask an admin" in view.text
    assert not view.forms


# What nobody's browser sends


@pytest.mark.parametrize("content", [r'["\ud800x", false, "/a"]', "[" * 30_000, "{}", "7", "\xff"])
def test_a_message_that_is_none_of_ours_is_not_shown(client: TestClient, content: str) -> None:
    browser = Visitor(client)
    browser.cookies["said"] = urlsafe_b64encode(content.encode("latin-1")).decode()

    assert browser.get("/password-reset").status == 200


@pytest.mark.parametrize("charset", ["punycode", "undefined", "utf-16", "nonsense"])
def test_a_form_in_a_character_set_that_nobody_uses_is_refused(client: TestClient, charset: str) -> None:
    body = b'--X\r\nContent-Disposition: form-data; name="email"\r\n\r\n\xff.x--\r\n--X--\r\n'
    headers = {"Content-Type": f"multipart/form-data; boundary=X; charset={charset}"}
    answer = Visitor(client).request("POST", "/sign-in", content=body, headers=headers)

    assert answer.status_code in (400, 422)


def test_a_form_that_is_not_utf_8_is_refused(client: TestClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = Visitor(client).request("POST", "/sign-in", content=b"email=a%ED%A0%80b&password=%FF", headers=headers)

    assert answer.status_code == 422


def test_a_token_is_not_in_the_log_however_its_path_is_spelled(
    client: TestClient, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    answer = client.get("/password%2Dreset/SECRET", headers={"Accept": "text/html"})

    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "SECRET" not in capsys.readouterr().err


def test_a_message_is_shown_once_even_where_the_page_has_a_fault(client: TestClient) -> None:
    browser = Visitor(client)
    browser.request("POST", "/sign-out")
    assert "said" in browser.cookies
    browser.get("/nonsense/at/all")
    browser.get("/sign-in?next=%00")

    assert "said" not in browser.cookies
