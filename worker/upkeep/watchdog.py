"""The watchdog: ends a worker whose main loop stands, so that a supervisor starts another.

Such a process takes no jobs and cannot be told to stop. Its running jobs are given back first, without blame.
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
    """Looks at the pulse once a round of the custodian's thread."""

    def __init__(self, pulse: Pulse, *, stalled_after_s: float, give_back: Callable[[], None]) -> None:
        self._pulse = pulse
        self._stalled_after_s = stalled_after_s
        self._give_back = give_back
        self._stop_by: float | None = None

    def begin_shutdown(self, within_s: float) -> None:
        """Expect the process to have ended within so many seconds from now."""
        self._stop_by = time.monotonic() + within_s

    def look(self) -> None:
        """End the process if its loop has stood for too long, or if it does not come to its end."""
        if self._stop_by is not None:
            if time.monotonic() > self._stop_by:
                self._end("it does not come to its end")
        elif self._pulse.stands_for_s > self._stalled_after_s:
            self._end(f"its main loop has stood for {self._pulse.stands_for_s:.0f} s")

    def _end(self, why: str) -> None:
        logger.critical("this worker ends itself: %s", why)
        try:
            self._give_back()
        except Exception:  # whatever it is, the process must end; its claims lapse instead
            logger.exception("its jobs could not be given back")
        os._exit(EXIT_CODE)  # its children die with it
