"""The stock."""

from typing import Any

from tests.conftest import Person


def test_an_item_is_returned_as_it_was_added(ada: Person) -> None:
    created = ada.post("/items", {"name": "Lamp", "price_cents": 1200, "tags": ["light"]})

    assert created.status_code == 201
    assert ada.get(f"/items/{created.json()['id']}").json() == created.json()


def test_a_member_may_look_but_not_touch(max: Person, lamp: dict[str, Any]) -> None:
    assert max.get(f"/items/{lamp['id']}").json() == lamp
    assert max.delete(f"/items/{lamp['id']}").json()["error_code"] == "FORBIDDEN"
