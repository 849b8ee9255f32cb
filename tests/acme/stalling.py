"""A worker whose main loop stands as soon as the file that `ACME_STALL` names is there."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from celery.signals import worker_ready


@worker_ready.connect(weak=False)
def _stall(sender: Any, **_: Any) -> None:
    def look() -> None:
        if Path(os.environ["ACME_STALL"]).exists():
            threading.Event().wait()  # as a lock that nobody releases

    sender.timer.call_repeatedly(0.1, look)
