"""Injuries: what is done to programs, one after another, each to one that works at that moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.harness.programs import Program
from tests.support.servers.services import wait_for

Injury = Callable[[Program], None]


def hurt(programs: Sequence[Program], injuries: Sequence[Injury], chance: random.Random, *, pause_s: float) -> None:
    """Do these injuries in this order, at least `pause_s` apart; return when the last one is over.

    Each waits until more than half of the programs work: where a start takes long, all would soon be down, and what is
    measured would be how long a start takes.
    """

    def victim() -> Program | None:
        ready = [program for program in programs if program.is_ready]
        return chance.choice(ready) if len(ready) > len(programs) / 2 else None

    with ThreadPoolExecutor(len(programs)) as hands:
        begun = []
        for injury in injuries:
            begun.append(hands.submit(injury, wait_for(victim, "more than half of the programs work")))
            time.sleep(pause_s)
    for injury_done in begun:
        injury_done.result()
