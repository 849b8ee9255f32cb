"""Workers as their heartbeats in the ledger tell; real ones are in tests/integration/test_operator.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.operations import AboutWorker, Presence
from tests.support.ledgers import claimed, entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.support.servers.services import Server

ABOUT = AboutWorker(
    name="etl@host",
    host="host",
    pid=42,
    families=("etl",),
    concurrency=2,
    started_at=1_700_000_000_000,
    versions={"celeriac": "0.1.0", "celery": "5.7.0", "python": "3.11.7"},
)


@pytest.fixture
def book(empty_valkey: Server) -> Iterator[Ledger]:
    """Return the workers' side of an empty ledger."""
    with redis.Redis(port=empty_valkey.port, decode_responses=True) as client:
        yield Ledger(client)


def workers(api: httpx.Client) -> list[dict[str, Any]]:
    """Return what is said of the workers."""
    answer = api.get("/workers")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["workers"])


def test_a_worker_is_shown_with_what_it_is_and_runs(api: httpx.Client, book: Ledger) -> None:
    """Of the jobs that it has, those that it has not claimed are not active."""
    running, reserved = entry(), entry()
    for job in (running, reserved):
        book.call("accept", [{"jobs": [job.record()]}])
    claimed(book, running.id, owner="w1")
    Presence(book, owner="w1", lease_s=60).heartbeat(
        ABOUT, queues=["etl"], jobs=[running.id, reserved.id], kinds=["acme.shout_text", "etl.extract_data"]
    )
    (shown,) = workers(api)
    (active,) = shown.pop("active")
    assert (active["id"], active["job_id"], active["kind"], active["step"]) == (
        running.id,
        running.id,
        "acme.shout_text",
        None,
    )
    assert shown.pop("last_seen_at") > "2026"
    assert shown == {
        "name": "etl@host",
        "host": "host",
        "pid": 42,
        "families": ["etl"],
        "queues": ["etl"],
        "kinds": ["acme.shout_text", "etl.extract_data"],
        "concurrency": 2,
        "versions": {"celeriac": "0.1.0", "celery": "5.7.0", "python": "3.11.7"},
        "state": "online",
        "started_at": "2023-11-14T22:13:20Z",
    }


def test_a_worker_that_does_not_say_its_kinds_is_shown(api: httpx.Client, book: Ledger) -> None:
    """One of an earlier version, during a deployment; one without any kinds is another thing."""
    Presence(book, owner="w1", lease_s=60).heartbeat(ABOUT, queues=["etl"], jobs=[])
    assert workers(api)[0]["kinds"] is None
    Presence(book, owner="w1", lease_s=60).heartbeat(ABOUT, queues=["etl"], jobs=[], kinds=[])
    assert workers(api)[0]["kinds"] == []


def test_a_silent_worker_is_lost_and_consumes_nothing(api: httpx.Client, book: Ledger) -> None:
    """Its lease is over. One that ends says so and is gone."""
    lost, ends = Presence(book, owner="w1", lease_s=-1), Presence(book, owner="w2", lease_s=60)
    lost.heartbeat(ABOUT, queues=["etl"], jobs=[])
    ends.heartbeat(ABOUT, queues=["etl", "ml"], jobs=[])
    assert [worker["state"] for worker in workers(api)] == ["lost", "online"]
    assert consumers(api) == {"callbacks": 0, "etl": 1, "maintenance": 0, "ml": 1, "report": 0}
    ends.leave()
    assert [worker["state"] for worker in workers(api)] == ["lost"]
    assert consumers(api) == {"callbacks": 0, "etl": 0, "maintenance": 0, "ml": 0, "report": 0}


def test_what_a_worker_consumes_is_what_it_said_last(api: httpx.Client, book: Ledger) -> None:
    """It can be told to consume other queues, and consumes none while it shuts down."""
    presence = Presence(book, owner="w1", lease_s=60)
    presence.heartbeat(ABOUT, queues=["etl", "ml"], jobs=[])
    presence.heartbeat(ABOUT, queues=["ml"], jobs=[])
    assert (consumers(api)["etl"], consumers(api)["ml"], workers(api)[0]["queues"]) == (0, 1, ["ml"])
    presence.heartbeat(ABOUT, queues=[], jobs=[])
    assert (consumers(api)["ml"], workers(api)[0]["queues"]) == (0, [])


def consumers(api: httpx.Client) -> dict[str, int]:
    """Return how many workers consume each queue."""
    return {queue["name"]: queue["consumers"] for queue in api.get("/queues").json()["queues"]}
