"""Calls of the ledger for operators: queues, pauses, workers, and deletion of ended jobs.

`Operations` is for the gateway, `Presence` for the workers. Both call the script of the ledger.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from shared.ledger.aclient import AsyncLedger
from shared.ledger.client import Ledger

PAUSED_AT_ONCE = 50  # maximum number of held jobs that one call of the script publishes
FILES_LEFT_S = 60.0  # after which the keeper deletes the files of a deleted job that the gateway left
SHOWN_AFTER_LOSS_S = 3_600.0  # for which a worker without heartbeats is still listed as lost


@dataclass(frozen=True, slots=True)
class QueueState:
    """The waiting and running jobs of a queue. Times are milliseconds since 1970 by the clock of the ledger."""

    name: str
    backlog: int  # not held
    held: int  # by the pause of the queue
    limited: int  # by their concurrency key
    rated: int  # by their rate key
    running: int
    consumers: int
    paused_at: int | None
    oldest_id: str | None  # the job or step that has waited longest
    oldest_at: int
    now: int

    @property
    def depth(self) -> int:
        """Number of waiting jobs and steps, for any reason."""
        return self.backlog + self.held + self.limited + self.rated


@dataclass(frozen=True, slots=True)
class AboutWorker:
    """What a worker reports about itself. Times are milliseconds since 1970 by its clock."""

    name: str
    host: str
    pid: int
    families: tuple[str, ...]
    concurrency: int
    started_at: int
    versions: dict[str, str]  # of celeriac, celery and python
    is_stopping: bool = False


class ActiveJob(NamedTuple):
    """A job or step that a worker runs."""

    id: str
    kind: str
    job_id: str | None
    step: str | None
    started_at: int


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker in the ledger."""

    owner: str
    about: AboutWorker
    queues: tuple[str, ...]
    kinds: tuple[str, ...] | None  # None: one of an earlier version, which does not say
    seen_at: int
    is_lost: bool  # it has sent no heartbeat for longer than a lease
    active: tuple[ActiveJob, ...]
    ahead_s: float | None  # its clock, of that of the ledger; None: one of an earlier version, which does not say


class Presence:
    """The heartbeats of a worker."""

    def __init__(self, ledger: Ledger, *, owner: str, lease_s: float) -> None:
        self._ledger = ledger
        self._owner = owner
        self._lease_s = lease_s

    def heartbeat(
        self, about: AboutWorker, *, queues: Iterable[str], jobs: Iterable[str], kinds: Iterable[str] | None = None
    ) -> None:
        """Report that this worker runs, consumes `queues`, has `jobs` and can run `kinds` (None: any, for all it says).

        The next report must come within a lease.
        """
        self._ledger.call(
            "beat",
            {
                "owner": self._owner,
                "about": json.dumps(asdict(about)),
                "queues": list(queues),
                "kinds": None if kinds is None else list(kinds),
                "jobs": list(jobs),
                "clock_ms": time.time_ns() // 1_000_000,
                "lease_ms": int(self._lease_s * 1000),
                "keep_ms": int((self._lease_s + SHOWN_AFTER_LOSS_S) * 1000),
            },
        )

    def leave(self) -> None:
        """Remove this worker from the list of workers and consumers."""
        self._ledger.call("leave", {"owner": self._owner})


def workers_of(ledger: Ledger) -> list[WorkerState]:
    """Return the running workers, and those lost lately, for programs without an event loop."""
    return _by_name(ledger.call("workers", {}))


def queues_of(ledger: Ledger, names: Sequence[str]) -> list[QueueState]:
    """Return the state of these queues, for programs without an event loop."""
    return [
        parse_queue(name, reply) for name, reply in zip(names, ledger.call("queues", {"queues": names}), strict=True)
    ]


class Operations:
    """The calls of the gateway. They raise `LedgerUnavailable`."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger

    async def queues(self, names: Sequence[str]) -> list[QueueState]:
        """Return the state of these queues."""
        replies = await self._ledger.call("queues", {"queues": list(names)})
        return [parse_queue(name, reply) for name, reply in zip(names, replies, strict=True)]

    async def pause(self, queue: str) -> None:
        """Pause `queue`: no job of it starts until it is resumed; running jobs continue."""
        await self._ledger.call("pause", {"queue": queue})

    async def resume(self, queue: str) -> None:
        """Resume `queue` and publish its held jobs. If this process dies meanwhile, the keeper continues."""
        await self._ledger.call("resume", {"queue": queue})
        while await self._ledger.call("let_go", {"queue": queue, "limit": PAUSED_AT_ONCE}) == PAUSED_AT_ONCE:
            pass

    async def workers(self) -> list[WorkerState]:
        """Return the running workers, and those lost lately."""
        return _by_name(await self._ledger.call("workers", {}))

    async def forget(self, job_id: str) -> tuple[str, Sequence[str]]:
        """Delete an ended job from the ledger.

        Returns `forgotten` with the ids whose artifacts must be deleted; `live`; `referred` if another job or schedule
        needs its files, or its callback is not submitted yet; or `unknown`.
        """
        what, *rest = await self._ledger.call("forget", {"id": job_id, "files_ms": int(FILES_LEFT_S * 1000)})
        return what, rest

    async def discard(self, job_id: str) -> None:
        """Delete a job whose record is damaged; the keeper deletes its files."""
        await self._ledger.call("discard", {"id": job_id, "files_ms": int(FILES_LEFT_S * 1000)})


def _by_name(replies: Iterable[Sequence[Any]]) -> list[WorkerState]:
    return sorted((parse_worker(*reply) for reply in replies), key=lambda worker: worker.about.name)


def parse_queue(name: str, reply: Sequence[Any]) -> QueueState:
    """Return a queue from the reply of the transition `queues`."""
    backlog, held, limited, rated, running, consumers, paused_at, oldest_id, oldest_at, now = reply
    return QueueState(
        name=name,
        backlog=backlog,
        held=held,
        limited=limited,
        rated=rated,
        running=running,
        consumers=consumers,
        paused_at=int(paused_at) if paused_at else None,
        oldest_id=oldest_id or None,
        oldest_at=int(oldest_at),
        now=int(now),
    )


def parse_worker(  # noqa: PLR0917 - the script's reply
    owner: str, about: str, queues: str, kinds: str, seen_at: str, is_lost: int, active: Sequence[str], ahead_ms: str
) -> WorkerState:
    """Return a worker from the reply of the transition `workers`."""
    says = json.loads(about)
    rows = zip(*(iter(active),) * 5, strict=True)
    return WorkerState(
        owner=owner,
        about=AboutWorker(**{**says, "families": tuple(says["families"])}),
        queues=tuple(json.loads(queues) or ()),  # Lua writes an empty list as an object
        kinds=tuple(json.loads(kinds) or ()) if kinds else None,
        seen_at=int(seen_at),
        is_lost=bool(is_lost),
        active=tuple(ActiveJob(i, kind, job or None, step or None, int(at)) for i, kind, job, step, at in rows),
        ahead_s=int(ahead_ms) / 1000 if ahead_ms else None,
    )
