"""The settings of the machinery, read from environment variables or `.env`, and the key that signs tokens."""

import importlib.util
import json
import os
import re
import secrets
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from limits import parse_many
from pydantic import (
    AfterValidator,
    BeforeValidator,
    EmailStr,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

SECRET_KEY_BYTES = 32
# The currencies of ISO 4217 that have none, three or four decimals.
OTHER_DECIMALS = {
    *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF"),
    *("XPF", "BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND", "CLF", "UYW"),
}

Settings = TypeVar("Settings", bound="KitSettings")


class StartRefused(Exception):
    """The app must not start; the message is one sentence that says why and what to do."""


def _default_environment() -> str:
    """`fastapi dev` marks its process with `FASTAPI_ENV`; anything else is production."""
    return "development" if os.environ.get("FASTAPI_ENV") == "development" else "production"


def in_development(values: dict[str, Any]) -> bool:
    """The default of a setting that is on in development only."""
    return values.get("environment") == "development"


def _json_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise ValueError('write it as a JSON list, such as ["localhost"]') from None


def _rate(value: str) -> str:
    try:
        rates = parse_many(value)
    except ValueError:
        rates = []
    if len(rates) != 1 or rates[0].amount < 1:
        raise ValueError("write it as 60/minute or 1000/hour")
    return value


def _is_server(url: str, *schemes: str) -> bool:
    """Whether `url` is a scheme, a host and perhaps credentials, a port and a number; other parts are lost on some."""
    host = r"(\[[0-9a-fA-F:.]+\]|[^@/:?#\[\]\s]+)"
    match = re.fullmatch(rf"({'|'.join(schemes)})://([^@/?#\s]*@)?{host}(:(?P<port>[0-9]{{1,5}}))?(/[0-9]*)?", url)
    return match is not None and int(match["port"] or 1) in range(1, 65536)


def _known_database(url: str) -> str:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: of a port that is no number, which it would repeat
        raise ValueError("it is not a database URL") from None
    on_sqlite_file = parsed.drivername == "sqlite" and parsed.database not in (None, "", ":memory:")
    if not on_sqlite_file and parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ValueError("use sqlite:///path/to/file.db or postgresql://user@host/name")
    return url


def _long_enough(key: SecretStr) -> SecretStr:
    length = len(key.get_secret_value().encode())
    if length < SECRET_KEY_BYTES:
        raise ValueError(f"it is {length} bytes long; it needs at least {SECRET_KEY_BYTES}")
    return key


def _named_origins(origins: list[str]) -> list[str]:
    if "*" in origins:
        raise ValueError("name each origin; '*' would let every site use a signed-in browser")
    return origins


def _known_storage(url: str) -> str:
    if url != "memory://" and not _is_server(url, "redis", "rediss"):
        raise ValueError("use memory:// or redis://host:port/0")
    if url != "memory://" and importlib.util.find_spec("redis") is None:
        raise ValueError("install its client first: uv sync --extra redis")
    return url


def _mail_server(url: SecretStr) -> SecretStr:
    if not _is_server(url.get_secret_value(), "smtp", "smtps"):
        raise ValueError("use smtp://user:password@host:587, or smtps:// for TLS from the first byte")
    return url


def _public_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("use https://host, the address at which people reach the app")
    return url.rstrip("/")


def _currency(code: str) -> str:
    if not re.fullmatch("[A-Z]{3}", code):
        raise ValueError("use the three letters of ISO 4217, such as EUR")
    if code in OTHER_DECIMALS:
        raise ValueError("amounts are in cents, and this currency has not two decimals")
    return code


def _upper_case(level: object) -> object:
    return level.upper() if isinstance(level, str) else level


Rate = Annotated[str, AfterValidator(_rate)]
JsonList = Annotated[list[str], NoDecode, BeforeValidator(_json_list)]
LogLevel = Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class KitSettings(BaseSettings):
    """The settings of the machinery, with their defaults; an app derives its own from it.

    `load_settings` turns a value that is wrong into a sentence.
    """

    model_config = SettingsConfigDict(
        env_prefix="APP_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    environment: Literal["development", "production"] = Field(
        default_factory=_default_environment, validate_default=True
    )
    database_url: Annotated[str, AfterValidator(_known_database)] = "sqlite:///data/app.db"
    secret_key: Annotated[SecretStr, AfterValidator(_long_enough)] | None = None
    allowed_hosts: JsonList = ["localhost", "127.0.0.1", "[::1]", "testserver"]
    cors_origins: Annotated[JsonList, AfterValidator(_named_origins)] = []
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024)
    access_token_minutes: int = Field(default=15, ge=1, le=24 * 60)
    refresh_token_days: int = Field(default=30, ge=1, le=3650)
    auth_rate_limit: Rate = "60/minute"
    rate_limit: Rate | None = None
    rate_limit_storage: Annotated[str, AfterValidator(_known_storage)] = "memory://"
    log_level: Annotated[LogLevel, BeforeValidator(_upper_case)] = "INFO"
    log_json: bool = Field(default_factory=lambda values: values.get("environment") == "production")
    docs: bool = Field(default_factory=in_development)
    migrate_on_start: bool = True
    statement_seconds: int = Field(default=10, ge=1)
    sqlite_synchronous: Literal["FULL", "NORMAL"] = "FULL"
    smtp_url: Annotated[SecretStr, AfterValidator(_mail_server)] | None = None
    mail_from: EmailStr | None = Field(default=None, validate_default=True)
    public_url: Annotated[str, AfterValidator(_public_address)] | None = None
    currency: Annotated[str, AfterValidator(_currency)] = "EUR"

    @field_validator("mail_from")
    @classmethod
    def _sender(cls, address: str | None, info: ValidationInfo) -> str | None:
        if address is None and info.data.get("smtp_url") is not None:
            raise ValueError("it is needed where APP_SMTP_URL is set: the address that mail comes from")
        return address

    @property
    def access_token_lifetime(self) -> timedelta:
        """How long an access token is good, and the token in a browser's cookie before it is renewed."""
        return timedelta(minutes=self.access_token_minutes)

    @property
    def session_lifetime(self) -> timedelta:
        """After how long without use a login session ends."""
        return timedelta(days=self.refresh_token_days)

    @property
    def on_sqlite(self) -> bool:
        """Whether the database is a SQLite file; otherwise it is PostgreSQL."""
        return self.database_url.startswith("sqlite")

    @property
    def sqlite_path(self) -> Path:
        """The SQLite file, where the database is one."""
        return Path(make_url(self.database_url).database or "")

    @property
    def sqlite_uri(self) -> str:
        """The SQLite file as SQLite itself takes it, where `#` and `%` in a path have a meaning."""
        return f"file:{quote(self.sqlite_path.absolute().as_posix(), safe='/:')}"


def load_settings(kind: type[Settings]) -> Settings:
    """Read settings of this kind, or exit with a sentence for each variable that is wrong, without its value."""
    try:
        return kind()
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
        # One wrong value also keeps the defaults that follow from another setting from being worked out.
        wrong = [item for item in wrong if item["type"] != "default_factory_not_called"]
        raise SystemExit("\n".join(_sentence(str(item["loc"][0]), item["msg"]) for item in wrong)) from None


def _sentence(field: str, message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"APP_{field.upper()} is wrong: {message[:1].lower()}{message[1:]}."


def resolve_secret_key(settings: KitSettings) -> str:
    """The key that signs tokens: `APP_SECRET_KEY`, else the one in the `secret_key` file.

    The file is made once (mode 0600), beside the SQLite file or in `data/`, and shared by all workers.

    Raises:
        StartRefused: the file holds too short a key or cannot be read or made.
    """
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    folder = settings.sqlite_path.parent if settings.on_sqlite else Path("data")
    path = folder / "secret_key"
    try:
        if not path.exists():
            _make_secret_file(path)
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"The secret key in {path} cannot be read ({error}); set APP_SECRET_KEY.") from error
    if len(key.encode()) < SECRET_KEY_BYTES:
        raise StartRefused(
            f"The secret key in {path} is {len(key.encode())} bytes long; it needs at least {SECRET_KEY_BYTES}."
        )
    return key


def _make_secret_file(path: Path) -> None:
    """Write a new key under a private name first, then link it: of many workers the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".secret_key.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
