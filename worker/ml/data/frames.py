"""Turn staged rows into frames for scikit-learn: one dtype per role, one mark for missing values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from shared.errors import TaskFailure
from shared.jobs.ml.features import DateFeature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from shared.jobs.ml.features import DatePart
    from worker.ml.data.columns import InputColumn

_DAY_US = 86_400_000_000
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def frame_of(rows: pa.Table | pa.RecordBatch, inputs: Sequence[InputColumn]) -> pd.DataFrame:
    """Return the input frame of a recipe, ``(n_rows, n_prepared)``, one column per name or part of a date.

    Numbers and parts of dates are float64, NaN where missing or infinite; categories are objects (str or None);
    texts are str, empty where missing.
    """
    prepared: dict[str, object] = {}
    for column in inputs:
        values = rows.column(column.name)
        if isinstance(column.feature, DateFeature):
            stamps = _stamps(values)
            for part, name in zip(column.feature.parts, prepared_names(column), strict=True):
                prepared[name] = floats_of(_PARTS[part](stamps))
        elif column.feature.kind == "number":
            prepared[column.name] = floats_of(values)
        elif column.feature.kind == "text":
            prepared[column.name] = pd.Series(pc.fill_null(_strings(values, column.name), "").to_pylist(), dtype=object)
        else:
            prepared[column.name] = pd.Series(_strings(values, column.name).to_pylist(), dtype=object)
    return pd.DataFrame(prepared)


def prepared_names(column: InputColumn) -> list[str]:
    """Return the names of a column's prepared columns: its name, or `column: part` for each part of a date."""
    if isinstance(column.feature, DateFeature):
        return [f"{column.name}: {part}" for part in column.feature.parts]
    return [column.name]


def floats_of(values: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float64]:
    """Return numbers, booleans or durations (in seconds) as float64 ``(n_rows,)``, NaN where missing or infinite."""
    if values.null_count == len(values):  # of any type
        return np.full(len(values), np.nan)
    values = plain_values(values)
    if pt.is_boolean(values.type):
        values = pc.cast(values, pa.int8())
    if pt.is_duration(values.type):
        per_second = _PER_SECOND[values.type.unit]
        values = pc.divide(pc.cast(pc.cast(values, pa.int64()), pa.float64()), per_second)
    numbers = np.asarray(pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def whole_numbers(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array | None:
    """Return floats or decimals as int64, where NaN is missing; None if one is not whole or needs more bits."""
    if pt.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    try:
        return pc.cast(values, pa.int64())
    except pa.ArrowInvalid:
        return None


def _stamps(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Return dates and timestamps as timestamps, in UTC if they have a time zone, and times of day as they are."""
    if values.null_count == len(values):
        return pa.nulls(len(values), pa.timestamp("us"))
    values = plain_values(values)
    return values if pt.is_time(values.type) else pc.cast(values, pa.timestamp("us"), safe=False)


def _strings(values: pa.ChunkedArray | pa.Array, name: str) -> pa.ChunkedArray | pa.Array:
    if values.null_count == len(values):
        return pa.nulls(len(values), pa.string())
    values = plain_values(values)
    if pt.is_floating(values.type) or pt.is_decimal(values.type):
        whole = whole_numbers(values)
        if whole is None:
            raise TaskFailure(
                "columns_do_not_fit",
                f"{name!r} has numbers with a fraction, but had whole numbers in training.",
                remedy="Cast it with etl.transform_data.",
                wrong=[name],
            )
        values = whole
    return pc.cast(values, pa.string())


def plain_values(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Return dictionary-encoded values decoded, and others unchanged."""
    return pc.cast(values, values.type.value_type) if pt.is_dictionary(values.type) else values


def _epoch_days(stamps: pa.Array) -> pa.Array:
    return pc.divide(pc.cast(pc.cast(stamps, pa.int64()), pa.float64()), float(_DAY_US))


_PARTS: dict[DatePart, Callable[[pa.Array], pa.Array]] = {
    "year": pc.year,
    "quarter": pc.quarter,
    "month": pc.month,
    "day": pc.day,
    "day_of_year": pc.day_of_year,
    "weekday": pc.day_of_week,
    "hour": pc.hour,
    "minute": pc.minute,
    "epoch_days": _epoch_days,
}
