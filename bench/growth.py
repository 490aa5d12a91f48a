"""How lists and the dashboard take it when there are more and more rows."""

import shutil
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
DEEP = 20  # stretches of 100 rows


def measure_growth(folder: Path, one: Contestant, grow_to: int, seconds: int) -> list[dict[str, Any]]:
    """Time every list and the dashboard at 1,000 rows of each kind, ten times as many, and so on."""
    found: list[dict[str, Any]] = []
    rows = 1_000
    while rows <= grow_to:
        place = folder / f"growth-{rows}"
        place.mkdir()
        typer.echo(f"filling {rows:,} rows of each kind", err=True)
        one.prepare(place, Amounts.of_each(rows))
        with Server(one.command, one.environment, place, 1, one.ready_path) as server:
            headers = one.headers(server)
            asked = {path: f"{one.base}{path}" for path in PATHS}
            for path in ENDLESS:
                stretches = min(rows // 200, DEEP)
                asked[f"{path}, deep"] = deep_path(server.port, f"{one.base}{path}", headers, stretches)
            for name, path in asked.items():
                found.append({"rows": rows, "path": name, **_timed(server, path, headers, seconds)})
        shutil.rmtree(place)
        rows *= 10
    return found


def _timed(server: Server, path: str, headers: dict[str, str], seconds: int) -> dict[str, Any]:
    call = Call("GET", path, headers)
    drive(server.port, [call], 1, 1)
    result = drive(server.port, [call], 1, seconds)
    return {"p50_ms": result.p50_ms, "p99_ms": result.p99_ms, "errors": result.errors}
