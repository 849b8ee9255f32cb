"""Make a document from a spec and its datasets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.jobs.report import DrawnChart, TableBlock, TextBlock
from worker.pages.content.document import Document, Part, Section, Text
from worker.pages.content.texts import parse
from worker.pages.content.values import printable
from worker.report.charts.charting import draw
from worker.report.data.listing import listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.jobs.report import Block, ReportSpec
    from worker.report.data.sources import Sources


def composed(spec: ReportSpec, sources: Sources, on_progress: Callable[[int, int], None]) -> Document:
    """Compute the figures of all tables and charts of `spec`. `on_progress` takes the blocks done and in total.

    Raises `TaskFailure` that names section and block: ``unknown_column``, ``wrong_type``, ``out_of_memory``.
    """
    total = sum(len(section.blocks) for section in spec.sections)
    done = 0
    sections = []
    for index, section in enumerate(spec.sections):
        parts = []
        for number, block in enumerate(section.blocks):
            parts.append(_part(block, sources, f"sections[{index}].blocks[{number}]"))
            done += 1
            on_progress(done, total)
        sections.append(Section(printable(section.title), parts))
    return Document(
        title=printable(spec.title),
        subtitle=printable(spec.subtitle),
        lang=spec.lang,
        sections=sections,
        made_at=datetime.now(UTC),
        facts=[("Rows", ", ".join(f"{t.name}: {t.row_count:,}" for t in sources.tables.values()))],
    )


def drawn(document: Document) -> list[DrawnChart]:
    """Return the descriptions of the charts of `document` for the result."""
    return [
        DrawnChart(
            title=figure.title,
            kind=figure.kind,
            row_count=figure.row_count,
            left_out_count=figure.left_out_count,
            drawn_count=figure.drawn_count,
            note=figure.note,
        )
        for figure in document.figures
    ]


def warnings(document: Document) -> list[str]:
    """Return the notes for a reader of `document`."""
    found = []
    for table in document.tables:
        if table.row_count == 0:
            found.append(f"The table {table.title!r} has no rows.")
        if table.shown_count < table.row_count:
            found.append(f"The table {table.title!r} shows {table.shown_count:,} of {table.row_count:,} rows.")
    for figure in document.figures:
        if not figure.marks:
            found.append(f"The chart {figure.title!r} has nothing to draw.")
        found += [f"The chart {figure.title!r}: {note}" for note in figure.notes]
    return found


def _part(block: Block, sources: Sources, where: str) -> Part:
    if isinstance(block, TextBlock):
        return Text(parse(block.text))
    if isinstance(block, TableBlock):
        return listed(block, sources, where)
    return draw(block, sources, where)
