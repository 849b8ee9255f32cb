"""A real `celeriac up` for tests, with a kind from outside of the source tree."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.servers.services import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
START_BOUND_S = 150.0
STOP_BOUND_S = 60.0
_FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n+```\w+\n(?P<text>.*?)```", re.DOTALL)


def write_own_kind(
    folder: Path, *, among: str = "shared.jobs.workflow", pages: Iterable[Path] = (ROOT / "README.md",)
) -> dict[str, str]:
    """Write the files with which `pages` add kinds to `folder`; return the environment that names them.

    Of our own kinds the service has those of `among`, and so no worker for another family.
    """
    names = []
    for page in pages:
        for found in _FILE.finditer(page.read_text(encoding="utf-8")):
            path = folder / found["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found["text"], encoding="utf-8")
            names.append(found["name"].removesuffix(".py").replace("/", "."))
    return {
        "CELERIAC_CONTRACTS": ",".join([among, *(name for name in names if name.endswith("contracts"))]),
        "CELERIAC_TASKS": ",".join(name for name in names if name.endswith("tasks")),
        "CELERIAC_QUEUES": "acme",
        "PYTHONPATH": str(folder),
    }


@dataclass(frozen=True)
class Up:
    """A running `celeriac up`."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Where its gateway is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        """What it wrote so far."""
        return (self.folder / "console.log").read_text(encoding="utf-8")

    def wait_until_ready(self) -> None:
        """Wait until everything runs."""
        wait_for(
            lambda: "ready; Ctrl-C" in self.said or self.process.poll() is not None,
            "start of celeriac up",
            bound_s=START_BOUND_S,
        )
        assert self.process.poll() is None, self.said

    def pids(self) -> dict[int, str]:
        """Return every process below it with its command line, except those that only wait to become one."""
        return {pid: _command(pid) for pid in _below(self.process.pid) if not _is_spare(pid)}

    def spare_of(self, words: str) -> int | None:
        """Return the process that waits to become the program with `words`, if there is one."""
        named = (pid for pid in _below(self.process.pid) if words in _command(pid))
        return next((pid for pid in named if _is_spare(pid)), None)

    def pid_of(self, words: str) -> int:
        """Return the process below it whose command line has `words`, the parent of those that have it from a fork."""
        named = {pid for pid, command in self.pids().items() if words in command}
        return next(pid for pid in named if _parent(pid) not in named)  # numbers wrap around: a child's may be less


def start_up(
    folder: Path,
    environment: Mapping[str, str],
    *options: str,
    port: int | None = None,
    celeriac: Sequence[str] = (sys.executable, "-m", "cli.app"),
    cwd: Path = ROOT,
) -> Up:
    """Start `celeriac up` with its data in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = [*celeriac, "up", "--port", str(port), "--data", str(folder), *options]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CELER", "WORKER_"))}
    with (folder / "console.log").open("wb") as console:
        process = subprocess.Popen(
            command, stdout=console, stderr=subprocess.STDOUT, env={**inherited, **environment}, cwd=cwd
        )
    return Up(process, folder, port)


@contextmanager
def running_up(folder: Path, environment: Mapping[str, str], *options: str, **start: Any) -> Iterator[Up]:
    """Run `celeriac up` until the block ends, however it ends; yield it once it is ready. `start`: see `start_up`."""
    up = start_up(folder, environment, *options, **start)
    try:
        up.wait_until_ready()
        yield up
    finally:
        if up.process.poll() is None:
            up.process.send_signal(signal.SIGTERM)
            try:
                up.process.wait(STOP_BOUND_S)
            except subprocess.TimeoutExpired:
                up.process.kill()
                up.process.wait()


def still_running(pids: Mapping[int, str]) -> dict[int, str]:
    """Return those of `pids` that are there and no zombies, and are still the same program."""
    return {pid: command for pid, command in pids.items() if command and _command(pid) == command}


def _below(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return []
    return [found for child in children for found in (int(child), *_below(int(child)))]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _is_spare(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/fd/0").readlink().name.startswith("socket:")  # which says when it is needed
    except (FileNotFoundError, ProcessLookupError):
        return False


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
