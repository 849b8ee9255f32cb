"""The data folder of a service: its lock, and its initial connections file."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from celeriac.ports import HOST
from cli.local.ports import CannotStart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_LOCK = "up.lock"
_CHOOSES_A_BROKER = ("CELERY_BROKER_URL", "CELERIAC_BROKER_URL", "CELERIAC_LEDGER_URL", "CELERY_RESULT_BACKEND")
_CONNECTIONS = """\
# The external systems that jobs may name. Gateway and workers read this file when they start.
# It contains no passwords: see examples/connections.toml for the other kinds.

[warehouse]
kind = "sqlite"
path = "warehouse.sqlite"
description = "A database file in this folder."

[lake]
kind = "store"
url = "lake"
description = "A folder of files in this folder."
"""


@contextmanager
def claimed_folder(folder: Path, port: int, *, broker_url: str) -> Iterator[int]:
    """Create the data folder and hold its lock; yield the lock's file descriptor.

    The lock's file says where the gateway is, and the embedded broker (empty: there is another one).

    The kernel releases the lock when the last process that has it open ends. Raises `CannotStart` if it is held.
    """
    try:
        for part in (folder, folder / "logs", folder / "lake"):
            part.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as unusable:
        raise CannotStart(
            f"{folder} cannot be used ({unusable.strerror}). Choose another folder with --data."
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = {"pid": "?", "url": "?"}
            with suppress(ValueError):
                holder = json.loads(os.pread(lock, 4096, 0))
            raise CannotStart(
                f"Another `celeriac up` (process {holder['pid']}, {holder['url']}) uses {folder}. "
                "Stop it, or choose another folder with --data."
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(
            lock, json.dumps({"pid": os.getpid(), "url": f"http://{HOST}:{port}", "broker_url": broker_url}).encode(), 0
        )
        yield lock
    finally:
        os.close(lock)


def chooses_a_broker() -> bool:
    """Return whether the environment names a broker or a ledger; then no folder of a `celeriac up` is looked at."""
    return any(os.environ.get(name) for name in _CHOOSES_A_BROKER)


def running_in(folder: Path) -> Mapping[str, Any] | None:
    """Return what the lock's file of a data folder says, if a `celeriac up` runs there."""
    try:
        with (folder / _LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                says = json.load(lock)
                return says if isinstance(says, dict) and {"url", "broker_url"} <= says.keys() else None
    except (OSError, ValueError):  # another user's, or one that is just being written
        return None
    return None


def connections_of(folder: Path) -> Path:
    """Return the connections file of a data folder; a new folder gets one with a warehouse and a lake."""
    path = folder / "connections.toml"
    if not path.exists():
        path.write_text(_CONNECTIONS, encoding="utf-8")
    return path.resolve()
