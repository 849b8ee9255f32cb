"""Convert DuckDB errors to failures of jobs: transient or not, with a remedy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb

from shared.errors import TaskFailure, TransientFailure
from worker.tables.databases.failures import query_failed, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_MEMORY = "failed to pin block"


@contextmanager
def reading_failures(name: str) -> Iterator[None]:
    """Convert errors of reading the connection `name` to the failure of the job."""
    try:
        yield
    except duckdb.IOException as locked:
        raise unavailable(name, str(locked)) from None
    except (duckdb.OutOfMemoryException, OSError) as failed:  # OSError: Arrow raises it for errors while rows arrive
        if isinstance(failed, OSError) and "Out of Memory" not in str(failed):
            raise
        raise _memory_exhausted(f"DuckDB error of the connection {name!r}: {_first_line(failed)}") from None
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
    first_line = _first_line(error)
    text = f"DuckDB error of the connection {name!r}: {first_line}"
    if isinstance(error, duckdb.OutOfMemoryException) or _NO_MEMORY in str(error):  # a commit says it in its own error
        return _memory_exhausted(text)
    if is_locked(error) or isinstance(error, duckdb.TransactionException):
        return TransientFailure(
            "database_busy",
            text,
            remedy="Only one process at a time can open a DuckDB file: close the other, or load one job at a time.",
        )
    if "No space left on device" in first_line:
        return TransientFailure("database_full", text, remedy="Free space on the disk of the file, or enlarge it.")
    if isinstance(error, duckdb.ConstraintException):
        return TaskFailure("constraint_violated", text, remedy="Remove the violating rows in a transform step.")
    if isinstance(error, (duckdb.ConversionException, duckdb.OutOfRangeException)):
        return TaskFailure("value_refused", text, remedy="Cast or correct the values in a transform step.")
    return TaskFailure(
        "database_refused", text, remedy="Check the path, the permissions of the file and the table's definition."
    )


def _memory_exhausted(text: str) -> TaskFailure:
    return TaskFailure(
        "memory_exhausted",
        text,
        remedy="Raise CELERIAC_MEMORY_LIMIT_BYTES on the workers; DuckDB holds 2,048 rows at once, however large.",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
