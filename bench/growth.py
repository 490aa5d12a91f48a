"""How lists and the dashboard take it when there are more and more rows."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import count, product, takewhile
from pathlib import Path
from typing import Any

import typer

from client import Call
from contestants import Contestant, deep_path
from fill import Amounts
from load import drive
from server import Server

ENDLESS = ("/posts", "/posts/1/comments", "/notifications", "/audit")
PATHS = ("/users", "/items", "/orders", *ENDLESS, "/dashboard")
DEEP = ", deep"
DEEPEST = 20  # stretches of 100 rows


def measure_growth(folder: Path, one: Contestant, grow_to: int, rounds: int, seconds: int) -> list[dict[str, Any]]:
    """Time every list and the dashboard at 1,000 rows of each kind, ten times as many, and so on, in turn."""
    found: list[dict[str, Any]] = []
    with ExitStack() as stack:
        sizes = {rows: _filled(stack, folder / f"growth-{rows}", one, rows) for rows in _sizes(grow_to)}
        for number, name in product(range(1, rounds + 1), [*PATHS, *(f"{path}{DEEP}" for path in ENDLESS)]):
            for rows, (server, calls) in sizes.items():
                drive(server, [calls[name]], 1, 1)
                result = asdict(drive(server, [calls[name]], 1, seconds))
                found.append({"round": number, "rows": rows, "path": name} | result)
    return found


def _sizes(grow_to: int) -> Iterator[int]:
    return takewhile(lambda rows: rows <= grow_to, (1_000 * 10**power for power in count()))


def _filled(stack: ExitStack, folder: Path, one: Contestant, rows: int) -> tuple[Server, dict[str, Call]]:
    """The contestant with so many rows of each kind, and what to ask it."""
    typer.echo(f"filling {rows:,} rows of each kind", err=True)
    folder.mkdir()
    one.prepare(folder, Amounts.of_each(rows))
    server = stack.enter_context(one.start(folder, 1))
    headers = one.headers(server)
    paths = {path: f"{one.base}{path}" for path in PATHS}
    for path in ENDLESS:
        stretches = min(rows // 200, DEEPEST)
        paths[f"{path}{DEEP}"] = deep_path(server.port, f"{one.base}{path}", headers, stretches)
    return server, {name: Call("GET", path, headers) for name, path in paths.items()}
