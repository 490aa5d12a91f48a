"""What the processes of one machine know of each other, by locks on files, which end with their process."""

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class Presence:
    """Says whether other processes have the same database open; each holds a shared lock on a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: int | None = None

    def enter(self) -> None:
        """Be seen by others from now on; where there is no such file or lock, it counts on others."""
        if sys.platform != "win32":
            try:
                self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(self.file, fcntl.LOCK_SH)
            except OSError:
                self.leave()

    def leave(self) -> None:
        """Be seen no more."""
        if self.file is not None:
            os.close(self.file)
            self.file = None

    def has_others(self) -> bool:
        """Whether another process is there, or may be: nobody can have the lock alone then."""
        if sys.platform == "win32" or self.file is None:
            return True
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            fcntl.flock(self.file, fcntl.LOCK_SH)
        return False
