"""The report tasks, on a real store and a real ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from shared.errors import TaskFailure
from shared.jobs.report import GenerateDailyReport, GenerateReport
from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.storage import ArtifactStore
from tests.support.datasets import sales
from tests.support.ledgers import accept, claimed, client, entry
from worker.report import tasks
from worker.runtime.run import Run
from worker.runtime.task import definitions

__all__ = ["accept", "client"]


class Unreported(Run):
    """A run of a job that no ledger knows: what it reports goes nowhere."""

    def report(self) -> None:
        """Tell nobody."""


@pytest.fixture
def run(tmp_path: Path, client: redis.Redis) -> Run:
    """Return a run with a store and a scratch folder of its own."""
    (tmp_path / "scratch").mkdir()
    return Unreported(
        job_id=uuid7(),
        kind="report.generate_report",
        attempt=1,
        token="1",  # noqa: S106 - a fencing token is not a secret
        idempotency_key="job",
        scratch=tmp_path / "scratch",
        store=ArtifactStore(str(tmp_path / "store")),
        ledger=Ledger(client),
    )


def staged(run: Run, rows: int) -> str:
    """Put a dataset into the store and return its uri."""
    path = run.scratch.parent / "data.parquet"
    sales(rows).to_parquet(path)
    return run.store.put(path, file_owner=uuid7(), attempt=1, name="d.parquet", role="dataset", media_type="x/y").uri


def test_every_kind_has_a_task() -> None:
    """The tasks of the family are those of its contracts."""
    kinds = {"report.generate_report", "report.generate_daily_report"}
    assert kinds == {kind for kind in definitions() if kind.startswith("report.")}


def test_a_report_in_every_format_but_pdf(run: Run) -> None:
    """Each file is an artifact with the role report; the result says what went into it."""
    count: dict[str, Any] = {"function": "count"}
    job = GenerateReport.model_validate(
        {
            "dataset": staged(run, 300),
            "datasets": {"more": staged(run, 7)},
            "title": "T",
            "formats": ["html", "xlsx", "csv", "html"],
            "sections": [
                {
                    "blocks": [
                        {"kind": "histogram", "title": "H", "x": "value", "bins": 5},
                        {"kind": "table", "title": "Shops", "group_by": ["shop"], "measures": {"n": count}, "limit": 2},
                        {"kind": "table", "title": "More", "dataset": "more"},
                    ]
                }
            ],
        }
    )
    result = tasks.generate_report(job, run)
    names = ["report.html", "report.xlsx", "01-shops.csv", "02-more.csv"]
    assert [(file.name, file.role) for file in result.reports] == [(name, "report") for name in names]
    assert result.row_counts == {"dataset": 300, "more": 7}
    assert result.table_count == 2
    (chart,) = result.charts
    assert (chart.title, chart.kind, chart.row_count, chart.left_out_count) == ("H", "histogram", 293, 7)
    assert "The table 'Shops' shows 2 of 3 rows." in result.warnings
    with run.store.local_copy(result.reports[1].uri, run.scratch) as path:
        assert openpyxl.load_workbook(path).sheetnames == ["Report", "H", "Shops", "More"]
    assert [path.name for path in run.scratch.iterdir()] == ["spill"]


def test_a_missing_dataset_and_an_unknown_column_fail_by_name(run: Run) -> None:
    """The failure names block, chart and column, and nothing is published."""
    chart = {"kind": "histogram", "title": "H", "x": "valeu"}
    params = {"dataset": staged(run, 5), "title": "T", "sections": [{"blocks": [chart]}]}
    with pytest.raises(TaskFailure) as refused:
        tasks.generate_report(GenerateReport.model_validate(params), run)
    assert refused.value.code == "unknown_column"
    assert refused.value.message.startswith("sections[0].blocks[0] (histogram chart 'H')")
    assert refused.value.details["column"] == "valeu"
    assert run.artifacts == ()


def test_a_day_of_the_ledger(run: Run, accept: Callable[..., Any]) -> None:
    """Jobs of today are counted as the ledger has them; yesterday is what they are compared with."""
    succeeded, failed, queued = (entry(kind=kind) for kind in ("acme.one", "acme.two", "acme.two"))
    accept(succeeded, failed, queued)
    run.ledger.succeed(succeeded.id, token=claimed(run.ledger, succeeded.id).token, result="{}")
    error = json.dumps({"code": "boom", "message": "it broke", "remedy": "", "retryable": False, "details": {}})
    run.ledger.fail(failed.id, token=claimed(run.ledger, failed.id).token, error=error)
    today = datetime.now(UTC).date()
    result = tasks.generate_daily_report(GenerateDailyReport(day=today, formats=["csv"]), run)
    assert result.by_state == {"succeeded": 1, "failed": 1, "queued": 1}
    assert (result.job_count, result.previous_job_count, result.failure_ratio) == (3, 0, 0.5)
    assert result.wait_p95_s is not None
    assert result.day == today
    tomorrow = GenerateDailyReport(day=today + timedelta(days=1), formats=["csv"])
    after = tasks.generate_daily_report(tomorrow, run)
    assert (after.job_count, after.previous_job_count) == (0, 3)
    assert after.failure_ratio is None


SUM: dict[str, Any] = {"function": "sum", "column": "empty"}


@pytest.mark.parametrize("count", [0, 4])
def test_a_column_without_any_value_fits_every_block(run: Run, count: int) -> None:
    """A day on which nothing was entered, or nothing came, makes the report that other days make."""
    local = run.scratch / "empty"
    table = pa.table(
        {"shop": ["a", "b", "a", "b"][:count], "empty": pa.nulls(count), "value": [1.0, 2.0, 3.0, 4.0][:count]}
    )
    pq.write_table(table, local)
    uri = run.publish(local, name="empty.parquet", role="dataset", media_type="application/octet-stream").uri
    blocks: list[dict[str, Any]] = [
        {"kind": "table", "title": "A", "group_by": ["shop"], "measures": {"sum": SUM}},
        {"kind": "table", "title": "B", "columns": [{"column": "empty", "total": "sum"}]},
        {"kind": "histogram", "title": "C", "x": "empty"},
        {"kind": "scatter", "title": "D", "x": "empty", "y": "value"},
        {"kind": "box", "title": "E", "x": "shop", "y": "empty"},
        {
            "kind": "line",
            "title": "F",
            "x": "empty",
            "x_unit": "day",
            "y": {"sum": {"function": "sum", "column": "value"}},
        },
    ]
    params = {"dataset": uri, "title": "T", "formats": ["html", "xlsx"], "sections": [{"blocks": blocks}]}
    result = tasks.generate_report(GenerateReport.model_validate(params), run)
    assert [chart.left_out_count for chart in result.charts] == [count] * 4
