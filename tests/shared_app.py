"""The one app of a test process, which runs on while its database is put back before each test."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import pytest
from fastapi.testclient import TestClient

from kit import outbox
from kit.app import App
from kit.logs import configure_logging
from tests.databases import Restorable
from tests.people import LAMP, Person, joined

FRESH_SECONDS = 20  # much less than an access token lives; what a test finds was made just now


@dataclass
class Company:
    """A state of the database, and who is signed in there."""

    saved: Any
    people: dict[str, Person]
    lamp: dict[str, Any]
    made_at: float


class SharedApp:
    """An app that starts once. Each test finds it as if it had just started, with its people signed in."""

    def __init__(self, app: App, database: Restorable) -> None:
        self.app = app
        self.database = database
        self.client = TestClient(app, raise_server_exceptions=False)
        self.companies: dict[tuple[str, ...], Company] = {}
        self.company: Company | None = None

    def __enter__(self) -> "SharedApp":
        with pytest.MonkeyPatch.context() as patch:
            # A test does what is in the outbox at a moment of its own choice, or there would be statements at any time.
            patch.setattr(outbox, "AT_ONCE", 0)
            self.client.__enter__()
        [self.log_handler] = logging.root.handlers
        self.engine = self.app.state.database.engine
        self.empty = self.database.save()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.__exit__(None, None, None)
        self.database.close()

    def begin(self, wanted: Sequence[str]) -> None:
        """Put back all that a test can change; `wanted` are the people, in the order of their ids, and `lamp`."""
        assert self.app.state.database.engine is self.engine, "A test started the shared app a second time."
        if self.log_handler not in logging.root.handlers:  # another app has started since
            configure_logging(self.app.settings)
            [self.log_handler] = logging.root.handlers
        self.app.dependency_overrides.clear()
        self.client.cookies.clear()
        key = tuple(wanted)
        company = self.companies.get(key)
        if company is None or monotonic() > company.made_at + FRESH_SECONDS:
            self.database.restore(self.empty)
            company = self.companies[key] = self._found(key)
        else:
            self.database.restore(company.saved)
        self.company = company

    def person(self, name: str) -> Person | None:
        """Somebody who is signed in since the test began."""
        person = self.company.people.get(name) if self.company else None
        return person and replace(person)  # which a test may change

    def lamp(self) -> dict[str, Any] | None:
        """The item that is there since the test began."""
        return dict(self.company.lamp) if self.company and self.company.lamp else None

    def _found(self, wanted: tuple[str, ...]) -> Company:
        people = {name: joined(self.client, name) for name in wanted if name != "lamp"}
        lamp: dict[str, Any] = people["ada"].post("/items", LAMP).json() if "lamp" in wanted else {}
        return Company(self.database.save(), people, lamp, monotonic())
