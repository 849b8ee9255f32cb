"""Text and JSON for the ledger: whatever a task returns, every reader can parse it."""

from __future__ import annotations

import json
import math
from typing import Any


def valid(text: str) -> str:
    """Return `text` with each unpaired surrogate (half of an emoji) replaced by a question mark."""
    return text.encode("utf-8", "replace").decode()


def json_text(value: Any) -> str:
    """Return `value` as JSON that is valid everywhere.

    Numbers that are not finite become null, and objects without a JSON form their text.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=str)
    return valid(text)


def finite(number: Any) -> float | None:
    """Return `number` if it is a finite number; None otherwise (a word, NaN, infinity)."""
    try:
        plain = number if isinstance(number, int) else float(number)
        return plain if math.isfinite(plain) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _finite(value: Any) -> Any:
    match value:
        case float():
            return finite(value)
        case dict():
            return {name: _finite(item) for name, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
