"""Every route of the API, who may call it, and a right request for it."""

from dataclasses import dataclass
from datetime import timedelta

from fastapi.testclient import TestClient
from httpx2 import Response

from kit.app import App
from kit.db import ending
from kit.models import digest, now
from kit.sessions import PasswordReset

# One line a route: the status that each caller gets for a right request, and its body (JSON, a form or a file).
# `owner` is the member whom the path is about, `-` where a route has none; `member` is another one.
# `deactivated` sends the access token of an account that was active when it was issued.
TABLE = """
route                                                anonymous deactivated member owner admin body
GET    /health                                       200       200         200    -     200
GET    /ready                                        200       200         200    -     200
POST   /api/v1/auth/register                         201       201         201    -     201   {"email": "new@example.com", "full_name": "New", "password": "Correct-horse-1"}
POST   /api/v1/auth/token                            200       200         200    -     200   username=owner@example.com&password=Correct-horse-1
POST   /api/v1/auth/password-reset                   202       202         202    -     202   {"email": "owner@example.com"}
PUT    /api/v1/auth/password-reset                   204       204         204    -     204   {"token": "the token of the owner", "new_password": "Correct-horse-2"}
GET    /api/v1/auth/sessions                         401       401         200    -     200
DELETE /api/v1/auth/sessions                         401       401         204    -     204
DELETE /api/v1/auth/sessions/current                 401       401         204    -     204
DELETE /api/v1/auth/sessions/{session_id}            401       401         404    204   404
GET    /api/v1/users/me                              401       401         200    -     200
PATCH  /api/v1/users/me                              401       401         200    -     200   {"full_name": "New"}
PUT    /api/v1/users/me/password                     401       401         204    -     204   {"current_password": "Correct-horse-1", "new_password": "Correct-horse-2"}
GET    /api/v1/users                                 401       401         403    -     200
POST   /api/v1/users                                 401       401         403    -     201   {"email": "new@example.com", "full_name": "New", "password": "Correct-horse-1"}
GET    /api/v1/users/{user_id}                       401       401         404    200   200
PATCH  /api/v1/users/{user_id}                       401       401         403    403   200   {"full_name": "New"}
DELETE /api/v1/users/{user_id}                       401       401         403    403   204
GET    /api/v1/users/{user_id}/posts                 401       401         200    200   200
GET    /api/v1/items                                 401       401         200    -     200
POST   /api/v1/items                                 401       401         403    -     201   {"name": "Desk", "price_cents": 100}
GET    /api/v1/items/{item_id}                       401       401         200    -     200
PATCH  /api/v1/items/{item_id}                       401       401         403    -     200   {"quantity": 1}
DELETE /api/v1/items/{item_id}                       401       401         403    -     204
GET    /api/v1/items/export                          401       401         403    -     200
POST   /api/v1/items/import                          401       401         403    -     200   file=@name,price_cents
GET    /api/v1/orders                                401       401         200    -     200
POST   /api/v1/orders                                401       401         201    -     201   {"lines": [{"item_id": 1, "quantity": 1}]}
GET    /api/v1/orders/{order_id}                     401       401         404    200   200
PATCH  /api/v1/orders/{order_id}                     401       401         404    200   200   {"status": "cancelled"}
GET    /api/v1/posts                                 401       401         200    -     200
POST   /api/v1/posts                                 401       401         201    -     201   {"title": "News", "content": "The lamps are here."}
GET    /api/v1/posts/{post_id}                       401       401         200    200   200
PATCH  /api/v1/posts/{post_id}                       401       401         403    200   403   {"title": "New"}
DELETE /api/v1/posts/{post_id}                       401       401         403    204   204
GET    /api/v1/posts/{post_id}/comments              401       401         200    200   200
POST   /api/v1/posts/{post_id}/comments              401       401         201    201   201   {"content": "Good"}
GET    /api/v1/posts/{post_id}/comments/{comment_id} 401       401         200    200   200
PATCH  /api/v1/posts/{post_id}/comments/{comment_id} 401       401         403    200   403   {"content": "New"}
DELETE /api/v1/posts/{post_id}/comments/{comment_id} 401       401         403    204   204
GET    /api/v1/notifications                         401       401         200    -     200
PATCH  /api/v1/notifications                         401       401         200    -     200   {"read": true}
PATCH  /api/v1/notifications/{notification_id}       401       401         404    200   404   {"read": true}
GET    /api/v1/dashboard                             401       401         200    -     200
GET    /api/v1/audit                                 401       401         403    -     200
"""  # noqa: E501 - one line a route


@dataclass(frozen=True)
class Route:
    """A line of the table."""

    method: str
    path: str
    expected: dict[str, int]
    body: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def refuses(self, caller: str) -> bool:
        """Whether no request of theirs can be right, because they are not signed in or not an admin."""
        is_for_admins = self.expected["member"] == 403 and self.expected.get("owner", 403) == 403
        return self.expected[caller] == 401 or (caller == "member" and is_for_admins)

    def send(self, client: TestClient, ids: dict[str, int], token: str | None) -> Response:
        """Call the route with the ids that its path asks for."""
        path, headers = self.path.format(**ids), {"Authorization": f"Bearer {token}"} if token else {}
        if self.body.startswith("file=@"):
            return client.request(self.method, path, headers=headers, files={"file": self.body[6:].encode()})
        kind = "application/x-www-form-urlencoded" if self.body[:1] not in ("", "{") else "application/json"
        return client.request(self.method, path, headers=headers | {"Content-Type": kind}, content=self.body)


def _read(table: str) -> list[Route]:
    title, *lines = table.strip().splitlines()
    callers = title.split()[1:-1]
    routes: list[Route] = []
    for line in lines:
        method, path, *cells = line.split(maxsplit=len(callers) + 2)
        statuses = dict(zip(callers, cells, strict=False))
        expected = {caller: int(status) for caller, status in statuses.items() if status != "-"}
        routes.append(Route(method, path, expected, "".join(cells[len(callers) :])))
    return routes


ROUTES = _read(TABLE)
PLACE_ORDER = next(route for route in ROUTES if str(route) == "POST /api/v1/orders")


def let_reset(app: App, user_id: int) -> None:
    """Let the password of an account be set with the token of the table, as if it had been mailed."""
    token_hash, an_hour = digest("the token of the owner"), timedelta(hours=1)
    with ending(app.state.database.write()) as session:
        session.add(PasswordReset(token_hash=token_hash, user_id=user_id, expires_at=now() + an_hour))
