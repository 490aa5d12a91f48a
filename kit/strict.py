"""What is refused before a route sees it: JSON that is not quite JSON, and query parameters nobody declared."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kit.problems import BadRequest, Invalid

FORBIDDEN_TEXT = re.compile("[\x00\ud800-\udfff]")
FORBIDDEN_IN_JSON = re.compile(
    r"(?<!\\)(?:\\\\)*\\u0000|[\ud800-\udfff]"
)  # after two backslashes `u0000` is plain text


class StrictRequest(Request):
    """A request whose JSON is RFC 8259's and nothing more: UTF-8, finite numbers, whole characters."""

    async def json(self) -> Any:
        """The parsed body. Of a body that cannot be read the fault is kept until the caller is known."""
        body = await self.body()
        try:
            return _strict_json(body)
        except UnicodeDecodeError:
            self.scope["unreadable_body"] = BadRequest("The body is not UTF-8.")
        except json.JSONDecodeError as error:
            self._refuse(f"It is not JSON: {error.msg} at character {error.pos}")
        except RecursionError:
            self._refuse("It is nested too deeply")
        except ValueError as error:
            self._refuse(f"It is not acceptable JSON: {error}")
        return b""  # fits no schema, so that FastAPI reports a validation error after the caller is known

    async def _get_form(self, **limits: Any) -> FormData:
        """The parsed form, in the same way: a stranger is told to sign in, whatever they send."""
        try:
            return await super()._get_form(**limits)
        except HTTPException as error:
            if error.status_code != 400:
                raise
            self.scope["unreadable_body"] = BadRequest("The form cannot be read.")
            return FormData()

    def _refuse(self, message: str) -> None:
        self.scope["unreadable_body"] = Invalid([{"loc": ("body",), "msg": message, "type": "json_invalid"}])


def refuse_unknown_query(request: Request, known: frozenset[str]) -> None:
    """Refuse names nobody declared, and text that no character string can be."""
    if not request.scope["query_string"]:
        return
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError:
        raise Invalid([{"loc": ("query",), "msg": "It is not UTF-8", "type": "string_unicode"}]) from None
    errors: list[Mapping[str, Any]] = [
        {"loc": ("query", name), "msg": "This parameter is not known here", "type": "extra_forbidden"}
        for name in request.query_params
        if name not in known
    ]
    errors += [
        {"loc": ("query", name), "msg": "It must not have NUL characters", "type": "string_unicode"}
        for name, value in request.query_params.multi_items()
        if "\0" in value
    ]
    if errors:
        raise Invalid(errors)


def _strict_json(body: bytes) -> Any:
    text = body.decode("utf-8-sig")
    parsed = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_short)
    # Escapes are the only way a NUL or half a character gets through the parser.
    if "\\u" in text and FORBIDDEN_IN_JSON.search(json.dumps(parsed, ensure_ascii=False)):
        raise ValueError("a string has a NUL or half a character in it")
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _short(digits: str) -> int:
    if len(digits) > 20:  # 2^63 has 19 digits, and Python refuses thousands of them with a sentence of its own
        raise ValueError("a number is out of range")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is out of range")
    return number
