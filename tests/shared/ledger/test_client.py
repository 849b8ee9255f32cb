"""Each transition's promises, on a real Valkey."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shared.errors import ClaimLost, LedgerUnavailable
from shared.ledger.aclient import AsyncLedger
from shared.ledger.calling.filters import Filter
from shared.ledger.client import Ledger
from shared.ledger.ids import time_floor
from shared.ledger.keys import key
from shared.ledger.records import Claim, Refusal, Submission
from shared.ledger.states import State
from tests.support.ledgers import (
    ERROR,
    MAX_CRASHES,
    RESULT,
    claim,
    claimed,
    entry,
    lapse,
    numbered,
    record,
    tended,
    with_async,
)
from tests.support.servers.services import Server, free_port

# -- accept ---------------------------------------------------------------------------------------------------------


def test_accept_writes_record_message_index_and_event_together(accept: Any, ledger: Ledger, client: Any) -> None:
    """After a 202 the record, the message on its list, the indexes and the first event are all there."""
    job = entry(tags=("nightly",))
    assert accept(job).outcome == "accepted"
    assert record(ledger, job.id).state == "queued"
    assert client.lrange("etl\x06\x165", 0, -1) == [numbered(job.message)]
    assert client.zrange(key("tag", "nightly"), 0, -1) == [job.id]
    assert (client.exists(key("events", job.id)), client.hget(key("job", job.id), "begins")) == (0, "queued")


@pytest.mark.parametrize(("priority", "name"), [(9, "etl"), (8, "etl\x06\x161"), (0, "etl\x06\x169")])
def test_the_most_urgent_list_is_the_one_kombu_reads_first(accept: Any, client: Any, priority: int, name: str) -> None:
    """Priority 9 is most urgent: kombu's Redis transport reads list 0 first, which has no suffix."""
    accept(entry(priority=priority))
    assert client.llen(name) == 1


def test_same_key_and_body_replays_the_first_answer(accept: Any, client: Any) -> None:
    """A second submission under the same key makes no second job and answers with the first one's id."""
    first, second = entry(), entry()
    accepted = accept(first, key="k", fingerprint="f")
    replayed = accept(second, key="k", fingerprint="f")
    assert (replayed.outcome, replayed.ids, replayed.created_at_ms) == ("replayed", (first.id,), accepted.created_at_ms)
    assert client.zcard(key("jobs")) == 1


def test_same_key_with_another_body_is_a_conflict(accept: Any, client: Any) -> None:
    """Another request under a used key is refused and writes nothing."""
    accept(entry(), key="k", fingerprint="f")
    assert accept(entry(), key="k", fingerprint="g").outcome == "conflict"
    assert client.zcard(key("jobs")) == 1


def test_concurrent_submissions_share_round_trips(empty_valkey: Server, client: Any) -> None:
    """A thousand submissions made at once need a handful of script calls, and every one gets its own answer."""
    jobs = [entry() for _ in range(1_000)]

    async def submit(gateway: AsyncLedger) -> list[Any]:
        return await asyncio.gather(*(gateway.accept(Submission([job])) for job in jobs))

    before = int(client.info("commandstats").get("cmdstat_fcall", {"calls": 0})["calls"])
    answers = with_async(empty_valkey.redis_url, submit, timeout_s=60)  # a busy machine is not what this is about
    after = int(client.info("commandstats")["cmdstat_fcall"]["calls"])
    assert [answer.ids for answer in answers] == [(job.id,) for job in jobs]
    assert after - before <= 10


def test_one_key_used_by_many_at_once_makes_one_job(empty_valkey: Server, client: Any) -> None:
    """Fifty submissions race under one key: one is accepted, the others replay it."""

    async def submit(gateway: AsyncLedger) -> list[Any]:
        race = (gateway.accept(Submission([entry()], idempotency_key="k", fingerprint="f")) for _ in range(50))
        return await asyncio.gather(*race)

    answers = with_async(empty_valkey.redis_url, submit)
    assert sorted(answer.outcome for answer in answers) == ["accepted"] + ["replayed"] * 49
    assert len({answer.ids for answer in answers}) == 1
    assert client.zcard(key("jobs")) == 1


def test_a_ledger_that_is_down_is_reported_within_the_time_limit() -> None:
    """Nothing listens: the caller gets LedgerUnavailable within the time limit."""

    async def submit(gateway: AsyncLedger) -> None:
        await gateway.accept(Submission([entry()]))

    with pytest.raises(LedgerUnavailable):
        with_async(f"redis://127.0.0.1:{free_port()}/0", submit)


# -- claim, finish --------------------------------------------------------------------------------------------------


def test_a_claim_is_exclusive_while_it_lasts(accept: Any, ledger: Ledger) -> None:
    """A second delivery of a running job is told so and runs nothing."""
    job = entry()
    accept(job)
    claimed(ledger, job.id)
    assert claim(ledger, job.id, owner="w2") == Refusal("busy", "")


def test_a_claim_whose_answer_was_lost_is_given_again(accept: Any, ledger: Ledger) -> None:
    """The same delivery asks twice (its first answer was lost): the claim and its token are the same."""
    job = entry()
    accept(job)
    first = claimed(ledger, job.id, delivery="d1")
    assert claimed(ledger, job.id, delivery="d1") == first


def test_a_duplicate_of_a_finished_job_gets_the_result(accept: Any, ledger: Ledger) -> None:
    """A chain or chord that waits for it continues."""
    job = entry()
    accept(job)
    ledger.succeed(job.id, token=claimed(ledger, job.id).token, result=RESULT)
    assert claim(ledger, job.id) == Refusal("succeeded", RESULT)


def test_a_late_owner_cannot_write(accept: Any, ledger: Ledger, client: Any) -> None:
    """After its claim lapsed and another worker took over, the first owner's writes are refused."""
    job = entry()
    accept(job)
    late = claimed(ledger, job.id, owner="w1")
    lapse(client, job.id)
    current = claimed(ledger, job.id, owner="w2")
    assert int(current.token) > int(late.token)
    for write in (
        lambda: ledger.succeed(job.id, token=late.token, result=RESULT),
        lambda: ledger.fail(job.id, token=late.token, error=ERROR),
        lambda: ledger.retry(job.id, token=late.token, delay_s=1, error=ERROR),
        lambda: ledger.progress(job.id, token=late.token, progress="{}"),
    ):
        with pytest.raises(ClaimLost):
            write()
    assert ledger.release(job.id, owner="w1") == "refused"
    ledger.succeed(job.id, token=current.token, result=RESULT)
    assert record(ledger, job.id).result == RESULT


def test_finishing_twice_with_one_token_is_one_end(accept: Any, ledger: Ledger, client: Any) -> None:
    """The answer to the first call was lost; the second call succeeds and writes no second event."""
    job = entry()
    accept(job)
    token = claimed(ledger, job.id).token
    ledger.succeed(job.id, token=token, result=RESULT)
    events = client.xlen(key("events", job.id))
    ledger.succeed(job.id, token=token, result=RESULT)
    assert client.xlen(key("events", job.id)) == events


def test_a_retry_that_became_a_cancel_may_be_asked_for_twice(accept: Any, ledger: Ledger) -> None:
    """The answer to the first call was lost, as with every end; a success with the same token comes too late."""
    job = entry()
    accept(job)
    token = claimed(ledger, job.id).token
    ledger.cancel(job.id, reason="no longer needed")
    for _ in range(2):
        ledger.retry(job.id, token=token, delay_s=1, error=ERROR)
    assert record(ledger, job.id).state == "cancelled"
    with pytest.raises(ClaimLost):
        ledger.succeed(job.id, token=token, result=RESULT)


def test_celery_sees_what_the_ledger_says(accept: Any, ledger: Ledger, client: Any) -> None:
    """The key that an AsyncResult reads is written by the same transition, empty lists intact."""
    good, bad = entry(), entry()
    accept(good, bad)
    ledger.succeed(good.id, token=claimed(ledger, good.id).token, result=RESULT)
    ledger.fail(bad.id, token=claimed(ledger, bad.id).token, error=ERROR)
    success = json.loads(str(client.get(f"celery-task-meta-{good.id}")))
    failure = json.loads(str(client.get(f"celery-task-meta-{bad.id}")))
    assert (success["status"], success["result"]) == ("SUCCESS", {"rows": [], "n": 1})
    assert (failure["status"], failure["result"]["exc_message"]) == ("FAILURE", ["boom: it broke"])
    assert json.loads(record(ledger, bad.id).error or "")["details"] == {"rows": []}


def test_a_job_from_a_foreign_client_is_adopted_once(ledger: Ledger, accept: Any, client: Any) -> None:
    """A message that came past the gateway gets a record; one whose record was forgotten does not run again."""
    job = entry()
    assert isinstance(claim(ledger, job.id, adopt=job), Claim)
    assert record(ledger, job.id).state == "running"
    old = entry()
    accept(old)
    ledger.succeed(old.id, token=claimed(ledger, old.id).token, result=RESULT)
    client.zadd(key("ended"), {old.id: 1})
    assert ("forgotten", old.id) in tended(ledger)
    assert claim(ledger, old.id, adopt=old) == Refusal("unknown", "")


# -- retry, release, lost owners ------------------------------------------------------------------------------------


def test_a_retry_waits_for_its_time_and_keeps_its_id(accept: Any, ledger: Ledger, client: Any) -> None:
    """A copy that arrives early runs nothing; when it is due the keeper publishes the message again."""
    job = entry()
    accept(job)
    client.delete("etl\x06\x165")
    ledger.retry(job.id, token=claimed(ledger, job.id).token, delay_s=60, error=ERROR)
    assert (record(ledger, job.id).state, claim(ledger, job.id).why) == ("retrying", "early")  # type: ignore[union-attr]
    client.zadd(key("due"), {job.id: 1})
    client.hset(key("job", job.id), "due_at", "1")
    assert tended(ledger) == [("published", job.id)]
    assert client.lrange("etl\x06\x165", 0, -1) == [numbered(job.message, 2)]
    assert claimed(ledger, job.id)[1:4] == (2, 1, 2)


def test_a_lost_owner_costs_a_crash_and_too_many_quarantine(accept: Any, ledger: Ledger, client: Any) -> None:
    """A job whose worker vanished is published again, but not for ever."""
    job = entry()
    accept(job)
    for crash in range(1, MAX_CRASHES + 1):
        claimed(ledger, job.id)
        lapse(client, job.id)
        expected = "republished" if crash < MAX_CRASHES else "quarantined"
        assert tended(ledger) == [(expected, job.id)]
    found = record(ledger, job.id)
    assert (found.state, found.crashes, found.attempt) == ("quarantined", MAX_CRASHES, MAX_CRASHES)
    assert [attempt["outcome"] for attempt in json.loads(found.attempts)] == ["lost"] * MAX_CRASHES


def test_a_renewed_claim_does_not_lapse(accept: Any, ledger: Ledger, client: Any) -> None:
    """Renewal by the owner moves the end of the claim; by anyone else it reports the loss."""
    job = entry()
    accept(job)
    claimed(ledger, job.id, owner="w1")
    lapse(client, job.id)
    assert ledger.renew([job.id], owner="w1", lease_s=60) == {job.id: "ok"}
    assert tended(ledger) == []
    assert ledger.renew([job.id, "nobody"], owner="w2", lease_s=60) == {job.id: "lost", "nobody": "unknown"}


def test_what_an_owner_finished_itself_is_not_lost_to_it(accept: Any, ledger: Ledger, client: Any) -> None:
    """Its child is about to exit. A job that another worker ended is reported as lost."""
    own, other = entry(), entry()
    accept(own, other)
    ledger.succeed(own.id, token=claimed(ledger, own.id, owner="w1").token, result=RESULT)
    claimed(ledger, other.id, owner="w1")
    lapse(client, other.id)
    ledger.succeed(other.id, token=claimed(ledger, other.id, owner="w2").token, result=RESULT)
    assert ledger.renew([own.id, other.id], owner="w1", lease_s=60) == {own.id: "ended", other.id: "lost"}


def test_a_released_job_is_queued_at_once_without_blame(accept: Any, ledger: Ledger, client: Any) -> None:
    """A worker that shuts down gives its job back; that is not a crash."""
    job = entry()
    accept(job)
    client.delete("etl\x06\x165")
    claimed(ledger, job.id, owner="w1")
    assert ledger.release(job.id, owner="w1") == "released"
    found = record(ledger, job.id)
    assert (found.state, found.crashes, client.llen("etl\x06\x165")) == ("queued", 0, 1)


@pytest.mark.parametrize("crashed", [False, True])
def test_what_lost_its_worker_goes_first(accept: Any, ledger: Ledger, client: Any, crashed: bool) -> None:  # noqa: FBT001 - of pytest
    """It has waited before: behind a backlog of an hour it would wait for another hour."""
    job, others = entry(), [entry() for _ in range(3)]
    accept(job)
    queued_at = record(ledger, job.id).queued_at
    accept(*others)
    assert json.loads(client.rpop("etl\x06\x165"))["headers"]["id"] == job.id
    claimed(ledger, job.id, owner="w1")
    ledger.release(job.id, owner="w1", crashed=crashed)
    assert client.lindex("etl\x06\x165", -1) == numbered(job.message, 2)
    assert record(ledger, job.id).queued_at == queued_at
    assert client.zrank(key("backlog", "etl"), job.id) == 0
    assert tended(ledger, grace_s=0) == []


# -- cancel ---------------------------------------------------------------------------------------------------------


def test_a_cancel_made_while_no_worker_runs_holds(accept: Any, ledger: Ledger) -> None:
    """The state is the ledger's, so a delivery that comes later runs nothing."""
    job = entry()
    accept(job)
    assert ledger.cancel(job.id, reason="changed my mind") == "cancelled"
    assert claim(ledger, job.id) == Refusal("cancelled", "")


def test_cancelling_a_running_job_asks_its_owner(accept: Any, ledger: Ledger, client: Any) -> None:
    """It is cancelled when its owner has stopped, or is gone; until then it says that it is asked to."""
    asked, orphaned = entry(), entry()
    accept(asked, orphaned)
    token = claimed(ledger, asked.id).token
    claimed(ledger, orphaned.id)
    assert (ledger.cancel(asked.id, reason="r"), ledger.cancel(orphaned.id, reason="r")) == ("requested", "requested")
    assert record(ledger, asked.id).state == "running"
    assert ledger.renew([asked.id], owner="w1", lease_s=60) == {asked.id: "cancel"}
    assert ledger.progress(asked.id, token=token, progress="{}") is True
    ledger.fail(asked.id, token=token, error=ERROR)
    lapse(client, orphaned.id)
    assert tended(ledger) == [("cancelled", orphaned.id)]
    assert [record(ledger, job.id).state for job in (asked, orphaned)] == ["cancelled", "cancelled"]


# -- reading --------------------------------------------------------------------------------------------------------


def test_lists_are_newest_first_filtered_and_paged(accept: Any, ledger: Ledger, empty_valkey: Server) -> None:
    """Each filter narrows the list, pages continue where the last one ended, and no page is empty by accident."""
    jobs = [entry(tags=("team/even:1@x",) if n % 2 == 0 else ("odd",)) for n in range(10)]
    for job in jobs:
        accept(job)
    ledger.cancel(jobs[4].id, reason="r")

    def ids(wanted: Filter, limit: int = 50) -> tuple[list[str], str | None]:
        found, after = with_async(empty_valkey.redis_url, lambda gateway: gateway.list(wanted, limit=limit))
        return [job.id for job in found], after

    newest_first = [job.id for job in reversed(jobs)]
    assert ids(Filter()) == (newest_first, None)
    page, after = ids(Filter(), limit=4)
    assert (page, ids(Filter(upper_id=after), limit=50)[0]) == (newest_first[:4], newest_first[4:])
    assert ids(Filter(tag="team/even:1@x"))[0] == newest_first[1::2]
    assert ids(Filter(states=(State.CANCELLED,)))[0] == [jobs[4].id]
    assert ids(Filter(states=(State.CANCELLED, State.QUEUED), tag="team/even:1@x"))[0] == newest_first[1::2]
    assert ids(Filter(kind="acme.shout_text", queue="etl", lower_id=jobs[6].id))[0] == newest_first[:3]
    assert ids(Filter(upper_id=time_floor(0)))[0] == []
