"""How a task's body ends, and what its job says: on a real worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from tests.support.servers.disks import small_disk
from tests.support.servers.services import BOUND_S, Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME, ACME_ALONE, MAIN_THREADS, Crew, Jobs, Worker, crew

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def workers(valkey: Server, folder: Path) -> Iterator[Crew]:
    env = {**ACME_ALONE, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    with crew(folder, **env) as made:
        yield made


@pytest.fixture(scope="module")
def service(workers: Crew, folder: Path) -> Iterator[tuple[Jobs, Worker]]:
    with gateway_server(folder, **workers.env | ACME) as gateway:
        yield Jobs(gateway), workers.start(concurrency=2)


@pytest.fixture
def jobs(service: tuple[Jobs, Worker]) -> Jobs:
    return service[0]


def ended(jobs: Jobs, notebook: Path, *, options: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    return jobs.ended(jobs.submit("acme.take_note", {"notebook": str(notebook), **params}, **options or {}))


def test_a_job_that_ends_well_says_everything(jobs: Jobs, tmp_path: Path) -> None:
    """Result, artifacts, attempts, worker and times are there, in order."""
    job = ended(jobs, tmp_path / "n")
    assert (job["state"], job["result"]["line_count"], job["error"]) == ("succeeded", 1, None)
    assert [artifact["uri"] for artifact in job["artifacts"]] == [job["result"]["note"]["uri"]]
    assert [(attempt["attempt"], attempt["outcome"]) for attempt in job["attempts"]] == [(1, "succeeded")]
    assert job["worker"] == "w0@test"
    assert job["created_at"] <= job["queued_at"] <= job["started_at"] <= job["finished_at"]


def test_a_transient_failure_is_tried_again(jobs: Jobs, tmp_path: Path) -> None:
    """With backoff, under the same id; every attempt is recorded."""
    job = ended(jobs, tmp_path / "n", behave="flaky")
    outcomes = [attempt["outcome"] for attempt in job["attempts"]]
    assert (job["state"], outcomes, job["retries"]) == ("succeeded", ["retrying", "retrying", "succeeded"], 2)


def test_retries_end(jobs: Jobs, tmp_path: Path) -> None:
    """A job may ask for fewer retries than its kind allows; then the failure stands."""
    job = ended(jobs, tmp_path / "n", behave="flaky", options={"max_retries": 1})
    assert (job["state"], job["error"]["code"], job["retries"]) == ("failed", "flaky", 1)


@pytest.mark.parametrize(
    ("behave", "code", "message"),
    [
        ("badly", "bad_note", "It will not pass."),
        ("buggy", "unexpected_error", "ZeroDivisionError: postgresql://db/x is wrong"),
        ("exits", "unexpected_error", "SystemExit: usage: a library's command line"),
        ("interrupts", "unexpected_error", "KeyboardInterrupt: "),
        ("closes", "unexpected_error", "GeneratorExit: "),
        ("hungry", "out_of_memory", "The job needed more memory than the worker may use."),
    ],
)
def test_every_failure_is_typed(jobs: Jobs, tmp_path: Path, behave: str, code: str, message: str) -> None:
    """A code for programs, a message without credentials, one attempt; the worker lives on."""
    job = ended(jobs, tmp_path / "n", behave=behave)
    assert (job["state"], job["error"]["code"], job["error"]["message"]) == ("failed", code, message)
    assert job["attempt"] == 1


def test_what_a_body_says_is_made_valid_and_hurts_no_reader(jobs: Jobs, tmp_path: Path) -> None:
    """Half an emoji and numbers that JSON does not have are replaced; job, list, log and events can be read."""
    job = ended(jobs, tmp_path / "n", behave="babbles")
    assert (job["error"]["code"], job["error"]["message"], job["error"]["remedy"]) == ("babble", "?", "?")
    assert job["error"]["details"] == {"ratio": None, "cut": "?", "name": "x"}
    assert (job["progress"]["current"], job["progress"]["total"], job["progress"]["message"]) == (0, None, "?")
    gateway = jobs.gateway.url
    (line,) = http_client.get(f"{gateway}/jobs/{job['id']}/logs").json()["lines"]
    assert (line["message"], line["fields"]) == ("?", {"number": "nan", "emoji": "?"})
    assert http_client.get(f"{gateway}/jobs", params={"kind": job["kind"]}).status_code == 200
    events = http_client.get(f"{gateway}/jobs/{job['id']}/events").text
    documents = [line.removeprefix("data: ") for line in events.splitlines() if line.startswith("data: ")]
    assert [json.loads(text, parse_constant=pytest.fail) for text in documents]


def test_a_full_disk_is_transient(jobs: Jobs, tmp_path: Path) -> None:
    """It is not a defect of the task, whatever a library makes of it: the job is tried again, and says what to do."""
    job = ended(jobs, tmp_path / "n", behave="full", options={"max_retries": 1})
    assert (job["state"], job["attempt"], job["error"]["code"]) == ("failed", 2, "scratch_full")


def test_a_disk_without_room_for_a_folder_is_transient(jobs: Jobs, workers: Crew, tmp_path: Path) -> None:
    """Then the body does not begin."""
    with small_disk(tmp_path / "disk", 2**20, files=100) as disk:
        worker = workers.start(queues="ml", TMPDIR=str(disk))
        with suppress(OSError):
            for number in count():
                (disk / f"filler-{number}").touch()
        job = ended(jobs, tmp_path / "n", options={"max_retries": 1, "queue": "ml"})
        assert (job["state"], job["attempt"], job["error"]["code"]) == ("failed", 2, "scratch_full")
        worker.stop()


def test_the_log_has_a_traceback_of_a_defect_only(service: tuple[Jobs, Worker], tmp_path: Path) -> None:
    """A job that fails is a line in the worker's log; what nobody foresaw is there with its traceback."""
    jobs, worker = service

    def logged(behave: str, last: str) -> str:
        job_id = ended(jobs, tmp_path / "n", behave=behave)["id"]

        def lines() -> list[str]:
            return [line for line in worker.log.read_text().splitlines() if job_id in line]

        wait_for(lambda: any(last in line for line in lines()), f"{last!r} in the log")
        return "".join(lines())

    assert logged("badly", "raised expected").count("Traceback") == 0
    assert logged("buggy", "raised expected").count("Traceback") == 1


def test_the_soft_limit_interrupts(jobs: Jobs, tmp_path: Path) -> None:
    """The job's own limit, below its kind's, ends it with a typed failure."""
    job = ended(jobs, tmp_path / "n", lasts_s=30, options={"time_limit_s": 2})
    assert (job["state"], job["error"]["code"]) == ("failed", "time_limit_exceeded")
    assert (job["error"]["details"], "limit of 2 s" in job["error"]["message"]) == ({"limit_s": 2}, True)


def test_the_hard_limit_kills_a_body_that_does_not_hear(service: tuple[Jobs, Worker], tmp_path: Path) -> None:
    """The child is killed, the job says why, and the next job runs."""
    jobs, worker = service
    job = ended(jobs, tmp_path / "n", lasts_s=60, behave="deaf", options={"time_limit_s": 2})
    assert (job["state"], job["error"]["code"]) == ("failed", "time_limit_exceeded")
    assert ended(jobs, tmp_path / "n")["state"] == "succeeded"
    assert worker.process.poll() is None


def test_a_step_that_fails_names_itself(jobs: Jobs, tmp_path: Path) -> None:
    """The job carries the step's error and name; the next step is skipped."""
    params = {"notebook": str(tmp_path / "n"), "copybook": str(tmp_path / "c"), "behave": "badly"}
    job = jobs.ended(jobs.submit("acme.note_twice", params))
    assert (job["state"], job["error"]["step"], job["error"]["code"]) == ("failed", "note", "bad_note")
    assert [(step["name"], step["state"]) for step in job["steps"]] == [("note", "failed"), ("copy", "skipped")]


def test_a_chain_feeds_each_step_with_the_one_before(jobs: Jobs, tmp_path: Path) -> None:
    """The artifact of the first step is the parameter of the second, by reference."""
    params = {"notebook": str(tmp_path / "n"), "copybook": str(tmp_path / "c")}
    job = jobs.ended(jobs.submit("acme.note_twice", params))
    assert (job["state"], job["steps_done"], job["steps_total"]) == ("succeeded", 2, 2)
    assert (tmp_path / "c").read_text() == (tmp_path / "n").read_text()


def test_log_lines_reach_the_jobs_log_without_secrets(jobs: Jobs, tmp_path: Path) -> None:
    """Both run.log and the logging module write into it."""
    job = ended(jobs, tmp_path / "n", behave="verbose")
    page = http_client.get(f"{jobs.gateway.url}/jobs/{job['id']}/logs").text
    assert "by run.log" in page
    assert "by logging" in page
    assert "hunter2" not in page


def test_somebody_elses_celery_client_sees_the_same(jobs: Jobs, valkey: Server, tmp_path: Path) -> None:
    """An AsyncResult in another application reads state and result of a job by its id."""
    app = make_celery(BrokerSettings(broker_url=valkey.redis_url), transport="memory")
    good, bad = ended(jobs, tmp_path / "n"), ended(jobs, tmp_path / "n", behave="badly")
    assert AsyncResult(good["id"], app=app).get(timeout=BOUND_S) == good["result"]
    assert AsyncResult(bad["id"], app=app).state == "FAILURE"


def test_a_task_sent_by_somebody_elses_celery_client_becomes_a_job(jobs: Jobs, valkey: Server, tmp_path: Path) -> None:
    """What comes past the gateway is in the ledger from its first claim on."""
    app = make_celery(BrokerSettings(broker_url=valkey.redis_url))
    sent = app.send_task("acme.take_note", kwargs={"notebook": str(tmp_path / "n")}, queue="etl")
    assert sent.get(timeout=BOUND_S)["line_count"] == 1
    assert jobs.get(sent.id)["state"] == "succeeded"


def test_the_main_process_has_only_the_threads_it_names(service: tuple[Jobs, Worker]) -> None:
    """Children are forked from it, so no library may have started a thread pool there (docs/decisions)."""
    _, worker = service
    names = [path.read_text().strip() for path in Path(f"/proc/{worker.process.pid}/task").glob("*/comm")]
    assert len(names) == MAIN_THREADS, names
