"""A worker's sign of life: a file that its main process touches while it consumes; `worker.upkeep.alive` looks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from worker.upkeep.alive import FILE_VARIABLE, PERIOD_S

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer


class Pulse(bootsteps.StartStopStep):
    """Touches the file that `CELERIAC_ALIVE_FILE` names, every `PERIOD_S` seconds while the worker consumes."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Consumer, **options: Any) -> None:
        super().__init__(parent, **options)
        self._file = os.environ.get(FILE_VARIABLE, "")
        self.enabled = bool(self._file)
        self._entry: Any = None

    def start(self, parent: Consumer) -> None:
        """Touch it now and from the consumer's timer."""
        self._touch()
        self._entry = parent.timer.call_repeatedly(PERIOD_S, self._touch)

    def stop(self, parent: Consumer) -> None:  # noqa: ARG002 - Celery's signature
        """Let it grow old: the connection is lost, or the worker ends."""
        if self._entry is not None:
            self._entry.cancel()

    def _touch(self) -> None:
        Path(self._file).touch()
