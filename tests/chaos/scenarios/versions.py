"""Two versions side by side, as during a deployment: the older one has an optional parameter and a kind less."""

from __future__ import annotations

import time
from pathlib import Path

from tests.chaos.harness.account import settle
from tests.chaos.harness.rows import Row
from tests.chaos.harness.stage import NEW, OLD, scaled, stage

UNTIL_NEW_WORKERS_S = 4.0


def gateway_first(folder: Path, scale: float = 1) -> Row:
    """Gateway first: old workers get what they know; what only new ones can run waits until there are some."""
    number = scaled(60, scale)
    with stage(folder, workers=0) as service:
        service.hire(2, OLD)
        service.supervisor.wait_until_ready()
        for _ in range(number):
            jobs = [service.job(), service.job(note="new"), service.job("chaos.leave_new_trace")]
            service.clients.submit_all(jobs)
        time.sleep(UNTIL_NEW_WORKERS_S)
        service.hire(2)
        service.clients.submit_all(service.job(note="new", lasts_s=0.2) for _ in range(number))
        return settle(service, f"new gateway, 2 old workers, {UNTIL_NEW_WORKERS_S:g} s later 2 new ones")


def workers_first(folder: Path, scale: float = 1) -> Row:
    """Workers first: new and old ones run what an old gateway accepts."""
    with stage(folder, workers=0, env=OLD) as service:
        service.hire(2, OLD)
        service.hire(2, NEW)
        service.supervisor.wait_until_ready()
        service.clients.submit_all(service.job(lasts_s=0.2) for _ in range(scaled(120, scale)))
        return settle(service, "old gateway, 2 old and 2 new workers")
