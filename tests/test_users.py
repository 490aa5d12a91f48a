"""Accounts: one's own, and those that an admin manages."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import bcrypt
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from kit.app import App
from kit.models import clock_at, now
from tests.databases import on_both_databases
from tests.outbox import Outbox
from tests.people import API, PASSWORD, Person, Row, at_once, fields_refused, refusal, without_request_id
from tests.routes import Exceptions
from tests.world import World

NEW_PASSWORD = "Another-horse-2"


def sign_in_status(client: TestClient, email: str, password: str) -> int:
    return client.post(f"{API}/auth/token", data={"username": email, "password": password}).status_code


def refresh_status(person: Person) -> int:
    form = {"grant_type": "refresh_token", "refresh_token": person.refresh_token}
    return person.client.post(f"{API}/auth/token", data=form).status_code


def noted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[bytes]:
    """What a function of bcrypt is called with from now on, beside the password."""
    calls: list[bytes] = []
    function = getattr(bcrypt, name)

    def note(password: bytes, other: bytes) -> Any:
        calls.append(other)
        return function(password, other)

    monkeypatch.setattr(bcrypt, name, note)
    return calls


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The salts of the passwords that were hashed."""
    return noted(monkeypatch, "hashpw")


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that passwords were checked against."""
    return noted(monkeypatch, "checkpw")


def emails(response: Response) -> list[str]:
    return [user["email"].partition("@")[0] for user in response.json()["items"]]


# One's own account


def test_everybody_sees_their_own_account(max: Person) -> None:
    response = max.get("/users/me")

    user = response.json()
    assert response.status_code == 200
    assert set(user) == {"id", "email", "full_name", "role", "is_active", "created_at", "updated_at"}
    assert (user["email"], user["full_name"], user["role"], user["is_active"]) == (max.email, "Max", "member", True)
    assert (user["created_at"][-1], user["updated_at"][-1]) == ("Z", "Z")


def test_people_change_their_own_name_and_email(client: TestClient, max: Person) -> None:
    before = max.get("/users/me").json()
    response = max.patch("/users/me", {"full_name": " Max Müller ", "email": "MAX.M@Example.com"})

    changed = {"full_name": "Max Müller", "email": "max.m@example.com", "updated_at": response.json()["updated_at"]}
    assert (response.status_code, response.json()) == (200, before | changed)
    assert max.get("/users/me").json() == response.json()
    assert changed["updated_at"] > before["updated_at"]
    assert sign_in_status(client, "max.m@example.com", PASSWORD) == 200
    assert sign_in_status(client, "max@example.com", PASSWORD) == 400


def test_a_field_that_is_left_out_stays_as_it_is(max: Person) -> None:
    response = max.patch("/users/me", {"full_name": "Maximilian"})

    assert response.json()["email"] == max.email


def test_a_patch_of_nothing_changes_nothing(ada: Person) -> None:
    for path in ("/users/me", "/users/1"):
        before = ada.get(path).json()

        assert ada.patch(path, {}).json() == before
        assert ada.get(path).json() == before


def test_nobody_can_take_the_email_of_another(ada: Person, max: Person) -> None:
    for path in ("/users/me", "/users/1"):
        for email in ("max@example.com", "MAX@EXAMPLE.COM"):
            assert refusal(ada.patch(path, {"email": email})) == (409, "EMAIL_TAKEN")
    assert ada.get("/users/me").json()["email"] == ada.email


def test_people_may_send_the_email_that_they_have(ada: Person) -> None:
    for path in ("/users/me", "/users/1"):
        assert ada.patch(path, {"email": "ADA@example.com"}).json()["email"] == "ada@example.com"


PROFILE_FAULTS: list[tuple[str, Any]] = [
    ("full_name", None),
    ("full_name", ""),
    ("full_name", "   "),
    ("full_name", "x" * 256),
    ("full_name", "x\0"),
    *(("full_name", f"Ada{character}Lovelace") for character in "\n\r\t\x0b\x1b\x7f\x85\u2028\u2029"),
    ("full_name", 5),
    ("full_name", ["x"]),
    ("email", None),
    ("email", ""),
    ("email", "ada"),
    ("email", "Ada <ada@example.com>"),
    ("email", 5),
    ("email", ["ada@example.com"]),
    ("id", 5),
    ("password", NEW_PASSWORD),
    ("created_at", "2026-01-01T00:00:00Z"),
    ("nonsense", 1),
]


def test_of_their_own_account_people_cannot_change(max: Person, subtests: pytest.Subtests) -> None:
    before = max.get("/users/me").json()
    for field, value in [*PROFILE_FAULTS, ("role", "admin"), ("is_active", True)]:
        with subtests.test(field, value=str(value)[:50]):
            response = max.patch("/users/me", {"full_name": "Changed", field: value})
            assert fields_refused(response) == ([["body"]] if value == "x\0" else [["body", field]])

    assert max.get("/users/me").json() == before


def test_a_name_may_have_1_to_255_characters(ada: Person) -> None:
    for name in ("x", "x" * 255, "Ada 🐴 Lovelace", "阿達", "Zoë d'Été-Straße, Dr."):
        assert ada.patch("/users/me", {"full_name": name}).json()["full_name"] == name


# One's own password


def change_password(person: Person, current: str = PASSWORD, new: str = NEW_PASSWORD) -> Response:
    return person.put("/users/me/password", {"current_password": current, "new_password": new})


def test_a_new_password_takes_the_place_of_the_old_one(client: TestClient, max: Person) -> None:
    response = change_password(max)

    assert (response.status_code, response.content) == (204, b"")
    assert sign_in_status(client, max.email, PASSWORD) == 400
    assert sign_in_status(client, max.email, NEW_PASSWORD) == 200


def test_a_new_password_ends_every_session_but_this_one(
    ada: Person, max: Person, sign_in: Callable[[str], Person]
) -> None:
    elsewhere = sign_in(max.email)
    change_password(max)

    assert elsewhere.get("/users/me").status_code == 401
    assert refresh_status(elsewhere) == 400
    assert max.get("/users/me").status_code == 200
    assert refresh_status(max) == 200
    assert ada.get("/users/me").status_code == 200


def test_a_wrong_current_password_changes_nothing(
    client: TestClient, max: Person, sign_in: Callable[[str], Person]
) -> None:
    elsewhere = sign_in(max.email)
    response = change_password(max, current="wrong")

    assert refusal(response) == (400, "INVALID_CREDENTIALS")
    assert elsewhere.get("/users/me").status_code == 200
    assert sign_in_status(client, max.email, NEW_PASSWORD) == 400
    assert sign_in_status(client, max.email, PASSWORD) == 200


def test_a_wrong_current_password_counts_as_a_failed_sign_in(client: TestClient, ada: Person, max: Person) -> None:
    statuses = [change_password(max, current="wrong").status_code for _ in range(3)]
    statuses += [sign_in_status(client, max.email, "wrong") for _ in range(2)]
    locked = change_password(max)

    assert statuses == [400] * 5
    assert refusal(locked) == (429, "TOO_MANY_ATTEMPTS")
    assert 0 < int(locked.headers["Retry-After"]) <= 900
    assert sign_in_status(client, max.email, PASSWORD) == 429
    assert sign_in_status(client, ada.email, PASSWORD) == 200


def test_a_new_password_clears_the_count_of_failures(client: TestClient, max: Person) -> None:
    for _ in range(4):
        change_password(max, current="wrong")
    change_password(max)
    statuses = [sign_in_status(client, max.email, "wrong") for _ in range(5)]

    assert statuses == [400] * 5


def test_a_password_that_is_refused_is_no_failed_sign_in(client: TestClient, max: Person) -> None:
    statuses = [change_password(max, new="weak").status_code for _ in range(6)]

    assert statuses == [422] * 6
    assert sign_in_status(client, max.email, PASSWORD) == 200


def test_of_many_changes_of_one_password_at_once_exactly_one_succeeds(client: TestClient, max: Person) -> None:
    new_passwords = [f"Another-horse-{number}" for number in range(4)]
    answers = at_once(4, lambda number: change_password(max, PASSWORD, new_passwords[number]))

    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [204, 400, 400, 400]
    assert sign_in_status(client, max.email, new_passwords[statuses.index(204)]) == 200


def test_a_change_of_password_needs_both_and_nothing_else(max: Person) -> None:
    right = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    for field in right:
        assert fields_refused(max.put("/users/me/password", right | {field: None})) == [["body", field]]
        only = {name: value for name, value in right.items() if name != field}
        assert fields_refused(max.put("/users/me/password", only)) == [["body", field]]
    assert fields_refused(max.put("/users/me/password", right | {"email": "x@example.com"})) == [["body", "email"]]


def test_no_password_is_checked_for_a_request_that_is_wrong_otherwise(
    max: Person, hashed: list[bytes], checked: list[bytes]
) -> None:
    for current in (PASSWORD, "wrong"):
        body = {"current_password": current, "new_password": NEW_PASSWORD}

        assert fields_refused(max.put("/users/me/password?x=1", body)) == [["query", "x"]]
    assert hashed == checked == []


# The list


@pytest.fixture
def company(ada: Person) -> Person:
    """Ada, among people with names of many kinds."""
    people = [
        ("zoe@example.com", "Zoë Ångström", "member"),
        ("emile@example.com", "ÉMILE Zola", "admin"),
        ("k@example.com", "Karl Straße", "member"),
        ("under_score@example.com", "100% Under_Score", "member"),
        ("back@example.com", "Back\\slash/", "member"),
    ]
    for email, full_name, role in people:
        body = {"email": email, "full_name": full_name, "password": PASSWORD, "role": role}
        assert ada.post("/users", body).status_code == 201
    karl = ada.get("/users", params={"q": "karl"}).json()["items"][0]
    ada.patch(f"/users/{karl['id']}", {"is_active": False})
    return ada


def test_accounts_are_listed_by_email(company: Person) -> None:
    response = company.get("/users")

    page = response.json()
    assert set(page) == {"items", "total", "page", "page_size", "has_next"}
    assert (page["total"], page["page"], page["page_size"], page["has_next"]) == (6, 1, 20, False)
    assert emails(response) == ["ada", "back", "emile", "k", "under_score", "zoe"]
    assert page["items"][0] == company.get("/users/me").json()


FOUND: list[tuple[dict[str, str], list[str]]] = [
    ({"q": "ADA"}, ["ada"]),
    ({"q": " ada "}, ["ada"]),
    ({"q": ""}, ["ada", "back", "emile", "k", "under_score", "zoe"]),
    ({"q": "EXAMPLE.com"}, ["ada", "back", "emile", "k", "under_score", "zoe"]),
    ({"q": "émile"}, ["emile"]),
    ({"q": "ÅNGSTRÖM"}, ["zoe"]),
    ({"q": "zoë å"}, ["zoe"]),
    ({"q": "strasse"}, ["k"]),
    ({"q": "STRAßE"}, ["k"]),
    ({"q": "zo"}, ["emile", "zoe"]),
    ({"q": "%"}, ["under_score"]),
    ({"q": "_"}, ["under_score"]),
    ({"q": "r_s"}, ["under_score"]),
    ({"q": "k\\s"}, ["back"]),
    ({"q": "/"}, ["back"]),
    ({"q": "a%a"}, []),
    ({"q": "nobody"}, []),
    ({"role": "admin"}, ["ada", "emile"]),
    ({"role": "member"}, ["back", "k", "under_score", "zoe"]),
    ({"is_active": "false"}, ["k"]),
    ({"is_active": "true"}, ["ada", "back", "emile", "under_score", "zoe"]),
    ({"role": "member", "is_active": "true", "q": "e"}, ["back", "under_score", "zoe"]),
    ({"role": "admin", "is_active": "false"}, []),
    ({"sort": "-email"}, ["zoe", "under_score", "k", "emile", "back", "ada"]),
    ({"sort": "full_name"}, ["under_score", "ada", "back", "k", "zoe", "emile"]),
    ({"sort": "-full_name"}, ["emile", "zoe", "k", "back", "ada", "under_score"]),
    ({"sort": "created_at"}, ["ada", "zoe", "emile", "k", "under_score", "back"]),
    ({"sort": "-created_at,email"}, ["back", "under_score", "k", "emile", "zoe", "ada"]),
]


def test_the_list_of_accounts_is_filtered_and_sorted(company: Person, subtests: pytest.Subtests) -> None:
    for filters, found in FOUND:
        with subtests.test(str(filters)):
            response = company.get("/users", params=filters)

            assert emails(response) == found
            assert response.json()["total"] == len(found)


def test_a_list_of_accounts_has_pages(company: Person) -> None:
    first, last = (company.get("/users", params={"page": page, "page_size": 4}) for page in (1, 2))

    assert (emails(first), first.json()["has_next"]) == (["ada", "back", "emile", "k"], True)
    assert (emails(last), last.json()["has_next"], last.json()["page"]) == (["under_score", "zoe"], False, 2)


WRONG_QUERIES: list[tuple[str, str]] = [
    ("role", "owner"),
    ("role", ""),
    ("is_active", "perhaps"),
    ("is_active", ""),
    ("sort", "role"),
    ("sort", "password_hash"),
    ("sort", ""),
    ("sort", "email,"),
    ("sort", "--email"),
    ("sort", "+email"),
    ("sort", "EMAIL"),
    ("page", "0"),
    ("page_size", "101"),
    ("q", "x" * 256),
    ("q", "x\0"),
    ("limit", "5"),
    ("email", "ada@example.com"),
]


def test_the_list_of_accounts_refuses_what_it_does_not_know(ada: Person, subtests: pytest.Subtests) -> None:
    for name, value in WRONG_QUERIES:
        with subtests.test(name, value=value[:50]):
            assert fields_refused(ada.get("/users", params={name: value})) == [["query", name]]


def test_half_a_character_is_no_search(ada: Person) -> None:
    assert refusal(ada.get("/users?q=%ed%a0%80")) == (422, "VALIDATION_ERROR")


# Making, showing, changing and deleting accounts


def test_an_admin_makes_accounts(ada: Person, sign_in: Callable[[str], Person]) -> None:
    for name, more, role in (
        ("eva", {}, "member"),
        ("max", {"role": "member"}, "member"),
        ("zoe", {"role": "admin"}, "admin"),
    ):
        body = {"email": f"{name.upper()}@example.com", "full_name": name, "password": PASSWORD}
        response = ada.post("/users", body | more)

        assert response.status_code == 201
        assert (response.json()["email"], response.json()["role"]) == (f"{name}@example.com", role)
        assert sign_in(f"{name}@example.com").get("/users/me").json() == response.json()


WRONG_ACCOUNTS: list[tuple[str, Any]] = [
    ("role", "owner"),
    ("role", None),
    ("role", ""),
    ("is_active", True),
    ("full_name", ""),
    ("email", "eva"),
    ("email", None),
    ("password", "weak"),
    ("password", None),
    ("nonsense", 1),
]


def test_making_an_account_refuses(ada: Person, subtests: pytest.Subtests) -> None:
    body = {"email": "eva@example.com", "full_name": "Eva", "password": PASSWORD}
    for field, value in WRONG_ACCOUNTS:
        with subtests.test(field, value=value):
            assert fields_refused(ada.post("/users", body | {field: value})) == [["body", field]]

    assert ada.get("/users").json()["total"] == 1


def test_an_admin_cannot_make_a_second_account_with_an_email(ada: Person, max: Person) -> None:
    body = {"email": "Max@Example.com", "full_name": "Max", "password": PASSWORD}

    assert refusal(ada.post("/users", body)) == (409, "EMAIL_TAKEN")


def test_a_member_cannot_make_the_app_hash_passwords(max: Person, hashed: list[bytes]) -> None:
    body = {"email": "eva@example.com", "full_name": "Eva", "password": PASSWORD}

    assert refusal(max.post("/users", body)) == (403, "FORBIDDEN")
    assert hashed == []


def test_an_account_is_shown_to_itself_and_to_admins(ada: Person, max: Person) -> None:
    own, by_admin = max.get(f"/users/{max.id}"), ada.get(f"/users/{max.id}")

    assert (own.status_code, by_admin.status_code) == (200, 200)
    assert own.json() == by_admin.json() == max.get("/users/me").json()


def test_to_a_member_another_account_might_as_well_not_exist(ada: Person, max: Person, eva: Person) -> None:
    ada.delete(f"/users/{eva.id}")
    hidden, missing = max.get(f"/users/{ada.id}"), max.get("/users/999")

    assert refusal(hidden) == refusal(missing) == (404, "USER_NOT_FOUND")
    assert str(without_request_id(hidden)).replace(f"User {ada.id} ", "User 999 ") == str(without_request_id(missing))
    assert set(hidden.headers) == set(missing.headers)
    assert without_request_id(max.get(f"/users/{eva.id}")) == without_request_id(ada.get(f"/users/{eva.id}"))


def test_an_admin_changes_accounts(ada: Person, max: Person, subtests: pytest.Subtests) -> None:
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"full_name": " Max II "}, {"full_name": "Max II"}),
        ({"email": "MAX2@example.com"}, {"email": "max2@example.com"}),
        ({"role": "admin"}, {"role": "admin"}),
        ({"is_active": False}, {"is_active": False}),
        (same := {"role": "member", "is_active": True, "full_name": "M"}, same),
    ]
    for body, expected in changes:
        with subtests.test(str(body)):
            before = ada.get(f"/users/{max.id}").json()
            response = ada.patch(f"/users/{max.id}", body)

            assert response.status_code == 200
            assert response.json() == before | expected | {"updated_at": response.json()["updated_at"]}
            assert response.json()["updated_at"] > before["updated_at"]
            assert ada.get(f"/users/{max.id}").json() == response.json()


USER_FAULTS: list[tuple[str, Any]] = [
    ("role", None),
    ("role", "owner"),
    ("role", "ADMIN"),
    ("role", True),
    ("is_active", None),
    ("is_active", "false"),
    ("is_active", 0),
]


def test_changing_an_account_refuses(ada: Person, max: Person, subtests: pytest.Subtests) -> None:
    before = max.get("/users/me").json()
    for field, value in [*PROFILE_FAULTS, *USER_FAULTS]:
        with subtests.test(field, value=str(value)[:50]):
            response = ada.patch(f"/users/{max.id}", {"full_name": "Changed", field: value})
            assert fields_refused(response) == ([["body"]] if value == "x\0" else [["body", field]])

    assert max.get("/users/me").json() == before


def test_an_account_that_does_not_exist_is_not_found(ada: Person, subtests: pytest.Subtests) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        for user_id in (999, 2**63 - 1):
            with subtests.test(method, user_id=user_id):
                response = ada.request(method, f"/users/{user_id}", json={} if method == "PATCH" else None)

                assert refusal(response) == (404, "USER_NOT_FOUND")
                assert response.json()["detail"] == f"User {user_id} was not found."


def test_deleting_an_account_signs_it_out(client: TestClient, ada: Person, max: Person) -> None:
    response = ada.delete(f"/users/{max.id}")

    assert (response.status_code, response.content) == (204, b"")
    assert max.get("/users/me").status_code == 401
    assert refresh_status(max) == 400
    assert sign_in_status(client, max.email, PASSWORD) == 400
    assert refusal(ada.get(f"/users/{max.id}")) == (404, "USER_NOT_FOUND")


def test_the_email_of_a_deleted_account_is_free_again(ada: Person, max: Person, join: Callable[[str], Person]) -> None:
    ada.delete(f"/users/{max.id}")

    assert join("max").id > max.id


def test_reactivation_does_not_revive_the_sessions_that_deactivation_ended(
    ada: Person, max: Person, sign_in: Callable[[str], Person]
) -> None:
    ada.patch(f"/users/{max.id}", {"is_active": False})
    ada.patch(f"/users/{max.id}", {"is_active": True})

    assert max.get("/users/me").status_code == 401
    assert refresh_status(max) == 400
    assert sign_in(max.email).get("/users/me").status_code == 200


# A password that somebody else has set, with a token to hand over


def issue(admin: Person, user: int) -> Row:
    answer = admin.post(f"/users/{user}/password-reset")
    assert answer.status_code == 201, answer.text
    return answer.json()


def use(client: TestClient, token: str, password: str = NEW_PASSWORD) -> int:
    return client.put(f"{API}/auth/password-reset", json={"token": token, "new_password": password}).status_code


def test_an_account_without_a_password_waits_for_a_token(client: TestClient, ada: Person) -> None:
    eva = ada.post("/users", {"email": "eva@example.com", "full_name": "Eva"})
    before = [sign_in_status(client, "eva@example.com", password) for password in ("x", PASSWORD)]
    token = issue(ada, eva.json()["id"])["token"]

    assert (eva.status_code, eva.json()["role"], before) == (201, "member", [400] * 2)
    assert use(client, token) == 204
    assert sign_in_status(client, "eva@example.com", NEW_PASSWORD) == 200


def test_an_empty_password_is_none_that_can_be_set(ada: Person) -> None:
    body = {"email": "eva@example.com", "full_name": "Eva", "password": ""}

    assert fields_refused(ada.post("/users", body)) == [["body", "password"]]


def test_an_admin_makes_a_token_that_is_good_for_a_day(ada: Person, max: Person) -> None:
    answer = ada.post(f"/users/{max.id}/password-reset")

    assert (answer.status_code, set(answer.json())) == (201, {"token", "expires_at"})
    expires_at = datetime.fromisoformat(answer.json()["expires_at"])
    assert abs(expires_at - now() - timedelta(days=1)) < timedelta(minutes=1)
    assert sign_in_status(max.client, max.email, PASSWORD) == 200


def test_such_a_token_works_for_a_day_and_once(client: TestClient, ada: Person, max: Person) -> None:
    token = issue(ada, max.id)["token"]
    with clock_at(now() + timedelta(hours=25)):
        late = use(client, token)
    statuses = [use(client, token), use(client, token, "Correct-horse-3")]

    assert (late, statuses) == (400, [204, 400])
    assert sign_in_status(client, max.email, NEW_PASSWORD) == 200
    assert max.get("/users/me").status_code == 401


def test_earlier_tokens_end_with_a_new_one_and_those_of_others_do_not(
    client: TestClient, ada: Person, max: Person, eva: Person, outbox: Outbox
) -> None:
    client.post(f"{API}/auth/password-reset", json={"email": max.email})
    first, evas, [mailed] = issue(ada, max.id)["token"], issue(ada, eva.id)["token"], outbox.tokens
    last = issue(ada, max.id)["token"]

    assert [use(client, token) for token in (mailed, first, last, evas)] == [400, 400, 204, 204]


def test_a_token_is_made_however_many_were_asked_for(client: TestClient, ada: Person, max: Person) -> None:
    assert len({issue(ada, max.id)["token"] for _ in range(8)}) == 8


def test_only_admins_make_tokens(ada: Person, max: Person) -> None:
    refusals = [refusal(max.post(f"/users/{user}/password-reset")) for user in (ada.id, max.id, 999)]

    assert refusals == [(403, "FORBIDDEN")] * 3
    assert refusal(ada.post("/users/999/password-reset")) == (404, "USER_NOT_FOUND")


def test_the_audit_says_that_there_was_a_token_and_not_which(ada: Person, max: Person) -> None:
    token = issue(ada, max.id)["token"]
    answer = ada.get("/audit", params={"entity": "user", "entity_id": max.id})

    entry = answer.json()["items"][0]
    assert (entry["actor_id"], entry["action"]) == (ada.id, "update")
    assert entry["changes"] == {"password_reset": [None, None]}
    assert token not in answer.text


# The last admin


LOSSES: list[tuple[str, dict[str, Any] | None]] = [
    ("PATCH", {"role": "member"}),
    ("PATCH", {"is_active": False}),
    ("PATCH", {"role": "member", "is_active": False, "full_name": "Nobody"}),
    ("DELETE", None),
]


def test_the_last_active_admin_stays(ada: Person, max: Person, subtests: pytest.Subtests) -> None:
    before = ada.get("/users/me").json()
    for change in ({}, {"role": "admin", "is_active": False}):  # an inactive admin is nobody in charge
        ada.patch(f"/users/{max.id}", change)
        for method, body in LOSSES:
            with subtests.test(method, body=body, other=change):
                assert refusal(ada.request(method, f"/users/{ada.id}", json=body)) == (409, "LAST_ADMIN")

    assert ada.get("/users/me").json() == before


@pytest.mark.parametrize(("method", "body"), LOSSES)
def test_an_admin_may_leave_when_another_one_stays(
    ada: Person, max: Person, method: str, body: dict[str, Any] | None
) -> None:
    ada.patch(f"/users/{max.id}", {"role": "admin"})

    assert ada.request(method, f"/users/{ada.id}", json=body).is_success
    assert refusal(max.request(method, f"/users/{max.id}", json=body)) == (409, "LAST_ADMIN")


@pytest.mark.parametrize(("method", "body"), LOSSES)
def test_a_member_and_an_inactive_admin_may_always_go(
    ada: Person, max: Person, eva: Person, method: str, body: dict[str, Any] | None
) -> None:
    ada.patch(f"/users/{eva.id}", {"role": "admin", "is_active": False})

    assert ada.request(method, f"/users/{max.id}", json=body).is_success
    assert ada.request(method, f"/users/{eva.id}", json=body).is_success


def test_the_last_admin_may_change_everything_else(ada: Person) -> None:
    response = ada.patch(f"/users/{ada.id}", {"full_name": "Ada II", "role": "admin", "is_active": True})

    assert (response.status_code, response.json()["full_name"]) == (200, "Ada II")


@pytest.mark.parametrize("crosswise", [True, False], ids=["each other", "themselves"])
@pytest.mark.parametrize(("method", "body"), LOSSES)
def test_somebody_stays_in_charge_however_many_ask_at_once_of_two_workers(
    other_worker: TestClient, ada: Person, eva: Person, method: str, body: dict[str, Any] | None, crosswise: bool
) -> None:
    ada.patch(f"/users/{eva.id}", {"role": "admin"})
    eva_elsewhere = replace(eva, client=other_worker)

    def attempt(number: int) -> Response:
        caller, other = (ada, eva) if number % 2 else (eva_elsewhere, ada)
        return caller.request(method, f"/users/{(other if crosswise else caller).id}", json=body)

    statuses = {answer.status_code for answer in at_once(8, attempt)}

    left = [person.get("/users/me") for person in (ada, eva)]
    in_charge = [user.json() for user in left if user.is_success and user.json()["role"] == "admin"]
    assert len(in_charge) == 1
    assert statuses <= {200, 204, 401, 403, 404, 409}


@on_both_databases
def test_accounts_are_the_same_on_both_databases(ada: Person, max: Person, eva: Person, app: App) -> None:
    ada.patch(f"/users/{eva.id}", {"full_name": "ÉVA 100%", "role": "admin"})
    taken = ada.patch("/users/me", {"email": "MAX@example.com"})
    found = [emails(ada.get("/users", params={"q": q})) for q in ("éva", "%", "MAX@", "_")]
    answers = at_once(8, lambda n: (ada, eva)[n % 2].patch(f"/users/{(eva, ada)[n % 2].id}", {"role": "member"}))

    assert refusal(taken) == (409, "EMAIL_TAKEN")
    assert found == [["eva"], ["eva"], ["max"], []]
    assert {answer.status_code for answer in answers} <= {200, 403, 409}


# What the sweeps cannot know


def _post_of_another(world: World, _number: int) -> None:
    world.owner.post("/posts", {"title": "News", "content": "Lamps"}).raise_for_status()


SWEEP = Exceptions(
    statuses={"GET /users/{user_id}": {"member": 404}},
    bodies={
        "PUT /users/me/password": {"current_password": PASSWORD, "new_password": "Correct-horse-2"},
        "POST /users": {"password": PASSWORD},
    },
    rows={"user_id": lambda world: world.owner.id},
    lists={"GET /users/{user_id}/posts": _post_of_another},
    costs={
        "GET /users/me": (1, 1),
        "PATCH /users/me": (1, 4),
        "PUT /users/me/password": (3, 12),
        "POST /users": (3, 5),
        "POST /users/{user_id}/password-reset": (1, 6),
    },
    reasons=frozenset(
        {
            "body.full_name value_error",  # with a line break in it
            "body.password value_error",
            "body.new_password value_error",
            "INVALID_CREDENTIALS",
        }
    ),
    plans={"/users": "sqlite_autoindex_user_1", "/users/{user_id}/posts": "id"},
)
