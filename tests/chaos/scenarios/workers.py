"""Workers are killed, frozen for longer than their lease, and told to stop, while a backlog of jobs runs."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from tests.chaos.harness.account import settle
from tests.chaos.harness.injuries import Injury, hurt
from tests.chaos.harness.programs import Program
from tests.chaos.harness.proxy import proxy_to
from tests.chaos.harness.rows import LEASE_S, Row
from tests.chaos.harness.stage import NEW, Stage, scaled, stage
from tests.support.servers.services import wait_for

FROZEN_S = LEASE_S + 3
AWAY_S = 3 * LEASE_S
EVERY_LONG = 15  # one in 15 jobs outlives its lease


def run(folder: Path, scale: float = 1) -> Row:
    """1,500 jobs; 30 kills, 10 of them of a child alone; 28 freezes, 14 of them of a main process; 10 terminations."""
    chance = random.Random(8)  # noqa: S311 - the same injuries each time
    kills, children, freezes, mains, ends = (scaled(number, scale) for number in (20, 10, 14, 14, 10))
    injuries: list[Injury] = [
        *[Program.kill] * kills,
        *[Program.kill_child] * children,
        *[partial(Program.freeze, lasts_s=FROZEN_S)] * freezes,
        *[partial(Program.freeze, lasts_s=FROZEN_S, with_children=False)] * mains,
        *[Program.terminate] * ends,
    ]
    chance.shuffle(injuries)
    with stage(folder, workers=scaled(6, max(scale, 0.7))) as service:
        lengths = [_length_s(number, chance) for number in range(scaled(1_500, scale))]
        service.clients.submit_all(service.job(lasts_s=s, is_quiet=chance.random() < 0.5) for s in lengths)
        hurt(service.workers, injuries, chance, pause_s=2)
        injected = (
            f"workers: {kills + children} kills, {freezes + mains} freezes of {FROZEN_S:g} s, {ends} terminations"
        )
        return settle(service, injected)


def _length_s(number: int, chance: random.Random) -> float:
    return chance.uniform(2, 3) * LEASE_S if number % EVERY_LONG == 0 else chance.uniform(0.1, 1)


def frozen_mains(folder: Path, scale: float = 1) -> Row:
    """Freeze main processes for three leases under children that run on, while other workers wait for their jobs."""
    chance, times = random.Random(8), scaled(4, scale)  # noqa: S311 - the same injuries each time
    with stage(folder, workers=4) as service:
        for _ in range(times):
            _run_long(service)
            freeze = partial(Program.freeze, lasts_s=AWAY_S, with_children=False)
            hurt(service.workers, [freeze], chance, pause_s=0)
        return settle(service, f"main process frozen {times} x for {AWAY_S:g} s, its children run on")


def cut_off(folder: Path, scale: float = 1) -> Row:
    """Cut workers off from broker and ledger for three leases, one at a time, while the others wait for their jobs."""
    times = scaled(4, scale)
    with stage(folder, workers=0) as service, ExitStack() as network:
        proxies = [network.enter_context(proxy_to(service.valkey_port)) for _ in range(4)]
        for proxy in proxies:
            service.hire(1, {**NEW, "CELERY_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0"})
        service.supervisor.wait_until_ready()
        for proxy in islice(cycle(proxies), times):
            _run_long(service)
            proxy.hold()
            time.sleep(AWAY_S)
            proxy.release()
        return settle(service, f"{times} x one worker cut off for {AWAY_S:g} s, the ledger serves the others")


def _run_long(service: Stage) -> None:
    """Submit jobs that last for longer than a worker is away, and wait until they run."""
    service.clients.submit_all(service.job(lasts_s=AWAY_S + LEASE_S, is_quiet=True) for _ in range(4))
    wait_for(lambda: len(service.facts().runs) >= len(service.clients.accepted), "the jobs run", bound_s=60)
