"""The SQL of docs/results.md, on the databases that the page names as tested."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from shared.contract.artifacts import Column, Dataset
from shared.jobs.etl import ExtractData, ExtractResult
from shared.ledger.client import Ledger
from shared.rows import writing
from shared.rows.djangos import DjangoTables
from shared.rows.migrations import migrate
from shared.rows.noted import NotedRows
from tests.support.ledgers import claimed, entry

_PAGE = Path(__file__).parents[3] / "docs" / "results.md"
_ON_MARIADB = {
    "jobs.result->'dataset'->>'row_count'": "JSON_VALUE(jobs.result, '$.dataset.row_count')",
    "jobs.tags->>0": "JSON_VALUE(jobs.tags, '$[0]')",
}


def test_jobs_are_joined_with_a_table_of_another_team(
    ledger: Ledger, accept: Any, noted: NotedRows, engine: sa.Engine
) -> None:
    """A job's result, tags and times are there as the example reads them; a failed one is left out."""
    page = _PAGE.read_text("utf-8")
    (sql,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    if engine.dialect.name in {"mysql", "mariadb"}:
        for arrow, call in _ON_MARIADB.items():
            assert f"`{call}`" in page
            sql = sql.replace(arrow, call)
    file = {"name": "data.parquet", "role": "dataset", "media_type": "x/y", "size_bytes": 1, "sha256": "0" * 64}
    for number, tag in enumerate(("acme", "globex", "initech")):
        job = entry(kind=ExtractData.spec.kind, tags=(tag, "nightly"))
        accept(job)
        token = claimed(ledger, job.id).token
        dataset = Dataset(
            uri=f"artifact://{job.id}/1/data.parquet",
            row_count=number,
            columns=[Column(name="a", type="int64")],
            **file,
        )
        if tag == "initech":
            ledger.fail(job.id, token=token, error='{"code": "x", "message": "", "remedy": "", "details": {}}')
        else:
            result = ExtractResult(dataset=dataset, read_bytes=1, source="x.csv")
            ledger.succeed(job.id, token=token, result=result.model_dump_json())
    migrate(engine)
    found = noted.take()
    assert found is not None
    with engine.begin() as connection:
        writing.write(connection, found.rows, DjangoTables())
        connection.execute(sa.text("CREATE TABLE customers (code VARCHAR(20), name VARCHAR(20))"))
        connection.execute(sa.text("INSERT INTO customers VALUES ('acme', 'Acme'), ('globex', 'Globex'), ('x', 'X')"))
        rows: Sequence[Any] = connection.execute(sa.text(sql)).all()
    assert [(name, int(count)) for name, count, _ in sorted(rows)] == [("Acme", 0), ("Globex", 1)]
    for *_, finished_at in rows:
        at = finished_at if isinstance(finished_at, datetime) else datetime.fromisoformat(finished_at)
        assert abs(datetime.now(UTC) - at.replace(tzinfo=UTC)) < timedelta(hours=1)
