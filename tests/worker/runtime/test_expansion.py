"""Workflows that add steps by the results of others, over REST on a real worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers.services import Server, http_client, wait_for
from tests.support.servers.workers import AUTHORS, Jobs, serving

pytestmark = pytest.mark.integration


CANVAS_TOO = {"CELERIAC_CONTRACTS": f"{AUTHORS['CELERIAC_CONTRACTS']},shared.jobs.workflow"}


@pytest.fixture(scope="module")
def jobs(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with serving(tmp_path_factory.mktemp("expansion"), valkey.redis_url, AUTHORS | CANVAS_TOO, concurrency=2) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    return tmp_path


def submitted(jobs: Jobs, folder: Path, how: str) -> str:
    return jobs.submit("acme.fan_out", {"folder": str(folder), "how": how})


def states(job: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in job["steps"]}


PLANNED = {"list": "succeeded", "absent": "failed", "expand": "succeeded"}
ADDED = {"part_a": "succeeded", "part_b": "succeeded", "end": "succeeded"}


def test_a_workflow_goes_on_with_steps_that_depend_on_results(jobs: Jobs, folder: Path) -> None:
    """Its ids are there from the start, then those of what it adds; the result is that of the last added step."""
    job_id = submitted(jobs, folder, "chord")
    first = jobs.get(job_id)
    assert list(states(first)) == ["list", "absent", "expand"]
    job = jobs.ended(job_id)
    assert job["state"] == "succeeded", job["error"]
    assert states(job) == PLANNED | ADDED
    assert [step["id"] for step in job["steps"]][:3] == [step["id"] for step in first["steps"]]
    assert (job["steps_done"], job["steps_total"]) == (6, 6)
    assert json.loads(job["result"]["said"]) == ["a", "b"]
    ids = {step["name"]: step["id"] for step in job["steps"]}
    after = {step["name"]: step["after"] for step in job["steps"]}
    assert after["part_a"] == after["part_b"] == [ids["expand"]]
    assert after["end"] == [ids["part_a"], ids["part_b"]]


@pytest.mark.parametrize(
    ("how", "added", "result"),
    [
        ("nothing", {}, {"succeeded_count": 2, "failed_count": 1}),
        ("group", {"part_a": "succeeded", "part_b": "succeeded"}, {"succeeded_count": 4, "failed_count": 1}),
    ],
)
def test_the_result_is_that_of_what_comes_last(
    jobs: Jobs, folder: Path, how: str, added: dict[str, str], result: dict[str, int]
) -> None:
    """Without more steps it is as if there were no `expand()`; of a group it is the numbers of the steps."""
    job = jobs.ended(submitted(jobs, folder, how))
    assert (job["state"], states(job), job["result"]) == ("succeeded", PLANNED | added, result)


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("raises", "unexpected_error", "ValueError: no luck"),
        ("refuses", "too_big", "The folder is too big."),
        ("none of a group", "invalid_expansion", "expand() of acme.fan_out gives a group without steps."),
        ("another thing", "invalid_expansion", "expand() of acme.fan_out gives list in place of steps."),
        ("the same name", "invalid_expansion", "expand() of acme.fan_out gives another step the name 'list'."),
        ("too many", "invalid_expansion", "gives 1,000 steps to a job that has 3; a job may have at most 1,000."),
    ],
)
def test_what_expand_does_wrong_is_the_failure_of_its_step(
    jobs: Jobs, folder: Path, how: str, code: str, message: str
) -> None:
    """The job fails with it, and no step is added."""
    job = jobs.ended(submitted(jobs, folder, how))
    assert (job["state"], job["error"]["step"], job["error"]["code"]) == ("failed", "expand", code)
    assert message in job["error"]["message"]
    assert states(job) == PLANNED | {"expand": "failed"}


@pytest.mark.parametrize("how", ["is killed", "is flaky"])
def test_a_second_attempt_adds_the_steps_once(jobs: Jobs, folder: Path, how: str) -> None:
    """A lost worker and a transient failure are those of any step."""
    job = jobs.ended(submitted(jobs, folder, how))
    assert (job["state"], states(job)) == ("succeeded", PLANNED | ADDED)
    assert next(step["attempt"] for step in job["steps"] if step["name"] == "expand") == 2
    assert sorted((folder / ".lines").read_text().split()) == ["a", "b"]


def test_a_job_that_is_cancelled_before_adds_nothing(jobs: Jobs, folder: Path) -> None:
    """`expand()` is interrupted like any body."""
    job_id = submitted(jobs, folder, "waits")
    wait_for((folder / ".waits").exists, "expand() runs")
    jobs.cancel(job_id)
    stopped = {**PLANNED, "expand": "cancelled"}
    wait_for(lambda: states(jobs.get(job_id)) == stopped, "it has stopped")
    assert jobs.get(job_id)["state"] == "cancelled"


def test_cancelling_reaches_the_steps_that_were_added(jobs: Jobs, folder: Path) -> None:
    """One id cancels the whole."""
    job_id = submitted(jobs, folder, "holds")
    wait_for((folder / ".holds").exists, "the last step runs")
    jobs.cancel(job_id)
    cancelled = PLANNED | ADDED | {"end": "cancelled"}
    wait_for(lambda: states(jobs.get(job_id)) == cancelled, "it has stopped")


def test_a_partial_rerun_keeps_what_succeeded(jobs: Jobs, folder: Path) -> None:
    """The step that adds the others runs again, and those of them that succeeded do not."""
    first = jobs.ended(submitted(jobs, folder, "a part fails"))
    expected = PLANNED | {"part_a": "succeeded", "part_b": "succeeded", "flaky": "failed", "end": "skipped"}
    assert (first["state"], states(first)) == ("failed", expected)
    again = http_client.post(f"{jobs.gateway.url}/jobs/{first['id']}/retry", json={"only_failed": True}).json()
    job = jobs.ended(again["id"])
    assert (job["state"], states(job)) == ("succeeded", expected | {"flaky": "succeeded", "end": "succeeded"})
    reused = {step["name"] for step in job["steps"] if step["reused_from"]}
    assert reused == {"list", "part_a", "part_b"}
    assert sorted((folder / ".lines").read_text().split()) == ["a", "b", "end"]


def test_it_is_not_part_of_another_workflow(jobs: Jobs, folder: Path) -> None:
    """Celery's canvas could not know of the steps that are to be added."""
    element = {"kind": "acme.fan_out", "params": {"folder": str(folder), "how": "chord"}}
    answer = http_client.post(
        f"{jobs.gateway.url}/jobs", json={"kind": "workflow.chain", "params": {"steps": [element]}}
    ).json()
    assert answer["errors"] == [
        {
            "pointer": "/params/steps/0/kind",
            "message": "acme.fan_out adds steps while it runs. Submit it as a job of its own.",
        }
    ]
