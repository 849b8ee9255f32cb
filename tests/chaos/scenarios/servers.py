"""Broker and gateway are killed under clients that repeat each request, with its key, until it is answered."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.harness.account import settle
from tests.chaos.harness.injuries import hurt
from tests.chaos.harness.programs import Program
from tests.chaos.harness.rows import Row
from tests.chaos.harness.stage import Stage, scaled, stage
from tests.support.servers.services import wait_for

PAUSE_S = 5.0
REST_S = 1.0  # of a client between two jobs


def run(folder: Path, scale: float = 1) -> Row:
    """7 kills each of broker and gateway, in turn, under 8 clients."""
    chance, times = random.Random(8), scaled(7, scale)  # noqa: S311 - the same injuries each time
    with stage(folder, workers=2) as service:
        jobs = [service.job(lasts_s=chance.uniform(0.1, 2)) for _ in range(scaled(500, scale))]
        with ThreadPoolExecutor(1) as crowd:
            submitting = crowd.submit(service.clients.in_parallel, jobs, clients=8, pause_s=REST_S)
            for _ in range(times):
                _kill_broker(service)
                hurt([service.gateway], [Program.kill], chance, pause_s=PAUSE_S)
            submitting.result()
        return settle(service, f"{times} kills each of broker and gateway, 8 clients with keys")


def _kill_broker(service: Stage) -> None:
    with service.outage(503):
        service.valkey.kill()
        wait_for(lambda: service.valkey.is_ready, "the broker is back")
