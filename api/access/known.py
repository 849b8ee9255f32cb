"""The keys as this process knows them: each is looked up once in a while, and forgotten at once when it is changed.

What is known lasts `KNOWN_FOR_S`. Changes of keys are published, so it usually ends earlier: within milliseconds of a
revocation. Only where the subscription is broken may a revoked key go on for as long as that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import structlog

from api.background import in_background
from api.subscription import Subscription, stay_subscribed
from shared.access.keyring import USED_EVERY_MS, KeyRecord, Keyring
from shared.errors import LedgerFull, LedgerUnavailable, OutcomeUnknown
from shared.ledger.keys import key

KNOWN_FOR_S = 2.0
_QUIET_S = 1.0  # after which it is looked whether there is any key, and the subscription is asked whether it lives
_MOST_KNOWN = 2 * 10_000  # wrong ids are known, too
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Entry:
    """What was found under an id, how far the ledger's clock was before ours, and until when that is known."""

    key: KeyRecord | None
    ahead_ms: float
    until_s: float  # of `time.monotonic`

    @property
    def now_ms(self) -> int:
        return int(time.time() * 1000 + self.ahead_ms)


@dataclass
class KnownKeys:
    """The keys that were looked up."""

    keyring: Keyring
    has_keys: bool | None = None  # None: not known yet
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _lookups: dict[str, asyncio.Task[_Entry]] = field(default_factory=dict)
    _generation: int = 0  # counts what was published, and gaps
    _noted_at: dict[str, int] = field(default_factory=dict)  # when a use was recorded last, by the ledger's clock
    _noting: set[asyncio.Task[None]] = field(default_factory=set)

    async def find(self, key_id: str) -> tuple[KeyRecord | None, int]:
        """Return the key with this id, and the ledger's time. Raises `LedgerUnavailable`."""
        entry = self._entries.get(key_id)
        if entry is None or time.monotonic() >= entry.until_s:
            if key_id not in self._lookups:
                looking = self._lookups[key_id] = asyncio.create_task(self._look(key_id))
                looking.add_done_callback(lambda _: self._lookups.pop(key_id, None))
            entry = await asyncio.shield(self._lookups[key_id])
        return entry.key, entry.now_ms

    async def is_asked_for(self) -> bool:
        """Return whether there is any key. Raises `LedgerUnavailable` if that was never known."""
        if self.has_keys is None:
            await self.find("")
        return self.has_keys is not False

    def forget(self, key_id: str | None = None) -> None:
        """Forget one key, or all."""
        self._generation += 1
        if key_id is None:
            self._entries.clear()
        else:
            self._entries.pop(key_id, None)

    async def look_for_the_first(self) -> None:
        """Look whether there is any key; where the ledger does not respond, what was known stays."""
        with suppress(LedgerFull, LedgerUnavailable, OutcomeUnknown):
            await self._look("")

    async def _look(self, key_id: str) -> _Entry:
        while True:
            generation = self._generation
            looked = await self.keyring.look(key_id)
            if generation == self._generation:
                break
        if len(self._entries) >= _MOST_KNOWN:
            self._entries.clear()
        self.has_keys = looked.has_keys
        entry = _Entry(looked.key, looked.now_ms - time.time() * 1000, time.monotonic() + KNOWN_FOR_S)
        self._entries[key_id] = entry
        return entry

    def note_use(self, key: KeyRecord, now_ms: int) -> None:
        """Record that a key is used, at most once a minute."""
        if now_ms - max(key.last_used_at or 0, self._noted_at.get(key.id, 0)) >= USED_EVERY_MS:
            self._noted_at[key.id] = now_ms
            noting = asyncio.create_task(self._used(key.id))
            self._noting.add(noting)
            noting.add_done_callback(self._noting.discard)

    async def _used(self, key_id: str) -> None:
        try:
            await self.keyring.used(key_id)
        except (LedgerFull, LedgerUnavailable, OutcomeUnknown) as failure:
            _log.warning("the use of a key is not recorded", key_id=key_id, cause=type(failure).__name__)

    async def listen(self, url: str) -> None:
        """Forget what changes, until cancelled."""
        await stay_subscribed(url, key("access"), self._follow, quiet_s=_QUIET_S)

    async def _follow(self, subscription: Subscription) -> None:
        self.forget()
        try:
            await self.look_for_the_first()
            while True:
                changed = await subscription.next()
                if changed is not None:
                    self.forget(changed)
                await self.look_for_the_first()
        finally:
            self.forget()


@asynccontextmanager
async def knowing_keys(url: str, keyring: Keyring) -> AsyncIterator[KnownKeys]:
    """Yield the process's `KnownKeys` of the ledger at `url`, as long as the block lasts."""
    keys = KnownKeys(keyring)
    await keys.look_for_the_first()
    async with in_background(keys.listen(url)):
        yield keys
