"""The settings of this app: their defaults, and what a wrong value says. Those of the kit are in `tests/kit`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.settings import KitSettings, load_settings
from settings import Settings
from tests.server import ROOT

DEFAULTS = {
    "registration_open": False,
    "admin_email": None,
    "admin_password": None,
    "bcrypt_rounds": 12,
    "login_attempts": 5,
    "login_window_seconds": 900,
}

# variable, a wrong value, a part of the sentence
WRONG = [
    ("APP_REGISTRATION_OPEN", "perhaps-7", "valid boolean"),
    ("APP_ADMIN_EMAIL", "hunter2", "email address"),
    ("APP_BCRYPT_ROUNDS", "3", "greater than or equal to 4"),
    ("APP_BCRYPT_ROUNDS", "17", "less than or equal to 16"),
    ("APP_LOGIN_ATTEMPTS", "0", "greater than or equal to 1"),
    ("APP_LOGIN_WINDOW_SECONDS", "0", "greater than or equal to 1"),
    ("APP_LOGIN_WINDOW_SECONDS", "99999999999", "less than or equal to"),
]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder to start in, and no variable of ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("APP_SECRET_KEY")
    monkeypatch.delenv("FASTAPI_ENV", raising=False)


def own(settings: Settings) -> dict[str, object]:
    """The settings that the kit does not have."""
    return {name: value for name, value in settings.model_dump().items() if name not in KitSettings.model_fields}


def test_every_setting_has_a_default() -> None:
    assert own(load_settings(Settings)) == DEFAULTS


def test_in_development_people_may_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_ENV", "development")
    assert own(load_settings(Settings)) == DEFAULTS | {"registration_open": True}

    monkeypatch.setenv("APP_REGISTRATION_OPEN", "false")
    assert not load_settings(Settings).registration_open


def test_a_wrong_value_stops_the_start_with_a_sentence_that_does_not_repeat_it(subtests: pytest.Subtests) -> None:
    for variable, value, sentence in WRONG:
        with subtests.test(f"{variable}={value}"), pytest.MonkeyPatch.context() as patched:
            patched.setenv(variable, value)
            with pytest.raises(SystemExit) as refused:
                load_settings(Settings)
            message = str(refused.value)
            assert message.startswith(f"{variable} is wrong: ")
            assert sentence in message.replace("e-mail", "email")
            assert value not in message.removeprefix(variable).split()


def test_a_password_does_not_show_when_settings_are_printed() -> None:
    assert "hunter2" not in repr(Settings.model_validate({"admin_password": "hunter2"}))


def import_app(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Another interpreter imports the app, in `folder` and with these variables."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-c", "import app"]
    return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False, timeout=60)  # noqa: S603 - our own


@pytest.mark.parametrize(("variable", "value"), [("APP_BCRYPT_ROUNDS", "4444"), ("APP_SECRET_KEY", "hunter2")])
def test_importing_the_app_with_a_wrong_value_ends_without_a_traceback(
    tmp_path: Path, variable: str, value: str
) -> None:
    ended = import_app(tmp_path, **{variable: value})

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"{variable} is wrong: ")
    assert len(ended.stderr.splitlines()) == 1
    assert value not in ended.stderr


def test_importing_the_app_opens_nothing(tmp_path: Path) -> None:
    ended = import_app(tmp_path)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
