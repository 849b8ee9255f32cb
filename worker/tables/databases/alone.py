"""Do some work in a database of a file that no other process does meanwhile."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shared.errors import TransientFailure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ID_CHARACTERS = 16


@contextmanager
def alone_beside(path: Path, name: str, work: str) -> Iterator[None]:
    """Hold a lock on a file beside the database `path` of the connection `name`; the system frees it with the process.

    Raises `TransientFailure` (``work_in_progress``) if another process has it.
    """
    digest = hashlib.sha256(work.encode()).hexdigest()[:_ID_CHARACTERS]
    path = path.resolve()
    beside = path.with_name(f"{path.name}.{digest}.lock")
    try:
        file = os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # whether the folder can be written to is said by the work itself
        yield
        return
    try:
        if not _locked(file, beside):
            raise work_in_progress(name, work)
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)  # before the lock ends: who opened it meanwhile sees that it is gone
    finally:
        os.close(file)


def _locked(file: int, path: Path) -> bool:
    """Lock an open file; return whether that succeeded, and it still is the one at `path`."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def work_in_progress(name: str, work: str) -> TransientFailure:
    """Return the failure for work in the database of the connection `name` that another process does."""
    return TransientFailure(
        "work_in_progress",
        f"Another job does the same in the database {name!r} at this moment: {work}.",
        remedy="This job is retried. Run one of them at a time, in one service.",
    )
