"""Submit, read, wait, list and cancel, on a real gateway process and a real Valkey."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis

from shared.contract.catalogue import catalogue
from shared.ledger.client import Ledger
from shared.ledger.envelopes import composed, numbered
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.records import Claim
from tests.support.by_hand import HandRun, waiting_requests
from tests.support.ledgers import ERROR
from tests.support.servers.services import wait_for

if TYPE_CHECKING:
    import httpx

    from tests.support.servers.services import Server


def ids_of(response: httpx.Response) -> list[str]:
    """Return the ids of a list or of an accepted batch."""
    return [job["id"] for job in response.json()["jobs"]]


def ledger(valkey: Server) -> Ledger:
    """Return the workers' side of the ledger."""
    return Ledger(redis.Redis(port=valkey.port, decode_responses=True))


def succeed(valkey: Server, job_id: str, result: dict[str, Any]) -> None:
    """Run a job as a worker does."""
    book = ledger(valkey)
    claim = book.claim(job_id, owner="me", worker="me@here", lease_s=30, message="{}", delivery=uuid7())
    assert isinstance(claim, Claim)
    book.succeed(job_id, token=claim.token, result=json.dumps(result))


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_progress_is_complete_or_says_where_the_job_stopped(
    end: str, api: httpx.Client, extraction: dict[str, Any], valkey: Server
) -> None:
    """Of a body that last said 3 of 10, alone and as a step, and in lists."""
    pair = {"kind": "workflow.group", "params": {"steps": [extraction]}}
    job_id, workflow = (api.post("/jobs", json=body).json()["id"] for body in (extraction, pair))
    book = ledger(valkey)
    step = api.get(f"/jobs/{workflow}").json()["steps"][0]["id"]
    for each in (job_id, step):
        run = HandRun(book, each)
        run.claim()
        run.progress(3, 10)
        if end == "succeeded":
            run.succeed()
        elif end == "failed":
            book.fail(each, token=run.token, error=ERROR)
        else:
            api.post(f"/jobs/{job_id if each == job_id else workflow}/cancel")
            book.stopped(each, token=run.token)
    (of_step,) = api.get(f"/jobs/{workflow}").json()["steps"]
    (in_list,) = [job for job in api.get("/jobs").json()["jobs"] if job["id"] == job_id]
    expected = (10, 10, 1.0) if end == "succeeded" else (3, 10, 0.3)
    for job in (api.get(f"/jobs/{job_id}").json(), in_list, of_step):
        progress = job["progress"]
        assert (job["state"], progress["current"], progress["total"], progress["ratio"]) == (end, *expected)


def test_a_cancel_that_came_too_late_says_so(api: httpx.Client, extraction: dict[str, Any], valkey: Server) -> None:
    """With `wait_s` it waits for the end, and 409 says that the job ended otherwise; one that held is a 200."""
    for succeeds in (True, False):
        job_id = api.post("/jobs", json=extraction).json()["id"]
        run = HandRun(ledger(valkey), job_id)
        run.claim()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(api.post, f"/jobs/{job_id}/cancel", params={"wait_s": 30})
            wait_for(lambda: waiting_requests(f"{api.base_url}") == 1, "the request that waits")
            if succeeds:
                run.succeed()
                answer = asked.result()
                assert (answer.status_code, answer.json()["code"]) == (409, "job_ended")
                assert "has ended as succeeded before its worker could stop it" in answer.json()["detail"]
            else:
                run.ledger.stopped(job_id, token=run.token)
                answer = asked.result()
                assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


def test_submitted_job_is_found_where_location_says(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """202 has an id, a Location and a Retry-After; the job is queued, with the parameters that were given."""
    response = api.post("/jobs", json=extraction)
    accepted = response.json()
    assert (202, f"/jobs/{accepted['id']}", "1") == (
        response.status_code,
        response.headers["location"],
        response.headers["retry-after"],
    )
    assert (accepted["kind"], accepted["state"]) == ("etl.extract_data", "queued")

    job = api.get(response.headers["location"]).json()
    assert job["params"] == extraction["params"]
    assert (job["queue"], job["priority"], job["options"], job["steps"]) == ("etl", 4, {}, [])
    assert job["created_at"] == accepted["created_at"] == job["queued_at"]
    assert job["links"]["cancel"] == f"/jobs/{job['id']}/cancel"


def test_options_are_kept_and_shown(api: httpx.Client, extraction: dict[str, Any], valkey: Server) -> None:
    """Priority, tags, limits and the queue reach the record and the message."""
    options = {"priority": 9, "tags": ["a", "b"], "time_limit_s": 100, "max_retries": 0, "queue": "report"}
    url = api.post("/jobs", json=extraction | {"options": options}).headers["location"]
    job = api.get(url).json()
    assert (job["options"], job["priority"], job["tags"], job["queue"]) == (options, 9, ["a", "b"], "report")
    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        record = client.hgetall(key("job", job["id"]))
        (message,) = client.lrange("report", 0, -1)
    assert json.loads(message)["headers"]["timelimit"] == [100, 90]
    kept = {"job_id": job["id"]} | {name: record[name] for name in ("kind", "queue", "params")}
    assert message == numbered(composed(record["envelope"], **kept))
    assert record["max_retries"] == "0"


def test_stored_parameters_are_what_the_worker_will_check(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """What the gateway stores is accepted by the contract again, and equal."""
    params = api.get(api.post("/jobs", json=extraction).headers["location"]).json()["params"]
    contract = catalogue()["etl.extract_data"]
    assert contract.model_validate_json(json.dumps(extraction["params"])) == contract.model_validate_json(
        json.dumps(params)
    )


def test_workflow_has_its_steps_from_the_start(api: httpx.Client, pipeline: dict[str, Any], valkey: Server) -> None:
    """Every step has an id and a state before anything runs; only the first is published, with the job's priority."""
    response = api.post("/jobs", json=pipeline | {"options": {"priority": 8, "tags": ["flow"]}})
    job = api.get(response.headers["location"]).json()
    assert [(step["name"], step["state"]) for step in job["steps"]] == [
        ("extract", "queued"),
        ("transform", "waiting"),
        ("load", "waiting"),
    ]
    assert (job["steps_done"], job["steps_total"], job["progress"]["ratio"]) == (0, 3, 0)
    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        messages = client.lrange("etl\x06\x161", 0, -1)
    published = {json.loads(message)["headers"]["id"] for message in messages}
    assert {step["id"] for step in job["steps"]} & published == {job["steps"][0]["id"]}


def test_parallel_workflow_starts_all_its_parts(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """A chord's header is queued at once; its body waits."""
    params = {"sources": [extraction["params"]["source"]] * 3}
    job = api.get(api.post("/jobs", json={"kind": "etl.run_partitioned", "params": params}).headers["location"]).json()
    assert [step["state"] for step in job["steps"]] == ["queued", "queued", "queued", "waiting"]


@pytest.mark.parametrize("kind", ["extraction", "pipeline"])
def test_delayed_job_is_scheduled(kind: str, api: httpx.Client, request: pytest.FixtureRequest) -> None:
    """`delay_s` and `run_at` set a time; nothing, also no step, is queued before it."""
    submission = request.getfixturevalue(kind)
    accepted = api.post("/jobs", json=submission | {"options": {"delay_s": 3_600, "expires_in_s": 7_200}}).json()
    job = api.get(f"/jobs/{accepted['id']}").json()
    created, due, expires = (datetime.fromisoformat(job[name]) for name in ("created_at", "due_at", "expires_at"))
    assert accepted["state"] == job["state"] == "scheduled"
    assert timedelta(seconds=3_598) < due - created < timedelta(seconds=3_602)
    assert expires - due == timedelta(seconds=3_600)
    assert "queued" not in [step["state"] for step in job["steps"]]


def test_time_that_has_passed_means_now(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """A `run_at` in the past, in any offset, queues the job at once."""
    accepted = api.post("/jobs", json=extraction | {"options": {"run_at": "2020-01-31T12:00:00+05:30"}}).json()
    assert (accepted["state"], api.get(f"/jobs/{accepted['id']}").json()["state"]) == ("queued", "queued")


def test_batch_is_accepted_in_order(api: httpx.Client, extraction: dict[str, Any], pipeline: dict[str, Any]) -> None:
    """A batch mixes kinds and answers in its own order; ids sort by it."""
    response = api.post("/jobs/batch", json={"jobs": [extraction, pipeline, extraction]})
    kinds = [job["kind"] for job in response.json()["jobs"]]
    assert (202, [extraction["kind"], pipeline["kind"], extraction["kind"]]) == (response.status_code, kinds)
    assert ids_of(response) == sorted(ids_of(response))
    assert [api.get(f"/jobs/{job_id}").status_code for job_id in ids_of(response)] == [200, 200, 200]


def test_same_key_and_body_replay_the_first_answer(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """However the body is spelt: the same request makes one job."""
    headers = {"Idempotency-Key": uuid7(), "Content-Type": "application/json"}
    first = api.post("/jobs", content=json.dumps(extraction), headers=headers)
    spelt = json.dumps(dict(reversed(extraction.items())), indent=3)
    second = api.post("/jobs", content=spelt, headers=headers)
    assert second.json() == first.json()
    assert second.headers["location"] == first.headers["location"]
    assert ("idempotency-replayed" in first.headers, second.headers["idempotency-replayed"]) == (False, "true")


def test_batch_and_scheduled_job_replay_too(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """Each form of submission gives its first answer again."""
    delayed = extraction | {"options": {"delay_s": 600}}
    for path, body in (("/jobs", delayed), ("/jobs/batch", {"jobs": [delayed, extraction]})):
        headers = {"Idempotency-Key": uuid7()}
        first, second = (api.post(path, json=body, headers=headers) for _ in range(2))
        assert second.json() == first.json()
        assert second.headers["idempotency-replayed"] == "true"


def test_simultaneous_submissions_with_one_key_make_one_job(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """There is no window between reservation and record."""
    headers = {"Idempotency-Key": uuid7()}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.post("/jobs", json=extraction, headers=headers), range(24)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1


def test_unchanged_job_is_304(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """Polling with `If-None-Match` costs no body until something changes."""
    url = api.post("/jobs", json=extraction).headers["location"]
    tag = api.get(url).headers["etag"]
    for known in (tag, f'"x", W/{tag}', "*"):
        unchanged = api.get(url, headers={"If-None-Match": known})
        assert (304, b"", tag) == (unchanged.status_code, unchanged.content, unchanged.headers["etag"])
    api.post(f"{url}/cancel")
    changed = api.get(url, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["state"]) == (200, "cancelled")


@pytest.mark.parametrize("ask", [{"params": {"wait_s": 30}}, {"headers": {"Prefer": "respond-async, wait=30"}}])
def test_wait_answers_as_soon_as_the_job_ends(
    ask: dict[str, Any], api: httpx.Client, extraction: dict[str, Any], valkey: Server
) -> None:
    """The answer comes with the end, not with the end of the time."""
    job_id = api.post("/jobs", json=extraction).json()["id"]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(api.get, f"/jobs/{job_id}", **ask)
        wait_for(lambda: waiting_requests(f"{api.base_url}") == 1, "the request that waits")
        began = time.monotonic()
        succeed(valkey, job_id, {"rows": 3})
        response = asked.result()
    assert time.monotonic() - began < 20
    job = response.json()
    assert (job["state"], job["result"], job["attempt"]) == ("succeeded", {"rows": 3}, 1)
    assert [(a["worker"], a["outcome"]) for a in job["attempts"]] == [("me@here", "succeeded")]
    assert response.headers.get("preference-applied") == ("wait=30" if "headers" in ask else None)


def test_wait_gives_the_job_as_it_is_when_the_time_is_up(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """Waiting is not an error when nothing ends."""
    started = time.monotonic()
    job = api.get(api.post("/jobs", json=extraction).headers["location"], params={"wait_s": 0.5}).json()
    assert (job["state"], time.monotonic() - started > 0.45) == ("queued", True)


def test_wait_for_a_workflow_goes_on_until_its_last_step_has_ended(
    api: httpx.Client, pipeline: dict[str, Any], valkey: Server
) -> None:
    """The ends of its steps do not end the wait; the answer has them all, and what is done when the time is up."""
    job_id = api.post("/jobs", json=pipeline).json()["id"]
    steps = [step["id"] for step in api.get(f"/jobs/{job_id}").json()["steps"]]
    succeed(valkey, steps[0], {})
    assert api.get(f"/jobs/{job_id}", params={"wait_s": 0.2}).json()["steps_done"] == 1
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.get, f"/jobs/{job_id}", params={"wait_s": 30})
        for step in steps[1:]:
            succeed(valkey, step, {})
        job = waiting.result().json()
    assert (job["state"], {step["state"] for step in job["steps"]}) == ("succeeded", {"succeeded"})


@pytest.mark.parametrize("wait_s", ["-1", "60.5", "soon"])
def test_wait_has_bounds(wait_s: str, api: httpx.Client, extraction: dict[str, Any]) -> None:
    """0 to 60 seconds."""
    url = api.post("/jobs", json=extraction).headers["location"]
    assert api.get(url, params={"wait_s": wait_s}).status_code == 422


def test_many_wait_while_others_are_served(api: httpx.Client, extraction: dict[str, Any], valkey: Server) -> None:
    """A waiting request holds no thread and no connection to the ledger."""
    job_id = api.post("/jobs", json=extraction).json()["id"]
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(api.get, f"/jobs/{job_id}", params={"wait_s": 30}) for _ in range(40)]
        assert api.post("/jobs", json=extraction).status_code == 202
        succeed(valkey, job_id, {})
        assert {future.result().json()["state"] for future in waiting} == {"succeeded"}


def test_cancel_before_it_runs(api: httpx.Client, pipeline: dict[str, Any]) -> None:
    """One id cancels the whole, at once, although no worker is up."""
    url = api.post("/jobs", json=pipeline).headers["location"]
    response = api.post(f"{url}/cancel")
    job = api.get(url).json()
    assert (response.status_code, response.json()["state"], job["state"]) == (200, "cancelled", "cancelled")
    assert {step["state"] for step in job["steps"]} == {"cancelled"}
    assert job["error"]["code"] == "cancelled"


def test_cancel_of_a_running_job_is_a_request(api: httpx.Client, extraction: dict[str, Any], valkey: Server) -> None:
    """The worker that has it is told; until it has stopped the job runs."""
    url = api.post("/jobs", json=extraction).headers["location"]
    job_id = url.rpartition("/")[2]
    ledger(valkey).claim(job_id, owner="me", worker="me@here", lease_s=30, message="{}", delivery=uuid7())
    response = api.post(f"{url}/cancel")
    job = api.get(url).json()
    assert (response.status_code, response.json()["state"]) == (202, "cancel_requested")
    assert (job["state"], job["cancel_requested_at"] is None) == ("running", False)


def test_failed_job_is_a_200_with_its_error(api: httpx.Client, extraction: dict[str, Any], valkey: Server) -> None:
    """A failure of the job is not a failure of the request."""
    url = api.post("/jobs", json=extraction).headers["location"]
    job_id = url.rpartition("/")[2]
    book = ledger(valkey)
    claim = book.claim(job_id, owner="me", worker="me@here", lease_s=30, message="{}", delivery=uuid7())
    assert isinstance(claim, Claim)
    error = {"code": "no_rows", "message": "m", "remedy": "r", "retryable": False, "details": {}}
    book.fail(job_id, token=claim.token, error=json.dumps(error))
    response = api.get(url)
    assert (response.status_code, response.json()["state"]) == (200, "failed")
    assert response.json()["error"] == error | {"step": None}


def submit_tagged(api: httpx.Client, extraction: dict[str, Any], count: int) -> tuple[str, list[str]]:
    """Submit jobs with a tag of their own; return it, and their ids, newest first."""
    tag = uuid7()
    job = extraction | {"options": {"tags": [tag]}}
    return tag, ids_of(api.post("/jobs/batch", json={"jobs": [job] * count}))[::-1]


def test_list_is_newest_first_and_pages_do_not_overlap(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """Following the tokens shows each job once, also while others come in."""
    tag, ids = submit_tagged(api, extraction, 7)
    seen: list[str] = []
    query: dict[str, Any] = {"tag": tag, "page_size": 3}
    for _ in range(5):
        page = api.get("/jobs", params=query)
        seen += ids_of(page)
        api.post("/jobs", json=extraction | {"options": {"tags": [tag]}})
        if page.json()["next_page_token"] is None:
            break
        query["page_token"] = page.json()["next_page_token"]
    assert seen == ids


def test_page_token_belongs_to_its_filters(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """A token of another list would skip jobs silently."""
    tag, _ = submit_tagged(api, extraction, 3)
    token = api.get("/jobs", params={"tag": tag, "page_size": 1}).json()["next_page_token"]
    response = api.get("/jobs", params={"tag": tag, "kind": "etl.extract_data", "page_token": token})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_page_token")


def test_list_filters(api: httpx.Client, extraction: dict[str, Any], pipeline: dict[str, Any]) -> None:
    """States (several), kind, queue, tag and time narrow the list together."""
    tag, ids = submit_tagged(api, extraction, 3)
    flow = api.post("/jobs", json=pipeline | {"options": {"tags": [tag]}}).json()
    api.post(f"/jobs/{ids[0]}/cancel")

    def listed(**query: Any) -> list[str]:
        return ids_of(api.get("/jobs", params={"tag": tag, **query}))

    assert listed() == [flow["id"], *ids]
    assert listed(state="cancelled") == ids[:1]
    assert listed(state=["cancelled", "queued"]) == [flow["id"], *ids]
    assert listed(state="queued", kind="etl.extract_data") == ids[1:]
    assert listed(queue="ml") == []
    assert listed(created_before=flow["created_at"], created_after="2020-01-01T00:00:00Z") == ids
    assert listed(created_after=(datetime.now(UTC) + timedelta(hours=1)).isoformat()) == []


def test_list_shows_summaries(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """A list has no parameters and no steps; its jobs are found by their links."""
    tag, _ = submit_tagged(api, extraction, 1)
    (job,) = api.get("/jobs", params={"tag": tag}).json()["jobs"]
    assert {"params", "steps", "result", "attempts"} & job.keys() == set()
    assert api.get(job["links"]["self"]).json()["id"] == job["id"]
