"""Stage the result of a query of SQLite, whose columns have no types: a column gets the type of all its values.

Whole numbers are integers, numbers are floats where none of them loses a digit, bytes are bytes, and everything else is
text, numbers as Python spells them. A type is taken from the first rows on and widened on the way, from
no value to any, and from integers to floats. A column of values of several kinds makes the query run again, with all
others as text, whose types are settled afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from worker.tables.databases.sqlite.batches import EXACT_IN_FLOAT, batches_of, bytes_among_others
from worker.tables.parquet import staging
from worker.tables.parquet.staging import ParquetSink, column_names

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from worker.tables.inference import Candidate

_TYPES: dict[frozenset[type], pa.DataType] = {
    frozenset(): pa.null(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
    frozenset({str}): pa.string(),
    frozenset({bytes}): pa.binary(),
}


def stage_rows(
    session: sqlite3.Connection, query: str, staged: Path, on_rows: Callable[[int], None]
) -> dict[str, Candidate]:
    """Write the rows of a query with the types of their values.

    Returns the candidate type of each column if all are staged as text.
    """
    cursor = session.execute(query)
    names = column_names(column[0] for column in cursor.description)
    kinds: list[set[type]] = [set() for _ in names]
    batches = _noting(batches_of(cursor), kinds)
    try:
        _stage_typed(names, batches, staged, on_rows)
    except _NotTypedError:
        for _ in batches:  # the kinds of the other rows
            on_rows(0)
        return _stage_as_text(names, kinds, batches_of(session.execute(query)), staged, on_rows)
    return {}


def _noting(batches: Iterable[list[tuple[Any, ...]]], kinds: list[set[type]]) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the batches, and add the kinds of their values to those of each column."""
    for columns in batches:
        for seen, column in zip(kinds, columns, strict=True):
            seen.update(map(type, column))
        yield columns


class _NotTypedError(Exception):
    """A column has values that no single type holds from the first row on."""


def _stage_typed(
    names: list[str], batches: Iterable[list[tuple[Any, ...]]], staged: Path, on_rows: Callable[[int], None]
) -> None:
    growing = _Growing(staged, names)
    try:
        for columns in batches:
            growing.write(columns)
            on_rows(growing.row_count)
        growing.finish()
    except BaseException:
        growing.abandon()
        raise


class _Growing:
    """A Parquet file that becomes several when a type is widened, and one again at the end."""

    def __init__(self, staged: Path, names: list[str]) -> None:
        self._staged = staged
        self._names = names
        self._kinds: list[pa.DataType] = [pa.null()] * len(names)
        self._is_exact = [True] * len(names)
        self._is_finite = [False] * len(names)
        self._parts: list[Path] = []
        self._sink: ParquetSink | None = None
        self.row_count = 0

    def write(self, columns: Sequence[tuple[Any, ...]]) -> None:
        """Add rows. Raises `_NotTypedError`."""
        arrays = [self._array(at, column) for at, column in enumerate(columns)]
        kinds = [_wider(kind, array.type) for kind, array in zip(self._kinds, arrays, strict=True)]
        if self._sink is None or kinds != self._kinds:
            for at, (before, kind) in enumerate(zip(self._kinds, kinds, strict=True)):
                if before == pa.int64() and kind == pa.float64() and not self._is_exact[at]:
                    raise _NotTypedError
            self._begin_part(kinds)
        arrays = [array.cast(kind) for array, kind in zip(arrays, kinds, strict=True)]
        if self._sink is not None:
            self._sink.write(pa.RecordBatch.from_arrays(arrays, schema=self._schema()))
        self.row_count += len(columns[0]) if columns else 0

    def _array(self, at: int, column: tuple[Any, ...]) -> pa.Array:
        found = frozenset(map(type, column)) - {type(None)}
        kind = _TYPES.get(found)
        if kind is None:
            raise _NotTypedError
        try:
            array = pa.array(column, kind)
        except pa.ArrowInvalid:  # an integer among floats that no float is equal to
            raise _NotTypedError from None
        if kind == pa.int64():
            ends = pc.min_max(array).as_py()
            self._is_exact[at] &= ends["min"] >= -EXACT_IN_FLOAT and ends["max"] <= EXACT_IN_FLOAT
            self._is_finite[at] = True
            if self._kinds[at] == pa.float64() and not self._is_exact[at]:
                raise _NotTypedError
        elif kind == pa.float64() and not self._is_finite[at]:
            self._is_finite[at] = bool(pc.any(pc.is_finite(array)).as_py())
        return array

    def _schema(self) -> pa.Schema:
        return pa.schema(list(zip(self._names, self._kinds, strict=True)))

    def _begin_part(self, kinds: list[pa.DataType]) -> None:
        self._end_part()
        self._kinds = kinds
        self._parts.append(self._beside(len(self._parts)) if self._parts else self._staged)
        self._sink = ParquetSink(self._parts[-1], self._schema())

    def _end_part(self) -> None:
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.__exit__(None)

    def _beside(self, number: int) -> Path:
        return self._staged.with_name(f"{self._staged.name}.{number}")

    def abandon(self) -> None:
        """Remove the further parts."""
        if self._sink is not None:
            self._sink.__exit__(True)  # noqa: FBT003 - as after a failure
        for part in self._parts[1:]:
            part.unlink(missing_ok=True)

    def finish(self) -> None:
        """Unite the parts. Raises `_NotTypedError` if a column has no finite number."""
        self._end_part()
        if any(kind == pa.float64() and not finite for kind, finite in zip(self._kinds, self._is_finite, strict=True)):
            raise _NotTypedError
        if len(self._parts) == 1:
            return
        schema, united = self._schema(), self._beside(0)
        with ParquetSink(united if self._parts else self._staged, schema) as sink:
            for part in self._parts:
                for batch in staging.batches_of(part):
                    arrays = [array.cast(kind) for array, kind in zip(batch.columns, schema.types, strict=True)]
                    sink.write(pa.RecordBatch.from_arrays(arrays, schema=schema))
        for part in self._parts:
            part.unlink()
        if self._parts:
            united.rename(self._staged)


def _wider(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """Return the type that holds the values of both. Raises `_NotTypedError` for text and numbers."""
    if first == second or second == pa.null():
        return first
    if first == pa.null():
        return second
    if not {first, second} <= {pa.int64(), pa.float64()}:
        raise _NotTypedError
    return pa.float64()


def _stage_as_text(
    names: list[str],
    kinds: list[set[type]],
    batches: Iterable[list[tuple[Any, ...]]],
    staged: Path,
    on_rows: Callable[[int], None],
) -> dict[str, Candidate]:
    """Write rows as text, and bytes as bytes; return the candidate type of each column of texts.

    Raises `TaskFailure` for a column with bytes and other values.
    """
    held = [seen - {type(None)} for seen in kinds]
    for name, seen in zip(names, held, strict=True):
        if bytes in seen and len(seen) > 1:
            raise bytes_among_others(name)
    schema = pa.schema(
        [(name, pa.binary() if bytes in seen else pa.string()) for name, seen in zip(names, held, strict=True)]
    )
    with ParquetSink(staged, schema) as sink:
        for columns in batches:
            arrays = [
                pa.array(column if kind == pa.binary() else map(_text, column), kind)
                for column, kind in zip(columns, schema.types, strict=True)
            ]
            sink.write(pa.RecordBatch.from_arrays(arrays, schema=schema))
            on_rows(sink.row_count)
    return {
        name: "number" if seen <= {int, float} else "text"
        for name, seen in zip(names, held, strict=True)
        if bytes not in seen
    }


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else repr(value)
