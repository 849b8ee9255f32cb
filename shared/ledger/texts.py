"""Text and JSON as the ledger keeps them: whatever a task says, every reader can take it."""

from __future__ import annotations

import json
import math
from typing import Any


def valid(text: str) -> str:
    """Return `text` without halves of surrogate pairs (an emoji cut in two): each becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def json_text(value: Any) -> str:
    """Return `value` as JSON that is valid everywhere.

    Numbers that are not finite become null, since JSON has none; an object that JSON has no form for becomes its text.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=str)
    return valid(text)


def finite(number: Any) -> float | None:
    """Return `number` as a finite one; None for what is not a number (a word, NaN, infinity)."""
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
