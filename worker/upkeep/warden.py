"""The warden: a small process beside the children of a worker. It suspends a body whose claim is not renewed in time.

It also enforces the time limits of the items of a map, like Celery those of a whole job.

The main process renews the claims. While it is frozen or cut off from the ledger, another worker may start the job when
the lease is over, and the body must be suspended by then. That has to work even if the main process or the interpreter
of the child hangs, so the warden is a separate process. Once the claim is renewed, the child continues. If that takes
too long, the child is killed, so that it does not hold a database's locks for ever. See
docs/decisions/0016-suspended-bodies.md.

It uses only the standard library, to start quickly and to stay small.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from celeriac import start
from worker.runtime.deadlines import Deadlines, Item, Running
from worker.runtime.parents import end_with

logger = logging.getLogger(__name__)

_MODULE = "worker.upkeep.warden"  # `__name__` is "__main__" when it runs as a program
KILL_AFTER_S = 60.0  # a child is suspended; about as long as a child retries to write its outcome to the ledger
_TICK_S = 0.1
_INTERRUPTION = signal.SIGUSR1  # billiard's soft time limit


class Warden:
    """Starts the process and, if it ends, another one. Linux only: elsewhere bodies are not suspended."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self._deadlines.descriptor is None or (self._process is not None and self._process.poll() is None):
            return
        if self._process is not None:
            logger.warning("the warden has ended (%s) and is started again", self._process.returncode)
        number = self._deadlines.descriptor
        command = start.command(_MODULE, str(number), str(os.getpid()))
        self._process = subprocess.Popen(command, pass_fds=[number])

    def stop(self) -> None:
        """End the process; suspended children stay suspended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def look(deadlines: Deadlines, now: float, *, parent: int) -> None:
    """Suspend each body whose deadline has passed, continue it once it has a later one, or kill it after a while.

    Interrupt or kill those that need longer for an item than its limits. The bodies run in children of `parent`.
    """
    for body in deadlines.running():
        if body.token and body.item is not None and now >= min(body.item.interrupt_at, body.item.kill_at):
            _limit(deadlines, body, body.item, now, parent=parent)
        elif not body.token or now < body.until:
            if body.is_suspended:
                deadlines.suspend(body, 0)
                _send(body, parent, signal.SIGCONT, "its claim is renewed: it continues")
        elif not body.is_suspended:
            deadlines.suspend(body, now)
            _send(body, parent, signal.SIGSTOP, "its claim was not renewed in time: it is suspended")
        elif now - body.suspended_at > KILL_AFTER_S:
            deadlines.kill(body)
            _send(body, parent, signal.SIGKILL, f"its claim was not renewed for {KILL_AFTER_S:g} s more: it is killed")


def _limit(deadlines: Deadlines, body: Running, item: Item, now: float, *, parent: int) -> None:
    with deadlines.signalling(body) as still_runs:
        if not still_runs:
            return
        if item.interrupt_at < math.inf:  # first, however late this process is
            deadlines.interrupted(body, item, now)
            _send(body, parent, _INTERRUPTION, f"item {item.index} takes too long: it is interrupted")
        else:
            deadlines.kill(body, item)
            _send(body, parent, signal.SIGKILL, f"item {item.index} exceeds its limit of {item.limit_s:g} s: killed")


def _send(body: Running, parent: int, number: signal.Signals, why: str) -> None:
    """Signal a child, after checking that its process id still belongs to a child of `parent`."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{body.pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        if int(fields[1]) == parent:
            _say(f"{body.job_id}: {why} (child {body.pid})")
            below = _below(body.pid) if number == signal.SIGKILL else []
            os.kill(body.pid, number)  # first, so that it starts no more processes
            if number == _INTERRUPTION:  # which would end others
                return
            for pid in below or _below(body.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)


def _below(pid: int) -> list[int]:
    """Return the descendants of a process."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has just ended
            for one in map(int, path.read_text(encoding="utf-8").split()):
                found += [one, *_below(one)]
    return found


def _say(event: str) -> None:
    """Write a log line as `worker.observability` does; importing that would cost more than the rest of this process."""
    line = {"event": event, "level": "warning", "logger": _MODULE, "timestamp": datetime.now(UTC).isoformat()}
    print(event if sys.stderr.isatty() else json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201


def main(descriptor: int, parent: int) -> None:
    """Look at the table until the main process ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal sends these to the whole group, but the main process ends the warden.
        signal.signal(number, signal.SIG_IGN)
    end_with(parent)
    deadlines = Deadlines(descriptor)
    deadlines.begin_signalling()
    while os.getppid() == parent:
        look(deadlines, time.monotonic(), parent=parent)
        time.sleep(_TICK_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
