"""Programs and who looks after them: a supervisor that starts again what ended, as systemd or Kubernetes would."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.servers.cpu_waits import cpu_wait_s
from tests.support.servers.services import wait_for

ROOT = Path(__file__).parents[3]
RESTART_AFTER_S = 0.5
_LOOK_EVERY_S = 0.05
_END_BOUND_S = 10.0


@dataclass
class Program:
    """A program that is started again when it ends. `ready_mark` is what its log says once it works."""

    name: str
    command: Sequence[str]
    folder: Path
    env: dict[str, str]
    ready_mark: str
    restart_after_s: float = RESTART_AFTER_S
    broken_exit: int | None = None  # by which it says that it found itself broken and is to be replaced
    crashes: list[str] = field(default_factory=list)
    _starts: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _hurt: bool = False  # what ends it now is ours
    _due_at: float = 0.0

    @property
    def pid(self) -> int:
        """The process that runs now, or ran last."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        """Log of the process that runs now."""
        return self.folder / f"{self.name}-{self._starts}.log"

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_ready(self) -> bool:
        """Whether it works and nobody hurts it."""
        return self.is_running and not self._hurt and self.ready_mark in self.log.read_text(errors="replace")

    @property
    def children(self) -> list[int]:
        """Process ids of its children."""
        with suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def start(self) -> None:
        """Start it in a session of its own."""
        self._starts += 1
        self._hurt, self._due_at = False, 0.0
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                start_new_session=True,
            )

    def look_after(self) -> None:
        """Start it again if it has ended, a moment later; note why, if nobody hurt it."""
        if self.is_running or self._process is None:
            return
        if not self._due_at:
            self._due_at = time.monotonic() + self.restart_after_s
            if not self._hurt and self._process.returncode != self.broken_exit:
                self.crashes.append(f"{self.name} ended with {self._process.returncode}, see {self.log}")
        elif time.monotonic() >= self._due_at:
            self.start()

    def kill(self) -> None:
        """End it as the kernel would."""
        self._signal(signal.SIGKILL)

    def kill_child(self) -> None:
        """End one of its children that run jobs as the kernel would."""
        bodies = [pid for pid in self.children if "worker.upkeep.warden" not in _command(pid)]
        for pid in bodies[:1]:
            _send(pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def freeze(self, lasts_s: float, *, with_children: bool = True) -> None:
        """Stop it for a while as a paused container stops, or its main process alone."""
        assert self._process is not None
        pids = [self.pid, *(self.children if with_children else [])]
        self._hurt = True
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        time.sleep(lasts_s)
        for pid in pids:
            _send(pid, signal.SIGCONT)
        self._hurt = False

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it for good."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
        try:
            process.wait(_END_BOUND_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._hurt = True
        self._process.send_signal(number)


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@dataclass
class Supervisor:
    """Looks after programs until its block ends."""

    programs: list[Program] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _waits: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))  # of each process

    def start(self, program: Program) -> Program:
        """Start a program and look after it from now on."""
        program.folder.mkdir(parents=True, exist_ok=True)
        program.start()
        self.programs.append(program)
        return program

    def wait_until_ready(self, *, bound_s: float = 180) -> None:
        """Wait until all of them work."""
        wait_for(lambda: all(program.is_ready for program in self.programs), "all programs are ready", bound_s=bound_s)

    @property
    def crashes(self) -> list[str]:
        """What ended though nobody hurt it."""
        return [crash for program in self.programs for crash in program.crashes]

    def watch(self) -> None:
        """Start again what ended, until told to stop."""
        while not self._over.wait(_LOOK_EVERY_S):
            for program in list(self.programs):
                program.look_after()
                self._waits[program.pid].append((time.monotonic(), cpu_wait_s(program.pid)))

    def waited_s(self, pid: int, since: float, until: float) -> float:
        """Return how long a process waited for a CPU between two moments, as far as it ran; 0 for one not known."""
        waits = self._waits.get(pid, ())
        before, by_then = (max((s for at, s in waits if at <= moment), default=0.0) for moment in (since, until))
        return by_then - before

    def stop(self) -> None:
        """Tell `watch` to stop."""
        self._over.set()


@contextmanager
def supervised() -> Iterator[Supervisor]:
    """Yield a supervisor; what it started is gone afterwards, the last one first."""
    supervisor = Supervisor()
    watching = threading.Thread(target=supervisor.watch, name="supervisor", daemon=True)
    watching.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        watching.join()
        for program in reversed(supervisor.programs):
            program.end(signal.SIGKILL if program.broken_exit is not None else signal.SIGTERM)
