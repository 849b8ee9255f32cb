"""Start child processes that end with this one, watch them, and stop them in order."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from cli.local.spares import Spare
from cli.local.tether import tethered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import FrameType, TracebackType

_LAST_LINES = 15
_LOG_KEPT_BYTES = 16 * 1024**2  # a larger log is renamed to NAME.log.1 when its program starts
_CAN_WAIT_S = 3.0
_TICK_S = 0.1
_HURRY_S = 2.0  # grace period of each process after a second request to stop


@dataclass(frozen=True, slots=True)
class Program:
    """A program to start, and how to stop it. Programs of a higher `stop_stage` are stopped later."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    stop_stage: int
    grace_s: float  # from SIGTERM until SIGKILL
    when_orphaned: signal.Signals = signal.SIGKILL
    keep_open: tuple[int, ...] = ()  # file descriptors that it inherits
    unsaid: str | None = None  # lines with this text stay in its log file
    reloads: bool = False  # it is started again when the code changes, and may end meanwhile
    runs_tasks: bool = False  # of those that are started again, it alone has loaded the tasks
    can_wait: bool = False  # of those that are started again, it leaves the processors to the others first
    is_only_one: bool = False  # its successor starts when it has ended: it has a port
    spare: Sequence[str] = ()  # of those that are started again, the command of a process that can become it


class StopRequested(Exception):
    """SIGINT, SIGTERM or SIGHUP was received."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(received.name)
        self.received = received


class Died(Exception):
    """A program ended unexpectedly."""

    def __init__(self, child: Child) -> None:
        super().__init__(f"{child.program.name} ended unexpectedly: {child.how_it_ended}")
        self.child = child


class NotReady(Exception):
    """A program did not become ready in time."""


@dataclass
class Child:
    """A running program whose output goes directly to its log file, so that a slow console never blocks it."""

    program: Program
    process: subprocess.Popen[bytes]
    log: Path
    read_to: int
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))

    @property
    def how_it_ended(self) -> str:
        """Its exit code or the signal that ended it, in words."""
        code = self.process.returncode
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def new_lines(self) -> list[str]:
        """Return the complete lines written since the last call."""
        with self.log.open("rb") as log:
            log.seek(self.read_to)
            complete, newline, _ = log.read().rpartition(b"\n")
        self.read_to += len(complete) + len(newline)
        lines = complete.decode("utf-8", "replace").splitlines() if newline else []
        self.last_lines.extend(lines)
        return lines

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, even if it may have ended. SIGKILL also goes to its children."""
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)


class StopSignals:
    """Collects SIGINT, SIGTERM and SIGHUP while open; its sleep is interrupted by them and by SIGCHLD."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)  # noqa: FBT003 - its only parameter
        self._there.setblocking(False)  # noqa: FBT003 - its only parameter
        self._wakeup_before = signal.set_wakeup_fd(self._there.fileno(), warn_on_full_buffer=False)
        for number in self._NUMBERS:
            self._before[number] = signal.signal(number, self._note)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._here.close()
        self._there.close()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(signal.Signals(number))

    def pause(self, seconds: float) -> None:
        """Sleep until a signal arrives or the time has passed."""
        select.select([self._here], [], [], seconds)
        with suppress(BlockingIOError):
            self._here.recv(4096)


class Ensemble:
    """Programs that start and end together. `say(name, line)` takes their output."""

    def __init__(self, logs: Path, signals: StopSignals, say: Callable[[str, str], None]) -> None:
        self._logs = logs
        self._signals = signals
        self._say = say
        self._children: list[Child] = []
        self._leaving: list[Child] = []  # asked to end by a reload
        self._ended: list[Program] = []  # that wait for a reload
        self._waiting: list[tuple[float, Callable[[], object]]] = []  # what can wait, with the time until which
        self._spares: dict[str, Spare] = {}  # by the name of the program

    def start(self, program: Program) -> Child:
        """Start a program in a new session, so that a terminal's Ctrl-C reaches only this process."""
        log = self._logs / f"{program.name}.log"
        if log.exists() and log.stat().st_size > _LOG_KEPT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        spare = self._spares.pop(program.name, None)
        with log.open("ab") as output:
            process = (spare and spare.become(output)) or subprocess.Popen(
                tethered(program.command, program.when_orphaned),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(program.environment),
                start_new_session=True,
                pass_fds=program.keep_open,
            )
            child = Child(program, process, log, read_to=output.tell())
        self._children.append(child)
        return child

    def wait_until(self, ready: Callable[[], bool], what: str, *, within_s: float, slow_after_s: float) -> None:
        """Wait until `ready`, with a message if it is slow. Raises `NotReady`, `Died` or `StopRequested`."""
        begun, told = time.monotonic(), False
        while not ready():
            waited_s = time.monotonic() - begun
            if waited_s > within_s:
                raise NotReady(f"{what} was not ready within {within_s:g} s")
            if waited_s > slow_after_s and not told:
                self._say("up", f"{what} is slow to start ({waited_s:.0f} s so far, at most {within_s:g} s)")
                told = True
            self._look()

    def watch(
        self,
        changed: Callable[[], Sequence[str]] = tuple,
        only_tasks: Callable[[Sequence[str]], bool] = lambda _files: False,
    ) -> None:
        """Run until a stop is requested or a program ends. Raises `StopRequested` or `Died`.

        When `changed` names files, the programs that are to be reloaded are started again: of files that are
        `only_tasks`, those that run tasks.
        """
        for child in self._children:
            self._keep_spare(child.program)
        while True:
            self._look(watching=True)
            if files := changed():
                self._say("up", f"{', '.join(files)} changed: starting again what uses it")
                self._reload(only_tasks=only_tasks(files))

    def _reload(self, *, only_tasks: bool) -> None:
        """Ask the programs to end that are to be reloaded, and start each again: jobs that run end meanwhile."""
        leaving = [
            child for child in self._children if child.program.reloads and (child.program.runs_tasks or not only_tasks)
        ]
        for child in leaving:
            child.signal(signal.SIGTERM)
            self._children.remove(child)
            self._leaving.append(child)
        programs, self._ended = [*self._ended, *(child.program for child in leaving)], []
        for program in sorted(programs, key=lambda program: program.is_only_one):
            for child in leaving:
                if program.is_only_one and child.program is program:
                    self._stop_group([child], len(self._signals.received))
            if program.can_wait:
                self._later(partial(self.start, program))
            else:
                self.start(program)
            self._keep_spare(program)

    def _keep_spare(self, program: Program) -> None:
        if program.spare and program.name not in self._spares:
            self._later(partial(self._start_spare, program))

    def _start_spare(self, program: Program) -> None:
        if program.name not in self._spares:
            self._spares[program.name] = Spare(program.spare, program.environment)

    def _later(self, act: Callable[[], object]) -> None:
        """Leave the processors to what starts now, then `act`."""
        self._waiting.append((time.monotonic() + _CAN_WAIT_S, act))

    def stop(self) -> None:
        """Stop all programs, stage by stage. A second signal shortens the grace periods."""
        before = len(self._signals.received)
        for stage in sorted({child.program.stop_stage for child in self._all()}):
            group = [child for child in self._all() if child.program.stop_stage == stage]
            running = [child for child in group if child.process.poll() is None]
            if running:
                self._say("up", f"stopping {', '.join(child.program.name for child in running)}")
            self._stop_group(running, before)
            for child in group:
                child.signal(signal.SIGKILL)  # remaining processes of its session
        for spare in self._spares.values():
            spare.end()
        self._show_new_lines()
        if self._children:
            self._say("up", "stopped")

    def _stop_group(self, running: Iterable[Child], signals_before: int) -> None:
        begun, hurried_at = time.monotonic(), None
        left = list(running)
        for child in left:
            child.signal(signal.SIGTERM)
        while left := [child for child in left if child.process.poll() is None]:
            now = time.monotonic()
            if hurried_at is None and len(self._signals.received) > signals_before:
                hurried_at = now
            for child in left:
                hurry = hurried_at is not None and now - hurried_at > _HURRY_S
                if hurry or now - begun > child.program.grace_s:
                    self._say("up", f"{child.program.name} did not stop in time; killing it")
                    child.signal(signal.SIGKILL)
                    child.process.wait()
            self._show_new_lines()
            self._signals.pause(_TICK_S)

    def _all(self) -> list[Child]:
        return [*self._children, *self._leaving]

    def _look(self, *, watching: bool = False) -> None:
        self._signals.pause(_TICK_S)
        self._show_new_lines()
        if self._signals.received:
            raise StopRequested(self._signals.received[0])
        for due in [due for due in self._waiting if due[0] < time.monotonic()]:
            self._waiting.remove(due)
            due[1]()
        for child in [child for child in self._leaving if child.process.poll() is not None]:
            child.signal(signal.SIGKILL)  # remaining processes of its session
            self._leaving.remove(child)
        for child in [child for child in self._children if child.process.poll() is not None]:
            self._show_new_lines()
            if not (watching and child.program.reloads):
                raise Died(child)
            child.signal(signal.SIGKILL)
            self._children.remove(child)
            self._ended.append(child.program)
            self._say(
                "up", f"{child.program.name} ended ({child.how_it_ended}). Correct the code: it is started again."
            )
            for line in child.last_lines:
                self._say("up", f"  {line}")

    def _show_new_lines(self) -> None:
        for child in self._children:
            for line in child.new_lines():
                if child.program.unsaid is None or child.program.unsaid not in line:
                    self._say(child.program.name, line)
