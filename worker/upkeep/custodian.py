"""The custodian: renews the claims of this worker's jobs, and stops jobs that must not continue.

It runs in the main process of the worker, so it renews claims even while C code holds the GIL of a child, and during a
long warm shutdown.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis
from celery.worker import state

from shared.broker.settings import BrokerSettings
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from worker.runtime.scratch import sweep
from worker.upkeep.cancels import Cancels
from worker.upkeep.presence import Heartbeat

logger = logging.getLogger(__name__)

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
    ) -> None:
        self._cancels = cancels
        self._scratch = scratch
        self._heartbeat = heartbeat
        self._ledger = ledger
        self._settings = settings
        self._owner = owner
        self._broker = broker  # None if the broker is not Redis
        self._interrupted_at: dict[str, float] = {}
        self._lost_before: set[str] = set()  # in the previous round
        self._give_back_at: float | None = None

    def begin_shutdown(self) -> None:
        """Let running jobs continue for the soft shutdown time, then release them."""
        self._give_back_at = time.monotonic() + self._settings.soft_shutdown_s
        self._heartbeat.begin_shutdown()

    def pause(self, timeout_s: float) -> None:
        """Wait for the next round: it comes at once where a job of this worker is asked to stop."""
        self._cancels.wait(timeout_s, concerns=lambda job_id: any(request.id == job_id for request in _requests()))

    def round(self) -> None:
        """Renew claims, interrupt jobs that must stop, and send a heartbeat."""
        requests = {request.id: request for request in _requests()}
        sweep(self._scratch, requests.keys())
        self._keep(requests)
        self._heartbeat.give(requests)

    def _keep(self, requests: dict[str, Any]) -> None:
        if not requests:
            self._interrupted_at.clear()
            return
        self._renew_deliveries(requests.values())
        if self._give_back_at is not None and time.monotonic() >= self._give_back_at:
            for request in requests.values():
                self._ledger.release(request.id, owner=self._owner)
                self._interrupt(request, "shutting down")
            return
        replies = self._ledger.renew(list(requests), owner=self._owner, lease_s=self._settings.lease_s)
        lost = {job_id for job_id, reply in replies.items() if reply == "lost"}
        for job_id, reply in replies.items():
            # A claim that was just refused looks lost, too; its child is ending and must not be interrupted.
            if reply == "cancel" or job_id in lost & self._lost_before:
                self._interrupt(requests[job_id], reply)
        self._lost_before = lost
        for job_id in self._interrupted_at.keys() - requests.keys():
            del self._interrupted_at[job_id]

    def give_back(self) -> None:
        """Release all jobs of this worker; called at its end."""
        for request in _requests():
            self._ledger.release(request.id, owner=self._owner)
        self._heartbeat.end()

    def _renew_deliveries(self, requests: Iterable[Any]) -> None:
        """Tell kombu's Redis transport that these messages are still being worked on."""
        if self._broker is None:
            return
        tags = [request.message.delivery_tag for request in requests if request.message is not None]
        if tags:
            now = time.time()
            self._broker.zadd(key("unacked_index"), dict.fromkeys(tags, now), xx=True)

    def _interrupt(self, request: Any, why: str) -> None:
        """Interrupt the child, and kill it if it does not respond."""
        pid = request.worker_pid
        if not pid or pid == os.getpid() or not request.time_start:
            return  # not started; its claim will be refused
        polite = request.id not in self._interrupted_at
        first = self._interrupted_at.setdefault(request.id, time.monotonic())
        if not polite and time.monotonic() - first < _KILL_AFTER_S:
            return
        logger.warning("%s: %s, %s child %d", request.id, why, "interrupting" if polite else "killing", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1 if polite else signal.SIGKILL)  # SIGUSR1: billiard's soft time limit


def _requests() -> list[Any]:
    """Return the running and reserved requests of this worker."""
    while True:
        try:
            return [*state.active_requests, *(set(state.reserved_requests) - set(state.active_requests))]
        except RuntimeError:  # the main thread changed the set meanwhile
            continue
