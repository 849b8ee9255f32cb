"""Rows in real databases: what is written, what wins, what is read again, and what Celery sees."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from celery import Celery
from celery.result import AsyncResult, GroupResult

from api.jobs import view
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.rows import tables, writing
from shared.rows.celerys import taskmeta, tasksetmeta
from shared.rows.djangos import DjangoTables
from shared.rows.migrations import migrate
from shared.rows.noted import NotedRow, NotedRows
from shared.rows.reading import read
from tests.support.ledgers import ERROR, RESULT, claimed, entry, record, tended, workflow

NO_DJANGO = DjangoTables()


def written(engine: sa.Engine, *rows: NotedRow) -> None:
    with engine.begin() as connection:
        writing.write(connection, rows, NO_DJANGO)


def write_all(engine: sa.Engine, noted: NotedRows) -> list[NotedRow]:
    migrate(engine)
    found = noted.take()
    assert found is not None
    written(engine, *found.rows)
    return list(found.rows)


def count(engine: sa.Engine, table: sa.Table) -> int:
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def _succeeds_after_a_retry(ledger: Ledger, accept: Any) -> str:
    job = entry(tags=("night", "ünï"), params='{"text": "a\\u0000b 😀"}', options='{"priority": 7}')
    accept(job)
    ledger.retry(job.id, token=claimed(ledger, job.id).token, delay_s=0, error=ERROR)
    tended(ledger)
    token = claimed(ledger, job.id).token
    progress = json.dumps({"current": 3, "total": 4, "unit": "rows", "message": "on it"})
    ledger.progress(job.id, token=token, progress=progress)
    artifact = {"uri": f"artifact://{job.id}/1/a.csv", "name": "a.csv", "role": "file", "media_type": "text/csv"}
    artifacts = json.dumps([artifact | {"size_bytes": 1, "sha256": "0" * 64}])
    ledger.succeed(
        job.id, token=token, result='{"big": 1e300, "ratio": 1.0, "n": 12345678901234567890}', artifacts=artifacts
    )
    return job.id


def _fails(ledger: Ledger, accept: Any) -> str:
    job = entry()
    accept(job)
    error = {
        "code": "boom",
        "message": "a NUL \0, an emoji 😀, " + "x" * 70_000,
        "remedy": "",
        "retryable": False,
    }
    ledger.fail(job.id, token=claimed(ledger, job.id).token, error=json.dumps(error | {"details": {}}))
    return job.id


def _is_cancelled(ledger: Ledger, accept: Any) -> str:
    job = entry()
    accept(job)
    ledger.cancel(job.id, reason="no more")
    return job.id


def _expires(ledger: Ledger, accept: Any) -> str:
    job = entry(expires_at=1)
    accept(job)
    tended(ledger)
    return job.id


def _is_a_workflow(ledger: Ledger, accept: Any) -> str:
    job = workflow(["b", "a", "c"], {"c": ["b", "a"]})
    accept(job)
    for step in job.steps:
        ledger.succeed(step.id, token=claimed(ledger, step.id).token, result=RESULT)
    return job.id


def _is_a_workflow_that_fails(ledger: Ledger, accept: Any) -> str:
    job = workflow(["a", "b"], {"b": ["a"]})
    accept(job)
    ledger.fail(job.steps[0].id, token=claimed(ledger, job.steps[0].id).token, error=ERROR)
    return job.id


ENDS = (_succeeds_after_a_retry, _fails, _is_cancelled, _expires, _is_a_workflow, _is_a_workflow_that_fails)


def test_a_job_is_shown_from_its_rows_as_from_the_ledger(
    ledger: Ledger, noted: NotedRows, accept: Any, engine: sa.Engine
) -> None:
    """Every field, to the last digit: however it ended, with attempts and steps."""
    ids = [end(ledger, accept) for end in ENDS]
    before = [json.loads(view.job(record(ledger, job_id))) for job_id in ids]
    write_all(engine, noted)
    for shown in before:
        found = read(engine, shown["id"])
        assert found is not None
        assert json.loads(view.job(found)) == shown
    assert read(engine, "another") is None


@pytest.mark.parametrize("end", ENDS)
def test_celerys_own_backend_reads_the_same_as_from_the_ledger(
    ledger: Ledger, noted: NotedRows, accept: Any, engine: sa.Engine, end: Callable[[Ledger, Any], str]
) -> None:
    """`AsyncResult` of an application with `db+...`: state, result or exception, and what `result_extended` adds."""
    job_id = end(ledger, accept)
    at_redis = json.loads(ledger.client.get(key("result", job_id)) or "")
    write_all(engine, noted)
    url = engine.url.render_as_string(hide_password=False)
    app = Celery(set_as_current=False)
    app.conf.update(result_backend=f"db+{url}", result_extended=True, broker_url="memory://")
    result: AsyncResult[Any] = AsyncResult(job_id, app=app)
    assert result.state == at_redis["status"]
    with engine.connect() as connection:
        row = connection.execute(sa.select(taskmeta).where(taskmeta.c.task_id == job_id)).mappings().one()
    assert json.loads(row["result"]) == at_redis["result"]
    assert result.successful() == (result.state == "SUCCESS")
    if result.state == "FAILURE":
        assert "boom: " in str(result.result)
    assert [result.name, result.args, result.queue] == ["acme.shout_text", [], "etl"]
    assert result.kwargs == json.loads(record(ledger, job_id).params)
    assert result.date_done is not None
    app.close()


def test_a_workflow_is_restored_as_a_group(ledger: Ledger, noted: NotedRows, accept: Any, engine: sa.Engine) -> None:
    job_id = _is_a_workflow(ledger, accept)
    write_all(engine, noted)
    app = Celery(set_as_current=False)
    app.conf.update(result_backend=f"db+{engine.url.render_as_string(hide_password=False)}", broker_url="memory://")
    group: Any = GroupResult.restore(job_id, app=app, backend=app.backend)
    assert [part.id for part in group.results] == [step.id for step in record(ledger, job_id).steps]
    assert group.get(timeout=1) == [json.loads(RESULT)] * 3
    app.close()


def test_a_later_state_is_never_replaced_by_an_earlier_one(
    ledger: Ledger, noted: NotedRows, accept: Any, engine: sa.Engine
) -> None:
    """Whatever the order in which two writers commit, also in Celery's table and in that of attempts."""
    migrate(engine)
    job = entry()
    accept(job)
    ledger.retry(job.id, token=claimed(ledger, job.id).token, delay_s=0, error=ERROR)
    first = noted.take()
    tended(ledger)
    ledger.succeed(job.id, token=claimed(ledger, job.id).token, result=RESULT)
    second = noted.take()
    assert first is not None
    assert second is not None
    written(engine, *first.rows)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(taskmeta.c.status)) == "RETRY"
        assert connection.scalar(sa.select(tables.jobs.c.state)) == "retrying"
    written(engine, *second.rows)
    written(engine, *first.rows)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(taskmeta.c.status)) == "SUCCESS"
        assert connection.execute(sa.select(tables.jobs.c.state, tables.jobs.c.attempt)).all() == [("succeeded", 2)]
        outcomes = sa.select(tables.attempts.c.outcome).order_by(tables.attempts.c.attempt)
        assert connection.scalars(outcomes).all() == ["retrying", "succeeded"]


def test_writers_at_the_same_time_leave_one_row_of_each_job(
    ledger: Ledger, noted: NotedRows, accept: Any, engine: sa.Engine
) -> None:
    """Each row in its latest state; a writer that loses a race begins again, as the writing process does."""
    migrate(engine)
    jobs = [entry() for _ in range(20)]
    accept(*jobs)
    for job in jobs:
        ledger.cancel(job.id, reason="no")
    found = noted.take()
    assert found is not None
    rows = found.rows
    start = threading.Barrier(4)

    def writes(later: int) -> None:
        start.wait()
        while True:
            try:
                written(engine, *(row._replace(place=row.place + later) for row in rows))
            except (sa.exc.IntegrityError, sa.exc.OperationalError):
                continue
            return

    writers = [threading.Thread(target=writes, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert count(engine, tables.jobs) == count(engine, taskmeta) == 20
    with engine.connect() as connection:
        places = {row.id: row.place for row in connection.execute(sa.select(tables.jobs.c.id, tables.jobs.c.place))}
    assert places == {row.record.id: row.place + 3 for row in rows}


def test_deleting_a_job_deletes_all_of_its_rows(
    ledger: Ledger, noted: NotedRows, accept: Any, engine: sa.Engine
) -> None:
    gone, stays = _is_a_workflow(ledger, accept), _is_cancelled(ledger, accept)
    write_all(engine, noted)
    with engine.begin() as connection:
        writing.delete(connection, [gone], NO_DJANGO)
    assert (count(engine, tables.jobs), count(engine, taskmeta), count(engine, tasksetmeta)) == (1, 1, 0)
    assert count(engine, tables.attempts) == 0
    assert read(engine, stays) is not None


def test_rows_past_their_retention_go_in_slices(
    ledger: Ledger, noted: NotedRows, accept: Any, engine: sa.Engine
) -> None:
    """A job before its steps; rows of other Celery applications stay."""
    old, young = _is_a_workflow(ledger, accept), _is_cancelled(ledger, accept)
    rows = write_all(engine, noted)
    for row in rows:
        if row.record.id != young:
            early = replace(row.record, finished_at=1_000_000)
            written(engine, row._replace(place=row.place + 1, record=early))
    with engine.begin() as connection:
        connection.execute(taskmeta.insert().values(task_id="another's", status="SUCCESS"))
    slices = []
    while True:
        with engine.begin() as connection:
            slices.append(writing.delete_older(connection, 2_000_000, most=2, django=NO_DJANGO))
        if len(slices) == 1:
            assert read(engine, old) is None
        if not slices[-1]:
            break
    assert slices == [1, 2, 1, 0]
    with engine.connect() as connection:
        assert set(connection.scalars(sa.select(taskmeta.c.task_id))) == {"another's", young}
        assert list(connection.scalars(sa.select(tables.jobs.c.id))) == [young]


def test_what_a_database_cannot_hold_is_fitted(
    ledger: Ledger, noted: NotedRows, accept: Any, engine: sa.Engine, client: redis.Redis
) -> None:
    """Ids of other Celery clients, of any text; a name that is longer than Celery's columns."""
    ids = ["nightly/7 " + "ü" * 245, "Case", "case", "a b"]
    accept(*(entry(id=job_id, message="{}", queue="q" * 200) for job_id in ids))
    for job_id in ids:
        ledger.cancel(job_id, reason="no\0 more")
    write_all(engine, noted)
    for job_id in ids:
        found = read(engine, job_id)
        assert found is not None
        assert found.queue == "q" * 200
    assert count(engine, taskmeta) == 3  # the longest id does not fit in there
    assert client.zcard(key("rows")) == 4
