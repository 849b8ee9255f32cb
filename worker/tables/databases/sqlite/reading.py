"""Find types for the rows of a table of SQLite, where a column accepts any value.

They come from its definition if the values fit them, so that copies and backups of different rows get the same types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from worker.tables.databases.sqlite.batches import EXACT_IN_FLOAT, batches_of, bytes_among_others
from worker.tables.databases.sqlite.dialect import affinity
from worker.tables.parquet.columns import quoted
from worker.tables.parquet.staging import ParquetSink, column_names

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection
    from pathlib import Path

    from worker.tables.inference import Candidate

_COLUMNS_A_QUERY = 200
_CLASSES = ("integer", "real", "text", "blob")


def stage_typed_rows(
    session: sqlite3.Connection,
    query: str,
    declared: list[tuple[str, str]],
    staged: Path,
    *,
    temporal: Collection[str],
    on_rows: Callable[[int], None],
) -> dict[str, Candidate]:
    """Write the rows of `query`, whose columns are `declared` (name, type in upper case), with types that fit all rows.

    Returns the text columns that may become dates or times: those declared so, and those in `temporal`.
    """
    if not declared:
        session.execute(query)  # raises the error for a missing table
    found = look(lambda sql: session.execute(sql).fetchall(), query, declared)
    names = column_names(one.name for one in found)
    schema_found = pa.schema([(name, one.type()) for name, one in zip(names, found, strict=True)])
    _refuse_mixed_bytes(found)
    with ParquetSink(staged, schema_found) as sink:
        for columns in batches_of(session.execute(query)):
            arrays = [_array(column, field.type) for column, field in zip(columns, schema_found, strict=True)]
            sink.write(pa.RecordBatch.from_arrays(arrays, schema=schema_found))
            on_rows(sink.row_count)
    return {
        name: "temporal"
        for name, one in zip(names, found, strict=True)
        if one.classes == {"text"} and (one.is_temporal or one.name in temporal)
    }


@dataclass(frozen=True, slots=True)
class Found:
    """A column of SQLite: its declared type, the storage classes of its values, and the range of its integers."""

    name: str
    declared: str
    classes: frozenset[str]
    smallest: int
    largest: int

    @property
    def is_temporal(self) -> bool:
        return any(word in self.declared for word in ("DATE", "TIME"))

    @property
    def is_mixed(self) -> bool:
        """Whether text is all that its values have in common although some are numbers."""
        numbers = self.classes & {"integer", "real"}
        return ("text" in self.classes and bool(numbers)) or (len(numbers) > 1 and not self._fits_floats)

    @property
    def _fits_floats(self) -> bool:
        return self.smallest >= -EXACT_IN_FLOAT and self.largest <= EXACT_IN_FLOAT

    def type(self) -> pa.DataType:
        """Return the Arrow type that keeps every value exactly; text for values of several classes."""
        numeric = {"INTEGER": pa.int64(), "REAL": pa.float64(), "NUMERIC": pa.float64()}.get(affinity(self.declared))
        if "BOOL" in self.declared and self.classes <= {"integer"} and self.smallest >= 0 and self.largest <= 1:
            return pa.bool_()
        if self.classes == {"blob"} or (not self.classes and self.declared == "BLOB"):
            return pa.binary()
        if not self.classes:
            return self._empty() if self.is_temporal else numeric or pa.string()
        if self.classes == {"integer"}:
            return (
                pa.float64() if numeric == pa.float64() and self._fits_floats and not self.is_temporal else pa.int64()
            )
        if self.classes <= {"integer", "real"} and self._fits_floats:
            return pa.float64()
        return pa.string()

    def _empty(self) -> pa.DataType:
        if "TIME" not in self.declared:
            return pa.date32()
        if self.declared == "TIME":
            return pa.string()
        return pa.timestamp("us", "UTC" if "Z" in self.declared else None)


def look(rows: Callable[[str], list[tuple[Any, ...]]], query: str, declared: list[tuple[str, str]]) -> list[Found]:
    """Look at the values of a query whose columns are `declared`, many columns at a time; `rows` runs a statement."""
    width, found = len(_CLASSES) + 2, []
    for start in range(0, len(declared), _COLUMNS_A_QUERY):
        some, parts = declared[start : start + _COLUMNS_A_QUERY], []
        for name, _ in some:
            column = quoted(name)
            parts += [f"max(typeof({column}) = '{one}')" for one in _CLASSES]
            parts += [f"{edge}(CASE WHEN typeof({column}) = 'integer' THEN {column} END)" for edge in ("min", "max")]
        (row,) = rows(f"SELECT {', '.join(parts)} FROM ({query})")  # noqa: S608 - quoted names
        for at, (name, kind) in enumerate(some):
            *seen, smallest, largest = row[at * width : (at + 1) * width]
            classes = frozenset(one for one, there in zip(_CLASSES, seen, strict=True) if there)
            found.append(Found(name, kind, classes, smallest or 0, largest or 0))
    return found


def _refuse_mixed_bytes(found: list[Found]) -> None:
    for one in found:
        if "blob" in one.classes and len(one.classes) > 1:
            raise bytes_among_others(one.name)


def _array(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(kind):
        return pa.array(values, pa.int64()).cast(kind)
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # text that has numbers among it
        return pa.array((v if v is None or isinstance(v, str) else repr(v) for v in values), kind)
