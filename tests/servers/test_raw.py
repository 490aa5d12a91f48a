"""What no client library sends: the bytes go to a server as they stand."""

import json
import re
import shutil
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.server import Server

MARK = "hunter2"  # stands in hostile inputs, and in no answer


@pytest.fixture(scope="module")
def server(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A real one in production, where a line of the log is JSON."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(template, folder / "app.db")
    server = Server(folder)
    with server.running():
        yield server


def exchange(server: Server, sent: bytes) -> bytes:
    """What the server answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def get(path: bytes = b"/health", headers: bytes = b"", method: bytes = b"GET", host: bytes = b"localhost") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n" + headers + b"\r\n"


RAW: dict[str, tuple[bytes, set[int]]] = {
    # a request that uvicorn cannot read it answers by itself, with 400 and the end of the connection
    "no request": (b"\r\n\r\nhunter2\r\n\r\n", {400}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, {400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    "HTTP/9.9": (b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n", {400}),
    "a NUL in a header": (get(headers=b"X-A: a\0hunter2\r\n"), {400}),
    "a NUL in the name of a header": (get(headers=b"X\0A: hunter2\r\n"), {400}),
    "a line break in a header": (get(headers=b"X-A: a\rhunter2\r\n"), {200, 400}),
    "a space before the colon": (get(headers=b"X-A : hunter2\r\n"), {400}),
    "a header without a colon": (get(headers=b"hunter2\r\n"), {400}),
    "a header that is no text": (get(headers=b"X-A: \xff\xfe\x80\r\nUser-Agent: \xc3\r\n"), {200}),
    "ten thousand headers": (get(headers=b"X-A: hunter2\r\n" * 10_000), {200, 400, 431}),
    "a header of a megabyte": (get(headers=b"X-A: " + b"hunter2" * 150_000 + b"\r\n"), {200, 400, 431}),
    "a length below zero": (get(method=b"POST", headers=b"Content-Length: -1\r\n"), {400}),
    "a length that is no number": (get(method=b"POST", headers=b"Content-Length: hunter2\r\n"), {400}),
    "a length of 5000 digits": (get(method=b"POST", headers=b"Content-Length: " + b"9" * 5000 + b"\r\n"), {400}),
    "two lengths": (get(method=b"POST", headers=b"Content-Length: 1\r\nContent-Length: 2\r\n") + b"ab", {400}),
    "a length and chunks": (
        get(method=b"POST", headers=b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
        {400, 405},
    ),
    "chunks that are none": (
        get(b"/api/v1/auth/token", b"Transfer-Encoding: chunked\r\n", b"POST") + b"hunter2\r\n",
        {400},
    ),
    "an unknown transfer": (get(method=b"POST", headers=b"Transfer-Encoding: hunter2\r\n"), {400, 405}),
    "a path that is no text": (get(b"/\xff\xfe"), {400, 404}),
    "a path with a NUL": (get(b"/a\0b"), {400, 404}),
    "a path with half an escape": (get(b"/api/v1/users/%"), {401}),
    "a path of 60,000 characters": (get(b"/" + b"hunter2" * 8_500), {404}),
    "a path of a megabyte": (get(b"/" + b"hunter2" * 150_000), {400, 404, 414}),
    "a space in the path": (get(b"/health hunter2"), {400}),
    "no path": (get(b""), {400}),
    "a star": (get(b"*", method=b"OPTIONS"), {400, 404}),
    "another's address": (get(b"http://evil.example.com/hunter2"), {400, 404}),
    "no host": (b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", {400}),
    "no host, and an old protocol": (b"GET /health HTTP/1.0\r\n\r\n", {400}),
    "another host": (get(host=b"hunter2.example.com"), {400}),
    "a host that is no text": (get(host=b"\xff"), {400}),
    "two hosts": (get(headers=b"Host: hunter2.example.com\r\n"), {400}),
    "two hosts, the other way round": (get(headers=b"Host: localhost\r\n", host=b"hunter2.example.com"), {400}),
    "a host that others forward": (get(headers=b"X-Forwarded-Host: hunter2.example.com\r\n"), {200}),
    "CONNECT": (get(b"evil.example.com:443", method=b"CONNECT", host=b"evil.example.com:443"), {400}),
    "TRACE": (get(method=b"TRACE", headers=b"Cookie: hunter2\r\n"), {405}),
    "an unknown method": (get(method=b"HUNTER2"), {400, 405}),
    "a method in lower case": (get(method=b"get"), {400, 405}),
    "an upgrade": (get(headers=b"Connection: Upgrade\r\nUpgrade: hunter2\r\n"), {200}),
    "a websocket": (
        get(headers=b"Upgrade: websocket\r\nSec-WebSocket-Key: aHVudGVyMg==\r\nSec-WebSocket-Version: 13\r\n"),
        {200, 400, 403, 404},
    ),
    "an expectation": (get(headers=b"Expect: hunter2\r\n"), {200, 417}),
    "a line break in an answer": (get(b"/%0d%0aSet-Cookie:hunter2"), {404}),
}


def test_bytes_that_no_client_sends_are_refused_politely(server: Server, subtests: pytest.Subtests) -> None:
    for name, (sent, statuses) in RAW.items():
        with subtests.test(name):
            assert_refused_politely(server, sent, statuses)


def assert_refused_politely(server: Server, sent: bytes, statuses: set[int]) -> None:
    head, _, body = exchange(server, sent).partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])

    assert int(head.split()[1]) in statuses
    assert MARK.encode() not in (head + body).lower()
    if body != b"Invalid HTTP request received.":  # which is what uvicorn says before there is a request
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert re.fullmatch(b"[0-9a-f]{32}", headers[b"x-request-id"])
        assert headers[b"content-type"] == (b"application/json" if b" 200 " in head else b"application/problem+json")


def test_an_answer_to_head_has_no_body(server: Server) -> None:
    head, _, body = exchange(server, get(method=b"HEAD")).partition(b"\r\n\r\n")

    assert (head.split()[1], body) == (b"405", b"")


def test_one_request_is_one_line_of_the_log_whatever_is_in_it(server: Server) -> None:
    before = len(server.log.splitlines())
    fake = b'{"level":"ERROR","message":"forged"}'
    for path in (b"/%0a" + fake.replace(b'"', b"%22"), b"/%0d%0a%1b[31m", b"/%e2%80%a8", b"/?%0a" + fake, b"/" + fake):
        for name in (b"User-Agent", b"X-Request-ID", b"X-Forwarded-For", b"Referer", b"Authorization"):
            exchange(server, get(path, name + b": \xe2\x80\xa8\x85 " + fake + b"\r\n"))
    lines = [json.loads(line) for line in server.log.split("\n")[before:] if line]

    assert len(lines) == 25
    assert {(line["status"], line["level"]) for line in lines} == {(404, "INFO"), (401, "INFO")}
    assert all(re.fullmatch("[0-9a-f]{32}", line["request_id"]) for line in lines)
