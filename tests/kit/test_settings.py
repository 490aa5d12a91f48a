"""The settings: their defaults, what a wrong value says, and the key that signs tokens."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kit.settings import KitSettings, StartRefused, load_settings, resolve_secret_key
from tests.server import ROOT

KEY = "0123456789abcdef0123456789abcdef"

DEFAULTS = {
    "environment": "production",
    "database_url": "sqlite:///data/app.db",
    "secret_key": None,
    "allowed_hosts": ["localhost", "127.0.0.1", "[::1]", "testserver"],
    "cors_origins": [],
    "max_body_bytes": 1048576,
    "access_token_minutes": 15,
    "refresh_token_days": 30,
    "auth_rate_limit": "60/minute",
    "rate_limit": None,
    "rate_limit_storage": "memory://",
    "log_level": "INFO",
    "log_json": True,
    "docs": False,
    "migrate_on_start": True,
    "statement_seconds": 10,
    "sqlite_synchronous": "FULL",
    "smtp_url": None,
    "mail_from": None,
    "public_url": None,
    "currency": "EUR",
}

RATE = "write it as 60/minute or 1000/hour"
STORAGE = "use memory:// or redis://host:port/0"
MAIL_SERVER = "use smtp://user:password@host:587, or smtps:// for TLS from the first byte"

# variable, a wrong value, a part of the sentence
WRONG = [
    ("APP_ENVIRONMENT", "staging-7", "'development' or 'production'"),
    ("APP_DATABASE_URL", "mysql://root:hunter2@db/app", "sqlite:///path/to/file.db or postgresql://"),
    ("APP_DATABASE_URL", "postgresql+psycopg2://u:hunter2@db/app", "sqlite:///path/to/file.db or postgresql://"),
    ("APP_DATABASE_URL", "hunter2", "not a database URL"),
    ("APP_DATABASE_URL", "postgresql://ada:hunter2", "not a database URL"),
    ("APP_DATABASE_URL", "postgresql://ada@db:hunter2/app", "not a database URL"),
    ("APP_DATABASE_URL", "sqlite://", "sqlite:///path/to/file.db"),
    ("APP_DATABASE_URL", "sqlite:///:memory:", "sqlite:///path/to/file.db"),
    ("APP_SECRET_KEY", KEY[1:], "31 bytes long; it needs at least 32"),
    ("APP_ALLOWED_HOSTS", "hunter2.example.com", 'write it as a JSON list, such as ["localhost"]'),
    ("APP_ALLOWED_HOSTS", '{"hunter2": 1}', "valid list"),
    ("APP_ALLOWED_HOSTS", "[7777]", "valid string"),
    ("APP_CORS_ORIGINS", "https://hunter2.example.com", "write it as a JSON list"),
    ("APP_CORS_ORIGINS", '["https://hunter2.example.com", "*"]', "name each origin"),
    ("APP_ACCESS_TOKEN_MINUTES", "0", "greater than or equal to 1"),
    ("APP_ACCESS_TOKEN_MINUTES", "fifteen-7", "valid integer"),
    ("APP_REFRESH_TOKEN_DAYS", "99999999", "less than or equal to 3650"),
    ("APP_PUBLIC_URL", "hunter2.example.com", "use https://host"),
    ("APP_PUBLIC_URL", "https://example.com/hunter2", "use https://host"),
    ("APP_PUBLIC_URL", "javascript:hunter2", "use https://host"),
    ("APP_CURRENCY", "hunter2", "three letters of ISO 4217"),
    ("APP_CURRENCY", "JPY", "this currency has not two decimals"),
    ("APP_CURRENCY", "KWD", "this currency has not two decimals"),
    ("APP_MAX_BODY_BYTES", "1023", "greater than or equal to 1024"),
    ("APP_MAX_BODY_BYTES", "1023.5", "valid integer"),
    ("APP_LOG_LEVEL", "LOUD", "'TRACE', 'DEBUG'"),
    ("APP_LOG_JSON", "perhaps-7", "valid boolean"),
    ("APP_DOCS", "perhaps-7", "valid boolean"),
    ("APP_MIGRATE_ON_START", "perhaps-7", "valid boolean"),
    ("APP_STATEMENT_SECONDS", "0", "greater than or equal to 1"),
    ("APP_STATEMENT_SECONDS", "never-7", "valid integer"),
    ("APP_AUTH_RATE_LIMIT", "60", RATE),
    ("APP_AUTH_RATE_LIMIT", "sixty/minute", RATE),
    ("APP_AUTH_RATE_LIMIT", "60/fortnight", RATE),
    ("APP_AUTH_RATE_LIMIT", "0/minute", RATE),
    ("APP_AUTH_RATE_LIMIT", "-1/minute", RATE),
    ("APP_AUTH_RATE_LIMIT", "60/minute;1/second", RATE),
    ("APP_RATE_LIMIT", "hunter2", RATE),
    ("APP_RATE_LIMIT_STORAGE", "memory", STORAGE),
    ("APP_RATE_LIMIT_STORAGE", "memcached://localhost", STORAGE),
    ("APP_RATE_LIMIT_STORAGE", "redis://", STORAGE),
    ("APP_RATE_LIMIT_STORAGE", "redis://:hunter2@localhost:redis", STORAGE),
    ("APP_RATE_LIMIT_STORAGE", "redis://localhost:65536/0", STORAGE),
    ("APP_RATE_LIMIT_STORAGE", "redis://localhost/first", STORAGE),
    ("APP_RATE_LIMIT_STORAGE", "redis://localhost/0?socket_timeout=never", STORAGE),
    ("APP_SMTP_URL", "hunter2", MAIL_SERVER),
    ("APP_SMTP_URL", "http://mail.example.com", MAIL_SERVER),
    ("APP_SMTP_URL", "smtp://", MAIL_SERVER),
    ("APP_SMTP_URL", "smtp://mail.example.com:hunter2", MAIL_SERVER),
    ("APP_SMTP_URL", "smtp://mail.example.com:65536", MAIL_SERVER),
    ("APP_SMTP_URL", "smtp://mail.example.com:0", MAIL_SERVER),
    ("APP_SMTP_URL", "smtp://ada:hunter#2@mail.example.com", MAIL_SERVER),
    ("APP_SMTP_URL", "smtp://ada:hunter/2@mail.example.com", MAIL_SERVER),
    ("APP_SMTP_URL", "smtp://ada:hunter2@mail.example.com?tls=no", MAIL_SERVER),
    ("APP_SMTP_URL", "smtp://ada:hunter2@mail.example.com\n", MAIL_SERVER),
    ("APP_SMTP_URL", "smtp://[::1:587", MAIL_SERVER),
]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder to start in, and no variable of ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("APP_SECRET_KEY")
    monkeypatch.delenv("FASTAPI_ENV", raising=False)


def python(folder: Path, code: str, **variables: str) -> "subprocess.Popen[str]":
    """Another interpreter, started in `folder` with these variables."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | variables
    return subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_every_setting_has_a_default() -> None:
    assert load_settings(KitSettings).model_dump() == DEFAULTS


def test_development_has_defaults_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_ENV", "development")
    ours = {"environment": "development", "log_json": False, "docs": True}

    assert load_settings(KitSettings).model_dump() == DEFAULTS | ours


@pytest.mark.parametrize(
    ("fastapi_env", "app_environment", "environment"),
    [
        (None, None, "production"),
        ("development", None, "development"),
        ("production", None, "production"),
        ("something else", None, "production"),
        ("", None, "production"),
        ("development", "production", "production"),
        ("production", "development", "development"),
        ("development", "", "development"),
    ],
)
def test_the_environment_is_that_of_fastapi_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch, fastapi_env: str | None, app_environment: str | None, environment: str
) -> None:
    for name, value in (("FASTAPI_ENV", fastapi_env), ("APP_ENVIRONMENT", app_environment)):
        if value is not None:
            monkeypatch.setenv(name, value)

    assert load_settings(KitSettings).environment == environment


def test_what_follows_from_the_environment_can_be_set_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_DOCS", "true")
    monkeypatch.setenv("APP_LOG_JSON", "false")
    settings = load_settings(KitSettings)

    assert (settings.environment, settings.docs, settings.log_json) == ("production", True, False)


def test_a_wrong_value_stops_the_start_with_a_sentence_that_does_not_repeat_it(subtests: pytest.Subtests) -> None:
    for variable, value, sentence in WRONG:
        with subtests.test(f"{variable}={value}"), pytest.MonkeyPatch.context() as patched:
            patched.setenv(variable, value)
            with pytest.raises(SystemExit) as refused:
                load_settings(KitSettings)
            message = str(refused.value)
            assert message.startswith(f"{variable} is wrong: ")
            assert message.endswith(".")
            assert "\n" not in message
            assert sentence in message
            assert value not in message.removeprefix(variable).split()
            assert "hunter2" not in message


def test_each_wrong_value_has_a_sentence_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_MAX_BODY_BYTES", "99")
    monkeypatch.setenv("APP_ENVIRONMENT", "staging")
    with pytest.raises(SystemExit) as refused:
        load_settings(KitSettings)

    assert [line.split()[0] for line in str(refused.value).splitlines()] == ["APP_ENVIRONMENT", "APP_MAX_BODY_BYTES"]


def test_lists_are_written_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ALLOWED_HOSTS", '["shop.example.com", "*.example.org"]')
    monkeypatch.setenv("APP_CORS_ORIGINS", '["https://shop.example.com"]')
    settings = load_settings(KitSettings)

    assert settings.allowed_hosts == ["shop.example.com", "*.example.org"]
    assert settings.cors_origins == ["https://shop.example.com"]


@pytest.mark.parametrize("level", ["debug", "DEBUG", "Debug"])
def test_the_log_level_may_be_written_in_any_case(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setenv("APP_LOG_LEVEL", level)

    assert load_settings(KitSettings).log_level == "DEBUG"


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.setenv(f"APP_{name.upper()}", "")

    assert load_settings(KitSettings).model_dump() == DEFAULTS


def test_settings_are_also_read_from_a_file_that_the_environment_overrules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(KitSettings.model_config, "env_file", tmp_path / ".env")
    (tmp_path / ".env").write_text("APP_RATE_LIMIT=5/minute\nAPP_MAX_BODY_BYTES=5000\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("APP_MAX_BODY_BYTES", "6000")
    settings = load_settings(KitSettings)

    assert (settings.rate_limit, settings.max_body_bytes) == ("5/minute", 6000)


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    settings = KitSettings.model_validate(
        {"secret_key": KEY, "smtp_url": "smtp://ada:hunter2@localhost", "mail_from": "ada@example.com"}
    )

    assert KEY not in repr(settings)
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("key", [KEY, "ä" * 16])
def test_a_key_of_32_bytes_is_long_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str) -> None:
    monkeypatch.setenv("APP_SECRET_KEY", key)

    assert resolve_secret_key(load_settings(KitSettings)) == key
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_made_once_beside_the_sqlite_file(tmp_path: Path) -> None:
    settings = KitSettings(database_url=f"sqlite:///{tmp_path}/deep/down/app.db")
    key = resolve_secret_key(settings)
    path = tmp_path / "deep" / "down" / "secret_key"

    assert len(key.encode()) >= 32
    assert path.read_text() == key == resolve_secret_key(settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_key_of_a_postgres_app_is_in_the_data_folder(tmp_path: Path) -> None:
    key = resolve_secret_key(KitSettings(database_url="postgresql://localhost/stockroom"))

    assert (tmp_path / "data" / "secret_key").read_text() == key


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    code = "from kit.settings import *; print(resolve_secret_key(load_settings(KitSettings)))"
    processes = [python(tmp_path, code, APP_DATABASE_URL="sqlite:///app.db") for _ in range(8)]
    ends = [process.communicate(timeout=60) for process in processes]

    assert {errors for _, errors in ends} == {""}
    assert {output.strip() for output, _ in ends} == {(tmp_path / "secret_key").read_text()}
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (KEY[1:].encode(), "is 31 bytes long; it needs at least 32"),
        (b"", "is 0 bytes long; it needs at least 32"),
        (b" \n" * 20, "is 0 bytes long; it needs at least 32"),
        (b"\xff" * 40, "cannot be read"),
    ],
)
def test_a_key_file_that_is_no_use_refuses_the_start(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "secret_key"
    path.write_bytes(content)
    with pytest.raises(StartRefused) as refused:
        resolve_secret_key(KitSettings(database_url=f"sqlite:///{tmp_path}/app.db"))

    assert sentence in str(refused.value)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_stored_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(StartRefused, match="set APP_SECRET_KEY"):
        resolve_secret_key(KitSettings(database_url=f"sqlite:///{tmp_path}/file/app.db"))


# The count of rates, and mail


def test_a_storage_whose_client_is_missing_refuses_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_name: str) -> None: ...

    monkeypatch.setenv("APP_RATE_LIMIT_STORAGE", "redis://localhost")
    monkeypatch.setattr("importlib.util.find_spec", find_nothing)
    with pytest.raises(SystemExit, match="uv sync --extra redis"):
        load_settings(KitSettings)


def test_a_right_storage_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("redis://localhost", "rediss://ada:p%2Fw@cache.example.com:6380/2", "redis://[::1]:6379"):
        monkeypatch.setenv("APP_RATE_LIMIT_STORAGE", url)

        assert load_settings(KitSettings).rate_limit_storage == url


def test_a_right_mail_server_is_taken_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_MAIL_FROM", "house@example.com")
    with_a_login = "smtps://ada%40example.com:p%2Fw@mail.example.com:465"
    for url in ("smtp://localhost", "smtp://127.0.0.1:25/", with_a_login, "smtp://[::1]:25"):
        monkeypatch.setenv("APP_SMTP_URL", url)

        assert url not in repr(load_settings(KitSettings))


@pytest.mark.parametrize(
    ("sender", "sentence"), [(None, "it is needed where APP_SMTP_URL is set"), ("house", "not a valid email address")]
)
def test_mail_needs_an_address_that_it_comes_from(
    sender: str | None, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_SMTP_URL", "smtp://localhost")
    if sender:
        monkeypatch.setenv("APP_MAIL_FROM", sender)
    with pytest.raises(SystemExit, match=f"^APP_MAIL_FROM is wrong: .*{sentence}"):
        load_settings(KitSettings)
