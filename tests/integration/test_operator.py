"""What an operator does and sees, with real workers: pauses, concurrency keys, options of jobs, workers, queues."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shared import __version__
from tests.support.servers.services import Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME, ACME_ALONE, MAIN_THREADS, Crew, Jobs, Worker, crew

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def service(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Jobs, Crew]]:
    """Run a gateway, and yield a crew without workers."""
    folder = tmp_path_factory.mktemp("operator")
    env = {
        **ACME,
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_LEASE_S": "4",
        "CELERIAC_LOST_MESSAGE_GRACE_S": "4",
    }
    with crew(folder, **env | ACME_ALONE) as workers, gateway_server(folder, **env) as gateway:
        yield Jobs(gateway), workers


@pytest.fixture(scope="module")
def jobs(service: tuple[Jobs, Crew]) -> Jobs:
    return service[0]


@pytest.fixture(scope="module")
def pair(service: tuple[Jobs, Crew]) -> Worker:
    """Start a worker of two children for the queues `etl` and `report`."""
    return service[1].start(queues="etl,report", concurrency=2)


@pytest.fixture(scope="module")
def single(service: tuple[Jobs, Crew]) -> Worker:
    """Start a worker of one child for the queue `ml`."""
    return service[1].start(queues="ml", WORKER_FAMILIES="etl")


def note(jobs: Jobs, folder: Path, *, behave: str = "well", lasts_s: float = 0.0, **options: Any) -> str:
    """Submit a note; its line has the job's id."""
    params = {"notebook": str(folder / "notes"), "behave": behave, "lasts_s": lasts_s}
    return jobs.submit("acme.take_note", params, **options)


def noted(folder: Path) -> list[str]:
    """Return the ids of the jobs that ran, in the order of their start."""
    notebook = folder / "notes"
    return [line.split()[0] for line in notebook.read_text().splitlines()] if notebook.exists() else []


def queue(jobs: Jobs, name: str) -> dict[str, Any]:
    answer = http_client.get(f"{jobs.gateway.url}/queues").json()
    (found,) = (queue for queue in answer["queues"] if queue["name"] == name)
    return dict(found)


def workers(jobs: Jobs) -> dict[str, dict[str, Any]]:
    return {worker["name"]: worker for worker in http_client.get(f"{jobs.gateway.url}/workers").json()["workers"]}


def most_at_once(jobs: Jobs, ids: list[str]) -> int:
    """Return how many of these ran at the same time, by the ledger's account."""
    spans = [(run["started_at"], run["finished_at"]) for job_id in ids for run in jobs.get(job_id)["attempts"]]
    running = [sum(start <= began < end for start, end in spans) for began, _ in spans]
    return int(max(running))


def test_a_job_waits_without_a_consumer_until_a_worker_comes(
    service: tuple[Jobs, Crew], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The queue and the job say so; the worker that comes is shown. Its heartbeats need no thread of their own."""
    jobs, _ = service
    job_id = note(jobs, tmp_path)
    assert (queue(jobs, "etl")["waiting_reason"], jobs.get(job_id)["waiting_reason"]) == ("no_consumer", "no_consumer")
    pair: Worker = request.getfixturevalue("pair")
    assert jobs.ended(job_id)["state"] == "succeeded"
    shown = wait_for(lambda: workers(jobs).get("w0@test"), "the worker's heartbeat")
    assert (shown["pid"], shown["concurrency"], shown["queues"]) == (pair.process.pid, 2, ["etl", "report"])
    assert (shown["state"], shown["versions"]["celeriac"]) == ("online", __version__)
    assert len(list(Path(f"/proc/{pair.process.pid}/task").iterdir())) == MAIN_THREADS
    running = note(jobs, tmp_path, lasts_s=60)
    wait_for(lambda: workers(jobs)["w0@test"]["active"], "the running job at its worker")
    assert [job["id"] for job in workers(jobs)["w0@test"]["active"]] == [running]
    assert (queue(jobs, "etl")["running"], queue(jobs, "etl")["consumers"]) == (1, 1)
    assert jobs.cancel(running) == 202
    jobs.ended(running)


@pytest.mark.usefixtures("pair")
def test_a_pause_holds_jobs_and_steps_and_a_resume_runs_them(jobs: Jobs, tmp_path: Path) -> None:
    """Also the step that Celery publishes while its queue is paused."""
    http_client.post(f"{jobs.gateway.url}/queues/report/pause")
    chain = jobs.submit("acme.note_twice", {"notebook": str(tmp_path / "n"), "copybook": str(tmp_path / "c")})
    wait_for(lambda: queue(jobs, "report")["held"], "the second step held")
    held = jobs.get(chain)["steps"][1]
    assert (held["state"], held["waiting_reason"], jobs.get(chain)["state"]) == ("queued", "queue_paused", "running")
    http_client.post(f"{jobs.gateway.url}/queues/report/resume")
    assert jobs.ended(chain)["state"] == "succeeded"
    assert len((tmp_path / "c").read_text().splitlines()) == 1


def test_a_pause_holds_for_a_worker_that_starts_later(
    jobs: Jobs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What was in the list when the pause came is not run by it; resumed, each runs once."""
    before = note(jobs, tmp_path, queue="ml")
    http_client.post(f"{jobs.gateway.url}/queues/ml/pause")
    after = note(jobs, tmp_path, queue="ml")
    request.getfixturevalue("single")
    wait_for(lambda: queue(jobs, "ml")["held"] == 2, "both jobs held")
    assert noted(tmp_path) == []
    http_client.post(f"{jobs.gateway.url}/queues/ml/resume")
    assert [jobs.ended(job_id)["state"] for job_id in (before, after)] == ["succeeded", "succeeded"]
    assert noted(tmp_path) == [before, after]


@pytest.mark.usefixtures("single")
def test_the_most_urgent_job_runs_first_and_an_expired_one_never(jobs: Jobs, tmp_path: Path) -> None:
    """Redis has a list a priority; one child takes them one by one, and position tells the order beforehand."""
    blocker = note(jobs, tmp_path, lasts_s=60, queue="ml")
    jobs.in_state(blocker, "running")
    by_priority = {priority: note(jobs, tmp_path, priority=priority, queue="ml") for priority in (0, 4, 9, 8, 1)}
    expiring = note(jobs, tmp_path, queue="ml", expires_in_s=0.5)
    assert jobs.ended(expiring)["state"] == "expired"
    expected = [by_priority[priority] for priority in (9, 8, 4, 1, 0)]
    assert {jobs.get(job_id)["waiting_reason"] for job_id in expected} == {"behind"}
    assert [jobs.get(job_id)["queue_position"] for job_id in expected] == list(range(5))
    jobs.cancel(blocker)
    for job_id in expected:
        assert jobs.ended(job_id)["state"] == "succeeded"
    assert noted(tmp_path) == [blocker, *expected]


@pytest.mark.usefixtures("single")
def test_a_jobs_own_time_limit_ends_it(jobs: Jobs, tmp_path: Path) -> None:
    """The body is interrupted before; one that does not hear is killed with its child. It is not a crash: it failed."""
    polite, deaf = (
        note(jobs, tmp_path, behave=how, lasts_s=60, time_limit_s=2, queue="ml") for how in ("well", "deaf")
    )
    for job_id in (polite, deaf):
        ended = jobs.ended(job_id)
        assert (ended["state"], ended["error"]["code"]) == ("failed", "time_limit_exceeded")
        began, ended_at = (datetime.fromisoformat(ended[name]) for name in ("started_at", "finished_at"))
        assert (ended_at - began).total_seconds() < 30


def test_no_more_jobs_of_a_key_run_at_once_than_it_allows_even_if_a_worker_dies(
    jobs: Jobs, pair: Worker, single: Worker, tmp_path: Path
) -> None:
    """Over queues and workers. What a dead worker had is free after its lease, and nobody waits for ever."""
    key: dict[str, Any] = {"concurrency_key": "crm", "concurrency_limit": 2}
    ids = [note(jobs, tmp_path, lasts_s=0.3, queue=name, **key) for name in ("etl", "ml") * 4]
    assert [jobs.ended(job_id)["state"] for job_id in ids] == ["succeeded"] * 8
    assert most_at_once(jobs, ids) == 2
    stuck = [note(jobs, tmp_path, lasts_s=60, queue="etl", **key) for _ in range(2)]
    for job_id in stuck:
        jobs.in_state(job_id, "running")
    waits = note(jobs, tmp_path, queue="ml", **key)
    wait_for(lambda: jobs.get(waits)["waiting_reason"] == "concurrency_limited", "the job told to wait for its key")
    pair.kill()
    assert jobs.ended(waits)["state"] == "succeeded"
    wait_for(lambda: workers(jobs)["w0@test"]["state"] == "lost", "the worker taken for lost")
    assert jobs.get(stuck[0])["waiting_reason"] == "no_consumer"
    single.stop()
    assert workers(jobs).keys() == {"w0@test"}  # that one said goodbye


def test_a_worker_that_scales_itself_tells_how_many_it_runs(
    jobs: Jobs, service: tuple[Jobs, Crew], tmp_path: Path
) -> None:
    """Under --autoscale the number of processes follows the work, and so does what is shown."""
    scaling = service[1].start("--autoscale=3,1", queues="maintenance", CELERIAC_TASKS="tests.acme.tasks")
    name = f"w{len(service[1].workers) - 1}@test"
    wait_for(lambda: workers(jobs).get(name, {}).get("concurrency") == 1, "one process")
    running = [note(jobs, tmp_path, lasts_s=60, queue="maintenance") for _ in range(3)]
    wait_for(lambda: workers(jobs)[name]["concurrency"] == 3, "three processes")
    for job_id in running:
        jobs.cancel(job_id)
    scaling.stop()
