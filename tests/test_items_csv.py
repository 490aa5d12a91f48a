"""The stock as CSV: what comes out, what may come in, and that the way there and back changes nothing."""

import csv
import io
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Client, Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import delete

from kit.app import App
from kit.db import ending
from kit.spreadsheets import BATCH, MAX_BYTES, MAX_MESSAGES, MAX_ROWS, neutral, original
from models import Item
from tests import missing
from tests.conftest import API, PASSWORD, Person
from tests.server import Server

HEADER = "name,price_cents,quantity,reorder_level,tags"
Row = dict[str, Any]


def upload(person: Person, content: str | bytes, **query: Any) -> Response:
    file = content.encode() if isinstance(content, str) else content
    return person.request("POST", "/items/import", files={"file": ("items.csv", file, "text/csv")}, params=query)


def imported(person: Person, *lines: str, end: str = "\r\n", **query: Any) -> Row:
    """The report of a file with these lines."""
    answer = upload(person, end.join([*lines, ""]), **query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def report(created: int = 0, updated: int = 0, unchanged: int = 0, errors: Iterable[tuple[int, str]] = ()) -> Row:
    told = [{"line": line, "message": message} for line, message in errors]
    return {"created": created, "updated": updated, "unchanged": unchanged, "errors": told}


def refusal(answer: Response) -> str:
    """Why the whole file was refused."""
    problem = answer.json()
    assert (answer.status_code, problem["error_code"]) == (422, "VALIDATION_ERROR"), answer.text
    return problem["errors"][0]["msg"]


def exported(person: Person) -> str:
    """The file, with the line ends that it has."""
    return person.get("/items/export").content.decode()


def items(person: Person) -> list[Row]:
    return person.get("/items?page_size=100").json()["items"]


def audit(person: Person) -> list[Row]:
    return person.get("/audit?entity=item&limit=100").json()["items"]


def clear(app: App) -> None:
    with ending(app.state.database.write()) as session:
        session.exec(delete(Item))


# Export


def test_an_export_has_a_header_and_one_record_an_item(ada: Person, lamp: Row) -> None:
    ada.post("/items", {"name": "Desk", "price_cents": 9900, "tags": ["wood", "large"]})
    answer = ada.get("/items/export")

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="items.csv"'
    assert answer.content.decode() == f"{HEADER}\r\nLamp,1200,10,2,light\r\nDesk,9900,0,0,wood;large\r\n"


def test_an_empty_stock_exports_as_the_header(ada: Person) -> None:
    assert exported(ada) == f"{HEADER}\r\n"


def test_an_export_has_every_item_once_beyond_one_batch(ada: Person) -> None:
    imported(ada, "name,price_cents", *(f"Item {number},1" for number in range(2 * BATCH + 1)))
    names = [row["name"] for row in csv.DictReader(io.StringIO(exported(ada)))]

    assert names == [f"Item {number}" for number in range(2 * BATCH + 1)]


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("Lamp, large", '"Lamp, large"'),
        ('A 3" pipe', '"A 3"" pipe"'),
        ("Two\nlines", '"Two\nlines"'),
        ("Two\r\nlines", '"Two\r\nlines"'),
        ("Two\rlines", '"Two\rlines"'),
        ("Lampe für Zoë 💡", "Lampe für Zoë 💡"),
        ("a;b", "a;b"),
    ],
)
def test_a_name_is_quoted_where_rfc_4180_says_so(name: str, cell: str, ada: Person) -> None:
    ada.post("/items", {"name": name, "price_cents": 1})

    assert exported(ada) == f"{HEADER}\r\n{cell},1,0,0,\r\n"


FORMULAS = [
    ("=1+1", "'=1+1"),
    ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
    ("+SUM(1)", "'+SUM(1)"),
    ("-a", "'-a"),
    ("@a", "'@a"),
    ("-5-6", "'-5-6"),
    ("+3.5.1", "'+3.5.1"),
    ("'=x", "''=x"),
    ("''+x", "'''+x"),
    ("'-5", "''-5"),
    ("'\tx", "''\tx"),
    ("＝1", "'＝1"),  # noqa: RUF001 - full-width, which spreadsheets take for the plain character
    ("＋1", "'＋1"),  # noqa: RUF001
    ("－1", "'－1"),  # noqa: RUF001
    ("＠a", "'＠a"),  # noqa: RUF001
    ("-5", "-5"),
    ("+3.5", "+3.5"),
    ("-1,5", "-1,5"),
    ("'hello", "'hello"),
    ("'5", "'5"),
    ("'", "'"),
    ("a=1", "a=1"),
]


@pytest.mark.parametrize(("name", "cell"), FORMULAS)
def test_a_cell_that_a_spreadsheet_would_run_is_neutralised(name: str, cell: str, ada: Person) -> None:
    ada.post("/items", {"name": name, "price_cents": 1})
    (record,) = csv.DictReader(io.StringIO(exported(ada), newline=""))

    assert record["name"] == cell


def test_tags_are_neutralised_too(ada: Person) -> None:
    ada.post("/items", {"name": "Lamp", "price_cents": 1, "tags": ["=1+1", "-5"]})

    assert exported(ada).endswith("Lamp,1,0,0,'=1+1;-5\r\n")
    assert imported(ada, *exported(ada).splitlines()) == report(unchanged=1)


def test_what_only_python_takes_for_a_space_is_kept(ada: Person) -> None:
    item = {"name": "\x1cLamp\x1f", "price_cents": 1, "quantity": 0, "reorder_level": 0, "tags": ["\x1c", "x\x1d"]}
    ada.post("/items", item)

    assert _sent(items(ada)[0]) == item
    assert upload(ada, exported(ada)).json() == report(unchanged=1)


@pytest.mark.parametrize(("name", "_cell"), FORMULAS)
def test_a_name_survives_the_way_out_and_in_again(name: str, _cell: str, app: App, ada: Person) -> None:
    ada.post("/items", {"name": name, "price_cents": 1})
    file = exported(ada)
    unchanged = upload(ada, file).json()
    clear(app)
    created = upload(ada, file).json()

    assert (unchanged, created) == (report(unchanged=1), report(created=1))
    assert [item["name"] for item in items(ada)] == [name]


# What JSON can carry, with a taste for what is special in CSV and in spreadsheets.
SPECIAL = st.sampled_from("'=+-@\t\r\n\",; a1.,\uff1d\x1c\x85\ufeff")
CHARACTERS = st.one_of(SPECIAL, st.characters(codec="utf-8", exclude_characters="\0"))
TAG_CHARACTERS = CHARACTERS.filter(lambda character: character != ";")
LEGAL_ITEMS = st.fixed_dictionaries(
    {
        "name": st.text(CHARACTERS, min_size=1, max_size=100),
        "price_cents": st.integers(1, 1_000_000_000),
        "quantity": st.integers(0, 1_000_000_000),
        "reorder_level": st.integers(0, 1_000_000_000),
        "tags": st.lists(st.text(TAG_CHARACTERS, min_size=1, max_size=30), max_size=10, unique=True),
    }
)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # every example begins with an empty stock
)
@given(st.lists(LEGAL_ITEMS, min_size=1, max_size=5))
def test_any_legal_items_survive_the_way_out_and_in_again(app: App, ada: Person, bodies: list[Row]) -> None:
    clear(app)
    accepted = [answer.json() for body in bodies if (answer := ada.post("/items", body)).status_code == 201]
    file = exported(ada)
    unchanged = upload(ada, file).json()
    clear(app)
    created = upload(ada, file).json()

    assert (unchanged, created) == (report(unchanged=len(accepted)), report(created=len(accepted)))
    assert [_sent(item) for item in sorted(items(ada), key=_id)] == [_sent(item) for item in accepted]


def _id(item: Row) -> int:
    return item["id"]


def _sent(item: Row) -> Row:
    return {column: item[column] for column in HEADER.split(",")}


@settings(derandomize=True)
@given(st.text(CHARACTERS))
def test_neutralising_any_text_can_be_undone(text: str) -> None:
    assert original(neutral(text)) == text


# Import: what may come in


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["plain", "bom"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"], ids=["crlf", "lf", "cr"])
def test_delimiters_byte_order_marks_and_line_ends_are_recognised(
    delimiter: str, bom: str, end: str, ada: Person
) -> None:
    lines = [bom + delimiter.join(["name", "price_cents"]), delimiter.join(["Lamp", "1200"]), f"Desk{delimiter}9900"]

    assert imported(ada, *lines, end=end) == report(created=2)
    assert [(item["name"], item["price_cents"]) for item in items(ada)] == [("Desk", 9900), ("Lamp", 1200)]


def test_the_last_line_needs_no_end(ada: Person) -> None:
    assert upload(ada, "name,price_cents\nLamp,1").json() == report(created=1)


def test_a_semicolon_file_quotes_its_tags(ada: Person) -> None:
    imported(ada, "name;price_cents;tags", 'Lamp, large;1;"light;sale"')

    assert items(ada)[0] | {"name": "Lamp, large", "tags": ["light", "sale"]} == items(ada)[0]


def test_columns_come_in_any_order(ada: Person) -> None:
    imported(ada, "tags,reorder_level,price_cents,name,quantity", "light;sale,3,1200,Lamp,7")
    sent = {"name": "Lamp", "price_cents": 1200, "quantity": 7, "reorder_level": 3, "tags": ["light", "sale"]}

    assert _sent(items(ada)[0]) == sent


def test_a_column_that_is_absent_is_left_as_it_is(ada: Person, lamp: Row) -> None:
    assert imported(ada, "name,price_cents", "Lamp,1500") == report(updated=1)
    assert _sent(items(ada)[0]) == _sent(lamp) | {"price_cents": 1500}


def test_a_column_that_is_absent_is_at_its_default_in_a_new_item(ada: Person) -> None:
    imported(ada, "name,price_cents", "Desk,1")

    assert _sent(items(ada)[0]) == {"name": "Desk", "price_cents": 1, "quantity": 0, "reorder_level": 0, "tags": []}


def test_an_empty_tags_cell_takes_the_tags_away(ada: Person, lamp: Row) -> None:
    assert imported(ada, "name,price_cents,tags", "Lamp,1200,") == report(updated=1)
    assert items(ada)[0]["tags"] == []


def test_cells_are_stripped(ada: Person) -> None:
    assert imported(ada, " name , price_cents , tags ", " Lamp , 12 , light ; ; sale ") == report(created=1)
    assert items(ada)[0] | {"name": "Lamp", "price_cents": 12, "tags": ["light", "sale"]} == items(ada)[0]


def test_rows_are_matched_by_name_without_case(ada: Person, lamp: Row) -> None:
    assert imported(ada, "name,price_cents", "LAMP,1200") == report(updated=1)
    assert [(item["id"], item["name"]) for item in items(ada)] == [(lamp["id"], "LAMP")]


def test_created_updated_and_unchanged_are_counted_apart(ada: Person, lamp: Row) -> None:
    ada.post("/items", {"name": "Desk", "price_cents": 5})
    lines = ["name,price_cents", "Lamp,1200", "Desk,6", "Chair,7", "Shelf,8"]

    assert imported(ada, *lines) == report(created=2, updated=1, unchanged=1)


def test_a_file_of_a_header_alone_does_nothing(ada: Person) -> None:
    assert imported(ada, HEADER) == report()


def test_blank_lines_are_passed_over(ada: Person) -> None:
    assert imported(ada, "name,price_cents", "", "Lamp,1", "", "", "Desk,2", "") == report(created=2)


# Import: the file is wrong

KNOWN = HEADER.replace(",", ", ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"Begin the file with a header of {KNOWN}"),
        (b"\r\n", f"Begin the file with a header of {KNOWN}"),
        (b",,\r\nLamp,1,", f"Begin the file with a header of {KNOWN}"),
        (b"Lamp,1200\r\n", f"The column 'Lamp' is not known; the columns are {KNOWN}"),
        (b"name,price_cents,colour\r\n", f"The column 'colour' is not known; the columns are {KNOWN}"),
        (b"name,price_cents,\r\n", f"The column '' is not known; the columns are {KNOWN}"),
        (b"Name,price_cents\r\n", f"The column 'Name' is not known; the columns are {KNOWN}"),
        (b"name,quantity\r\nLamp,1\r\n", f"The column 'price_cents' is missing; the columns are {KNOWN}"),
        (b"price_cents\r\n1\r\n", f"The column 'name' is missing; the columns are {KNOWN}"),
        (b"name,price_cents,name\r\n", "The column 'name' stands in the header twice"),
        (b"a" * 200_000, "The header is not CSV: field larger than field limit (131072)"),
        (b"name,price_cents\r\nL\xe4mp,1\r\n", "Save the file as UTF-8"),
        ("name,price_cents\r\nLamp,1\r\n".encode("utf-16"), "Save the file as UTF-8"),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_do(content: bytes, message: str, ada: Person) -> None:
    answer = upload(ada, content)

    assert refusal(answer) == message
    assert answer.json()["errors"][0]["loc"] == ["body", "file"]


def test_a_file_that_stops_being_utf_8_in_row_5000_writes_nothing(ada: Person) -> None:
    rows = [b"Item %d,1\r\n" % number for number in range(5_000)]
    rows[4_999] = b"L\xe4mp,1\r\n"

    assert refusal(upload(ada, b"name,price_cents\r\n" + b"".join(rows))) == "Save the file as UTF-8"
    assert (items(ada), audit(ada)) == ([], [])


def test_100_001_rows_are_too_many(ada: Person) -> None:
    rows = b"\n".join([b"x,1"] * (MAX_ROWS + 1))

    assert refusal(upload(ada, b"name,price_cents\n" + rows)) == "Split the file: it has more than 100000 rows"


@pytest.mark.parametrize("too_many", [1, 1024 * 1024])
def test_a_file_of_more_than_16_mib_is_413(ada: Person, too_many: int) -> None:
    answer = upload(ada, b"x" * (MAX_BYTES + too_many))

    assert (answer.status_code, answer.json()["error_code"]) == (413, "BODY_TOO_LARGE")


def test_a_file_of_16_mib_is_read(ada: Person) -> None:
    answer = upload(ada, b"x" * MAX_BYTES)

    assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR")


def test_a_file_of_nearly_16_mib_is_read(ada: Person) -> None:
    padding = b" " * 1_000 + b"\r\n"
    file = b"name,price_cents\r\n" + b"Lamp,1" + padding * 16_000

    assert len(file) > 0.95 * MAX_BYTES
    assert upload(ada, file).json()["created"] == 1


# Import: a row is wrong


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("name", "", "name: String should have at least 1 character"),
        ("name", "x" * 101, "name: String should have at most 100 characters"),
        ("name", "La\0mp", "It must not have NUL characters"),
        ("price_cents", "", "price_cents: Input should be a whole number in plain digits"),
        ("price_cents", "12.50", "price_cents: Input should be a whole number in plain digits"),
        ("price_cents", "1e3", "price_cents: Input should be a whole number in plain digits"),
        ("price_cents", "٣", "price_cents: Input should be a whole number in plain digits"),
        ("price_cents", "0", "price_cents: Input should be greater than or equal to 1"),
        ("price_cents", "1000000001", "price_cents: Input should be less than or equal to 1000000000"),
        ("price_cents", "9" * 5_000, "price_cents: Input should be a whole number in plain digits"),
        ("quantity", "-1", "quantity: Input should be a whole number in plain digits"),
        ("quantity", "many", "quantity: Input should be a whole number in plain digits"),
        ("quantity", "1000000001", "quantity: Input should be less than or equal to 1000000000"),
        ("reorder_level", "1_0", "reorder_level: Input should be a whole number in plain digits"),
        ("tags", "a;a", "tags: No two tags may be alike"),
        ("tags", "x" * 31, "tags: String should have at most 30 characters"),
        ("tags", ";".join("abcdefghijk"), "tags: List should have at most 10 items after validation, not 11"),
    ],
)
def test_a_wrong_cell_is_named(column: str, cell: str, message: str, ada: Person) -> None:
    row = {"name": "Lamp", "price_cents": "1", "quantity": "0", "reorder_level": "0", "tags": ""} | {column: cell}

    assert imported(ada, HEADER, ",".join(row.values())) == report(errors=[(2, message)])
    assert items(ada) == []


def test_all_faults_of_a_row_are_named(ada: Person) -> None:
    message = "name: String should have at least 1 character; price_cents: Input should be greater than or equal to 1"

    assert imported(ada, "name,price_cents", ",0") == report(errors=[(2, message)])


def test_a_name_twice_in_one_file_is_an_error_of_its_row(ada: Person) -> None:
    lines = ["name,price_cents", "Straße,1", "Desk,2", "STRASSE,3"]

    assert imported(ada, *lines) == report(created=2, errors=[(4, "name: It stands in this file twice")])


def test_a_name_twice_is_found_across_batches(ada: Person) -> None:
    lines = [f"Item {number},1" for number in range(BATCH + 1)]
    found = imported(ada, "name,price_cents", *lines, "item 0,1")

    assert found == report(created=BATCH + 1, errors=[(BATCH + 3, "name: It stands in this file twice")])


@pytest.mark.parametrize(("row", "count"), [("Lamp", 1), ("Lamp,1,2", 3), ("Lamp,1,", 3)])
def test_a_row_of_another_length_is_an_error(row: str, count: int, ada: Person) -> None:
    message = f"It has {count} cells, and the header has 2"

    assert imported(ada, "name,price_cents", row, "Desk,1") == report(created=1, errors=[(2, message)])


def test_a_huge_cell_is_an_error_of_its_line(ada: Person) -> None:
    lines = ["name,price_cents", "Desk,1", "x" * 200_000 + ",1"]

    assert imported(ada, *lines)["errors"] == [
        {"line": 3, "message": "This is not CSV: field larger than field limit (131072)"}
    ]


@pytest.mark.parametrize("line", ['"Lamp,1', '"Lamp"x,1'])
def test_a_broken_quotation_is_an_error_of_its_line(line: str, ada: Person) -> None:
    (error,) = imported(ada, "name,price_cents", "Desk,1", line)["errors"]

    assert error["line"] == 3
    assert error["message"].startswith("This is not CSV: ")


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"], ids=["crlf", "lf", "cr"])
def test_a_record_is_in_the_line_where_it_begins(end: str, ada: Person) -> None:
    lines = ["name,price_cents", "", f'"Two{end}lines",1', "", f'"Three{end}long{end}lines",0', "Desk,-1"]
    errors = imported(ada, *lines, end=end)["errors"]

    assert [error["line"] for error in errors] == [6, 9]


def test_at_most_1000_errors_are_reported(ada: Person) -> None:
    found = imported(ada, "name,price_cents", *(f"Item {number},0" for number in range(MAX_MESSAGES + 1)), "Lamp,1")

    assert (found["created"], len(found["errors"])) == (1, MAX_MESSAGES)


# All or nothing


@pytest.mark.parametrize("place", [0, BATCH + 1], ids=["in the first batch", "after a batch that was fine"])
def test_one_error_keeps_everything_from_being_written(place: int, ada: Person, lamp: Row) -> None:
    lines = ["Lamp,1", *(f"Item {number},1" for number in range(BATCH))]
    lines.insert(place, "Desk,none")
    before = items(ada), audit(ada)
    found = imported(ada, "name,price_cents", *lines)

    assert (found["created"], found["updated"], len(found["errors"])) == (BATCH, 1, 1)
    assert (items(ada), audit(ada)) == before


def test_a_dry_run_says_what_would_happen_and_writes_nothing(ada: Person, lamp: Row) -> None:
    before = items(ada), audit(ada)
    lines = ["name,price_cents", "Lamp,1", "Desk,1"]

    assert imported(ada, *lines, dry_run="true") == report(created=1, updated=1)
    assert (items(ada), audit(ada)) == before
    assert imported(ada, *lines, dry_run="false") == report(created=1, updated=1)


def test_a_dry_run_reports_errors_too(ada: Person) -> None:
    found = imported(ada, "name,price_cents", "Lamp,1", "Desk,0", dry_run="true")

    assert (found["created"], [error["line"] for error in found["errors"]]) == (1, [3])


# Import: what follows from it


def test_an_unchanged_row_leaves_no_trace(ada: Person, lamp: Row) -> None:
    before = audit(ada)

    assert imported(ada, HEADER, "Lamp,1200,10,2,light") == report(unchanged=1)
    assert (items(ada), audit(ada)) == ([lamp], before)


def test_a_changed_row_counts_its_version_and_its_time(ada: Person, lamp: Row) -> None:
    imported(ada, "name,price_cents", "Lamp,1300")
    (item,) = items(ada)

    assert (item["version"], item["created_at"]) == (2, lamp["created_at"])
    assert item["updated_at"] > lamp["updated_at"]


def test_an_imported_item_is_like_one_that_was_posted(ada: Person) -> None:
    imported(ada, HEADER, "Straße,1200,10,2,light")
    posted = ada.post("/items", {"name": "Desk", "price_cents": 1}).json()
    found = ada.get("/items?q=STRASSE").json()["items"][0]

    assert found.keys() == posted.keys()
    assert found["version"] == 1
    assert ada.get(f"/items/{found['id']}").json() == found


def test_the_audit_has_every_change_of_an_import(ada: Person, lamp: Row) -> None:
    imported(ada, "name,price_cents,quantity", "Lamp,1300,10", "Desk,1,2")
    update, create = sorted(audit(ada)[:2], key=lambda entry: entry["entity_id"])
    desk = ada.get("/items?q=desk").json()["items"][0]

    assert (update["action"], update["entity_id"], update["actor_id"]) == ("update", lamp["id"], ada.id)
    assert update["changes"] == {"price_cents": [1200, 1300]}
    assert (create["action"], create["entity_id"], create["actor_id"]) == ("create", desk["id"], ada.id)
    assert create["changes"] == {column: [None, desk[column]] for column in HEADER.split(",")}
    assert create["request_id"] == update["request_id"]


def test_an_import_warns_the_other_admins_of_low_stock(ada: Person, eva: Person, max: Person, lamp: Row) -> None:
    ada.patch(f"/users/{eva.id}", {"role": "admin"})
    imported(ada, "name,price_cents,quantity", "Lamp,1200,2", "Desk,1,0")
    told = [person.get("/notifications").json()["items"] for person in (ada, eva, max)]

    assert [len(notifications) for notifications in told] == [0, 1, 0]
    assert told[1][0]["kind"] == "low_stock"
    assert told[1][0]["message"] == "Lamp is low: 2 left, the level is 2."
    assert told[1][0]["link"] == f"{API}/items/{lamp['id']}"


@pytest.mark.parametrize(
    ("lines", "query"),
    [(["Lamp,1200,1", "Desk,0,0"], {}), (["Lamp,1200,1"], {"dry_run": "true"}), (["Lamp,1200,3"], {})],
    ids=["an error", "a dry run", "enough left"],
)
def test_nobody_is_warned_of_what_did_not_happen(
    lines: list[str], query: dict[str, str], ada: Person, eva: Person, lamp: Row
) -> None:
    ada.patch(f"/users/{eva.id}", {"role": "admin"})
    imported(ada, "name,price_cents,quantity", *lines, **query)

    assert eva.get("/notifications").json()["items"] == []


# Who may, and what else is refused


@pytest.mark.parametrize("path", ["/items/export", "/items/import"])
def test_a_member_may_neither_export_nor_import(path: str, ada: Person, max: Person) -> None:
    answer = upload(max, HEADER) if path.endswith("import") else max.get(path)

    assert (answer.status_code, answer.json()["error_code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("options", "loc"),
    [
        ({"files": {"file": ("a.csv", b"x")}, "data": {"mode": "fast"}}, ["body", "mode"]),
        ({"files": {"upload": ("a.csv", b"x")}}, ["body", "file"]),
        ({"files": {"file": (None, "name,price_cents")}}, ["body", "file"]),
        ({"data": {"file": "name,price_cents"}}, ["body", "file"]),
        ({"json": {"file": "name,price_cents"}}, ["body", "file"]),
        ({"content": b"name,price_cents", "headers": {"Content-Type": "text/csv"}}, ["body", "file"]),
        ({"files": {"file": ("a.csv", b"x")}, "params": {"dry_run": "maybe"}}, ["query", "dry_run"]),
        ({"files": {"file": ("a.csv", b"x")}, "params": {"dryrun": "true"}}, ["query", "dryrun"]),
    ],
)
def test_anything_but_one_file_is_422(options: dict[str, Any], loc: list[str], ada: Person) -> None:
    answer = ada.request("POST", "/items/import", **options)

    assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR"), answer.text
    assert loc in [error["loc"] for error in answer.json()["errors"]]


# How much it takes


def test_100_000_rows_come_in_and_go_out_again_in_64_mib(tmp_path: Path, template: Path) -> None:
    """The file itself has 7 MB, and SQLite may keep 16 MB of pages; an item takes about 200 bytes while it comes in."""
    missing.require_linux()
    shutil.copy(template, tmp_path / "app.db")
    account = {"APP_ADMIN_EMAIL": "ada@example.com", "APP_ADMIN_PASSWORD": PASSWORD}
    server = Server(tmp_path, 1, account)
    with server.running(), Client(base_url=server.url + API, timeout=300) as client:
        tokens = client.post("/auth/token", data={"username": "ada@example.com", "password": PASSWORD}).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        lines = (f"Ergonomic office chair number {number},12900,50,5,furniture;blue\r\n" for number in range(MAX_ROWS))
        file = f"{HEADER}\r\n{''.join(lines)}".encode()
        before = _peak_memory(server)
        came_in = client.post("/items/import", files={"file": ("items.csv", file)}).json()
        went_out = client.get("/items/export").content

        assert (came_in, went_out) == (report(created=MAX_ROWS), file)
        assert _peak_memory(server) - before < 64 * 1024 * 1024


def _peak_memory(server: Server) -> int:
    """The most that the server ever held in memory, in bytes, from Linux's own books."""
    (process_id,) = re.findall(r"Started server process \[(\d+)\]", server.log)
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process_id}/status").read_text())
    return int(kilobytes) * 1024
