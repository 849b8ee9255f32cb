"""Start and stop the process that writes rows. It is a process because a database's library does not survive a fork.

Celery forks the children of a worker from its main process at any time: see docs/decisions/0003-fork.md.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time

from celeriac import start
from shared.broker.settings import BrokerSettings

logger = logging.getLogger(__name__)

STOPPING = signal.SIGUSR1  # a terminal and a supervisor send the usual ones to the whole group, too early
_AGAIN_AFTER_S = 5.0
_ENDS_WITHIN_S = 10.0


class RowsProcess:
    """Starts the process, if there is a result database, and another one if it ends."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._is_wanted = bool(settings.database_url)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    def start(self) -> None:
        """Start the process, unless it runs."""
        if not self._is_wanted or (self._process is not None and self._process.poll() is None):
            return
        if self._process is not None:
            if time.monotonic() - self._started_at < _AGAIN_AFTER_S:
                return
            logger.warning("the writer of rows has ended (%s) and is started again", self._process.returncode)
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(start.command("worker.upkeep.rows.program", str(os.getpid())))

    def stop(self) -> None:
        """Let it write what is noted now, for some seconds, and end it; the next writer writes the rest."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(STOPPING)
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
