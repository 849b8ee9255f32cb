"""The tasks of the report family: contracts bound to the pure modules."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from shared.artifacts import ReportFile
from shared.jobs.charts import MAIN_DATASET
from shared.jobs.report import GenerateReport, ReportResult
from worker.report.compose import composed, drawn, warnings
from worker.report.publishing import files, refuse_uninstalled
from worker.report.sources import opened
from worker.settings import worker_settings
from worker.task import Run, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.jobs.report import ReportFormat
    from worker.report.document import Document


@runs(GenerateReport)
def generate_report(job: GenerateReport, run: Run) -> ReportResult:
    """Render the report as ``report.html``, ``.xlsx``, ``.pdf`` or a CSV a table. A rerun makes it anew.

    About 0.3 s a chart over a million rows, and 0.2 s to draw it.
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


def _published(document: Document, formats: Sequence[ReportFormat], run: Run) -> list[ReportFile]:
    reports = []
    for path, name, media_type in files(document, formats, run.scratch):
        run.log("rendered", file=name, size_bytes=path.stat().st_size)
        artifact = run.publish(path, name=name, role="report", media_type=media_type)
        reports.append(ReportFile.model_validate(artifact.model_dump()))
    return reports
