"""A thread of the main process of a worker that runs a function periodically.

The main process forks its children while such threads run. That is safe while a thread uses only Python code and its
own sockets, which no child uses. See docs/decisions/0003-fork.md.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Periodic:
    """Calls `round_` every `interval_s` seconds until stopped; an error is logged and ends only its round.

    A round may return in how many seconds the next one is due, if that is earlier. Without a `pause`, an interval is
    up to a quarter shorter or longer: workers ask the broker every second, too, and if the two kept time, the same idle
    worker would get each message that a round publishes.
    """

    def __init__(
        self,
        name: str,
        round_: Callable[[], float | None],
        *,
        interval_s: float,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """Take what to do; `pause` waits between two rounds instead of sleeping, may end early and must not raise."""
        self._round = round_
        self._pause = pause
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 10) -> None:
        """Stop after the current round; wait for it at most `timeout_s` seconds."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _is_to_stop(self, due_s: float | None) -> bool:
        if self._pause is None:
            interval_s = self._interval_s * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
            return self._stop.wait(interval_s if due_s is None else min(due_s, interval_s))
        self._pause(self._interval_s)
        return self._stop.is_set()

    def _loop(self) -> None:
        failing, due_s = False, None
        while not self._is_to_stop(due_s):
            due_s = None
            try:
                due_s = self._round()
            except Exception as failure:  # noqa: BLE001 - the next round tries again
                logger.log(logging.WARNING if not failing else logging.DEBUG, "%s: %r", self._thread.name, failure)
                failing = True
            else:
                if failing:
                    logger.warning("%s: works again", self._thread.name)
                failing = False
