"""Brokers that are not the ledger's Redis: messages go through kombu, from the outbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection, Queue

from cli.doctor.servers import of_broker
from shared.broker.settings import BrokerSettings
from shared.ledger.keys import key
from shared.ledger.states import FINAL_STATES, State
from tests.chaos.harness.holding import held, unacked_on
from tests.support.servers.rabbitmq import rabbitmq_server, require_rabbitmq, unacknowledged
from tests.support.servers.services import Server, gateway_server, http_client, valkey_server, wait_for
from tests.support.servers.workers import ACME_ALONE, Crew, Jobs, crew

pytestmark = pytest.mark.integration


@pytest.fixture
def service(valkey: Server, tmp_path: Path) -> Iterator[tuple[Jobs, Crew, Server]]:
    with valkey_server(tmp_path / "broker") as broker:
        env = {
            "CELERIAC_CONTRACTS": "tests.acme.contracts,tests.acme.kept",
            "CELERIAC_TASKS": "tests.acme.tasks,tests.acme.kept_tasks",
            "CELERY_BROKER_URL": broker.redis_url,
            "CELERIAC_LEDGER_URL": valkey.redis_url,
            "CELERIAC_STORE_URL": str(tmp_path / "store"),
        }
        with gateway_server(tmp_path, **env) as gateway, crew(tmp_path, **env) as workers:
            yield Jobs(gateway), workers, broker


def test_jobs_and_chains_run_over_a_broker_of_their_own(service: tuple[Jobs, Crew, Server], tmp_path: Path) -> None:
    """Accept writes the ledger, kombu publishes, the worker claims and finishes as ever; retries come back, too."""
    jobs, workers, _ = service
    workers.start()
    single = jobs.submit("acme.take_note", {"notebook": str(tmp_path / "n"), "behave": "flaky"})
    chain = jobs.submit("acme.note_twice", {"notebook": str(tmp_path / "n"), "copybook": str(tmp_path / "c")})
    assert [jobs.ended(job_id)["state"] for job_id in (single, chain)] == ["succeeded", "succeeded"]
    _pause_and_resume(jobs, tmp_path / "held")
    rated = [jobs.submit("acme.mail_customer", {"customer": "a"}) for _ in range(4)]
    starts = sorted(datetime.fromisoformat(jobs.ended(one)["started_at"]) for one in rated)
    assert min((later - earlier).total_seconds() for earlier, later in pairwise(starts)) >= 0.1


def _pause_and_resume(jobs: Jobs, notebook: Path) -> None:
    """Pause the queue, so that deliveries are held, and resume it: one after another, each job runs once."""
    url = f"{jobs.gateway.url}/queues"
    http_client.post(f"{url}/etl/pause")
    options: dict[str, Any] = {"concurrency_key": "crm", "concurrency_limit": 1}
    ids = [jobs.submit("acme.take_note", {"notebook": str(notebook)}, **options) for _ in range(3)]

    def all_held() -> bool:
        (etl,) = (queue for queue in http_client.get(url).json()["queues"] if queue["name"] == "etl")
        return bool(etl["held"] == etl["depth"] == len(ids))

    wait_for(all_held, "every job held")
    http_client.post(f"{url}/etl/resume")
    assert [jobs.ended(job_id)["state"] for job_id in ids] == ["succeeded"] * 3
    assert sorted(line.split()[0] for line in notebook.read_text().splitlines()) == sorted(ids)


def test_a_worker_holds_no_more_than_it_runs(service: tuple[Jobs, Crew, Server], tmp_path: Path) -> None:
    """Over retries and delays: neither messages nor claims, and its prefetch count stays what it was."""
    jobs, workers, broker = service
    workers.start(concurrency=2)
    with redis.Redis(port=broker.port) as client:
        _run_holding_no_more(jobs, workers, 60, tmp_path, concurrency=2, given_out=unacked_on(client))


def _run_holding_no_more(
    jobs: Jobs, crew: Crew, number: int, folder: Path, *, concurrency: int, given_out: Callable[[], int]
) -> None:
    """Run jobs on the only worker, a third of them with retries, a third delayed, and watch what it holds."""
    broker_url, ledger_url = crew.env["CELERY_BROKER_URL"], crew.env["CELERIAC_LEDGER_URL"]
    notebook = {"notebook": str(folder / "held-no-more")}
    flaky = {"kind": "acme.take_note", "params": notebook | {"behave": "flaky"}}
    delayed = {"kind": "acme.take_note", "params": notebook, "options": {"delay_s": 1}}
    mixed = [flaky, delayed, {"kind": "acme.take_note", "params": notebook}]
    waiting: dict[str, Any] = {"state": [state for state in State if state not in FINAL_STATES], "page_size": 1}
    with held(broker_url, ledger_url, given_out, workers=1) as holding:
        long = jobs.submit("acme.take_note", {"notebook": str(folder / "long"), "lasts_s": 600})
        wait_for(lambda: holding.has_seen_all, "a look at a job that runs")
        jobs.cancel(long)
        jobs.ended(long)
        batch = {"jobs": [mixed[at % 3] for at in range(number)]}
        assert http_client.post(f"{jobs.gateway.url}/jobs/batch", json=batch).status_code == 202
        url = f"{jobs.gateway.url}/jobs"
        wait_for(lambda: http_client.get(url, params=waiting).json()["jobs"] == [], "the end of all", bound_s=300)
    assert holding.beyond(workers=1, concurrency=concurrency) == []
    assert len((folder / "held-no-more").read_text().splitlines()) == sum(
        3 if at % 3 == 0 else 1 for at in range(number)
    )


def test_what_the_gateway_could_not_publish_the_keeper_does(service: tuple[Jobs, Crew, Server], tmp_path: Path) -> None:
    """The message vanished with the broker's memory before it was noted: the outbox still has it."""
    jobs, workers, broker = service
    job_id = jobs.submit("acme.take_note", {"notebook": str(tmp_path / "n")})
    with redis.Redis(port=broker.port) as client, redis.Redis.from_url(workers.env["CELERIAC_LEDGER_URL"]) as ledger:
        client.flushall()
        ledger.zadd(key("outbox"), {job_id: 1})
    workers.start()
    assert jobs.ended(job_id)["state"] == "succeeded"


def test_rabbitmq_runs_jobs_and_chords_and_the_most_urgent_first(valkey: Server, tmp_path: Path) -> None:
    """On a real RabbitMQ: a retry and a chord end well, and of jobs that wait the one with priority 9 runs first."""
    require_rabbitmq()
    with rabbitmq_server(tmp_path / "rabbitmq") as broker_url:
        env = {
            **ACME_ALONE,
            "CELERY_BROKER_URL": broker_url,
            "CELERIAC_LEDGER_URL": valkey.redis_url,
            "CELERIAC_STORE_URL": str(tmp_path / "store"),
        }
        with redis.Redis.from_url(valkey.redis_url) as ledger:
            ledger.flushall()
        _the_doctor_sees(broker_url, valkey.redis_url)
        workers = Crew(tmp_path, env)
        with gateway_server(tmp_path / "gateway", **env) as gateway:
            jobs, urgent = Jobs(gateway), tmp_path / "urgent.txt"
            by_priority = {
                jobs.submit("acme.take_note", {"notebook": str(urgent)}, priority=priority): priority
                for priority in (0, 9, 4, 5)
            }
            flaky = jobs.submit("acme.take_note", {"notebook": str(tmp_path / "n"), "behave": "flaky"}, priority=0)
            chord = jobs.submit(
                "acme.note_many", {"notebook": str(tmp_path / "n"), "binder": str(tmp_path / "b")}, priority=0
            )
            with redis.Redis.from_url(valkey.redis_url) as ledger:
                wait_for(lambda: ledger.zcard(key("outbox")) == 0, "publishing of everything")
            theirs = _sent_by_others(broker_url, tmp_path / "n")
            urls = [f"{gateway.url}/jobs/{job_id.replace('/', '%2F')}" for job_id in theirs]
            assert "cannot be searched" in http_client.get(urls[0]).json()["detail"]
            assert http_client.post(f"{urls[0]}/cancel").json()["state"] == "cancel_noted"
            try:
                workers.start()
                ended = [jobs.ended(job_id)["state"] for job_id in (*by_priority, flaky, chord)]
                wait_for(lambda: {http_client.get(url).status_code for url in urls} == {200}, "both jobs of theirs")
                of_others = [jobs.ended(job_id.replace("/", "%2F"))["state"] for job_id in theirs]
                _pause_and_resume(jobs, tmp_path / "held")
                given_out = partial(unacknowledged, tmp_path / "rabbitmq")
                _run_holding_no_more(jobs, workers, 30, tmp_path, concurrency=1, given_out=given_out)
            finally:
                workers.end()
    assert (ended, of_others) == (["succeeded"] * 6, ["cancelled", "succeeded"])
    assert [by_priority[line.split()[0]] for line in urgent.read_text().splitlines()] == [9, 5, 4, 0]


def _the_doctor_sees(broker_url: str, ledger_url: str) -> None:
    """Say which broker it is; and, of a wrong password, what to do, without the password."""
    (well,) = of_broker(BrokerSettings(broker_url=broker_url, ledger_url=ledger_url), ledger_answers=True)
    assert (well.outcome, well.message.startswith("RabbitMQ ")) == ("ok", True), well
    other = BrokerSettings(broker_url=broker_url.replace("guest@", "hunter2@"), ledger_url=ledger_url)
    (refused,) = of_broker(other, ledger_answers=True)
    assert (refused.outcome, "user and password in CELERY_BROKER_URL" in refused.remedy) == ("fail", True), refused
    assert "hunter2" not in repr(refused)


def _sent_by_others(broker_url: str, notebook: Path) -> list[str]:
    """Send jobs with another Celery application; return their ids."""
    ids = ["their/0", "their/1"]
    with Celery("somebody", broker=broker_url) as app:
        app.conf.task_queues = [Queue("etl", queue_arguments={"x-max-priority": 10})]
        for job_id in ids:
            app.send_task("acme.take_note", kwargs={"notebook": str(notebook)}, task_id=job_id, queue="etl")
    return ids


def test_what_rabbitmq_delivers_and_nobody_can_read_is_a_dead_letter(valkey: Server, tmp_path: Path) -> None:
    """The worker goes on, each message is acknowledged and kept once, and can be put back. Its queues are of quorum."""
    require_rabbitmq()
    with rabbitmq_server(tmp_path / "rabbitmq") as broker_url:
        env = {
            **ACME_ALONE,
            "CELERY_BROKER_URL": broker_url,
            "CELERIAC_LEDGER_URL": valkey.redis_url,
            "CELERIAC_STORE_URL": str(tmp_path / "store"),
            "CELERIAC_QUORUM_QUEUES": "true",
        }
        with redis.Redis.from_url(valkey.redis_url) as ledger:
            ledger.flushall()
        with gateway_server(tmp_path / "gateway", **env) as gateway, ExitStack() as stack:
            jobs, workers = Jobs(gateway), Crew(tmp_path, env)
            stack.callback(workers.end)
            worker = workers.start()
            _publish_poison(broker_url)
            letters = wait_for(lambda: _letters(gateway, len(RABBIT_POISON)), "all of them kept")
            note: dict[str, Any] = {"notebook": str(tmp_path / "n")}
            assert jobs.ended(jobs.submit("acme.take_note", note))["state"] == "succeeded"
            first = letters[-1]["id"]
            assert http_client.post(f"{gateway.url}/dead-letters/{first}/requeue").status_code == 204
            again = wait_for(lambda: _letters(gateway, len(RABBIT_POISON)), "the one put back")
            assert first not in {letter["id"] for letter in again}
            assert {letter["queue"] for letter in again} == {"etl"}
            assert worker.process.poll() is None
            with Connection(broker_url) as connection:
                channel: Any = connection.default_channel
                wait_for(lambda: channel.queue_declare("etl", passive=True).message_count == 0, "an empty queue")
                channel.queue_declare("etl", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
            chord = {"notebook": str(tmp_path / "n"), "binder": str(tmp_path / "b")}
            for kind, params in (("acme.take_note", {**note, "behave": "flaky"}), ("acme.note_many", chord)):
                assert jobs.ended(jobs.submit(kind, params))["state"] == "succeeded"
            _pause_and_resume(jobs, tmp_path / "held")


_TASK = {"id": "1", "task": "acme.take_note"}
RABBIT_POISON: list[tuple[bytes, dict[str, Any]]] = [
    (b"", {"headers": _TASK}),
    (b"7", {"headers": _TASK}),
    (b"notjson", {"headers": _TASK}),
    (b"\xff\xfe", {"headers": _TASK}),
    (b"[" * 100_000, {"headers": _TASK}),
    (b"[[], {}, {}]", {"headers": {**_TASK, "id": {"a": 1}}}),
    (b"[[], {}, {}]", {"headers": {**_TASK, "timelimit": ["a", 1]}}),
    (b"[[], {}, {}]", {"headers": {**_TASK, "compression": "application/x-none"}}),
    (b"[[], {}, {}]", {"headers": _TASK, "content_type": "application/x-python-serialize"}),
    (b'{"a": 1}', {}),
]


def _publish_poison(broker_url: str) -> None:
    with Connection(broker_url) as connection:
        producer = connection.Producer()
        for body, how in RABBIT_POISON:
            options = {"content_type": "application/json", "content_encoding": "utf-8", **how}
            producer.publish(body, exchange="", routing_key="etl", **options)


def _letters(gateway: Server, count: int) -> list[dict[str, Any]] | None:
    """Return the dead letters as soon as there is this number of them."""
    found: list[dict[str, Any]] = http_client.get(f"{gateway.url}/dead-letters").json()["dead_letters"]
    return found if len(found) == count else None
