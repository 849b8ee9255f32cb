"""Whether answers take longer with more jobs in the ledger: `python -m bench.growth`, some minutes.

Each size is a ledger of its own, with a Valkey and a gateway. All are asked in turn, one request at a time, so that a
figure and its baseline, the smallest ledger, are a moment apart. One job in ten waits, the others have ended. At the
end the keeper forgets the ended jobs of the largest ledger. SIZES=1000,100000,1000000 takes 4 GiB of memory.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import redis

from bench import servers
from bench.load import Request, answer
from bench.report import PACKAGES, Reached, save, told
from shared.broker.messages import Composer
from shared.broker.settings import BrokerSettings
from shared.contract.options import RunOptions
from shared.jobs.etl import ExtractData
from shared.ledger.client import Ledger
from shared.ledger.records import Submission
from shared.workflows.planning import Planner, prepare

SIZES = sorted(int(size) for size in os.environ.get("SIZES", "1000,100000").split(","))
ROUNDS = int(os.environ.get("GROWTH_ROUNDS", "20"))
MOST = 1.2  # times the smallest ledger
MOST_CALL_MS = 20.0  # of Valkey, for one call
_LEFT = {"list without a match": "ZINTERCARD of its two indexes, 0.3 us a member of the smaller one"}
_BATCH = 500
_RUNNING = 10  # of the jobs, one in this number waits
_RETENTION_S = 1.0  # nothing else runs the keeper, so nothing is forgotten before the end
_PARAMS = {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}
_READS = {
    "GET /jobs/{id}": "/jobs/{id}",
    "list": "/jobs?page_size=20",
    "list by state": "/jobs?page_size=20&state=cancelled",
    "list by kind": "/jobs?page_size=20&kind=etl.extract_data",
    "list by queue": "/jobs?page_size=20&queue=etl",
    "list by tag": "/jobs?page_size=20&tag=day-7",
    "list by tag and state": "/jobs?page_size=20&tag=day-10&state=queued",
    "list without a match": "/jobs?page_size=20&tag=day-7&state=queued",  # every job of that day has ended
    "/queues": "/queues",
    "/metrics": "/metrics",
}
ASKED = {
    "POST /jobs": Request("POST", "/jobs", {"kind": "etl.extract_data", "params": _PARAMS}),
    **{name: Request("GET", path, status=200) for name, path in _READS.items()},
}


@dataclass(frozen=True)
class Subject:
    """A ledger of one size, and the gateway in front of it."""

    size: int
    client: redis.Redis
    port: int
    job_id: str

    def ask(self, request: Request) -> float:
        """Return how many milliseconds the answer took."""
        request = replace(request, path=request.path.format(id=self.job_id))
        began = time.perf_counter()
        answer(request, self.port)
        return round((time.perf_counter() - began) * 1000, 3)


def fill(client: redis.Redis, url: str, size: int) -> str:
    """Add jobs; return the id of one that waits."""
    settings = BrokerSettings(broker_url=url, retention_s=_RETENTION_S)
    planner, ledger, job = Planner(settings, Composer(settings)), Ledger(client), ExtractData.model_validate(_PARAMS)
    waiting = ""
    for first in range(0, size, _BATCH):
        numbers = range(first, min(first + _BATCH, size))
        entries = [planner.entry(prepare(job, RunOptions(tags=["nightly", f"day-{n % 30}"]))) for n in numbers]
        ledger.accept(Submission(entries))
        for number, entry in zip(numbers, entries, strict=True):
            if number % _RUNNING:
                ledger.cancel(entry.id, reason="It has ended.")
            else:
                waiting = entry.id
    return waiting


def asked(subjects: Sequence[Subject]) -> dict[str, dict[int, list[float]]]:
    """Return the milliseconds of each request in each round, by size."""
    found: dict[str, dict[int, list[float]]] = {name: defaultdict(list) for name in ASKED}
    for _ in range(ROUNDS):
        for name, request in ASKED.items():
            for subject in subjects:
                found[name][subject.size].append(subject.ask(request))
    return found


class Forgotten(NamedTuple):
    """What the keeper did: how many jobs, in how long, and the longest call of Valkey, by the clock and of CPU."""

    jobs: int
    took_s: float
    longest_ms: float
    longest_cpu_ms: float


def forgotten(subject: Subject) -> Forgotten:
    """Let the keeper forget all ended jobs."""
    ledger, client = Ledger(subject.client), subject.client
    client.config_set("slowlog-log-slower-than", 1_000)
    client.slowlog_reset()
    began, count, longest_us, longest_cpu_s = time.monotonic(), 0, 0, 0.0
    next_round = 1
    while next_round:
        used_s = _cpu_s(client)
        tended = ledger.tend(owner="bench", first_round=next_round)
        longest_cpu_s = max(longest_cpu_s, _cpu_s(client) - used_s)
        if tended is None:
            break
        next_round = tended.next_round
        count += sum(action.what == "forgotten" for action in tended.actions)
        longest_us = max([longest_us, *(call["duration"] for call in client.slowlog_get(16))])
        client.slowlog_reset()
    return Forgotten(count, time.monotonic() - began, longest_us / 1000, longest_cpu_s * 1000)


def _cpu_s(client: redis.Redis) -> float:
    used: Any = client.info("cpu")
    return float(used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"])


def _ratios(by_size: Mapping[int, Sequence[float]]) -> dict[int, list[float]]:
    """Return, by size, the milliseconds of each round beside those of the smallest ledger in the same round."""
    smallest = by_size[min(by_size)]
    return {
        size: [one / other for one, other in zip(values, smallest, strict=True)]
        for size, values in by_size.items()
        if size != min(by_size)
    }


def reached(found: Mapping[str, Mapping[int, Sequence[float]]], kept: Forgotten) -> list[Reached]:
    """Return what was measured, beside the goals."""
    flat = [
        Reached(f"{name}, {size:,} : {min(by_size):,} jobs", ratios, most=MOST, left=_LEFT.get(name, ""))
        for name, by_size in found.items()
        for size, ratios in _ratios(by_size).items()
    ]
    return [
        *flat,
        Reached("ms of Valkey for the keeper's longest call", [kept.longest_ms], most=MOST_CALL_MS),
        Reached("ms of CPU of Valkey for the keeper's longest call", [kept.longest_cpu_ms], most=MOST_CALL_MS),
    ]


def lines(found: Mapping[str, Mapping[int, Sequence[float]]], kept: Forgotten) -> Iterator[str]:
    """Yield the median milliseconds of each size."""
    sizes = sorted(next(iter(found.values())))
    yield f"{'ms, by jobs in the ledger':26}" + "".join(f"{size:>14,}" for size in sizes)
    for name, by_size in found.items():
        yield f"{name:26}" + "".join(f"{statistics.median(by_size[size]):14.2f}" for size in sizes)
    yield f"the keeper forgot {kept.jobs:,} jobs in {kept.took_s:.1f} s"


def measured() -> tuple[dict[str, dict[int, list[float]]], Forgotten]:
    """Return the milliseconds of each request in each round by size, and what the keeper did at the end."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        subjects = []
        for size in SIZES:
            port, serving = servers.free_port(), servers.free_port()
            (home := Path(folder, str(size))).mkdir()
            client = stack.enter_context(servers.valkey(home, port))
            url = f"redis://127.0.0.1:{port}/0"
            job_id = fill(client, url, size)
            stack.enter_context(servers.gateway(serving, url))
            subjects.append(Subject(size, client, serving, job_id))
            used_mib = client.info("memory")["used_memory"] / 2**20
            print(f"{size:,} jobs take {used_mib:,.0f} MiB of Valkey", flush=True)
        return asked(subjects), forgotten(subjects[-1])


def main() -> None:
    """Measure, print and save."""
    found, kept = measured()
    goals = reached(found, kept)
    text = "\n".join([*(one.line() for one in goals), "", *lines(found, kept)])
    print(text)
    save("growth", text, PACKAGES, {"goals": told(goals), "forgotten": kept._asdict()})


if __name__ == "__main__":
    main()
