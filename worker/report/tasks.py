"""The tasks of the report family. They call pure modules."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from shared.contract.artifacts import ReportFile
from shared.jobs.charts import MAIN_DATASET
from shared.jobs.report import DailyReportResult, GenerateDailyReport, GenerateReport, ReportResult
from shared.ledger.history import fields_between
from shared.ledger.ids import time_floor
from worker.report.compose import composed, drawn, warnings
from worker.report.daily.day import FIELDS, Day, tallied
from worker.report.daily.page import bounds, described
from worker.report.data.sources import opened
from worker.report.publishing import files, refuse_uninstalled
from worker.runtime.task import Run, runs
from worker.settings import worker_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared.jobs.report import ReportFormat
    from worker.pages.content.document import Document


@runs(GenerateReport)
def generate_report(job: GenerateReport, run: Run) -> ReportResult:
    """Render the report as ``report.html``, ``.xlsx``, ``.pdf`` or a CSV per table. A rerun renders it again.

    Duration: about 0.3 s per chart of a million rows, and 0.2 s to draw it.
    """
    refuse_uninstalled(job.formats)
    settings = worker_settings()
    with ExitStack() as stack:
        uris = {MAIN_DATASET: job.dataset, **job.datasets}
        paths = {name: stack.enter_context(run.store.local_copy(uri, run.scratch)) for name, uri in uris.items()}
        opening = opened(
            paths, scratch=run.scratch, memory_limit_bytes=settings.memory_limit_bytes, threads=settings.threads
        )
        sources = stack.enter_context(opening)
        document = composed(job, sources, lambda done, total: run.progress(done, total, unit="blocks"))
        reports = _published(document, job.formats, run)
        return ReportResult(
            reports=reports,
            row_counts={name: table.row_count for name, table in sources.tables.items()},
            table_count=len(document.tables),
            charts=drawn(document),
            warnings=warnings(document),
        )


@runs(GenerateDailyReport)
def generate_daily_report(job: GenerateDailyReport, run: Run) -> DailyReportResult:
    """Report on one day of the ledger. A rerun counts again: jobs may have ended since.

    Duration: about a minute per million jobs; memory holds two numbers of each.
    """
    refuse_uninstalled(job.formats)
    zone = ZoneInfo(job.time_zone)
    date_of = job.day or (datetime.now(zone) - timedelta(days=1)).date()
    made_at = datetime.now(UTC)
    begin, end = bounds(date_of, zone)
    before_begin, before_end = bounds(date_of - timedelta(days=1), zone)
    if begin <= made_at < end:  # half a day is compared with half a day
        before_end = min(before_begin + (made_at - begin), before_end)
    before = _tallied(before_begin, before_end, run)
    day = _tallied(begin, end, run)
    document = described(day, before, made_at=made_at)
    return DailyReportResult(
        reports=_published(document, job.formats, run),
        day=date_of,
        time_zone=job.time_zone,
        job_count=day.all.job_count,
        by_state=dict(day.all.states.most_common()),
        failure_ratio=day.all.failure_ratio,
        wait_p95_s=day.all.waits.p95,
        run_p95_s=day.all.runs.p95,
        previous_job_count=before.all.job_count,
    )


def _tallied(begin: datetime, end: datetime, run: Run) -> Day:
    lower_id, upper_id = (time_floor(int(moment.timestamp() * 1000)) for moment in (begin, end))
    jobs = fields_between(run.redis, FIELDS, lower_id=lower_id, upper_id=upper_id)
    return tallied(begin, end, _counted(jobs, run))


def _counted(jobs: Iterator[list[str | None]], run: Run) -> Iterator[list[str | None]]:
    for number, values in enumerate(jobs, start=1):
        if number % 1_000 == 0:
            run.progress(number, unit="jobs")
        yield values


def _published(document: Document, formats: Sequence[ReportFormat], run: Run) -> list[ReportFile]:
    reports = []
    for path, name, media_type in files(document, formats, run.scratch):
        run.log("rendered", file=name, size_bytes=path.stat().st_size)
        artifact = run.publish(path, name=name, role="report", media_type=media_type)
        reports.append(ReportFile.model_validate(artifact.model_dump()))
    return reports
