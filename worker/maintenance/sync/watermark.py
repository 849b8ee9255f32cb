"""Watermarks: the highest value of a growing column, stored as text and used in SQL conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow as pa

from shared.errors import TaskFailure

if TYPE_CHECKING:
    from shared.jobs.syncs import ByWatermark

Kind = Literal["integer", "decimal", "float", "date", "timestamp", "timestamptz"]
_NANOSECONDS_A_MICROSECOND = 1_000


@dataclass(frozen=True, slots=True)
class Watermark:
    """The highest value so far. Times are exact to the microsecond, and rounded down."""

    kind: Kind
    value: int | Decimal | float | date | datetime

    @classmethod
    def parse(cls, kind: str, text: str) -> Watermark:
        parsers: dict[str, Any] = {
            "integer": int,
            "decimal": Decimal,
            "float": float,
            "date": date.fromisoformat,
            "timestamp": datetime.fromisoformat,
            "timestamptz": datetime.fromisoformat,
        }
        return cls(cast("Kind", kind), parsers[kind](text))

    def text(self) -> str:
        """Return the value as text for `parse`: a number, or ISO 8601."""
        return self.value.isoformat() if isinstance(self.value, date) else str(self.value)

    def is_above(self, other: Watermark) -> bool:
        """Return whether this is higher. Raises `TaskFailure` (``watermark_changed``) if the kinds differ."""
        if {self.kind, other.kind} - {"integer", "decimal", "float"} and self.kind != other.kind:
            raise TaskFailure(
                "watermark_changed",
                f"The stored watermark is of the kind {other.kind}; the column's values are now {self.kind}.",
                remedy="Set 'reset' once, or use another column.",
            )
        higher: bool = self.value > other.value  # type: ignore[operator]  # of one kind, or numbers
        return higher

    def before(self, mode: ByWatermark) -> Watermark:
        """Return the watermark from which rows are read again.

        Raises `TaskFailure` (``overlap_does_not_fit``) for an overlap in seconds on a number, or the reverse.
        """
        temporal = isinstance(self.value, date)
        if (mode.overlap_count and temporal) or (mode.overlap_s and not temporal):
            given, wanted = ("overlap_count", "overlap_s") if temporal else ("overlap_s", "overlap_count")
            raise TaskFailure(
                "overlap_does_not_fit",
                f"mode.{given}: the column {mode.column!r} is of the kind {self.kind}.",
                remedy=f"Give {wanted} instead.",
            )
        if isinstance(self.value, datetime):
            return Watermark(self.kind, self.value - timedelta(seconds=mode.overlap_s))
        if isinstance(self.value, date):  # the start of the day that the overlap reaches into
            return Watermark(self.kind, self.value - timedelta(days=-(-mode.overlap_s // 86_400)))
        return Watermark(self.kind, self.value - mode.overlap_count)


def kind_of(column: str, found: pa.DataType) -> Kind:
    """Return the kind of a column's watermarks. Raises `TaskFailure` if systems order its type differently."""
    types = pa.types
    if types.is_timestamp(found):
        return "timestamptz" if found.tz else "timestamp"
    for fits, kind in (
        (types.is_integer, "integer"),
        (types.is_floating, "float"),
        (types.is_decimal, "decimal"),
        (types.is_date, "date"),
    ):
        if fits(found):
            return cast("Kind", kind)
    raise TaskFailure(
        "watermark_not_ordered",
        f"mode.column: {column!r} has the type {found}; a watermark must be a number, a date or a time.",
        remedy="Use another column, or the mode 'full'.",
        column=column,
    )


def watermark_in(kind: Kind, value: pa.Scalar) -> Watermark | None:
    """Return the watermark of one value; None if it is missing or infinite."""
    if not value.is_valid:
        return None
    try:
        if pa.types.is_timestamp(value.type):
            since = {"s": 10**6, "ms": 10**3, "us": 1}.get(value.type.unit)
            micros = value.value * since if since else value.value // _NANOSECONDS_A_MICROSECOND
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
            return Watermark(kind, moment if value.type.tz else moment.replace(tzinfo=None))
        plain = value.as_py()
    except (OverflowError, ValueError):  # a database's "infinity" is out of Python's range
        return None
    return None if isinstance(plain, float) and not math.isfinite(plain) else Watermark(kind, plain)
