"""Steps that a running step adds to its job: once, fenced, and part of it from then on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from shared.errors import ClaimLost
from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.records import Claim, Entry
from tests.support.ledgers import ERROR, RESULT, claim, claimed, entry, lapse, numbered, record, workflow


def expanding(accept: Any, ledger: Ledger) -> tuple[Entry, Claim]:
    """Return a job whose last step runs, and the claim of that."""
    job = workflow(["list", "expand"], {"expand": ["list"]})
    accept(job)
    ledger.succeed(job.steps[0].id, token=claimed(ledger, job.steps[0].id).token, result='{"planned": 1}')
    return job, claimed(ledger, job.steps[1].id)


def added(job: Entry, names: list[str], after: dict[str, list[str]], **more: Any) -> tuple[Entry, ...]:
    """Return steps that follow the last one of `job`."""
    steps = [replace(step, job_id=job.id, **more) for step in workflow(names, after).steps]
    return tuple(step if step.after else replace(step, after=(job.steps[-1].id,)) for step in steps)


def states(ledger: Ledger, job: Entry) -> dict[str, str]:
    return {str(step.step): step.state for step in record(ledger, job.id).steps}


def test_the_job_ends_with_the_steps_that_were_added(accept: Any, ledger: Ledger, client: redis.Redis) -> None:
    """They are published with the transition, also before the step that adds them has ended."""
    job, running = expanding(accept, ledger)
    steps = added(job, ["a", "b", "end"], {"end": ["a", "b"]})
    assert ledger.expand(job.steps[1].id, token=running.token, steps=steps, counts_steps=False)
    assert client.lrange("etl\x06\x165", 0, -1)[:2] == [numbered(steps[1].message), numbered(steps[0].message)]
    assert states(ledger, job) == {
        "list": "succeeded", "expand": "running", "a": "queued", "b": "queued", "end": "waiting",
    }  # fmt: skip
    ledger.succeed(steps[0].id, token=claimed(ledger, steps[0].id).token, result='{"a": 1}')
    ledger.succeed(job.steps[1].id, token=running.token, result=RESULT)
    ledger.succeed(steps[1].id, token=claimed(ledger, steps[1].id).token, result='{"b": 1}')
    last = claimed(ledger, steps[2].id)
    assert last.upstream == '[{"a": 1}, {"b": 1}]'
    assert (record(ledger, job.id).state, record(ledger, job.id).done, record(ledger, job.id).total) == (
        "running",
        4,
        5,
    )
    ledger.succeed(steps[2].id, token=last.token, result='{"end": 1}')
    assert (record(ledger, job.id).state, record(ledger, job.id).result) == ("succeeded", '{"end": 1}')


def test_a_repeated_attempt_adds_nothing_and_a_late_one_is_refused(
    accept: Any, ledger: Ledger, client: redis.Redis
) -> None:
    """The worker is lost after the transition: what the first attempt has added stays."""
    job, running = expanding(accept, ledger)
    steps = added(job, ["a"], {})
    ledger.expand(job.steps[1].id, token=running.token, steps=steps, counts_steps=False)
    lapse(client, job.steps[1].id)
    again = claimed(ledger, job.steps[1].id, owner="w2")
    assert ledger.expand(job.steps[1].id, token=again.token, steps=added(job, ["b"], {}), counts_steps=True)
    with pytest.raises(ClaimLost):
        ledger.expand(job.steps[1].id, token=running.token, steps=added(job, ["c"], {}), counts_steps=False)
    assert list(states(ledger, job)) == ["list", "expand", "a"]


def test_without_more_steps_the_result_is_that_of_those_before(accept: Any, ledger: Ledger) -> None:
    """The number of added steps is not the result of a job."""
    job, running = expanding(accept, ledger)
    assert ledger.expand(job.steps[1].id, token=running.token, steps=(), counts_steps=False)
    ledger.succeed(job.steps[1].id, token=running.token, result='{"step_count": 0}')
    assert (record(ledger, job.id).state, record(ledger, job.id).result) == ("succeeded", '{"planned": 1}')


def test_a_cancelled_job_gets_no_more_steps_and_those_that_it_has_are_cancelled(accept: Any, ledger: Ledger) -> None:
    """Whichever comes first."""
    job, running = expanding(accept, ledger)
    steps = added(job, ["a", "end"], {"end": ["a"]})
    ledger.cancel(job.id, reason="stop")
    assert not ledger.expand(job.steps[1].id, token=running.token, steps=steps, counts_steps=False)
    assert states(ledger, job) == {"list": "succeeded", "expand": "running"}
    job, running = expanding(accept, ledger)
    steps = added(job, ["a", "end"], {"end": ["a"]})
    ledger.expand(job.steps[1].id, token=running.token, steps=steps, counts_steps=False)
    ledger.cancel(job.id, reason="stop")
    assert states(ledger, job) == {"list": "succeeded", "expand": "running", "a": "cancelled", "end": "cancelled"}


def test_a_failed_step_that_was_added_fails_the_job(accept: Any, ledger: Ledger) -> None:
    """Like any other, and the later ones are skipped."""
    job, running = expanding(accept, ledger)
    steps = added(job, ["a", "end"], {"end": ["a"]})
    ledger.expand(job.steps[1].id, token=running.token, steps=steps, counts_steps=False)
    ledger.succeed(job.steps[1].id, token=running.token, result=RESULT)
    ledger.fail(steps[0].id, token=claimed(ledger, steps[0].id).token, error=ERROR)
    assert json.loads(record(ledger, job.id).error or "")["step"] == "a"
    assert states(ledger, job)["end"] == "skipped"
    assert claim(ledger, steps[1].id).why == "skipped"  # type: ignore[union-attr]  # it is refused


def test_files_that_added_steps_name_are_kept_until_the_job_ends(
    accept: Any, ledger: Ledger, client: redis.Redis
) -> None:
    """The parameters of the job do not name them."""
    owner = uuid7()
    job, running = expanding(accept, ledger)
    steps = added(job, ["a"], {}, params=json.dumps({"source": f"artifact://{owner}/1/x"}))
    ledger.expand(job.steps[1].id, token=running.token, steps=steps, counts_steps=False)
    assert client.smembers(key("references", owner)) == {job.id}
    ledger.cancel(job.id, reason="stop")
    assert client.exists(key("references", owner)) == 0


def test_steps_that_are_used_again_are_done(accept: Any, ledger: Ledger) -> None:
    """Only the others run, and all of them count."""
    earlier = entry()
    accept(earlier)
    ledger.succeed(earlier.id, token=claimed(ledger, earlier.id).token, result='{"a": 1}')
    job, running = expanding(accept, ledger)
    a, end = added(job, ["a", "end"], {"end": ["a"]})
    steps = (replace(a, reused=record(ledger, earlier.id), message=None), replace(end, message=a.message))
    ledger.expand(job.steps[1].id, token=running.token, steps=steps, counts_steps=False)
    assert states(ledger, job) == {"list": "succeeded", "expand": "running", "a": "succeeded", "end": "queued"}
    ledger.succeed(job.steps[1].id, token=running.token, result=RESULT)
    last = claimed(ledger, end.id)
    assert last.upstream == '[{"a": 1}]'
    ledger.succeed(end.id, token=last.token, result=RESULT)
    assert (record(ledger, job.id).state, record(ledger, job.id).done) == ("succeeded", 4)


def child_of(job: Entry, ledger: Ledger, parent: Claim, name: str) -> Entry:
    """Return a job that the first step of `job` has submitted."""
    child = replace(entry(), parent=job.steps[0].id, child=name)
    assert ledger.submit(job.steps[0].id, token=parent.token, child=child)
    return child


def test_the_step_that_adds_steps_waits_for_children(accept: Any, ledger: Ledger, client: redis.Redis) -> None:
    """Celery does not publish it after a child, so it has a message of its own; what ends twice counts once."""
    planned = workflow(["list", "expand"], {"expand": ["list"]})
    first, last = planned.steps
    job = replace(planned, steps=(first, replace(last, message=json.dumps({"headers": {"id": last.id}}))))
    accept(job)
    parent = claimed(ledger, first.id)
    early, late = (child_of(job, ledger, parent, name) for name in ("early", "late"))
    assert ledger.submit(first.id, token=parent.token, child=early)  # a repeated attempt
    ledger.succeed(early.id, token=claimed(ledger, early.id).token, result='{"early": 1}')
    ledger.succeed(first.id, token=parent.token, result=RESULT)
    assert claim(ledger, last.id).why == "early"  # type: ignore[union-attr]  # it is refused
    ledger.fail(late.id, token=claimed(ledger, late.id).token, error=ERROR)
    assert states(ledger, job) == {"list": "succeeded", "expand": "queued"}
    assert client.lrange("etl\x06\x165", 0, 0) == [numbered(job.steps[1].message)]
    found = record(ledger, job.id).steps[0]
    assert (sorted(found.children), found.children_failed) == (sorted([early.id, late.id]), True)
    assert record(ledger, late.id).child == "late"


def test_children_that_a_workflow_waits_for_are_cancelled_with_it(accept: Any, ledger: Ledger) -> None:
    """Although the step that submitted them has succeeded; the last step is not published by their end."""
    job = workflow(["list", "expand"], {"expand": ["list"]})
    accept(job)
    parent = claimed(ledger, job.steps[0].id)
    child = child_of(job, ledger, parent, "a")
    ledger.succeed(job.steps[0].id, token=parent.token, result=RESULT)
    ledger.cancel(job.id, reason="stop")
    assert record(ledger, child.id).state == "cancelled"
    assert states(ledger, job) == {"list": "succeeded", "expand": "cancelled"}
