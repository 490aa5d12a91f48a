"""Forms: how a schema is shown, and what somebody typed; both follow from the JSON schema of a body.

`Form(ItemUpdate, item)` is what a page shows, and `sent.read(ItemCreate)` or `sent.changes(ItemUpdate, item)` what a
route takes. All rules stay in the schema: text that fits no field is left as it is, for the schema to refuse.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from kit.models import PatchBody
from kit.problems import Invalid, Problem, VersionConflict
from kit.strict import FORBIDDEN_TEXT

Schema = TypeVar("Schema", bound=BaseModel)

AMOUNT = re.compile(r"([0-9]{1,12})(?:[.,]([0-9]{1,2}))?")
WHOLE = re.compile(r"-?[0-9]{1,18}")
LOCAL = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")
LONG_TEXT = 256  # characters from which on a field has several lines
AUTOCOMPLETE = {
    "email": "email",
    "full_name": "name",
    "password": "new-password",
    "current_password": "current-password",
}

# What people read where pydantic says what programmers need; the names are those of its error types.
WORDS = {
    "missing": "Fill this in",
    "string_too_long": "Use at most {max_length} characters",
    "too_long": "Enter at most {max_length}",
    "greater_than_equal": "Enter at least {ge}",
    "less_than_equal": "Enter at most {le}",
    "bool_type": "Choose yes or no",
    "literal_error": "Choose {expected}",
    "enum": "Choose {expected}",
    "string_pattern_mismatch": "There is a character in it that cannot be used here",
}


def local_path(text: str, otherwise: str = "/") -> str:
    """`text` if it is a path of this app with or without a query, which no browser takes for another host."""
    return text if LOCAL.fullmatch(text) else otherwise


def label_of(name: str) -> str:
    """What people read for the name of a field: `price_cents` is "Price", `is_active` "Active"."""
    if name == "email":
        return "E-mail"
    return name.removeprefix("is_").removesuffix("_cents").removesuffix("_id").replace("_", " ").capitalize()


@dataclass
class Field:
    """One field of a form: what it is, what is in it, and what is wrong with it."""

    name: str
    label: str
    control: str
    value: str = ""
    was: str | None = None
    """What was in it when the form was made; None where the form is for something new."""
    error: str = ""
    note: str = ""
    hint: str = ""
    required: bool = False
    max_length: int | None = None
    min_length: int | None = None
    options: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    autocomplete: str = ""
    may_be_empty: bool = False

    @property
    def id(self) -> str:
        """The id of its control."""
        return f"field-{self.name}"


class Form:
    """A form for a schema: empty, or with the values of `row`, for `only` some of its fields if they are named.

    `hidden` goes along unseen, `values` stand in the form before anybody types, and `problems` says by its code what a
    problem means here. `labels`, `hints` and `autocomplete` are better ones than follow from the schema.
    """

    def __init__(
        self,
        schema: type[BaseModel],
        row: object = None,
        *,
        only: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        hints: Mapping[str, str] | None = None,
        values: Mapping[str, str] | None = None,
        hidden: Mapping[str, str] | None = None,
        problems: Mapping[str, str] | None = None,
        autocomplete: Mapping[str, str] | None = None,
    ) -> None:
        self.schema = schema
        self.problem = ""
        self.problems = problems or {}
        self.hidden = list((hidden or {}).items())
        document = _document(schema)
        self.fields: list[Field] = []
        for name, part in document.items():
            if not only or name in only:
                found = _field(name, part, schema)
                found.label = (labels or {}).get(name, found.label)
                found.hint = (hints or {}).get(name, found.hint)
                found.autocomplete = (autocomplete or {}).get(name, found.autocomplete)
                if found.control != "password":
                    found.value = (values or {}).get(name, _text(found, part.get("default")))
                if row is not None:
                    found.value = found.was = _text(found, getattr(row, name))
                self.fields.append(found)

    @property
    def multipart(self) -> bool:
        """Whether it sends a file."""
        return any(shown.control == "file" for shown in self.fields)

    def take(self, sent: "Sent | None", problem: Problem | None) -> bool:
        """Show what was typed into this form and what is wrong with it, if it is the one that was sent."""
        if sent is None or problem is None or sent.schema is not self.schema:
            return False
        faults = [error for error in reversed(problem.errors) if "loc" in error]
        errors = {str([*fault["loc"], ""][1]): str(fault["msg"]) for fault in faults}  # "" is the form as a whole
        if problem.field:
            errors[problem.field] = problem.said
        for shown in self.fields:
            if sent.has(shown.name) and shown.control != "password":
                _take_text(shown, sent)
            shown.error = errors.pop(shown.name, "")
        marked = any(shown.error or shown.note for shown in self.fields)
        said = " ".join(f"{text.rstrip('.')}." for text in errors.values())
        if not said and not isinstance(problem, Invalid) and not problem.field:
            said = self.problems.get(problem.code, problem.said)
        if problem.wait:
            said = f"{said.partition(';')[0].rstrip('.')}. Try again in {problem.wait}."
        self.problem = said or ("Look at what is marked below." if marked else problem.said)
        self.hidden = [(name, value) for name, value in self.hidden if not sent.has(name)]
        self.hidden += [(name, sent.text(name)) for name in ("back", "next") if sent.has(name)]
        return True


def _take_text(shown: Field, sent: "Sent") -> None:
    typed, was, current = sent.text(shown.name), sent.was(shown.name), shown.was
    if current is None or was is None or current == was:
        shown.value = typed
    elif typed == was:
        shown.note = f"Changed meanwhile; it was {was or 'empty'}."
    else:
        shown.value = typed
        if typed != current:
            shown.note = f"Changed to {current or 'nothing'} meanwhile; it was {was or 'empty'}."


class Sent:
    """What a form sent: texts and files by their names."""

    def __init__(self, parts: Sequence[tuple[str, str | UploadFile]]) -> None:
        self.schema: type[BaseModel] | None = None
        """The schema as which it was read last."""
        self.parts: dict[str, list[str]] = {}
        self.files: dict[str, UploadFile] = {}
        self.is_wrong = False
        for name, value in parts:
            if isinstance(value, UploadFile):
                self.files[name] = value
                continue
            self.is_wrong |= bool(FORBIDDEN_TEXT.search(name) or FORBIDDEN_TEXT.search(value))
            # A text area sends CRLF, which would count twice.
            self.parts.setdefault(name, []).append(FORBIDDEN_TEXT.sub("", value).replace("\r\n", "\n"))

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return name in self.parts

    def text(self, name: str, otherwise: str = "") -> str:
        """What was typed into a field; the last one of that name counts."""
        return self.parts.get(name, [otherwise])[-1]

    def texts(self, name: str) -> list[str]:
        """What was typed into all fields of that name."""
        return self.parts.get(name, [])

    def was(self, name: str) -> str | None:
        """What was in a field before."""
        return self.text(f"was.{name}") if self.has(f"was.{name}") else None

    def read(self, schema: type[Schema], **more: Any) -> Schema:
        """The body for something new; an empty field that has a default gets it.

        Raises:
            Invalid: it does not fit the schema; what is wrong is said in words for people.
        """
        self.schema = schema
        values: dict[str, Any] = {}
        for name, part in _document(schema).items():
            if self.has(name) and (self.text(name).strip() or name in _required(schema)):
                values[name] = _value(_field(name, part, schema), self.text(name))
        return self.checked(schema, values | more)

    def file(self, schema: type[BaseModel], name: str) -> UploadFile:
        """The file that was chosen in a field.

        Raises:
            Invalid: none was, or it is empty.
        """
        self.schema = schema
        file = self.files.get(name)
        if file is None or not file.filename:
            raise Invalid([{"loc": ("body", name), "msg": "Choose a file", "type": "missing"}])
        if not file.size:
            raise Invalid([{"loc": ("body", name), "msg": "This file is empty", "type": "missing"}])
        return file

    def changes(self, schema: type[Schema], row: object) -> Schema:
        """The body for a change of `row`, as it is now: only what differs from what the form began with.

        Raises:
            Invalid: it does not fit the schema.
            VersionConflict: somebody else changed one of the same fields meanwhile.
        """
        self.schema = schema
        values: dict[str, Any] = {}
        conflict = False
        for name, part in _document(schema).items():
            shown = _field(name, part, schema)
            if not self.has(name):
                continue
            current = _text(shown, getattr(row, name))
            typed, was = self.text(name), self.was(name)
            if typed not in (current if was is None else was, current):
                values[name] = _value(shown, typed)
                conflict |= was is not None and was != current
        body = self.checked(schema, values)
        if conflict:
            raise VersionConflict
        return body

    def checked(self, schema: type[Schema], values: Mapping[str, Any]) -> Schema:
        """A body from values; the one way in, because nobody answers the error of pydantic itself.

        Raises:
            Invalid: they do not fit the schema.
        """
        if self.is_wrong:
            raise Invalid(
                [{"loc": ("body",), "msg": "There is a character in it that cannot be stored", "type": "nul"}]
            )
        try:
            return schema.model_validate(values)
        except ValidationError as error:
            raise Invalid([_for_people(schema, fault) for fault in error.errors(include_url=False)]) from None

    def path(self, name: str, otherwise: str) -> str:
        """The path of this app in a hidden field such as `back`, if it is `otherwise` with a query of its own."""
        text = local_path(self.text(name), otherwise)
        return text if text.partition("?")[0] == otherwise else otherwise


async def read_form(request: Request) -> AsyncGenerator[Sent]:
    """Take in a form; its body has a bound like every other. Does no I/O but that."""
    async with request.form(max_fields=2_000) as form:
        sent = request.scope["state"]["visit"].sent = Sent([*form.multi_items()])
        yield sent


SentForm = Annotated[Sent, Depends(read_form)]


# From the schema


def _document(schema: type[BaseModel]) -> dict[str, dict[str, Any]]:
    return _documents(schema)["properties"]


def _required(schema: type[BaseModel]) -> list[str]:
    return _documents(schema).get("required", [])


_KNOWN: dict[type[BaseModel], dict[str, Any]] = {}


def _documents(schema: type[BaseModel]) -> dict[str, Any]:
    if schema not in _KNOWN:
        document = schema.model_json_schema()
        definitions = document.get("$defs", {})
        document["properties"] = {
            name: _resolved(part, definitions) for name, part in document.get("properties", {}).items()
        }
        _KNOWN[schema] = document
    return _KNOWN[schema]


def _resolved(part: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A part of a schema without references, and without the `null` of one that may be empty."""
    if "$ref" in part:
        part = part | definitions[part["$ref"].rpartition("/")[2]]
    choices = [choice for choice in part.get("anyOf", []) if choice.get("type") != "null"]
    return part | _resolved(choices[0], definitions) if choices else part


def _field(name: str, part: dict[str, Any], schema: type[BaseModel]) -> Field:
    is_money = name.endswith("_cents")
    shown = Field(name, label_of(name), "text")
    match part:
        case {"enum": options}:
            shown.control, shown.options = "select", [(str(option), str(option).capitalize()) for option in options]
        case {"type": "boolean"}:
            shown.control = "checkbox"
        case {"contentMediaType": _}:
            shown.control = "file"
        case {"type": "array"}:
            shown.control, shown.hint = "tags", "With commas between them"
        case {"type": "integer"}:
            shown.control = "money" if is_money else "number"
        case {"format": "email"}:
            shown.control = "email"
        case {"format": "date"}:
            shown.control = "date"
        case {"format": "date-time"}:
            shown.control, shown.hint = "time", "In UTC"
        case {"maxLength": int(length)} if length >= LONG_TEXT:
            shown.control = "textarea"
        case _ if "password" in name:
            shown.control = "password"
        case _:
            pass
    shown.may_be_empty = {"type": "null"} in part.get("anyOf", [])
    shown.hint = part.get("description", shown.hint)
    shown.required = name in _required(schema) or (issubclass(schema, PatchBody) and part.get("minLength", 0) > 0)
    if shown.control not in ("tags", "number", "money"):
        shown.max_length, shown.min_length = part.get("maxLength"), part.get("minLength")
    shown.autocomplete = AUTOCOMPLETE.get(name, "new-password" if shown.control == "password" else "off")
    return shown


def _text(shown: Field, value: Any) -> str:
    """A value as it stands in its field."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() if shown.control == "money":
            return f"{value // 100}.{value % 100:02}"
        case list():
            return ", ".join(cast(list[str], value))
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M}"
        case date():
            return value.isoformat()
        case _:
            return str(value)


def _value(shown: Field, text: str) -> Any:
    """What a text means in a field; the text itself where it means nothing there."""
    plain = text.strip()
    if not plain and shown.may_be_empty:
        return None
    match shown.control:
        case "money" if (cents := cents_of(plain)) is not None:
            return cents
        case "number" if WHOLE.fullmatch(plain):
            return int(plain)
        case "tags":
            return [tag.strip() for tag in text.split(",") if tag.strip()]
        case "checkbox":
            return {"yes": True, "on": True, "true": True, "no": False, "false": False}.get(plain, text)
        case "time" if re.fullmatch("[0-9-]{10}T[0-9:]{5}", plain):
            return f"{plain}Z"
        case "text" | "email" | "textarea" | "password" | "select":
            return text
        case _:
            return plain or None


def cents_of(text: str) -> int | None:
    """The cents of an amount such as 12.50; None where it is none."""
    found = AMOUNT.fullmatch(text.strip())
    return int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else None


def _for_people(schema: type[BaseModel], fault: Any) -> dict[str, Any]:
    return {"loc": ("body", *fault["loc"]), "msg": in_words(schema, fault), "type": fault["type"]}


def in_words(schema: type[BaseModel], fault: Any, *, amounts: bool = True) -> str:
    """A fault of pydantic in words for people; cents as amounts, unless they were typed as cents."""
    name = str(fault["loc"][0]) if fault["loc"] else ""
    shown = _field(name, _document(schema)[name], schema) if name in _document(schema) else None
    control = shown.control if shown else ""
    control = "number" if control == "money" and not amounts else control
    bounds = {
        key: f"{value // 100}.{value % 100:02}" if control == "money" and isinstance(value, int) else value
        for key, value in fault.get("ctx", {}).items()
    }
    kind = fault["type"]
    if kind == "string_too_short":
        return "Fill this in" if bounds["min_length"] == 1 else f"Use at least {bounds['min_length']} characters"
    if control == "email":
        return "Enter an e-mail address such as ada@example.com"
    if shown and kind in ("int_type", "int_parsing", "string_type", "null_forbidden"):
        said = {"money": "Enter an amount such as 12.50", "number": "Enter a whole number"}
        return said.get(control, "Fill this in")
    return WORDS[kind].format_map(bounds) if kind in WORDS else str(fault["msg"]).removeprefix("Value error, ")
