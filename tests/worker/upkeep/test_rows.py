"""The writer of rows: what it does if the database refuses a row, or is away, and how it cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from shared.broker.settings import BrokerSettings
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.rows.database import open_database
from shared.rows.noted import NotedRows
from shared.rows.tables import jobs
from tests.support.ledgers import entry
from tests.support.servers.services import Server, wait_for
from worker.upkeep.rows.program import run
from worker.upkeep.rows.starting import RowsProcess
from worker.upkeep.rows.writer import Writer


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    made = open_database(f"sqlite:///{tmp_path / 'results.db'}", connections=2)
    yield made
    made.dispose()


@pytest.fixture
def writer(ledger: Ledger, engine: sa.Engine) -> Writer:
    made = Writer(NotedRows(ledger, owner="w1"), engine, retention_s=3_600)
    assert made.round()  # the tables are there now
    assert not made.round()
    return made


def cancelled(ledger: Ledger, accept: Any, **changes: Any) -> str:
    job = entry(**changes)
    accept(job)
    ledger.cancel(job.id, reason="no")
    return job.id


def written(engine: sa.Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.scalars(sa.select(jobs.c.id)))


def refuse(engine: sa.Engine, condition: str) -> None:
    trigger = (
        f"CREATE TRIGGER refuse BEFORE INSERT ON celeriac_jobs WHEN {condition} BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with engine.begin() as connection:
        connection.execute(sa.text(trigger))


def test_a_row_that_the_database_refuses_does_not_keep_the_others(
    writer: Writer, ledger: Ledger, engine: sa.Engine, accept: Any, client: redis.Redis
) -> None:
    """It is tried again with later ones, and in the end given up and counted."""
    refuse(engine, "NEW.queue = 'bad'")
    bad = cancelled(ledger, accept, queue="bad")
    with pytest.raises(sa.exc.SQLAlchemyError):  # alone, it may be the database: nothing is given up
        writer.round()
    good = set()
    for _ in range(5):
        assert client.zscore(key("rows"), bad) is not None
        good.add(cancelled(ledger, accept))
        assert writer.round()
    assert written(engine) == good
    assert client.exists(key("rows")) == 0
    assert client.hget(key("counters"), "kept|row_refused") == "1"


def test_a_database_that_takes_nothing_loses_nothing(
    writer: Writer, ledger: Ledger, engine: sa.Engine, accept: Any, client: redis.Redis
) -> None:
    """However often: once it takes rows again, they come."""
    refuse(engine, "1")
    ids = {cancelled(ledger, accept) for _ in range(3)}
    for _ in range(7):
        with pytest.raises(sa.exc.SQLAlchemyError):
            writer.round()
    assert client.zcard(key("rows")) == 3
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TRIGGER refuse"))
    assert writer.round()
    assert written(engine) == ids
    assert client.exists(key("rows")) == 0


def test_rows_past_their_retention_are_deleted_by_the_one_that_writes(
    ledger: Ledger, engine: sa.Engine, accept: Any
) -> None:
    writer = Writer(NotedRows(ledger, owner="w1"), engine, retention_s=1e-3)
    assert writer.round()
    assert not writer.round()
    job_id = cancelled(ledger, accept)
    assert writer.round()
    assert written(engine) == {job_id}
    writer._cleaned_at = -1e9  # a minute has passed
    assert writer.round()
    assert written(engine) == set()
    other = Writer(NotedRows(ledger, owner="w2"), engine, retention_s=1e-3)
    assert not other.round()


def test_the_loop_goes_on_through_failures_and_ends_with_a_last_round(
    writer: Writer, ledger: Ledger, engine: sa.Engine, accept: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What was noted when it was told to stop is written; an outage is logged once, and so is its end."""
    refuse(engine, "1")
    stopping = threading.Event()
    loop = threading.Thread(target=run, args=(writer, stopping))
    first = cancelled(ledger, accept)
    loop.start()
    wait_for(lambda: "rows wait" in caplog.text, "the failure")
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TRIGGER refuse"))
    last = cancelled(ledger, accept)
    stopping.set()
    loop.join(60)
    assert not loop.is_alive()
    assert written(engine) == {first, last}
    assert caplog.text.count("rows wait") == caplog.text.count("can be written again") == 1


def test_the_process_is_started_again_and_stops_when_told(
    empty_valkey: Server, ledger: Ledger, accept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one, on the settings of its worker: after a kill another one writes the rest."""
    backend = f"db+sqlite:///{tmp_path / 'results.db'}"
    monkeypatch.setenv("CELERY_BROKER_URL", empty_valkey.redis_url)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", backend)
    monkeypatch.setattr("worker.upkeep.rows.starting._AGAIN_AFTER_S", 0)
    process = RowsProcess(BrokerSettings())
    process.start()
    try:
        wait_for(lambda: ledger.client.exists(key("rows_wanted")), "the first round")
        first = process._process
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        ledger.client.delete(key("row_writer"))
        job_id = cancelled(ledger, accept)
        process.start()
        wait_for(lambda: not ledger.client.exists(key("rows")), "the row")
    finally:
        process.stop()
    assert isinstance(process._process, subprocess.Popen)
    assert process._process.returncode == 0
    engine = open_database(BrokerSettings().database_url, connections=1)
    assert written(engine) == {job_id}
    engine.dispose()
