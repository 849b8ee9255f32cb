"""Time that is a program's own: what it waited for a CPU, because a busy machine gave it to others, is left out."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path


def cpu_wait_s(pid: int | None = None) -> float:
    """Return for how many seconds a process, or this thread, was ready to run and did not.

    Of a process it is its main thread that counts: a gateway's event loop, a worker's consumer. 0 once it is gone.
    """
    with suppress(OSError):
        return int(Path(f"/proc/{pid or 'thread-self'}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


class Stopwatch:
    """Measures how long this thread takes, or a program to answer it. A promise of a time is held to this."""

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid
        self._began_at, self._before = time.monotonic(), self._waits_s()

    def _waits_s(self) -> tuple[float, float]:
        return cpu_wait_s(), cpu_wait_s(self._pid) if self._pid else 0.0

    @property
    def waited_s(self) -> float:
        """How long this thread and the program have waited for a CPU since the start, in turn."""
        return sum(max(now - before, 0.0) for now, before in zip(self._waits_s(), self._before, strict=True))

    @property
    def own_s(self) -> float:
        """How long it took since the start, without those waits."""
        return max(time.monotonic() - self._began_at - self.waited_s, 0.0)
