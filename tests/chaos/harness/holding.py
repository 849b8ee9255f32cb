"""What workers hold of a broker's messages, looked at all the time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import redis
from celery import Celery

from shared.ledger.keys import key

_REST_S = 0.1
_REPLY_S = 5.0


@dataclass
class Holding:
    """The most that was seen of each, since the workers were there."""

    prefetch: Counter[str] = field(default_factory=Counter)  # how many messages a worker asks its broker for
    claims: Counter[str] = field(default_factory=Counter)  # how many jobs a worker has claimed at once
    unacknowledged: int = 0  # messages of all workers together
    looks: int = 0

    @property
    def has_seen_all(self) -> bool:
        """Whether each of these was seen at least once."""
        return bool(self.looks and self.prefetch and self.claims and self.unacknowledged)

    def beyond(self, *, workers: int, concurrency: int) -> list[str]:
        """Return what was more than there are processes to run it."""
        found = [f"{name} asked for {most} messages" for name, most in self.prefetch.items() if most > concurrency]
        found += [f"{name} claimed {most} jobs" for name, most in self.claims.items() if most > concurrency]
        if self.unacknowledged > workers * concurrency:
            found.append(f"{self.unacknowledged} messages were not acknowledged")
        if not self.has_seen_all:
            found.append("nobody looked")
        return found

    def look(self, app: Celery, ledger: redis.Redis, unacknowledged: Callable[[], int], workers: int) -> None:
        """Look once at broker, ledger and workers."""
        self.unacknowledged = max(self.unacknowledged, unacknowledged())
        with ledger.pipeline(transaction=False) as pipeline:
            for job_id in ledger.zrange(key("claims"), 0, -1):
                pipeline.hget(key("job", str(job_id)), "owner")
            self.claims |= Counter(owner for owner in pipeline.execute() if owner)
        replies = app.control.inspect(timeout=_REPLY_S, limit=workers).stats() or {}
        self.prefetch |= Counter({name: stats["prefetch_count"] for name, stats in replies.items()})
        self.looks += 1


@contextmanager
def held(broker_url: str, ledger_url: str, unacknowledged: Callable[[], int], *, workers: int) -> Iterator[Holding]:
    """Look at what this number of workers hold as long as the block lasts, and yield the most of it."""
    seen, over = Holding(), threading.Event()
    failures: list[BaseException] = []
    with (
        Celery("watch", broker=broker_url) as app,
        redis.Redis.from_url(ledger_url, decode_responses=True) as ledger,
    ):

        def watch() -> None:
            try:
                while not over.wait(_REST_S):
                    seen.look(app, ledger, unacknowledged, workers)
            except BaseException as failure:  # noqa: BLE001 - it is raised where the block ends
                failures.append(failure)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()
        if failures:
            raise failures[0]


def unacked_on(client: redis.Redis) -> Callable[[], int]:
    """Return what counts the messages that a Redis broker has given out."""
    return lambda: int(client.hlen(key("unacked")))
