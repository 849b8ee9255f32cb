"""Queued jobs that may not run now: pauses of queues and concurrency keys. And what is said of those that wait."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.operations import PAUSED_AT_ONCE, Operations, QueueState
from shared.ledger.records import Claim, Refusal
from tests.support.ledgers import (
    ERROR,
    LIST,
    RESULT,
    claim,
    claimed,
    entry,
    ids_on,
    lapse,
    numbered,
    publish_long_ago,
    record,
    tended,
    with_async,
    workflow,
)
from tests.support.servers.services import Server

T = TypeVar("T")
Operate = Callable[[Callable[[Operations], Awaitable[Any]]], Any]
HELD = Refusal("held", "")


@pytest.fixture
def operate(empty_valkey: Server) -> Operate:
    """Run an operator's call."""
    return lambda call: with_async(empty_valkey.redis_url, lambda gateway: call(Operations(gateway)))


def queue(operate: Operate, name: str = "etl") -> QueueState:
    (state,) = operate(lambda operations: operations.queues([name]))
    assert isinstance(state, QueueState)
    return state


def pause(operate: Operate) -> None:
    operate(lambda operations: operations.pause("etl"))


def resume(operate: Operate) -> None:
    operate(lambda operations: operations.resume("etl"))


def lists_held_or_running(client: redis.Redis) -> set[str]:
    names = ("backlog", "held", "limited", "running", "limited-key", "running-key", "admitted-key")
    return {key for name in names for key in client.scan_iter(f"celeriac:{name}:*")}


def test_a_paused_queue_keeps_new_jobs_off_its_list_until_resumed(accept: Any, client: Any, operate: Operate) -> None:
    """They stay queued and go out in their order: by priority list, oldest first."""
    pause(operate)
    jobs = [entry() for _ in range(3)]
    for job in jobs:
        accept(job)
    assert (client.exists(LIST), queue(operate).held, queue(operate).depth) == (0, 3, 3)
    resume(operate)
    assert (ids_on(client), queue(operate).held, queue(operate).depth) == ([job.id for job in jobs], 0, 3)


def test_what_is_in_a_list_or_with_a_worker_is_held_when_it_is_claimed(
    accept: Any, ledger: Ledger, client: Any, operate: Operate
) -> None:
    """Any worker that asks, also one that starts later, is told `held`; the job stays queued and comes back once."""
    job = entry()
    accept(job)
    client.delete(LIST)
    pause(operate)
    assert (claim(ledger, job.id), record(ledger, job.id).state) == (HELD, "queued")
    resume(operate)
    assert ids_on(client) == [job.id]
    claimed(ledger, job.id)


def test_a_job_that_runs_when_its_queue_is_paused_ends_well(accept: Any, ledger: Ledger, operate: Operate) -> None:
    """A pause stops starts, not runs; what would start again is held."""
    ends, crashes = entry(), entry()
    accept(ends, crashes)
    token = claimed(ledger, ends.id).token
    claimed(ledger, crashes.id)
    pause(operate)
    ledger.succeed(ends.id, token=token, result=RESULT)
    ledger.release(crashes.id, owner="w1", crashed=True)
    assert record(ledger, ends.id).state == "succeeded"
    assert (record(ledger, crashes.id).state, record(ledger, crashes.id).held_by) == ("queued", "queue_paused")


def test_the_keeper_goes_on_with_a_resume_that_nobody_finished(
    accept: Any, ledger: Ledger, client: Any, operate: Operate
) -> None:
    """More is held than one call publishes, and the gateway died after its first one."""
    pause(operate)
    jobs = [entry() for _ in range(5)]
    accept(*jobs)
    ledger.call("resume", {"queue": "etl"})
    assert tended(ledger, limit=3) == [("published", job.id) for job in jobs[:3]]
    assert tended(ledger, limit=3) == [("published", job.id) for job in jobs[3:]]
    assert ids_on(client) == [job.id for job in jobs]


def test_a_resume_publishes_everything_in_bounded_calls(accept: Any, client: Any, operate: Operate) -> None:
    """However much is held."""
    pause(operate)
    accept(*(entry() for _ in range(2 * PAUSED_AT_ONCE + 1)))
    resume(operate)
    assert client.llen(LIST) == 2 * PAUSED_AT_ONCE + 1


def test_the_keeper_does_not_take_held_jobs_for_lost(accept: Any, ledger: Ledger, operate: Operate) -> None:
    """Their messages are rightly not in a list."""
    accepted_before, accepted_after = entry(), entry()
    accept(accepted_before)
    pause(operate)
    accept(accepted_after)
    claim(ledger, accepted_before.id)
    assert tended(ledger, grace_s=0) == []


def test_held_jobs_are_cancelled_and_expire_as_others(
    accept: Any, ledger: Ledger, client: Any, operate: Operate
) -> None:
    """And a resume does not bring them back."""
    cancelled, expiring = entry(), entry(expires_at=9_999_999_999_999)
    pause(operate)
    accept(cancelled, expiring)
    assert ledger.cancel(cancelled.id, reason="r") == "cancelled"
    client.zadd(key("expiring"), {expiring.id: 1})
    assert tended(ledger) == [("expired", expiring.id)]
    resume(operate)
    assert (client.exists(LIST), queue(operate).depth, lists_held_or_running(client)) == (0, 0, set())


def test_what_falls_due_while_its_queue_is_paused_is_held(accept: Any, ledger: Ledger, operate: Operate) -> None:
    """It is queued from then on, and waits for the resume."""
    job = entry(due_at=9_999_999_999_999)
    accept(job)
    pause(operate)
    ledger.client.zadd(key("due"), {job.id: 1})
    assert tended(ledger) == [("published", job.id)]
    assert (queue(operate).held, record(ledger, job.id).held_by) == (1, "queue_paused")


def test_a_step_that_celery_publishes_itself_is_held_with_its_message(
    accept: Any, ledger: Ledger, client: Any, operate: Operate
) -> None:
    """Its record had no message; the claim keeps the one that was delivered, and the resume publishes that."""
    job = workflow(["extract", "load"], {"load": ["extract"]})
    accept(job)
    extract, load = job.steps
    token = claimed(ledger, extract.id).token
    pause(operate)
    ledger.succeed(extract.id, token=token, result=RESULT)
    client.delete(LIST)
    message = json.dumps({"headers": {"id": load.id}})
    answer = ledger.claim(load.id, owner="w1", worker="w1@host", lease_s=60, message=message)
    assert answer == HELD
    resume(operate)
    assert client.lrange(LIST, 0, -1) == [numbered(message, 2)]


def test_on_a_broker_elsewhere_the_keeper_publishes_what_was_held(
    accept: Any, ledger: Ledger, operate: Operate
) -> None:
    """Until then it is not in the outbox."""
    job = entry(outbox=True)
    pause(operate)
    accept(job)
    assert tended(ledger, outbox_grace_s=0) == []
    resume(operate)
    assert tended(ledger, outbox_grace_s=0) == [("unpublished", job.id)]


def keyed(limit: int = 1, **changes: Any) -> Any:
    return entry(concurrency_key="crm", concurrency_limit=limit, **changes)


def test_no_more_than_the_limit_run_and_the_rest_follow_one_by_one(accept: Any, ledger: Ledger, client: Any) -> None:
    """What was told to wait goes to the head of its list when a place is free: its turn had come already."""
    jobs = [keyed(2) for _ in range(4)]
    other = entry()
    accept(*jobs)
    client.delete(LIST)
    accept(other)
    first, second = claimed(ledger, jobs[0].id), claimed(ledger, jobs[1].id)
    assert [claim(ledger, job.id) for job in jobs[2:]] == [HELD, HELD]
    ledger.succeed(jobs[0].id, token=first.token, result=RESULT)
    assert ids_on(client) == [jobs[2].id, other.id]
    claimed(ledger, jobs[2].id)
    ledger.fail(jobs[1].id, token=second.token, error=ERROR)
    assert ids_on(client)[0] == jobs[3].id


def test_a_free_place_goes_to_the_most_urgent_then_to_the_oldest(accept: Any, ledger: Ledger, client: Any) -> None:
    """In whatever order they were told to wait."""
    runs, young, old, urgent = keyed(), keyed(), keyed(), keyed(priority=9)
    for job in (runs, old, young, urgent):
        accept(job)
    client.delete(LIST, "etl")
    token = claimed(ledger, runs.id).token
    for job in (young, old, urgent):
        assert claim(ledger, job.id) == HELD
    for expected, name in ((urgent, "etl"), (old, LIST), (young, LIST)):
        ledger.succeed(runs.id, token=token, result=RESULT)
        assert ids_on(client, name)[0] == expected.id
        runs, token = expected, claimed(ledger, expected.id).token


@pytest.mark.parametrize("how", ["retry", "release", "lost", "cancel"])
def test_every_way_to_stop_running_frees_the_place(accept: Any, ledger: Ledger, client: Any, how: str) -> None:
    """If its worker is dead, the end of its claim frees it."""
    runs, waits = keyed(), keyed()
    accept(runs, waits)
    token = claimed(ledger, runs.id).token
    assert claim(ledger, waits.id) == HELD
    match how:
        case "retry":
            ledger.retry(runs.id, token=token, delay_s=60, error=ERROR)
        case "release":
            ledger.release(runs.id, owner="w1")
        case "lost":
            lapse(client, runs.id)
            tended(ledger)
        case _:
            ledger.cancel(runs.id, reason="r")
            ledger.fail(runs.id, token=token, error=ERROR)
    claimed(ledger, waits.id)


def test_a_place_whose_job_is_cancelled_before_it_starts_goes_to_the_next(
    accept: Any, ledger: Ledger, client: Any
) -> None:
    """Otherwise the others would wait for a job that never starts."""
    runs, second, third = keyed(), keyed(), keyed()
    accept(runs, second, third)
    token = claimed(ledger, runs.id).token
    claim(ledger, second.id), claim(ledger, third.id)
    client.delete(LIST)
    ledger.succeed(runs.id, token=token, result=RESULT)
    assert ids_on(client) == [second.id]
    ledger.cancel(second.id, reason="r")
    assert ids_on(client)[0] == third.id


def test_a_place_that_nobody_takes_is_given_on_by_the_keeper(accept: Any, ledger: Ledger, client: Any) -> None:
    """The job it was given to lies in a queue whose workers are gone; another queue's job goes on instead."""
    runs, stuck, other = keyed(), keyed(), keyed(queue="report")
    accept(runs, stuck, other)
    token = claimed(ledger, runs.id).token
    claim(ledger, stuck.id), claim(ledger, other.id)
    client.delete(LIST, "report\x06\x165")
    ledger.succeed(runs.id, token=token, result=RESULT)
    assert client.exists("report\x06\x165") == 0
    client.zadd(key("admitted_key", "crm"), {stuck.id: 1})
    tended(ledger)
    assert ids_on(client, "report\x06\x165") == [other.id]


def test_waiting_for_a_key_and_for_a_resume_do_not_get_lost_in_each_other(
    accept: Any, ledger: Ledger, client: Any, operate: Operate
) -> None:
    """A free place passes by the jobs of a paused queue; resumed, they claim like any other."""
    runs, paused, other = keyed(), keyed(), keyed(queue="report")
    accept(runs, paused, other)
    token = claimed(ledger, runs.id).token
    claim(ledger, paused.id), claim(ledger, other.id)
    client.delete(LIST, "report\x06\x165")
    pause(operate)
    ledger.succeed(runs.id, token=token, result=RESULT)
    assert ids_on(client, "report\x06\x165") == [other.id]
    token = claimed(ledger, other.id).token
    resume(operate)
    assert (ids_on(client), claim(ledger, paused.id)) == ([paused.id], HELD)
    ledger.succeed(other.id, token=token, result=RESULT)
    ledger.succeed(paused.id, token=claimed(ledger, paused.id).token, result=RESULT)
    assert lists_held_or_running(client) == set()
    assert client.exists(key("limited_keys"), key("held_queues")) == 0


def test_jobs_put_at_the_head_of_a_list_are_not_taken_for_lost_nor_make_others_look_lost(
    accept: Any, ledger: Ledger, client: Any
) -> None:
    """The keeper tells lost messages by the order of the list; one that was let in first keeps it true."""
    runs, waits, behind = keyed(), keyed(), entry()
    accept(runs, waits)
    token = claimed(ledger, runs.id).token
    assert claim(ledger, waits.id) == HELD
    client.delete(LIST)
    accept(behind)
    publish_long_ago(client, behind.id, at_ms=1_000)
    ledger.succeed(runs.id, token=token, result=RESULT)
    assert ids_on(client) == [waits.id, behind.id]
    assert tended(ledger, grace_s=0) == []
    client.rpop(LIST)  # a worker takes it, and dies before it claims
    assert tended(ledger, grace_s=15) == []
    client.hset(key("job", waits.id), "published_at", "1")
    assert tended(ledger, grace_s=15) == [("republished", waits.id)]


def test_a_cancelled_jobs_message_at_the_head_of_a_list_hides_no_order(
    accept: Any, ledger: Ledger, client: Any
) -> None:
    """Nothing says how old it is, so what is put before it counts as the oldest of the list."""
    runs, waits, cancelled, behind = keyed(), keyed(), entry(), entry()
    accept(runs, waits)
    token = claimed(ledger, runs.id).token
    assert claim(ledger, waits.id) == HELD
    client.delete(LIST)
    accept(cancelled)
    accept(behind)
    ledger.cancel(cancelled.id, reason="r")
    publish_long_ago(client, behind.id)
    ledger.succeed(runs.id, token=token, result=RESULT)
    assert ids_on(client) == [waits.id, cancelled.id, behind.id]
    assert tended(ledger, grace_s=0) == []


def consume(ledger: Ledger, name: str = "etl", *, lease_ms: int = 60_000) -> None:
    beat = {"owner": "w1", "about": "{}", "queues": [name], "jobs": [], "lease_ms": lease_ms, "keep_ms": 60_000}
    ledger.call("beat", beat)


def why(ledger: Ledger, job_id: str) -> tuple[str | None, int | None]:
    found = record(ledger, job_id)
    return found.waiting_reason, found.queue_position


def test_each_waiting_job_says_why(accept: Any, ledger: Ledger, operate: Operate) -> None:
    """Of several reasons, the one that has to end first is shown."""
    urgent, runs, limited, last = entry(priority=9), keyed(), keyed(), entry()
    later = entry(due_at=9_999_999_999_999)
    for job in (runs, limited, last, urgent, later):
        accept(job)
    assert [why(ledger, job.id)[0] for job in (urgent, last, later)] == ["no_consumer", "no_consumer", "scheduled"]
    consume(ledger)
    assert [why(ledger, job.id) for job in (urgent, runs, limited, last)] == [("behind", n) for n in range(4)]
    claimed(ledger, runs.id)
    assert claim(ledger, limited.id) == HELD
    assert [why(ledger, job.id) for job in (runs, limited, last)] == [
        (None, None),
        ("concurrency_limited", None),
        ("behind", 1),
    ]
    pause(operate)
    assert [why(ledger, job.id)[0] for job in (limited, last)] == ["queue_paused", "queue_paused"]


def test_a_worker_that_falls_silent_consumes_no_more(accept: Any, ledger: Ledger) -> None:
    """After a lease, without a round of the keeper."""
    job = entry()
    accept(job)
    consume(ledger, lease_ms=-1)
    assert why(ledger, job.id)[0] == "no_consumer"


def test_a_workflow_waits_as_its_step_does(accept: Any, ledger: Ledger, operate: Operate) -> None:
    """The job has no message of its own; the step in the queue tells, and is what the queue counts."""
    job = workflow(["a", "b"], {"b": ["a"]})
    accept(job)
    consume(ledger)
    assert why(ledger, job.id) == ("behind", 0)
    found = record(ledger, job.id)
    assert [(step.state, step.waiting_reason) for step in found.steps] == [("queued", "behind"), ("waiting", None)]
    assert queue(operate).depth == 1


def test_the_depth_is_the_sum_over_all_priority_lists(
    accept: Any, ledger: Ledger, client: Any, operate: Operate
) -> None:
    """By the ledger's own count, which holds on any broker; the oldest is found whatever its priority."""
    jobs = [entry(priority=priority % 10) for priority in range(7, 25)]
    for job in jobs:
        accept(job)
    on_lists = sum(int(client.llen(name)) for name in client.smembers(key("lists")))
    state = queue(operate)
    assert (state.depth, state.depth, state.oldest_id) == (on_lists, len(jobs), jobs[0].id)
    assert state.oldest_at == record(ledger, jobs[0].id).queued_at
    assert isinstance(claim(ledger, jobs[0].id), Claim)
    assert (queue(operate).running, queue(operate).depth, queue(operate).oldest_id) == (1, len(jobs) - 1, jobs[1].id)
