"""The warden: a small process beside the children of a worker. It suspends a body whose claim is not renewed in time.

The main process renews the claims. While it is frozen, or cut off from the ledger, somebody else may start the job when
the lease is over; the body must stand still by then, whatever it does: so this is a process of its own that needs
neither the interpreter of a child nor the main process. Once the claim is renewed again, the child goes on where it
stood. If that takes too long, it is killed, so that it does not hold a database's locks for ever. Why it is so:
docs/decisions/0016-suspended-bodies.md.

It uses only the standard library, to start quickly and to stay small.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from celeriac import start
from worker.runtime.deadlines import Deadlines, Running

logger = logging.getLogger(__name__)

_MODULE = "worker.upkeep.warden"  # `__name__` is another one when it runs as a program
KILL_AFTER_S = 60.0  # of being suspended: about as long as a child tries to write its outcome to the ledger
_TICK_S = 0.1
_PR_SET_PDEATHSIG = 1  # prctl(2)


class Warden:
    """Starts the process and, if it ends, another one. Linux only: elsewhere bodies are not suspended."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._deadlines.descriptor is None or (self._process is not None and self._process.poll() is None):
            return
        if self._process is not None:
            logger.warning("the warden has ended (%s) and is started again", self._process.returncode)
        number = self._deadlines.descriptor
        command = start.command(_MODULE, str(number), str(os.getpid()))
        self._process = subprocess.Popen(command, pass_fds=[number])

    def stop(self) -> None:
        """End it; what is suspended stays so."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def look(deadlines: Deadlines, now: float, *, parent: int) -> None:
    """Suspend the bodies whose deadline has passed, let those go on that have a later one, kill those that had none.

    They run in children of `parent`.
    """
    for body in deadlines.running():
        if not body.token or now < body.until:
            if body.is_suspended:
                deadlines.suspend(body, 0)
                _send(body, parent, signal.SIGCONT, "its claim is renewed: it goes on")
        elif not body.is_suspended:
            deadlines.suspend(body, now)
            _send(body, parent, signal.SIGSTOP, "its claim was not renewed in time: it is suspended")
        elif now - body.suspended_at > KILL_AFTER_S:
            deadlines.kill(body)
            _send(body, parent, signal.SIGKILL, f"its claim was not renewed for {KILL_AFTER_S:g} s more: it is killed")


def _send(body: Running, parent: int, number: signal.Signals, why: str) -> None:
    """Signal a child; its process id may meanwhile be somebody else's."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{body.pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        if int(fields[1]) == parent:
            _say(f"{body.job_id}: {why} (child {body.pid})")
            below = _below(body.pid) if number == signal.SIGKILL else []
            os.kill(body.pid, number)  # first, so that it starts no more of them
            for pid in below or _below(body.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)


def _below(pid: int) -> list[int]:
    """Return the processes that a child has started, and those that they have."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has just ended
            for one in map(int, path.read_text(encoding="utf-8").split()):
                found += [one, *_below(one)]
    return found


def _say(event: str) -> None:
    """Write a line as `worker.observability` does; importing that would cost more than all the rest."""
    line = {"event": event, "level": "warning", "logger": _MODULE, "timestamp": datetime.now(UTC).isoformat()}
    print(event if sys.stderr.isatty() else json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201


def main(descriptor: int, parent: int) -> None:
    """Look at the table until the main process ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # those of a terminal go to the whole group; the main process ends it
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    deadlines = Deadlines(descriptor)
    while os.getppid() == parent:
        look(deadlines, time.monotonic(), parent=parent)
        time.sleep(_TICK_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
