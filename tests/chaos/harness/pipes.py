"""The pipes between a worker's main process and its children, made small and looked into from outside."""

from __future__ import annotations

import array
import fcntl
import os
import stat
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_RESIZE = 1031  # F_SETPIPE_SZ, which the module fcntl has since Python 3.10 only on some systems
PAGE_BYTES = 4_096


class Pipes:
    """All the pipes of one process."""

    def __init__(self, descriptors: list[int]) -> None:
        self._descriptors = descriptors

    @property
    def held_bytes(self) -> int:
        """How much has been written into the fullest one, and not been read yet."""
        held = array.array("i", [0])
        most = 0
        for descriptor in self._descriptors:
            fcntl.ioctl(descriptor, termios.FIONREAD, held)
            most = max(most, held[0])
        return most


@contextmanager
def small_pipes(pid: int) -> Iterator[Pipes]:
    """Yield the pipes of a process; from now on each holds two pages: a write of few bytes takes a whole one."""
    descriptors = []
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if stat.S_ISFIFO(link.stat().st_mode):
                    descriptors.append(os.open(link, os.O_RDONLY | os.O_NONBLOCK))
                    fcntl.fcntl(descriptors[-1], _RESIZE, 2 * PAGE_BYTES)
        yield Pipes(descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
