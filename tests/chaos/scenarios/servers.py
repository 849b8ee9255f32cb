"""Broker and gateway are killed under clients that repeat each request, with its key, until it is answered."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.chaos.harness.account import settle
from tests.chaos.harness.clients import crowd
from tests.chaos.harness.injuries import hurt
from tests.chaos.harness.programs import Program
from tests.chaos.harness.rows import Row
from tests.chaos.harness.stage import Stage, scaled, stage
from tests.support.servers.services import wait_for

PAUSE_S = 5.0


def run(folder: Path, scale: float = 1) -> Row:
    """7 kills each of broker and gateway, in turn, under 8 clients; each looks at the job that it has submitted."""
    chance, times = random.Random(8), scaled(7, scale)  # noqa: S311 - the same injuries each time
    with stage(folder, workers=2) as service:

        def submit() -> None:
            job = service.job(lasts_s=chance.uniform(0.1, 1))
            if job_id := service.clients.submit(job, job["params"]["label"]):
                service.clients.ask("GET", f"/jobs/{job_id}")

        with crowd(8, submit, rest_s=1.5):
            for _ in range(times):
                time.sleep(PAUSE_S)
                _kill_broker(service)
                time.sleep(PAUSE_S)
                hurt([service.gateway], [Program.kill], chance, pause_s=0)
            wait_for(lambda: service.gateway.is_ready, "the gateway is back")
        return settle(service, f"{times} kills each of broker and gateway, 8 clients with keys")


def _kill_broker(service: Stage) -> None:
    with service.outage(503):
        service.valkey.kill()
        wait_for(lambda: service.valkey.is_ready, "the broker is back")
