"""Values as people read them."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from shared.jobs.charts import NumberFormat
from worker.pages.content.values import ABSENT, compact, duration, number_format, printable, written

THIN = "\N{NARROW NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("spec", "values", "texts"),
    [
        ({}, [1, 22_333], ["1", "22,333"]),
        ({}, [1.5, 22.25], ["1.50", "22.25"]),
        ({}, [1_234_567.891, 3.0], ["1,234,568", "3"]),
        ({}, [0.00123, 0.5], ["0.0012", "0.5000"]),
        ({}, [0.00123], ["0.00123"]),
        ({}, [1e-12, 5.25], ["1e-12", "5.25"]),
        ({}, [-0.0, 4.0], ["0", "4"]),
        ({}, [Decimal("10.10")], ["10.1"]),
        ({"decimals": 1, "unit": "€"}, [1234.56], [f"1,234.6{THIN}€"]),
        ({"style": "integer"}, [1234.56], ["1,235"]),
        ({"style": "percent"}, [0.1234], [f"12.3{THIN}%"]),
        ({"style": "bytes"}, [1536, 12, 5 * 1024**3], [f"1.5{THIN}KiB", f"12{THIN}B", f"5{THIN}GiB"]),
        ({"style": "decimal"}, [math.inf, -math.inf, 1e300 * 0], ["∞", "-∞", "0.00"]),
    ],
)
def test_numbers(spec: dict[str, Any], values: list[Any], texts: list[str]) -> None:
    """Numbers of one column have the same decimals, separators between thousands, and their unit."""
    form = number_format(NumberFormat.model_validate(spec), values)
    assert [written(value, form) for value in values] == texts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.00012, "0.1 ms"),
        (0.0123, "12 ms"),
        (0.9999, "1 s"),
        (3.44, "3.4 s"),
        (59.97, "1 min"),
        (61, "1 min 01 s"),
        (3_600, "1 h"),
        (7_385, "2 h 03 min"),
        (93_600, "1 d 02 h"),
        (-2.5, "-2.5 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """Spans have the two largest units that say something."""
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (950, "950"), (1_500, "1.5k"), (23_710_000, "23.7M"), (600_000, "600k"), (-2e9, "-2G")],
)
def test_short_forms(value: float, text: str) -> None:
    """Axes have three digits and a letter."""
    assert compact(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ABSENT),
        (math.nan, ABSENT),
        (True, "yes"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).replace(tzinfo=None), "2026-01-02 03:04:05"),
        (b"abc", "(3 bytes)"),
        ("a\x00b\ud800", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"),
        ("x" * 600, "x" * 499 + "…"),
    ],
)
def test_other_values(value: Any, text: str) -> None:
    """Missing values are a dash; texts are bounded and have no control characters."""
    assert written(value, str) == text


def test_printable_keeps_line_breaks() -> None:
    """Line breaks and tabs are text; other control characters are not."""
    assert printable("a\n\tb\x07") == "a\n\tb\N{REPLACEMENT CHARACTER}"
