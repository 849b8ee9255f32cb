"""A real MariaDB server for the tests that need one: `mariadb_url` is an empty database of its own for each test."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pymysql
import pytest

from tests.support.servers.absent import absent
from tests.support.servers.services import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator

_USER = "celeriac"
_SPEED_OVER_SAFETY = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=8M",
    "--performance-schema=OFF",
)


@dataclass(frozen=True)
class MariadbServer:
    """A running server on 127.0.0.1 that asks for a password."""

    port: int
    password: str

    def url(self, database: str) -> str:
        """Return the URL of a database, with its credentials, as SQLAlchemy takes it."""
        return f"mysql+pymysql://{_USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str) -> None:
        """Run one statement."""
        with pymysql.connect(host="127.0.0.1", port=self.port, user=_USER, password=self.password) as connection:
            connection.cursor().execute(statement)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    """Start a MariaDB server in a temporary folder; skip where none is installed (fail there in CI)."""
    if not (shutil.which("mariadb-install-db") and _program()):
        absent("MariaDB is not installed (Debian: mariadb-server)")
    with running_mariadb() as server:
        yield server


@contextmanager
def running_mariadb() -> Iterator[MariadbServer]:
    """Run a server in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="celeriac-mariadb-"))
    port, password = free_port(), secrets.token_hex(12)
    account = f"'{_USER}'@'127.0.0.1'"
    start = folder / "start.sql"
    start.write_text(f"CREATE USER {account} IDENTIFIED BY '{password}';\nGRANT ALL ON *.* TO {account};\n")
    user = ["--user=root"] if os.geteuid() == 0 else []
    data = f"--datadir={folder / 'data'}"
    command = [str(_program()), "--no-defaults", data, f"--port={port}", "--bind-address=127.0.0.1", *user]
    command += [f"--socket={folder / 'socket'}", f"--init-file={start}", "--skip-name-resolve", *_SPEED_OVER_SAFETY]
    made = MariadbServer(port, password)

    def answers() -> bool:
        try:
            made.run("SELECT 1")
        except pymysql.MySQLError:
            return False
        return True

    try:
        _install(data, user)
        with running(command, folder, port=port, ready=answers):
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def mariadb_url(mariadb_server: MariadbServer) -> Iterator[str]:
    """Return the URL of an empty database that is dropped after the test."""
    name = f"test_{secrets.token_hex(6)}"
    mariadb_server.run(f"CREATE DATABASE {name}")
    yield mariadb_server.url(name)
    mariadb_server.run(f"DROP DATABASE {name}")


def _program() -> str | None:
    return shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")


def _install(data: str, user: list[str]) -> None:
    command = [
        "mariadb-install-db",
        "--no-defaults",
        data,
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    ]
    subprocess.run([*command, *user], check=True, capture_output=True)
