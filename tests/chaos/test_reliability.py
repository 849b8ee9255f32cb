"""What the service promises when workers are killed, messages get lost and brokers redeliver."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from shared.ledger.keys import key
from tests.support.servers.cpu_waits import cpu_wait_s
from tests.support.servers.services import Server, gateway_server, wait_for
from tests.support.servers.workers import ACME_ALONE, Crew, Jobs, crew

pytestmark = pytest.mark.chaos

LEASE_S = 4
ETL_LIST = "etl\x06\x165"  # kombu's list of the default priority


@pytest.fixture(scope="module")
def env(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store = tmp_path_factory.mktemp("store")
    return {
        **ACME_ALONE,
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(store),
        "CELERIAC_LEASE_S": str(LEASE_S),
        "CELERIAC_LOST_MESSAGE_GRACE_S": "2",
        "CELERIAC_VISIBILITY_TIMEOUT_S": "5",
        "CELERIAC_SOFT_SHUTDOWN_S": "2",
    }


@pytest.fixture(scope="module")
def jobs(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with gateway_server(tmp_path_factory.mktemp("gateway"), **env) as gateway:
        yield Jobs(gateway)


@pytest.fixture
def workers(empty_valkey: Server, env: dict[str, str], tmp_path: Path) -> Iterator[Crew]:
    env = {**env, "CELERY_BROKER_URL": empty_valkey.redis_url}
    with crew(tmp_path / "workers", **env) as made:
        yield made


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return tmp_path / "notes.txt"


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False


def lines(notebook: Path) -> list[str]:
    return notebook.read_text().splitlines() if notebook.exists() else []


def test_a_killed_workers_job_is_finished_by_another_once(jobs: Jobs, workers: Crew, notebook: Path) -> None:
    """Kill -9 of parent and child mid-job: its children die with it, and another worker runs the job to its end."""
    doomed = workers.start()
    job_id = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 4})
    jobs.in_state(job_id, "running")
    wait_for(lambda: lines(notebook), "first line")
    children = doomed.children
    doomed.kill()
    wait_for(lambda: not any(alive(pid) for pid in children), "death of the children")
    workers.start()
    job = jobs.ended(job_id)
    assert (job["state"], [attempt["outcome"] for attempt in job["attempts"]]) == ("succeeded", ["lost", "succeeded"])
    assert [line.split()[1] for line in lines(notebook)] == ["1", "2"]


def test_a_killed_workers_job_overtakes_the_backlog(
    jobs: Jobs, workers: Crew, notebook: Path, client: redis.Redis
) -> None:
    """Before 300 others, which take longer than the bound: it starts again within a lease and 10 s of the kill."""
    doomed = workers.start()
    job_id = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 60})
    jobs.in_state(job_id, "running")
    backlog = str(notebook.with_name("backlog.txt"))
    for _ in range(300):
        jobs.submit("acme.take_note", {"notebook": backlog, "lasts_s": 0.3})
    other = workers.start()
    killed_at, waited_s = datetime.now(UTC), cpu_wait_s(other.process.pid)
    doomed.kill()
    job = wait_for(lambda: found if (found := jobs.get(job_id))["attempt"] == 2 else None, "second start")
    waited_s = cpu_wait_s(other.process.pid) - waited_s
    again_at = datetime.fromisoformat(job["attempts"][1]["started_at"])
    assert (again_at - killed_at).total_seconds() - waited_s < LEASE_S + 10
    assert client.llen(ETL_LIST) > 100


def test_a_killed_childs_job_is_run_again_at_once(jobs: Jobs, workers: Crew, notebook: Path) -> None:
    """Only the child dies: its main process gives the job back without waiting for the lease."""
    worker = workers.start()
    job_id = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 2})
    first = wait_for(lambda: lines(notebook), "first line")[0]
    os.kill(int(first.split()[2]), signal.SIGKILL)
    job = jobs.ended(job_id)
    assert (job["state"], [attempt["outcome"] for attempt in job["attempts"]]) == ("succeeded", ["lost", "succeeded"])
    assert worker.process.poll() is None


def test_a_message_lost_between_list_and_worker_is_published_again(
    jobs: Jobs, workers: Crew, notebook: Path, client: redis.Redis
) -> None:
    """The message is gone from every list and no worker has it: the keeper publishes it again, and it runs once."""
    job_id = jobs.submit("acme.take_note", {"notebook": str(notebook)})
    assert client.rpop(ETL_LIST) is not None
    workers.start()
    assert jobs.ended(job_id)["state"] == "succeeded"
    assert len(lines(notebook)) == 1


def test_a_job_longer_than_the_visibility_timeout_runs_once(
    jobs: Jobs, workers: Crew, notebook: Path, client: redis.Redis
) -> None:
    """Kombu would deliver it again after 5 s, several times in 14; two idle workers stand ready to take it."""
    workers.start(concurrency=2)
    workers.start(concurrency=2)
    job_id = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 14})
    assert jobs.ended(job_id)["state"] == "succeeded"
    assert len(lines(notebook)) == 1
    wait_for(lambda: client.zcard("unacked_index") == 0, "acknowledgement")


def test_a_duplicate_of_a_finished_step_runs_nothing_and_the_chain_goes_on(
    jobs: Jobs, workers: Crew, notebook: Path, tmp_path: Path, client: redis.Redis
) -> None:
    """The next step's message was lost, and the first one's comes twice: it does not run again, the chain does."""
    workers.start(queues="etl")  # so the second step's message stays on its list
    copies = tmp_path / "copies.txt"
    job_id = jobs.submit("acme.note_twice", {"notebook": str(notebook), "copybook": str(copies)})
    first, second = wait_for(
        lambda: (steps := jobs.get(job_id)["steps"]) and steps[0]["state"] == "succeeded" and steps, "first step"
    )
    report_list = ETL_LIST.replace("etl", "report")
    wait_for(lambda: client.llen(report_list) == 1, "message of the second step")
    client.delete(report_list)
    message = client.hget(key("job", first["id"]), "message")
    assert json.loads(str(message))["headers"]["id"] == first["id"]
    client.lpush(ETL_LIST, str(message))
    wait_for(lambda: client.llen(report_list) >= 1, "message of the second step, again")
    workers.start(queues="report")
    job = jobs.ended(job_id)
    assert (job["state"], len(lines(notebook)), lines(copies)) == ("succeeded", 1, lines(notebook))
    assert job["steps"][1]["id"] == second["id"]


def test_a_chord_whose_bodys_message_is_lost_goes_on(
    jobs: Jobs, workers: Crew, notebook: Path, tmp_path: Path, client: redis.Redis
) -> None:
    """Celery has forgotten the chord by then: it is made to count the parts again, and none of them runs again."""
    workers.start(queues="etl")  # so the body's message stays on its list
    binder = tmp_path / "binder.txt"
    job_id = jobs.submit("acme.note_many", {"notebook": str(notebook), "binder": str(binder)})
    report_list = ETL_LIST.replace("etl", "report")
    wait_for(lambda: client.llen(report_list) == 1, "message of the body")
    client.delete(report_list)
    workers.start(queues="report")
    job = jobs.ended(job_id)
    assert (job["state"], len(lines(notebook)), sorted(lines(binder))) == ("succeeded", 3, sorted(lines(notebook)))


def test_a_cancel_made_while_no_worker_runs_holds(jobs: Jobs, workers: Crew, notebook: Path) -> None:
    """The message is still on its list when the workers start; they do not run it."""
    job_id = jobs.submit("acme.take_note", {"notebook": str(notebook)})
    assert jobs.cancel(job_id) == 200
    follower = jobs.submit("acme.take_note", {"notebook": str(notebook)})
    workers.start()
    jobs.ended(follower)
    assert jobs.get(job_id)["state"] == "cancelled"
    assert [line.split()[0] for line in lines(notebook)] == [follower]


@pytest.mark.parametrize("behave", ["well", "deaf"])
def test_a_running_job_is_stopped(jobs: Jobs, workers: Crew, notebook: Path, behave: str) -> None:
    """Politely, or by force where the body does not hear; the worker lives on."""
    worker = workers.start()
    job_id = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 50, "behave": behave})
    jobs.in_state(job_id, "running")
    assert jobs.cancel(job_id) == 202
    job = jobs.ended(job_id)
    assert (job["state"], job["error"]["code"]) == ("cancelled", "cancelled")
    after = jobs.submit("acme.take_note", {"notebook": str(notebook)})
    assert jobs.ended(after)["state"] == "succeeded"
    assert worker.process.poll() is None


def test_a_job_that_kills_its_workers_is_set_aside(jobs: Jobs, workers: Crew, notebook: Path) -> None:
    """Three crashes, then quarantine; jobs behind it run."""
    workers.start()
    poison = jobs.submit("acme.take_note", {"notebook": str(notebook), "behave": "suicidal"})
    good = jobs.submit("acme.take_note", {"notebook": str(notebook)})
    assert jobs.ended(good)["state"] == "succeeded"
    job = jobs.ended(poison)
    assert (job["state"], job["error"]["code"], job["attempt"]) == ("quarantined", "quarantined", 3)


@pytest.mark.parametrize("behave", ["well", "quiet"])
def test_a_worker_that_is_told_to_stop_gives_its_job_back(
    jobs: Jobs, workers: Crew, notebook: Path, behave: str
) -> None:
    """After the soft shutdown time the job is queued again, without blame, and another worker takes it."""
    leaving = workers.start()
    job_id = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 8, "behave": behave})
    jobs.in_state(job_id, "running")
    assert leaving.stop() == 0
    assert jobs.get(job_id)["state"] == "queued"
    workers.start()
    job = jobs.ended(job_id)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["released", "succeeded"]


def test_a_frozen_worker_cannot_write_when_it_thaws(jobs: Jobs, workers: Crew, notebook: Path) -> None:
    """Its claim lapsed and another worker finished the job: the late outcome is refused, the first one stands."""
    frozen = workers.start()
    job_id = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 3})
    wait_for(lambda: lines(notebook), "first line")
    for pid in (frozen.process.pid, *frozen.children):
        os.kill(pid, signal.SIGSTOP)
    workers.start()
    job = jobs.ended(job_id)
    for pid in (frozen.process.pid, *frozen.children):
        os.kill(pid, signal.SIGCONT)
    follower = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 4})
    jobs.ended(follower)
    assert jobs.get(job_id) == job
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
