"""Dates and times within the years 1 to 9999: what every system of this service can hold.

Databases have values beyond: "infinity", times of day of 24:00, the year 294276. In Arrow they become other values,
for example dates in the past, and text such as ``<value out of range>``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

OutOfRange = Literal["fail", "null"]

_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31, counted from 1970-01-01
_DAY_S = 86_400
_PER_SECOND: Mapping[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def within_calendar(batch: pa.RecordBatch, out_of_range: OutOfRange = "fail") -> pa.RecordBatch:
    """Return the rows with dates and times of the years 1 to 9999 only; missing where `out_of_range` is ``null``.

    Raises `TaskFailure` (``date_out_of_range``) that names the column if it is ``fail``.
    """
    columns = list(batch.columns)
    for at, (name, column) in enumerate(zip(batch.schema.names, columns, strict=True)):
        bounds = _bounds(column.type)
        if bounds is None:
            continue
        numbers = column.view(pa.int32() if column.type.bit_width == pa.int32().bit_width else pa.int64())
        inside = pc.and_(pc.greater_equal(numbers, bounds[0]), pc.less_equal(numbers, bounds[1]))
        if pc.all(inside, min_count=0).as_py():
            continue
        if out_of_range == "fail":
            raise TaskFailure(
                "date_out_of_range",
                f"The column {name!r} has a value that is infinite or outside of the years 1 to 9999.",
                remedy="Correct such values, or set source.dates_out_of_range to 'null' where a database is read.",
                column=name,
            )
        columns[at] = pc.if_else(inside, column, pa.scalar(None, column.type))
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _bounds(kind: pa.DataType) -> tuple[int, int] | None:
    """Return the smallest and the largest number that stands for a value within the calendar."""
    if pa.types.is_date32(kind):
        return _FIRST_DAY, _LAST_DAY
    if pa.types.is_date64(kind):
        return _FIRST_DAY * _DAY_S * 1_000, (_LAST_DAY + 1) * _DAY_S * 1_000 - 1
    if pa.types.is_time(kind):
        return 0, _DAY_S * _PER_SECOND[kind.unit] - 1
    if pa.types.is_timestamp(kind) and kind.unit != "ns":  # nanoseconds end in 2262
        return _FIRST_DAY * _DAY_S * _PER_SECOND[kind.unit], (_LAST_DAY + 1) * _DAY_S * _PER_SECOND[kind.unit] - 1
    return None
