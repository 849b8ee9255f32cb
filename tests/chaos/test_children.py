"""The connection to the broker breaks, or the ledger refuses writes, at a bad moment for a child of a worker."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.chaos.harness.pipes import PAGE_BYTES, small_pipes
from tests.support.servers.outages import RestartableValkey, frozen
from tests.support.servers.services import wait_for
from tests.support.servers.workers import Crew, Jobs, Worker

pytestmark = pytest.mark.chaos

NEVER_S = "600"  # a lease that does not end in a test: what is given back was given back by its worker
LONG_NAME = "n" * 200

Service = tuple[RestartableValkey, Jobs, Crew]


def _submit(jobs: Jobs, notebook: Path, **options: object) -> str:
    params = {"notebook": str(notebook), "lasts_s": options.pop("lasts_s", 0), "behave": options.pop("behave", "well")}
    return jobs.submit("acme.take_note", params, **options)


def _disconnect(valkey: RestartableValkey, worker: Worker) -> None:
    """Let an error reply end the connection of the worker, and wait until it has a new one."""
    with valkey.refusing_writes():
        wait_for(lambda: "Connection to broker lost" in worker.log.read_text(), "an error reply of the broker")
        connections = worker.log.read_text().count("Connected to ")
    wait_for(lambda: worker.log.read_text().count("Connected to ") > connections, "a new connection")


def test_a_child_that_was_heard_in_part_is_heard_in_full(service: Service, tmp_path: Path) -> None:
    """The connection breaks while the main process reads how a job ended: the child runs other jobs."""
    valkey, jobs, workers = service
    notebook = tmp_path / "notes.txt"
    worker = workers.start(concurrency=2)  # the other child is free, so that the main process asks for jobs
    one, other = worker.pool
    folder = tmp_path.joinpath(*[LONG_NAME] * 10)  # its name makes a long error
    folder.mkdir(parents=True)
    with small_pipes(one) as pipes, small_pipes(other) as pipes_of_other:
        failing = _submit(jobs, folder / "notes.txt", behave="quiet", lasts_s=2)
        jobs.in_state(failing, "running")
        with frozen(worker.process.pid):
            shutil.rmtree(tmp_path / LONG_NAME)
            wait_for(lambda: max(pipes.held_bytes, pipes_of_other.held_bytes) > PAGE_BYTES, "a pipe that is full")
            child = one if pipes.held_bytes else other
            os.kill(child, signal.SIGSTOP)
        wait_for(lambda: pipes.held_bytes + pipes_of_other.held_bytes == 0, "the main process has read what is there")
        _disconnect(valkey, worker)
        os.kill(child, signal.SIGCONT)
    for job_id in [_submit(jobs, notebook, lasts_s=2) for _ in range(2)]:
        assert jobs.ended(job_id)["state"] == "succeeded"
    assert {int(line.split()[2]) for line in notebook.read_text().splitlines()} == {one, other}
    assert jobs.get(failing)["error"]["code"] == "unexpected_error"


def test_a_job_that_its_child_has_not_confirmed_keeps_its_claim(service: Service, tmp_path: Path) -> None:
    """The connection breaks between the two: the child runs the job, longer than a lease, once."""
    valkey, jobs, workers = service
    notebook = tmp_path / "notes.txt"
    worker = workers.start(concurrency=2, CELERIAC_LEASE_S="3")  # likewise
    one, other = worker.pool
    with frozen(one), frozen(other), small_pipes(one) as pipes, small_pipes(other) as pipes_of_other:
        job_id = _submit(jobs, notebook, lasts_s=8)
        wait_for(lambda: pipes.held_bytes + pipes_of_other.held_bytes > 0, "the job is sent to a child")
        _disconnect(valkey, worker)
    job = jobs.ended(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert len(notebook.read_text().splitlines()) == 1


def test_the_job_of_a_lost_child_is_released_as_soon_as_it_can_be(service: Service, tmp_path: Path) -> None:
    """The ledger refuses to release it at first; the claim would last for long."""
    valkey, jobs, workers = service
    worker = workers.start(CELERIAC_LEASE_S=NEVER_S)
    (child,) = worker.pool
    job_id = _submit(jobs, tmp_path / "notes.txt", behave="quiet", lasts_s=2)
    jobs.in_state(job_id, "running")
    with valkey.refusing_writes():
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: "is not in the ledger yet" in worker.log.read_text(), "a refusal")
    job = jobs.ended(job_id)
    assert (job["state"], [attempt["outcome"] for attempt in job["attempts"]]) == ("succeeded", ["lost", "succeeded"])


def test_a_job_over_its_limit_fails_as_soon_as_it_can(service: Service, tmp_path: Path) -> None:
    """The ledger refuses to fail it at first."""
    valkey, jobs, workers = service
    worker = workers.start(CELERIAC_LEASE_S=NEVER_S)
    job_id = _submit(jobs, tmp_path / "notes.txt", behave="deaf", lasts_s=60, time_limit_s=3)
    jobs.in_state(job_id, "running")
    with valkey.refusing_writes():
        over = ("is not in the ledger yet", "Connection to broker lost")  # then the limit comes after the outage
        wait_for(lambda: any(line in worker.log.read_text() for line in over), "a refusal")
    assert jobs.ended(job_id)["error"]["code"] == "time_limit_exceeded"
    assert jobs.ended(_submit(jobs, tmp_path / "notes.txt"))["state"] == "succeeded"


def test_a_child_that_hangs_after_its_body_is_replaced(service: Service, tmp_path: Path) -> None:
    """It waits for the ledger to take the outcome, and stops for good: its claim is not renewed for ever."""
    valkey, jobs, workers = service
    worker = workers.start(CELERIAC_LEASE_S="2")
    (child,) = worker.pool
    folder = tmp_path / "notes"
    folder.mkdir()
    job_id = _submit(jobs, folder / "notes.txt", behave="quiet", lasts_s=2)
    jobs.in_state(job_id, "running")
    with valkey.refusing_writes():
        shutil.rmtree(folder)
        wait_for(lambda: "unexpected error" in worker.log.read_text(), "the end of the body")
        os.kill(child, signal.SIGSTOP)
    folder.mkdir()
    job = jobs.ended(job_id)
    assert (job["state"], [attempt["outcome"] for attempt in job["attempts"]]) == ("succeeded", ["lost", "succeeded"])
    assert child not in worker.pool
