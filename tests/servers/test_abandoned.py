"""Clients that leave while they wait: nothing is done for them any more."""

import json
from contextlib import ExitStack
from pathlib import Path
from time import sleep

import pytest

from tests.server import Server, add_items, bearer_of, half_sent, lines, write_lock_held

CLIENTS = 40


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_orders_of_clients_that_left_are_not_placed(folder: Path, workers: int) -> None:
    server = Server(folder, workers)
    with server.running(), server.as_ada() as ada:
        [lamp] = add_items(ada, ["Lamp"])
        body = json.dumps(lines([lamp])).encode()
        with write_lock_held(server.database_path):
            with ExitStack() as connections:
                for _ in range(CLIENTS):
                    connection = connections.enter_context(server.open_socket())
                    connection.sendall(b"".join(half_sent("POST", "/orders", bearer_of(ada), body)))
                sleep(0.5)  # until all of them wait
            sleep(2)  # until it is seen that they are gone
        ada.post("/orders", json=lines([lamp])).raise_for_status()
        placed = ada.get("/orders").json()["total"]

    assert placed <= 1 + workers  # what had its turn already cannot be stopped
    assert server.faults == []
