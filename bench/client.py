"""A plain HTTP client for what is not measured: waiting, signing in, looking at answers. It talks to 127.0.0.1 only."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

HOST = "127.0.0.1"
TIMEOUT = 20  # seconds


class Refused(Exception):
    """A contestant answered what it should not have; the message says what."""


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    def with_headers(self, headers: Mapping[str, str]) -> "Call":
        """The same request with more headers."""
        return replace(self, headers={**self.headers, **headers})

    def raw(self, port: int) -> bytes:
        """The request as it goes over the wire."""
        headers = {"Host": f"{HOST}:{port}", **self.headers}
        if self.body:
            headers["Content-Length"] = str(len(self.body))
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        """What the body says."""
        return json.loads(self.body)


def send(port: int, call: Call) -> Answer:
    """Send one request.

    Raises:
        Refused: the answer is not a success.
    """
    answer = ask(port, call)
    if not 200 <= answer.status < 300:
        raise Refused(f"{call.method} {call.path}: {answer.status} {answer.body.decode(errors='replace')[:500]}")
    return answer


def ask(port: int, call: Call) -> Answer:
    """Send one request, whatever the answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT)
    try:
        connection.request(call.method, call.path, call.body or None, dict(call.headers))
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()
