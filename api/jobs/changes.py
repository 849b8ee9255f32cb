"""Wait for changes of jobs: one subscription per process for all waiters, no polling.

    with changes.watch(job_id) as watch:
        while not (job := await look()).has_ended and await watch.changed(left_s):
            pass

Register first and read second: a change in between sets the watch. Messages are lost while the subscription is
down, so whenever it is established all waiters are woken once to read again.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import defaultdict
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from api.background import in_background
from api.http.problems import Problem
from api.subscription import Subscription, stay_subscribed
from shared.collector import give_memory_back
from shared.ledger.keys import key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import FrameType

_MANY = 500  # waiters: each takes 33 to 63 KiB
_NOT_A_SERVERS = (None, signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)


class Watch:
    """One waiter's registration for one job."""

    def __init__(self) -> None:
        """Start unregistered; `Changes.watch` registers it."""
        self.is_abandoned = False  # its waiter has gone
        self._set = asyncio.Event()

    def abandon(self) -> None:
        """Let `changed` return for the last time: there are no more waiters."""
        self.is_abandoned = True
        self._set.set()

    def wake(self) -> None:
        """Let `changed` return."""
        self._set.set()

    async def changed(self, timeout_s: float | None = None) -> bool:
        """Wait until the job may have changed since the last call; False after `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._set.wait()
        except TimeoutError:
            return False
        self._set.clear()
        return True


class Changes:
    """The watched jobs, and the subscription that wakes their waiters.

    It is subscribed only while there are waiters and for `idle_s` after, so a gateway that only accepts jobs does not
    read their changes. A connection without messages for `quiet_s` is pinged.
    """

    def __init__(self, url: str, *, max_watches: int = 10_000, idle_s: float = 10.0, quiet_s: float = 5.0) -> None:
        """Take the ledger at `url`; `listen` connects to it."""
        self.closing = False
        self._url = url
        self._max_watches = max_watches
        self._idle_s = idle_s
        self._quiet_s = quiet_s
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)
        self._count = 0
        self._most = 0  # waiters at the same time, since there were none
        self._wanted = asyncio.Event()
        self._last_wanted = 0.0

    def __len__(self) -> int:
        """Return the number of waiters."""
        return self._count

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """Register for a job's changes. Raises `Problem` (503) if there are too many waiters."""
        if self._count >= self._max_watches:
            raise Problem(
                503,
                "too_many_waiters",
                f"{self._max_watches} requests are waiting, the maximum. Poll without wait_s, or retry later.",
                headers={"Retry-After": "5"},
            )
        watch = Watch()
        self._count += 1
        self._most = max(self._most, self._count)
        self._watches[job_id].add(watch)
        self._wanted.set()
        try:
            yield watch
        finally:
            self._count -= 1
            self._watches[job_id].discard(watch)
            if not self._watches[job_id]:
                del self._watches[job_id]
            self._last_wanted = time.monotonic()

    def close(self) -> None:
        """Wake all waiters for the last time: they see `closing` and end."""
        self.closing = True
        self._wake_all()

    async def listen(self) -> None:
        """Maintain the subscription while there are waiters, until cancelled."""
        while True:
            await self._wanted.wait()
            await stay_subscribed(self._url, key("changes"), self._relay, quiet_s=self._quiet_s)
            if self._most >= _MANY:
                give_memory_back()
            self._most = 0

    async def _relay(self, subscription: Subscription) -> None:
        self._wake_all()
        while self._is_wanted():
            for watch in self._watches.get(await subscription.next() or "", ()):
                watch.wake()

    def _is_wanted(self) -> bool:
        if not self._watches and time.monotonic() - self._last_wanted > self._idle_s:
            self._wanted.clear()
        return self._wanted.is_set()

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[Changes]:
    """Yield the process's `Changes` on the ledger at `url`, subscribed as long as the block lasts."""
    changes = Changes(url)
    async with in_background(changes.listen()):
        with _closed_by_signals(changes):
            try:
                yield changes
            finally:
                changes.close()


@contextmanager
def _closed_by_signals(changes: Changes) -> Iterator[None]:
    """Close `changes` when the server is told to stop: it waits for open streams before the lifespan ends."""
    loop = asyncio.get_running_loop()
    earlier: dict[int, Any] = {}

    def close(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(changes.close)
        earlier[number](number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(number)
        if threading.current_thread() is threading.main_thread() and handler not in _NOT_A_SERVERS:
            earlier[number] = handler
            signal.signal(number, close)
    try:
        yield
    finally:
        for signal_number, handler in earlier.items():
            signal.signal(signal_number, handler)


async def _changes(request: Request) -> Changes:
    changes: Changes = request.app.state.changes
    return changes


Waiters = Annotated[Changes, Depends(_changes)]
