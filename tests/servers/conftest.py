"""What the servers of these tests start from."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, template: Path) -> Path:
    """A folder with a migrated, empty database for a server, which starts sooner on it."""
    shutil.copy(template, tmp_path / "app.db")
    return tmp_path
