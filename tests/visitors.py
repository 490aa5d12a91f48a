"""People at a browser without JavaScript: they follow redirects, keep cookies, and send the forms of a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi.testclient import TestClient
from httpx2 import Response

from tests.people import PASSWORD

Fields = Mapping[str, str] | Sequence[tuple[str, str]]
CHOICES = ("checkbox", "radio")
HEADERS = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Site": "same-origin"}


@dataclass
class Form:
    """A form as it stands in a page, with what its fields hold."""

    action: str
    method: str
    fields: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    files: list[str] = field(default_factory=list[str])

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name]

    def __contains__(self, name: str) -> bool:
        return name in dict(self.fields)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.open: Form | None = None
        self.textarea: str | None = None
        self.select: tuple[str, list[tuple[str, bool]]] | None = None
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag in ("script", "style", "title"):
            self.silent += 1
        elif tag == "form":
            self.open = Form(found.get("action", ""), found.get("method", "get").lower())
            self.forms.append(self.open)
        elif tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "select":
            self.select = (found["name"], [])
        elif tag == "option" and self.select:
            self.select[1].append((found.get("value", ""), "selected" in found))
        elif tag == "textarea":
            self.textarea = found["name"]
            self._add(found["name"], "")
        elif tag == "input" and found.get("type") == "file" and self.open:
            self.open.files.append(found["name"])
        elif tag == "input" and "name" in found and (found.get("type") not in CHOICES or "checked" in found):
            self._add(found["name"], found.get("value", "on" if found.get("type") in CHOICES else ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "title"):
            self.silent -= 1
        elif tag == "form":
            self.open = None
        elif tag == "textarea":
            self.textarea = None
        elif tag == "select" and self.select:
            name, options = self.select
            chosen = next((value for value, is_chosen in options if is_chosen), options[0][0] if options else "")
            self._add(name, chosen)
            self.select = None

    def handle_data(self, data: str) -> None:
        if self.textarea is not None and self.open:
            name, text = self.open.fields.pop()
            self.open.fields.append((name, text + data.removeprefix("\n") if not text else text + data))
        elif not self.silent and data.strip():
            self.words.append(" ".join(data.split()))

    def _add(self, name: str, value: str) -> None:
        if self.open is not None:
            self.open.fields.append((name, value))


class View:
    """A page as somebody sees it."""

    def __init__(self, answer: Response, path: str) -> None:
        self.answer = answer
        self.status = answer.status_code
        self.path = path
        self.html = answer.text
        reader = _Reader()
        reader.feed(self.html)
        self.forms, self.links = reader.forms, reader.links
        self.text = " ".join(reader.words)

    def form(self, action: str = "") -> Form:
        """The form with this action (its own path by default)."""
        found = [form for form in self.forms if (form.action or self.path).partition("?")[0] == (action or self.path)]
        assert found, f"No form for {action or self.path} among {[form.action for form in self.forms]}"
        return found[0]


class Visitor:
    """One browser."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.cookies: dict[str, str] = {}
        self.last: View | None = None

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any) -> Response:
        """The answer itself, without following where it leads; its cookies are kept."""
        sent = HEADERS | {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        answer = self.client.request(method, path, headers=sent | (headers or {}), follow_redirects=False, **options)
        self.client.cookies.clear()
        for cookie in answer.headers.get_list("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            if "max-age=0" in cookie.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value.strip('"')
        return answer

    def get(self, path: str) -> View:
        """The page at an address, or where it leads."""
        return self._follow(self.request("GET", path), path)

    def post(self, path: str, fields: Fields = (), **options: Any) -> View:
        """What comes of sending fields, with or without a form for them."""
        pairs = [*fields.items()] if isinstance(fields, Mapping) else [*fields]
        if "files" in options:
            return self._follow(self.request("POST", path, data=dict(pairs), **options), path)
        headers = {"Content-Type": "application/x-www-form-urlencoded"} | options.pop("headers", {})
        return self._follow(self.request("POST", path, content=urlencode(pairs), headers=headers, **options), path)

    def send(self, action: str = "", **typed: str) -> View:
        """Type into the form of the page that was seen last, and send it."""
        assert self.last is not None
        form = self.last.form(action)
        assert form.method == "post"
        names = {name.replace("__", "-"): text for name, text in typed.items()}
        missing = names.keys() - {name for name, _ in form.fields} - set(form.files)
        fields = [(name, value) for name, value in form.fields if name not in names]
        return self.post((form.action or self.last.path), [*fields, *names.items()] if not missing else _fail(missing))

    def _follow(self, answer: Response, path: str) -> View:
        for _ in range(5):
            if answer.status_code not in (302, 303):
                break
            path = answer.headers["location"]
            answer = self.request("GET", path)
        self.last = View(answer, urlsplit(path).path)
        return self.last


def _fail(missing: set[str]) -> list[tuple[str, str]]:
    raise AssertionError(f"The form has no field {', '.join(sorted(missing))}.")


def visiting(client: TestClient, email: str, password: str = PASSWORD) -> Visitor:
    """Somebody who has an account, signed in at a browser."""
    visitor = Visitor(client)
    visitor.get("/sign-in")
    view = visitor.post("/sign-in", {"email": email, "password": password})
    assert view.status == 200, view.text
    assert "session" in visitor.cookies
    return visitor
