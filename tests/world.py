"""A database with people in it, in which the sweeps make the rows that a request needs."""

from collections.abc import Callable, Collection
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

from kit.app import App
from tests.people import Person, Row, joined
from tests.routes import Operation, examples, makers, row_makers
from tests.shared_app import SharedApp

NAMES = ("admin", "owner", "member", "deactivated")  # the first account is the admin's
AUTHORS = tuple(f"author{number}" for number in range(10))


class World:
    """An app with people who are signed in; everything else is made when it is asked for, and gone at `begin`."""

    def __init__(self, shared: SharedApp, names: tuple[str, ...] = NAMES) -> None:
        self.shared = shared
        self.app: App = shared.app
        self.client: TestClient = shared.client
        self.creator = "owner"
        shared.begin([])
        self.people = {name: joined(self.client, name) for name in names}
        if "deactivated" in names:
            path = f"/users/{self.people['deactivated'].id}"
            self.admin.patch(path, {"is_active": False}).raise_for_status()
        self.saved = shared.database.save()
        self.ids: dict[str, int] = {}
        self.examples = examples(self.row_id)

    @property
    def admin(self) -> Person:
        return self.people["admin"]

    @property
    def owner(self) -> Person:
        return self.people["owner"]

    @property
    def member(self) -> Person:
        return self.people["member"]

    @property
    def another(self) -> Person:
        """A member who makes no rows."""
        return self.owner if self.creator == "member" else self.member

    def begin(self, creator: str = "owner") -> None:
        """Have nothing but the people; `creator` makes what there will be, as far as they may."""
        self.shared.begin([])
        self.shared.database.restore(self.saved)
        self.creator = creator
        self.ids = {}

    def token(self, caller: str) -> str | None:
        return self.people[caller].access_token if caller in self.people else None

    def call(self, operation: Operation, caller: str) -> Response:
        """The answer to a right request."""
        url, body = self.url(operation), operation.body(self)
        return operation.send(self.client, url, body, self.token(caller))

    def url(self, operation: Operation) -> str:
        """The path with ids of rows that are there, and the query that must be."""
        path = operation.path.format_map({name: self.id(name) for name in operation.ids})
        query = "&".join(f"{name}={value}" for name, value in operation.query(self).items())
        return f"{path}?{query}" if query else path

    # Rows

    def keep_only(self, names: Collection[str]) -> None:
        """Let other rows than these be made anew when they are asked for again."""
        self.ids = {name: row_id for name, row_id in self.ids.items() if name in names}

    def id(self, name: str) -> int:
        """The id of the row for a parameter such as `item_id`, which is made if it is not there yet."""
        if name not in self.ids:
            own: Callable[[World], int] | None = row_makers().get(name)
            self.ids[name] = own(self) if own else self.make(name)["id"]
        return self.ids[name]

    def row_id(self, name: str) -> int | None:
        """The same for a field of a body; None where no row is known by that name."""
        return self.id(name) if name in makers() else None

    def make(self, name: str, creator: str = "", **fields: Any) -> Row:
        """A new row for a parameter such as `item_id`, made by its POST."""
        maker = makers().get(name)
        assert maker is not None, f"Say in SWEEP.rows of the noun's tests how to make a row for {name!r}."
        return self.make_by(maker, creator, **fields)

    def make_by(self, maker: Operation, creator: str = "", **fields: Any) -> Row:
        """A new row, made by a POST, by those who may."""
        creator = creator or self.creator
        url, body = self.url(maker), maker.body(self) | fields
        answer = maker.send(self.client, url, body, self.token("admin" if maker.is_for_admins else creator))
        assert answer.status_code == 201, f"{maker} with {body}: {answer.text} Say more of it in SWEEP.bodies."
        return answer.json()
