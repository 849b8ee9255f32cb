"""Messages of other Celery clients that no worker has claimed yet: a request for such jobs creates their records.

This needs a Redis broker in the ledger's database, of which a bounded number of messages is searched.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from shared.broker.adoption import UnknownTask, entry_of_message
from shared.broker.reading import Reason, Unreadable, check_envelope
from shared.broker.settings import BrokerSettings
from shared.contract.catalogue import catalogue
from shared.contract.definition import known_queues
from shared.ledger.aclient import AsyncLedger

MOST_LOOKED_AT = 10_000  # messages
LOOK_S = 1.0  # for all ids of a request
_AT_ONCE = 500  # messages per call, which takes some milliseconds
_ADOPTED_AT_ONCE = 50  # jobs per call


@dataclass(frozen=True, slots=True)
class NotThere:
    """The ledger has no such job. `why` says what is known of a message with its id; `may_wait`: there may be one."""

    why: str
    may_wait: bool


_NONE = NotThere("No message with this id waits on the broker, either. Check the id.", may_wait=False)
_HOLDS = "If there is one, it becomes a job when a worker takes it, and a cancel sent now takes effect then."
_OTHER_BROKER = NotThere(f"The broker cannot be searched for a message with this id. {_HOLDS}", may_wait=True)
_TOO_MANY = NotThere(
    f"A request searches at most {MOST_LOOKED_AT:,} of the messages on the broker, for at most {LOOK_S:g} s, and there "
    f"are more. {_HOLDS}",
    may_wait=True,
)


async def adopt_unclaimed(
    ledger: AsyncLedger, settings: BrokerSettings, job_ids: Collection[str]
) -> dict[str, NotThere]:
    """Create the jobs of the messages with these ids, in one search for all; return why not, for each of the others."""
    if not settings.shares_redis:
        return dict.fromkeys(job_ids, _OTHER_BROKER)
    search = _Search(ledger, set(job_ids))
    await search.run()
    missing = dict.fromkeys(search.wanted, _NONE if search.is_complete else _TOO_MANY)
    jobs: list[dict[str, Any]] = []
    for job_id, (text, score) in search.found.items():
        try:
            record = entry_of_message(_message(text), settings, catalogue()).record()
        except UnknownTask as task:
            why = f"A message with this id waits, but its task {str(task)[:100]!r} is not a kind."
            missing[job_id] = NotThere(why, may_wait=False)
        except Unreadable as unreadable:
            why = f"A message with this id waits, but it cannot be read: {unreadable.detail}"
            missing[job_id] = NotThere(why, may_wait=False)
        else:
            at_score = {} if score is None else {"score": score}  # the script reads null as a value
            jobs.append({"record": record} | at_score)
    for start in range(0, len(jobs), _ADOPTED_AT_ONCE):
        await ledger.call("adopt", {"jobs": jobs[start : start + _ADOPTED_AT_ONCE]})
    return missing


@dataclass
class _Search:
    """One search of the broker's messages for any of some ids."""

    ledger: AsyncLedger
    wanted: set[str]  # those not found yet
    found: dict[str, tuple[str, int | None]] = field(default_factory=dict)  # a message, and the score to note it with
    is_complete: bool = False
    _left: int = MOST_LOOKED_AT

    async def run(self) -> None:
        """Search within the bounds; `is_complete` says whether they were enough."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._look()
        except TimeoutError:
            self.is_complete = not self.wanted
        else:
            self.is_complete = True

    async def _look(self) -> None:
        """Raise `TimeoutError` if there are too many messages to look at."""
        lists = await self.ledger.call("waiting_lists", {"queues": known_queues()})
        for name, length in zip(lists[::2], lists[1::2], strict=True):
            behind = ""
            for start in range(0, length, _AT_ONCE):
                behind, *found = await self._asked("look", {"list": name, "from": start, "behind": behind})
                self._take(found[::3], found[1::3], map(int, found[2::3]))
        cursor = ""
        while cursor != "0":  # after the lists, because a worker may have taken a message from one meanwhile
            cursor, *found = await self._asked("look_in_hands", {"cursor": cursor or "0"})
            self._take(found[::2], found[1::2], repeat(None))

    async def _asked(self, transition: str, place: dict[str, Any]) -> Any:
        if not self.wanted or self._left <= 0:
            raise TimeoutError
        self._left -= _AT_ONCE
        return await self.ledger.call(transition, {"ids": list(self.wanted), "count": _AT_ONCE} | place)

    def _take(self, ids: Iterable[str], texts: Iterable[str], scores: Iterable[int | None]) -> None:
        for job_id, text, score in zip(ids, texts, scores, strict=False):
            self.found.setdefault(job_id, (text, score))  # a task may be there twice
            self.wanted.discard(job_id)


def _message(text: str) -> Any:
    """Return the message in a text from the broker. Raises `Unreadable`."""
    try:
        read = json.loads(text)
        message = read[0] if isinstance(read, list) else read  # of a delivered one, kombu keeps also where it was
        check_envelope(json.dumps(message).encode())
    except (ValueError, LookupError, RecursionError) as failure:
        raise Unreadable(Reason.NOT_JSON, failure) from failure
    return message
