"""`make bench`: every goal of docs/performance.md in one run of at most ten minutes on two quiet cores.

The gateway has one worker process and, if `taskset` is installed, one core; Valkey and the load share another. What is
compared is measured in turn, in rounds. With PEERS=1 celery-fastapi is measured, too. PARTS=worker,growth measures only
these parts, and saves nothing. The results, a table, a JSON file and a chart, go to `bench/results`.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import redis

from bench import chart, growth, scaling, script, servers, waiting, working
from bench.load import Request, answer, load
from bench.report import PACKAGES, RESULTS, Figures, Goal, Reached, medians, reached, save, table, told
from shared.access.callers import Restrictions
from shared.access.past_http import write_here
from shared.access.scopes import PRESETS
from shared.access.terms import KeyTerms

CONNECTIONS = 32
DURATION_S = 2.0
ROUNDS = int(os.environ.get("ROUNDS", "5"))
PARAMS = {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}
JOB = {"kind": "etl.extract_data", "params": PARAMS}
SUBMIT = Request("POST", "/jobs", JOB)
TERMS = KeyTerms("default", "bench", PRESETS["submitter"], Restrictions(kinds=["etl.*"]), "bench", expires_in_s=3_600)


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
KEYED = {f"{name}, with a key": name for name in ("POST /jobs", "GET /jobs/{id}")}  # by a gateway that asks for one
_PEERS = ("task.delay", *PEER)
_SOCKET = (
    "a third is uvicorn's two writes to the socket, a quarter middleware and routing, 9 % the entry, 5 % the ledger"
)
_BATCH = "34 % the entries and their messages, 17 % reading the body, 11 % the ledger; Valkey has the load on its core"
GOALS = (
    Goal("POST /jobs", "per_s", least=0.7, other=["no-op"], left=_SOCKET),
    Goal("POST /jobs", "per_cpu_s", least=0.7, other=["no-op"], left=_SOCKET),
    Goal("POST /jobs", "p99_ms", most=3, other=["no-op"], left=_SOCKET),
    Goal("POST /jobs", "per_s", least=5, other=_PEERS, left=_SOCKET),
    Goal("POST /jobs", "per_cpu_s", least=5, other=_PEERS, left=_SOCKET),
    Goal("GET /jobs/{id}", "per_s", least=0.7, other=["/livez"]),
    Goal("GET /jobs/{id}", "per_cpu_s", least=0.7, other=["/livez"]),
    *(Goal(name, "per_cpu_s", least=0.95, other=[without]) for name, without in KEYED.items()),
    Goal("batch of 100", "per_s", least=20_000, left=_BATCH),
    Goal("batch of 100", "per_cpu_s", least=20_000, left=_BATCH),
    Goal("batch of 1,000", "per_s", least=20_000, left=_BATCH),
)


def _located(request: Request, port: int) -> Request:
    """Return `request` for a job that exists, if it reads one."""
    if request.path != "{job}":
        return request
    shown = {name: value for name, value in request.headers.items() if name == "Authorization"}
    path = answer(replace(SUBMIT, headers=shown), port)[1]["location"]
    if (
        request.status == HTTPStatus.NOT_MODIFIED
    ):  # of a job that waits, the answer says behind how many, so the version alone is not enough
        answer(Request("POST", f"{path}/cancel"), port)
    tag = answer(Request("GET", path, headers=shown), port)[1]["etag"]
    headers = {name: value.format(etag=tag) for name, value in request.headers.items()}
    return Request(request.method, path, headers=headers, status=request.status)


def _measure(subject: Subject, port: int, pid: int) -> Figures:
    request, used_s = _located(subject.request, port), 0.0

    def begin() -> None:
        nonlocal used_s
        used_s = servers.cpu_s(pid)

    measured = asyncio.run(load([port], request, connections=subject.connections, duration_s=DURATION_S, begin=begin))
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


@dataclass
class Part:
    """What a part of the run has found: the goals, the figures behind them as text, and both for the file."""

    goals: Sequence[Reached]
    text: Iterable[str]
    found: Any


def _accepting() -> Part:
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
        url = f"redis://127.0.0.1:{database.connection_pool.connection_kwargs['port']}/1"  # a ledger that has a key
        headers = {"Authorization": f"Bearer {write_here(TERMS, url).text}"}
        port = servers.free_port()
        pid = stack.enter_context(servers.gateway(port, url))
        for name, without in KEYED.items():
            subject = SUBJECTS[without]
            running[name] = (replace(subject, request=replace(subject.request, headers=headers)), port, pid)
        rounds = _rounds(database, running)
    return Part(reached(GOALS, rounds), table(rounds), medians(rounds))


def _scaling() -> Part:
    rounds = scaling.measured(SUBMIT)
    return Part(reached(scaling.GOALS, rounds), table(rounds), medians(rounds))


def _script() -> Part:
    with tempfile.TemporaryDirectory() as empty, servers.valkey(Path(empty), servers.free_port()) as database:
        costs_us, size = script.measured(database)
    middle = {name: round(statistics.median(values), 1) for name, values in costs_us.items()}
    found = {"us": middle, "bytes_per_queued_job": size}
    return Part(script.reached(costs_us, size), script.lines(costs_us, size), found)


def _worker() -> Part:
    found = working.measured()
    middle = {
        what: {name: round(statistics.median(values), 3) for name, values in by_name.items()}
        for what, by_name in found.items()
    }
    return Part(working.reached(found), working.lines(found), middle)


def _waiting() -> Part:
    seen = waiting.measured()
    return Part(waiting.reached(seen), waiting.lines(seen), {way: one._asdict() for way, one in seen.items()})


def _growth() -> Part:
    found, kept = growth.measured()
    middle = {
        name: {size: statistics.median(values) for size, values in by_size.items()} for name, by_size in found.items()
    }
    return Part(growth.reached(found, kept), growth.lines(found, kept), {"ms": middle, "keeper": kept._asdict()})


PARTS: dict[str, Callable[[], Part]] = {
    "accepting": _accepting,
    "script": _script,
    "worker": _worker,
    "gateways": _scaling,
    "waiting": _waiting,
    "growth": _growth,
}


def main() -> None:
    """Measure, print and save."""
    servers.pin_load()
    wanted = os.environ.get("PARTS")
    parts: dict[str, Part] = {}
    for name, measure in PARTS.items():
        if not wanted or name in wanted.split(","):
            began = time.monotonic()
            parts[name] = part = measure()
            print("\n".join([f"# {name} ({time.monotonic() - began:.0f} s)", *(one.line() for one in part.goals), ""]))
    goals = [one for part in parts.values() for one in part.goals]
    met = sum(one.share >= 1 for one in goals)
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.1f} (above 3 only ratios by CPU time say something)"
    text = "\n".join(
        [
            f"{met} of {len(goals)} goals are met: median (range), goal, verdict; {machine}",
            *(one.line() for one in goals),
            *(line for name, part in parts.items() for line in ("", f"# {name}", *part.text)),
        ]
    )
    print(text)
    if not wanted:
        save("bench", text, PACKAGES, {"goals": told(goals), **{name: part.found for name, part in parts.items()}})
        (RESULTS / "bench.svg").write_text(chart.svg(goals), encoding="utf-8")


if __name__ == "__main__":
    main()
