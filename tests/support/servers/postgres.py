"""A real PostgreSQL server for the tests that need one.

A ``conftest.py`` takes the fixtures over::

    from tests.support.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

`postgres_url` gives each test an empty database of its own on one server a session.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from tests.support.servers.absent import absent
from tests.support.servers.services import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_USER = "celeriac"
_UNPRIVILEGED = ("postgres", "nobody")
_START_TIMEOUT_S = 30
_SPEED_OVER_SAFETY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
}


@dataclass(frozen=True)
class PostgresServer:
    """A running server on 127.0.0.1 that asks for a password."""

    port: int
    password: str

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, with its credentials."""
        return f"postgresql://{_USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: sql.Composed) -> None:
        """Run one statement outside of a transaction in the maintenance database."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start a PostgreSQL server in a temporary folder; skip where none is installed (fail there in CI)."""
    with running_postgres() as server:
        if server is None:
            absent("no PostgreSQL server here (looked for initdb and pg_ctl by pg_config and on PATH)")
        yield server


@contextmanager
def running_postgres() -> Iterator[PostgresServer | None]:
    """Run a PostgreSQL server in a temporary folder; yield None where none is installed."""
    programs = _server_programs()
    if programs is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="celeriac-postgres-"))
    account = _account()
    try:
        if account:
            os.chown(folder, account["user"], account["group"])
        password = _initialise(programs, folder, account)
        port = _start(programs, folder, account)
        try:
            yield PostgresServer(port=port, password=password)
        finally:
            _run([programs / "pg_ctl", "stop", "-D", folder / "data", "-m", "immediate", "-w"], folder, account)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Return the URL of an empty database that is dropped after the test."""
    name = f"test_{secrets.token_hex(6)}"
    postgres_server.run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield postgres_server.url(name)
    postgres_server.run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _server_programs() -> Path | None:
    """Return the folder that holds initdb and pg_ctl, the newest first, or None."""
    candidates: list[Path] = []
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        candidates.append(Path(answer.stdout.strip()))
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(installed, key=lambda path: [int(n) for n in path.parent.name.split(".")], reverse=True)
    candidates += [Path(folder) for folder in os.get_exec_path()]
    needed = ("initdb", "pg_ctl", "postgres")
    return next((folder for folder in candidates if all((folder / name).exists() for name in needed)), None)


def _account() -> dict[str, Any] | None:
    """Return whom to run the server as: None for ourselves; another if we are root, whom it refuses."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next(known[name] for name in _UNPRIVILEGED if name in known)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _run(command: list[str | Path], folder: Path, account: dict[str, Any] | None) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    with (folder / "output").open("ab") as output:  # a file: a daemon that inherits a pipe would keep it open
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=2 * _START_TIMEOUT_S,
            check=False,
            **(account or {}),
        )


def _initialise(programs: Path, folder: Path, account: dict[str, Any] | None) -> str:
    password = secrets.token_hex(12)
    secret = folder / "password"
    secret.write_text(password)
    options: list[str | Path] = [
        "--username",
        _USER,
        "--pwfile",
        secret,
        "--auth",
        "scram-sha-256",
        "--encoding",
        "UTF8",
        "--no-sync",
    ]
    outcome = _run([programs / "initdb", "--pgdata", folder / "data", *options], folder, account)
    if outcome.returncode:
        pytest.fail(f"initdb failed: {(folder / 'output').read_text()[-2_000:]}")
    return password


def _start(programs: Path, folder: Path, account: dict[str, Any] | None) -> int:
    for _ in range(3):  # another program may take the free port before the server does
        port = free_port()
        settings = {
            **_SPEED_OVER_SAFETY,
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
        }
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        start: list[str | Path] = [
            programs / "pg_ctl",
            "start",
            "-D",
            folder / "data",
            "-w",
            "-t",
            str(_START_TIMEOUT_S),
            "-o",
            options,
        ]
        if _run(start, folder, account).returncode == 0:
            return port
    pytest.fail(f"PostgreSQL did not start: {(folder / 'output').read_text()[-2_000:]}")
