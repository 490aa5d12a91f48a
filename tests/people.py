"""People who are signed in, and what they ask."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

Row = dict[str, Any]

API = "/api/v1"
PASSWORD = "Correct-horse-1"
LAMP = {"name": "Lamp", "price_cents": 1200, "quantity": 10, "reorder_level": 2, "tags": ["light"]}


@dataclass
class Person:
    """Somebody signed in; paths are below `/api/v1`."""

    client: TestClient
    id: int
    email: str
    access_token: str
    refresh_token: str

    def request(self, method: str, path: str, **options: Any) -> Response:
        headers = {"Authorization": f"Bearer {self.access_token}"} | options.pop("headers", {})
        return self.client.request(method, API + path, headers=headers, **options)

    def get(self, path: str, **options: Any) -> Response:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> Response:
        return self.request("POST", path, json=json, **options)

    def put(self, path: str, json: Any = None, **options: Any) -> Response:
        return self.request("PUT", path, json=json, **options)

    def patch(self, path: str, json: Any = None, **options: Any) -> Response:
        return self.request("PATCH", path, json=json, **options)

    def delete(self, path: str, **options: Any) -> Response:
        return self.request("DELETE", path, **options)


def signed_in(client: TestClient, email: str, password: str = PASSWORD) -> Person:
    """Sign somebody in who has an account."""
    tokens = client.post(f"{API}/auth/token", data={"username": email, "password": password}).json()
    person = Person(client, 0, email, tokens["access_token"], tokens["refresh_token"])
    person.id = person.get("/users/me").json()["id"]
    return person


def joined(client: TestClient, name: str) -> Person:
    """Register somebody by their first name, and sign them in."""
    email = f"{name}@example.com"
    body = {"email": email, "full_name": name.capitalize(), "password": PASSWORD}
    assert client.post(f"{API}/auth/register", json=body).status_code == 201
    return signed_in(client, email)


def order_for(*wanted: tuple[Row, int], **fields: Any) -> Row:
    """The body of an order for so many of each item."""
    return {"lines": [{"item_id": item["id"], "quantity": quantity} for item, quantity in wanted]} | fields


def place(person: Person, *wanted: tuple[Row, int]) -> Row:
    """An order that somebody placed."""
    answer = person.post("/orders", order_for(*wanted))
    assert answer.status_code == 201, answer.text
    return answer.json()


def with_key(key: str | bytes) -> dict[str, Any]:
    return {"headers": {"Idempotency-Key": key}}


def at_once(calls: int, call: Callable[[int], Response]) -> list[Response]:
    """The answers to so many calls that are made at the same moment."""
    with ThreadPoolExecutor(calls) as pool:
        return list(pool.map(call, range(calls)))


def without_request_id(answer: Response) -> Row:
    body = answer.json()
    assert body.pop("request_id") == answer.headers["X-Request-ID"]
    return body


def refusal(answer: Response) -> tuple[int, str]:
    """The status and the error code of a refusal."""
    return answer.status_code, answer.json()["error_code"]


def fields_refused(answer: Response) -> list[list[str | int]]:
    """Where the faults of a request that is not valid are."""
    assert refusal(answer) == (422, "VALIDATION_ERROR"), answer.text
    return [error["loc"] for error in answer.json()["errors"]]


def stock_of(person: Person, item: Row) -> int:
    """How many are left of an item."""
    return person.get(f"/items/{item['id']}").json()["quantity"]
