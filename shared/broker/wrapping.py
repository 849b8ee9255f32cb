"""Wrap a message that cannot be read into a header of a readable one.

In this form kombu delivers it, acknowledges it like any other message, and redelivers it if the worker dies.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.broker.reading import Reason, Unreadable
from shared.ledger.dead_letters import KEPT_BYTES
from shared.ledger.ids import uuid7

_HEADER = "celeriac_unreadable"


class Unread(NamedTuple):
    """A message that cannot be read."""

    why: Unreadable
    message: bytes  # its first `KEPT_BYTES`
    size_bytes: int


def wrapped(raw: bytes, why: Unreadable, *, queue: str) -> str:
    """Return the message that replaces `raw` on its Redis list. For other Celery workers its body is empty."""
    about = {
        "reason": why.reason,
        "detail": why.detail,
        "message": base64.b64encode(raw[:KEPT_BYTES]).decode(),
        "size_bytes": len(raw),
    }
    return json.dumps(
        {
            "body": "{}",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {_HEADER: about},
            "properties": {
                "delivery_tag": uuid7(),
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
            },
        }
    )


def unwrapped(headers: Mapping[str, Any]) -> Unread | None:
    """Return the message in these headers; None if there is none."""
    about: Any = headers.get(_HEADER)
    try:
        why = Unreadable(Reason(about["reason"]), str(about["detail"]))
        return Unread(why, base64.b64decode(about["message"]), int(about["size_bytes"]))
    except (TypeError, LookupError, ValueError):  # the header is not of this service
        return None
