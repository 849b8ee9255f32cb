"""The form of a checkpoint: JSON of bounded size, never converted, so that a body reads exactly what it wrote."""

from __future__ import annotations

import json
from typing import Any

from shared.errors import TaskFailure

MOST_BYTES = 64 * 1024


def written(data: Any) -> str:
    """Return `data` as JSON text. Raises `TaskFailure` if it would not be read back unchanged, or is too large."""
    try:
        text = json.dumps(data, allow_nan=False)
        is_same = json.loads(text) == data
    except (TypeError, ValueError, RecursionError) as failure:
        raise _unfit(str(failure)) from None
    if not is_same:
        raise _unfit("tuples, sets and keys that are not texts would be read back as something else")
    if len(text) > MOST_BYTES:
        raise TaskFailure(
            "checkpoint_too_large",
            f"The checkpoint has {len(text)} bytes; the maximum is {MOST_BYTES}.",
            remedy="Fix the task: publish the state as a file, and put its uri into the checkpoint.",
        )
    return text


def _unfit(why: str) -> TaskFailure:
    return TaskFailure(
        "invalid_checkpoint",
        f"The checkpoint does not consist of JSON values: {why}.",
        remedy="Fix the task: use texts, finite numbers, booleans, None, lists, and dicts with texts as keys.",
    )
