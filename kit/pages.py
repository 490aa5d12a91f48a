"""Pages for people: HTML from templates, on the routes and rules of the API.

A noun has a `PageRouter` beside its `Router`. A page function takes the same `CurrentUser`, sessions and filters, calls
the route functions of the API, and returns a `Template`, or a `See` after a change. A form sends a `Sent`.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from sqlmodel import Session
from starlette.requests import Request
from starlette.responses import Response

from kit.auth import Claims
from kit.errors import FORESEEN, problem_of, shows_pages
from kit.fields import label_of
from kit.forms import Form, local_path
from kit.models import Person
from kit.problems import NotAuthenticated, Problem, RouteNotFound
from kit.rendering import Renderer
from kit.routing import Route
from kit.strict import check_query
from kit.visits import (
    Visit,
    cookie,
    cookie_name,
    is_secure,
    message_of,
    page_before,
    refuse_other_sites,
    visit_of,
    visitor_claims,
    without_empty,
)

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

SAFE = ("GET", "HEAD", "OPTIONS")
MESSAGE_SECONDS = 60
PASSWORD_FIELD = b'type="password"'


class Menu(NamedTuple):
    """An entry of the menu; `badge` names the attribute of the caller that stands beside it, such as a count."""

    label: str
    path: str
    icon: str
    for_admins: bool = False
    badge: str = ""
    rows: str = ""
    """Where the pages of what it lists begin, if not below its path."""

    def is_at(self, path: str) -> bool:
        """Whether a page belongs to this entry."""
        is_below = self.path != "/" and path.startswith(f"{self.path}/")
        return path == self.path or is_below or (self.rows != "" and path.startswith(self.rows))


class Template:
    """A template and what it shows; it is rendered in the thread and the session of its route."""

    def __init__(
        self, template: str, /, *, status: int = 200, headers: Mapping[str, str] | None = None, **context: Any
    ) -> None:
        self.template = template
        self.status = status
        self.headers = dict(headers or {})
        self.context = context


class See(Response):
    """After a change: go to a path of this app (303), and say there, once, what was done; `link` leads to the row."""

    def __init__(self, path: str, text: str = "", *, wrong: bool = False, link: str = "") -> None:
        location = quote(local_path(path), safe="/:?#[]@!$&'()*+,;=%~-._")
        super().__init__(status_code=303, headers={"Location": location})
        self.cookies: dict[str, tuple[str, int]] = {}
        if text:
            said = json.dumps([text[:500], wrong, local_path(link, "")]).encode()
            self.cookies["said"] = (urlsafe_b64encode(said).decode(), MESSAGE_SECONDS)

    def remember(self, name: str, value: str, seconds: int) -> "See":
        """Keep a cookie for so long; none forgets it. Returns itself."""
        self.cookies[name] = (value, seconds)
        return self


class PageRoute(Route):
    """A route that answers with a page. Its caller is the one whom the cookie `session` names.

    Other sites may not post here. A form that is refused is shown again, by the page that has it.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], *, shown_on: str = "", **options: Any) -> None:
        self.shown_on = shown_on or path
        super().__init__(path, endpoint, response_model=None, include_in_schema=False, **options)
        self.declaration = (path, endpoint, options | {"shown_on": self.shown_on})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What a page has around the path of every request."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            visit = visit_of(request)
            request.scope["query_string"] = without_empty(request.scope["query_string"])
            if request.method not in SAFE:
                refuse_other_sites(request)
            visit.said = message_of(request)
            visit.claims = await visitor_claims(request, visit)
            try:
                response = await handle(request)
            except FORESEEN as error:
                problem = problem_of(request, error)
                if problem is None:
                    raise
                if any(fault["loc"][0] == "path" for fault in problem.errors if "loc" in fault):
                    raise RouteNotFound from error
                response = await self._shown_again(request, problem)
            if isinstance(response, See):
                visit.cookies |= response.cookies
            return finished(request, response)

        return answer

    def claims_of(self, request: Request) -> Claims | None:
        """Who the cookie says is calling; None where nobody has to be signed in."""
        claims = visit_of(request).claims
        if claims is None and self.declared.callers.keys() - self.declared.optional:
            raise NotAuthenticated
        return claims

    def check_query(self, request: Request) -> None:
        """Names that nobody declared are ignored: links get some on their way."""
        check_query(request, None)

    def identify(self, request: Request, session: Session, claims: Claims) -> dict[str, Person | None]:
        """The callers, whom the frame of every page shows; one who is optional may be gone."""
        found: dict[str, Person | None] = {}
        for name, caller in self.declared.callers.items():
            try:
                found[name] = visit_of(request).person = caller.identify(request, session, claims)
            except NotAuthenticated:
                if name not in self.declared.optional:
                    raise
        return found

    def respond(self, request: Request, result: object, declared: Response | None) -> Response:
        """Render a page."""
        if isinstance(result, Template):
            return render(request, result)
        return super().respond(request, result, declared)

    async def _shown_again(self, request: Request, problem: Problem) -> Response:
        """The page with the form that was refused, as things are now, with what was typed and what is wrong with it."""
        page = request.app.page_routes.get(self.shown_on)
        of_all = problem.status >= 500 or isinstance(problem, NotAuthenticated)
        if request.method in SAFE or page is None or of_all or not shows_pages(request):
            raise problem
        visit_of(request).problem = problem
        path = self.shown_on.format_map(request.path_params)  # what its links begin with
        scope = dict(request.scope) | {"method": "GET", "path": path}
        try:
            response: Response = await page.answer_alone(Request(scope, request.receive))
        except FORESEEN:
            if problem.status == 403:  # who may not do it does not hear whether the row is there
                raise problem from None
            raise
        if isinstance(response, See):  # there is no such form for this caller
            raise problem
        response.status_code = problem.status
        response.headers.update({name: value for name, value in problem.headers.items() if name == "Retry-After"})
        return response

    async def answer_alone(self, request: Request) -> Response:
        """The answer to a request that another route has let in."""
        return await super().get_route_handler()(request)


class PageRouter:
    """The pages of one noun. Each must know its caller, by `CurrentUser`, unless the router says `public=True`."""

    def __init__(self, *menu: Menu, public: bool = False) -> None:
        self.menu = menu
        self.public = public
        self.routes: list[PageRoute] = []

    def get(self, path: str) -> Callable[[Endpoint], Endpoint]:
        """A page."""
        return partial(self._add, path, methods=["GET"])

    def post(
        self, path: str, *, shown_on: str = "", max_body_size: int | None = None
    ) -> Callable[[Endpoint], Endpoint]:
        """What a form sends; `shown_on` is the path of the page that has the form, where that is another one."""
        return partial(self._add, path, methods=["POST"], shown_on=shown_on, max_body_size=max_body_size)

    def _add(self, path: str, endpoint: Endpoint, **options: Any) -> Endpoint:
        route = PageRoute(path, endpoint, **options)
        if not (self.public or route.declared.callers):
            raise TypeError(f"{endpoint.__name__} is open to everyone: take a CurrentUser, or use a public router.")
        self.routes.append(route)
        return endpoint


# Rendering


def render(request: Request, page: Template) -> Response:
    """The HTML of a page. What has a password field is never stored."""
    visit = visit_of(request)
    forms = [value for value in page.context.values() if isinstance(value, Form)]
    answered = [form for form in forms if form.take(visit.sent, visit.problem)]
    renderer: Renderer = request.app.renderer
    frame = _frame(request, visit)
    if visit.problem is not None and not answered:
        frame["alert"] = visit.problem.said
    html = renderer.render(page.template, frame, page.context).encode()
    if visit.said is not None:
        visit.cookies.setdefault("said", ("", 0))
    response = Response(html, page.status, page.headers, "text/html")
    if PASSWORD_FIELD in html:
        response.headers["Cache-Control"] = "no-store"
    return response


def problem_page(request: Request, problem: Problem) -> Response:
    """A problem as a page; who must sign in is sent to the page for that, and comes back afterwards."""
    visit = visit_of(request)
    if isinstance(problem, NotAuthenticated):
        if cookie(request, "session"):
            visit.cookies["session"] = ("", 0)
        query = request.scope["query_string"].decode("latin-1")
        asked = request.scope["path"] + (f"?{query}" if query else "")
        wanted = asked if request.method in SAFE else page_before(request)
        back = f"?{urlencode({'next': wanted})}" if wanted else ""
        return finished(request, See(f"{request.app.credentials.sign_in}{back}"))
    visit.problem = problem
    renderer: Renderer = request.app.renderer
    html = renderer.render("problem.html", _frame(request, visit) | {"alert": ""}, {})
    if visit.said is not None:
        visit.cookies.setdefault("said", ("", 0))
    headers = {name: value for name, value in problem.headers.items() if name != "WWW-Authenticate"}
    return finished(request, Response(html, problem.status, headers, "text/html"))


def _said(problem: Problem) -> str:
    """What is wrong; of an address, which of its parts, because nobody typed the words that a schema uses."""
    parts = {
        label_of(str(fault["loc"][-1])) for fault in problem.errors if "loc" in fault and fault["loc"][0] == "query"
    }
    return (
        f"The address of this page has a part that is not right: {', '.join(sorted(parts))}." if parts else problem.said
    )


def _frame(request: Request, visit: Visit) -> dict[str, Any]:
    """What every template knows."""
    path: str = request.scope["path"]
    person: Any = visit.person or request.scope["state"].get("caller")
    problem = visit.problem
    entries = [
        {
            "path": entry.path,
            "label": entry.label,
            "icon": entry.icon,
            "count": getattr(person, entry.badge) if entry.badge else 0,
            "current": entry.is_at(path),
        }
        for entry in (request.app.menu if person else ())
        if person.is_admin or not entry.for_admins
    ]
    query = parse_qsl(request.scope["query_string"].decode("latin-1"))

    def link(**changes: Any) -> str:
        """The address of this page with other parameters in its query."""
        changes = {"page": None, "cursor": None} | changes
        kept = [(name, value) for name, value in query if name not in changes]
        new = [(name, value) for name, value in changes.items() if value is not None]
        return f"{path}?{urlencode(kept + new)}" if kept or new else path

    return {
        "product": request.app.title,
        "person": person,
        "menu": entries,
        "said": visit.said,
        "path": path,
        "link": link,
        "request_id": request.scope["state"].get("request_id", ""),
        "zone": request.cookies.get("zone", ""),
        "alert": "",
        "problem": problem
        and {
            "status": problem.status,
            "code": problem.code,
            "detail": _said(problem),
            "errors": problem.errors,
            "wait": problem.wait,
            "title": "Not found" if problem.status == 404 else "That did not work",
        },
    }


def finished(request: Request, response: Response) -> Response:
    """The answer with its cookies, which no other site's page can read or send, and with what may be cached of it."""
    secure = is_secure(request)
    for name, (value, seconds) in visit_of(request).cookies.items():
        response.set_cookie(
            cookie_name(request, name),
            value,
            max_age=seconds,
            path="/",
            secure=secure,
            httponly=True,
            samesite="lax",
        )
    response.headers.setdefault("Cache-Control", "private, no-cache")
    return response
