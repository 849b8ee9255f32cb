"""What the keeper does each second: due, lost, expired, outbox, retention."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.records import Gone, Record, Refusal, Unknown
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
from worker.upkeep.keeper import Keeper

HELD = Refusal("held", "")


@pytest.fixture(scope="module")
def valkey(own_valkey: Server) -> Server:
    """Return a database into which nothing else writes: these tests compare it as a whole."""
    return own_valkey


def test_only_one_worker_is_the_keeper(ledger: Ledger) -> None:
    """The lock is the script's own first step, so two rounds never act at the same time."""
    assert ledger.tend(owner="a") == ([], 0)
    assert ledger.tend(owner="b") is None


def test_the_next_keeper_does_not_take_the_death_of_the_last_for_an_outage(ledger: Ledger, client: Any) -> None:
    """The lock of a dead keeper ends well within a lease, whatever the lease: else lost jobs waited for one more."""
    ledger.tend(owner="a", lease_s=4)
    assert 0 < client.pttl(key("keeper")) <= 2_000
    client.delete(key("keeper"))
    ledger.tend(owner="b", lease_s=20)
    assert 2_000 < client.pttl(key("keeper")) <= 5_000


def test_a_message_lost_between_list_and_worker_is_published_again(accept: Any, ledger: Ledger, client: Any) -> None:
    """A job published before the message at the list's tail, and not claimed, is no longer in the list."""
    lost, waiting = entry(), entry()
    accept(lost)
    accept(waiting)
    publish_long_ago(client, lost.id)
    assert client.rpop("etl\x06\x165") == numbered(lost.message)  # a worker took it, and died before it could claim
    assert tended(ledger) == [("republished", lost.id)]
    assert client.lrange("etl\x06\x165", 0, -1) == [numbered(waiting.message), numbered(lost.message, 2)]
    assert tended(ledger) == []


def test_lost_messages_keep_their_order(accept: Any, ledger: Ledger, client: Any) -> None:
    """All lost messages of a list are published again, over several rounds, oldest first and before later ones."""
    lost, later = [entry() for _ in range(5)], entry()
    for age, job in enumerate(lost, start=1):
        accept(job)
        publish_long_ago(client, job.id, at_ms=age)
    client.delete("etl\x06\x165")
    accept(later)
    assert [sum(1 for _ in tended(ledger, limit=2)) for _ in range(4)] == [2, 2, 1, 0]
    assert ids_on(client) == [job.id for job in (*lost, later)]


def test_an_old_copy_at_the_head_of_a_list_raises_no_alarm(accept: Any, ledger: Ledger, client: Any) -> None:
    """Its job was published again since, so the copy says nothing about the messages behind it."""
    again, backlog = entry(), [entry() for _ in range(20)]
    accept(again)
    copy = client.rpop("etl\x06\x165")
    for age, job in enumerate(backlog, start=1):
        accept(job)
        publish_long_ago(client, job.id, at_ms=age)
    ledger.retry(again.id, token=claimed(ledger, again.id).token, delay_s=0, error=ERROR)
    assert tended(ledger) == [("published", again.id)]
    client.rpush("etl\x06\x165", copy)
    assert tended(ledger, grace_s=0) == []
    assert client.llen("etl\x06\x165") == 22


def test_a_message_that_is_lost_behind_old_copies_is_found(accept: Any, ledger: Ledger, client: Any) -> None:
    """The first message after the copies shows what was published before it."""
    lost, waiting = entry(), entry()
    accept(lost)
    accept(waiting)
    publish_long_ago(client, lost.id)
    client.rpop("etl\x06\x165")
    client.rpush("etl\x06\x165", numbered(waiting.message, 7), "no JSON")
    assert tended(ledger) == [("republished", lost.id)]
    assert tended(ledger) == []


def test_a_long_queue_is_not_taken_for_lost(accept: Any, ledger: Ledger, client: Any) -> None:
    """Jobs that merely wait, however long, are left alone."""
    jobs = [entry() for _ in range(20)]
    for job in jobs:
        accept(job)
    for age, job in enumerate(jobs, start=1):
        publish_long_ago(client, job.id, at_ms=age)
    assert tended(ledger) == []


def test_a_scheduled_job_is_published_when_due(accept: Any, ledger: Ledger, client: Any) -> None:
    """Until then no message of it exists anywhere."""
    job = entry(due_at=9_999_999_999_999)
    accept(job)
    assert (record(ledger, job.id).state, client.exists("etl\x06\x165")) == ("scheduled", 0)
    client.zadd(key("due"), {job.id: 1})
    assert tended(ledger) == [("published", job.id)]
    assert (record(ledger, job.id).state, client.llen("etl\x06\x165")) == ("queued", 1)


def test_an_expired_job_never_runs(accept: Any, ledger: Ledger) -> None:
    """Whether the keeper or a late delivery notices first."""
    noticed, delivered = entry(expires_at=1), entry(expires_at=1)
    accept(noticed, delivered)
    assert claim(ledger, delivered.id) == Refusal("expired", "")
    assert tended(ledger) == [("expired", noticed.id)]
    assert record(ledger, noticed.id).state == "expired"


def test_the_outbox_is_published_by_the_keeper_if_the_gateway_could_not(accept: Any, ledger: Ledger) -> None:
    """On a broker that is not Redis the message goes from the record to kombu, and is noted once it is there."""
    job = entry(outbox=True)
    accept(job)
    assert tended(ledger, outbox_grace_s=0) == [("unpublished", job.id)]
    assert ledger.messages([job.id]) == {job.id: ("etl", job.message, 1)}
    ledger.published({job.id: 1})
    assert tended(ledger, outbox_grace_s=0, grace_s=0) == []


@pytest.mark.parametrize("is_paused_before", [True, False])
def test_a_publication_that_is_told_late_takes_no_later_one_from_the_outbox(
    accept: Any, ledger: Ledger, *, is_paused_before: bool
) -> None:
    """The message came, was held, and the job let go again, before the gateway said that it had published the first."""
    job = entry(outbox=True)
    if is_paused_before:
        ledger.call("pause", {"queue": "etl"})
    accept(job)
    ledger.call("pause", {"queue": "etl"})
    assert claim(ledger, job.id) == HELD
    ledger.call("resume", {"queue": "etl"})
    assert tended(ledger) == [("published", job.id), ("unpublished", job.id)]
    ledger.published({job.id: 1})
    assert tended(ledger) == [("unpublished", job.id)]
    assert ledger.messages([job.id])[job.id][-1] == 2
    ledger.published({job.id: 2})
    assert tended(ledger) == []
    claimed(ledger, job.id)


def test_retention_takes_everything_and_leaves_a_mark(accept: Any, ledger: Ledger, client: Any) -> None:
    """After its retention a job's keys are gone, and its id reads as gone, not as never there."""
    job = entry(tags=("t",))
    accept(job)
    ledger.succeed(job.id, token=claimed(ledger, job.id).token, result=RESULT)
    client.zadd(key("ended"), {job.id: 1})
    assert tended(ledger) == [("forgotten", job.id)]
    assert (ledger.read(job.id), ledger.read(uuid7())) == (Gone(), Unknown())
    left = {
        name
        for name in client.keys("*")
        if name not in {key("counters"), key("keeper"), key("lists"), key("tended_at"), key("token")}
    }
    assert left == {key("gone"), "etl\x06\x165"}  # the list's stale message is dropped when it is delivered


def test_an_uploads_files_are_named_to_the_keeper_when_their_time_is_over(
    empty_valkey: Server, ledger: Ledger, client: Any
) -> None:
    """Also those of an upload that never came to its end."""
    upload_id = uuid7()
    with_async(empty_valkey.redis_url, lambda gateway: gateway.upload(upload_id, retention_s=60))
    assert tended(ledger) == []
    client.zadd(key("uploads"), {upload_id: 1})
    assert tended(ledger) == [("forgotten", upload_id)]
    assert tended(ledger) == []


def test_after_an_outage_of_the_ledger_living_owners_get_a_lease_to_show_it(
    accept: Any, ledger: Ledger, client: Any
) -> None:
    """Nobody could renew while it was away, so what lapsed meanwhile is not taken for lost at once."""
    job = entry()
    accept(job)
    claimed(ledger, job.id)
    tended(ledger)
    lapse(client, job.id)
    client.set(key("tended_at"), 1)
    assert tended(ledger) == []
    assert claim(ledger, job.id, owner="w2") == Refusal("busy", "")
    assert ledger.renew([job.id], owner="w1", lease_s=60) == {job.id: "ok"}
    lapse(client, job.id)
    client.delete(key("amnesty"))
    assert tended(ledger) == [("republished", job.id)]


@pytest.mark.parametrize("foreign", ["no JSON", "[]", "{}", '{"headers": {}}', '{"headers": {"id": 7}}'])
def test_a_foreign_message_does_not_stop_the_keeper(accept: Any, ledger: Ledger, client: Any, foreign: str) -> None:
    """What it cannot read at a list's tail it leaves alone, and does the rest of its round."""
    job = entry(expires_at=1)
    accept(job)
    client.rpush("etl\x06\x165", foreign)
    assert tended(ledger) == [("expired", job.id)]


def test_a_call_of_the_keeper_changes_a_bounded_number_of_jobs(accept: Any, ledger: Ledger, client: Any) -> None:
    """Nobody else is served meanwhile. What is left is done by the next calls, and every round gets its turn."""
    due, expiring = [entry(due_at=9_999_999_999_999) for _ in range(130)], entry(expires_at=9_999_999_999_999)
    accept(*due, expiring)
    client.zadd(key("due"), {job.id: 1 for job in due})
    client.zadd(key("expiring"), {expiring.id: 1})
    told, next_round = [], 1
    while next_round:
        done = ledger.tend(owner="keeper", first_round=next_round)
        assert done is not None
        told.append([action.what for action in done.actions])
        next_round = done.next_round
    assert told == [["published"] * 50, ["expired"] + ["published"] * 49, ["published"] * 31]
    assert ids_on(client) == [expiring.id, *(job.id for job in due)]


def test_what_cannot_be_changed_does_not_keep_the_keeper_busy(accept: Any, ledger: Ledger, client: Any) -> None:
    """It would look at the same jobs again at once, all the time."""
    jobs = [entry() for _ in range(60)]
    accept(*jobs)
    client.delete(LIST)
    later = entry()
    accept(later)
    for job in jobs:  # published just now, before those that wait: `put_first` gives such a score
        client.zadd(key("published", LIST), {job.id: 1})
    assert ledger.tend(owner="keeper", grace_s=60) == ([], 0)


def test_a_call_of_the_keeper_ends_a_bounded_number_of_steps(accept: Any, ledger: Ledger, client: Any) -> None:
    """Large workflows that expire or are forgotten at once would stop the ledger for everybody: they take turns."""
    jobs = [
        replace(workflow([f"s{n}" for n in range(600)], {}), expires_at=9_999_999_999_999, message=None)
        for _ in range(3)
    ]
    accept(*jobs)
    client.zadd(key("expiring"), {job.id: 1 for job in jobs})
    assert [[what for what, _ in tended(ledger)] for _ in range(3)] == [["expired"]] * 3
    client.zadd(key("ended"), {job.id: 1 for job in jobs})
    assert {len(tended(ledger)) for _ in range(3)} == {601}
    assert [ledger.read(job.id) for job in jobs] == [Gone()] * 3
    assert isinstance(ledger.read(jobs[0].steps[-1].id), Record)  # its turn comes
    next_round = 1
    while next_round:
        done = ledger.tend(owner="keeper", first_round=next_round)
        assert done is not None
        assert done.actions == []
        next_round = done.next_round
    assert client.exists(key("ended")) == 0
    assert not [*client.scan_iter(key("job", "*"), count=1_000)]


def test_the_ids_of_jobs_long_gone_go_a_part_at_a_time(ledger: Ledger, client: Any) -> None:
    """After days without a keeper there may be a million."""
    client.zadd(key("gone"), {f"job-{n}": n for n in range(1_500)})
    done = ledger.tend(owner="keeper")
    assert (done and done.next_round, client.zcard(key("gone"))) == (9, 500)
    assert (ledger.tend(owner="keeper", first_round=9), client.zcard(key("gone"))) == (([], 0), 0)


def test_the_keeper_goes_on_at_once_while_something_is_left(
    accept: Any, ledger: Ledger, client: Any, broker: BrokerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """After a pause as long as its call, so that others are served; with one line in the log."""
    jobs = [entry() for _ in range(120)]
    accept(*jobs)
    for job in jobs:
        ledger.cancel(job.id, reason="r")
    client.zadd(key("ended"), {job.id: 1 for job in jobs})
    keeper = Keeper(ledger, broker, owner="keeper", app=make_celery(broker), callbacks_per_host=3)
    with caplog.at_level(logging.INFO):
        pauses = [keeper.round() for _ in range(3)]
    assert [pause is not None and 0 < pause < 1 for pause in pauses] == [True, True, False]
    assert pauses[-1] is None
    assert [text for text in caplog.messages if text.startswith("keeper")] == ["keeper: 120 forgotten"]
    assert {type(ledger.read(job.id)) for job in jobs} == {Gone}
