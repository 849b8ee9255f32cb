"""What a task costs a worker, and a caller in time, beside Celery alone: `python -m bench.working`.

Both workers have one child. A round gives each of them the same number of tasks in turn; the CPU time is that of the
worker with all its processes, less what the same time costs it when idle.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import servers
from bench.load import Request, answer
from bench.report import Reached
from shared.ledger.states import State

TASKS = 300
CALLS = 40
ROUNDS = int(os.environ.get("ROUNDS", "5"))
MOST = 1.3  # times the CPU time of the bare task
MOST_LATER_MS = 15.0  # at the median, than `delay().get()`
_LEFT = "42 % of the child are the round trips of claim and finish, 7 % the attempt's folder, 6 % restoring the process"
_IDLE_S = 3.0
_BODY = {"kind": "bench.add_numbers", "params": {"first": 1, "second": 2}}
_OURS = {
    "CELERIAC_CONTRACTS": "shared.jobs,bench.kinds",
    "CELERIAC_TASKS": "bench.bodies",
    "CELERIAC_QUEUES": "bench",
    "WORKER_FAMILIES": "",
}


@dataclass(frozen=True)
class Subject:
    """A worker, how to give it tasks until all are done, and how to make one call for a result."""

    pid: int
    work: Callable[[], object]
    call: Callable[[], object]
    idle_cpu_s: float  # in a second

    def cpu_ms(self, valkey: int, valkey_idle_cpu_s: float) -> tuple[float, float]:
        """Return the milliseconds of CPU that a task takes the worker, and Valkey."""
        began, used_s, valkey_s = time.monotonic(), servers.tree_cpu_s(self.pid), servers.tree_cpu_s(valkey)
        self.work()
        used_s, valkey_s = servers.tree_cpu_s(self.pid) - used_s, servers.tree_cpu_s(valkey) - valkey_s
        took_s = time.monotonic() - began
        spent_s = used_s - self.idle_cpu_s * took_s, valkey_s - valkey_idle_cpu_s * took_s
        own_ms, its_ms = (max(each, 0.01) * 1000 / TASKS for each in spent_s)
        return own_ms, its_ms


def _call(port: int) -> None:
    job_id = json.loads(answer(Request("POST", "/jobs", _BODY), port)[0])["id"]
    _result(port, job_id)


def _result(port: int, job_id: str) -> None:
    while True:
        job = json.loads(answer(Request("GET", f"/jobs/{job_id}?wait_s=30"), port)[0])
        if job["state"] == State.SUCCEEDED:
            return
        if job["finished_at"]:
            raise RuntimeError(f"{job_id} {job['state']}: {job['error']}")


def _work(port: int) -> None:
    batch = Request("POST", "/jobs/batch", {"jobs": [_BODY] * TASKS})
    _result(port, json.loads(answer(batch, port)[0])["jobs"][-1]["id"])  # one child: the last ends last


def _bare_work(task: Any) -> None:
    results = [task.delay(1, 2) for _ in range(TASKS)]
    results[-1].get(timeout=120)


def _bare_call(task: Any) -> None:
    task.delay(1, 2).get(timeout=60)


def _idle(pid: int) -> float:
    used_s = servers.tree_cpu_s(pid)
    time.sleep(_IDLE_S)
    return (servers.tree_cpu_s(pid) - used_s) / _IDLE_S


def _subject(stack: ExitStack, app: str, env: Mapping[str, str], work: Callable[[], object], call: Any) -> Subject:
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "--concurrency", "1", "--loglevel", "ERROR"]
    pid = stack.enter_context(servers.running(command, env)).pid
    work()  # it is up, and warm
    return Subject(pid, work, call, _idle(pid))


def measured() -> dict[str, dict[str, list[float]]]:
    """Return the milliseconds of CPU a task in each round, and those of each call, of both."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        database, port = servers.free_port(), servers.free_port()
        valkey: int = stack.enter_context(servers.valkey(Path(folder), database)).info("server")["process_id"]
        url = {"CELERIAC_BROKER_URL": f"redis://127.0.0.1:{database}/0", "CELERIAC_STORE_URL": folder}
        stack.enter_context(servers.gateway(port, url["CELERIAC_BROKER_URL"], _OURS, core=None))
        os.environ.update(url)
        from bench.bare import add_numbers  # noqa: PLC0415 - it reads the address of the broker

        ours = _subject(stack, "worker.app", url | _OURS, partial(_work, port), partial(_call, port))
        bare = _subject(stack, "bench.bare", url, partial(_bare_work, add_numbers), partial(_bare_call, add_numbers))
        subjects = {"ours": ours, "Celery alone": bare}
        idle_cpu_s = _idle(valkey)
        cpu_ms: dict[str, list[float]] = {name: [] for name in subjects}
        valkey_ms: dict[str, list[float]] = {name: [] for name in subjects}
        call_ms: dict[str, list[float]] = {name: [] for name in subjects}
        for _ in range(ROUNDS):
            for name, subject in subjects.items():
                own, its = subject.cpu_ms(valkey, idle_cpu_s)
                cpu_ms[name].append(own)
                valkey_ms[name].append(its)
        for _ in range(CALLS):
            for name, subject in subjects.items():
                began = time.perf_counter()
                subject.call()
                call_ms[name].append((time.perf_counter() - began) * 1000)
    return {"cpu_ms": cpu_ms, "call_ms": call_ms, "valkey_ms": valkey_ms}


def reached(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Reached]:
    """Return what was found, beside the goals."""
    (ours, bare), (our_calls, bare_calls) = found["cpu_ms"].values(), found["call_ms"].values()
    ratios = [mine / other for mine, other in zip(ours, bare, strict=True)]
    later_ms = statistics.median(our_calls) - statistics.median(bare_calls)
    return [
        Reached("CPU of a worker for a task : Celery alone", ratios, most=MOST, left=_LEFT),
        Reached("ms from submit to observed result, above delay().get()", [max(later_ms, 0.01)], most=MOST_LATER_MS),
    ]


def lines(found: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    """Yield the medians behind them."""
    ours, bare = (statistics.median(values) for values in found["cpu_ms"].values())
    yield f"a task takes a worker {ours:.2f} ms of CPU, with Celery alone {bare:.2f} ms"
    ours, bare = (statistics.median(values) for values in found["valkey_ms"].values())
    yield f"and Valkey {ours:.2f} ms with submission and result, with Celery alone {bare:.2f} ms"
    ours, bare = (statistics.median(values) for values in found["call_ms"].values())
    yield f"submit to observed result, p50: {ours:.1f} ms, delay().get() {bare:.1f} ms"


def main() -> None:
    """Measure and print."""
    found = measured()
    print("\n".join([*(one.line() for one in reached(found)), *lines(found)]))


if __name__ == "__main__":
    main()
