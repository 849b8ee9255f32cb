"""Take the rows of a query of SQLite in pieces that fit into the caches of a processor, however large the rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

EXACT_IN_FLOAT = 2**53  # every integer up to it is a float64
_MOST_ROWS = 1_024
_FIRST_ROWS = 16
_BATCH_BYTES = 4 * 1024**2
_GROWTH = 4
_LOOKED_AT = 32


def batches_of(cursor: sqlite3.Cursor) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the columns of some rows at a time: at most about 4 MiB, unless rows suddenly become much larger."""
    count = _FIRST_ROWS
    while rows := cursor.fetchmany(count):
        yield list(zip(*rows, strict=True))
        largest = max(map(_size, rows[:: max(1, len(rows) // _LOOKED_AT)]))
        count = max(1, min(count * _GROWTH, _MOST_ROWS, _BATCH_BYTES // max(largest, 1)))


def _size(row: tuple[Any, ...]) -> int:
    return sum(len(value) for value in row if isinstance(value, (str, bytes)))
