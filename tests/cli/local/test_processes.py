"""Programs live and end together, in order, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cli.local.processes import Child, Died, Ensemble, NotReady, Program, StopRequested, StopSignals
from tests.support.servers.services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); {SLEEPER}"


def program(name: str, code: str, *, stage: int = 0, grace_s: float = 5) -> Program:
    """Return a Python program."""
    return Program(name, [sys.executable, "-u", "-c", code], os.environ, stage, grace_s)


def is_running(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123 - a kernel file
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Stage:
    """An ensemble whose news is kept."""

    def __init__(self, logs: Path, signals: StopSignals) -> None:
        self.said: list[tuple[str, str]] = []
        self.ensemble = Ensemble(logs, signals, lambda name, line: self.said.append((name, line)))

    def start(self, started: Program) -> Child:
        """Start a program and wait until it has written its first line."""
        child = self.ensemble.start(started)
        self.ensemble.wait_until(lambda: (started.name, "up") in self.said, started.name, within_s=20, slow_after_s=20)
        return child


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Yield an ensemble that is stopped in the end."""
    with _stage(tmp_path) as made:
        yield made


@contextmanager
def _stage(logs: Path) -> Iterator[Stage]:
    with StopSignals() as signals:
        made = Stage(logs, signals)
        try:
            yield made
        finally:
            made.ensemble.stop()  # again, for those tests that have: nothing is left to stop


def test_programs_stop_stage_by_stage(stage: Stage) -> None:
    """The lower stages are stopped first, whatever order they were started in."""
    last, first = stage.start(program("last", SLEEPER, stage=2)), stage.start(program("first", SLEEPER, stage=1))
    stage.ensemble.stop()
    assert [first.process.returncode, last.process.returncode] == [-signal.SIGTERM] * 2
    assert [line for name, line in stage.said if name == "up"] == ["stopping first", "stopping last", "stopped"]


def test_a_program_that_does_not_stop_is_killed(stage: Stage) -> None:
    """After its grace a program is killed, and that is said."""
    child = stage.start(program("stubborn", STUBBORN, grace_s=0.3))
    stage.ensemble.stop()
    assert child.process.returncode == -signal.SIGKILL
    assert ("up", "stubborn did not stop in time; killing it") in stage.said


def test_children_of_a_program_end_with_it(stage: Stage) -> None:
    """What a program leaves behind in its session is killed."""
    child = stage.start(program("parent", PARENT))
    (grandchild,) = wait_for(lambda: _children(child), "fork")
    stage.ensemble.stop()
    wait_for(lambda: not is_running(grandchild), "end of the grandchild")


def _children(child: Child) -> list[int]:
    pid = child.process.pid
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as children:  # noqa: PTH123 - a kernel file
        return [int(word) for word in children.read().split()]


def test_a_death_is_noticed_with_its_last_lines(stage: Stage) -> None:
    """A program that ends by itself is told with its exit code and last lines."""
    stage.start(program("steady", SLEEPER))
    stage.ensemble.start(program("brief", "print('oh no'); raise SystemExit(7)"))
    with pytest.raises(Died) as death:
        stage.ensemble.watch()
    assert (
        death.value.child.program.name,
        death.value.child.how_it_ended,
        list(death.value.child.last_lines),
    ) == ("brief", "exit code 7", ["oh no"])


def test_a_signal_ends_the_watch(stage: Stage) -> None:
    """SIGTERM to this process ends the watch at once."""
    stage.start(program("steady", SLEEPER))
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StopRequested) as stop:
        stage.ensemble.watch()
    assert stop.value.received == signal.SIGTERM


def test_what_is_slow_is_said_and_bounded(stage: Stage) -> None:
    """Waiting has an end, and says before that what it waits for."""
    stage.start(program("steady", SLEEPER))
    with pytest.raises(NotReady, match=r"thing was not ready within 0\.5 s"):
        stage.ensemble.wait_until(lambda: False, "thing", within_s=0.5, slow_after_s=0.2)
    assert any(line.startswith("thing is slow to start") for name, line in stage.said if name == "up")


def test_programs_die_with_a_killed_parent(tmp_path: Path) -> None:
    """When the process that started them is killed with -9, its programs are gone too."""
    code = f"""
import os, pathlib, sys
from cli.local.processes import Ensemble, Program, StopSignals
with StopSignals() as signals:
    ensemble = Ensemble(pathlib.Path({str(tmp_path)!r}), signals, lambda name, line: print(line, flush=True))
    child = ensemble.start(Program("sleeper", [sys.executable, "-c", {SLEEPER!r}], os.environ, 0, 5))
    print(child.process.pid, flush=True)
    ensemble.watch()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as output:
        pid = int(output.readline())
        assert output.readline() == "up\n"
        assert is_running(pid)
        parent.kill()
        parent.wait()
    wait_for(lambda: not is_running(pid), "end of the program")
