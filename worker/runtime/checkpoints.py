"""The form of a checkpoint: JSON of bounded size. It is never coerced: a body has to find again what it wrote."""

from __future__ import annotations

import json
from typing import Any

from shared.errors import TaskFailure

MOST_BYTES = 64 * 1024


def written(data: Any) -> str:
    """Return `data` as JSON text. Raises `TaskFailure` where the same could not be read back, or it is too large."""
    try:
        text = json.dumps(data, allow_nan=False)
        is_same = json.loads(text) == data
    except (TypeError, ValueError, RecursionError) as failure:
        raise _unfit(str(failure)) from None
    if not is_same:
        raise _unfit("tuples, sets and names that are not texts would come back as something else")
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
        remedy="Fix the task: use texts, finite numbers, booleans, None, lists, and dicts with texts as names.",
    )
