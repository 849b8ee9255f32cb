"""What the ledger notes for the result database: everything that ends, in the transition that ends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.records import ROWS_WAITING, Gone, Record, Unknown
from shared.rows.noted import Noted, NotedRows, want_rows
from tests.support.ledgers import ERROR, RESULT, claimed, entry, lapse, record, tended, with_async, workflow


def taken(noted: NotedRows) -> Noted:
    found = noted.take()
    assert found is not None
    return found


def ids_taken(noted: NotedRows) -> list[str]:
    return [row.record.id for row in taken(noted).rows]


def test_without_a_result_database_nothing_is_noted(ledger: Ledger, client: redis.Redis, accept: Any) -> None:
    """Nor does anything of it stay in the ledger."""
    job = entry()
    accept(job)
    ledger.succeed(job.id, token=claimed(ledger, job.id).token, result=RESULT)
    assert not client.exists(key("rows"), key("rows_wanted"), key("rows_deleted"))


def _fails(ledger: Ledger, job_id: str) -> None:
    ledger.fail(job_id, token=claimed(ledger, job_id).token, error=ERROR)


def _is_retried(ledger: Ledger, job_id: str) -> None:
    ledger.retry(job_id, token=claimed(ledger, job_id).token, delay_s=60, error=ERROR)


def _is_released(ledger: Ledger, job_id: str) -> None:
    claimed(ledger, job_id)
    ledger.release(job_id, owner="w1")


def _loses_its_worker(ledger: Ledger, job_id: str) -> None:
    claimed(ledger, job_id)
    lapse(ledger.client, job_id)
    tended(ledger)


def _expires(ledger: Ledger, job_id: str) -> None:
    ledger.client.zadd(key("expiring"), {job_id: 1})
    tended(ledger)


@pytest.mark.parametrize(
    ("happens", "ends"),
    [
        (_fails, ("failed", ["failed"])),
        (_is_retried, ("retrying", ["retrying"])),
        (_is_released, ("queued", ["released"])),
        (_loses_its_worker, ("queued", ["lost"])),
        (_expires, ("expired", [])),
        (lambda ledger, job_id: ledger.cancel(job_id, reason="no"), ("cancelled", [])),
    ],
)
def test_every_end_of_a_job_or_attempt_is_noted(
    ledger: Ledger,
    noted: NotedRows,
    accept: Any,
    happens: Callable[[Ledger, str], None],
    ends: tuple[str, list[str]],
) -> None:
    """By whomever: a worker, the keeper, or the gateway, which has no result database to write to."""
    job = entry()
    accept(job)
    happens(ledger, job.id)
    (row,) = taken(noted).rows
    assert row.record.id == job.id
    outcomes = [attempt["outcome"] for attempt in json.loads(row.record.attempts)]
    assert (row.record.state, outcomes) == ends


def test_a_workflow_is_noted_with_its_steps(ledger: Ledger, noted: NotedRows, accept: Any) -> None:
    """The steps in their order; those that never started, too."""
    job = workflow(["a", "b"], {"b": ["a"]})
    accept(job)
    _fails(ledger, job.steps[0].id)
    found = {row.record.id: row for row in taken(noted).rows}
    assert {row.record.state for row in found.values()} == {"failed", "skipped"}
    assert found[job.id].step_ids == tuple(step.id for step in job.steps)


def test_what_is_noted_stays_until_it_is_written(ledger: Ledger, noted: NotedRows, accept: Any) -> None:
    """A row that changes while it is being written is written again."""
    changes, same = entry(), entry()
    accept(changes, same)
    for job in (changes, same):
        _is_retried(ledger, job.id)
    first = {row.record.id: row.place for row in taken(noted).rows}
    assert sorted(ids_taken(noted)) == sorted(first)
    ledger.cancel(changes.id, reason="no")
    noted.written(first, {})
    (left,) = taken(noted).rows
    assert (left.record.id, left.record.state) == (changes.id, "cancelled")
    assert left.place > first[changes.id]


def test_one_worker_writes(ledger: Ledger, noted: NotedRows, client: redis.Redis) -> None:
    """Another one does once the first is silent."""
    other = NotedRows(ledger, owner="w2")
    assert other.take() is None
    client.delete(key("row_writer"))
    assert other.take() is not None
    assert noted.take() is None


def test_places_rise_even_if_the_clock_does_not(
    ledger: Ledger, noted: NotedRows, accept: Any, client: redis.Redis
) -> None:
    """It was set back by an hour, say, with the move to another server."""
    job = entry()
    accept(job)
    _is_retried(ledger, job.id)
    (before,) = taken(noted).rows
    ahead = before.place + 3_600_000
    client.set(key("rows_wanted"), ahead, keepttl=True)
    ledger.cancel(job.id, reason="no")
    (after,) = taken(noted).rows
    assert after.place == ahead + 1


def test_a_job_past_its_retention_waits_for_its_row(
    ledger: Ledger, noted: NotedRows, accept: Any, client: redis.Redis
) -> None:
    """The database may be away for longer than a job is kept."""
    job = entry()
    accept(job)
    _fails(ledger, job.id)
    client.zadd(key("ended"), {job.id: 1})
    assert tended(ledger) == []
    noted.written({row.record.id: row.place for row in taken(noted).rows}, {})
    client.zadd(key("ended"), {job.id: 1})
    assert tended(ledger) == [("forgotten", job.id)]
    assert ledger.read(job.id) == Gone()


def test_the_rows_that_wait_are_bounded(ledger: Ledger, noted: NotedRows, accept: Any, client: redis.Redis) -> None:
    """Beyond the bound a job is not kept past its retention; what is lost is counted."""
    job = entry()
    accept(job)
    _fails(ledger, job.id)
    client.zadd(key("ended"), {job.id: 1})
    others: dict[str, float] = {f"other-{n}": 1 for n in range(ROWS_WAITING)}
    client.zadd(key("rows"), others)
    assert tended(ledger) == [("forgotten", job.id)]
    assert client.hget(key("counters"), "kept|row_dropped") == "1"
    assert client.zscore(key("rows"), job.id) is None
    assert ids_taken(noted) == []  # the records of the others do not exist, so they are dropped, too
    assert int(client.hget(key("counters"), "kept|row_dropped") or 0) > 1


def test_a_deleted_job_has_its_rows_deleted(
    ledger: Ledger, noted: NotedRows, accept: Any, client: redis.Redis, empty_valkey: Any
) -> None:
    """Until then a read says that they are not to be shown; a row that was not written yet never is."""
    job = entry()
    accept(job)
    _fails(ledger, job.id)
    with_async(empty_valkey.redis_url, lambda gateway: gateway.call("forget", {"id": job.id, "files_ms": 1}))
    found = taken(noted)
    assert (found.rows, list(found.deleted)) == ([], [job.id])
    assert ledger.read(job.id) == Gone(is_deleted=True)
    noted.written({}, found.deleted)
    assert ledger.read(job.id) == Gone()
    assert client.exists(key("rows"), key("rows_deleted")) == 0


def test_a_damaged_record_does_not_keep_the_others_waiting(
    ledger: Ledger, noted: NotedRows, accept: Any, client: redis.Redis
) -> None:
    bad, good = entry(), entry()
    accept(bad, good)
    for job in (bad, good):
        _fails(ledger, job.id)
    client.hset(key("job", bad.id), "priority", "urgent")
    found = taken(noted)
    assert ([row.record.id for row in found.rows], list(found.damaged)) == ([good.id], [bad.id])


def test_rows_are_noted_for_a_week(ledger: Ledger, accept: Any, client: redis.Redis) -> None:
    """Also before the first worker has started; and no longer than that once no process has the setting."""
    want_rows(ledger.call)
    assert 0 < client.pttl(key("rows_wanted")) <= 7 * 86_400_000
    job = entry()
    accept(job)
    ledger.cancel(job.id, reason="no")
    assert ids_taken(NotedRows(ledger, owner="w1")) == [job.id]
    assert isinstance(record(ledger, job.id), Record)
    assert ledger.read(uuid7()) == Unknown()
