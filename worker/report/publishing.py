"""Write the files of a document in the requested formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from worker.pages.forms.page import weasyprint_or_failure, write_page, write_pdf
from worker.report.forms.workbook import csv_files, write_csv, write_workbook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from shared.jobs.report import ReportFormat
    from worker.pages.content.document import Document


class Written(NamedTuple):
    """A finished file in the scratch folder."""

    path: Path
    name: str
    media_type: str


def refuse_uninstalled(formats: Iterable[ReportFormat]) -> None:
    """Raise `TaskFailure` (``pdf_not_installed``) before any work if a PDF is requested and cannot be made."""
    if "pdf" in formats:
        weasyprint_or_failure()


def files(document: Document, formats: Iterable[ReportFormat], scratch: Path) -> Iterator[Written]:
    """Write `document` in each of `formats`, each once, into `scratch`, and yield the files in that order."""
    for wanted in dict.fromkeys(formats):
        path = scratch / f"report.{wanted}"
        match wanted:
            case "html":
                write_page(document, path)
                yield Written(path, "report.html", "text/html; charset=utf-8")
            case "xlsx":
                write_workbook(document, path, scratch)
                yield Written(path, "report.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")
            case "pdf":
                write_pdf(document, path, scratch)
                yield Written(path, "report.pdf", "application/pdf")
            case "csv":
                for name, table in csv_files(document.tables):
                    write_csv(table, scratch / name)
                    yield Written(scratch / name, name, "text/csv; charset=utf-8")
