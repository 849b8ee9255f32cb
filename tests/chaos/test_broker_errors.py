"""The broker breaks its connections, or answers with errors, while workers run jobs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis

from shared.ledger.keys import key
from tests.support.servers.outages import RestartableValkey, restartable_valkey
from tests.support.servers.services import gateway_server, wait_for
from tests.support.servers.workers import ACME_ALONE, Crew, Jobs, Worker, crew

pytestmark = pytest.mark.chaos


def _has_lost_its_connection(worker: Worker) -> bool:
    return "Connection to broker lost" in worker.log.read_text()


def _says_that_it_works_again(worker: Worker) -> bool:
    return "works again, after" in worker.log.read_text()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_busy_worker_outlives_a_restart_of_the_broker(
    service: tuple[RestartableValkey, Jobs, Crew], tmp_path: Path, end: str
) -> None:
    """The job that runs meanwhile ends in its first attempt, and the worker takes the next one."""
    valkey, jobs, workers = service
    worker = workers.start(concurrency=2, talks=True)
    notebook = tmp_path / "notes.txt"
    running = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 6})
    jobs.in_state(running, "running")
    getattr(valkey, end)()
    valkey.start()
    job = jobs.ended(running)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert jobs.ended(jobs.submit("acme.take_note", {"notebook": str(notebook)}))["state"] == "succeeded"
    assert worker.process.poll() is None


def test_workers_outlive_a_broker_without_memory(service: tuple[RestartableValkey, Jobs, Crew], tmp_path: Path) -> None:
    """They take messages and cannot note that they did; afterwards the same workers go on, and nothing is lost."""
    valkey, jobs, workers = service
    notebook = tmp_path / "notes.txt"
    crew_of_two = [workers.start(concurrency=2, talks=True) for _ in range(2)]
    for worker in crew_of_two:
        worker.process.send_signal(signal.SIGSTOP)
    waiting = [jobs.submit("acme.take_note", {"notebook": str(notebook)}) for _ in range(16)]
    with redis.Redis.from_url(valkey.redis_url, decode_responses=True) as client:
        client.config_set("maxmemory", 1)
        for worker in crew_of_two:
            worker.process.send_signal(signal.SIGCONT)
        for worker in crew_of_two:
            wait_for(partial(_has_lost_its_connection, worker), "an error reply")
        full_until = time.monotonic() + 4
        wait_for(lambda: time.monotonic() > full_until, "several attempts of the workers")
        client.config_set("maxmemory", 0)
    wait_for(jobs.has_room, "the gateway's next look at the ledger's memory")
    more = [jobs.submit("acme.take_note", {"notebook": str(notebook)}) for _ in range(4)]
    assert {jobs.ended(job_id)["state"] for job_id in (*waiting, *more)} == {"succeeded"}
    assert [worker.process.poll() for worker in crew_of_two] == [None, None]
    for worker in crew_of_two:
        said = worker.log.read_text()
        assert said.count("Connection to broker lost") <= 2, said  # one line a sort of failure, whatever the attempts
        assert "Frequent restarts" not in said
        wait_for(partial(_says_that_it_works_again, worker), "a word on the end of the outage")


@contextmanager
def _without_memory(valkey: RestartableValkey) -> Iterator[None]:
    with redis.Redis.from_url(valkey.redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


@pytest.mark.parametrize("full", [_without_memory, RestartableValkey.refusing_writes], ids=["memory", "disk"])
def test_what_ended_while_the_ledger_was_full_has_ended(
    tmp_path: Path, full: Callable[[RestartableValkey], AbstractContextManager[None]]
) -> None:
    """Its outcome is written as soon as there is room, for longer than a lease; the job does not run again."""
    with restartable_valkey(tmp_path / "valkey") as valkey:
        env = {**ACME_ALONE, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "store")}
        env["CELERIAC_LEASE_S"] = "2"
        with gateway_server(tmp_path, **env) as gateway, crew(tmp_path, **env) as workers:
            jobs, notebook = Jobs(gateway), tmp_path / "notes.txt"
            workers.start()
            job_id = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 3, "behave": "quiet"})
            jobs.in_state(job_id, "running")
            with redis.Redis.from_url(valkey.redis_url) as client:
                wait_for(lambda: client.exists(key("tended_at")), "a round of the keeper")
            with full(valkey):
                wait_for(lambda: "ended while nobody could hear" in notebook.read_text(), "the end of the body")
                full_until = time.monotonic() + 5
                wait_for(lambda: time.monotonic() > full_until, "more than two leases")
            job = jobs.ended(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
