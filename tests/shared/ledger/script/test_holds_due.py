"""A job that is due, and whose message a worker has before the keeper has looked, when it may not run now."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.records import Refusal
from tests.support.ledgers import ERROR, claim, claimed, entry, record, tended

HELD = Refusal("held", "")


def set_aside(ledger: Ledger, job_id: str) -> None:
    """Let a job be claimed and fail in a transient way; its next try is due at once."""
    ledger.retry(job_id, token=claimed(ledger, job_id).token, delay_s=0, error=ERROR)


def test_a_retry_that_is_held_leaves_nothing_behind_when_it_is_cancelled(
    accept: Any, ledger: Ledger, client: redis.Redis
) -> None:
    """It waits as any queued job does: else its id stayed with the queue's pause, and the keeper failed over it."""
    job = entry()
    accept(job)
    set_aside(ledger, job.id)
    ledger.call("pause", {"queue": "etl"})
    assert claim(ledger, job.id) == HELD
    assert (record(ledger, job.id).state, record(ledger, job.id).waiting_reason) == ("queued", "queue_paused")
    ledger.cancel(job.id, reason="no more")
    assert client.zrange(key("held", "etl"), 0, -1) == []
    ledger.call("resume", {"queue": "etl"})
    assert tended(ledger) == []


@pytest.mark.parametrize("ends", ["cancelled", "run"])
def test_a_retry_that_waits_for_a_place_gets_it_or_gives_it_up(
    accept: Any, ledger: Ledger, client: redis.Redis, ends: str
) -> None:
    """It stays among those that wait for its key until it runs or ends."""
    first, second = (entry(concurrency_key="erp") for _ in range(2))
    accept(first)
    set_aside(ledger, first.id)
    accept(second)
    running = claimed(ledger, second.id)
    assert claim(ledger, first.id) == HELD
    assert client.zrange(key("limited_key", "erp"), 0, -1) == [first.id]
    if ends == "cancelled":
        ledger.cancel(first.id, reason="no more")
    ledger.succeed(second.id, token=running.token, result="{}")
    if ends == "run":
        assert claimed(ledger, first.id).attempt == 2
    assert client.zrange(key("limited_key", "erp"), 0, -1) == []
    assert client.zrange(key("due"), 0, -1) == []


def test_a_job_that_an_older_version_held_is_limited_still(accept: Any, ledger: Ledger, client: redis.Redis) -> None:
    """Its record has the old name of the reason."""
    runs, limited = (entry(concurrency_key="erp") for _ in range(2))
    accept(runs, limited)
    token = claimed(ledger, runs.id).token
    assert claim(ledger, limited.id) == HELD
    client.hset(key("job", limited.id), "held_by", "rate_limited")
    assert record(ledger, limited.id).waiting_reason == "concurrency_limited"
    ledger.succeed(runs.id, token=token, result="null")
    claimed(ledger, limited.id)
