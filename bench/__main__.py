"""`make bench`: the rate of accepting jobs, compared with a no-op endpoint and with `task.delay`, in one run.

The gateway has one worker process and, if `taskset` is installed, one core; Valkey and the load share another.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import script
from bench.load import Load, load
from bench.servers import VALKEY_PORT, running, until, valkey

GATEWAY_PORT = 18_100
CONNECTIONS = 32
DURATION_S = 2.0
ROUNDS = 3
BATCH = 100
PARAMS = {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}
JOB = {"kind": "etl.extract_data", "params": PARAMS}
PATHS = {
    "POST /jobs": ("/jobs", JOB, 1),
    "no-op": ("/noop", JOB, 1),
    "task.delay": ("/delay", PARAMS, 1),
    f"POST /jobs/batch of {BATCH}": ("/jobs/batch", {"jobs": [JOB] * BATCH}, BATCH),
}


@dataclass(frozen=True)
class Round:
    """One measurement: the load, and the server's CPU time for it."""

    load: Load
    cpu_s_per_request: float


@contextmanager
def _served(port: int, redis_url: str) -> Iterator[int]:
    command = [sys.executable, "-m", "uvicorn", "--factory", "bench.apps:gateway", "--port", str(port)]
    env = {"CELERIAC_BROKER_URL": redis_url}

    def answers() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json"):
            return True

    with running([*command, "--no-access-log", "--log-level", "warning"], 0, env) as process:
        until(answers, urllib.error.URLError)
        yield process.pid


def _cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _measure(name: str, port: int, pid: int) -> Round:
    path, body, size = PATHS[name]
    text = json.dumps(body).encode()
    connections = CONNECTIONS if size == 1 else 4
    used_s = 0.0

    def begin() -> None:
        nonlocal used_s
        used_s = _cpu_s(pid)

    measured = asyncio.run(load(port, path, text, connections=connections, duration_s=DURATION_S, begin=begin))
    return Round(measured, (_cpu_s(pid) - used_s) / measured.count)


def main() -> None:
    """Measure in turns, so that other load affects all alike; print medians and ratios."""
    if shutil.which("taskset"):
        os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})
    rounds: dict[str, list[Round]] = {name: [] for name in PATHS}
    with (
        tempfile.TemporaryDirectory() as folder,
        valkey(Path(folder), VALKEY_PORT) as store,
        _served(GATEWAY_PORT, f"redis://127.0.0.1:{VALKEY_PORT}/0") as pid,
    ):
        for _ in range(ROUNDS):
            for name in PATHS:
                store.flushdb()
                rounds[name].append(_measure(name, GATEWAY_PORT, pid))
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder), VALKEY_PORT) as store:
        script.report(store)
    _report(rounds)


def _report(rounds: dict[str, list[Round]]) -> None:
    print(f"{'':26}{'jobs/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'jobs per CPU s':>17}")
    per_s, per_cpu_s = {}, {}
    for name, measured in rounds.items():
        size = PATHS[name][2]
        per_s[name] = size * statistics.median(one.load.requests_per_s for one in measured)
        per_cpu_s[name] = size / statistics.median(one.cpu_s_per_request for one in measured)
        p50 = statistics.median(one.load.p50_ms for one in measured)
        p99 = statistics.median(one.load.p99_ms for one in measured)
        print(f"{name:26}{per_s[name]:10,.0f}{p50:10.1f}{p99:10.1f}{per_cpu_s[name]:17,.0f}")
    for other, aim in (("no-op", 0.6), ("task.delay", 4)):
        by_clock, by_cpu = (rate["POST /jobs"] / rate[other] for rate in (per_s, per_cpu_s))
        print(f"POST /jobs : {other} = {by_clock:.2f} by the clock, {by_cpu:.2f} by the server's CPU time (aim: {aim})")


if __name__ == "__main__":
    main()
