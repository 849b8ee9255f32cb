"""The watchdog: ends a worker whose main loop hangs, so that a supervisor restarts it.

Such a process takes no jobs and does not respond to signals. Its running jobs are released first, without a crash.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from worker.upkeep.pulse import Pulse

logger = logging.getLogger(__name__)

EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


class Watchdog:
    """Checks the pulse in each round of the thread of the custodian."""

    def __init__(self, pulse: Pulse, *, stalled_after_s: float, give_back: Callable[[], None]) -> None:
        self._pulse = pulse
        self._stalled_after_s = stalled_after_s
        self._give_back = give_back
        self._stop_by: float | None = None

    def begin_shutdown(self, within_s: float) -> None:
        """Expect the process to end within this number of seconds."""
        self._stop_by = time.monotonic() + within_s

    def look(self) -> None:
        """End the process if its loop hangs for too long, or if its shutdown does not finish."""
        if self._stop_by is not None:
            if time.monotonic() > self._stop_by:
                self._end("its shutdown did not finish in time")
        elif self._pulse.stands_for_s > self._stalled_after_s:
            self._end(f"its main loop has hung for {self._pulse.stands_for_s:.0f} s")

    def _end(self, why: str) -> None:
        logger.critical("this worker exits: %s", why)
        try:
            self._give_back()
        except Exception:  # the process must end in any case; its claims expire instead
            logger.exception("its jobs could not be released")
        os._exit(EXIT_CODE)  # its children die, too
