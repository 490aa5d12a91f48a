"""What the processes of one machine know of each other, by locks on files, which end with their process."""

import os
import sys
from asyncio import sleep
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

RETRY_SECONDS = 0.01


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


class Places:
    """So many places for all processes together; each that is taken is a lock on one of so many files in a folder.

    Where there are no such files or locks, everybody finds a place.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.presence = Presence(folder / "present")
        self.free: list[int] = []
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self.presence.enter()
            for number in range(count):
                self.free.append(os.open(folder / str(number), os.O_RDWR | os.O_CREAT, 0o600))
        except OSError:
            self.close()

    def close(self) -> None:
        """Leave; nobody holds a place any more."""
        self.presence.leave()
        while self.free:
            os.close(self.free.pop())

    @asynccontextmanager
    async def place(self, *, after_own: bool) -> AsyncGenerator[None]:
        """Hold a place, and wait for it without a thread; one that this process gave back is first left to others."""
        if self.presence.file is None:
            yield
            return
        if after_own and self.presence.has_others():
            await sleep(2 * RETRY_SECONDS)
        while (file := self._take()) is None:
            await sleep(RETRY_SECONDS)
        try:
            yield
        finally:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_UN)
            self.free.append(file)

    def _take(self) -> int | None:
        for file in self.free:
            try:
                if sys.platform != "win32":
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another process has it
                continue
            self.free.remove(file)
            return file
        return None
