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
    """Do these injuries in this order, `pause_s` apart; return when the last one is over."""

    def victim() -> Program | None:
        ready = [program for program in programs if program.is_ready]
        return chance.choice(ready) if ready else None

    with ThreadPoolExecutor(len(programs)) as hands:
        begun = []
        for injury in injuries:
            begun.append(hands.submit(injury, wait_for(victim, "one of the programs is ready")))
            time.sleep(pause_s)
    for injury_done in begun:
        injury_done.result()
