"""What a failure of SQLite means for a job: whether it is transient, and what to do."""

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
    """Turn what reading the connection `name` raises into the job's failure."""
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
    """Turn what loading into the connection `name` raises into the job's failure."""
    try:
        yield
    except sqlite3.Error as error:
        raise _loading_failure(error, name) from error


def _loading_failure(error: sqlite3.Error, name: str) -> TaskFailure:
    code = getattr(error, "sqlite_errorname", "") or ""
    text = f"SQLite says of the connection {name!r}: {error}."
    if code.startswith(_TRANSIENT):
        return TransientFailure(
            "database_busy", text, remedy="Another process writes the file, or its disk is full or failing."
        )
    if isinstance(error, sqlite3.IntegrityError):
        return TaskFailure("constraint_violated", text, remedy="Remove the rows that violate it in a transform step.")
    return TaskFailure(
        "database_refused", text, remedy="Check the path, the rights on the file and the table's definition."
    )
