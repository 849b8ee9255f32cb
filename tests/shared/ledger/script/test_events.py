"""The events of a job: one stream, read from any id, and the channel that announces them."""

from __future__ import annotations

import json
from typing import Any

from shared.ledger.client import Ledger
from shared.ledger.history import Event, event_place
from shared.ledger.keys import key
from tests.support.ledgers import RESULT, claimed, entry, record, with_async, workflow
from tests.support.servers.services import BOUND_S, Server


def test_events_are_read_in_order_and_go_on_after_an_id(accept: Any, ledger: Ledger, empty_valkey: Server) -> None:
    """States, progress and log lines come from one stream, resumable at any id."""
    job = entry()
    accept(job)
    token = claimed(ledger, job.id).token
    ledger.progress(job.id, token=token, progress='{"current": 1}', logs=['{"message": "hello"}'])
    ledger.succeed(job.id, token=token, result=RESULT)

    def events(after: str = "-") -> list[Event]:
        return list(with_async(empty_valkey.redis_url, lambda gateway: gateway.events(job.id, after=after)))

    everything = events()
    assert [event.event for event in everything] == ["state", "state", "log", "progress", "state"]
    assert [events(after=event.id) for event in everything] == [everything[n:] for n in range(1, 6)]
    assert [events(after=text) for text in ("0", "1-1")] == [everything] * 2


def test_the_first_event_is_the_first_whatever_the_clock_does(
    accept: Any, ledger: Ledger, client: Any, empty_valkey: Server
) -> None:
    """What happens within its millisecond, or before it by a clock that was set back, follows it.

    It is in the record; where later events fill a stream, it has been trimmed like any other.
    """
    job, older = entry(), entry()
    accept(job, older)

    def told(job_id: str, count: int = 9) -> list[tuple[str, int]]:
        found = with_async(empty_valkey.redis_url, lambda gateway: gateway.events(job_id, count=count))
        assert found == sorted(found, key=lambda event: event_place(event.id))
        return [(json.loads(event.data)["state"], event.at_ms) for event in found if event.event == "state"]

    at = record(ledger, job.id).created_at
    ahead = at + 3_600_000
    client.hset(key("job", job.id), "created_at", ahead)
    assert told(job.id) == [("queued", ahead)]
    token = claimed(ledger, job.id).token
    assert [state for state, _ in told(job.id)] == ["queued", "running"]
    assert told(job.id)[0] == ("queued", ahead)
    assert told(job.id, count=1) == [("queued", ahead)]
    ledger.succeed(job.id, token=token, result=RESULT)
    assert [state for state, _ in told(job.id)] == ["queued", "running", "succeeded"]
    token = claimed(ledger, older.id).token
    client.hset(key("job", older.id), "created_at", ahead)
    ledger.succeed(older.id, token=token, result=RESULT)  # its stream has begun: nothing can be written before it
    assert client.xlen(key("events", older.id)) == 2
    client.hset(key("job", older.id), "created_at", at)
    for _ in range(2_000):
        client.xadd(key("events", older.id), {"event": "log", "at": 1, "data": "{}"})
    assert "queued" not in [state for state, _ in told(older.id, 5_000)]


def test_every_event_wakes_those_who_wait(accept: Any, ledger: Ledger, client: Any) -> None:
    """One channel carries the ids of jobs that changed; a step wakes those who wait for its job.

    None can be waiting for a job that is only being accepted.
    """
    with client.pubsub(ignore_subscribe_messages=True) as subscription:
        subscription.subscribe(key("changes"))
        subscription.get_message(timeout=BOUND_S)
        job = workflow(["only"], {})
        accept(job)
        claimed(ledger, job.steps[0].id)
        messages = [subscription.get_message(timeout=BOUND_S) for _ in range(2)]
    assert [message and message["data"] for message in messages] == [job.id] * 2
