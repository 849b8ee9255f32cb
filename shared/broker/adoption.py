"""Jobs of other Celery clients: what the ledger writes of a message that did not come from the gateway."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kombu.utils.json import loads

from shared.broker.reading import Reason, Unreadable, check_task
from shared.broker.settings import BrokerSettings
from shared.contract.artifacts import file_owner_of
from shared.contract.catalogue import Catalogue
from shared.contract.definition import AnyContract
from shared.contract.keys import counts_under
from shared.contract.options import DEFAULT_PRIORITY, PRIORITIES
from shared.ledger.records import Entry
from shared.texts import json_text

_MAPS = ("celery.map", "celery.starmap")


class UnknownTask(LookupError):
    """The catalogue has no kind for the task of a message; its text is the name of the task."""


def adopted(
    contract: AnyContract,
    job_id: str,
    *,
    params: Mapping[str, Any],
    message: str,
    settings: BrokerSettings,
    **more: Any,
) -> Entry:
    """Return the entry of a job whose message another Celery client sent. `more` are fields of `Entry`."""
    spec, file_owner = contract.spec, file_owner_of(job_id)
    return Entry(
        **{
            "id": job_id,
            "kind": spec.kind,
            "queue": spec.queue,
            "priority": DEFAULT_PRIORITY,
            "params": json_text(params),
            "retention_ms": int(settings.retention_s * 1000),
            "max_crashes": spec.max_crashes,
            "max_retries": spec.retry.max_retries,
            "message": message,
            "outbox": not settings.shares_redis,
            **counts_under(contract, params),
            "file_owner": None if file_owner == job_id else file_owner,
            **more,
        }
    )


def entry_of_message(message: Mapping[str, Any], settings: BrokerSettings, catalogue: Catalogue) -> Entry:
    """Return the entry of a message that waits on a Redis broker. Raises `Unreadable` or `UnknownTask`."""
    headers, properties = message["headers"], message["properties"]
    body = _body(message)
    check_task(headers, body)
    kwargs, fields = (body[1], headers) if isinstance(body, list) else (body.get("kwargs", {}), body | headers)
    task = fields["task"]
    mapped = kwargs.get("task") if task in _MAPS else fields
    kind = mapped.get("task") if isinstance(mapped, dict) else None
    if not isinstance(kind, str) or kind not in catalogue:
        raise UnknownTask(str(task))
    return adopted(
        catalogue[kind],
        fields["id"],
        params=kwargs,
        message=json.dumps(message),
        settings=settings,
        queue=properties["delivery_info"]["routing_key"],
        priority=PRIORITIES - 1 - min(max(_whole(properties.get("priority")), 0), PRIORITIES - 1),
        due_at=_milliseconds(fields.get("eta")),
        expires_at=_milliseconds(fields.get("expires")),
    )


def _body(message: Mapping[str, Any]) -> Any:
    if message.get("content-type") != "application/json":
        raise Unreadable(Reason.BAD_BODY, "The body is not JSON.")
    try:
        text = message["body"]
        return loads(base64.b64decode(text) if message["properties"].get("body_encoding") == "base64" else text)
    except (ValueError, TypeError, LookupError) as failure:
        raise Unreadable(Reason.BAD_BODY, repr(failure)) from failure


def _whole(number: Any) -> int:
    return number if isinstance(number, int) else 0


def _milliseconds(moment: Any) -> int | None:
    """Return a time as Celery writes it, in milliseconds since 1970; None without one."""
    try:
        at = datetime.fromisoformat(moment)
    except (TypeError, ValueError):
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
