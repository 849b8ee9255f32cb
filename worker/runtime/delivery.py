"""A delivered message in the form in which it can be published again."""

from __future__ import annotations

import base64
from typing import Any

from kombu.utils.json import dumps

_HEADERS = (
    "lang", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id", "parent_id",
    "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps",
)  # fmt: skip
_EMBEDDED = ("callbacks", "errbacks", "chain", "chord")


def message_of(request: Any, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the message behind `request` in the form that `shared.broker.messages` describes.

    The ledger stores it, so that the keeper can republish a step that was published by Celery and not by the gateway.
    """
    delivery = request.delivery_info or {}
    embedded = {name: request.get(name) for name in _EMBEDDED}
    body = dumps([args, kwargs, embedded])
    return dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": kind} | {name: request.get(name) for name in _HEADERS},
            "properties": {
                "correlation_id": request.correlation_id or request.id,
                "reply_to": request.reply_to or "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": delivery.get("routing_key", "")},
                "priority": delivery.get("priority") or 0,
                "body_encoding": "base64",
                "delivery_tag": request.id,
            },
        }
    )
