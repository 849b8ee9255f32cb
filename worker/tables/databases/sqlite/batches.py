"""Take the rows of a query of SQLite in pieces that fit into the caches of a processor, however large the rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.errors import TaskFailure

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

EXACT_IN_FLOAT = 2**53  # every integer up to it is a float64
_MOST_ROWS = 1_024
_TAKEN_ROWS = 32  # at a time: what came before does not say how large the next rows are
_BATCH_BYTES = 4 * 1024**2
_LOOKED_AT = 4  # of the rows that are taken, others each time


def batches_of(cursor: sqlite3.Cursor) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the columns of some rows at a time: about 4 MiB and the rows that are taken at once."""
    waiting: list[tuple[Any, ...]] = []
    size = at = 0
    every = max(1, _TAKEN_ROWS // _LOOKED_AT)
    while rows := cursor.fetchmany(_TAKEN_ROWS):
        waiting += rows
        at = (at + 1) % every
        size += every * sum(map(_size, rows[at::every]))
        if size >= _BATCH_BYTES or len(waiting) >= _MOST_ROWS:
            yield list(zip(*waiting, strict=True))
            waiting, size = [], 0
    if waiting:
        yield list(zip(*waiting, strict=True))


def bytes_among_others(name: str) -> TaskFailure:
    """Return the failure for a column of bytes and other values, which have no type in common."""
    return TaskFailure(
        "unsupported_type",
        f"The column {name!r} has bytes in some rows and other values in others.",
        remedy="Store values of one type in the column, or use 'query' with hex(column).",
        column=name,
    )


def _size(row: tuple[Any, ...]) -> int:
    return sum(len(value) for value in row if isinstance(value, (str, bytes)))
