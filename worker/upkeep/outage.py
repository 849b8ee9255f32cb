"""Pauses and log lines while the broker takes a connection and breaks it again, as one without memory does.

Celery would connect again at once, and log each attempt with several lines, many times a second.
"""

from __future__ import annotations

import logging
import time

STEADY_S = 5.0  # for which the connection must hold before the outage is over
PAUSE_MAX_S = 5.0
_PAUSE_MIN_S = 0.5
_TALKATIVE = ("celery.worker.consumer.consumer", "celery.worker.consumer.connection", "celery.worker.consumer.mingle")

logger = logging.getLogger(__name__)


class Outage(logging.Filter):
    """Counts losses of the connection in a row. As a filter of Celery's loggers it lets each line pass once a row."""

    def __init__(self) -> None:
        super().__init__()
        self.losses = 0
        self._began_at = 0.0
        self._told: set[tuple[str, ...]] = set()

    def quiet(self) -> None:
        """Filter what Celery logs of its connections."""
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self)

    def missed(self, url: str, failure: BaseException) -> None:
        """Note that no connection could be made to `url`, which has no password."""
        self.lost()
        if self._is_new(type(failure).__name__):
            logger.warning("no connection to the broker %s: %r; trying until there is one", url, failure)

    def lost(self) -> None:
        """Note that the connection was lost, or could not be made."""
        if self.losses == 0:
            self._began_at = time.monotonic()
        self.losses += 1

    @property
    def pause_s(self) -> float:
        """Seconds to wait before the next attempt: none after the first loss, then twice as long each time."""
        return min(_PAUSE_MIN_S * 2.0 ** (self.losses - 2), PAUSE_MAX_S) if self.losses > 1 else 0.0

    def over(self, losses: int) -> None:
        """Note that the connection has held that was made after so many losses."""
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
