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

from tests.services import Server, gateway_server, http_client, wait_for
from tests.workers import ACME, Jobs, crew

pytestmark = pytest.mark.integration


def scraped(gateway: Server, name: str, *labels: str, **having: str) -> Counter[tuple[str, ...]]:
    """Return the samples `name` of one gateway's /metrics with the labels `having`, added up by `labels`."""
    text = http_client.get(f"{gateway.url}/metrics", timeout=30).text
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def env(folder: Path, valkey: Server) -> dict[str, str]:
    return {"CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store"), **ACME}


@pytest.fixture(scope="module")
def gateways(folder: Path, valkey: Server, env: dict[str, str]) -> Iterator[tuple[Server, Server]]:
    """Run two gateways on one ledger, and a worker for two queues."""
    with (
        crew(folder, **env) as workers,
        gateway_server(folder, **env) as first,
        gateway_server(folder, **env) as second,
    ):
        with redis.Redis(port=valkey.port) as client:
            wait_for(lambda: client.pubsub_numpat() > 0, "a subscription to Celery's events")
        workers.start(queues="etl,report", concurrency=2)
        yield first, second


@pytest.fixture(scope="module")
def ran(gateways: tuple[Server, Server], folder: Path) -> Ran:
    """Run jobs that succeed, fail, are retried, cancelled and expire, and a workflow, over two queues."""
    jobs, take, notes = Jobs(gateways[0]), "acme.take_note", {"notebook": str(folder / "notes")}
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


def test_the_sum_over_queues_is_what_was_submitted(gateways: tuple[Server, Server], ran: Ran) -> None:
    """Each gateway shows every task once, by queue, and by the state in which it ended."""
    for gateway in gateways:
        assert scraped(gateway, "celery_task_sent_total", "queue_name") == ran.sent
        assert scraped(gateway, "celery_tasks_processed_total", "task_name", "status") == ran.processed
        assert scraped(gateway, "celeriac_jobs_submitted_total") == Counter({(): ran.sent.total() - 1})


def test_workers_events_are_counted_once_however_many_gateways_there_are(
    gateways: tuple[Server, Server], ran: Ran
) -> None:
    """Successes, failures and retries by host are those of the ledger, not twice as many."""
    succeeded = Counter({(kind,): n for (kind, state), n in ran.processed.items() if state == "succeeded"})
    for gateway in gateways:
        shown = partial(scraped, gateway, "celery_task_succeeded_total", "name")
        wait_for(lambda shown=shown: shown() == succeeded, "all successes")  # type: ignore[misc]
        assert scraped(gateway, "celery_task_succeeded_total", "hostname") == Counter({("w0@test",): 12})
        assert scraped(gateway, "celery_task_failed_total", "name", "exception") == Counter(
            {("acme.take_note", "TaskFailure"): 2}
        )
        assert scraped(gateway, "celery_task_retried_total", "queue_name") == Counter({("report",): 2})
        assert scraped(gateway, "celery_task_runtime_count", "queue_name") == Counter({("etl",): 7, ("report",): 5})


def test_durations_count_every_attempt_that_came_to_an_end(gateways: tuple[Server, Server], ran: Ran) -> None:
    """Twelve tasks that succeeded, two that failed and two retries are sixteen attempts."""
    ended = sum(n for (_, state), n in ran.processed.items() if state in {"succeeded", "failed"})
    assert scraped(gateways[0], "celery_task_duration_seconds_count") == Counter({(): ended + 2})
    assert scraped(gateways[0], "celery_task_duration_seconds_bucket", le="+Inf") == Counter({(): ended + 2})


def test_the_keepers_actions_and_the_states_of_jobs_are_told(gateways: tuple[Server, Server], ran: Ran) -> None:
    """One job expired by the keeper; the retries and nothing else were published by it."""
    kept = scraped(gateways[0], "celeriac_keeper_actions_total", "action")
    assert (kept["expired",], kept["published",]) == (1, 2)
    states = scraped(gateways[0], "celeriac_jobs", "state")
    assert states == Counter({("succeeded",): 11, ("failed",): 2, ("expired",): 1, ("cancelled",): 1})
    assert states.total() == ran.sent.total() - 1


def test_workers_are_up_until_they_end(gateways: tuple[Server, Server], ran: Ran) -> None:
    """The worker that ran the tasks is up."""
    assert ran.sent.total() > 0
    assert scraped(gateways[0], "celery_worker_up", "hostname") == Counter({("w0@test",): 1})


def test_counters_go_on_after_a_restart_of_the_gateway(
    folder: Path, env: dict[str, str], gateways: tuple[Server, Server], ran: Ran
) -> None:
    """A gateway that starts later shows the totals from before it, and adds to them."""
    with gateway_server(folder, **env) as later:
        assert scraped(later, "celery_task_sent_total", "queue_name") == ran.sent
        jobs = Jobs(later)
        jobs.ended(jobs.submit("acme.take_note", {"notebook": str(folder / "notes")}))
        assert scraped(gateways[1], "celery_task_sent_total").total() == ran.sent.total() + 1
        wait_for(lambda: scraped(later, "celery_task_succeeded_total").total() == 13, "the next success")
