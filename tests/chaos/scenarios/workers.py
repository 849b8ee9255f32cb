"""Workers are killed, frozen for longer than their lease, and told to stop, while a backlog of jobs runs."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from tests.chaos.harness.account import settle
from tests.chaos.harness.injuries import Injury, hurt
from tests.chaos.harness.programs import Program
from tests.chaos.harness.rows import LEASE_S, Row
from tests.chaos.harness.stage import scaled, stage
from tests.support.servers.services import wait_for

FROZEN_S = LEASE_S + 3
EVERY_LONG = 15  # a job in so many outlives its lease


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
    frozen_s = 3 * LEASE_S
    with stage(folder, workers=4) as service:
        for _ in range(times):
            service.clients.submit_all(service.job(lasts_s=frozen_s + LEASE_S, is_quiet=True) for _ in range(4))
            wait_for(lambda: len(service.facts().runs) >= len(service.clients.accepted), "the jobs run")
            hurt(service.workers, [partial(Program.freeze, lasts_s=frozen_s, with_children=False)], chance, pause_s=0)
        return settle(service, f"main process frozen {times} x for {frozen_s:g} s, its children run on")
