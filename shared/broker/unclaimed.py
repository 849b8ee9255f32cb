"""Messages of other Celery clients that no worker has claimed yet: a request for such a job creates its record.

This needs a Redis broker in the ledger's database, of which a bounded number of messages is searched.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.broker.adoption import UnknownTask, entry_of_message
from shared.broker.reading import Unreadable
from shared.broker.settings import BrokerSettings
from shared.contract.catalogue import catalogue
from shared.contract.definition import known_queues
from shared.ledger.aclient import AsyncLedger

MOST_LOOKED_AT = 10_000  # messages
_AT_ONCE = 500  # messages per call, which takes some milliseconds
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class NotThere:
    """The ledger has no such job. `why` says what is known of a message with its id; `may_wait`: there may be one."""

    why: str
    may_wait: bool


_NONE = NotThere("No message with this id waits on the broker, either. Check the id.", may_wait=False)
_HOLDS = "If there is one, it becomes a job when a worker takes it, and a cancel sent now takes effect then."
_OTHER_BROKER = NotThere(f"The broker cannot be searched for a message with this id. {_HOLDS}", may_wait=True)
_TOO_MANY = NotThere(
    f"Only {MOST_LOOKED_AT:,} of the messages on the broker were searched for this id, and there are more. {_HOLDS}",
    may_wait=True,
)


async def adopt_unclaimed(ledger: AsyncLedger, settings: BrokerSettings, job_id: str) -> NotThere | None:
    """Create the job of the message with this id; return None if that was done, or why not."""
    if not settings.shares_redis:
        return _OTHER_BROKER
    try:
        async with asyncio.timeout(_LOOK_S):
            found = await _message(ledger, job_id)
        if found is None:
            return _NONE
        message, score = found
        entry = entry_of_message(message, settings, catalogue())
    except TimeoutError:
        return _TOO_MANY
    except UnknownTask as task:
        return NotThere(
            f"A message with this id waits, but its task {str(task)[:100]!r} is not a kind.", may_wait=False
        )
    except Unreadable as why:
        return NotThere(f"A message with this id waits, but it cannot be read: {why.detail}", may_wait=False)
    at_score = {} if score is None else {"score": score}  # the script reads null as a value
    await ledger.call("adopt", {"record": entry.record(), **at_score})
    return None


async def _message(ledger: AsyncLedger, job_id: str) -> tuple[Mapping[str, Any], int | None] | None:
    """Return the message with this id and the score to note it with, None if there is none.

    Raises `TimeoutError` if there are too many to look at.
    """
    wanted = {"id": job_id, "needles": _in_json(job_id), "count": _AT_ONCE}
    in_hands, *rest = await ledger.call("waiting_lists", {"queues": known_queues()})
    lists = list(zip(rest[::2], rest[1::2], strict=True))
    left = MOST_LOOKED_AT
    for name, length in lists:
        for start in range(0, length, _AT_ONCE):
            if left <= 0:
                raise TimeoutError
            left -= _AT_ONCE
            if found := await ledger.call("look", wanted | {"list": name, "from": start}):
                return json.loads(found[0]), int(found[1])
    cursor = "0"
    while in_hands and (left := left - _AT_ONCE) > -_AT_ONCE:
        cursor, found = await ledger.call("look_in_hands", wanted | {"cursor": cursor})
        if found:
            return json.loads(found)[0], None
        if cursor == "0":
            return None
    if in_hands:
        raise TimeoutError
    return None


def _in_json(text: str) -> list[str]:
    """Return the ways in which libraries write a text in JSON."""
    written = [json.dumps(text), json.dumps(text, ensure_ascii=False)]
    return list(dict.fromkeys([*written, *(one.replace("/", "\\/") for one in written)]))
