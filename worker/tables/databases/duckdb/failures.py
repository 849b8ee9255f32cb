"""Convert DuckDB errors to failures of jobs: transient or not, with a remedy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb

from shared.errors import TaskFailure, TransientFailure
from worker.tables.databases.failures import query_failed, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reading_failures(name: str) -> Iterator[None]:
    """Convert errors of reading the connection `name` to the failure of the job."""
    try:
        yield
    except duckdb.IOException as locked:
        raise unavailable(name, str(locked)) from None
    except duckdb.Error as failed:
        raise query_failed(name, str(failed)) from None


@contextmanager
def loading_failures(name: str) -> Iterator[None]:
    """Convert errors of loading into the connection `name` to the failure of the job."""
    try:
        yield
    except duckdb.Error as error:
        raise _loading_failure(error, name) from error


def is_locked(error: duckdb.Error) -> bool:
    """Return whether another process has the file open."""
    return "Could not set lock on file" in str(error) or "different configuration" in str(error)


def _loading_failure(error: duckdb.Error, name: str) -> TaskFailure:
    first_line = str(error).strip().splitlines()[0]
    text = f"DuckDB error of the connection {name!r}: {first_line}"
    if is_locked(error) or isinstance(error, duckdb.TransactionException):
        return TransientFailure(
            "database_busy",
            text,
            remedy="Only one process at a time can open a DuckDB file: close the other, or load one job at a time.",
        )
    if "No space left on device" in first_line:
        return TransientFailure("database_full", text, remedy="Free space on the disk of the file, or enlarge it.")
    if isinstance(error, duckdb.OutOfMemoryException):
        return TaskFailure("memory_exhausted", text, remedy="Raise CELERIAC_MEMORY_LIMIT_BYTES on the workers.")
    if isinstance(error, duckdb.ConstraintException):
        return TaskFailure("constraint_violated", text, remedy="Remove the violating rows in a transform step.")
    if isinstance(error, (duckdb.ConversionException, duckdb.OutOfRangeException)):
        return TaskFailure("value_refused", text, remedy="Cast or correct the values in a transform step.")
    return TaskFailure(
        "database_refused", text, remedy="Check the path, the permissions of the file and the table's definition."
    )
