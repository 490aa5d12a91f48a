"""How the house is built: what may import what, where a path is answered, and how much there may be of it."""

import ast
import re
from pathlib import Path

import app
from kit.routing import Route
from settings import API
from tests.server import ROOT

FRAME = {"app", "models", "auth", "settings", "users", "audit", "manage"}  # which every house has
NOUNS_OF_OURS = {"items", "orders", "posts", "notifications", "dashboard", "sample"}
KIT = sorted((ROOT / "kit").glob("*.py"))
ABOVE = sorted(ROOT.glob("*.py"))

# A use of what a library does not document, in which module, and the test that fails when the library changes it.
UNDOCUMENTED = {
    ("models", r"from sqlmodel\._compat import"): "test_the_config_of_sqlmodel_has_the_options_of_pydantic",
    ("routing", r"fastapi\.dependencies\.models import"): "test_the_names_of_all_parameters_and_all_callers_are_read",
    ("app", r"routes=\[\*routes_of"): "test_every_route_of_every_router_of_a_noun_is_served_once",
    ("app", r"getsignal.*__self__|\.handle_exit\("): "test_the_server_is_found_through_its_signal_handler",
    ("sqlite", r"dialect\.do_savepoint ="): "test_a_savepoint_is_not_begun_in_a_transaction_that_sqlite_ended",
    ("sqlite", r"dialect\.do_release_savepoint ="): "test_a_savepoint_is_not_released_in_a_transaction",
    ("sqlite", r"dialect\.do_rollback_to_savepoint ="): "test_a_savepoint_is_rolled_back_without_a_fault_of_its_own",
}
PRIVATE = (
    r"(sqlmodel|starlette|fastapi|sqlalchemy|pydantic|uvicorn)[\w.]*\._|_get_form|fastapi\.dependencies"
    r"|dialect\.do_|handle_exit"
)


def imported(path: Path) -> set[str]:
    """The first part of every module that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {"." * node.level + (node.module or "") for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


# The two rules


def test_the_kit_imports_nothing_but_itself_and_packages() -> None:
    ours = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/*.py")} - {"kit"}

    for path in KIT:
        assert imported(path) & (ours | {""}) == set(), path.name


def test_the_path_of_a_route_tells_its_module() -> None:
    for route in app.app.routes:
        if isinstance(route, Route) and route.path.startswith(API):
            noun, module = route.path.removeprefix(API).split("/")[1], route.declaration[1].__module__
            assert module == noun, route.path


def test_the_tests_of_the_kit_know_nothing_of_the_stock() -> None:
    stock = {"items", "orders", "posts", "notifications", "dashboard", "sample"}
    names = {"Item", "Order", "OrderLine", "Post", "Comment", "Notification", "Dashboard"}
    for path in (ROOT / "tests" / "kit").glob("*.py"):
        tree = ast.parse(path.read_text())
        taken = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert imported(path) & stock == set(), path.name
        assert taken & names == set(), path.name
        assert re.findall(rf"/(?:{'|'.join(stock)})\b", path.read_text()) == [], path.name


# How much there may be of it


def test_above_the_kit_are_thirteen_modules_but_for_nouns_that_came_or_went() -> None:
    nouns = {noun.__name__ for noun in app.NOUNS}
    modules = {path.stem for path in ABOVE}

    assert modules >= FRAME
    assert modules - FRAME - NOUNS_OF_OURS - nouns == set()
    assert len(FRAME | NOUNS_OF_OURS) == 13


def lines(*paths: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


def test_what_a_newcomer_reads_stays_short() -> None:
    models = ROOT / "models.py"
    ours = [path for path in ABOVE if path.stem in FRAME | NOUNS_OF_OURS]

    assert lines(ROOT / "app.py") <= 60
    assert lines(models) <= 1_000 + 200 * len(set(ABOVE) - set(ours))
    assert lines(*ours) - lines(models) <= 2_700


def test_a_module_can_be_read_in_one_sitting_and_a_noun_with_its_pages_in_two() -> None:
    with_pages = {path for path in ABOVE if "PageRouter(" in path.read_text()}  # never split by layer
    longest = {path.name for path in {*KIT, *ABOVE} - with_pages if lines(path) > 340}
    longest |= {path.name for path in with_pages if lines(path) > 500}

    assert longest <= {"models.py", "routing.py"}  # routing: one path of a request, which is best read in one place


# What is in one place


def test_nobody_commits_but_the_two_that_end_sessions() -> None:
    for path in [*KIT, *ABOVE]:
        attributes = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "commit" not in attributes or path.name == "db.py", path.name


def test_no_noun_names_a_404_or_builds_an_error() -> None:
    for path in ABOVE:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
        assert names.isdisjoint({"HTTPException", "JSONResponse", "problem_response"}), path.name
        assert 404 not in constants, path.name


# What the libraries do not document


def test_every_undocumented_use_has_a_test_that_fails_when_the_library_changes() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "kit").glob("test_*.py"))
    for (module, use), name in UNDOCUMENTED.items():
        assert re.search(use, (ROOT / "kit" / f"{module}.py").read_text()), f"{use} is gone; delete its line here."
        assert f"def {name}" in tests, name


def test_no_undocumented_use_is_without_its_line() -> None:
    for path in [*KIT, *ABOVE]:
        for line in path.read_text().splitlines():
            if re.search(PRIVATE, line) and not line.lstrip().startswith(("#", '"""')):
                known = [use for module, use in UNDOCUMENTED if module == path.stem and re.search(use, line)]
                assert known, f"{path.name}: {line.strip()}"
