"""Fields: how a schema is shown in a form, what typed text means in it, and what is wrong in words for people.

All of it follows from the JSON schema of a body. Text that fits no field is left as it is, for the schema to refuse.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, cast

from pydantic import BaseModel

from kit.models import PatchBody

AMOUNT = re.compile(r"([0-9]{1,12})(?:[.,]([0-9]{1,2}))?")
WHOLE = re.compile(r"-?[0-9]{1,18}")
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


def properties_of(schema: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """The JSON schema of each field."""
    return _documents(schema)["properties"]


def required_of(schema: type[BaseModel]) -> list[str]:
    """The names of the fields without a default."""
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


def field_of(name: str, part: dict[str, Any], schema: type[BaseModel]) -> Field:
    """The empty field for a part of a schema."""
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
    shown.required = name in required_of(schema) or (issubclass(schema, PatchBody) and part.get("minLength", 0) > 0)
    if shown.control not in ("tags", "number", "money"):
        shown.max_length, shown.min_length = part.get("maxLength"), part.get("minLength")
    shown.autocomplete = AUTOCOMPLETE.get(name, "new-password" if shown.control == "password" else "off")
    return shown


def text_of(shown: Field, value: Any) -> str:
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
        case _:  # as a browser sends it back: a text area keeps line breaks, and a line has none
            breaks = "\n" if shown.control == "textarea" else ""
            return re.sub("\r\n|\r|\n", breaks, str(value))


def value_of(shown: Field, text: str) -> Any:
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


def for_people(schema: type[BaseModel], fault: Any) -> dict[str, Any]:
    """A fault of pydantic as `Invalid` takes it, in words for people."""
    return {"loc": ("body", *fault["loc"]), "msg": in_words(schema, fault), "type": fault["type"]}


def in_words(schema: type[BaseModel], fault: Any, *, amounts: bool = True) -> str:
    """A fault of pydantic in words for people; cents as amounts, unless they were typed as cents."""
    name = str(fault["loc"][0]) if fault["loc"] else ""
    shown = field_of(name, properties_of(schema)[name], schema) if name in properties_of(schema) else None
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
