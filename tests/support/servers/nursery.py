"""Start gateways and workers as forks of a process that has imported what they import: a tenth of the CPU time.

The suite starts a hundred of each, and importing FastAPI, Celery and our contracts is nearly all that a start costs.
A fork runs the same module with the same arguments and environment as `python -m` in a process, session and log of its
own. What is imported beforehand reads no configuration: see `test_nursery.py`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cli.local import spares

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

ROOT = Path(__file__).parents[3]
PROGRAMS = {"celery", "uvicorn"}
LOADED = (
    *(module for modules in spares.LOADED.values() for module in modules),
    "shared.jobs.callbacks",
    "shared.jobs.etl",
    "shared.jobs.maintenance",
    "shared.jobs.ml.kinds",
    "shared.jobs.ml.pipeline",
    "shared.jobs.ml.search_space",
    "shared.jobs.ml.tuning",
    "shared.jobs.report",
    "shared.jobs.syncs",
    "shared.jobs.workflow",
)
_NUMBER = struct.Struct("i")
_MAX_BYTES = 100_000  # of a command with its environment


@dataclass
class Fork:
    """A program that was started here, as `subprocess.Popen` shows one."""

    args: list[str]
    pid: int
    _reports: int  # where its exit code comes, and before it the end of file if the nursery ends
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, if it has ended."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended; raise `subprocess.TimeoutExpired` if it has not by then."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as the kernel would."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._reports], [], [], timeout)[0]:
            (self.returncode,) = _NUMBER.unpack(os.read(self._reports, _NUMBER.size))
            os.close(self._reports)
        return self.returncode


Process = subprocess.Popen[bytes] | Fork


def start(command: list[str], output: BinaryIO, env: Mapping[str, str]) -> Process:
    """Start `command` in a session of its own and in our root, with `env` on top of the environment.

    It is a fork if it is one of `PROGRAMS` and no variable is changed that Python reads before any module.
    """
    environment = {**os.environ, **env}
    changes_python = any(name.startswith("PYTHON") for name in env)
    if command[:2] == [sys.executable, "-m"] and command[2] in PROGRAMS and not changes_python:
        return _fork(command, output, environment)
    return subprocess.Popen(
        command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )


def _fork(command: list[str], output: BinaryIO, environment: Mapping[str, str]) -> Fork:
    reports, reporting = os.pipe()
    message = json.dumps([command[2:], environment]).encode()
    assert len(message) < _MAX_BYTES
    socket.send_fds(_nursery(), [message], [output.fileno(), reporting])
    os.close(reporting)
    (pid,) = _NUMBER.unpack(os.read(reports, _NUMBER.size))
    return Fork(command, pid, reports)


@cache
def _nursery() -> socket.socket:
    """Start the nursery of this process, which ends with it."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, "-m", "tests.support.servers.nursery", str(its.fileno())]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()], start_new_session=True
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def load() -> None:
    """Import what the programs import."""
    for name in LOADED:
        importlib.import_module(name)


def _next_program(asked: socket.socket) -> list[str]:
    """Fork for each command that is asked for, and report how each ends; return in the fork, with what it is to run.

    Ends when the process that asks has ended.
    """
    running: dict[int, tuple[int, int]] = {}  # by the descriptor of the process: its id, and where its end is reported
    while True:
        for ready in select.select([asked.fileno(), *running], [], [])[0]:
            if ready != asked.fileno():
                pid, reporting = running.pop(ready)
                _, status = os.waitpid(pid, 0)
                os.write(reporting, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
                os.close(reporting)
                os.close(ready)
                continue
            message, descriptors, _, _ = socket.recv_fds(asked, _MAX_BYTES, 2)
            if not message:
                sys.exit()
            output, reporting = descriptors
            words, environment = json.loads(message)
            if not (pid := os.fork()):
                _become(environment, output)
                return list(words)
            os.close(output)
            os.write(reporting, _NUMBER.pack(pid))
            running[os.pidfd_open(pid)] = (pid, reporting)


def _become(environment: dict[str, str], output: int) -> None:
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()


def main(number: int) -> None:
    """Load all, then wait for commands; in each fork, run one."""
    load()
    gc.collect()
    gc.freeze()
    asked = socket.socket(fileno=number)
    sys.argv = _next_program(asked)
    asked.detach()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
