"""Every route of the API, who may call it, and a right request for it: all of it read from the app.

What its signatures and schemas do not say stands in the test module of its noun, as `SWEEP`.
"""

import importlib
import importlib.util
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints
from urllib.parse import urlencode

from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import inspect as sa_inspect

from app import NOUNS, create_app
from kit.app import App
from kit.audit import Audited
from kit.lists import CursorPage, Page
from kit.models import Table
from kit.problems import BROKEN_CONSTRAINTS
from kit.routing import Route, callers_of
from settings import API, Settings
from tests.examples import Examples

if TYPE_CHECKING:
    from tests.world import World

Fields = dict[str, Any]
CALLERS = ("anonymous", "deactivated", "member", "owner", "admin")


@dataclass(frozen=True)
class Exceptions:
    """What the sweeps cannot know of a noun; a route is named by its method and its path below `/api/v1`.

    `owner` is the member who made the rows that a path is about, if a member can, and `member` is another one.
    """

    public: frozenset[str] = frozenset()
    """The routes that anybody may call."""

    statuses: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    """What a right request is answered with, for those callers for whom the signature does not say it."""

    bodies: Mapping[str, "Fields | Callable[[World], Fields]"] = field(
        default_factory=dict[str, "Fields | Callable[[World], Fields]"]
    )
    """The fields of a right body of which the schema does not say enough."""

    rows: Mapping[str, "Callable[[World], int]"] = field(default_factory=dict[str, "Callable[[World], int]"])
    """Makes the row for a parameter of a path such as `item_id`, where no POST alone can; returns its id."""

    lists: Mapping[str, "Callable[[World, int], object]"] = field(
        default_factory=dict[str, "Callable[[World, int], object]"]
    )
    """Adds a row, the how-manieth is given, to what a GET lists, where no POST to its own path does."""

    costs: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """Hops and statements of a route that costs something else than most; see `Operation.usual_cost`."""

    reasons: frozenset[str] = frozenset()
    """Why a request is refused that its schema allows: the code of the problem, or where and what the error is."""

    plans: Mapping[str, str] = field(default_factory=dict[str, str])
    """The index by which an admin's list is read, by the path with its query; `id` in the order of a cursor."""

    members_plans: Mapping[str, str] = field(default_factory=dict[str, str])
    """The same for the owner of the rows."""


NONE = Exceptions()
SYSTEM = Exceptions(public=frozenset({"GET /health", "GET /ready"}))


@dataclass(frozen=True)
class Operation:
    """A method on a path."""

    method: str
    path: str
    route: Route
    document: dict[str, Any]
    exceptions: Exceptions

    def __str__(self) -> str:
        return f"{self.method} {self.path.removeprefix(API)}"

    # Who may call

    @property
    def is_public(self) -> bool:
        return not callers_of(self.route)

    @property
    def is_for_admins(self) -> bool:
        return any(caller.require is not None for caller in callers_of(self.route))

    @property
    def expected(self) -> dict[str, int]:
        """The status that each caller gets for a right request."""
        right = self.route.status_code or 200
        if self.is_public:
            return dict.fromkeys(CALLERS, right)
        members = 403 if self.is_for_admins else right
        usual = {"anonymous": 401, "deactivated": 401, "member": members, "owner": members, "admin": right}
        return usual | dict(self.exceptions.statuses.get(str(self), {}))

    def refuses(self, caller: str) -> bool:
        """Whether no request of theirs can be right, because they are not signed in or not an admin."""
        return self.expected[caller] == 401 or (self.is_for_admins and caller in ("member", "owner"))

    # What it takes

    @property
    def statuses(self) -> set[int]:
        return {int(status) for status in self.document["responses"]}

    @property
    def ids(self) -> list[str]:
        """The parameters of the path."""
        return re.findall(r"{(\w+)}", self.path)

    def parameters(self, kind: str) -> list[str]:
        """The names of the parameters in `path`, `query` or `header`."""
        return [found["name"] for found in self.document.get("parameters", []) if found["in"] == kind]

    @property
    def media_type(self) -> str:
        return next(iter(self.document.get("requestBody", {}).get("content", {})), "")

    @property
    def takes_json(self) -> bool:
        return self.media_type == "application/json"

    @property
    def max_body_size(self) -> int | None:
        """How many bytes its body may have, if that is something else than for all others."""
        return self.route.max_body_size

    def body(self, world: "World", *, whole: bool = False) -> Any:
        """A right body; None where the operation takes none. `whole` has every field that there can be."""
        if not self.media_type:
            return None
        schema = self.document["requestBody"]["content"][self.media_type]["schema"]
        fields = self.exceptions.bodies.get(str(self), {})
        fields = fields(world) if callable(fields) else fields
        return world.examples.value(schema, nth=int(self.method == "PATCH"), whole=whole) | fields

    def query(self, world: "World") -> dict[str, Any]:
        """The query parameters that must be there."""
        parameters = self.document.get("parameters", [])
        wanted = [found for found in parameters if found["in"] == "query" and found.get("required")]
        return {found["name"]: world.examples.value(found["schema"], found["name"]) for found in wanted}

    # What it answers, and what that costs

    @property
    def row(self) -> type[Table] | None:
        """The table whose rows it answers; None where it answers something else."""
        return next((kind for kind in _kinds(self.answers) if _is_table(kind)), None)

    @property
    def answers(self) -> Any:
        return get_type_hints(self.route.endpoint).get("return")

    @property
    def list_kind(self) -> type | None:
        """`Page`, `CursorPage` or `list`, if it is a list that is answered."""
        origin = get_origin(self.answers)
        return origin if origin in (Page, CursorPage, list) else None

    @property
    def maker(self) -> "Operation | None":
        """The POST on the same path, which adds a row to a list."""
        return operation("POST", self.path)

    @property
    def cost(self) -> tuple[int, int]:
        """Trips to a thread and back, and SQL statements of a right request of an admin."""
        return self.exceptions.costs.get(str(self), self.usual_cost)

    @property
    def usual_cost(self) -> tuple[int, int]:
        """What most routes cost.

        A hop for the work, one for each hash, and one more to know the caller before it. A statement to know the
        caller; one for each row of the path; then one for the row that is shown or changed, and one for its audit. A
        page takes two, one of them to count. A deletion asks each table that may refer to the row.
        """
        declared = self.route.declared
        hashes, callers = len(declared.hashed), min(1, len(declared.callers))
        hops = int(not _is_coroutine(self.route)) + hashes + (callers if hashes else 0)
        statements = callers * (2 if hashes else 1)
        if not (declared.session or callers):
            return hops, 0
        row = self.row or self._row_of_path()
        audited = int(row is not None and issubclass(row, Audited))
        match self.method:
            case "GET":
                listed = len(self.ids) + (2 if self.list_kind is Page else 1)
                found = listed if self.list_kind else 1
            case "DELETE":
                found = 2 + audited + (references(row) if row else 0)
            case "POST":
                found = len(self.ids) + 1 + audited
            case _:
                found = min(1, len(self.ids)) + 1 + audited
        return hops, statements + found

    def _row_of_path(self) -> type[Table] | None:
        """The table of the row that a deletion is about, which another method on the path answers."""
        return next((other.row for other in operations() if other.path == self.path and other.row), None)

    # Calling it

    def send(self, client: TestClient, url: str, body: Any, token: str | None) -> Response:
        """Call it with a body of the kind that it takes."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if self.media_type == "multipart/form-data":
            return client.request(self.method, url, headers=headers, files=body)
        if self.media_type:
            content = json.dumps(body) if self.takes_json else urlencode(body)
            return client.request(
                self.method, url, headers=headers | {"Content-Type": self.media_type}, content=content
            )
        return client.request(self.method, url, headers=headers)


def _kinds(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Table) and hasattr(kind, "__table__")


def _is_coroutine(route: Route) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(route.endpoint))


def references(row: type[Table]) -> int:
    """How many foreign keys are asked before one of these rows is deleted: those that keep it, and audited ones."""
    mapper = sa_inspect(row)
    asked = 0
    for other in mapper.registry.mappers:  # not those of the tests of the kit, which have a registry of their own
        for key in other.local_table.foreign_keys:
            if key.column.table is mapper.local_table:
                keeps = key.ondelete is None and key.constraint and key.constraint.name in BROKEN_CONSTRAINTS
                goes_along = (key.ondelete or "").upper() == "CASCADE" and issubclass(other.class_, Audited)
                asked += bool(keeps or goes_along)
    return asked


# All of them


@cache
def exceptions_of(noun: str) -> Exceptions:
    """`SWEEP` of the test module of a noun."""
    if noun not in {module.__name__ for module in NOUNS}:
        return SYSTEM
    name = f"tests.test_{noun}"
    found = importlib.util.find_spec(name) and getattr(importlib.import_module(name), "SWEEP", None)
    return found or NONE


@cache
def all_exceptions() -> list[Exceptions]:
    return [SYSTEM, *(exceptions_of(noun.__name__) for noun in NOUNS)]


@cache
def documented_app() -> App:
    """An app with its documentation; its lifespan is never started."""
    return create_app(Settings(environment="development"))


@cache
def operations() -> list[Operation]:
    """Every operation of the app."""
    document = documented_app().openapi()["paths"]
    return [
        Operation(method, route.path, route, document[route.path][method.lower()], exceptions_of(_noun_of(route)))
        for route in documented_app().routes
        if isinstance(route, Route) and route.include_in_schema
        for method in sorted(route.methods or ())
    ]


def _noun_of(route: Route) -> str:
    return route.declaration[1].__module__


@cache
def operation(method: str, path: str) -> Operation | None:
    """The one with this whole path."""
    return next((found for found in operations() if (found.method, found.path) == (method, path)), None)


@cache
def makers() -> dict[str, Operation]:
    """The POST that makes the row which a parameter of a path such as `item_id` stands for."""
    found: dict[str, Operation] = {}
    for other in operations():
        parent, _, last = other.path.rpartition("/")
        made_by = operation("POST", parent)
        if last.startswith("{") and made_by is not None:
            found[last.strip("{}")] = made_by
    return found


def row_makers() -> "Mapping[str, Callable[[World], int]]":
    """What the nouns say of how to make a row."""
    return {name: make for exceptions in all_exceptions() for name, make in exceptions.rows.items()}


def examples(row_id: Callable[[str], int | None]) -> Examples:
    """What makes bodies up from the schemas of the app."""
    return Examples(documented_app().openapi()["components"]["schemas"], row_id)
