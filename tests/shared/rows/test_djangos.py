"""`django-celery-results` shows the jobs where its table is in the result database."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from shared.ledger.client import Ledger
from shared.rows import writing
from shared.rows.djangos import DjangoTables
from shared.rows.migrations import migrate
from shared.rows.noted import NotedRows
from tests.support.ledgers import ERROR, RESULT, claimed, entry, tended


def django(command: str, engine: sa.Engine) -> str:
    url = engine.url.set(drivername=engine.url.get_backend_name()).render_as_string(hide_password=False)
    program = [sys.executable, str(Path(__file__).with_name("django_admin.py")), command, url]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_its_admin_lists_the_jobs(ledger: Ledger, noted: NotedRows, accept: Any, engine: sa.Engine) -> None:
    """A retry, then the outcome in the same row; a failure with its exception; a deleted job is no longer listed."""
    good, bad, gone = entry(params='{"text": "x"}', schedule="nightly"), entry(), entry()
    accept(good, bad, gone)
    django("migrate", engine)
    migrate(engine)
    with engine.connect() as connection:
        tables = DjangoTables.look(connection)
    ledger.retry(good.id, token=claimed(ledger, good.id).token, delay_s=0, error=ERROR)

    def write() -> None:
        found = noted.take()
        assert found is not None
        with engine.begin() as connection:
            writing.write(connection, found.rows, tables)

    write()
    assert {name: result["status"] for name, result in json.loads(django("show", engine)).items()} == {good.id: "RETRY"}
    tended(ledger)
    ledger.succeed(good.id, token=claimed(ledger, good.id).token, result=RESULT)
    ledger.fail(bad.id, token=claimed(ledger, bad.id).token, error=ERROR)
    ledger.cancel(gone.id, reason="no")
    write()
    with engine.begin() as connection:
        writing.delete(connection, [gone.id], tables)
    shown = json.loads(django("show", engine))
    assert shown.keys() == {good.id, bad.id}
    found = shown[good.id]
    assert found["is_listed"]
    assert (found["status"], found["task_name"], json.loads(found["result"])) == (
        "SUCCESS",
        "acme.shout_text",
        json.loads(RESULT),
    )
    assert found["worker"] == "w1@host"
    assert json.loads(shown[bad.id]["result"])["exc_message"] == ["boom: it broke"]


def test_without_its_table_nothing_is_written_for_it(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        assert DjangoTables.look(connection).keys() == []
