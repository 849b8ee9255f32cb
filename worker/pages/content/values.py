"""Format values for people: numbers with separators and units, times, and other values as bounded text."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from shared.jobs.charts import NumberFormat

ABSENT = "–"  # noqa: RUF001 - an en dash stands for a missing value
MOST_TEXT = 500
_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_COMPACT = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_MOST_DECIMALS = 6

Format = Callable[[Any], str]


def printable(text: str, most: int = MOST_TEXT) -> str:
    """Return `text` without control characters and lone surrogates, cut to `most` characters with an ellipsis."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(
        sign if sign in "\n\t" or unicodedata.category(sign) not in {"Cc", "Cs"} else "\N{REPLACEMENT CHARACTER}"
        for sign in cut
    )


def is_number(value: Any) -> bool:
    """Return whether `value` is written as a number."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def written(value: Any, number: Format) -> str:
    """Return any value as text; numbers are formatted by `number`, see `number_format`."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ABSENT
    if is_number(value):
        return number(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds" if value.microsecond == 0 else "milliseconds")
    if isinstance(value, date | time):
        return value.isoformat()
    return f"({len(value):,} bytes)" if isinstance(value, bytes) else printable(str(value))


def number_format(spec: NumberFormat, values: Iterable[Any] = ()) -> Format:
    """Return the formatter of a column's numbers: the same number of decimals for all of `values`."""
    unit = f"\N{NARROW NO-BREAK SPACE}{spec.unit}" if spec.unit else ""
    if spec.style == "bytes":
        return lambda value: _infinite(value) or _bytes(float(value), spec.decimals) + unit
    if spec.style == "duration":
        return lambda value: _infinite(value) or duration(float(value), spec.decimals) + unit
    factor = 100 if spec.style == "percent" else 1
    sign = "\N{NARROW NO-BREAK SPACE}%" if spec.style == "percent" else ""
    decimals = spec.decimals if spec.decimals is not None else _decimals(spec.style, values, factor)

    def write(value: Any) -> str:
        scaled = value * factor
        tiny = spec.style == "auto" and spec.decimals is None and 0 < abs(scaled) < 10**-decimals / 2
        return _infinite(value) or (f"{scaled:.3g}" if tiny else f"{_unsigned_zero(scaled, decimals)}") + sign + unit

    return write


def compact(value: float, *, spec: NumberFormat | None = None) -> str:
    """Return a short form for an axis: 1.2k, 3.4M, 12 %, 2 MiB, 1 min."""
    style = spec.style if spec else "auto"
    if style == "bytes":
        return _bytes(value, None)
    if style == "duration":
        return duration(value, None)
    if style == "percent":
        digit_spec = ".4g" if spec is None or spec.decimals is None else f".{spec.decimals}f"
        return f"{value * 100:{digit_spec}}\N{NARROW NO-BREAK SPACE}%"
    for size, letter in _COMPACT:
        if abs(value) >= size:
            scaled = abs(value / size)
            digits = 2 if scaled < 10 else 1 if scaled < 100 else 0  # noqa: PLR2004 - three digits in all
            text = f"{value / size:.{digits}f}"
            return (text.rstrip("0").rstrip(".") if digits else text) + letter
    return f"{value:.6g}".replace("-0", "0") if value == 0 else f"{value:.4g}"


def duration(seconds: float, decimals: int | None = None) -> str:
    """Return a duration in seconds in a readable form: 12 ms, 3.4 s, 5 min 06 s, 2 h 03 min, 4 d 02 h."""
    sign, left, gap = "-" if seconds < 0 else "", abs(seconds), "\N{NO-BREAK SPACE}"
    if left == 0:
        return f"0{gap}s"
    if left < 0.9995:  # noqa: PLR2004 - what rounds to 1,000 ms is a second
        return f"{sign}{left * 1000:.{decimals or (0 if left >= 0.01 else 1)}f}{gap}ms"  # noqa: PLR2004 - 10 ms
    if left < 59.95:  # noqa: PLR2004 - what rounds to 60 s is a minute
        return f"{sign}{left:.{1 if decimals is None else decimals}f}{gap}s".replace(".0\N{NO-BREAK SPACE}", gap)
    whole = round(left)
    for large, small, names in ((86_400, 3_600, ("d", "h")), (3_600, 60, ("h", "min")), (60, 1, ("min", "s"))):
        if whole >= large:
            rest = whole % large // small
            return f"{sign}{whole // large}{gap}{names[0]}" + (f"{gap}{rest:02d}{gap}{names[1]}" if rest else "")
    return f"{sign}{whole}{gap}s"


def _bytes(size: float, decimals: int | None) -> str:
    index = 0
    while abs(size) >= 1024 and index < len(_BYTE_UNITS) - 1:  # noqa: PLR2004 - a binary prefix
        size, index = size / 1024, index + 1
    digits = decimals if decimals is not None else (1 if index and size % 1 else 0)
    return f"{size:,.{digits}f}\N{NARROW NO-BREAK SPACE}{_BYTE_UNITS[index]}"


def _infinite(value: Any) -> str:
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return ""


def _unsigned_zero(value: Any, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text.removeprefix("-") if text.startswith("-") and not text.strip("-0.,") else text


def _decimals(style: str, values: Iterable[Any], factor: int) -> int:
    """Return the number of decimals that `values` need to show about four digits, at most those they have."""
    if style == "integer":
        return 0
    numbers = [abs(float(value) * factor) for value in values if is_number(value) and math.isfinite(value)]
    if style == "decimal":
        return 2
    if style == "percent":
        return 1
    if all(number == int(number) for number in numbers):
        return 0
    largest = max(numbers)
    wanted = 0 if largest >= 100_000 else 3 - math.floor(math.log10(largest)) if largest < 1 else 2  # noqa: PLR2004
    wanted = min(max(wanted, 0), _MOST_DECIMALS)
    needed = max(max((len(f"{n:.{wanted}f}".rstrip("0").partition(".")[2]) for n in numbers), default=0), 0)
    return min(wanted, needed)
