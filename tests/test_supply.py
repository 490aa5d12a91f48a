"""What comes from elsewhere: which packages run beside the app, and that they are those of the lock file."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import missing

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK_TEXT = (ROOT / "uv.lock").read_text()
LOCK: list[dict[str, Any]] = tomllib.loads(LOCK_TEXT)["package"]
PINNED = [package for package in LOCK if "virtual" not in package["source"]]

# Every package that runs in production because we ask for it. A new one needs a reason that ten lines of ours are not.
RUNTIME = {
    "alembic": "migrations, for databases that have data",
    "bcrypt": "a password hash is nothing to write oneself",
    "email-validator": "what an e-mail address is; pydantic asks for it",
    "fastapi": "the framework",
    "fastapi-cli": "`fastapi dev` and `fastapi run`; brings uvicorn",
    "jinja2": "pages and mail, escaped",
    "limits": "moving windows, in memory and in Redis",
    "loguru": "the log",
    "psycopg": "PostgreSQL",
    "pydantic-settings": "settings from the environment, checked",
    "pyjwt": "access tokens",
    "pysqlite3": "a SQLite without the WAL-reset fault",
    "python-multipart": "forms and uploads; FastAPI asks for it",
    "sqlmodel": "tables and schemas",
    "typer": "the command line",
    "tzdata": "time zones for pages, where the system has none",
}
MOST_PACKAGES = 52  # with all that these bring along, on every platform; one more should not come unnoticed
OPTIONAL = {"redis": {"redis": "one count of rates for several machines"}}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}


def test_what_runs_in_production_is_what_has_a_reason() -> None:
    project = PROJECT["project"]

    assert names(project["dependencies"]) == set(RUNTIME)
    assert {extra: names(wanted) for extra, wanted in project["optional-dependencies"].items()} == {
        extra: set(reasons) for extra, reasons in OPTIONAL.items()
    }


def test_what_these_bring_along_is_bounded() -> None:
    packages = {package["name"]: package for package in LOCK}
    reached, found = set[str](), [("stockroom", "")]
    while found:
        name, extra = found.pop()
        reached.add(f"{name}[{extra}]" if extra else name)
        package = packages[name]
        wanted = package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])
        pairs = [(other["name"], extra) for other in wanted for extra in ("", *other.get("extra", []))]
        found += [(name, extra) for name, extra in pairs if (f"{name}[{extra}]" if extra else name) not in reached]

    assert len([name for name in reached if "[" not in name]) <= MOST_PACKAGES


@pytest.mark.parametrize("package", PINNED, ids=lambda package: package["name"])
def test_every_file_of_a_package_is_known_by_its_hash(package: dict[str, Any]) -> None:
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]

    assert files
    assert [file["url"] for file in files if not re.fullmatch(r"sha256:[0-9a-f]{64}", file.get("hash", ""))] == []


def test_every_package_comes_from_one_registry() -> None:
    assert len({package["source"].get("registry") for package in PINNED}) == 1


def test_only_the_lock_file_names_the_registry() -> None:
    urls: list[str] = re.findall(r'"(https?://[^"]+)"', LOCK_TEXT)
    hosts = {urlsplit(url).hostname or "" for url in urls}
    command = [missing.program("git"), "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    tracked = [ROOT / name for name in listing.stdout.split("\0") if name and name != "uv.lock"]
    texts = {path.name: path.read_text(errors="replace") for path in tracked if path.is_file()}

    assert hosts
    assert "README.md" in texts
    assert {(name, host) for name, text in texts.items() for host in hosts if host in text} == set()
