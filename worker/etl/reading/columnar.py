"""Stage Parquet: decoded and written again, with types that the job names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import TaskFailure
from worker.runtime.scratch import comes_of_full_disk
from worker.tables.parquet.staging import ParquetSink, batches_of, column_names, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

_NANOS_IN = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def stage_parquet(path: Path, staged: Path, *, as_texts: Collection[str], on_rows: Callable[[int], None]) -> int:
    """Decode a Parquet file piece by piece and write it again, with distinct names; return the number of rows.

    The columns `as_texts` become texts, with every digit. Raises `TaskFailure` (``source_malformed``; ``wrong_type``
    for a column that has no text, such as a list).
    """
    try:
        found = schema_of(path)
        names = column_names(found.names)
        kinds = [pa.string() if name in as_texts else kind for name, kind in zip(names, found.types, strict=True)]
        schema = pa.schema(zip(names, kinds, strict=True))
        with ParquetSink(staged, schema) as sink:
            for batch in batches_of(path):
                columns = [
                    _texts(column, name) if name in as_texts else column
                    for column, name in zip(batch.columns, names, strict=True)
                ]
                sink.write(pa.RecordBatch.from_arrays(columns, schema=schema))
                on_rows(sink.row_count)
    except (pa.ArrowException, OSError) as broken:  # OSError: raised by Arrow for a corrupt page
        if comes_of_full_disk(broken):
            raise
        raise TaskFailure(
            "source_malformed",
            f"The source is not a readable Parquet file: {str(broken).partition(chr(10))[0][:300]}",
            remedy="Write the file again, or correct 'layout.format'.",
        ) from None
    return sink.row_count


def duration_text(nanoseconds: int) -> str:
    """Return hours, which may be more than 24, minutes and seconds."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), _NANOS_IN["s"])
    text = f"{sign}{seconds // 3_600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{fraction:09d}".rstrip("0") if fraction else text


def _texts(column: pa.Array, name: str) -> pa.Array:
    kind = column.type
    if pa.types.is_duration(kind):
        counts = column.view(pa.int64()).to_pylist()
        factor = _NANOS_IN[kind.unit]
        return pa.array([None if count is None else duration_text(count * factor) for count in counts], pa.string())
    if pa.types.is_decimal(kind):  # Arrow writes small ones with an exponent
        return pa.array([None if one is None else _plain(f"{one:f}") for one in column.to_pylist()], pa.string())
    if pa.types.is_timestamp(kind) and kind.tz:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    try:
        return pc.cast(column, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise TaskFailure(
            "wrong_type",
            f"layout.types: column {name!r} is {kind}, which cannot become another type.",
            remedy="Leave it out of layout.types.",
            column=name,
        ) from None


def _plain(digits: str) -> str:
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
