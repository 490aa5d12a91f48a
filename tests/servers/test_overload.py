"""More than the app can take: clients that never finish, and more of them than its queue holds."""

import resource
import socket
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest
from httpx2 import Client

from kit.app import open_many_files
from kit.middleware import MAX_IN_FLIGHT
from tests import missing
from tests.server import PATIENCE, RoughServer, add_items, answer_on, bearer_of, code, half_sent, lines

Record = Callable[[str, object], None]

pytestmark = pytest.mark.slow


def usual_files() -> list[str]:
    """The command that gives a process as many files as most systems do, unless it asks for more."""
    return [missing.program("prlimit"), "--nofile=1024:"]


@pytest.fixture(autouse=True)
def many_files() -> Generator[None]:
    """The tests have an end of each connection, too."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_many_files()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, usual)


@contextmanager
def connections(server: RoughServer, firsts: Iterable[bytes]) -> Generator[list[socket.socket]]:
    """As many connections as there are first bytes, with these bytes sent on them."""
    with ExitStack() as stack:
        opened: list[socket.socket] = []
        for first in firsts:
            opened.append(stack.enter_context(server.open_socket()))
            opened[-1].sendall(first)
        yield opened


def wait_until_full(server: RoughServer, ada: Client) -> float:
    """Wait until a read is refused; returns how many milliseconds the refusal took."""
    for _ in range(3):  # answered after what came before; a read amid the others would take the place of one of them
        assert server.status("/health") == 200
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        began = monotonic()
        answer = ada.get("/items")
        if answer.status_code == 503:
            assert code(answer) == (503, "DATABASE_BUSY")
            assert int(answer.headers["Retry-After"]) >= 1
            return round(1000 * (monotonic() - began))
        sleep(0.05)
    pytest.fail(f"{MAX_IN_FLIGHT} requests under way, and one more was not refused: {server.log[-1000:]}")


def test_a_hundred_clients_that_never_finish_do_not_stop_the_others(folder: Path, record_property: Record) -> None:
    server = RoughServer(folder)
    with server.running(), server.as_ada() as ada, ThreadPoolExecutor(8) as threads:
        order = lines(add_items(ada))
        first, _ = half_sent("POST", "/orders", bearer_of(ada), b'{"lines": []}')
        within_headers, within_body = first[:60], first
        with connections(server, [within_headers, within_body] * 50):
            began = monotonic()
            calls = [threads.submit(ada.post, "/orders", json=order) for _ in range(50)]
            calls += [threads.submit(ada.get, "/orders") for _ in range(50)]
            statuses = [call.result().status_code for call in calls]
            seconds = round(monotonic() - began, 1)

        assert statuses == [201] * 50 + [200] * 50
    record_property("seconds for 100 requests beside them", seconds)


def test_past_the_bound_a_request_is_refused_at_once_and_the_rest_is_served(
    folder: Path, record_property: Record
) -> None:
    server = RoughServer(folder, wrapped_in=usual_files())
    with server.running(), server.as_ada() as ada, ThreadPoolExecutor(8) as threads:
        order = b'{"lines": [{"item_id": %d, "quantity": 1}]}' % add_items(ada)[0]
        first, rest = half_sent("POST", "/orders", bearer_of(ada), order)
        with connections(server, [first] * MAX_IN_FLIGHT) as opened:
            refused_in = wait_until_full(server, ada)
            refused = [ada.get("/items").status_code for _ in range(50)]
            health = [server.status("/health") for _ in range(5)]
            for connection in opened:
                connection.sendall(rest)
            answers = list(threads.map(answer_on, opened))
        afterwards = [ada.get("/items").status_code for _ in range(50)]
        total = ada.get("/orders").json()["total"]

    assert refused == [503] * 50
    assert health == [200] * 5
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 201 Created"}
    assert total == MAX_IN_FLIGHT
    assert afterwards == [200] * 50
    assert server.faults == []
    record_property("orders accepted, all answered 201", total)
    record_property("the refusal of one more, in ms", refused_in)


def test_clients_that_give_up_leave_the_queue(folder: Path, record_property: Record) -> None:
    server = RoughServer(folder, wrapped_in=usual_files())
    with server.running(), server.as_ada() as ada:
        first, _ = half_sent("POST", "/orders", bearer_of(ada), b'{"lines": []}')
        with connections(server, [first] * MAX_IN_FLIGHT):
            wait_until_full(server, ada)
        began = monotonic()
        while ada.get("/items").status_code == 503:
            assert monotonic() - began < PATIENCE
        seconds = round(monotonic() - began, 1)

        assert [ada.get("/items").status_code for _ in range(50)] == [200] * 50
        assert ada.get("/orders").json()["total"] == 0
    record_property("seconds until reads were answered again", seconds)
