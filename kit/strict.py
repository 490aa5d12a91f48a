"""What is refused before a route sees it: JSON that is not quite JSON, and query parameters nobody declared."""

import json
import math
import re
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kit.auth import Claims
from kit.problems import BadRequest, Invalid, Problem

MAX_VALUES = 10_000
MAX_DEPTH = 64
FORBIDDEN_TEXT = re.compile("[\x00\ud800-\udfff]")
FORBIDDEN_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000|[\ud800-\udfff]")  # after two backslashes `u0000` is text


class UnreadableBody(HTTPException):
    """A body that is no acceptable JSON. An HTTPException, because FastAPI passes on no other error of a body."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.status)
        self.problem = problem


class StrictRequest(Request):
    """A request whose JSON is RFC 8259's and nothing more: UTF-8, finite numbers, whole characters."""

    claims: Claims | None = None
    """What its access token says, once the token is checked."""

    async def json(self) -> Any:
        """The parsed body; `UnreadableBody` if it is no JSON, not UTF-8, or holds what no field here can."""
        body = await self.body()
        try:
            return _strict_json(body)
        except UnicodeDecodeError:
            raise UnreadableBody(BadRequest("The body is not UTF-8.")) from None
        except json.JSONDecodeError as error:
            message = f"It is not JSON: {error.msg} at character {error.pos}"
        except RecursionError:
            message = "It is nested too deeply"
        except ValueError as error:
            message = f"It is not acceptable JSON: {error}"
        raise UnreadableBody(Invalid([{"loc": ("body",), "msg": message, "type": "json_invalid"}]))


def check_query(request: Request, known: frozenset[str] | None) -> None:
    """Refuse names nobody declared, and text that no character string can be, with a `RequestValidationError`.

    Where `known` is None, every name is well.
    """
    if not request.scope["query_string"]:
        return
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError:
        fault = {"loc": ("query",), "msg": "It is not UTF-8", "type": "string_unicode"}
        raise RequestValidationError([fault]) from None
    query = request.query_params
    unknown, nul = "This parameter is not known here", "It must not have NUL characters"
    faults = [(name, unknown, "extra_forbidden") for name in query if known is not None and name not in known]
    faults += [(name, nul, "string_unicode") for name, text in query.multi_items() if "\0" in text]
    errors = [{"loc": ("query", name), "msg": message, "type": kind} for name, message, kind in faults]
    if errors:
        raise RequestValidationError(errors)


def _strict_json(body: bytes) -> Any:
    text = body.decode("utf-8-sig")
    parsed = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_short)
    _check_size(parsed)
    # Escapes are the only way a NUL or half a character gets through the parser.
    if "\\u" in text and FORBIDDEN_IN_JSON.search(json.dumps(parsed, ensure_ascii=False)):
        raise ValueError("a string has a NUL or half a character in it")
    return parsed


def _check_size(parsed: Any) -> None:
    """Bound what a schema is asked to look at: it says something of every name that it does not know."""
    level, count, depth = [parsed], 0, 0
    while level:
        parts: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                count += len(cast(dict[str, Any], value))
                parts += cast(dict[str, Any], value).values()
            elif isinstance(value, list):
                parts += cast(list[Any], value)
        count += len(level)
        if count > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES} values and names in it")
        depth += 1
        if depth > MAX_DEPTH + 1:
            raise ValueError(f"it is more than {MAX_DEPTH} levels deep")
        level = parts


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
