"""What the README and `.env.example` say is true: every list in them is complete, and what they tell to paste works."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import httpx2
import pytest
from typer.main import get_group

import manage
from app import NOUNS
from kit.app import App
from settings import Settings
from tests import missing
from tests.server import ROOT, Program, free_port

README = (ROOT / "README.md").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()
SETTINGS = [f"APP_{name.upper()}" for name in Settings.model_fields]


def section(title: str) -> str:
    """The text below a heading of the README, up to the next one."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(title: str) -> dict[str, list[str]]:
    """The rows of a section's table, by their first cell without its backticks."""
    return tables_of(section(title))


def tables_of(text: str) -> dict[str, list[str]]:
    """The rows of the tables in a text, by their first cell without the backticks around it."""
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in text.splitlines() if line.startswith("|")]
    return {first.strip("`"): rest for first, *rest in rows[2:]}


def blocks(title: str) -> list[tuple[str, str]]:
    """The code blocks of a section."""
    return blocks_of(section(title))


def blocks_of(text: str) -> list[tuple[str, str]]:
    """Code blocks: what stands after their three backticks, and their lines."""
    return re.findall(r"^```(.+)\n((?:.*\n)*?)```$", text, re.MULTILINE)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository in a folder of its own, without anybody's data or settings; its commands find this environment."""
    ours = shutil.ignore_patterns(
        ".git", ".venv", ".env", ".*cache", ".cov*", ".hyp*", "data", "__pycache__", "htmlcov"
    )
    copy = shutil.copytree(ROOT, tmp_path / "stockroom", ignore=ours)
    monkeypatch.delenv("APP_SECRET_KEY")
    monkeypatch.setenv("APP_BCRYPT_ROUNDS", "4")
    monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", sys.prefix)
    monkeypatch.setenv("UV_NO_SYNC", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return copy


@contextmanager
def server(folder: Path) -> Generator[str]:
    """The app in `folder`, started as the README says but on a port that is free; gives its address."""
    port = free_port()
    command = ["uv", "run", "fastapi", "dev", "app.py", "--port", str(port)]
    with Program(command, port, folder.with_suffix(".log"), folder).running():
        assert httpx2.get(f"http://localhost:{port}/ready", timeout=30).status_code == 200
        yield f"http://localhost:{port}"


def run(script: str, folder: Path) -> str:
    """What a shell prints for the lines of a block; the first one that fails ends it."""
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(shell, cwd=folder, capture_output=True, text=True, timeout=300)  # noqa: S603 - the README's own lines
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Complete lists


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    assert sorted(table("Settings")) == sorted(SETTINGS)


def test_every_setting_is_in_the_example_and_no_other() -> None:
    assert sorted(re.findall(r"^# (APP_\w+)=", ENV_EXAMPLE, re.MULTILINE)) == sorted(SETTINGS)


def test_every_setting_of_the_example_has_a_sentence_before_it() -> None:
    assert [paragraph for paragraph in ENV_EXAMPLE.split("\n\n") if not re.match("# (?!APP_)", paragraph)] == []


def test_the_defaults_of_the_example_are_the_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APP_SECRET_KEY")
    monkeypatch.chdir(tmp_path)
    real = Settings()
    Path(".env").write_text(ENV_EXAMPLE.replace("# APP_", "APP_"))

    assert Settings() == real


def test_the_readme_gives_the_defaults_of_the_example() -> None:
    defaults = re.findall(r"^# (APP_\w+)=(.+)$", ENV_EXAMPLE, re.MULTILINE)

    assert [name for name, default in defaults if f"`{default}`" not in table("Settings")[name][0]] == []


def test_every_module_is_in_the_house_unless_it_is_a_noun_that_was_added() -> None:
    nouns = {f"{noun.__name__}.py" for noun in NOUNS}

    assert {path.name for path in ROOT.glob("*.py")} - named_in_the_house() - nouns == set()


def test_the_house_names_nothing_that_is_not_there_unless_it_can_be_taken_out() -> None:
    gone = {name for name in named_in_the_house() if not (ROOT / name).exists()}

    assert gone <= set(re.findall(r"`([^`]+)`", section("The stock out")))


def named_in_the_house() -> set[str]:
    return {name for cell in table("The house") for name in re.findall(r"[^` ]+", cell)}


def test_every_module_of_the_kit_is_in_its_readme() -> None:
    readme = (ROOT / "kit" / "README.md").read_text()
    modules = {path.name for path in (ROOT / "kit").glob("*.py")} - {"__init__.py"}

    assert {name for name in modules if f"`{name}`" not in readme} == set()
    assert len(re.findall("^## (Start|Data|Requests|Answers|People)$", readme, re.MULTILINE)) == 5


def test_every_command_is_documented() -> None:
    commands = get_group(manage.app).commands

    listed = (ROOT / "docs" / "production.md").read_text()
    assert [name for name in commands if f"| `uv run manage.py {name}" not in listed] == []


def test_every_error_code_that_the_api_documents_is_listed_unless_a_noun_was_added(app: App) -> None:
    listed = tables_of((ROOT / "docs" / "errors.md").read_text())
    added = {noun.__name__ for noun in NOUNS} - {name.removesuffix(".py") for name in named_in_the_house()}
    operations = [
        operation
        for path in app.openapi()["paths"].values()
        for operation in path.values()
        if added.isdisjoint(operation["tags"])
    ]
    documented = {
        (status, code)
        for operation in operations
        for status, response in operation["responses"].items()
        if int(status) >= 400
        for code in response["description"].split(", ")
    }

    assert {(status, code) for status, code in documented if f"`{code}`" not in listed[status][0]} == set()


# What to paste


@pytest.mark.slow
def test_the_lines_for_the_api_work_as_pasted(copy: Path) -> None:
    missing.program("curl")
    found = blocks_of((ROOT / "docs" / "api.md").read_text())
    script = "".join(lines for kind, lines in found if kind == "sh")

    with server(copy) as address:
        output = run(script.replace("http://localhost:8000", address), copy)

    ada, lamp, stock, order = (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    assert (ada["email"], ada["role"]) == ("ada@example.com", "admin")
    assert (stock["items"], stock["total"]) == ([lamp], 1)
    assert (order["total_cents"], order["lines"][0]["item_name"]) == (2 * lamp["price_cents"], lamp["name"])
    assert "Added 11 people, 200 items and 400 orders." in output


# What to copy: done in a copy of the repository, where then every check that knows of it must pass


@pytest.mark.slow
def test_the_noun_of_ones_own_works_as_written(copy: Path) -> None:
    apply(copy, blocks("A noun of your own"))

    with server(copy) as address:
        assert_suppliers_work(f"{address}/api/v1")
    assert_all_is_well(copy, "tests/test_suppliers.py", about="suppliers")


@pytest.mark.slow
def test_a_noun_with_a_time_an_owner_a_reference_and_a_rule_takes_four_files(copy: Path) -> None:
    apply(copy, blocks_of((ROOT / "tests" / "recipes" / "bookings.md").read_text()))

    assert_all_is_well(copy, "tests/test_bookings.py", about="bookings")


@pytest.mark.slow
def test_without_the_stock_everything_else_goes_on(copy: Path) -> None:
    take_the_stock_out(copy)

    with server(copy) as address:
        assert "/api/v1/posts" in httpx2.get(f"{address}/api/v1/openapi.json").json()["paths"]
        assert httpx2.get(f"{address}/api/v1/items").status_code == 404
        assert_people_find_their_way(address)
    assert_all_is_well(copy, "tests/kit/test_routing.py", "tests/kit/test_audit.py", *REMAINING, about="posts")


REMAINING = [
    f"tests/test_{name}.py"
    for name in (
        *("posts", "posts_pages", "users", "users_pages", "auth_pages", "notifications", "notifications_pages"),
        *("audit", "audit_pages", "invariants", "house", "documentation"),
    )
]
SWEEPS = [f"tests/sweeps/test_{name}.py" for name in ("access", "cost", "openapi", "plans")]


def apply(copy: Path, blocks: list[tuple[str, str]]) -> None:
    """Do what the blocks of a recipe say."""
    for kind, lines in blocks:
        {"python": write, "html": write, "diff": patch, "sh": run_in}[kind.split()[0]](copy, kind, lines)


def assert_all_is_well(copy: Path, *tests: str, about: str) -> None:
    """ruff, pyright, these tests and the sweeps pass; most of them only where CI is set."""
    run("uv run ruff format --check . && uv run ruff check .", copy)
    if not os.environ.get("CI"):
        pytest.skip("It works so far; pyright and the sweeps in the copy take minutes, and run where CI is set.")
    run("uv run pyright", copy)
    command = "uv run pytest -p no:cacheprovider -n 0 -m 'not slow'"
    run(f"{command} {' '.join([*SWEEPS, *tests])}", copy)
    run(f"{command} tests/sweeps/test_schemathesis.py tests/sweeps/test_hostile.py -k '{about} or sqlite'", copy)


def take_the_stock_out(copy: Path) -> None:
    """Delete what the README names, and let ruff take out what is not imported any more."""
    text = section("The stock out")
    for name in re.findall(r"`([^`]+\.py)`", text):
        folder = "migrations/versions/" if name.startswith("*") else ""
        for path in copy.glob(folder + name) if name not in ("models.py", "app.py", "manage.py", "*_pages.py") else ():
            path.unlink()
    for name in re.findall(r"`([^`]+)/`", text):
        shutil.rmtree(copy / name)
    [migration] = copy.glob("migrations/versions/*_pages.py")
    migration.write_text(migration.read_text().replace('"orders"', '"notifications"'))
    models = (copy / "models.py").read_text()
    for title in re.findall(r"the sections (\w+) and (\w+) of `models.py`", text)[0]:
        models = re.sub(rf"\n# {title}\n.*?(?=\n# [A-Z][\w ]+\n\n)", "", models, count=1, flags=re.DOTALL)
    (copy / "models.py").write_text(models)
    app = (copy / "app.py").read_text()
    for noun in ("items", "orders", "dashboard"):
        app = app.replace(f"import {noun}\n", "").replace(f"{noun}, ", "")
    (copy / "app.py").write_text(app)
    manage = (copy / "manage.py").read_text()
    manage = re.sub(r"@app.command\(\)\ndef seed\(.*?\n\n\n(?=\S)", "", manage, flags=re.DOTALL)
    (copy / "manage.py").write_text(manage.replace("from sample import add_company\n", ""))
    [command] = re.findall(r"`(uv run ruff check [^`]+)`", text)
    run(command, copy)


def write(copy: Path, kind: str, lines: str) -> None:
    """Make the file that a block is titled with, or add the block to its end."""
    path = copy / kind.split('"')[1]
    path.parent.mkdir(exist_ok=True)
    existing = f"{path.read_text()}\n\n" if path.exists() else ""
    path.write_text(existing + lines)


def patch(copy: Path, kind: str, lines: str) -> None:
    """Change the file that a block is titled with; `…` stands for lines in between."""
    path = copy / kind.split('"')[1]
    for part in lines.split("…\n"):
        before = "".join(line[1:] for line in part.splitlines(keepends=True) if not line.startswith("+"))
        after = "".join(line[1:] for line in part.splitlines(keepends=True) if not line.startswith("-"))
        assert before in path.read_text(), f"{path.name} does not have these lines:\n{before}"
        path.write_text(path.read_text().replace(before, after))


def run_in(copy: Path, _kind: str, lines: str) -> None:
    run(lines, copy)


def assert_people_find_their_way(address: str) -> None:
    """Somebody makes the first account in a browser, and every link of every page leads somewhere."""
    headers = {"Accept": "text/html", "Origin": address}
    with httpx2.Client(base_url=address, headers=headers, follow_redirects=True) as browser:
        account = {"email": "ada@example.com", "full_name": "Ada", "password": "Correct-horse-1"}
        page = browser.post("/sign-up", data=account)
        assert (page.status_code, page.url.path) == (200, "/posts")
        seen, links = set[str](), ["/"]
        while links:
            page = browser.get(link := links.pop())
            assert page.status_code == 200, link
            seen.add(link)
            found = re.findall(r'<a [^>]*href="(/[^"#]*)', page.text)
            links += {unescape(path) for path in found} - seen - {*links}
        assert seen >= {"/posts", "/posts/new", "/people", "/users/1", "/audit", "/notifications", "/account"}


def assert_suppliers_work(api: str) -> None:
    ada = {"email": "ada@example.com", "full_name": "Ada", "password": "Correct-horse-1"}
    httpx2.post(f"{api}/auth/register", json=ada)
    token = httpx2.post(f"{api}/auth/token", data={"username": ada["email"], "password": ada["password"]}).json()
    with httpx2.Client(headers={"Authorization": f"Bearer {token['access_token']}"}) as client:
        body = {"name": "Timber & Sons", "email": "Orders@example.com"}
        created = client.post(f"{api}/suppliers", json=body)
        assert (created.status_code, created.json()["email"]) == (201, "orders@example.com")
        assert client.get(f"{api}/suppliers/1").json() == created.json()
        assert client.get(f"{api}/suppliers?page_size=1").json()["items"] == [created.json()]
        assert client.get(f"{api}/suppliers/7").json()["error_code"] == "SUPPLIER_NOT_FOUND"
        assert client.post(f"{api}/suppliers", json=body).json()["error_code"] == "SUPPLIER_NAME_TAKEN"
        assert client.post(f"{api}/suppliers", json=body | {"x": 1}).status_code == 422
    assert httpx2.get(f"{api}/suppliers").status_code == 401
