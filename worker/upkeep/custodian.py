"""The custodian: renews the claims of this worker's jobs, and stops jobs that must not continue.

It runs in the main process of the worker, so it renews claims even while C code holds the GIL of a child, and during a
long warm shutdown.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis
from celery.worker import state

from shared.broker.settings import BrokerSettings
from shared.errors import TimeLimitReached
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.server import is_full
from worker.runtime.deadlines import Deadlines, Running, deadline
from worker.runtime.scratch import sweep
from worker.upkeep.cancels import Cancels
from worker.upkeep.endings import Endings
from worker.upkeep.presence import Heartbeat

logger = logging.getLogger(__name__)

_NOT_OURS = frozenset({"lost", "waiting", "unknown"})
_OPEN = frozenset({"ok", "waiting"})  # not ended, nor claimed elsewhere
_BODILESS_LEASES = 3.0  # for so long a child may have such a job and run no body
_KILL_AFTER_S = 10.0  # from the first signal to SIGKILL, for a child that does not respond


class Custodian:
    """Renews claims in each round; interrupts jobs that are cancelled, lost, or exceed a shutdown."""

    def __init__(
        self,
        ledger: Ledger,
        settings: BrokerSettings,
        *,
        owner: str,
        broker: redis.Redis | None,
        scratch: Path,
        heartbeat: Heartbeat,
        cancels: Cancels,
        deadlines: Deadlines,
        endings: Endings,
    ) -> None:
        self._deadlines = deadlines
        self._endings = endings
        self._stopping = threading.Lock()  # guards the next three attributes, which Celery's thread uses, too
        self._killed_before = 0  # number of bodies that the warden killed, as far as noted
        self._stopped: Counter[str] = Counter()  # jobs whose children were killed, until Celery notices their death
        self._over_limit: dict[str, TimeLimitReached] = {}  # jobs that it killed in an item that took too long
        self._cancels = cancels
        self._scratch = scratch
        self._heartbeat = heartbeat
        self._ledger = ledger
        self._settings = settings
        self._owner = owner
        self._broker = broker  # None if the broker is not Redis
        self._interrupted_at: dict[str, float] = {}
        self._dead: set[int] = set()  # process ids of killed children whose death Celery has not noticed
        self._gone_before: set[str] = set()  # claims that could not be confirmed in the previous round
        self._bodiless: Counter[str] = Counter()  # number of rounds, about one a second, in which a job had no body
        self._give_back_at: float | None = None

    def begin_shutdown(self) -> None:
        """Let running jobs continue for the soft shutdown time, then release them."""
        self._give_back_at = time.monotonic() + self._settings.soft_shutdown_s
        self._heartbeat.begin_shutdown()

    def pause(self, timeout_s: float) -> None:
        """Wait for the next round; return early if a job of this worker is cancelled."""
        self._cancels.wait(timeout_s, concerns=lambda job_id: any(request.id == job_id for request in _requests()))

    def round(self) -> None:
        """Renew claims, interrupt jobs that must stop, tell the ledger of endings, and send a heartbeat."""
        requests = {request.id: request for request in _requests()}
        with self._stopping:
            self._note_killed()
        self._keep(requests)
        self._endings.settle(requests.keys())
        self._heartbeat.give(requests)
        sweep(self._scratch, requests.keys())
        self._renew_deliveries(requests.values())  # last: the broker may be another server than the ledger

    def has_stopped(self, job_id: str) -> bool:
        """Return whether the child of this job that has just died was killed on purpose; True once per killed child."""
        with self._stopping:
            self._note_killed()
            self._stopped[job_id] -= 1
            was_stopped = self._stopped[job_id] >= 0
            self._stopped = +self._stopped  # drops counts that are not positive
            return was_stopped

    def limit_reached(self, job_id: str) -> TimeLimitReached | None:
        """Return the failure of this job if its child that has just died was killed in an item that took too long."""
        with self._stopping:
            self._note_killed()
            return self._over_limit.pop(job_id, None)

    def _keep(self, requests: dict[str, Any]) -> None:
        if not requests:
            self._interrupted_at.clear()
            self._bodiless.clear()
            return
        bodies = self._bodies()
        if self._give_back_at is not None and time.monotonic() >= self._give_back_at:
            for request in requests.values():
                self._ledger.release(request.id, owner=self._owner)
                self._interrupt(request, "shutting down", bodies.get(request.id))
            return
        replies = self._renew(requests, bodies)
        # Claims that cannot be confirmed. `waiting` means that the job is not claimed yet, unless its body runs.
        gone = {
            job_id for job_id, reply in replies.items() if reply == "lost" or (reply == "waiting" and job_id in bodies)
        }
        for job_id, reply in replies.items():
            body = bodies.get(job_id)
            # A claim that was just refused also looks lost once; its child is ending and must not be interrupted.
            is_gone = job_id in gone & self._gone_before or (body and body.is_suspended and reply in _NOT_OURS)
            if reply == "cancel" or is_gone:
                self._interrupt(requests[job_id], reply, body)
        self._gone_before = gone
        self._kill_idle(requests, {job_id for job_id, reply in replies.items() if reply in _OPEN} - bodies.keys())
        for job_id in self._interrupted_at.keys() - requests.keys():
            del self._interrupted_at[job_id]
        there = {body.pid for body in self._deadlines.running()}
        self._dead &= there | {request.worker_pid for request in requests.values()}

    def _kill_idle(self, requests: dict[str, Any], bodiless: set[str]) -> None:
        """Kill the children that have had a job for long, and do not run its body: they hang.

        Before the body and after it a child only calls the ledger, which answers. Celery reports the death, so that
        the job is released.
        """
        self._bodiless = Counter({job_id: self._bodiless[job_id] + 1 for job_id in bodiless})
        for job_id, rounds in self._bodiless.items():
            pid = requests[job_id].worker_pid
            if rounds > _BODILESS_LEASES * self._settings.lease_s and pid and pid != os.getpid():
                self._kill(job_id, pid, "its body has not run for long")

    def _renew(self, requests: dict[str, Any], bodies: dict[str, Running]) -> dict[str, str]:
        """Renew the claims, and extend the deadlines of those that were renewed."""
        asked_at, lease_s = time.monotonic(), self._settings.lease_s
        tokens = {job_id: str(body.token) for job_id, body in bodies.items()}
        try:
            replies = self._ledger.renew(list(requests), owner=self._owner, lease_s=lease_s, tokens=tokens)
        except redis.ResponseError as refused:
            if is_full(refused):  # then no other worker can get the claims, either
                for body in bodies.values():
                    self._deadlines.put_off(body, until=deadline(asked_at, lease_s))
            raise
        for job_id, body in bodies.items():
            if replies.get(job_id) in {"ok", "cancel"}:
                self._deadlines.put_off(body, until=deadline(asked_at, lease_s))
        return replies

    def _bodies(self) -> dict[str, Running]:
        """Return the running bodies by job; kill older ones of a job that this worker has claimed again."""
        newest: dict[str, Running] = {}
        for body in sorted(self._deadlines.running(), key=lambda body: body.token):
            if body.job_id in newest and newest[body.job_id].pid not in self._dead:
                self._kill(body.job_id, newest[body.job_id].pid, "lost")
            newest[body.job_id] = body
        return newest

    def _note_killed(self) -> None:
        self._killed_before, killed = self._deadlines.killed(self._killed_before)
        for body in killed:
            if body.item is not None:
                self._over_limit[body.job_id] = TimeLimitReached(body.item.limit_s, item=body.item.index)
            else:
                self._stopped[body.job_id] += 1
                self._release(body.job_id, token=str(body.token))

    def _release(self, job_id: str, *, token: str | None = None) -> None:
        """Release a job without counting a crash."""
        self._endings.keep(job_id, lambda backend: backend.ledger.release(job_id, owner=self._owner, token=token))

    def give_back(self) -> None:
        """Release all jobs of this worker; called at its end."""
        for request in _requests():
            self._release(request.id)
        self._endings.settle(())
        self._heartbeat.end()

    def _renew_deliveries(self, requests: Iterable[Any]) -> None:
        """Tell kombu's Redis transport that these messages are still being worked on."""
        if self._broker is None:
            return
        tags = [request.message.delivery_tag for request in requests if request.message is not None]
        if tags:
            now = time.time()
            self._broker.zadd(key("unacked_index"), dict.fromkeys(tags, now), xx=True)

    def _interrupt(self, request: Any, why: str, body: Running | None) -> None:
        """Interrupt the child, and kill it if it does not respond. One that is suspended cannot respond."""
        pid = request.worker_pid
        if not pid or pid == os.getpid() or pid in self._dead or not request.time_start:
            return  # it has ended, or has not started, and then its claim will be refused
        # A cancel renews the claim, so the body continues.
        is_suspended = body is not None and body.is_suspended and why != "cancel"
        first = self._interrupted_at.get(request.id)
        if first is None and not is_suspended:
            self._interrupted_at[request.id] = time.monotonic()
            logger.warning("%s: %s, interrupting child %d", request.id, why, pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)  # billiard's soft time limit
        elif is_suspended or (first is not None and time.monotonic() - first >= _KILL_AFTER_S):
            self._kill(request.id, pid, why)

    def _kill(self, job_id: str, pid: int, why: str) -> None:
        """Kill a child. If another worker may have its claim, Celery's thread must not report its death."""
        logger.warning("%s: %s, killing child %d", job_id, why, pid)
        self._dead.add(pid)
        if why in _NOT_OURS:
            with self._stopping:
                self._stopped[job_id] += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _requests() -> list[Any]:
    """Return the running and reserved requests of this worker."""
    while True:
        try:
            return [*state.active_requests, *(set(state.reserved_requests) - set(state.active_requests))]
        except RuntimeError:  # the main thread changed the set meanwhile
            continue
