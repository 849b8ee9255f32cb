"""Jobs of a rate key: how they wait for their turn, and in which order they get it."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.records import Entry, Refusal
from tests.support.ledgers import ERROR, LIST, RESULT, claim, claimed, entry, ids_on, lapse, numbered, record, tended

HELD = Refusal("held", "")
HOUR_MS = 3_600_000


def rated(**changes: Any) -> Entry:
    return entry(**{"rate_key": "mail", "rate_interval_ms": HOUR_MS, **changes})


def an_interval_later(client: redis.Redis) -> None:
    """Let the turn come, and the time to look."""
    client.delete(key("turn", "mail"))
    client.zadd(key("turns"), {"mail": 1}, xx=True)


def waiting_lists(client: redis.Redis) -> set[str]:
    found: list[str] = list(client.scan_iter(count=1_000))
    return {
        name for name in found if name.startswith((key("rated"), key("rated_key"), key("offered_key"), key("turns")))
    }


@pytest.fixture
def three(accept: Any, ledger: Ledger, client: redis.Redis) -> tuple[Entry, Entry, Entry]:
    """Accept three jobs; the first one runs, and the others wait, of which the second is older."""
    jobs = rated(), rated(), rated()
    for job in jobs:
        accept(job)
    client.delete(LIST)
    claimed(ledger, jobs[0].id)
    assert [claim(ledger, job.id) for job in reversed(jobs[1:])] == [HELD, HELD]
    return jobs


def test_the_next_job_starts_an_interval_after_the_last(
    ledger: Ledger, client: redis.Redis, three: tuple[Entry, Entry, Entry]
) -> None:
    """Until then its message is not in the broker, and it says why it waits."""
    _, second, third = three
    assert [record(ledger, job.id).waiting_reason for job in (second, third)] == ["rate_limited"] * 2
    next_s, unpublished = ledger.turns()
    assert next_s is not None
    assert 3_590 < next_s <= 3_600
    assert (unpublished, ids_on(client)) == ([], [])
    an_interval_later(client)
    next_s, _ = ledger.turns()
    assert (next_s is not None, ids_on(client)) == (True, [second.id])
    assert ledger.turns()[1] == []
    assert ids_on(client) == [second.id]
    claimed(ledger, second.id)
    started = record(ledger, second.id).started_at or 0
    assert int(client.get(key("turn", "mail")) or 0) == started + HOUR_MS
    assert claim(ledger, third.id) == HELD


def test_a_newcomer_does_not_start_before_those_that_wait(
    accept: Any, ledger: Ledger, client: redis.Redis, three: tuple[Entry, Entry, Entry]
) -> None:
    """The turn has come, and nobody has looked yet: the oldest is published, and the newcomer waits."""
    newcomer = rated()
    accept(newcomer)
    client.delete(LIST)
    an_interval_later(client)
    assert (claim(ledger, newcomer.id), ids_on(client)) == (HELD, [three[1].id])


def test_the_most_urgent_waits_least(
    accept: Any, ledger: Ledger, client: redis.Redis, three: tuple[Entry, Entry, Entry]
) -> None:
    """Even if another was published for this turn: that one waits again."""
    an_interval_later(client)
    ledger.turns()
    urgent = rated(priority=9)
    client.set(key("turn", "mail"), 9_999_999_999_999)
    accept(urgent)
    client.delete("etl")
    assert claim(ledger, urgent.id) == HELD
    an_interval_later(client)
    client.delete(LIST)
    assert claim(ledger, three[1].id) == HELD
    assert (ids_on(client, "etl"), ids_on(client)) == ([urgent.id], [])
    claimed(ledger, urgent.id)


@pytest.mark.parametrize("how", ["cancelled", "not taken"])
def test_a_turn_that_is_not_used_is_given_on(
    ledger: Ledger, client: redis.Redis, three: tuple[Entry, Entry, Entry], how: str
) -> None:
    """At once if its job has ended; after a minute if no worker has taken it."""
    _, second, third = three
    an_interval_later(client)
    ledger.turns()
    client.delete(LIST)
    if how == "cancelled":
        ledger.cancel(second.id, reason="r")
    else:
        client.zadd(key("offered_key", "mail"), {second.id: 1})
        an_interval_later(client)
        ledger.turns()
    assert ids_on(client) == [third.id]
    claimed(ledger, third.id)


@pytest.mark.parametrize("how", ["retry", "lost"])
def test_each_attempt_is_a_start(accept: Any, ledger: Ledger, client: redis.Redis, how: str) -> None:
    """What the rate protects is called by each attempt."""
    job, other = rated(), rated()
    accept(job)
    token = claimed(ledger, job.id).token
    if how == "retry":
        ledger.retry(job.id, token=token, delay_s=0, error=ERROR)
    else:
        lapse(client, job.id)
        tended(ledger)
    assert claim(ledger, job.id) == HELD
    an_interval_later(client)
    claimed(ledger, job.id)
    accept(other)
    assert claim(ledger, other.id) == HELD


def test_a_turn_is_not_used_by_a_job_that_may_not_start(
    ledger: Ledger, client: redis.Redis, three: tuple[Entry, Entry, Entry]
) -> None:
    """Its queue is paused meanwhile; resumed, its jobs claim like any other, in their order."""
    _, second, third = three
    ledger.call("pause", {"queue": "etl"})
    an_interval_later(client)
    ledger.turns()
    assert (ids_on(client), waiting_lists(client)) == ([], set())
    ledger.call("resume", {"queue": "etl"})
    ledger.call("let_go", {"queue": "etl", "limit": 9})
    assert ids_on(client) == [second.id, third.id]
    claimed(ledger, second.id)
    assert claim(ledger, third.id) == HELD


def test_concurrency_and_rate_hold_a_job_one_after_the_other(accept: Any, ledger: Ledger, client: redis.Redis) -> None:
    """A turn is used by a start only, and neither keeps its place or turn from others."""
    runs, second, third = (rated(concurrency_key="crm") for _ in range(3))
    accept(runs, second, third)
    client.delete(LIST)
    token = claimed(ledger, runs.id).token
    assert (claim(ledger, second.id), record(ledger, second.id).waiting_reason) == (HELD, "concurrency_limited")
    ledger.succeed(runs.id, token=token, result=RESULT)
    assert ids_on(client) == [second.id]
    assert (claim(ledger, second.id), record(ledger, second.id).waiting_reason) == (HELD, "rate_limited")
    assert (claim(ledger, third.id), record(ledger, third.id).waiting_reason) == (HELD, "rate_limited")
    an_interval_later(client)
    ledger.turns()
    token = claimed(ledger, second.id).token
    an_interval_later(client)
    ledger.turns()
    assert (claim(ledger, third.id), record(ledger, third.id).waiting_reason) == (HELD, "concurrency_limited")
    ledger.succeed(second.id, token=token, result=RESULT)
    claimed(ledger, third.id)
    assert waiting_lists(client) == set()


def test_on_a_broker_elsewhere_the_caller_publishes(accept: Any, ledger: Ledger, client: redis.Redis) -> None:
    """It gets each id once; if it does not say that it has published it, the keeper's next rounds do."""
    first, second = rated(outbox=True), rated(outbox=True)
    accept(first, second)
    ledger.published({first.id: 1, second.id: 1})
    claimed(ledger, first.id)
    assert claim(ledger, second.id) == HELD
    an_interval_later(client)
    assert ledger.turns()[1] == [second.id]
    assert ledger.turns()[1] == []
    assert tended(ledger, outbox_grace_s=5) == []
    client.zincrby(key("outbox"), -5_000, second.id)
    assert tended(ledger, outbox_grace_s=5) == [("unpublished", second.id)]
    claimed(ledger, second.id)


def test_a_damaged_record_does_not_keep_the_turn_from_others(
    ledger: Ledger, client: redis.Redis, three: tuple[Entry, Entry, Entry]
) -> None:
    """It is set aside for an operator."""
    _, second, third = three
    client.hset(key("job", second.id), "priority", "urgent")
    an_interval_later(client)
    ledger.turns()
    assert ids_on(client) == [third.id]
    assert client.hkeys(key("set_aside")) == [second.id]


def test_other_keys_and_jobs_without_one_do_not_wait(
    accept: Any, ledger: Ledger, client: redis.Redis, three: tuple[Entry, Entry, Entry]
) -> None:
    """And a key for which nobody waits leaves nothing behind but its turn, which lapses."""
    other, plain = rated(rate_key="sms", rate_interval_ms=10_000), entry()
    accept(other, plain)
    assert client.lrange(LIST, 0, -1) == [numbered(plain.message), numbered(other.message)]
    claimed(ledger, other.id), claimed(ledger, plain.id)
    assert 0 < client.pttl(key("turn", "sms")) <= 10_000
    for job in three[1:]:
        ledger.cancel(job.id, reason="r")
    ledger.turns()
    assert waiting_lists(client) == set()
