"""Accounts: one's own, and those that an admin manages."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import bcrypt
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app import create_app
from settings import Settings
from tests.conftest import API, PASSWORD, Person
from tests.routes import Exceptions
from tests.world import World

NEW_PASSWORD = "Another-horse-2"


def sign_in_status(client: TestClient, email: str, password: str) -> int:
    return client.post(f"{API}/auth/token", data={"username": email, "password": password}).status_code


def refresh_status(person: Person) -> int:
    form = {"grant_type": "refresh_token", "refresh_token": person.refresh_token}
    return person.client.post(f"{API}/auth/token", data=form).status_code


def refusal(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["error_code"]


def without_id(response: Response) -> dict[str, Any]:
    return {name: value for name, value in response.json().items() if name != "request_id"}


def fields_refused(response: Response) -> list[list[str]]:
    assert refusal(response) == (422, "VALIDATION_ERROR")
    return [error["loc"] for error in response.json()["errors"]]


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


@pytest.mark.parametrize("path", ["/users/me", "/users/1"])
def test_a_patch_of_nothing_changes_nothing(ada: Person, path: str) -> None:
    before = ada.get(path).json()

    assert ada.patch(path, {}).json() == before
    assert ada.get(path).json() == before


@pytest.mark.parametrize("path", ["/users/me", "/users/1"])
@pytest.mark.parametrize("email", ["max@example.com", "MAX@EXAMPLE.COM"])
def test_nobody_can_take_the_email_of_another(ada: Person, max: Person, path: str, email: str) -> None:
    assert refusal(ada.patch(path, {"email": email})) == (409, "EMAIL_TAKEN")
    assert ada.get("/users/me").json()["email"] == ada.email


@pytest.mark.parametrize("path", ["/users/me", "/users/1"])
def test_people_may_send_the_email_that_they_have(ada: Person, path: str) -> None:
    assert ada.patch(path, {"email": "ADA@example.com"}).json()["email"] == "ada@example.com"


PROFILE_FAULTS: list[tuple[str, Any]] = [
    ("full_name", None),
    ("full_name", ""),
    ("full_name", "   "),
    ("full_name", "x" * 256),
    ("full_name", "x\0"),
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


@pytest.mark.parametrize(("field", "value"), [*PROFILE_FAULTS, ("role", "admin"), ("is_active", True)])
def test_of_their_own_account_people_cannot_change(max: Person, field: str, value: object) -> None:
    before = max.get("/users/me").json()
    response = max.patch("/users/me", {"full_name": "Changed", field: value})

    assert fields_refused(response) in ([["body", field]], [["body"]])
    assert max.get("/users/me").json() == before


@pytest.mark.parametrize("name", ["x", "x" * 255, "Ada 🐴 Lovelace", "阿達"])
def test_a_name_may_have_1_to_255_characters(ada: Person, name: str) -> None:
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
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(change_password, [max] * 4, [PASSWORD] * 4, new_passwords))

    statuses = [response.status_code for response in responses]
    assert sorted(statuses) == [204, 400, 400, 400]
    assert sign_in_status(client, max.email, new_passwords[statuses.index(204)]) == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"new_password": NEW_PASSWORD}, "current_password"),
        ({"current_password": PASSWORD}, "new_password"),
        ({"current_password": None, "new_password": NEW_PASSWORD}, "current_password"),
        ({"current_password": PASSWORD, "new_password": None}, "new_password"),
        ({"current_password": PASSWORD, "new_password": NEW_PASSWORD, "email": "x@example.com"}, "email"),
    ],
)
def test_a_change_of_password_needs_both_and_nothing_else(max: Person, body: dict[str, Any], field: str) -> None:
    assert fields_refused(max.put("/users/me/password", body)) == [["body", field]]


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


@pytest.mark.parametrize(
    ("filters", "found"),
    [
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
    ],
    ids=str,
)
def test_the_list_of_accounts_with(company: Person, filters: dict[str, str], found: list[str]) -> None:
    response = company.get("/users", params=filters)

    assert emails(response) == found
    assert response.json()["total"] == len(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
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
    ],
)
def test_the_list_of_accounts_refuses(ada: Person, name: str, value: str) -> None:
    assert fields_refused(ada.get("/users", params={name: value})) == [["query", name]]


def test_half_a_character_is_no_search(ada: Person) -> None:
    assert refusal(ada.get("/users?q=%ed%a0%80")) == (422, "VALIDATION_ERROR")


# Making, showing, changing and deleting accounts


@pytest.mark.parametrize(
    ("more", "role"), [({}, "member"), ({"role": "member"}, "member"), ({"role": "admin"}, "admin")]
)
def test_an_admin_makes_accounts(
    ada: Person, sign_in: Callable[[str], Person], more: dict[str, str], role: str
) -> None:
    body = {"email": "EVA@example.com", "full_name": "Eva", "password": PASSWORD}
    response = ada.post("/users", body | more)

    assert response.status_code == 201
    assert (response.json()["email"], response.json()["role"]) == ("eva@example.com", role)
    assert sign_in("eva@example.com").get("/users/me").json() == response.json()


@pytest.mark.parametrize(
    ("field", "value"),
    [
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
    ],
)
def test_making_an_account_refuses(ada: Person, field: str, value: object) -> None:
    body: dict[str, Any] = {"email": "eva@example.com", "full_name": "Eva", "password": PASSWORD, field: value}

    assert fields_refused(ada.post("/users", body)) == [["body", field]]


def test_an_admin_cannot_make_a_second_account_with_an_email(ada: Person, max: Person) -> None:
    body = {"email": "Max@Example.com", "full_name": "Max", "password": PASSWORD}

    assert refusal(ada.post("/users", body)) == (409, "EMAIL_TAKEN")


def test_a_member_cannot_make_the_app_hash_passwords(max: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    hash_password = bcrypt.hashpw

    def counted(password: bytes, salt: bytes) -> bytes:
        hashed.append(salt)
        return hash_password(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", counted)
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
    assert str(without_id(hidden)).replace(f"User {ada.id} ", "User 999 ") == str(without_id(missing))
    assert set(hidden.headers) == set(missing.headers)
    assert without_id(max.get(f"/users/{eva.id}")) == without_id(ada.get(f"/users/{eva.id}"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"full_name": " Max II "}, {"full_name": "Max II"}),
        ({"email": "MAX2@example.com"}, {"email": "max2@example.com"}),
        ({"role": "admin"}, {"role": "admin"}),
        ({"is_active": False}, {"is_active": False}),
        (
            {"role": "admin", "is_active": False, "full_name": "M"},
            {"role": "admin", "is_active": False, "full_name": "M"},
        ),
    ],
)
def test_an_admin_changes_accounts(ada: Person, max: Person, body: dict[str, Any], expected: dict[str, Any]) -> None:
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


@pytest.mark.parametrize(("field", "value"), [*PROFILE_FAULTS, *USER_FAULTS])
def test_changing_an_account_refuses(ada: Person, max: Person, field: str, value: object) -> None:
    before = max.get("/users/me").json()
    response = ada.patch(f"/users/{max.id}", {"full_name": "Changed", field: value})

    assert fields_refused(response) in ([["body", field]], [["body"]])
    assert max.get("/users/me").json() == before


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("user_id", [999, 2**63 - 1])
def test_an_account_that_does_not_exist_is_not_found(ada: Person, method: str, user_id: int) -> None:
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


# The last admin


LOSSES: list[tuple[str, dict[str, Any] | None]] = [
    ("PATCH", {"role": "member"}),
    ("PATCH", {"is_active": False}),
    ("PATCH", {"role": "member", "is_active": False, "full_name": "Nobody"}),
    ("DELETE", None),
]


@pytest.mark.parametrize(("method", "body"), LOSSES)
def test_the_last_active_admin_stays(ada: Person, max: Person, method: str, body: dict[str, Any] | None) -> None:
    before = ada.get("/users/me").json()
    response = ada.request(method, f"/users/{ada.id}", json=body)

    assert refusal(response) == (409, "LAST_ADMIN")
    assert ada.get("/users/me").json() == before


@pytest.mark.parametrize(("method", "body"), LOSSES)
def test_an_inactive_admin_is_nobody_in_charge(
    ada: Person, max: Person, method: str, body: dict[str, Any] | None
) -> None:
    ada.patch(f"/users/{max.id}", {"role": "admin", "is_active": False})

    assert refusal(ada.request(method, f"/users/{ada.id}", json=body)) == (409, "LAST_ADMIN")


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
    settings: Settings, ada: Person, eva: Person, method: str, body: dict[str, Any] | None, crosswise: bool
) -> None:
    ada.patch(f"/users/{eva.id}", {"role": "admin"})

    def attempt(number: int) -> int:
        caller, other = (ada, eva) if number % 2 else (eva_elsewhere, ada)
        return caller.request(method, f"/users/{(other if crosswise else caller).id}", json=body).status_code

    with TestClient(create_app(settings)) as other_worker, ThreadPoolExecutor(8) as pool:
        eva_elsewhere = replace(eva, client=other_worker)
        statuses = set(pool.map(attempt, range(8)))

    left = [person.get("/users/me") for person in (ada, eva)]
    in_charge = [user.json() for user in left if user.is_success and user.json()["role"] == "admin"]
    assert len(in_charge) == 1
    assert statuses <= {200, 204, 401, 403, 404, 409}


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
        "PUT /users/me/password": (3, 11),
        "POST /users": (3, 5),
    },
    reasons=frozenset({"body.password value_error", "body.new_password value_error", "INVALID_CREDENTIALS"}),
    plans={"/users": "sqlite_autoindex_user_1", "/users/{user_id}/posts": "id"},
)
