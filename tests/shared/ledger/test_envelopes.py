"""The message is kept once, on its list; the record has what makes it again, to the byte."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from shared.broker.messages import Composer, MessageOptions
from shared.broker.settings import BrokerSettings
from shared.contract.catalogue import catalogue
from shared.contract.options import RunOptions
from shared.ledger.client import Ledger
from shared.ledger.envelopes import composed, envelope_of, numbered
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.records import Entry, Record, Submission
from shared.workflows.definition import WorkflowContract
from shared.workflows.planning import Planner, prepare
from tests.support.ledgers import claimed, composed_for, entry, publish_long_ago, record, tended
from tests.support.servers.services import Server

SINGLE = sorted(kind for kind, contract in catalogue().items() if not issubclass(contract, WorkflowContract))
LIST = "etl\x06\x165"
MOST_BYTES = 3_500  # of Valkey's memory that a queued job with two tags takes


@pytest.fixture(scope="module")
def valkey(own_valkey: Server) -> Server:
    """Return a server whose memory nobody else uses."""
    return own_valkey


def planned(kind: str, options: RunOptions) -> Entry:
    contract, broker = catalogue()[kind], BrokerSettings()
    job = contract.model_validate_json(json.dumps(contract.spec.examples[0]))
    return Planner(broker, Composer(broker)).entry(prepare(job, options))


@pytest.mark.parametrize("kind", SINGLE)
def test_the_messages_of_all_kinds_have_a_known_form(kind: str) -> None:
    """With any option; else each would be kept twice, unnoticed."""
    for options in (RunOptions(), RunOptions(priority=9, time_limit_s=7.5, queue="report", tags=["a"])):
        job = planned(kind, options)
        parts = {"job_id": job.id, "kind": job.kind, "queue": job.queue, "params": job.params}
        envelope = envelope_of(job.message or "", **parts)
        assert envelope is not None
        assert composed(envelope, **parts) == job.message
        assert job.envelope == envelope  # found once for all such jobs, not for each


@pytest.mark.parametrize("params", ['{"a": 1}', '{"a": "é"}', '{"a": "' + "x" * 4_096 + '"}'])
def test_a_message_of_an_envelope_is_that_of_the_template(params: str) -> None:
    """Celery's message decides; what differs from the form has no envelope."""
    composer, contract, job_id = Composer(BrokerSettings()), catalogue()["etl.extract_data"], uuid7()
    options = MessageOptions(7, 20.0, 30.5)
    message, envelope = composer.enveloped(contract, job_id, params, options, queue="report")
    assert message == composer.message(contract, job_id, params, options, queue="report")
    assert (envelope is not None) == (params == '{"a": 1}')


PARAMS = {
    "plain": {"a": 1},
    "one more": {"a": 12},
    "two more": {"a": 123},
    "quotes and backslashes": {"a": 'say "\\n" \\\\ ' * 30},
    "signs of patterns": {"a": "%1 %% <id> <body> %(id)s"},
    "later letters": {"a": "x" * 260 + "é😀"},
    "the most": {"a": "x" * 4_087},
}
WHOLE = {"letters": {"a": "é"}, "a control character": {"a": "\x7f"}, "large": {"a": "x" * 5_000}}


def lose(client: redis.Redis, job: Entry) -> None:
    """Take the message, as a worker that dies before it can claim."""
    assert client.rpop(LIST) == numbered(job.message or "")
    publish_long_ago(client, job.id)


@pytest.mark.parametrize("params", PARAMS.values(), ids=list(PARAMS))
def test_a_lost_message_is_made_again_to_the_byte(ledger: Ledger, client: redis.Redis, params: dict[str, Any]) -> None:
    """And is the same after a claim and a release."""
    job = entry(params=json.dumps(params, ensure_ascii=False))
    ledger.accept(Submission([job]))
    assert client.hexists(key("job", job.id), "message") is False
    lose(client, job)
    assert tended(ledger) == [("republished", job.id)]
    assert client.lrange(LIST, 0, -1) == [numbered(job.message or "", 2)]
    client.delete(LIST)
    claimed(ledger, job.id)
    assert client.hexists(key("job", job.id), "message") is False
    ledger.release(job.id, owner="w1")
    assert client.lrange(LIST, 0, -1) == [numbered(job.message or "", 3)]
    client.delete(LIST)
    ledger.retry(job.id, token=claimed(ledger, job.id).token, delay_s=0, error='{"message": "x"}')
    assert tended(ledger) == [("published", job.id)]
    assert client.lrange(LIST, 0, -1) == [numbered(job.message or "", 4)]
    ledger.succeed(job.id, token=claimed(ledger, job.id).token, result="1")
    assert client.hexists(key("job", job.id), "envelope") is False


@pytest.mark.parametrize("params", WHOLE.values(), ids=list(WHOLE))
def test_what_has_no_form_is_kept_whole(ledger: Ledger, client: redis.Redis, params: dict[str, Any]) -> None:
    """Also what the script would make slowly, or otherwise than Python writes it."""
    job = entry(params=json.dumps(params, ensure_ascii=False))
    text = json.dumps(json.loads(composed_for(job)))
    job = replace(job, message=text)
    ledger.accept(Submission([job]))
    assert client.hget(key("job", job.id), "message") == text
    lose(client, job)
    assert tended(ledger) == [("republished", job.id)]
    assert client.lrange(LIST, 0, -1) == [numbered(text, 2)]


def test_a_held_job_has_its_message_when_it_may_go(ledger: Ledger, client: redis.Redis) -> None:
    """In the ledger it waits without one."""
    ledger.call("pause", {"queue": "etl"})
    job = entry()
    ledger.accept(Submission([job]))
    assert client.exists(LIST) == 0
    ledger.call("resume", {"queue": "etl"})
    assert ledger.call("let_go", {"queue": "etl", "limit": 9}) == 1
    assert client.lrange(LIST, 0, -1) == [numbered(job.message or "")]


def test_a_record_of_the_version_before_goes_on(ledger: Ledger, client: redis.Redis) -> None:
    """It has its message, and its first event in the stream."""
    job = entry()
    ledger.accept(Submission([job]))
    client.hdel(key("job", job.id), "envelope", "begins")
    client.hset(key("job", job.id), "message", job.message or "")
    client.xadd(key("events", job.id), {"event": "state", "at": 1, "data": '{"state": "queued", "attempt": 0}'})
    lose(client, job)
    assert tended(ledger) == [("republished", job.id)]
    assert client.lrange(LIST, 0, -1) == [numbered(job.message or "", 2)]
    ledger.succeed(job.id, token=claimed(ledger, job.id).token, result="1")
    assert record(ledger, job.id).state == "succeeded"
    assert client.xlen(key("events", job.id)) == 3


def test_a_queued_job_is_small(ledger: Ledger, client: redis.Redis) -> None:
    """Message, record and indexes together; the stream of its events comes with the second one."""

    def used() -> int:
        found: dict[str, int] = client.info("memory")
        return found["used_memory_dataset"]

    options = '{"priority":4,"tags":["nightly","sales"]}'
    first = replace(planned("etl.extract_data", RunOptions(tags=["nightly", "sales"])), options=options)
    jobs = [replace(first, id=job_id, message=(first.message or "").replace(first.id, job_id)) for job_id in new_ids()]
    ledger.accept(Submission([first]))
    before = used()
    for job in jobs:
        ledger.accept(Submission([job]))
    assert (used() - before) / len(jobs) < MOST_BYTES
    assert isinstance(ledger.read(jobs[0].id), Record)


def new_ids() -> list[str]:
    return [uuid7() for _ in range(1_000)]
