"""Run a program that ends when its parent process dies, even by kill -9.

    python tether.py PARENT_PID SIGNAL PROGRAM ARGUMENT...

The kernel sends SIGNAL (only on Linux; elsewhere the program is started without it). The setting survives `exec`, so
no extra process is needed, and no code runs between fork and exec of the parent, which may have threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str], when_orphaned: signal.Signals = signal.SIGKILL) -> list[str]:
    """Return `command` wrapped so that it gets the signal when this process dies. Start it from the main thread."""
    shim = [sys.executable, "-I", "-S", __file__]
    return [*shim, str(os.getpid()), str(int(when_orphaned)), *command]


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and become the program."""
    parent, death_signal, *program = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):  # the parent died before the line above
            sys.exit(f"the parent process {parent} has ended")
    os.execvp(program[0], program)  # noqa: S606 - that is the whole purpose; the program comes from our own code


if __name__ == "__main__":
    main(sys.argv[1:])
