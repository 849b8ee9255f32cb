"""The broker says nothing: its process is frozen, or what is sent to it and comes from it is lost on the way."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.chaos.harness.account import settle
from tests.chaos.harness.clients import crowd
from tests.chaos.harness.rows import LEASE_S, Row
from tests.chaos.harness.stage import Stage, scaled, stage

SILENT_S = 2 * LEASE_S


def run(folder: Path, scale: float = 1) -> Row:
    """3 times each: frozen, and cut off, for two leases; clients submit without keys and believe each answer."""
    chance, times = random.Random(8), scaled(3, scale)  # noqa: S311 - the same jobs each time
    with stage(folder, workers=2) as service:

        def submit_one() -> None:
            service.clients.submit_once(service.job(lasts_s=chance.uniform(0.1, 1)))

        def submit_many() -> None:
            service.clients.submit_once(*(service.job() for _ in range(50)))

        with crowd(8, submit_one, rest_s=0.5), crowd(2, submit_many, rest_s=5):
            for _ in range(times):
                _freeze(service)
                _cut_off(service)
        injected = f"broker frozen {times} x and blackholed {times} x for {SILENT_S:g} s, 10 clients without keys"
        return settle(service, injected)


def _freeze(service: Stage) -> None:
    time.sleep(3)
    with service.outage(503):
        service.valkey.freeze(SILENT_S)
    time.sleep(LEASE_S)


def _cut_off(service: Stage) -> None:
    time.sleep(3)
    with service.outage(503):
        service.proxy.hold()
        time.sleep(SILENT_S)
        service.proxy.release()
    time.sleep(LEASE_S)
