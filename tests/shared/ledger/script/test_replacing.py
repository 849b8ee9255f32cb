"""Jobs of a unique kind that replace each other."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.records import Entry, Refusal, Submission, parse_accepted
from tests.support.ledgers import ERROR, RESULT, claim, claimed, entry, lapse, record, tended

HELD = Refusal("held", "")


def newest(**changes: Any) -> Entry:
    return entry(**{"unique_key": "shop", "unique_replaces": True, "concurrency_key": "shop", **changes})


def outcome(ledger: Ledger, job: Entry) -> tuple[str, str | None, str]:
    """Return the state of a job, what replaced it, and why it ended."""
    found = record(ledger, job.id)
    return found.state, found.replaced_by, json.loads(found.error)["message"] if found.error else ""


def replaced_by(job: Entry) -> tuple[str, str, str]:
    return "cancelled", job.id, f"Job {job.id} replaced it."


@pytest.mark.parametrize("waits", ["queued", "scheduled", "retrying"])
def test_a_job_that_waits_is_cancelled_at_once(accept: Any, ledger: Ledger, client: redis.Redis, waits: str) -> None:
    """It names the job that replaced it, and that one runs without waiting."""
    old, new = newest(due_at=9_999_999_999_999 if waits == "scheduled" else None), newest()
    accept(old)
    if waits == "retrying":
        ledger.retry(old.id, token=claimed(ledger, old.id).token, delay_s=60, error=ERROR)
    assert record(ledger, old.id).state == waits
    answer = accept(new)
    assert (answer.outcome, answer.ids) == ("accepted", (new.id,))
    assert outcome(ledger, old) == replaced_by(new)
    assert claim(ledger, old.id) == Refusal("cancelled", "")
    claimed(ledger, new.id)
    assert client.get(key("unique", "shop")) == new.id


@pytest.mark.parametrize("ends", ["stopped", "failed", "succeeded", "lost", "retried"])
def test_a_job_that_runs_is_asked_to_stop_and_the_new_one_waits_for_its_end(
    accept: Any, ledger: Ledger, client: redis.Redis, ends: str
) -> None:
    """Whatever that is; what it had done when it was told stays true."""
    old, new = newest(), newest()
    accept(old)
    token = claimed(ledger, old.id).token
    accept(new)
    assert ledger.progress(old.id, token=token, progress=None)
    assert (outcome(ledger, old), claim(ledger, new.id)) == (("running", new.id, ""), HELD)
    if ends == "stopped":
        ledger.stopped(old.id, token=token)
    elif ends == "failed":
        ledger.fail(old.id, token=token, error=ERROR)
    elif ends == "succeeded":
        ledger.succeed(old.id, token=token, result=RESULT)
    elif ends == "retried":
        ledger.retry(old.id, token=token, delay_s=1, error=ERROR)
    else:
        lapse(client, old.id)
        tended(ledger)
    assert outcome(ledger, old) == (("succeeded", new.id, "") if ends == "succeeded" else replaced_by(new))
    ledger.succeed(new.id, token=claimed(ledger, new.id).token, result=RESULT)
    assert client.exists(key("unique", "shop")) == 0


def test_of_several_that_wait_for_the_end_only_the_last_runs(accept: Any, ledger: Ledger) -> None:
    """Each replaces the one before it."""
    runs, second, third = newest(), newest(), newest()
    accept(runs)
    token = claimed(ledger, runs.id).token
    accept(second)
    assert claim(ledger, second.id) == HELD
    accept(third)
    assert outcome(ledger, second) == replaced_by(third)
    assert (outcome(ledger, runs), claim(ledger, third.id)) == (("running", second.id, ""), HELD)
    ledger.stopped(runs.id, token=token)
    claimed(ledger, third.id)


def test_a_new_one_still_waits_for_the_first_when_the_one_between_was_cancelled(accept: Any, ledger: Ledger) -> None:
    """Nobody has the unique key then, but the first has not ended."""
    runs, second, third = newest(), newest(), newest()
    accept(runs)
    claimed(ledger, runs.id)
    accept(second)
    ledger.cancel(second.id, reason="r")
    assert accept(third).outcome == "accepted"
    assert claim(ledger, third.id) == HELD


def test_submissions_that_come_together_replace_each_other(ledger: Ledger, client: redis.Redis) -> None:
    """A gateway sends them in one call: the last one runs, and all are accepted."""
    old, *new = (newest() for _ in range(4))
    ledger.accept(Submission([old]))
    submissions = [Submission([job]) for job in new]
    replies = ledger.call("accept", [submission.arguments()[0] for submission in submissions])
    answers = [parse_accepted(*each) for each in zip(submissions, replies, strict=True)]
    assert [answer.outcome for answer in answers] == ["accepted"] * 3
    assert [outcome(ledger, job) for job in (old, *new[:2])] == [replaced_by(job) for job in new]
    assert client.get(key("unique", "shop")) == new[2].id
    claimed(ledger, new[2].id)


def test_a_repetition_cancels_nothing(accept: Any, ledger: Ledger) -> None:
    """Neither one with the same Idempotency-Key, nor one whose reply was lost."""
    first, second = newest(), newest()
    accept(first, key="a", fingerprint="f")
    accept(second, key="b", fingerprint="g")
    assert accept(newest(), key="a", fingerprint="f")[:2] == ("replayed", (first.id,))
    accept(first)
    assert accept(newest(), key="b", fingerprint="other").outcome == "conflict"
    assert record(ledger, second.id).state == "queued"


def test_a_batch_replaces_the_job_that_there_is_and_has_each_key_once(accept: Any, ledger: Ledger) -> None:
    """A batch that replaces its own jobs is refused, and nothing is cancelled."""
    old, new, other = newest(), newest(), newest(unique_key="other", concurrency_key="other")
    accept(old)
    refused = accept(other, new, newest(id=(last := uuid7())))
    assert (refused.outcome, refused.ids, refused.refused) == ("taken", (new.id,), last)
    assert record(ledger, old.id).state == "queued"
    assert accept(other, new).outcome == "accepted"
    assert outcome(ledger, old) == replaced_by(new)


def test_a_running_job_that_the_new_one_could_not_wait_for_is_not_replaced(accept: Any, ledger: Ledger) -> None:
    """It was accepted before the contract said so, and has no concurrency key: the answer is that job."""
    old, new = newest(unique_replaces=False, concurrency_key=None), newest()
    accept(old)
    claimed(ledger, old.id)
    answer = accept(new)
    assert (answer.outcome, answer.ids, answer.state) == ("taken", (old.id,), "running")
    assert record(ledger, old.id).cancel_requested_at is None


def test_a_slot_of_a_schedule_replaces_too(ledger: Ledger, accept: Any) -> None:
    """If its overlap policy allows a job beside its last one."""
    old = newest()
    accept(old)
    schedule = {"id": "s", "document": "{}", "definition": "{}", "restart": True, "most": 9, "look_at": 1}
    ledger.call("schedule_put", schedule)
    new = newest(schedule="s")
    tick = {"id": "s", "revision": "1", "next": 2, "poll_ms": 1, "job_id": new.id, "overlap": "skip"}
    tick |= {"slot": 9_999_999_999_999}
    assert ledger.call("schedule_tick", tick | {"job": new.record()}) == "accepted"
    assert outcome(ledger, old) == replaced_by(new)
