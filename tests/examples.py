"""Right values for whatever a JSON schema describes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Schema = Mapping[str, Any]

# What a text can be, the simplest one first; each with a number in it.
TEXTS = ("{}", "a{}", "A{}", "a-{}")


@dataclass
class Examples:
    """Makes values up. No two texts, dates and times of it are alike, so that nothing is unique only once.

    `whole` values have every field that there can be, others those that are required or, where none is, the first.
    """

    schemas: Mapping[str, Schema]
    row_id: Callable[[str], int | None] = lambda name: None
    """The id of a row for a field such as `item_id`; None where no row is meant."""
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    def value(self, schema: Schema, name: str = "", *, nth: int = 0, whole: bool = False) -> Any:
        """A right value; with another `nth` a number, a Boolean or an enumeration is another one."""
        if "$ref" in schema:
            return self.value(self.schemas[schema["$ref"].rpartition("/")[2]], name, nth=nth, whole=whole)
        for one_of in ("anyOf", "oneOf", "allOf"):
            if one_of in schema:
                kind = next(kind for kind in schema[one_of] if kind.get("type") != "null")
                return self.value(kind, name, nth=nth, whole=whole)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][nth % len(schema["enum"])]
        match schema.get("type"):
            case "object":
                return self._object(schema, nth, whole=whole)
            case "array":
                length = schema.get("minItems", 0) or (1 if whole else 0)
                return [self.value(schema["items"], name, nth=nth, whole=whole) for _ in range(length)]
            case "integer" | "number":
                return self._number(schema, name, nth)
            case "boolean":
                return bool(nth % 2)
            case "string":
                return self._text(schema, name)
            case _:
                return None

    def _object(self, schema: Schema, nth: int, *, whole: bool) -> dict[str, Any]:
        fields: Mapping[str, Schema] = schema.get("properties", {})
        wanted = list(fields) if whole else schema.get("required") or list(fields)[:1]
        return {name: self.value(fields[name], name, nth=nth, whole=whole) for name in wanted}

    def _number(self, schema: Schema, name: str, nth: int) -> int:
        if name.endswith("_id") and (row_id := self.row_id(name)) is not None:
            return row_id
        smallest = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        return int(min(smallest + nth, schema.get("maximum", smallest + nth)))

    def _text(self, schema: Schema, name: str) -> str:
        number = next(self.numbers)
        moment = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        match schema.get("format"):
            case "email":
                return f"{number}@example.com"
            case "date":
                return (moment + timedelta(days=number)).date().isoformat()
            case "date-time":
                return (moment + timedelta(hours=number)).isoformat()
            case _:
                pass
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 1000)
        texts = [text.format(number).ljust(shortest, "a") for text in TEXTS]
        fitting = [text for text in texts if len(text) <= longest and re.search(schema.get("pattern", ""), text)]
        assert fitting, f"Say in SWEEP.bodies of the noun's tests what {name!r} can be: {dict(schema)}"
        return fitting[0]
