"""Task metrics over real workers and several gateways: what they count is what was submitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers.services import BOUND_S, Server, gateway_server, http_client, valkey_server, wait_for
from tests.support.servers.workers import ACME_ALONE, Jobs, crew

pytestmark = pytest.mark.integration


def scraped(gateway: Server, name: str, *labels: str, **having: str) -> Counter[tuple[str, ...]]:
    """Return the samples `name` of one gateway's /metrics with the labels `having`, added up by `labels`."""
    text = http_client.get(f"{gateway.url}/metrics").text
    found: Counter[tuple[str, ...]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and having.items() <= sample.labels.items():
                found[tuple(sample.labels[label] for label in labels)] += int(sample.value)
    return +found


@dataclass(frozen=True)
class Ran:
    """What was submitted, and how it is to have ended."""

    sent: Counter[tuple[str, ...]]  # by queue
    processed: Counter[tuple[str, ...]]  # by kind and state


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one for these tests: elsewhere, another gateway may be the one that counts."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def env(folder: Path, valkey: Server) -> dict[str, str]:
    return {
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_TASK_EVENTS": "true",
        **ACME_ALONE,
    }


def consuming(valkey: Server, *, beside: int) -> None:
    """Wait until a gateway reads Celery's events, `beside` workers that read commands: events before that are lost."""
    with redis.Redis(port=valkey.port) as client:
        wait_for(lambda: client.pubsub_numpat() == beside + 1, "a subscription to Celery's events")


@pytest.fixture(scope="module")
def gateway(folder: Path, valkey: Server, env: dict[str, str]) -> Iterator[Server]:
    """Run a gateway, and a worker for two queues."""
    with crew(folder, **env) as workers, gateway_server(folder, **env) as server:
        consuming(valkey, beside=0)
        workers.start(queues="etl,report", concurrency=2)
        yield server


@pytest.fixture(scope="module")
def ran(gateway: Server, folder: Path) -> Ran:
    """Run jobs that succeed, fail, are retried, cancelled and expire, and a workflow, over two queues."""
    jobs, take, notes = Jobs(gateway), "acme.take_note", {"notebook": str(folder / "notes")}
    ids = [jobs.submit(take, notes) for _ in range(6)]
    ids += [jobs.submit(take, notes, queue="report") for _ in range(3)]
    ids += [jobs.submit(take, notes | {"behave": "badly"}) for _ in range(2)]
    ids += [jobs.submit(take, notes | {"behave": "flaky"}, queue="report")]
    ids += [jobs.submit("acme.note_twice", notes | {"copybook": str(folder / "copies")})]
    expired = jobs.submit(take, notes, queue="ml", expires_in_s=0.2)
    cancelled = jobs.submit(take, notes, delay_s=600)
    assert jobs.cancel(cancelled) == 200
    for job_id in [*ids, expired, cancelled]:
        jobs.ended(job_id)
    return Ran(
        sent=Counter({("etl",): 6 + 2 + 1 + 1, ("report",): 3 + 1 + 1, ("ml",): 1}),
        processed=Counter(
            {
                (take, "succeeded"): 6 + 3 + 1 + 1,
                (take, "failed"): 2,
                (take, "expired"): 1,
                (take, "cancelled"): 1,
                ("acme.copy_note", "succeeded"): 1,
            }
        ),
    )


def test_the_sum_over_queues_is_what_was_submitted(gateway: Server, ran: Ran) -> None:
    """Every task is shown once, by queue, and by the state in which it ended."""
    assert scraped(gateway, "celery_task_sent_total", "queue_name") == ran.sent
    assert scraped(gateway, "celery_tasks_processed_total", "task_name", "status") == ran.processed
    assert scraped(gateway, "celeriac_jobs_submitted_total") == Counter({(): ran.sent.total() - 1})


def test_workers_events_are_counted_by_host(gateway: Server, ran: Ran) -> None:
    """Successes, failures and retries are those of the ledger, where no event was lost."""
    succeeded = Counter({(kind,): n for (kind, state), n in ran.processed.items() if state == "succeeded"})
    wait_for(lambda: scraped(gateway, "celery_task_succeeded_total", "name") == succeeded, "all successes")
    assert scraped(gateway, "celery_task_succeeded_total", "hostname") == Counter({("w0@test",): 12})
    assert scraped(gateway, "celery_task_failed_total", "name", "exception") == Counter(
        {("acme.take_note", "TaskFailure"): 2}
    )
    assert scraped(gateway, "celery_task_retried_total", "queue_name") == Counter({("report",): 2})
    assert scraped(gateway, "celery_task_runtime_count", "queue_name") == Counter({("etl",): 7, ("report",): 5})


def test_durations_count_every_attempt_that_came_to_an_end(gateway: Server, ran: Ran) -> None:
    """Twelve tasks that succeeded, two that failed and two retries are sixteen attempts."""
    ended = sum(n for (_, state), n in ran.processed.items() if state in {"succeeded", "failed"})
    assert scraped(gateway, "celery_task_duration_seconds_count") == Counter({(): ended + 2})
    assert scraped(gateway, "celery_task_duration_seconds_bucket", le="+Inf") == Counter({(): ended + 2})


def test_keeper_states_queues_and_workers_are_told(gateway: Server, ran: Ran) -> None:
    """One job expired by the keeper, which published the retries; nothing waits, and one worker has two processes."""
    kept = scraped(gateway, "celeriac_keeper_actions_total", "action")
    assert (kept["expired",], kept["published",]) == (1, 2)
    states = scraped(gateway, "celeriac_jobs", "state")
    assert states == Counter({("succeeded",): 11, ("failed",): 2, ("expired",): 1, ("cancelled",): 1})
    assert states.total() == ran.sent.total() - 1
    assert scraped(gateway, "celery_queue_length").total() == 0
    processes = scraped(gateway, "celery_active_process_count", "queue_name")
    assert processes == Counter({("etl",): 2, ("report",): 2})
    assert scraped(gateway, "celery_worker_up", "hostname") == Counter({("w0@test",): 1})


def test_a_second_gateway_counts_nothing_twice_and_goes_on_without_the_first(
    folder: Path, env: dict[str, str], valkey: Server, gateway: Server, ran: Ran
) -> None:
    """It shows the totals from before it; both show what comes then, once; and one left alone counts on."""
    note = {"notebook": str(folder / "notes")}
    with gateway_server(folder, **env) as second:
        assert scraped(second, "celery_task_sent_total", "queue_name") == ran.sent
        jobs = Jobs(second)
        for job_id in [jobs.submit("acme.take_note", note) for _ in range(3)]:
            jobs.ended(job_id)
        for each in (gateway, second):
            told = partial(scraped, each, "celery_task_succeeded_total")
            wait_for(lambda told=told: told().total() == 12 + 3, "three more")  # type: ignore[misc]
        gateway.process.terminate()
        gateway.process.wait(BOUND_S)
        consuming(valkey, beside=1)
        jobs.ended(jobs.submit("acme.take_note", note))
        wait_for(lambda: scraped(second, "celery_task_succeeded_total").total() == 16, "the next success")
        assert scraped(second, "celery_task_sent_total").total() == ran.sent.total() + 4
