"""A visit: what one request for a page brings along, its cookies above all, and whether it may do anything."""

import json
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request

from kit.auth import Claims, read_page_token, sign_page_token
from kit.db import Database, ending
from kit.forms import Sent, local_path
from kit.models import Person
from kit.problems import NotAuthenticated, Problem
from kit.sessions import LoginSession
from kit.strict import FORBIDDEN_TEXT


class CrossSite(Problem):
    """403: a form of another site, or a client that does not say where its form came from."""

    status = 403
    detail = "This came from another site, so nothing was done; open the page here and try again."


class Message(NamedTuple):
    """What is said once, on the next page."""

    text: str
    wrong: bool = False
    link: str = ""


@dataclass
class Visit:
    """What belongs to one request for a page: what its cookies said, and the cookies of its answer."""

    said: Message | None = None
    person: Person | None = None
    claims: Claims | None = None
    sent: Sent | None = None
    problem: Problem | None = None
    cookies: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    """Values and seconds by name; no seconds forget the cookie."""


def visit_of(request: Request) -> Visit:
    """The visit of a request, made at the first call."""
    state: dict[str, Any] = request.scope.setdefault("state", {})
    return state.setdefault("visit", Visit())


def back_to(request: Request, path: str) -> str:
    """The list at `path` as somebody left it, with its filters and its page, if that is where they come from.

    A form sends it along as `back`, and what it sends goes to `sent.path("back", path)`.
    """
    left = page_before(request)
    return left if left.partition("?")[0] == path else path


def page_before(request: Request) -> str:
    """The path and the query of the page that somebody comes from; empty where that is not known."""
    try:
        left = urlsplit(request.headers.get("referer", ""))
    except ValueError:  # such as http://[
        return ""
    return local_path(left._replace(scheme="", netloc="", fragment="").geturl(), "")


def cookie_name(request: Request, name: str) -> str:
    """The name of a cookie; `__Host-` binds it to this very host, and needs TLS or localhost."""
    return f"__Host-{name}" if is_secure(request) else name


def cookie(request: Request, name: str) -> str:
    """What a cookie says; empty where it is not there."""
    return request.cookies.get(cookie_name(request, name), "")


def is_secure(request: Request) -> bool:
    """Whether cookies are for TLS only; in development there is none."""
    return request.app.settings.environment != "development"


def page_token(request: Request, login_session: LoginSession) -> str:
    """The token for the cookie of a login session, as of now."""
    state = request.app.state
    lifetime = state.settings.access_token_lifetime
    return sign_page_token(state.secret_key, login_session.user_id, login_session.id, lifetime, login_session.renewals)


async def visitor_claims(request: Request, visit: Visit) -> Claims | None:
    """The claims of the cookie; renewed, in one write, where it has expired. Does no I/O itself."""
    token = cookie(request, "session")
    if not token:
        return None
    try:
        claims = read_page_token(token, request.app.state.secret_key)
        if claims.is_living:
            return claims
        database: Database = request.app.state.database
        token = await database.writers.run(partial(_renewed, request, database, claims))
    except NotAuthenticated:
        visit.cookies["session"] = ("", 0)
        return None
    visit.cookies["session"] = (token, session_seconds(request))
    return read_page_token(token, request.app.state.secret_key)


def _renewed(request: Request, database: Database, claims: Claims) -> str:
    lifetime = request.app.state.settings.session_lifetime
    with ending(database.write()) as session:
        return page_token(request, LoginSession.renew(session, claims.sid, claims.renewals, lifetime))


def session_seconds(request: Request) -> int:
    """How long a browser keeps the cookie of a login session."""
    return int(request.app.state.settings.session_lifetime.total_seconds())


def refuse_other_sites(request: Request) -> None:
    """Let only forms of this site through; browsers say where a form came from, and cannot be made to lie.

    `Sec-Fetch-Site` is missing on plain HTTP, so `Origin` counts there; TLS ends at a proxy, so only its host does.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise CrossSite
        return
    origin, host = request.headers.get("origin", "null"), request.headers.get("host", "")
    if origin.partition("://")[2].lower() != host.lower():
        raise CrossSite


def message_of(request: Request) -> Message | None:
    """What the last page left to be said on this one."""
    try:
        content = urlsafe_b64decode(cookie(request, "said")).decode()
        text, wrong, link = json.loads(content)
        if FORBIDDEN_TEXT.search(f"{text}{link}"):  # half a character could not be sent
            return None
        return Message(str(text), wrong is True, local_path(str(link), ""))
    except (ValueError, TypeError, RecursionError):  # none, or not one of ours
        return None


def without_empty(query: bytes) -> bytes:
    """A form that is sent by GET sends its empty fields, too."""
    return b"&".join(part for part in query.split(b"&") if part.partition(b"=")[2])
