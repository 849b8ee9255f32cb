"""Repeating a job as a new one, and forgetting one. The test is the worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from tests.support.by_hand import PARTITIONED
from tests.support.ledgers import ERROR, claimed, record
from tests.support.servers.services import wait_for

if TYPE_CHECKING:
    import httpx

    from tests.support.servers.services import Server


@pytest.fixture
def book(valkey: Server) -> Iterator[Ledger]:
    """Return the workers' side of the ledger."""
    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        yield Ledger(client)


def submit(api: httpx.Client, body: dict[str, Any], **options: Any) -> str:
    """Submit a job and return its id."""
    answer = api.post("/jobs", json=body | {"options": options})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def fail(book: Ledger, job_id: str) -> str:
    """Let a job fail; return its id."""
    book.fail(job_id, token=claimed(book, job_id).token, error=ERROR)
    return job_id


def test_a_failed_job_runs_again_as_a_new_one_with_its_parameters_and_options(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """Both know each other. When it was to start is not kept: that time has passed."""
    job_id = fail(book, submit(api, extraction, priority=7, tags=["nightly"], max_retries=1))
    answer = api.post(f"/jobs/{job_id}/rerun")
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    old, new = api.get(f"/jobs/{job_id}").json(), api.get(answer.headers["location"]).json()
    assert (new["retried_from"], old["retried_as"], old["state"]) == (old["id"], new["id"], "failed")
    assert (new["params"], new["options"], new["tags"]) == (old["params"], old["options"], ["nightly"])
    assert (old["links"]["rerun"], new["priority"]) == (f"/jobs/{job_id}/rerun", 7)
    claimed(book, new["id"])


def test_a_job_can_be_repeated_with_other_parameters_and_single_other_options(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """Options that are not given stay as they were."""
    job_id = fail(book, submit(api, extraction, priority=7, tags=["nightly"]))
    params = {"source": {"kind": "http", "url": "https://example.com/other.csv"}}
    answer = api.post(f"/jobs/{job_id}/rerun", json={"params": params, "options": {"priority": 1, "delay_s": 3600}})
    new = api.get(answer.headers["location"]).json()
    assert new["params"]["source"]["url"] == "https://example.com/other.csv"
    assert (new["state"], new["options"]) == ("scheduled", {"priority": 1, "tags": ["nightly"], "delay_s": 3600})
    again = api.post(f"/jobs/{fail(book, submit(api, extraction, delay_s=0.0))}/rerun")
    assert api.get(again.headers["location"]).json()["options"] == {}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"params": {"source": {"kind": "http", "url": 7}}}, "/params/source/url"),
        ({"params": {"sauce": {}}}, "/params/sauce"),
        ({"options": {"priority": 10}}, "/options/priority"),
        ({"options": {"queue": "elt"}}, "/options/queue"),
        ({"parameters": {}}, "/parameters"),
    ],
)
def test_edited_parameters_are_checked_like_a_submission(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any], body: dict[str, Any], pointer: str
) -> None:
    """422 names the field, and nothing is made."""
    job_id = fail(book, submit(api, extraction))
    answer = api.post(f"/jobs/{job_id}/rerun", json=body)
    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert record(book, job_id).retried_as is None


def test_what_lives_or_succeeded_is_not_repeated(api: httpx.Client, book: Ledger, extraction: dict[str, Any]) -> None:
    """409 names the state; an unknown id is a 404."""
    live, succeeded = submit(api, extraction), submit(api, extraction)
    book.succeed(succeeded, token=claimed(book, succeeded).token, result="{}")
    answers = [api.post(f"/jobs/{job_id}/rerun") for job_id in (live, succeeded, uuid7())]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (409, "job_live"),
        (409, "job_succeeded"),
        (404, "unknown_job"),
    ]


def test_a_repetition_under_an_idempotency_key_is_made_once(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """The same call again answers with the same job, also by the old path, which a gateway of another version knows."""
    job_id, key = fail(book, submit(api, extraction)), {"Idempotency-Key": uuid7()}
    first, *more = (api.post(f"/jobs/{job_id}/{name}", headers=key) for name in ("rerun", "rerun", "retry"))
    for again in more:
        assert (again.json()["id"], again.headers["idempotency-replayed"]) == (first.json()["id"], "true")
    assert api.post(f"/jobs/{job_id}/rerun").json()["id"] != first.json()["id"]


def test_the_old_paths_do_the_same_and_are_not_documented(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """`retry` is what the service does by itself, so only `rerun` is in the document."""
    job_id, other = (fail(book, submit(api, extraction)) for _ in range(2))
    alone = api.post(f"/jobs/{job_id}/retry", json={"options": {"priority": 2}})
    assert (alone.status_code, api.get(alone.headers["location"]).json()["retried_from"]) == (202, job_id)
    many = api.post("/jobs/retry", json={"ids": [other]}).json()
    assert [item["retried_from"] for item in many["retried"]] == [other]
    paths = api.get("/openapi.json").json()["paths"]
    assert {"/jobs/rerun", "/jobs/{job_id}/rerun"} <= paths.keys()
    assert not [path for path in paths if path.endswith("/retry")]


def test_a_cancelled_workflow_runs_again_with_steps_of_its_own(api: httpx.Client, pipeline: dict[str, Any]) -> None:
    """The new one's first step is queued."""
    job_id = submit(api, pipeline)
    assert api.post(f"/jobs/{job_id}/cancel").status_code == 200
    new = api.get(api.post(f"/jobs/{job_id}/rerun").headers["location"]).json()
    assert (new["retried_from"], new["steps"][0]["state"]) == (job_id, "queued")


def test_a_partial_repetition_starts_no_step_before_its_time(
    api: httpx.Client, book: Ledger, pipeline: dict[str, Any]
) -> None:
    """The same holds for a step whose inputs are all reused."""
    job_id = submit(api, pipeline)
    first, second = (step["id"] for step in api.get(f"/jobs/{job_id}").json()["steps"][:2])
    book.succeed(first, token=claimed(book, first).token, result="{}")
    fail(book, second)
    body = {"only_failed": True, "options": {"delay_s": 3600}}
    new = api.get(api.post(f"/jobs/{job_id}/rerun", json=body).headers["location"]).json()
    assert (new["state"], [step["state"] for step in new["steps"]]) == (
        "scheduled",
        ["succeeded", "scheduled", *["waiting"] * (len(new["steps"]) - 2)],
    )


def test_a_key_whose_job_was_deleted_answers_410(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """A replay of 202 would say that the job is there. Of a batch, as long as one is left, the ids are told."""
    key = {"Idempotency-Key": uuid7()}
    for path, body in (("/jobs", extraction), ("/jobs/batch", {"jobs": [extraction, extraction]})):
        first = api.post(path, json=body, headers=key).json()
        ids = [job["id"] for job in first.get("jobs", [first])]
        for job_id in ids:
            assert api.post(path, json=body, headers=key).status_code == 202
            api.post(f"/jobs/{job_id}/cancel")
            assert api.delete(f"/jobs/{job_id}").status_code == 204
        again = api.post(path, json=body, headers=key)
        assert (again.status_code, again.json()["code"]) == (410, "expired_job")
        key = {"Idempotency-Key": uuid7()}


# -- forgetting -----------------------------------------------------------------------------------------------------


def test_a_deleted_job_is_gone_with_its_result_and_its_events(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """From then on it answers 410, it is in no list, and Celery's result is gone, too."""
    job_id = submit(api, extraction, tags=[f"tag-{uuid7()}"])
    (tag,) = api.get(f"/jobs/{job_id}").json()["tags"]
    book.succeed(job_id, token=claimed(book, job_id).token, result="{}")
    assert api.delete(f"/jobs/{job_id}").status_code == 204
    assert api.get(f"/jobs/{job_id}").status_code == 410
    assert (api.delete(f"/jobs/{job_id}").status_code, api.get(f"/jobs?tag={tag}").json()["jobs"]) == (410, [])
    assert list(book.client.scan_iter(f"*{job_id}*")) == []


def test_a_job_whose_files_are_needed_is_not_deleted(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """Neither while a live job names one, nor under a job that used its steps again."""
    job_id = submit(api, extraction)
    book.succeed(job_id, token=claimed(book, job_id).token, result="{}")
    uri = f"artifact://{job_id}/1/sales.csv"
    reader = submit(api, {"kind": "etl.extract_data", "params": {"source": {"kind": "artifact", "uri": uri}}})
    refused = api.delete(f"/jobs/{job_id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_in_use")
    api.post(f"/jobs/{reader}/cancel")
    assert api.delete(f"/jobs/{job_id}").status_code == 204


def test_a_workflow_whose_steps_were_used_again_is_not_deleted(
    api: httpx.Client, book: Ledger, pipeline: dict[str, Any]
) -> None:
    """The files of those steps are the later job's, too."""
    job_id = submit(api, pipeline)
    first, second = (step["id"] for step in api.get(f"/jobs/{job_id}").json()["steps"][:2])
    book.succeed(first, token=claimed(book, first).token, result="{}")
    book.fail(second, token=claimed(book, second).token, error=ERROR)
    assert api.post(f"/jobs/{job_id}/rerun", json={"only_failed": True}).status_code == 202
    assert api.delete(f"/jobs/{job_id}").json()["code"] == "job_in_use"


def test_a_live_job_is_not_deleted(api: httpx.Client, book: Ledger, pipeline: dict[str, Any]) -> None:
    """Nor is a workflow whose step still runs, although the job itself has ended."""
    job_id = submit(api, pipeline)
    assert (api.delete(f"/jobs/{job_id}").status_code, api.get(f"/jobs/{job_id}").status_code) == (409, 200)
    step = api.get(f"/jobs/{job_id}").json()["steps"][0]["id"]
    token = claimed(book, step).token
    api.post(f"/jobs/{job_id}/cancel")
    refused = api.delete(f"/jobs/{job_id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_live")
    book.fail(step, token=token, error=ERROR)
    assert api.delete(f"/jobs/{job_id}").status_code == 204


def test_a_workflow_is_not_repeated_while_a_step_of_it_runs(api: httpx.Client, book: Ledger) -> None:
    """It has failed, and the worker of another step has not stopped yet: both would do the same work at once."""
    job_id = submit(api, PARTITIONED)
    failing, running, _ = record(book, job_id).steps
    token = claimed(book, running.id).token
    fail(book, failing.id)
    for call in (f"/jobs/{job_id}/rerun", "/jobs/rerun"):
        answer = api.post(call, json={} if job_id in call else {"ids": [job_id]}).json()
        assert (answer.get("refused") or [answer])[0]["code"] == "job_live"
    book.fail(running.id, token=token, error=ERROR)
    assert api.post(f"/jobs/{job_id}/rerun", json={"only_failed": True}).status_code == 202


def test_the_files_of_a_deleted_job_go_even_if_the_gateway_did_not_hear_that_it_is_deleted(
    api: httpx.Client, book: Ledger, pipeline: dict[str, Any]
) -> None:
    """The keeper removes those of the job and of its steps, and has no more to do afterwards."""
    job_id = submit(api, pipeline)
    ids = {job_id, *(step["id"] for step in api.get(f"/jobs/{job_id}").json()["steps"])}
    api.post(f"/jobs/{job_id}/cancel")
    assert set(book.call("forget", {"id": job_id, "files_ms": 0})) == {"forgotten", *ids}
    tended = wait_for(lambda: book.tend(owner="k"), "a round: workers of other tests may have been the keeper")
    assert ids <= {action.id for action in tended.actions if action.what == "forgotten"}
    assert not any(book.client.zscore(book.keys("uploads"), each) for each in ids)
    assert api.delete(f"/jobs/{job_id}").status_code == 410
