"""A job of several steps: what the end of one means for the others."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import redis
import redis.asyncio

from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.records import Entry, Refusal
from tests.support.ledgers import ERROR, RESULT, claim, claimed, publish_long_ago, record, tended, workflow


def step_states(ledger: Ledger, job: Entry) -> dict[str, str]:
    return {str(step.step): step.state for step in record(ledger, job.id).steps}


def test_a_chain_goes_step_by_step_and_ends_with_the_last_result(accept: Any, ledger: Ledger) -> None:
    """The job runs with its first step, each end queues the next, and the last result is the job's."""
    job = workflow(["extract", "load"], {"load": ["extract"]})
    accept(job)
    extract, load = job.steps
    assert step_states(ledger, job) == {"extract": "queued", "load": "waiting"}
    ledger.succeed(extract.id, token=claimed(ledger, extract.id).token, result='{"step": 1}')
    assert step_states(ledger, job) == {"extract": "succeeded", "load": "queued"}
    assert (record(ledger, job.id).state, record(ledger, job.id).done) == ("running", 1)
    ledger.succeed(load.id, token=claimed(ledger, load.id).token, result='{"step": 2}')
    assert (record(ledger, job.id).state, record(ledger, job.id).result) == ("succeeded", '{"step": 2}')


def test_a_failed_step_names_itself_and_the_later_ones_are_skipped(accept: Any, ledger: Ledger) -> None:
    """The job fails with the step's error, and says which step it was."""
    job = workflow(["extract", "transform", "load"], {"transform": ["extract"], "load": ["transform"]})
    accept(job)
    ledger.fail(job.steps[0].id, token=claimed(ledger, job.steps[0].id).token, error=ERROR)
    assert step_states(ledger, job) == {"extract": "failed", "transform": "skipped", "load": "skipped"}
    found = record(ledger, job.id)
    assert found.state == "failed"
    assert json.loads(found.error or "") == {**json.loads(ERROR), "step": "extract"}


def test_a_failed_part_of_a_chord_ends_the_job_at_once(accept: Any, ledger: Ledger) -> None:
    """Parts under way are asked to stop, waiting ones and the body are skipped."""
    job = workflow(["a", "b", "c", "combine"], {"combine": ["a", "b", "c"]})
    accept(job)
    a, b, _, _ = job.steps
    claimed(ledger, b.id)
    ledger.fail(a.id, token=claimed(ledger, a.id).token, error=ERROR)
    assert step_states(ledger, job) == {"a": "failed", "b": "running", "c": "skipped", "combine": "skipped"}
    assert ledger.renew([b.id], owner="w1", lease_s=60) == {b.id: "cancel"}
    assert record(ledger, job.id).state == "failed"


def test_a_chord_body_waits_for_all_its_parts(accept: Any, ledger: Ledger) -> None:
    """The body is queued by the end of the last part, whichever that is."""
    job = workflow(["a", "b", "combine"], {"combine": ["a", "b"]})
    accept(job)
    for part, expected in zip(reversed(job.steps[:2]), ("waiting", "queued"), strict=True):
        ledger.succeed(part.id, token=claimed(ledger, part.id).token, result=RESULT)
        assert step_states(ledger, job)["combine"] == expected


def test_cancelling_a_workflow_reaches_every_step(accept: Any, ledger: Ledger) -> None:
    """One id cancels the whole."""
    job = workflow(["a", "b", "combine"], {"combine": ["a", "b"]})
    accept(job)
    claimed(ledger, job.steps[0].id)
    assert ledger.cancel(job.id, reason="stop") == "cancelled"
    assert step_states(ledger, job) == {"a": "running", "b": "cancelled", "combine": "cancelled"}
    assert ledger.renew([job.steps[0].id], owner="w1", lease_s=60) == {job.steps[0].id: "cancel"}


def test_a_step_that_celery_failed_to_publish_is_started_by_its_predecessor(
    accept: Any, ledger: Ledger, client: redis.Redis
) -> None:
    """The worker died between a step's end and publishing the next: the finished step's message goes out again."""
    job = workflow(["extract", "load"], {"load": ["extract"]})
    accept(job)
    extract, load = job.steps
    ledger.succeed(extract.id, token=claimed(ledger, extract.id).token, result=RESULT)
    client.delete("etl\x06\x165")
    publish_long_ago(client, load.id)
    assert tended(ledger) == [("republished", load.id)]
    assert client.lrange("etl\x06\x165", 0, -1) == [extract.message]
    assert claim(ledger, extract.id) == Refusal("succeeded", RESULT)


def test_a_chord_that_uses_a_part_again_is_counted_without_it(accept: Any, ledger: Ledger, client: redis.Redis) -> None:
    """Celery knows only of the parts that ran: counting all of them, its body would never be published."""
    whole = workflow(["a", "b", "c", "combine"], {"combine": ["a", "b", "c"]})
    earlier = workflow(["a"], {})
    accept(earlier)
    ledger.succeed(earlier.steps[0].id, token=claimed(ledger, earlier.steps[0].id).token, result=RESULT)
    reused = replace(whole.steps[0], reused=record(ledger, earlier.steps[0].id), message=None)
    parts = [replace(step, message=json.dumps({"headers": {"id": step.id, "group": "g"}})) for step in whole.steps[1:3]]
    job = replace(whole, steps=(reused, *parts, whole.steps[3]))
    accept(job)
    for part in parts:
        ledger.succeed(part.id, token=claimed(ledger, part.id).token, result=RESULT)
    client.delete("etl\x06\x165")
    publish_long_ago(client, whole.steps[3].id)
    assert tended(ledger) == [("republished", whole.steps[3].id)]
    assert client.get("celery-taskset-meta-g.s") == "2"
    assert client.lrange("etl\x06\x165", 0, -1) == [parts[0].message, parts[1].message]


def test_a_step_does_not_run_before_those_that_it_waits_for(accept: Any, ledger: Ledger) -> None:
    """Whoever publishes its message too soon: it is put off, and started when its turn has come."""
    job = workflow(["a", "b", "combine"], {"combine": ["a", "b"]})
    accept(job)
    a, b, combine = job.steps
    ledger.succeed(a.id, token=claimed(ledger, a.id).token, result=RESULT)
    assert claim(ledger, combine.id) == Refusal("early", "")
    ledger.succeed(b.id, token=claimed(ledger, b.id).token, result=RESULT)
    assert claimed(ledger, combine.id).upstream == f"[{RESULT}, {RESULT}]"


def test_a_workflow_of_the_version_before_ends_with_its_last_result(
    accept: Any, ledger: Ledger, client: redis.Redis
) -> None:
    """What was accepted before `ends` was written down is finished after the upgrade."""
    job = workflow(["extract", "load"], {"load": ["extract"]})
    accept(job)
    client.hdel(key("job", job.id), "ends")
    client.hdel(key("job", job.id), "done")
    for number, step in enumerate(job.steps, start=1):
        ledger.succeed(step.id, token=claimed(ledger, step.id).token, result=json.dumps({"step": number}))
    assert (record(ledger, job.id).state, record(ledger, job.id).result) == ("succeeded", '{"step": 2}')


def test_messages_are_kept_for_as_long_as_they_may_be_published_again(accept: Any, ledger: Ledger) -> None:
    """A step's message carries those after it: kept by every one, a long chain would be kept a hundred times over."""
    job = workflow(["a", "b", "fork", "left", "right"], {"fork": ["a", "b"], "left": ["fork"], "right": ["fork"]})
    accept(job)

    def kept() -> list[str | None]:
        return [step.step for step in record(ledger, job.id).steps if step.message]

    for step in job.steps:
        token = claimed(ledger, step.id).token
        if step.step == "fork":
            assert kept() == ["fork"]
        if step.step == "right":
            assert kept() == ["fork", "left", "right"]
        ledger.succeed(step.id, token=token, result=RESULT)
    assert kept() == []
    single = workflow(["only"], {}).steps[0]
    single = replace(single, job_id=None, step=None)
    accept(single)
    ledger.succeed(single.id, token=claimed(ledger, single.id).token, result=RESULT)
    assert record(ledger, single.id).message is None


def test_a_step_of_a_forgotten_job_never_runs(accept: Any, ledger: Ledger, client: redis.Redis) -> None:
    """Its message may lie in a list for longer than the job is remembered: it is nobody else's task to adopt."""
    job = workflow(["a", "b"], {})
    accept(job)
    running, queued = job.steps
    claimed(ledger, running.id)
    ledger.cancel(job.id, reason="no more")
    client.zadd(key("ended"), {job.id: 1})
    tended(ledger)
    stray = replace(queued, job_id=None, step=None)
    assert claim(ledger, queued.id, adopt=stray, root=job.id) == Refusal("unknown", "")
    assert client.zrange(key("running", "etl"), 0, -1) == []
    assert client.zrange(key("claims"), 0, -1) == []


def test_a_workflow_that_expired_runs_no_step(accept: Any, ledger: Ledger) -> None:
    """A worker that comes back may have a step's message before the keeper's first round."""
    job = replace(workflow(["a", "b", "combine"], {"combine": ["a", "b"]}), expires_at=1)
    accept(job)
    assert claim(ledger, job.steps[0].id) == Refusal("expired", "")
    assert record(ledger, job.id).state == "expired"
    assert step_states(ledger, job) == {"a": "expired", "b": "expired", "combine": "expired"}
    assert tended(ledger) == []


def test_a_workflow_that_ends_in_parallel_counts_its_steps_even_if_there_is_one(
    accept: Any, ledger: Ledger, client: redis.Redis
) -> None:
    """A group of one has the result of a group. The last event of progress is complete."""
    job = replace(workflow(["a"], {}), counts_steps=True)
    accept(job)
    ledger.succeed(job.steps[0].id, token=claimed(ledger, job.steps[0].id).token, result=RESULT)
    assert json.loads(record(ledger, job.id).result or "") == {"succeeded_count": 1, "failed_count": 0}
    events: Any = client.xrange(key("events", job.id))
    progress = [values for _, values in events if values["event"] == "progress"]
    assert [(json.loads(each["data"])["current"], each.get("step")) for each in progress] == [(1, None)]
