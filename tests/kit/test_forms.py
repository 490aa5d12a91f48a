"""Forms: what follows from a schema, what typed text means, and what is shown again."""

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from starlette.datastructures import UploadFile

from kit.forms import Form, Sent, local_path
from kit.models import Day, Email, Nullable, PatchBody, RequestBody, Time
from kit.problems import Conflict, Invalid, RateLimited, VersionConflict


class Thing(RequestBody):
    """Something with a field of every kind."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    price_cents: Annotated[int, Field(ge=1, le=1_000_000)]
    quantity: Annotated[int, Field(ge=0, le=100)] = 0
    tags: Annotated[list[Annotated[str, Field(max_length=5)]], Field(max_length=2)] = Field(default_factory=list[str])
    is_fresh: bool = False
    kind: Literal["small", "large"] = "small"
    note: Annotated[str, Field(max_length=500)] | None = None
    email: Email = "ada@example.com"
    password: Annotated[str, Field(min_length=8)] = "hunter2!"
    from_date: Day | None = None
    begins_at: Time | None = None


class ThingUpdate(PatchBody):
    """What may be changed."""

    name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    price_cents: Annotated[int, Field(ge=1)] | None = None
    tags: list[str] | None = None
    note: Nullable[Annotated[str, Field(max_length=500)]] = None


class NameTaken(Conflict):
    """409: a fault that is about one field."""

    detail = "There is one already."
    field = "name"


LAMP = {"name": "Lamp", "price_cents": "12.50"}


def sent(**texts: str) -> Sent:
    return Sent([(name.replace("__", "."), text) for name, text in texts.items()])


def refused(given: Sent, schema: type[Any] = Thing) -> dict[Any, str]:
    """What is wrong with each field."""
    with pytest.raises(Invalid) as caught:
        given.read(schema)
    return {error["loc"][1]: error["msg"] for error in caught.value.errors}


def shown(form: Form) -> dict[str, Any]:
    return {field.name: field for field in form.fields}


# What follows from the schema


def test_the_control_of_a_field_follows_from_its_schema() -> None:
    assert {field.name: field.control for field in Form(Thing).fields} == {
        "name": "text",
        "price_cents": "money",
        "quantity": "number",
        "tags": "tags",
        "is_fresh": "checkbox",
        "kind": "select",
        "note": "textarea",
        "email": "email",
        "password": "password",
        "from_date": "date",
        "begins_at": "time",
    }


def test_labels_lengths_and_defaults_follow_too() -> None:
    fields = shown(Form(Thing))

    assert (fields["price_cents"].label, fields["email"].label) == ("Price", "E-mail")
    assert (fields["name"].required, fields["name"].max_length) == (True, 100)
    assert (fields["quantity"].value, fields["note"].value) == ("0", "")
    assert fields["kind"].options == [("small", "Small"), ("large", "Large")]


def test_a_form_may_have_only_some_fields_and_better_words() -> None:
    form = Form(Thing, only=["name"], labels={"name": "What"}, hints={"name": "A word"}, values={"name": "Lamp"})

    [field] = form.fields
    assert (field.label, field.hint, field.value) == ("What", "A word", "Lamp")


def test_a_row_stands_in_its_form_as_people_write_it() -> None:
    row = SimpleNamespace(name="Lamp", price_cents=1205, tags=["red", "big"], note=None)
    fields = shown(Form(ThingUpdate, row))

    assert {name: field.value for name, field in fields.items()} == {
        "name": "Lamp",
        "price_cents": "12.05",
        "tags": "red, big",
        "note": "",
    }
    assert fields["price_cents"].was == "12.05"


# What typed text means


@pytest.mark.parametrize(
    ("typed", "cents"), [("12.50", 1250), ("12,5", 1250), ("12", 1200), (" 0.01 ", 1), ("9999.99", 999999)]
)
def test_an_amount_is_typed_with_a_point_or_a_comma(typed: str, cents: int) -> None:
    assert sent(name="Lamp", price_cents=typed).read(Thing).price_cents == cents


@pytest.mark.parametrize(
    "typed", ["1,234", "1.234.5", "12.505", "-1", "+1", "1e3", "1 000", "€5", "٣", "NaN", "0x1", ""]
)
def test_what_is_no_amount_is_not_guessed(typed: str) -> None:
    assert refused(sent(name="Lamp", price_cents=typed)) == {"price_cents": "Enter an amount such as 12.50"}


def test_the_bounds_of_an_amount_are_said_as_amounts() -> None:
    assert refused(sent(name="Lamp", price_cents="0")) == {"price_cents": "Enter at least 0.01"}
    assert refused(sent(name="Lamp", price_cents="10000.01")) == {"price_cents": "Enter at most 10000.00"}


def test_every_kind_of_field_is_read() -> None:
    thing = sent(
        **LAMP,
        quantity=" 7 ",
        tags="red, , big ",
        is_fresh="yes",
        kind="large",
        note="a\r\nb",
        from_date="2026-01-31",
        begins_at="2026-01-31T09:30",
    ).read(Thing)

    assert (thing.quantity, thing.tags, thing.is_fresh, thing.kind) == (7, ["red", "big"], True, "large")
    assert (thing.note, thing.from_date) == ("a\nb", date(2026, 1, 31))
    assert thing.begins_at == datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def test_the_last_of_two_texts_counts_as_for_a_check_box() -> None:
    both = Sent([("name", "Lamp"), ("price_cents", "1"), ("is_fresh", "no"), ("is_fresh", "yes")])

    assert both.read(Thing).is_fresh is True


def test_an_empty_field_of_something_new_has_its_default() -> None:
    thing = sent(**LAMP, quantity="", note="  ", password="", email="").read(Thing)

    assert (thing.quantity, thing.note, thing.password, thing.email) == (0, None, "hunter2!", "ada@example.com")


@pytest.mark.parametrize(
    ("field", "typed", "words"),
    [
        ("name", "", "Fill this in"),
        ("name", "   ", "Fill this in"),
        ("name", "x" * 101, "Use at most 100 characters"),
        ("quantity", "many", "Enter a whole number"),
        ("quantity", "1.0", "Enter a whole number"),
        ("quantity", "101", "Enter at most 100"),
        ("quantity", "9" * 5000, "Enter a whole number"),
        ("tags", "a,b,c", "Enter at most 2"),
        ("tags", "abcdef", "Use at most 5 characters"),
        ("is_fresh", "perhaps", "Choose yes or no"),
        ("kind", "huge", "Choose 'small' or 'large'"),
        ("email", "nobody", "Enter an e-mail address such as ada@example.com"),
        ("password", "short", "Use at least 8 characters"),
        ("note", "x" * 501, "Use at most 500 characters"),
    ],
)
def test_what_does_not_fit_is_said_in_words_for_people(field: str, typed: str, words: str) -> None:
    assert refused(sent(**LAMP | {field: typed})) == {field: words}


def test_a_missing_field_is_to_be_filled_in() -> None:
    assert refused(sent()) == {"name": "Fill this in", "price_cents": "Fill this in"}


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_characters_that_no_database_stores_are_refused_and_not_shown_again(text: str) -> None:
    given = sent(name=text, price_cents="1")
    with pytest.raises(Invalid, match="cannot be stored"):
        given.read(Thing)

    assert given.text("name") in ("ab", "")


def test_files_are_kept_apart_from_texts() -> None:
    file = UploadFile(file=None, filename="list.csv")  # pyright: ignore[reportArgumentType] - nobody reads it
    given = Sent([("file", file), ("name", "Lamp")])

    assert (given.files, given.texts("name"), given.has("file")) == ({"file": file}, ["Lamp"], False)


# Changes


ROW = SimpleNamespace(name="Lamp", price_cents=1200, tags=["red"], note="old")


def test_only_what_differs_from_the_beginning_is_a_change() -> None:
    given = sent(
        name="Lamp", was__name="Lamp", price_cents="13.00", was__price_cents="12.00", tags="red", was__tags="red"
    )

    assert given.changes(ThingUpdate, ROW).changes() == {"price_cents": 1300}


def test_a_field_that_somebody_else_changed_is_left_to_them() -> None:
    given = sent(name="Lampe", was__name="Lamp", price_cents="11.00", was__price_cents="11.00")

    assert given.changes(ThingUpdate, ROW).changes() == {"name": "Lampe"}


def test_a_field_that_both_changed_is_a_conflict() -> None:
    with pytest.raises(VersionConflict):
        sent(price_cents="13.00", was__price_cents="11.00").changes(ThingUpdate, ROW)


def test_two_who_change_a_field_in_the_same_way_agree() -> None:
    assert sent(price_cents="12.00", was__price_cents="11.00").changes(ThingUpdate, ROW).changes() == {}


def test_an_amount_that_is_only_spelled_differently_is_no_change() -> None:
    assert sent(price_cents="12,0", was__price_cents="12.00").changes(ThingUpdate, ROW).changes() == {}
    assert sent(price_cents="12", was__price_cents="11.00").changes(ThingUpdate, ROW).changes() == {}


def test_line_breaks_are_compared_as_a_browser_sends_them() -> None:
    row = SimpleNamespace(name="two\nlines", price_cents=1200, tags=[], note="a\r\nb")
    fields = shown(Form(ThingUpdate, row))

    assert (fields["name"].value, fields["note"].value) == ("twolines", "a\nb")
    given = sent(name="twolines", was__name="twolines", note="a\nc", was__note="a\nb")
    assert given.changes(ThingUpdate, row).changes() == {"note": "a\nc"}


def test_an_emptied_field_is_a_change_where_it_may_be_empty_and_a_fault_elsewhere() -> None:
    given = sent(tags="", was__tags="red", note="", was__note="old")

    assert given.changes(ThingUpdate, ROW).changes() == {"tags": [], "note": None}
    with pytest.raises(Invalid, match="Fill this in"):
        sent(name="", was__name="Lamp").changes(ThingUpdate, ROW)


def test_without_a_beginning_the_row_itself_is_what_it_differs_from() -> None:
    assert sent(name="Lamp", price_cents="13").changes(ThingUpdate, ROW).changes() == {"price_cents": 1300}


# What is shown again


def test_what_was_typed_is_shown_again_with_what_is_wrong_but_no_password() -> None:
    given, form = sent(name="", price_cents="many", password="secret"), Form(Thing)
    with pytest.raises(Invalid) as caught:
        given.read(Thing)

    assert form.take(given, caught.value)
    fields = shown(form)
    assert (fields["price_cents"].value, fields["price_cents"].error) == ("many", "Enter an amount such as 12.50")
    assert (fields["name"].error, fields["password"].value) == ("Fill this in", "")


def test_a_problem_with_a_field_is_beside_it_and_any_other_on_top() -> None:
    given = sent(**LAMP)
    given.read(Thing)
    beside, top = Form(Thing), Form(Thing, problems={"CONFLICT": "Not so."})
    beside.take(given, NameTaken())
    top.take(given, Conflict())

    assert (shown(beside)["name"].error, beside.problem) == ("There is one already.", "Look at what is marked below.")
    assert (shown(top)["name"].error, top.problem) == ("", "Not so.")


def test_who_has_to_wait_is_told_how_long() -> None:
    given, form = sent(**LAMP), Form(Thing)
    given.read(Thing)
    form.take(given, RateLimited(840))

    assert form.problem == "Too many requests from this address. Try again in 14 minutes."


def test_another_form_on_the_page_stays_as_it_is() -> None:
    given, other = sent(**LAMP), Form(ThingUpdate, ROW)
    given.read(Thing)

    assert not other.take(given, Conflict())
    assert shown(other)["name"].value == "Lamp"


def test_after_a_conflict_both_values_are_shown_and_saving_again_means_it() -> None:
    given = sent(
        price_cents="13.00", was__price_cents="11.00", name="Lampe", was__name="Lampe", note="x", was__note="old"
    )
    with pytest.raises(VersionConflict) as caught:
        given.changes(ThingUpdate, ROW)
    form = Form(ThingUpdate, ROW)
    form.take(given, caught.value)
    fields = shown(form)

    assert (fields["price_cents"].value, fields["price_cents"].was) == ("13.00", "12.00")
    assert fields["price_cents"].note == "Changed to 12.00 meanwhile; it was 11.00."
    assert (fields["name"].value, fields["name"].note) == ("Lamp", "Changed meanwhile; it was Lampe.")
    assert (fields["note"].value, fields["note"].note) == ("x", "")


# Where to go back


@pytest.mark.parametrize("path", ["/", "/rooms?q=a&page=2", "/rooms/5#history"])
def test_a_path_of_this_app_is_kept(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "items", "//evil.example", "/\\evil.example", "https://evil.example", "/a b", "/a\r\nX: y", "/\x7f", "/a\\b"],
)
def test_what_could_lead_elsewhere_is_not(path: str) -> None:
    assert local_path(path) == "/"


def test_the_way_back_is_to_one_page_with_a_query_of_its_own() -> None:
    assert sent(back="/rooms?q=a").path("back", "/rooms") == "/rooms?q=a"
    assert sent(back="/halls").path("back", "/rooms") == "/rooms"
    assert sent().path("back", "/rooms") == "/rooms"
