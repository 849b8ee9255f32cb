"""The pulse of a worker's main loop: whether it turns, and since when it does not.

Other threads of the process go on while the loop stands, so none of them may say that the worker is well.
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
    """Notes each second, from the consumer's timer, that the loop turns; touches the file for `worker.upkeep.alive`.

    Celery stops and starts it when the connection to the broker is lost and made again. The consumer has it as `pulse`.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Consumer, **options: Any) -> None:
        super().__init__(parent, **options)
        parent.pulse = self  # type: ignore[attr-defined]  # as Celery's own steps leave theirs
        self._file = os.environ.get(FILE_VARIABLE, "")
        self._entries: list[Any] = []
        self._turned_at = time.monotonic()

    @property
    def is_consuming(self) -> bool:
        """Whether the consumer is connected and takes messages, as far as its loop turns."""
        return bool(self._entries)

    @property
    def stands_for_s(self) -> float:
        """How long the loop has stood still, in seconds; about 0 to 1 while it turns or the broker is away."""
        return time.monotonic() - self._turned_at if self.is_consuming else 0.0

    def start(self, parent: Consumer) -> None:
        """Begin to note."""
        self._turn()
        self._entries = [parent.timer.call_repeatedly(_TURN_S, self._turn)]
        if self._file:
            self._touch()
            self._entries.append(parent.timer.call_repeatedly(PERIOD_S, self._touch))

    def stop(self, parent: Consumer) -> None:  # noqa: ARG002 - Celery's signature
        """Let the file grow old: the connection is lost, or the worker ends."""
        entries, self._entries = self._entries, []
        for entry in entries:
            entry.cancel()

    def _turn(self) -> None:
        self._turned_at = time.monotonic()

    def _touch(self) -> None:
        Path(self._file).touch()
