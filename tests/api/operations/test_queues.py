"""Queues: what is said of them, and their pauses. The workers' side is the test's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.records import Refusal
from tests.support.ledgers import claim, claimed

if TYPE_CHECKING:
    import httpx

    from tests.support.servers.services import Server


@pytest.fixture
def book(empty_valkey: Server) -> Iterator[Ledger]:
    """Return the workers' side of an empty ledger."""
    with redis.Redis(port=empty_valkey.port, decode_responses=True) as client:
        yield Ledger(client)


def queue(api: httpx.Client, name: str = "etl") -> dict[str, Any]:
    """Return what is said of a queue."""
    (found,) = (queue for queue in api.get("/queues").json()["queues"] if queue["name"] == name)
    return dict(found)


def submit(api: httpx.Client, body: dict[str, Any], **options: Any) -> str:
    """Submit a job and return its id."""
    answer = api.post("/jobs", json=body | {"options": options})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def consume(book: Ledger, name: str) -> None:
    """Let a worker consume the queue."""
    beat = {"owner": "w1", "about": "{}", "queues": [name], "jobs": [], "lease_ms": 60_000, "keep_ms": 60_000}
    book.call("beat", beat)


def test_a_queue_tells_its_depth_its_oldest_job_and_that_nobody_consumes_it(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """Depth counts every priority; with a consumer there is no reason left."""
    empty = queue(api)
    assert (empty["depth"], empty["waiting_reason"]) == (0, None)
    assert (empty["oldest_waiting"], empty["oldest_waiting_s"]) == (None, None)
    ids = [submit(api, extraction, priority=priority) for priority in (0, 9, 4)]
    found = queue(api)
    assert (found["depth"], found["oldest_waiting"], found["consumers"]) == (3, ids[0], 0)
    assert (found["waiting_reason"], found["is_paused"]) == ("no_consumer", False)
    assert 0 <= found["oldest_waiting_s"] < 60
    consume(book, "etl")
    assert (queue(api)["waiting_reason"], queue(api)["consumers"]) == (None, 1)
    claimed(book, ids[1])
    assert (queue(api)["depth"], queue(api)["running"]) == (2, 1)
    assert (queue(api, "ml")["depth"], queue(api, "ml")["running"]) == (0, 0)


def test_each_job_says_why_it_waits_and_behind_how_many(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any], pipeline: dict[str, Any]
) -> None:
    """In the job and in lists; a workflow and its steps too."""
    first, workflow, later = submit(api, extraction), submit(api, pipeline), submit(api, extraction, delay_s=3600)
    waits = [(job["id"], job["waiting_reason"], job["queue_position"]) for job in api.get("/jobs").json()["jobs"]]
    assert waits == [(later, "scheduled", None), (workflow, "no_consumer", None), (first, "no_consumer", None)]
    consume(book, "etl")
    shown = api.get(f"/jobs/{workflow}").json()
    assert (shown["waiting_reason"], shown["queue_position"]) == ("behind", 1)
    assert [(step["waiting_reason"], step["queue_position"]) for step in shown["steps"]][:2] == [
        ("behind", 1),
        (None, None),
    ]
    claimed(book, first)
    running = api.get(f"/jobs/{first}").json()
    assert (running["waiting_reason"], running["queue_position"]) == (None, None)
    assert api.get(f"/jobs/{workflow}").json()["queue_position"] == 0


def test_a_paused_queue_starts_nothing_until_it_is_resumed(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """Both calls may be made twice, and answer with the queue as it is then."""
    before = submit(api, extraction)
    paused = api.post("/queues/etl/pause")
    assert (paused.status_code, paused.json()["is_paused"]) == (200, True)
    assert api.post("/queues/etl/pause").json()["paused_at"] == paused.json()["paused_at"]
    after = submit(api, extraction)
    assert claim(book, before) == Refusal("held", "")
    found = queue(api)
    assert (found["depth"], found["held"], found["waiting_reason"]) == (2, 2, "queue_paused")
    assert {api.get(f"/jobs/{job}").json()["waiting_reason"] for job in (before, after)} == {"queue_paused"}
    assert queue(api, "ml")["is_paused"] is False
    resumed = api.post("/queues/etl/resume").json()
    assert (resumed["is_paused"], resumed["paused_at"], resumed["held"], resumed["depth"]) == (False, None, 0, 2)
    assert api.post("/queues/etl/resume").json()["held"] == 0
    claimed(book, before)


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_an_unknown_queue_is_a_404_that_names_what_was_meant(api: httpx.Client, action: str) -> None:
    """Whatever the name; nothing is paused by mistake."""
    answer = api.post(f"/queues/etll/{action}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_queue")
    assert "'etl'" in answer.json()["detail"]


@pytest.mark.usefixtures("book")
def test_a_concurrency_key_is_for_jobs_and_not_for_workflows(
    api: httpx.Client, extraction: dict[str, Any], pipeline: dict[str, Any]
) -> None:
    """A workflow that asks for one is told where."""
    submit(api, extraction, concurrency_key="crm", concurrency_limit=2)
    refused = api.post("/jobs", json=pipeline | {"options": {"concurrency_key": "crm"}})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/options/concurrency_key")


def test_jobs_over_the_limit_of_their_key_are_held_back(
    api: httpx.Client, book: Ledger, extraction: dict[str, Any]
) -> None:
    """They say so, the queue counts them, and they follow when a place is free."""
    first, second = (submit(api, extraction, concurrency_key="crm") for _ in range(2))
    token = claimed(book, first).token
    assert claim(book, second) == Refusal("held", "")
    consume(book, "etl")
    assert (queue(api)["depth"], queue(api)["concurrency_limited"], queue(api)["held"]) == (1, 1, 0)
    assert api.get(f"/jobs/{second}").json()["waiting_reason"] == "concurrency_limited"
    book.succeed(first, token=token, result="{}")
    assert api.get(f"/jobs/{second}").json()["waiting_reason"] == "behind"
    claimed(book, second)
