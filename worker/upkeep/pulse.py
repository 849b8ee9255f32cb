"""The pulse of the main loop of a worker: whether it runs, and for how long it has hung.

The other threads of the process continue while the loop hangs, so they cannot tell whether the worker is healthy.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from worker.upkeep.alive import FILE_VARIABLE, PERIOD_S

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

_TURN_S = 1.0


class Pulse(bootsteps.StartStopStep):
    """Records every second, from the timer of the consumer, that the loop runs; touches the file of `alive`.

    Celery stops and starts it when the connection to the broker is lost and restored. It is `pulse` of the consumer.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Consumer, **options: Any) -> None:
        super().__init__(parent, **options)
        parent.pulse = self  # type: ignore[attr-defined]  # as Celery's steps do
        self._file = os.environ.get(FILE_VARIABLE, "")
        self._entries: list[Any] = []
        self._turned_at = time.monotonic()

    @property
    def is_consuming(self) -> bool:
        """Whether the consumer is connected and consumes, if its loop runs."""
        return bool(self._entries)

    @property
    def stands_for_s(self) -> float:
        """Seconds for which the loop has hung; at most about 1 while it runs, 0 while disconnected from the broker."""
        return time.monotonic() - self._turned_at if self.is_consuming else 0.0

    def start(self, parent: Consumer) -> None:
        """Start to record."""
        self._turn()
        self._entries = [parent.timer.call_repeatedly(_TURN_S, self._turn)]
        if self._file:
            self._touch()
            self._entries.append(parent.timer.call_repeatedly(PERIOD_S, self._touch))

    def stop(self, parent: Consumer) -> None:  # noqa: ARG002 - Celery's signature
        """Stop to touch the file: the connection is lost, or the worker ends."""
        entries, self._entries = self._entries, []
        for entry in entries:
            entry.cancel()

    def _turn(self) -> None:
        self._turned_at = time.monotonic()

    def _touch(self) -> None:
        Path(self._file).touch()
