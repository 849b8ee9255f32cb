"""What a run offers to a body: on a real worker, and what the job shows of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.ledger.keys import Keys
from tests.support.servers.services import Server, http_client, wait_for
from tests.support.servers.workers import AUTHORS, Jobs, serving

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def jobs(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with serving(tmp_path_factory.mktemp("authors"), valkey.redis_url, AUTHORS) as made:
        yield made


def used(jobs: Jobs, what: str, **params: Any) -> dict[str, Any]:
    return jobs.ended(jobs.submit("acme.use_run", {"what": what, **params}))


def said(job: dict[str, Any]) -> Any:
    assert job["state"] == "succeeded", job["error"]
    return json.loads(job["result"]["said"])


def test_what_a_body_prints_is_in_the_log_of_its_job(jobs: Jobs) -> None:
    """Standard output and error, of its threads too; of a progress bar the last; without secrets."""
    job = used(jobs, "prints")
    lines = http_client.get(f"{jobs.gateway.url}/jobs/{job['id']}/logs").json()["lines"]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "to standard output token=***"),
        ("warning", "100%|###"),
        ("info", "no end of line"),
        ("info", "from a thread"),
    ]


def test_a_checkpoint_survives_a_lost_worker_and_a_retry(jobs: Jobs, valkey: Server) -> None:
    """The next attempt goes on where the last one stopped; at the end of the job nothing of it is left."""
    job = used(jobs, "counts_and_is_killed")
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["lost", "retrying", "succeeded"]
    assert said(job) == [3, 6]
    with redis.Redis(port=valkey.port) as client:
        assert client.exists(Keys()("checkpoint", job["id"])) == 0


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ("bad_checkpoint", "invalid_checkpoint", "tuples"),
        ("large_checkpoint", "checkpoint_too_large", "70002 bytes; the maximum is 65536"),
    ],
)
def test_a_checkpoint_comes_back_as_it_was_or_is_refused(jobs: Jobs, what: str, code: str, message: str) -> None:
    """A tuple that comes back as a list would fail only after a loss."""
    error = used(jobs, what)["error"]
    assert (error["code"], message in error["message"]) == (code, True)


def test_a_file_is_published_with_its_path_alone(jobs: Jobs) -> None:
    """Name and media type are the file's own; a copy leaves it in place, and a link is stored as what it leads to."""
    job = used(jobs, "publishes")
    assert said(job) == ["text/html", "application/octet-stream", "file", False, 4, "text/csv"]
    assert [artifact["name"] for artifact in job["artifacts"]] == ["page.html", "second.weird-end", "a.csv", "link.csv"]


def test_a_dataset_is_described_from_its_file(jobs: Jobs) -> None:
    """What is not Parquet is refused by name."""
    job = used(jobs, "publishes_dataset")
    assert (job["error"]["code"], [artifact["role"] for artifact in job["artifacts"]]) == ("not_a_dataset", ["dataset"])


def test_a_stored_file_is_read_as_a_stream_and_as_a_file(jobs: Jobs) -> None:
    """By its uri."""
    uri = next(artifact["uri"] for artifact in used(jobs, "publishes")["artifacts"] if artifact["name"] == "a.csv")
    assert said(used(jobs, "reads", uri=uri)) == ["a,b\n", "a,b\n"]
    missing = used(jobs, "reads", uri=uri.replace("a.csv", "b.csv"))
    assert missing["error"]["code"] == "artifact_missing"


def test_a_body_computes_in_processes(jobs: Jobs) -> None:
    """In others than its own; an executor of its own cannot."""
    job = used(jobs, "computes_in_processes")
    assert said(job) == [sum(number**2 for number in range(20)), False]


def test_the_processes_of_a_cancelled_job_are_gone(jobs: Jobs) -> None:
    """They do not finish what nobody waits for."""
    job_id = jobs.submit("acme.use_run", {"what": "is_cancelled_with_processes"})

    def pids() -> list[str]:
        lines = http_client.get(f"{jobs.gateway.url}/jobs/{job_id}/logs").json()["lines"]
        return [pid for line in lines for pid in line["fields"].get("pids", "").split()]

    found = wait_for(pids, "processes")
    assert any(Path(f"/proc/{pid}").exists() for pid in found)
    jobs.cancel(job_id)
    jobs.in_state(job_id, "cancelled")
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found), "end of the processes")


@pytest.mark.parametrize(
    ("then", "state", "later"),
    [("succeed", "succeeded", "scheduled"), ("fail", "failed", "cancelled"), ("wait", "cancelled", "cancelled")],
)
def test_a_child_is_accepted_once_and_ends_with_its_parent(
    jobs: Jobs, tmp_path: Path, then: str, state: str, later: str
) -> None:
    """Each attempt submits the same ones; what still waits is cancelled if the parent does not succeed."""
    written = tmp_path / "lines"
    parent_id = jobs.submit("acme.use_run", {"what": "has_children", "uri": str(written), "then": then})

    def children() -> list[dict[str, Any]] | None:
        listed = http_client.get(f"{jobs.gateway.url}/jobs").json()["jobs"]
        found = [job for job in listed if job["parent"] == parent_id]
        return found if len(found) == 2 and jobs.get(parent_id)["attempt"] == 2 else None

    now_id = next(job["id"] for job in wait_for(children, "children") if job["tags"] == ["child"])
    if then == "wait":
        jobs.in_state(parent_id, "running")
        jobs.cancel(parent_id)
    parent = jobs.ended(parent_id)
    assert (parent["state"], parent["attempt"]) == (state, 2)
    found = children() or []
    waiting = next(job for job in found if job["tags"] == [])
    assert (len(found), waiting["state"], waiting["id"] > parent_id[:13]) == (2, later, True)
    if then == "succeed":
        assert said(parent) == [now_id, waiting["id"]]
        jobs.in_state(now_id, "succeeded")
        assert written.read_text() == "done in time\n"
        jobs.cancel(waiting["id"])
