"""Pauses and log lines while the broker accepts connections and breaks them, as one without memory does.

Celery alone would connect again at once, and log each attempt with several lines, many times a second.
"""

from __future__ import annotations

import logging
import time

STEADY_S = 5.0  # a connection that holds for this time ends the outage
PAUSE_MAX_S = 5.0
_PAUSE_MIN_S = 0.5
_TALKATIVE = ("celery.worker.consumer.consumer", "celery.worker.consumer.connection", "celery.worker.consumer.mingle")

logger = logging.getLogger(__name__)


class Outage(logging.Filter):
    """Counts consecutive losses of the connection. As a filter of loggers it lets each line pass once per outage."""

    def __init__(self) -> None:
        super().__init__()
        self.losses = 0
        self._began_at = 0.0
        self._told: set[tuple[str, ...]] = set()

    def quiet(self) -> None:
        """Filter the log lines of Celery about its connections."""
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self)

    def missed(self, url: str, failure: BaseException) -> None:
        """Record that connecting to `url` failed, and log it. `url` must not contain a password."""
        self.lost()
        if self._is_new(type(failure).__name__):
            logger.warning("no connection to the broker %s: %r; trying until there is one", url, failure)

    def lost(self) -> None:
        """Record that the connection was lost, or could not be made."""
        if self.losses == 0:
            self._began_at = time.monotonic()
        self.losses += 1

    @property
    def pause_s(self) -> float:
        """Seconds to wait before the next attempt: none after the first loss, then twice as long each time."""
        return min(_PAUSE_MIN_S * 2.0 ** (self.losses - 2), PAUSE_MAX_S) if self.losses > 1 else 0.0

    def over(self, losses: int) -> None:
        """End the outage, because the connection made after this number of losses has held."""
        if losses != self.losses:
            return
        if self.losses > 1:
            lasted_s = time.monotonic() - self._began_at
            logger.warning("the connection to the broker works again, after %d losses in %.0f s", self.losses, lasted_s)
        self.losses = 0
        self._told.clear()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a line pass unless one like it was logged in this outage."""
        if self.losses == 0:
            return True
        arguments = record.args if isinstance(record.args, tuple) else ()
        failures = [type(one).__name__ for one in arguments if isinstance(one, BaseException)]
        return self._is_new(record.name, str(record.msg), *failures)

    def _is_new(self, *line: str) -> bool:
        is_new = line not in self._told
        self._told.add(line)
        return is_new
