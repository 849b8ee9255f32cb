"""`expand()` after steps that submit jobs: it waits for these and gets their results, over REST on a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers.services import Server, http_client, wait_for
from tests.support.servers.workers import AUTHORS, Jobs, serving

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def jobs(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with serving(tmp_path_factory.mktemp("awaited"), valkey.redis_url, AUTHORS, concurrency=2) as made:
        yield made


def submitted(jobs: Jobs, folder: Path, how: str) -> str:
    (folder / "x").touch()
    return jobs.submit("acme.await_children", {"folder": str(folder), "how": how})


def states(job: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in job["steps"]}


def children(jobs: Jobs, job_id: str) -> list[dict[str, Any]]:
    listed = http_client.get(f"{jobs.gateway.url}/jobs").json()["jobs"]
    steps = {step["id"] for step in jobs.get(job_id)["steps"]}
    return [job for job in listed if job["parent"] in steps]


@pytest.mark.parametrize(("how", "attempts"), [("succeed", 1), ("is killed", 2), ("is flaky", 2)])
def test_it_waits_for_the_children_and_gets_their_results(jobs: Jobs, tmp_path: Path, how: str, attempts: int) -> None:
    """Its steps have ended, and it waits; another attempt of the parent has the same children."""
    job_id = submitted(jobs, tmp_path, how)
    before = {"submits": "succeeded", "after": "succeeded"}
    wait_for(lambda: states(jobs.get(job_id)) == before | {"expand": "waiting"}, "the steps before have ended")
    wait_for((tmp_path / ".waits").exists, "the child runs")
    (tmp_path / ".go").touch()
    job = jobs.ended(job_id)
    assert (job["state"], states(job)) == ("succeeded", before | {"expand": "succeeded", "end": "succeeded"})
    assert (tmp_path / ".told").read_text() == "a=went b=x\n"
    assert [step["attempt"] for step in job["steps"]] == [attempts, 1, 1, 1]
    assert len(children(jobs, job_id)) == 2


def test_a_child_that_failed_has_no_result_and_a_partial_rerun_submits_others(jobs: Jobs, tmp_path: Path) -> None:
    """What is None is for `expand()` to judge. The step whose child failed runs again, and those that it feeds."""
    (tmp_path / ".go").touch()
    first = jobs.ended(submitted(jobs, tmp_path, "a child fails"))
    assert (first["error"]["step"], first["error"]["message"]) == ("expand", "b")
    again = http_client.post(f"{jobs.gateway.url}/jobs/{first['id']}/rerun", json={"only_failed": True}).json()
    job = jobs.ended(again["id"])
    assert job["state"] == "succeeded", job["error"]
    assert [step["reused_from"] for step in job["steps"]] == [None] * 4
    assert (tmp_path / ".told").read_text() == "a=went b=null\n"


def test_cancelling_the_workflow_reaches_children_of_steps_that_have_ended(jobs: Jobs, tmp_path: Path) -> None:
    """They belong to what still goes on."""
    job_id = submitted(jobs, tmp_path, "succeed")
    wait_for(lambda: states(jobs.get(job_id)).get("after") == "succeeded", "the steps before have ended")
    wait_for((tmp_path / ".waits").exists, "the child runs")
    jobs.cancel(job_id)
    ended = {"submits": "succeeded", "after": "succeeded", "expand": "cancelled"}
    assert states(jobs.get(job_id)) == ended
    wait_for(
        lambda: sorted(child["state"] for child in children(jobs, job_id)) == ["cancelled", "succeeded"],
        "the child that runs has stopped",
    )
    assert states(jobs.get(job_id)) == ended
