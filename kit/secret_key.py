"""The key that signs tokens: from the settings, else from a file that is made once."""

import os
import secrets
from pathlib import Path

from settings import SECRET_KEY_BYTES, Settings, StartRefused


def resolve_secret_key(settings: Settings) -> str:
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
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
