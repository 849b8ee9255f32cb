"""The gateway, the workers and their queues: running, of one version, with the same kinds and clocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import redis

from celeriac.client import Answer, Client, ClientFailure, Refused, Retries
from cli.doctor.clocks import of_clock
from cli.doctor.findings import Finding, fail, ok, said, warn
from cli.doctor.servers import TIMEOUT_S
from shared import __version__
from shared.broker.settings import BrokerSettings
from shared.contract.catalogue import catalogue
from shared.contract.definition import known_queues
from shared.ledger.client import Ledger
from shared.ledger.keys import Keys
from shared.ledger.operations import QueueState, WorkerState, queues_of, workers_of
from shared.ledger.server import bounded
from shared.workflows.definition import is_only_planned

_ONCE = Retries(for_s=0, connect_for_s=0)
_DATE_UNCERTAIN_S = 1.0  # the header has whole seconds
_NAMED = 5  # kinds in a line; of more, how many


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the gateway says."""

    findings: Sequence[Finding]
    workers: frozenset[str] | None = None  # names of those that it knows; None: it does not answer
    kinds: Mapping[str, str] = field(default_factory=dict)  # that workers run, with their queues


def of_gateway(url: str) -> Gateway:
    """Ask the gateway for its readiness, its version, its clock and its kinds."""
    try:
        with Client(url, retries=_ONCE) as client:
            found = [_readiness(client)]
            begun = time.time()
            answer = client.call("GET", "/job-kinds")
            found += _clock(answer, begun, time.time())
            kinds = {each["kind"]: each["queue"] for each in answer.document["kinds"] if not each["is_workflow"]}
            found += _version(client)
            workers = frozenset(each["name"] for each in client.call("GET", "/workers").document["workers"])
    except ClientFailure as failure:
        remedy = "Start it (`celeriac up` starts everything on this machine), or fix CELERIAC_URL."
        return Gateway([fail("gateway", str(failure), remedy)])
    return Gateway(found, workers, kinds)


def of_workers(settings: BrokerSettings, gateway: Gateway) -> Iterator[Finding]:
    """Yield what the ledger knows of workers, queues and kinds."""
    queues = sorted({*known_queues(), *gateway.kinds.values()})
    with redis.Redis.from_url(settings.ledger_url, **bounded(TIMEOUT_S)) as client:
        ledger = Ledger(client, keys=Keys(settings.prefix))
        try:
            workers, states = workers_of(ledger), queues_of(ledger, queues)
        except redis.RedisError as failure:
            yield fail("workers", f"The ledger does not list them: {said(failure)}.", "See the line of the ledger.")
            return
    if gateway.workers is not None and gateway.workers != {worker.about.name for worker in workers}:
        yield fail(
            "gateway",
            "It knows other workers than the ledger that is looked at here, so it has another one.",
            "Give this command CELERY_BROKER_URL, CELERIAC_LEDGER_URL and CELERIAC_PREFIX of the gateway.",
        )
    if not any(not worker.is_lost for worker in workers):
        remedy = "Start them: WORKER_FAMILIES=etl celery -A worker.app worker; `celeriac up` starts one a family."
        yield fail("workers", "None is running, so no job is.", remedy)
    for worker in workers:
        yield from _of_worker(worker)
    for state in states:
        yield _of_queue(state)
    yield from _of_kinds(gateway, workers)


def _readiness(client: Client) -> Finding:
    try:
        client.call("GET", "/readyz")
    except Refused as refused:
        return fail("gateway", f"{client.url} is not ready: {refused}", "See the lines of ledger and broker.")
    return ok("gateway", f"{client.url} accepts jobs")


def _version(client: Client) -> Iterator[Finding]:
    version = client.call("GET", "/openapi.json").document["info"]["version"]
    yield _of_version("The gateway", version) or ok("versions", f"gateway {version}, as this command")


def _of_version(name: str, version: str) -> Finding | None:
    if version == __version__:
        return None
    return warn(
        "versions", f"{name} has version {version}, and this command {__version__}.", "Deploy the same everywhere."
    )


def _clock(answer: Answer, asked_at: float, answered_at: float) -> Iterator[Finding]:
    try:
        time_there = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):  # a proxy may leave it out
        return
    yield of_clock("clock", "the gateway", time_there - asked_at, answered_at - asked_at + _DATE_UNCERTAIN_S)


def _of_worker(worker: WorkerState) -> Iterator[Finding]:
    about = worker.about
    check = f"worker {about.name}"
    if worker.is_lost:
        seen = datetime.fromtimestamp(worker.seen_at / 1000, UTC)
        yield warn(
            check,
            f"No heartbeat since {seen:%Y-%m-%d %H:%M:%S} UTC: it was killed, hangs, or does not reach the ledger.",
            "Start it again. A lost worker is listed for an hour.",
        )
        return
    stopping = ", is stopping" if about.is_stopping else ""
    yield ok(check, f"{about.concurrency} processes, queues {' '.join(worker.queues) or 'none'}{stopping}")
    if wrong := _of_version(about.name, about.versions["celeriac"]):
        yield wrong
    if worker.ahead_s is not None:
        clock = of_clock("clock", f"{about.name}, beside the ledger's,", worker.ahead_s, TIMEOUT_S)
        if clock.remedy:
            yield clock


def _of_queue(state: QueueState) -> Finding:
    check, waits = f"queue {state.name}", f"{state.depth:,} waiting, {state.running:,} running"
    if state.paused_at is not None:
        return warn(check, f"It is paused; {waits}.", f"Resume it: celeriac queues resume {state.name}")
    if state.consumers:
        return ok(check, f"{state.consumers} {'worker' if state.consumers == 1 else 'workers'}, {waits}")
    remedy = f"Start one, with the family of its kinds or with -Q {state.name}."
    if state.depth:
        return fail(check, f"No worker takes its jobs; {waits}.", remedy)
    return warn(check, "No worker takes its jobs; none waits.", remedy)


def _of_kinds(gateway: Gateway, workers: Sequence[WorkerState]) -> Iterator[Finding]:
    """Yield the kinds that no worker runs though one takes the jobs of their queue."""
    live = [worker for worker in workers if not worker.is_lost]
    if not live or any(worker.kinds is None for worker in live):  # one of an earlier version does not say
        return
    kinds = gateway.kinds or {
        kind: contract.spec.queue for kind, contract in catalogue().items() if not is_only_planned(contract)
    }
    consumed = {queue for worker in live for queue in worker.queues}
    run = {kind for worker in live for kind in worker.kinds or ()}
    lacking = sorted(kind for kind, queue in kinds.items() if queue in consumed and kind not in run)
    if lacking:
        named = ", ".join(lacking[:_NAMED]) + (f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else "")
        yield warn(
            "kinds",
            f"No worker of their queues runs {named}: contracts of gateway and workers differ.",
            "Deploy workers with these kinds: CELERIAC_CONTRACTS, CELERIAC_TASKS, WORKER_FAMILIES.",
        )
    else:
        yield ok("kinds", "workers run every kind of the queues that they consume")
