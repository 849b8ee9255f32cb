"""Dead letters: messages that no worker can read, removed from the broker and kept for an operator.

Workers add them (`bury`); the gateway shows and removes them (`DeadLetters`). Their number, size and lifetime are
limited, because a broken client must not fill the ledger.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import redis

from shared.ledger.aclient import AsyncLedger
from shared.ledger.calling.calls import NO_ANSWER, note_change, unavailable
from shared.ledger.counters import SEPARATOR
from shared.ledger.ids import time_floor
from shared.ledger.keys import key

MAX_LETTERS = 1_000
KEPT_BYTES = 64 * 1024  # of one message; the message of a job is usually smaller
COUNTER = "dead"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be read. `at` is in milliseconds since 1970 by the worker's clock."""

    id: str
    at: int
    queue: str
    reason: str
    detail: str
    worker: str
    message: bytes  # as on a Redis list, in this form from other brokers, too; at most `KEPT_BYTES`
    size_bytes: int  # of the whole

    @property
    def is_cut(self) -> bool:
        """Whether only its beginning was kept. Then it cannot be put back."""
        return len(self.message) < self.size_bytes

    def fields(self) -> dict[str, str | int]:
        """Return the fields of its hash, whose key has the id. The message is base64, because replies are text."""
        return {
            "at": self.at,
            "queue": self.queue,
            "reason": self.reason,
            "detail": self.detail,
            "worker": self.worker,
            "message": base64.b64encode(self.message[:KEPT_BYTES]).decode(),
            "size_bytes": self.size_bytes,
        }


def bury(client: redis.Redis, letter: DeadLetter, *, retention_s: float) -> None:
    """Store and count a letter, and delete the oldest beyond `MAX_LETTERS`. Redis errors are raised as they are."""
    oldest_kept = time_floor(letter.at - int(retention_s * 1000))
    with client.pipeline() as pipe:
        pipe.hset(key("dead_letter", letter.id), mapping=cast("Mapping[Any, Any]", letter.fields()))
        pipe.pexpire(key("dead_letter", letter.id), int(retention_s * 1000))
        pipe.zadd(key("dead_letters"), {letter.id: 0})  # equal scores: sorted by id, and so by time
        pipe.zremrangebylex(key("dead_letters"), "-", f"({oldest_kept}")
        pipe.hincrby(key("counters"), f"{COUNTER}{SEPARATOR}{letter.reason}", 1)
        pipe.zrange(key("dead_letters"), 0, -(MAX_LETTERS + 1))
        *_, beyond = pipe.execute()
    if beyond:
        with client.pipeline() as pipe:
            pipe.zrem(key("dead_letters"), *beyond)
            pipe.delete(*(key("dead_letter", letter_id) for letter_id in beyond))
            pipe.execute()


class DeadLetters:
    """The calls of the gateway. All raise `LedgerUnavailable` or `OutcomeUnknown` if the ledger does not answer."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger

    async def list(self, *, limit: int, before: str | None = None) -> tuple[list[DeadLetter], bool]:
        """Return at most `limit` letters older than the id `before`, newest first, and whether there are more."""
        client = cast("Any", self._ledger.client)
        async with self._answering():
            ids: list[str] = await client.zrevrangebylex(
                key("dead_letters"), f"({before}" if before else "+", "-", 0, limit + 1
            )
            async with client.pipeline(transaction=False) as pipe:
                for letter_id in ids:
                    pipe.hgetall(key("dead_letter", letter_id))
                found = dict(zip(ids, await pipe.execute(), strict=True))
            if lapsed := [letter_id for letter_id, fields in found.items() if not fields]:
                await client.zrem(key("dead_letters"), *lapsed)  # the oldest: nothing older is left out of this page
        letters = [_parsed(letter_id, fields) for letter_id, fields in found.items() if fields]
        return letters[:limit], len(letters) > limit

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return the letter with this id, or None."""
        async with self._answering():
            fields = await cast("Any", self._ledger.client.hgetall(key("dead_letter", letter_id)))
        return _parsed(letter_id, fields) if fields else None

    async def remove(self, letter_id: str) -> bool:
        """Remove a letter; return whether it was there."""
        note_change()  # before the call: if no answer comes, it may have been done
        async with self._answering(), self._ledger.client.pipeline() as pipe:
            pipe.delete(key("dead_letter", letter_id))
            pipe.zrem(key("dead_letters"), letter_id)
            deleted, _ = await pipe.execute()
        return bool(deleted)

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._ledger.timeout_s):
                yield
        except NO_ANSWER as failure:
            raise unavailable(failure) from failure


def _parsed(letter_id: str, fields: Mapping[str, str]) -> DeadLetter:
    return DeadLetter(
        id=letter_id,
        at=int(fields["at"]),
        queue=fields["queue"],
        reason=fields["reason"],
        detail=fields["detail"],
        worker=fields["worker"],
        message=base64.b64decode(fields["message"]),
        size_bytes=int(fields["size_bytes"]),
    )
