"""Templates and the files that pages load: Jinja2, what its filters make of values, and static files by their hash."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache, partial
from hashlib import sha256
from mimetypes import guess_type
from pathlib import Path
from typing import Any, NamedTuple, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.responses import Response

from kit.problems import RouteNotFound
from kit.settings import KitSettings

KIT = Path(__file__).parent
APP = KIT.parent
SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£"}
FOR_GOOD = "public, max-age=31536000, immutable"


class StaticFile(NamedTuple):
    """A file in memory, and the hash of what is in it."""

    content: bytes
    hash: str
    media_type: str


class Renderer:
    """Turns templates into HTML. A template or file of the app comes before one of the kit with the same name.

    In development both are read anew when they change. `more` are further names that all templates know.
    """

    def __init__(self, settings: KitSettings, **more: Any) -> None:
        self.in_development = settings.environment == "development"
        self.environment = Environment(
            loader=FileSystemLoader([APP / "templates", KIT / "templates"]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=self.in_development,
        )
        names: dict[str, Any] = {"static": self.url, "currency": settings.currency, **more}
        self.environment.globals.update(names)
        filters: dict[str, Any] = {
            "money": partial(money, currency=settings.currency),
            "number": "{:,}".format,
            "moment": _moment,
            "day": _day,
            "lines": _lines,
            "shown": _shown,
        }
        self.environment.filters.update(filters)
        self.files = {name: _read(path) for name, path in _paths([KIT / "static", APP / "static"]).items()}

    def render(self, template: str, frame: Mapping[str, Any], context: Mapping[str, Any]) -> str:
        """The HTML of a template; `frame` is for the macros, too, which every template has as `ui`."""
        ui = self.environment.get_template("parts.html").make_module(dict(frame))
        return self.environment.get_template(template).render({**frame, "ui": ui, **context})

    def url(self, name: str) -> str:
        """The path of a static file; it changes with what is in it."""
        if self.in_development:
            self.files[name] = _read(_paths([KIT / "static", APP / "static"])[name])
        return f"/static/{self.files[name].hash}/{name}"

    def file(self, known_hash: str, name: str) -> Response:
        """A static file, kept for good by its own hash and not by another: workers of two versions may run at once.

        Raises:
            RouteNotFound: there is no such file.
        """
        if name not in self.files:
            raise RouteNotFound
        found = self.files[name]
        headers = {"Cache-Control": FOR_GOOD if known_hash == found.hash else "no-store"}
        return Response(found.content, media_type=found.media_type, headers=headers)


def _paths(folders: Sequence[Path]) -> dict[str, Path]:
    return {path.name: path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file()}


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    media_type = guess_type(path.name)[0] or "application/octet-stream"
    return StaticFile(content, sha256(content).hexdigest()[:12], media_type)


def money(cents: int, currency: str) -> str:
    """An amount with its currency, such as €1,234.50 or CHF 0.05."""
    symbol = SYMBOLS.get(currency, f"{currency}\N{NO-BREAK SPACE}")
    return f"{'-' if cents < 0 else ''}{symbol}{abs(cents) // 100:,}.{abs(cents) % 100:02}"


class Cents(int):
    """An amount in cents, which the filter `shown` tells from other numbers."""


@lru_cache(maxsize=1_000)
def zone_named(name: str) -> ZoneInfo | None:
    """The time zone that a browser says it is in; None where there is no such zone."""
    try:
        return ZoneInfo(name[:64])
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return None


@pass_context
def _moment(context: Context, moment: datetime) -> Markup:
    """A time in the zone of the reader, and in UTC where that is not known, which the frame then says."""
    zone = zone_named(context["zone"]) if context["zone"] else None
    there = moment.astimezone(zone or UTC)
    shown = f"{short_date(there)}, {there:%H:%M}{'' if zone else ' UTC'}"
    return Markup('<time datetime="{}">{}</time>').format(f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", shown)


@pass_context
def _shown(context: Context, value: object) -> str:
    """A value of any type as people read it; that of a dict has its name in front."""
    match value:
        case Cents():
            return money(value, context["currency"])
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case datetime():
            return _moment(context, value)
        case date():
            return short_date(value)
        case dict():
            pairs = cast(dict[str, Any], value).items()
            return Markup(", ").join(Markup("{} {}").format(name.lower(), _shown(context, one)) for name, one in pairs)
        case list():
            parts = cast(list[Any], value)
            between = Markup("; ") if any(isinstance(part, dict) for part in parts) else Markup(", ")
            return between.join(_shown(context, part) for part in parts) or "none"
        case None | "":
            return "none"
        case _:
            return str(value)


def short_date(day: date) -> str:
    """A date such as 24 Nov 2026."""
    return f"{_day(day)} {day.year}"


def _day(day: date) -> str:
    return f"{day.day} {day:%b}"


def _lines(text: str) -> Markup:
    return Markup("<br>").join(text.split("\n"))
