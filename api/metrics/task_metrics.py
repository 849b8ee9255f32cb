"""The metrics of jobs, tasks, queues and workers: read from Redis at each scrape, so all gateways report the same.

The names are those of celery-exporter if it has one. A sum over several gateways counts everything repeatedly: use
`max without (instance)`, as deploy/prometheus does.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from api.metrics.event_tally import OUTCOMES
from shared.broker.reading import Reason
from shared.contract.catalogue import catalogue
from shared.contract.definition import known_queues
from shared.ledger import dead_letters
from shared.ledger.client import Ledger
from shared.ledger.counters import DURATION_BOUNDS_S, NO_BOUND, OTHER, SEPARATOR
from shared.ledger.operations import QueueState, WorkerState, parse_queue, parse_worker
from shared.ledger.states import FINAL_STATES, OnlyOfSteps, State
from shared.texts import redact

SENDER = "generic"  # celery-exporter's host label of `sent` if senders are not distinguished
_FINAL = (*sorted(FINAL_STATES), OnlyOfSteps.SKIPPED)
_TASK = ("name", "hostname", "queue_name")
_log = structlog.get_logger(__name__)

Labels = tuple[str, ...]
Series = Mapping[Labels, float]


@dataclass(frozen=True, slots=True)
class _Reading:
    """The counters read in one round trip."""

    counters: dict[str, dict[Labels, int]]
    events: dict[str, dict[Labels, int]]
    jobs: dict[str, int]  # by state
    queues: list[QueueState]
    workers: list[WorkerState]
    rows: tuple[int, float] | None  # how many wait, and seconds that the oldest has; None without a result database


class TaskMetrics(Collector):
    """Reads the ledger's counters in one round trip per scrape. If the ledger is down, it reports only that."""

    def __init__(self, client: redis.Redis) -> None:
        """Take the ledger's Redis, with short timeouts because Prometheus waits."""
        self._ledger = Ledger(client)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are unknown before the first scrape, and no other collector has them."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by the registry, in a thread."""
        try:
            reading = self._read()
        except (redis.RedisError, OSError) as failure:
            _log.warning("no task metrics", cause=redact(repr(failure)))
            yield GaugeMetricFamily("celeriac_ledger_up", "Whether the ledger answered this scrape.", value=0)
            return
        yield GaugeMetricFamily("celeriac_ledger_up", "Whether the ledger answered this scrape.", value=1)
        yield from _of_tasks(reading.counters)
        yield from _of_jobs(reading)
        yield from _of_events(reading.events)
        yield from _of_queues(reading)
        yield from _of_workers(reading.workers)
        if reading.rows is not None:
            yield from _of_rows(*reading.rows)

    def _read(self) -> _Reading:
        names, states = known_queues(), list(State)
        reply = self._ledger.call("metrics", {"queues": names, "states": states})
        counters, events, jobs, queues, workers, rows = reply
        return _Reading(
            counters=_by_name(counters, LABELS_OF_COUNTERS),
            events=_by_name(events, LABELS_OF_EVENTS),
            jobs=dict(zip(states, jobs, strict=True)),
            queues=[parse_queue(name, queue) for name, queue in zip(names, queues, strict=True)],
            workers=[parse_worker(*worker) for worker in workers],
            rows=(int(rows[0]), int(rows[1]) / 1e3) if rows else None,
        )


LABELS_OF_COUNTERS = {
    "sent": 2,
    "submitted": 1,
    "processed": 2,
    "ended": 2,
    "ran": 2,
    "ran_ms": 1,
    "kept": 1,
    dead_letters.COUNTER: 1,
}
LABELS_OF_EVENTS = dict.fromkeys((*OUTCOMES, "ran_us"), 3) | {"failed": 4, "ran": 4}


def _by_name(stored: Sequence[str], label_counts: Mapping[str, int]) -> dict[str, dict[Labels, int]]:
    """Return the counters by name and labels; fields of other versions are ignored."""
    found: dict[str, dict[Labels, int]] = defaultdict(dict)
    for field, value in zip(stored[::2], stored[1::2], strict=True):
        name, _, rest = field.partition(SEPARATOR)
        labels = tuple(rest.split(SEPARATOR, label_counts.get(name, 0) - 1))
        if len(labels) == label_counts.get(name):
            found[name][labels] = int(value)
    return found


def _of_tasks(counters: Mapping[str, Series]) -> Iterator[Metric]:
    """Yield the ledger's metrics of tasks: jobs that are one task, and the steps of workflows."""
    sent = _merged((_kind(kind), SENDER, _queue(queue), n) for (kind, queue), n in counters.get("sent", {}).items())
    yield _counter("celery_task_sent", "Accepted tasks; republishing is not counted.", _TASK, sent)
    known = itertools.product({name for name, _, _ in sent}, _FINAL)
    processed = dict.fromkeys(known, 0.0) | _merged(
        (_kind(kind), state, n) for (kind, state), n in counters.get("processed", {}).items()
    )
    what = "Tasks that ended, by the state they ended in."
    yield _counter("celery_tasks_processed", what, ("task_name", "status"), processed)
    yield _histogram(
        "celery_task_duration_seconds",
        "Run time of completed attempts, from claim to outcome.",
        ("task_name",),
        _merged((_kind(kind), bound, n) for (kind, bound), n in counters.get("ran", {}).items()),
        _merged((_kind(kind), n / 1e3) for (kind,), n in counters.get("ran_ms", {}).items()),
    )


def _of_jobs(reading: _Reading) -> Iterator[Metric]:
    submitted = _merged((_kind(kind), n) for (kind,), n in reading.counters.get("submitted", {}).items())
    yield _counter("celeriac_jobs_submitted", "Accepted jobs; a workflow is one.", ("kind",), submitted)
    ended = _merged((_kind(kind), state, n) for (kind, state), n in reading.counters.get("ended", {}).items())
    yield _counter("celeriac_jobs_ended", "Jobs that ended, by the state they ended in.", ("kind", "state"), ended)
    jobs: Series = {(state,): float(n) for state, n in reading.jobs.items()}
    yield _gauge(
        "celeriac_jobs", "Jobs in the ledger, by state; those that ended stay for their retention.", ("state",), jobs
    )
    kept = {labels: float(n) for labels, n in reading.counters.get("kept", {}).items()}
    yield _counter("celeriac_keeper_actions", "Actions of the keeper on jobs.", ("action",), kept)
    dead = dict.fromkeys(((reason,) for reason in Reason), 0.0) | reading.counters.get(dead_letters.COUNTER, {})
    yield _counter("celeriac_dead_letters", "Messages that no worker could read.", ("reason",), dead)


def _of_events(events: Mapping[str, Series]) -> Iterator[Metric]:
    """Yield the metrics from workers' events; lost events are not counted."""
    told = {
        "received": "Tasks that a worker received.",
        "started": "Tasks that a worker started.",
        "succeeded": "Tasks that succeeded.",
        "retried": "Tasks that failed and will be retried.",
        "revoked": "Tasks that were revoked through Celery; the ledger's cancellations are in celery_tasks_processed.",
        "rejected": "Tasks that a worker rejected.",
    }
    seen = {labels for what in told for labels in events.get(what, {})}
    for what, documentation in told.items():
        series = dict.fromkeys(seen, 0.0) | _merged((*labels, n) for labels, n in _named(events, what))
        yield _counter(f"celery_task_{what}", documentation, ("hostname", "name", "queue_name"), series)
    failed = _merged((*labels, n) for labels, n in _named(events, "failed"))
    yield _counter("celery_task_failed", "Tasks that failed.", ("exception", "hostname", "name", "queue_name"), failed)
    ran = {(*labels, bound): float(n) for (bound, *labels), n in events.get("ran", {}).items()}
    seconds = {labels: n / 1e6 for labels, n in events.get("ran_us", {}).items()}
    what = "Run time of succeeded tasks, measured by their workers."
    yield _histogram("celery_task_runtime", what, ("hostname", "name", "queue_name"), ran, seconds)


def _named(events: Mapping[str, Series], what: str) -> Iterable[tuple[Labels, float]]:
    return events.get(what, {}).items()


def _of_queues(reading: _Reading) -> Iterator[Metric]:
    living = [worker for worker in reading.workers if not worker.is_lost]
    gauges: dict[str, tuple[str, Callable[[QueueState], float]]] = {
        "celery_queue_length": ("Jobs and steps that wait for a worker.", lambda queue: queue.backlog),
        "celery_active_consumer_count": ("Workers that consume the queue.", lambda queue: queue.consumers),
        "celery_active_worker_count": (
            "Workers that consume the queue.",
            lambda queue: sum(queue.name in worker.queues for worker in living),
        ),
        "celery_active_process_count": (
            "Processes that can run the queue's tasks.",
            lambda queue: sum(worker.about.concurrency for worker in living if queue.name in worker.queues),
        ),
        "celeriac_queue_running": ("Jobs and steps that run.", lambda queue: queue.running),
        "celeriac_queue_paused": ("Whether the queue is paused.", lambda queue: queue.paused_at is not None),
        "celeriac_queue_oldest_waiting_seconds": (
            "Age of the job or step that has waited longest, for any reason.",
            lambda queue: (queue.now - queue.oldest_at) / 1e3,
        ),
    }
    for name, (documentation, value) in gauges.items():
        series: Series = {(queue.name,): float(value(queue)) for queue in reading.queues}
        yield _gauge(name, documentation, ("queue_name",), series)
    held: dict[Labels, float] = {(queue.name, "queue_paused"): queue.held for queue in reading.queues}
    held |= {(queue.name, "concurrency_limited"): queue.limited for queue in reading.queues}
    held |= {(queue.name, "rate_limited"): queue.rated for queue in reading.queues}
    yield _gauge("celeriac_queue_held", "Held jobs and steps.", ("queue_name", "waiting_reason"), held)


def _of_workers(workers: Sequence[WorkerState]) -> Iterator[Metric]:
    up: Series = {(worker.about.name,): float(not worker.is_lost) for worker in workers}
    yield _gauge(
        "celery_worker_up", "Whether the worker is alive; 0 for an hour after its last heartbeat.", ("hostname",), up
    )
    active: Series = {(worker.about.name,): len(worker.active) for worker in workers}
    yield _gauge("celery_worker_tasks_active", "Tasks that the worker is running.", ("hostname",), active)


def _of_rows(waiting: int, oldest_s: float) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "celeriac_rows_waiting", "Jobs and steps that are not written to the result database yet.", value=waiting
    )
    yield GaugeMetricFamily(
        "celeriac_rows_oldest_waiting_seconds", "Age of the row that has waited longest.", value=oldest_s
    )


def _kind(kind: str) -> str:
    return kind if kind in catalogue() else OTHER


def _queue(queue: str) -> str:
    return queue if queue in known_queues() else OTHER


def _merged(rows: Iterable[tuple[Any, ...]]) -> dict[Labels, float]:
    """Sum up the numbers of rows with the same labels."""
    merged: defaultdict[Labels, float] = defaultdict(float)
    for *labels, number in rows:
        merged[tuple(labels)] += number
    return dict(merged)


def _counter(name: str, documentation: str, labels: Sequence[str], series: Series) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=labels)
    for values, number in sorted(series.items()):
        family.add_metric(values, number)
    return family


def _gauge(name: str, documentation: str, labels: Sequence[str], series: Series) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for values, number in sorted(series.items()):
        family.add_metric(values, number)
    return family


def _histogram(name: str, documentation: str, labels: Sequence[str], counts: Series, sums: Series) -> Metric:
    """Return a histogram of `counts`, whose last label is the bucket's bound, not cumulated."""
    family = HistogramMetricFamily(name, documentation, labels=labels)
    bounds = [*(f"{bound:g}" for bound in DURATION_BOUNDS_S), NO_BOUND]
    for values, total in sorted(sums.items()):
        cumulated = itertools.accumulate(counts.get((*values, bound), 0.0) for bound in bounds)
        family.add_metric(values, list(zip(bounds, cumulated, strict=True)), total)
    return family
