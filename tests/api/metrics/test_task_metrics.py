"""Counting without gateways and workers: labels that stay few, one consumer at a time, a ledger that is away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from celery import Celery
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.metrics import election, event_tally
from api.metrics import endpoint as metrics
from api.metrics.election import consuming
from api.metrics.event_tally import EventTally, exception_class
from api.metrics.task_events import EventConsumer
from api.metrics.task_metrics import TaskMetrics
from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.contract.catalogue import catalogue
from shared.ledger.client import Ledger
from shared.ledger.counters import bucket
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.operations import AboutWorker, Presence
from tests.support.ledgers import ERROR, RESULT, accept, claimed, client, entry, ledger
from tests.support.servers.services import BOUND_S, Server, free_port, valkey_server, wait_for

__all__ = ["accept", "client", "ledger"]  # fixtures

KIND = "etl.extract_data"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one for these tests: elsewhere, a gateway may be the one that counts."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def app(broker: BrokerSettings) -> Celery:
    return make_celery(broker)


@pytest.fixture
def registry(client: redis.Redis) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(TaskMetrics(client))
    return made


def event(what: str, host: str = "w1@host", **more: Any) -> dict[str, Any]:
    return {"type": what, "hostname": host, **more}


@contextmanager
def consumer(app: Celery, client: redis.Redis) -> Iterator[threading.Thread]:
    """Read events in a thread, elected."""
    client.set(key("event_consumer"), "this", px=60_000)
    made = EventConsumer(app, client, owner="this", kinds=catalogue())
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield thread
    finally:
        made.stop()
        thread.join()


def subscribed(client: redis.Redis) -> None:
    wait_for(lambda: client.pubsub_numpat() > 0, "a subscription")


def succeed(app: Celery, host: str, count: int) -> None:
    with app.connection_for_write() as connection, app.events.Dispatcher(connection, hostname=host) as dispatcher:
        for _ in range(count):
            dispatcher.send("task-succeeded", uuid=uuid7(), runtime=0.2)


def test_the_ledgers_metrics_follow_a_job_to_its_end(
    accept: Callable[..., Any], ledger: Ledger, registry: CollectorRegistry
) -> None:
    """One job that is retried, then succeeds, is sent and processed once, and has run twice."""
    job = entry(kind=KIND)
    accept(job)
    assert registry.get_sample_value("celeriac_jobs", {"state": "queued"}) == 1
    ledger.retry(job.id, token=claimed(ledger, job.id).token, delay_s=0, error=ERROR)
    ledger.tend(owner="keeper")
    ledger.succeed(job.id, token=claimed(ledger, job.id).token, result=RESULT)
    of_kind = {"task_name": KIND}
    sent = {"name": KIND, "hostname": "generic", "queue_name": "etl"}
    assert registry.get_sample_value("celery_task_sent_total", sent) == 1
    assert registry.get_sample_value("celery_tasks_processed_total", {**of_kind, "status": "succeeded"}) == 1
    assert registry.get_sample_value("celery_tasks_processed_total", {**of_kind, "status": "failed"}) == 0
    assert registry.get_sample_value("celery_task_duration_seconds_count", of_kind) == 2
    assert registry.get_sample_value("celeriac_keeper_actions_total", {"action": "published"}) == 1


def test_queues_and_workers_are_those_that_the_operator_sees(
    accept: Callable[..., Any], ledger: Ledger, client: redis.Redis, registry: CollectorRegistry
) -> None:
    """Depth, age, consumers, processes and the tasks of a worker are read from the ledger, for known queues."""
    about = AboutWorker(
        name="w1@host",
        host="host",
        pid=1,
        families=("etl",),
        concurrency=3,
        started_at=0,
        versions={},
        is_stopping=False,
    )
    running, waiting = entry(kind=KIND), entry(kind=KIND)
    accept(running)
    claimed(ledger, running.id)
    accept(waiting)
    client.zincrby(key("backlog", "etl"), -5_000, waiting.id)  # it has waited for 5 s more
    Presence(ledger, owner="w1", lease_s=60).heartbeat(about, queues=["etl"], jobs=[running.id])
    ledger.call("pause", {"queue": "ml"})
    etl = {"queue_name": "etl"}
    assert registry.get_sample_value("celery_queue_length", etl) == 1
    assert 5 <= (registry.get_sample_value("celeriac_queue_oldest_waiting_seconds", etl) or 0) < 60
    assert registry.get_sample_value("celeriac_queue_running", etl) == 1
    assert registry.get_sample_value("celery_active_consumer_count", etl) == 1
    assert registry.get_sample_value("celery_active_process_count", etl) == 3
    assert registry.get_sample_value("celery_active_worker_count", {"queue_name": "ml"}) == 0
    assert registry.get_sample_value("celeriac_queue_paused", {"queue_name": "ml"}) == 1
    assert registry.get_sample_value("celery_worker_up", {"hostname": "w1@host"}) == 1
    assert registry.get_sample_value("celery_worker_tasks_active", {"hostname": "w1@host"}) == 1


@pytest.mark.parametrize("lasted_s", [11, 61, 1_000, 20_000])
def test_a_duration_is_counted_in_its_bucket(
    accept: Callable[..., Any], ledger: Ledger, client: redis.Redis, lasted_s: float
) -> None:
    """The ledger's script and this process agree on the buckets."""
    job = entry(kind=KIND)
    accept(job)
    token = claimed(ledger, job.id).token
    record_key = key("job", job.id)
    attempts = json.loads(str(client.hget(record_key, "attempts")))
    attempts[0]["started_at_ms"] -= int(lasted_s * 1000)
    client.hset(record_key, "attempts", json.dumps(attempts))
    ledger.succeed(job.id, token=token, result=RESULT)
    counted = client.hgetall(key("counters"))
    assert counted[f"ran|{KIND}|{bucket(lasted_s)}"] == "1"
    assert lasted_s * 1000 <= int(counted[f"ran_ms|{KIND}"]) < lasted_s * 1000 + 10_000


def test_values_of_labels_stay_few(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown kinds, queues, classes of exceptions and hosts beyond the bound become `other`."""
    monkeypatch.setattr(event_tally, "MAX_HOSTS", 1)
    tally = EventTally(client, kinds=catalogue())
    job_id, foreign = uuid7(), uuid7()
    client.hset(key("job", job_id), mapping={"kind": KIND, "queue": "etl"})
    tally.take(event("task-started", uuid=job_id))
    tally.take(event("task-failed", uuid=job_id, exception="TaskFailure('bad', 'It |broke|')"))
    tally.take(event("task-failed", "w2@host", uuid=foreign, exception=f"{'X' * 40}()"))
    tally.take(event("task-received", uuid=foreign, name="somebody.elses"))
    batch = tally.batch()
    assert batch.additions == {
        f"started|w1@host|{KIND}|etl": 1,
        f"failed|TaskFailure|w1@host|{KIND}|etl": 1,
        "failed|other|other|other|other": 1,
        "received|w1@host|other|other": 1,
    }
    assert list(batch.seen_ms) == ["w1@host"]


def test_an_exception_is_named_by_its_class_alone() -> None:
    """Only classes that Python, Celery and the service have become label values."""
    assert exception_class("ZeroDivisionError('division by zero')") == "ZeroDivisionError"
    assert exception_class("shared.errors.TransientFailure('x')") == "TransientFailure"
    assert exception_class("<anything at all>") == "other"


def test_a_worker_that_was_not_heard_of_for_long_is_forgotten(client: redis.Redis) -> None:
    """Its counters go with it, so that each new container does not add series for ever."""
    client.hset(key("event_hosts"), "old@host", 1)
    client.hset(key("event_counters"), mapping={"started|old@host|etl.x|etl": 1, "started|w1@host|etl.x|etl": 1})
    tally = EventTally(client, kinds=catalogue())
    tally.restart()
    tally.take(event("worker-heartbeat"))
    batch = tally.batch()
    assert (batch.gone_hosts, batch.gone_fields) == (["old@host"], ["started|old@host|etl.x|etl"])
    assert list(batch.seen_ms) == ["w1@host"]


@dataclass
class Gateways:
    """Stand for election like gateways, in an event loop of their own, each until it is closed."""

    settings: BrokerSettings
    loop: asyncio.AbstractEventLoop

    @contextmanager
    def one(self) -> Iterator[None]:
        stack = AsyncExitStack()
        self._await(self._enter(stack))
        try:
            yield
        finally:
            self._await(stack.aclose())

    async def _enter(self, stack: AsyncExitStack) -> None:
        ledger = await stack.enter_async_context(redis.asyncio.Redis.from_url(self.settings.ledger_url))
        await stack.enter_async_context(consuming(self.settings, ledger))

    def _await(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self.loop).result(BOUND_S)


@pytest.fixture
def gateways(broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateways]:
    monkeypatch.setattr(election, "_EVERY_S", 0.05)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield Gateways(broker, loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def readers() -> list[int]:
    """Return the processes that read events for this one."""
    children = [
        int(pid) for thread in Path("/proc/self/task").iterdir() for pid in (thread / "children").read_text().split()
    ]
    return [pid for pid in children if b"api.metrics.task_events" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_two_gateways_count_an_event_once_and_one_takes_over(
    app: Celery, client: redis.Redis, gateways: Gateways
) -> None:
    """Only the elected one's process reads; when it ends the other goes on where it stopped."""
    field = "succeeded|w1@host|other|other"
    with ExitStack() as rest, ExitStack() as elected:
        elected.enter_context(gateways.one())
        subscribed(client)
        rest.enter_context(gateways.one())
        succeed(app, "w1@host", 5)
        wait_for(lambda: client.hget(key("event_counters"), field) == "5", "the first five")
        assert client.pubsub_numpat() == 1
        elected.close()
        subscribed(client)
        succeed(app, "w1@host", 2)
        wait_for(lambda: client.hget(key("event_counters"), field) == "7", "two more")
    assert (client.pubsub_numpat(), client.get(key("event_consumer"))) == (0, None)


def test_a_reader_that_was_killed_is_started_again(app: Celery, client: redis.Redis, gateways: Gateways) -> None:
    """Its lock ends by itself, and the gateway is elected again."""
    with gateways.one():
        subscribed(client)
        (reader,) = readers()
        os.kill(reader, signal.SIGKILL)
        wait_for(lambda: client.pubsub_numpat() == 0, "its end")
        subscribed(client)
        succeed(app, "w1@host", 1)
        wait_for(lambda: client.hgetall(key("event_counters")), "its event")


def test_who_lost_the_election_writes_nothing(app: Celery, client: redis.Redis) -> None:
    """A reader that was frozen while another was elected drops what it has read, and ends."""
    with consumer(app, client) as reading:
        subscribed(client)
        client.set(key("event_consumer"), "another", px=60_000)
        succeed(app, "w1@host", 3)
        reading.join(BOUND_S)
        assert not reading.is_alive()
        assert (client.get(key("event_consumer")), client.hgetall(key("event_counters"))) == ("another", {})


def test_without_the_ledger_a_scrape_still_answers() -> None:
    """It shows the gateway's own metrics, that the ledger is not up, and nothing of tasks."""
    registry = metrics.install(FastAPI(redirect_slashes=False))
    registry.register(TaskMetrics(redis.Redis(port=free_port(), retry=Retry(NoBackoff(), 0))))
    assert registry.get_sample_value("celeriac_ledger_up") == 0
    names = {family.name for family in registry.collect()}
    assert {"process_cpu_seconds", "http_requests", "celeriac_ledger_up"} <= names
    assert [name for name in names if name.startswith("celery")] == []
