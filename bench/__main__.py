"""`make bench`: accepting and reading jobs, compared with a no-op, `task.delay` and peers, in one run of some minutes.

The gateway has one worker process and, if `taskset` is installed, one core; Valkey and the load share another. With
PEERS=1 celery-fastapi is measured in turn with it. The results go to `bench/results`.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import redis

from bench import script, servers
from bench.load import Request, answer, load
from bench.report import PACKAGES, Figures, Goal, lines, rounds_of, save

CONNECTIONS = 32
DURATION_S = 2.0
ROUNDS = int(os.environ.get("ROUNDS", "5"))
PARAMS = {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}
JOB = {"kind": "etl.extract_data", "params": PARAMS}
SUBMIT = Request("POST", "/jobs", JOB)


@dataclass(frozen=True)
class Subject:
    """What is measured: a request, and how many jobs it has."""

    request: Request
    jobs: int = 1
    connections: int = CONNECTIONS


def _batch(jobs: int, connections: int) -> Subject:
    return Subject(Request("POST", "/jobs/batch", {"jobs": [JOB] * jobs}), jobs, connections)


SUBJECTS = {
    "no-op": Subject(Request("POST", "/noop", JOB)),
    "POST /jobs": Subject(SUBMIT),
    "task.delay": Subject(Request("POST", "/delay", PARAMS)),
    "batch of 100": _batch(100, connections=4),
    "batch of 1,000": _batch(1_000, connections=1),
    "/livez": Subject(Request("GET", "/livez", status=200)),
    "GET /jobs/{id}": Subject(Request("GET", "{job}", status=200)),
    "GET /jobs/{id}, 304": Subject(Request("GET", "{job}", headers={"If-None-Match": "{etag}"}, status=304)),
}
PEER = {"celery-fastapi": Subject(Request("POST", "/extract_data", PARAMS, status=200))}
_PEERS = ("task.delay", *PEER)
GOALS = (
    Goal("POST /jobs", "per_s", least=0.7, other=["no-op"]),
    Goal("POST /jobs", "per_cpu_s", least=0.7, other=["no-op"]),
    Goal("POST /jobs", "p99_ms", most=3, other=["no-op"]),
    Goal("POST /jobs", "per_s", least=5, other=_PEERS),
    Goal("POST /jobs", "per_cpu_s", least=5, other=_PEERS),
    Goal("GET /jobs/{id}", "per_s", least=0.7, other=["/livez"]),
    Goal("GET /jobs/{id}", "per_cpu_s", least=0.7, other=["/livez"]),
    Goal("batch of 100", "per_s", least=20_000),
    Goal("batch of 100", "per_cpu_s", least=20_000),
    Goal("batch of 1,000", "per_s", least=20_000),
)


def _located(request: Request, port: int) -> Request:
    """Return `request` for a job that exists, if it reads one."""
    if request.path != "{job}":
        return request
    path = answer(SUBMIT, port)[1]["location"]
    tag = answer(Request("GET", path), port)[1]["etag"]
    headers = {name: value.format(etag=tag) for name, value in request.headers.items()}
    return Request(request.method, path, headers=headers, status=request.status)


def _measure(subject: Subject, port: int, pid: int) -> Figures:
    request, used_s = _located(subject.request, port), 0.0

    def begin() -> None:
        nonlocal used_s
        used_s = servers.cpu_s(pid)

    measured = asyncio.run(load(port, request, connections=subject.connections, duration_s=DURATION_S, begin=begin))
    used_s = max(servers.cpu_s(pid) - used_s, 0.01)  # the resolution of the clock of CPU time
    return Figures(
        per_s=subject.jobs * measured.requests_per_s,
        per_cpu_s=subject.jobs * measured.count / used_s,
        p50_ms=measured.p50_ms,
        p99_ms=measured.p99_ms,
        failed=measured.failed,
    )


def _rounds(database: redis.Redis, running: dict[str, tuple[Subject, int, int]]) -> dict[str, list[Figures]]:
    """Measure in turns, so that other load affects all alike."""
    rounds: dict[str, list[Figures]] = {name: [] for name in running}
    for _ in range(ROUNDS):
        for name, (subject, port, pid) in running.items():
            database.flushdb()
            rounds[name].append(_measure(subject, port, pid))
    return rounds


def main() -> None:
    """Measure, print and save."""
    servers.pin_load()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = servers.free_port()
        database = stack.enter_context(servers.valkey(folder, port))
        url = f"redis://127.0.0.1:{port}/0"
        port = servers.free_port()
        pid = stack.enter_context(servers.gateway(port, url))
        running = {name: (subject, port, pid) for name, subject in SUBJECTS.items()}
        if os.environ.get("PEERS"):
            port = servers.free_port()
            pid = stack.enter_context(servers.peer(folder / "peers", port, url))
            running |= {name: (subject, port, pid) for name, subject in PEER.items()}
        rounds = _rounds(database, running)
    with tempfile.TemporaryDirectory() as empty, servers.valkey(Path(empty), servers.free_port()) as database:
        costs_us, bytes_per_job = script.measured(database)
    text = "\n".join([*lines(GOALS, rounds), "", *script.lines(costs_us, bytes_per_job)])
    print(text)
    found = rounds_of(GOALS, rounds) | {"script_us": costs_us, "bytes_per_queued_job": bytes_per_job}
    save("gateway", text, PACKAGES, found)


if __name__ == "__main__":
    main()
