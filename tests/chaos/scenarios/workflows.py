"""Workers are killed and frozen while they run chains, chords, and groups of which a step fails and may."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from tests.chaos.harness.account import settle
from tests.chaos.harness.facts import Facts
from tests.chaos.harness.injuries import Injury, hurt
from tests.chaos.harness.programs import Program
from tests.chaos.harness.rows import LEASE_S, Row
from tests.chaos.harness.stage import scaled, stage

BEFORE: dict[str, dict[int, list[int]]] = {  # by shape and step: the steps that it waits for
    "chain": {1: [0], 2: [1], 3: [2]},
    "chord": {3: [0, 1, 2]},
    "group": {},
}


def run(folder: Path, scale: float = 1) -> Row:
    """120 workflows of 4 steps, 40 of each shape; 12 kills, 3 of them of a child alone; 6 freezes."""
    chance = random.Random(8)  # noqa: S311 - the same injuries each time
    kills, children, freezes = (scaled(number, scale) for number in (9, 3, 6))
    injuries: list[Injury] = [
        *[Program.kill] * kills,
        *[Program.kill_child] * children,
        *[partial(Program.freeze, lasts_s=LEASE_S + 3)] * freezes,
    ]
    chance.shuffle(injuries)
    with stage(folder, workers=4) as service:
        shapes = {f"flow-{n}": shape for n, shape in enumerate(islice(cycle(BEFORE), scaled(120, scale)))}
        for label, shape in shapes.items():
            flow = service.job("chaos.weave_traces", label=label, shape=shape, lasts_s=round(chance.uniform(0.1, 2), 1))
            service.clients.submit(flow, *(f"{label}:{number}" for number in range(4)))
        hurt(service.workers, injuries, chance, pause_s=3)
        injected = f"{len(shapes)} workflows of 4 steps: {kills + children} kills, {freezes} freezes of workers"
        return settle(service, injected, also_false=lambda facts: _too_early(shapes, facts))


def _too_early(shapes: dict[str, str], facts: Facts) -> Iterator[str]:
    """Return the steps that began before one that they wait for had ended."""
    runs = facts.by_label()
    for label, shape in shapes.items():
        for number, before in BEFORE[shape].items():
            began_at = min((run.seen_at[0] for run in runs[f"{label}:{number}"]), default=math.inf)
            for earlier in before:
                ended_at = min((run.seen_at[-1] for run in runs[f"{label}:{earlier}"] if run.end), default=math.inf)
                if began_at < ended_at:
                    yield f"step {number} of {label} began before step {earlier} had ended"
