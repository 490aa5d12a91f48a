"""Requests that may be repeated: the first answer to an `Idempotency-Key` is kept, and given again.

A route declares it with a parameter of the type `IdempotencyKeyHeader`; `kit.routing.Route` does the rest.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Self

from fastapi import Header
from pydantic import BaseModel
from sqlalchemy import JSON
from sqlmodel import Field, Session, col, delete
from starlette.responses import Response

from kit.models import BigInt, Table, digest, now, upsert
from kit.problems import IdempotencyKeyReused

KEPT_HEADERS = ("location", "etag")

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern="^[!-~]{1,255}$",
        description="A text of your own: the same key with the same body is done once and answered again.",
    ),
]


class IdempotencyKey(Table, table=True):
    """The answer to a request that carried an `Idempotency-Key`, written in the transaction of its changes."""

    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE", primary_key=True, sa_type=BigInt)
    key: str = Field(primary_key=True)
    request_hash: str
    status: int = 0  # until the answer is known
    headers: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    body: str = ""
    created_at: datetime = Field(default_factory=now, index=True)

    @classmethod
    def claim(cls, session: Session, user_id: int, key: str, request_hash: str) -> Self:
        """The row of this key: new and without an answer, or the one with the first answer.

        Keys are kept for a day; older ones are cleaned up here. Of two requests with one key the second waits here
        until the first is done. `IdempotencyKeyReused` says that the key came with another body or address before.
        """
        session.exec(delete(cls).where(col(cls.created_at) < now() - timedelta(days=1)))
        values = {"user_id": user_id, "key": key, "request_hash": request_hash, "created_at": now()}
        session.exec(upsert(session, cls).values(values).on_conflict_do_nothing())
        row = session.get_one(cls, (user_id, key))
        if row.request_hash != request_hash:
            raise IdempotencyKeyReused
        return row

    def keep(self, response: Response) -> None:
        """Keep the answer, as the client gets it now."""
        self.status = response.status_code
        self.headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
        self.body = bytes(response.body).decode()

    def replay(self) -> Response:
        """The first answer again."""
        headers = self.headers | {"Idempotent-Replayed": "true"}
        return Response(self.body, self.status, headers, "application/json")


def request_hash(method: str, path: str, values: Iterable[object]) -> str:
    """What makes two requests the same: the method, the path, and the bodies as they were understood."""
    bodies = [value.model_dump_json() for value in values if isinstance(value, BaseModel)]
    return digest("\n".join([f"{method} {path}", *bodies]))
