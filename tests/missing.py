"""What a machine may lack: the tests that need it are skipped with a sentence, and fail where CI is set."""

import os
import shutil
import sys
from typing import NoReturn

import pytest


def program(name: str) -> str:
    """The path of a program that no package of Python brings."""
    path = shutil.which(name)
    return path if path is not None else lacking(f"the program {name}")


def require_linux() -> None:
    """Go on only on Linux, whose kernel the test asks or limits."""
    if sys.platform != "linux":
        lacking("Linux")


def lacking(what: str) -> NoReturn:
    """End the test, which cannot show anything without `what`."""
    sentence = f"This test needs {what}, which is missing here."
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)
