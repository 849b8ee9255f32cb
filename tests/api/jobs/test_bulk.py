"""Many jobs at once. The test is the worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from tests.support.ledgers import ERROR, claimed, record

if TYPE_CHECKING:
    import httpx

    from tests.support.servers.services import Server


@pytest.fixture
def book(empty_valkey: Server) -> Iterator[Ledger]:
    """Return the workers' side of an empty ledger."""
    with redis.Redis(port=empty_valkey.port, decode_responses=True) as client:
        yield Ledger(client)


def submit(api: httpx.Client, body: dict[str, Any], count: int, **options: Any) -> list[str]:
    """Submit jobs and return their ids, newest first."""
    answer = api.post("/jobs/batch", json={"jobs": [body | {"options": options}] * count})
    assert answer.status_code == 202, answer.text
    return [job["id"] for job in reversed(answer.json()["jobs"])]


def fail(book: Ledger, job_id: str) -> None:
    """Let a job fail."""
    book.fail(job_id, token=claimed(book, job_id).token, error=ERROR)


def call(api: httpx.Client, what: str, **body: Any) -> dict[str, Any]:
    """Make a call for many jobs and return its answer."""
    answer = api.post(f"/jobs/{what}", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def codes(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Return which jobs were refused and why."""
    return [(refused["id"], refused["code"]) for refused in answer["refused"]]


def test_jobs_are_cancelled_by_ids_and_each_refusal_says_why(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any], pipeline: dict[str, Any]
) -> None:
    """A dry run tells the same and changes nothing."""
    waits, runs, ended = submit(api, extraction, 3)
    (workflow,) = submit(api, pipeline, 1)
    never, step = uuid7(), api.get(f"/jobs/{workflow}").json()["steps"][0]["id"]
    claimed(book, runs)
    fail(book, ended)
    ids = [waits, runs, ended, workflow, never, step, waits]
    expected = {
        "cancelled": [waits, workflow],
        "requested": [runs],
        "noted": [],
        "next_page_token": None,
    }
    for dry_run in (True, False):
        answer = call(api, "cancel", ids=ids, dry_run=dry_run)
        assert answer.pop("dry_run") is dry_run
        assert sorted(codes(answer)) == sorted([(never, "unknown_job"), (step, "unknown_job"), (ended, "job_ended")])
        del answer["refused"]
        assert answer == expected
        assert (record(book, waits).state == "queued") is dry_run
    assert (record(book, workflow).state, record(book, runs).cancel_requested_at is None) == ("cancelled", False)


def test_jobs_are_cancelled_by_a_filter_like_that_of_the_list(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """Ended jobs and jobs outside the filter are not matched."""
    others = submit(api, extraction, 2, tags=["keep"])
    mine = submit(api, extraction, 4, tags=["mine"]) + submit(api, extraction, 1, tags=["mine"], delay_s=3600)
    fail(book, mine[0])
    assert sorted(call(api, "cancel", filter={"tag": "mine"}, dry_run=True)["cancelled"]) == sorted(mine[1:])
    done = call(api, "cancel", filter={"tag": "mine", "state": ["queued", "failed"]})
    assert (done["cancelled"], done["refused"], done["next_page_token"]) == (mine[1:4], [], None)
    long_ago = {"kind": "etl.extract_data", "created_before": "2026-01-01T00:00:00Z"}
    assert call(api, "cancel", filter=long_ago)["cancelled"] == []
    assert sorted(call(api, "cancel", filter={})["cancelled"]) == sorted([mine[4], *others])


def test_jobs_that_did_not_succeed_are_repeated_once(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """By a filter or by ids, the same call again repeats nothing twice."""
    jobs = submit(api, extraction, 3, tags=["mine"], priority=8)
    (live,) = submit(api, extraction, 1, tags=["mine"])
    for job_id in jobs:
        fail(book, job_id)
    dry = call(api, "rerun", filter={"tag": "mine"}, dry_run=True)
    assert dry["retried"] == [{"retried_from": job_id, "id": None, "links": None} for job_id in jobs]
    done = call(api, "rerun", filter={"tag": "mine"})
    assert [item["retried_from"] for item in done["retried"]] == jobs
    for item in done["retried"]:
        new = api.get(item["links"]["self"]).json()
        assert (new["retried_from"], new["priority"], new["state"]) == (item["retried_from"], 8, "queued")
    assert call(api, "rerun", filter={"tag": "mine"})["retried"] == []
    again = call(api, "rerun", ids=[*jobs, live])
    assert (again["retried"], codes(again)) == (
        [],
        [*((job_id, "already_retried") for job_id in jobs), (live, "job_live")],
    )


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"ids": [], "filter": {}}, "/ids"),
        ({"ids": ["x" * 256]}, "/ids/0"),
        ({"filter": {"states": ["failed"]}}, "/filter/states"),
        ({"filter": {"state": ["succeeded"]}}, "/filter/state"),
        ({"filter": {"page_token": "x"}}, "page_token"),
        ({"filter": {"created_after": 1}}, "/filter/created_after"),
        ({"filter": {"created_after": "1768478400"}}, "/filter/created_after"),
        ({"filter": {"created_before": "2026-01-15"}}, "/filter/created_before"),
        ({"ids": ["0192f0c1-2a4b-7c3d-8e5f-0123456789ab"] * 1_001}, "/ids"),
    ],
)
@pytest.mark.parametrize("what", ["cancel", "rerun"])
def test_a_wrong_selection_is_refused_where_it_is_wrong(
    api: httpx.Client, what: str, body: dict[str, Any], pointer: str
) -> None:
    """And nothing is done."""
    answer = api.post(f"/jobs/{what}", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
