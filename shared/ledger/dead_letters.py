"""Dead letters: messages that no worker can read, taken off the broker and kept for an operator.

Workers add to them (`bury`), the gateway shows and removes them (`DeadLetters`). They are bounded in number, size and
time: a broken client must not fill the ledger.
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
KEPT_BYTES = 64 * 1024  # of one message: more than a job of the gateway usually has
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
    message: bytes  # as it lay on a Redis list, or what another broker delivered in the same form; maybe cut
    size_bytes: int  # of the whole

    @property
    def is_cut(self) -> bool:
        """Whether only its beginning was kept, so that it cannot be put back."""
        return len(self.message) < self.size_bytes

    def fields(self) -> dict[str, str | int]:
        """Return it as the ledger stores it; the id is in the key. Bytes are base64, since replies are text."""
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
    """Keep a letter, count it, and drop the oldest ones beyond the bound. Raises Redis errors."""
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
    """The gateway's side. Raises `LedgerUnavailable` and `OutcomeUnknown`, as all of the ledger."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger

    async def list(self, *, limit: int, before: str | None = None) -> tuple[list[DeadLetter], bool]:
        """Return up to `limit` letters, newest first, below the id `before`, and whether there are more."""
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
                await client.zrem(key("dead_letters"), *lapsed)  # they are the oldest, so there is nothing below them
        letters = [_parsed(letter_id, fields) for letter_id, fields in found.items() if fields]
        return letters[:limit], len(letters) > limit

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return a letter, None if there is none."""
        async with self._answering():
            fields = await cast("Any", self._ledger.client.hgetall(key("dead_letter", letter_id)))
        return _parsed(letter_id, fields) if fields else None

    async def remove(self, letter_id: str) -> bool:
        """Remove a letter; return whether it was there."""
        note_change()  # before it is asked for: without an answer it may be done
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
