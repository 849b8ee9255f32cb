"""Spares: processes that have imported what a program needs and wait to become it.

Importing is nearly all that a start costs, and a change of an author's code has nothing to do with what is imported
here: `celeriac up --reload` keeps one spare of each program that it starts again.

    python -P .../celeriac/start.py cli.local.spares MODULE,MODULE... celery -A worker.app worker
"""

from __future__ import annotations

import importlib
import os
import runpy
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from celeriac import start
from cli.local.tether import tethered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# By program. None of these reads a setting or imports a kind of another package: each stays right whatever changes.
LOADED = {
    "celery": (
        "celery.apps.worker",
        "celery.backends.redis",
        "celery.bin.celery",
        "celery.concurrency.prefork",
        "celery.worker.consumer",
        "kombu.transport.redis",
        "worker.upkeep.lifecycle",
        "worker.upkeep.intake",
        "worker.runtime.expansion",
        "worker.runtime.task",
    ),
    "uvicorn": (
        "uvicorn.lifespan.on",
        "uvicorn.loops.uvloop",
        "uvicorn.main",
        "uvicorn.protocols.http.httptools_impl",
        "api.http.bodies",
        "api.http.docs",
        "api.http.openapi",
        "api.jobs.artifacts",
        "api.jobs.events",
        "api.jobs.selection",
        "api.kinds.routes",
        "api.metrics.endpoint",
        "api.metrics.task_metrics",
        "api.operations.dead_letters",
        "api.operations.health",
        "api.operations.queues",
        "api.operations.workers",
        "api.schedules.view",
        "api.uploads.routes",
    ),
}


def command(*words: str) -> list[str]:
    """Return the command line of a process that can become the program of these words."""
    return start.command(__name__, ",".join(LOADED[words[0]]), *words)


class Spare:
    """A process that waits, until it becomes the program of `command` or ends with this one."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._ours, its = socket.socketpair()
        with its:
            self.process = subprocess.Popen(
                tethered(command),
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )

    def become(self, output: BinaryIO) -> subprocess.Popen[bytes] | None:
        """Let it run the program, which writes to `output`; return its process, `None` if it has ended."""
        with self._ours, suppress(ConnectionError):
            socket.send_fds(self._ours, [b"!"], [output.fileno()])
            return self.process
        self.process.wait()
        return None

    def end(self) -> None:
        """End it."""
        self._ours.close()
        self.process.kill()
        self.process.wait()


def main(modules: str, *words: str) -> None:
    """Import `modules`, wait until standard input says where to write, then run the module `words[0]` with the rest."""
    for name in modules.split(","):
        importlib.import_module(name)
    with socket.socket(fileno=0) as told:
        _, outputs, _, _ = socket.recv_fds(told, 1, 1)
    if not outputs:
        sys.exit()
    os.open(os.devnull, os.O_RDONLY)  # the lowest free number: standard input
    for number in (1, 2):
        os.dup2(outputs[0], number)
    os.close(outputs[0])
    importlib.invalidate_caches()  # files have come since
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
