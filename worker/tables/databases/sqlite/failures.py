"""Convert SQLite errors to failures of jobs: transient or not, with a remedy."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shared.errors import TaskFailure, TransientFailure
from worker.tables.databases.failures import query_failed, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRANSIENT = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_PROTOCOL")


@contextmanager
def reading_failures(name: str) -> Iterator[None]:
    """Convert errors of reading the connection `name` to the failure of the job."""
    try:
        yield
    except sqlite3.OperationalError as failed:
        if failed.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise unavailable(name, str(failed)) from None
        raise query_failed(name, str(failed)) from None
    except sqlite3.Error as failed:
        raise query_failed(name, str(failed)) from None


@contextmanager
def loading_failures(name: str) -> Iterator[None]:
    """Convert errors of loading into the connection `name` to the failure of the job."""
    try:
        yield
    except sqlite3.Error as error:
        raise _loading_failure(error, name) from error


def _loading_failure(error: sqlite3.Error, name: str) -> TaskFailure:
    code = getattr(error, "sqlite_errorname", "") or ""
    text = f"SQLite reports for the connection {name!r}: {error}."
    if code.startswith(_TRANSIENT):
        return TransientFailure(
            "database_busy",
            text,
            remedy="Check whether another process writes the file, and whether its disk is full or failing.",
        )
    if isinstance(error, sqlite3.IntegrityError):
        return TaskFailure("constraint_violated", text, remedy="Remove the violating rows in a transform step.")
    return TaskFailure(
        "database_refused", text, remedy="Check the path, the permissions of the file and the definition of the table."
    )
