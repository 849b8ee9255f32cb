"""`python -m bench.script`: what the ledger's script costs Valkey, beside plain commands with the same bytes.

The plain way is what any queue on Redis does: HSET of the record and LPUSH of the message, in a pipeline. Each figure
is the CPU time of Valkey's main thread, reading the commands included; what a job costs its callers is not in it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from bench.report import Reached
from bench.servers import free_port, valkey
from shared.broker.messages import Composer
from shared.broker.settings import BrokerSettings
from shared.contract.options import RunOptions
from shared.jobs.etl import ExtractData
from shared.ledger.client import Ledger
from shared.ledger.records import Entry, Submission
from shared.workflows.planning import Planner, prepare

ROUNDS = 15
JOBS = 200
BATCH = 100
MOST_US = 20.0  # of CPU of Valkey that a job of a batch should take
MOST_BYTES = 3_500  # of memory of Valkey that a queued job should take
PLAIN = "HSET + LPUSH"
PARAMS = {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}
RESULT = json.dumps({"row_count": 3})


class _Collecting:
    """Takes the place of a client: the calls are sent together afterwards, so that only the server is measured."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def execute_command(self, *command: Any) -> Any:
        self.calls.append(command)
        return [["accepted", "0"]]


class _Measuring:
    """One server and one ledger."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.ledger = Ledger(client)
        self.ledger.read("")  # loads the script
        broker = BrokerSettings()
        self._planner = Planner(broker, Composer(broker))

    def jobs(self, count: int) -> list[Entry]:
        """Return new jobs with two tags, as the gateway plans them."""
        job = ExtractData.model_validate(PARAMS)
        return [self._planner.entry(prepare(job, RunOptions(tags=["nightly", "sales"]))) for _ in range(count)]

    def calls(self, make: Callable[[Ledger], object]) -> list[tuple[Any, ...]]:
        """Return the commands that `make` sends."""
        collecting = _Collecting()
        ledger = Ledger(collecting)  # type: ignore[arg-type]  # all that it needs of a client
        make(ledger)
        return collecting.calls

    def run(self, calls: Sequence[tuple[Any, ...]], jobs: int) -> tuple[float, list[Any]]:
        """Return the microseconds of CPU per job that these commands take Valkey, and the replies."""
        pipeline: Any = self.client.pipeline(transaction=False)
        for command in calls:
            pipeline.execute_command(*command)
        before = self._cpu_s()
        replies = pipeline.execute()
        return (self._cpu_s() - before) * 1e6 / jobs, replies

    def _cpu_s(self) -> float:
        used: dict[str, float] = self.client.info("cpu")
        return used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"]

    def round(self) -> dict[str, float]:
        """Measure everything once, on a new set of jobs."""
        plain, jobs, batch = self.jobs(JOBS), self.jobs(JOBS), self.jobs(JOBS)
        found: dict[str, float] = {}
        found[PLAIN], _ = self.run([command for job in plain for command in _plainly(job)], JOBS)
        accepting = [call for job in jobs for call in self.calls(lambda to, job=job: to.accept(Submission([job])))]  # type: ignore[misc]
        found["accept one"], _ = self.run(accepting, JOBS)
        batches = [batch[at : at + BATCH] for at in range(0, JOBS, BATCH)]
        accepting = [call for few in batches for call in self.calls(lambda to, few=few: to.accept(Submission(few)))]  # type: ignore[misc]
        found[f"accept {BATCH}, a job"], _ = self.run(accepting, JOBS)
        claims = [call for job in jobs for call in self.calls(lambda to, job=job: _claim(to, job))]  # type: ignore[misc]
        found["claim"], replies = self.run(claims, JOBS)
        tokens = [reply[1] for reply in replies]
        ends = [
            call
            for job, token in zip(jobs, tokens, strict=True)
            for call in self.calls(lambda to, job=job, token=token: to.succeed(job.id, token=token, result=RESULT))  # type: ignore[misc]
        ]
        found["finish"], _ = self.run(ends, JOBS)
        return found

    def bytes_per_job(self) -> float:
        """Return the memory of one queued job, message and indexes included."""
        self.client.flushdb()
        first, *jobs = self.jobs(1_001)
        self.ledger.accept(Submission([first]))
        before = self._dataset_bytes()
        for job in jobs:
            self.ledger.accept(Submission([job]))
        return (self._dataset_bytes() - before) / len(jobs)

    def _dataset_bytes(self) -> int:
        used: dict[str, int] = self.client.info("memory")
        return used["used_memory_dataset"]


def _plainly(job: Entry) -> list[tuple[Any, ...]]:
    record = [text for field in job.record().items() for text in field]
    return [("HSET", f"plain:{job.id}", *record), ("LPUSH", "plain", job.message or "")]


def _claim(ledger: Ledger, job: Entry) -> None:
    ledger.claim(job.id, owner="w1", worker="etl@host", lease_s=20, message=job.message or "")


def measured(client: redis.Redis) -> tuple[dict[str, list[float]], float]:
    """Return the microseconds of each round, and the bytes of a queued job, on a server that nobody else uses."""
    measuring = _Measuring(client)
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        client.flushdb()
        rounds.append(measuring.round())
    return {name: [each[name] for each in rounds] for name in rounds[0]}, measuring.bytes_per_job()


def lines(found: Mapping[str, Sequence[float]], size: float) -> Iterator[str]:
    """Yield what was measured: ratios first, since another load on the machine slows all alike."""
    yield f"{'script, CPU of Valkey':26}{'x plain':>10}{'us median':>12}{'us least':>10}"
    for name, values in found.items():
        ratio = statistics.median(value / plain for value, plain in zip(values, found[PLAIN], strict=True))
        yield f"{name:26}{ratio:10.2f}{statistics.median(values):12.1f}{min(values):10.1f}"
    yield f"memory of a queued job with two tags: {size:,.0f} bytes"


def reached(found: Mapping[str, Sequence[float]], size: float) -> list[Reached]:
    """Return what was measured, beside the goals."""
    return [
        Reached("us of Valkey to accept a job in a batch of 100", found[f"accept {BATCH}, a job"], most=MOST_US),
        Reached("bytes of Valkey for a queued job with two tags", [size], most=MOST_BYTES),
    ]


def main() -> None:
    """Report on a Valkey of its own."""
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder), free_port()) as client:
        print("\n".join(lines(*measured(client))))


if __name__ == "__main__":
    main()
