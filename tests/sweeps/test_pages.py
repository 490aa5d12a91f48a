"""Every page: who may see it, and what it costs in hops, statements and bytes."""

from typing import Any

import pytest

from kit.pages import PageRoute
from kit.routing import callers_of
from tests.routes import documented_app
from tests.sweeps.test_cost import Meter, meter, one_world
from tests.visitors import HEADERS, visiting
from tests.world import World

__all__ = ["meter", "one_world"]

PAGES: dict[str, PageRoute] = documented_app().page_routes
MAX_BYTES = 60 * 1024
HOPS = {"/items/import/preview": 3, "/items/import/wrong": 3, "/items/export": 4}  # they read a whole file or table
MAX_STATEMENTS = {"/": 8}  # of all others six
# Where there is more to an address than its row and who may see it: what an admin is answered.
ANSWERS = {
    "/sign-in": 303,  # whoever is signed in already goes on
    "/sign-up": 303,
    "/items/import/preview": 303,  # there is no file yet
    "/items/import/wrong": 303,
    "/items/export": 200,
    "/password-reset/{token}": 400,  # no such token
    "/posts/{post_id}/comments": 303,  # both lead to the place on the post's page
    "/posts/{post_id}/comments/{comment_id}": 303,
    "/posts/{post_id}/edit": 403,  # it is the owner's
    "/posts/{post_id}/comments/{comment_id}/edit": 403,
}


def is_public(page: PageRoute) -> bool:
    return not (callers_of(page) and page.declared.callers.keys() - page.declared.optional)


def is_for_admins(page: PageRoute) -> bool:
    return any(caller.require is not None for caller in callers_of(page))


def address(world: World, page: PageRoute) -> str:
    """The path, with ids of rows that a member made."""
    names = [part.strip("{}") for part in page.path.split("/") if part.startswith("{")]
    ids: dict[str, Any] = {name: "none" if name == "token" else world.id(name) for name in names}
    return page.path.format_map(ids)


@pytest.fixture
def addresses(world: World) -> dict[str, str]:
    world.begin()
    return {path: address(world, page) for path, page in PAGES.items()}


def test_a_page_is_shown_to_those_whom_its_signature_names(
    world: World, addresses: dict[str, str], subtests: pytest.Subtests
) -> None:
    admin, member = [visiting(world.client, person.email) for person in (world.admin, world.member)]
    for path, page in PAGES.items():
        with subtests.test(path):
            anonymous = world.client.get(addresses[path], headers=HEADERS, follow_redirects=False)
            for_member = member.request("GET", addresses[path]).status_code
            for_admin = admin.request("GET", addresses[path]).status_code

            assert for_admin == ANSWERS.get(path, 200)
            if is_for_admins(page):
                assert for_member == 403
            if not is_public(page):
                assert (anonymous.status_code, anonymous.headers["location"][:14]) == (303, "/sign-in?next=")


def test_a_client_that_is_no_browser_gets_problems(world: World, addresses: dict[str, str]) -> None:
    private = [path for path, page in PAGES.items() if not is_public(page)]
    answers = {path: world.client.get(addresses[path], headers={"Accept": "*/*"}) for path in private}

    assert {answer.json()["error_code"] for answer in answers.values()} == {"NOT_AUTHENTICATED"}
    assert {answer.headers["WWW-Authenticate"] for answer in answers.values()} == {"Bearer"}


def test_a_page_costs_one_hop_few_statements_and_few_bytes(
    world: World, addresses: dict[str, str], meter: Meter, subtests: pytest.Subtests
) -> None:
    admin = visiting(world.client, world.admin.email)
    paid: list[int] = []
    for path in PAGES:
        with subtests.test(path):
            meter.read()
            answer = admin.request("GET", addresses[path])
            hops, statements = meter.read()
            paid.append(statements)

            assert hops <= HOPS.get(path, 1)
            assert statements <= MAX_STATEMENTS.get(path, 6)
            assert len(answer.content) <= MAX_BYTES
    assert sum(paid) / len(paid) <= 3
