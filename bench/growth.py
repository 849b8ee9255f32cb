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

import redis

from bench import servers
from bench.load import Request, answer
from bench.report import PACKAGES, save
from shared.broker.messages import Composer
from shared.broker.settings import BrokerSettings
from shared.contract.options import RunOptions
from shared.jobs.etl import ExtractData
from shared.ledger.client import Ledger
from shared.ledger.records import Submission
from shared.workflows.planning import Planner, prepare

SIZES = sorted(int(size) for size in os.environ.get("SIZES", "1000,100000").split(","))
ROUNDS = int(os.environ.get("ROUNDS", "40"))
MOST = 1.2  # times the smallest ledger
MOST_CALL_MS = 20.0  # of Valkey, for one call
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


def forgotten(subject: Subject) -> tuple[int, float, float]:
    """Let the keeper forget all ended jobs: how many, in how many seconds, and the longest call of Valkey in ms."""
    ledger, client = Ledger(subject.client), subject.client
    client.config_set("slowlog-log-slower-than", 1_000)
    client.slowlog_reset()
    began, count, longest_us = time.monotonic(), 0, 0
    next_round = 1
    while next_round and (tended := ledger.tend(owner="bench", first_round=next_round)):
        next_round = tended.next_round
        count += sum(action.what == "forgotten" for action in tended.actions)
        longest_us = max([longest_us, *(call["duration"] for call in client.slowlog_get(16))])
        client.slowlog_reset()
    return count, time.monotonic() - began, longest_us / 1000


def lines(found: Mapping[str, Mapping[int, Sequence[float]]]) -> Iterator[str]:
    """Yield the ratios of the medians to those of the smallest ledger, and the median milliseconds of that."""
    sizes = sorted(next(iter(found.values())))
    yield f"{'jobs in the ledger':26}{f'{sizes[0]:,} (ms)':>16}" + "".join(f"{size:>14,}" for size in sizes[1:])
    for name, by_size in found.items():
        middle = {size: statistics.median(values) for size, values in by_size.items()}
        ratios = [middle[size] / middle[sizes[0]] for size in sizes[1:]]
        verdict = "met" if max(ratios, default=1) <= MOST else f"not met: at most {MOST}"
        yield f"{name:26}{middle[sizes[0]]:16.2f}" + "".join(f"{ratio:14.2f}" for ratio in ratios) + f"  {verdict}"


def main() -> None:
    """Measure and print."""
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
            print(f"{size:,} jobs: {client.info('memory')['used_memory'] / 2**20:,.0f} MiB of Valkey", flush=True)
        found = asked(subjects)
        count, took_s, longest_ms = forgotten(subjects[-1])
        verdict = "met" if longest_ms <= MOST_CALL_MS else "not met"
        keeper = (
            f"the keeper forgot {count:,} jobs in {took_s:.1f} s; the longest call took Valkey {longest_ms:.1f} ms, "
            f"at most {MOST_CALL_MS:g}: {verdict}"
        )
        text = "\n".join([*lines(found), keeper])
        print(text)
        save("growth", text, PACKAGES, {"ms": found, "forgotten": [count, took_s, longest_ms]})


if __name__ == "__main__":
    main()
