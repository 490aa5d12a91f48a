"""The documentation in the browser: where it is served, and that it needs nothing from anywhere else."""

import re
import shutil
from hashlib import sha256
from pathlib import Path
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from kit import docs
from kit.app import App
from settings import Settings
from tests.conftest import MakeApp

# Of `swagger-ui-dist` 5.35.0: nobody reads 1.7 MB of script, so they must be exactly what its authors published.
RELEASED = {
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui-bundle.js.LICENSE.txt": "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}
PAGES = ["/docs", "/api/v1/openapi.json"]
USUAL_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"


def loaded_by(page: str) -> list[str]:
    """The paths of all that the page makes a browser ask for."""
    return [urljoin("/docs", path) for path in re.findall(r'(?:src|href|data-openapi)="(.+?)"', page)]


def policy(client: TestClient, path: str) -> str:
    """The one policy of an answer."""
    [policy] = client.get(path).headers.get_list("Content-Security-Policy")
    return policy


def statuses(app: App, paths: list[str]) -> set[int]:
    """What an app answers."""
    with TestClient(app) as client:
        return {client.get(path).status_code for path in paths}


@pytest.fixture
def production(settings: Settings) -> Settings:
    return Settings(environment="production", database_url=settings.database_url)


@pytest.fixture
def files(client: TestClient) -> list[str]:
    """The paths of the scripts and the style sheet."""
    return [path for path in loaded_by(client.get("/docs").text) if path.startswith("/docs/")]


# Where it is served


def test_the_docs_are_there_in_development(settings: Settings, files: list[str], make_app: MakeApp) -> None:
    assert len(files) == 3
    assert statuses(make_app(settings), PAGES + files) == {200}


def test_nothing_of_the_docs_is_there_in_production(production: Settings, files: list[str], make_app: MakeApp) -> None:
    assert statuses(make_app(production), PAGES + files) == {404}


def test_a_setting_brings_the_docs_to_production(
    settings: Settings, files: list[str], monkeypatch: pytest.MonkeyPatch, make_app: MakeApp
) -> None:
    monkeypatch.setenv("APP_DOCS", "true")
    production = Settings(environment="production", database_url=settings.database_url)

    assert statuses(make_app(production), PAGES + files) == {200}


@pytest.mark.parametrize("path", ["/docs/", "/docs/oauth2-redirect", "/redoc", "/docs/swagger-ui.css"])
def test_no_other_page_of_the_docs_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


# What a browser makes of it


def test_all_that_the_page_loads_is_served_here(client: TestClient) -> None:
    answers = {path.rpartition("/")[2]: client.get(path) for path in loaded_by(client.get("/docs").text)}

    assert {answer.status_code for answer in answers.values()} == {200}
    assert {name: answer.headers["Content-Type"] for name, answer in answers.items()} == {
        "favicon.ico": "image/svg+xml",
        "swagger-ui.css": "text/css; charset=utf-8",
        "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
        "docs.js": "text/javascript; charset=utf-8",
        "openapi.json": "application/json",
    }


def test_the_paths_in_the_page_also_hold_behind_a_proxy_that_takes_a_prefix_away(client: TestClient) -> None:
    page = client.get("/docs").text

    assert re.findall(r'(?:src|href|data-openapi)="(?:/|\w+:).*?"', page) == []


def test_the_page_has_no_script_and_no_style_of_its_own(client: TestClient) -> None:
    page = client.get("/docs").text

    assert re.findall(r"<script(?! src=)|<style| style=| on\w+=", page) == []


def test_the_policy_of_the_page_allows_no_other_host_and_nothing_inline(client: TestClient) -> None:
    directives = dict(part.split(maxsplit=1) for part in policy(client, "/docs").split("; "))

    assert directives.pop("img-src") == "'self' data:"
    assert directives["default-src"] == "'none'"
    assert set(directives.values()) == {"'none'", "'self'"}


def test_all_other_answers_have_the_usual_policy(client: TestClient, files: list[str]) -> None:
    others = [*PAGES[1:], *files, "/health", "/docs/", "/nothing"]

    assert {policy(client, path) for path in others} == {USUAL_POLICY}


def test_a_404_of_the_docs_has_the_usual_policy(production: Settings, make_app: MakeApp) -> None:
    with TestClient(make_app(production)) as client:
        assert policy(client, "/docs") == USUAL_POLICY


def test_a_browser_keeps_the_files_but_asks_for_the_page_again(client: TestClient, files: list[str]) -> None:
    assert {client.get(path).headers["Cache-Control"] for path in files} == {"public, max-age=31536000, immutable"}
    assert client.get("/docs").headers["Cache-Control"] == "no-cache"


def test_files_that_change_get_new_paths(
    settings: Settings, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_app: MakeApp
) -> None:
    changed = shutil.copytree(docs.SWAGGER_UI, tmp_path / "swagger-ui")
    (changed / "swagger-ui.css").write_text("body { color: black }")
    monkeypatch.setattr(docs, "SWAGGER_UI", changed)

    assert statuses(make_app(settings), files) == {404}


@pytest.mark.parametrize("name", RELEASED)
def test_a_file_is_the_one_that_its_authors_published(name: str) -> None:
    assert sha256((docs.SWAGGER_UI / name).read_bytes()).hexdigest() == RELEASED[name]
