"""Forms: how a schema is shown, and what somebody typed; both follow from the JSON schema of a body.

`Form(ItemUpdate, item)` is what a page shows, and `sent.read(ItemCreate)` or `sent.changes(ItemUpdate, item)` what a
route takes. All rules stay in the schema: text that fits no field is left as it is, for the schema to refuse.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Depends
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from kit.fields import Field, field_of, for_people, properties_of, required_of, text_of, value_of
from kit.problems import BadRequest, Invalid, Problem, VersionConflict
from kit.strict import FORBIDDEN_TEXT, UnreadableBody

Schema = TypeVar("Schema", bound=BaseModel)

LOCAL = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")


def local_path(text: str, otherwise: str = "/") -> str:
    """`text` if it is a path of this app with or without a query, which no browser takes for another host."""
    return text if LOCAL.fullmatch(text) else otherwise


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
        document = properties_of(schema)
        self.fields: list[Field] = []
        for name, part in document.items():
            if not only or name in only:
                found = field_of(name, part, schema)
                found.label = (labels or {}).get(name, found.label)
                found.hint = (hints or {}).get(name, found.hint)
                found.autocomplete = (autocomplete or {}).get(name, found.autocomplete)
                if found.control != "password":
                    found.value = (values or {}).get(name, text_of(found, part.get("default")))
                if row is not None:
                    found.value = found.was = text_of(found, getattr(row, name))
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
        for name, part in properties_of(schema).items():
            if self.has(name) and (self.text(name).strip() or name in required_of(schema)):
                values[name] = value_of(field_of(name, part, schema), self.text(name))
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
        for name, part in properties_of(schema).items():
            shown = field_of(name, part, schema)
            if not self.has(name):
                continue
            current = text_of(shown, getattr(row, name))
            typed, was = self.text(name), self.was(name)
            begun = current if was is None else was
            # By what they mean: 12,5 is 12.50.
            if value_of(shown, typed) not in (value_of(shown, begun), value_of(shown, current)):
                values[name] = value_of(shown, typed)
                conflict |= value_of(shown, begun) != value_of(shown, current)
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
            raise Invalid([for_people(schema, fault) for fault in error.errors(include_url=False)]) from None

    def path(self, name: str, otherwise: str) -> str:
        """The path of this app in a hidden field such as `back`, if it is `otherwise` with a query of its own."""
        text = local_path(self.text(name), otherwise)
        return text if text.partition("?")[0] == otherwise else otherwise


async def read_form(request: Request) -> AsyncGenerator[Sent]:
    """Take in a form; its body has a bound like every other. Does no I/O but that."""
    is_wrong = False
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        try:
            unquote_to_bytes(await request.body()).decode()
        except UnicodeDecodeError:
            is_wrong = True
    try:
        form = await request.form(max_fields=2_000)
    except UnicodeError:  # of a character set that nobody uses
        raise UnreadableBody(BadRequest("The form is not UTF-8.")) from None
    sent = request.scope["state"]["visit"].sent = Sent([*form.multi_items()])
    sent.is_wrong |= is_wrong
    try:
        yield sent
    finally:
        await form.close()


SentForm = Annotated[Sent, Depends(read_form)]
