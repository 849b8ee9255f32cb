"""Write a report as one self-contained HTML file, and as a PDF made from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from shared.errors import TaskFailure
from worker.pages.charts.drawing import NARROW, WIDE, svg_of
from worker.pages.charts.palette import DARK, LIGHT, SERIES, variables, with_light, with_variables
from worker.pages.charts.tabling import description, table_of
from worker.pages.content.document import Document, Heading, Table
from worker.pages.content.shapes import Bars, Figure, Grid, Lines, Points
from worker.pages.content.values import is_number, number_format, written

PAGE_ROWS = 1_000
_PAGE_CELLS = 20_000  # of one table
_SHORT = 24  # up to this number of characters a text is not wrapped
_LONGEST_ID = 36  # and up to this one a text without a space, such as a job's id
_FIGURE_ROWS = 500  # of the table behind a chart

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class _Cells:
    """A table in the form of the page: texts, and the alignment of each column."""

    title: str
    labels: list[str]
    styles: list[Literal["number", "short", ""]]
    rows: list[list[str]]
    totals: list[str] | None
    note: str


@dataclass(frozen=True)
class _Drawing:
    """A chart in the form of the page."""

    name: str
    wide: Markup
    narrow: Markup
    description: str
    legend: list[str]
    scale: tuple[str, str] | None
    notes: list[str]
    cells: _Cells


def write_page(document: Document, target: Path, *, for_paper: bool = False) -> None:
    """Write `document` as HTML to `target`, part by part. `for_paper` omits interactive parts."""
    template = _templates.get_template("page.html.jinja")
    numbers = iter(range(1, 1_000_000))

    def drawing(figure: Figure) -> _Drawing:
        return _drawing(figure, f"chart-{next(numbers)}", for_paper=for_paper)

    stream = template.stream(
        document=document,
        cells=_cells,
        drawing=drawing,
        kind=lambda part: type(part).__name__.lower(),
        light=Markup(variables(LIGHT)),  # noqa: S704 - our own colours
        dark=Markup(variables(DARK)),  # noqa: S704 - our own colours
        colours=LIGHT,
        series=SERIES,
        for_paper=for_paper,
    )
    stream.enable_buffering(64)
    with target.open("wb") as file:
        stream.dump(file, encoding="utf-8", errors="replace")


def write_pdf(document: Document, target: Path, scratch: Path) -> None:
    """Write `document` as PDF. Raises `TaskFailure` (``pdf_not_installed``) where WeasyPrint or Pango is missing."""
    weasyprint = weasyprint_or_failure()
    page = scratch / "paper.html"
    write_page(document, page, for_paper=True)
    try:
        html = weasyprint.HTML(filename=str(page), url_fetcher=refusing_fetcher(weasyprint))
        html.write_pdf(str(target))
    finally:
        page.unlink()


def weasyprint_or_failure() -> Any:
    """Return the module that makes PDFs."""
    try:
        import weasyprint  # noqa: PLC0415 - an extra, and slow to import
    except (ImportError, OSError) as missing:  # OSError: Pango's library is missing
        raise TaskFailure(
            "pdf_not_installed",
            f"These workers cannot make PDFs: {missing}",
            remedy="Install celeriac[report-pdf] and Pango on the report workers, or remove 'pdf' from 'formats'.",
        ) from None
    return weasyprint


def refusing_fetcher(weasyprint: Any) -> Any:
    """Return a fetcher for WeasyPrint that refuses every address, because a report is self-contained."""
    return weasyprint.urls.URLFetcher(allowed_protocols=frozenset())


def _drawing(figure: Figure, name: str, *, for_paper: bool) -> _Drawing:
    coloured = with_light if for_paper else with_variables
    wide = Markup(coloured(svg_of(figure, name=f"{name}w", width=WIDE)))  # noqa: S704 - texts in it are escaped
    narrow = Markup()
    if not for_paper:
        narrow = Markup(coloured(svg_of(figure, name=f"{name}n", width=NARROW)))  # noqa: S704 - texts in it are escaped
    return _Drawing(
        name=name,
        wide=wide,
        narrow=narrow,
        description=description(figure),
        legend=_legend(figure),
        scale=_scale(figure),
        notes=figure.notes,
        cells=_cells(table_of(figure), most=_FIGURE_ROWS),
    )


def _legend(figure: Figure) -> list[str]:
    match figure.shape:
        case Lines(series=several) | Bars(series=several) if len(several) > 1:
            return [one.name for one in several]
        case Points(clouds=clouds) if len(clouds) > 1:
            return [cloud.name for cloud in clouds]
        case _:
            return []


def _scale(figure: Figure) -> tuple[str, str] | None:
    """Return the values of the lightest and the darkest colour of a heat map, if it has a single colour scale."""
    if not isinstance(figure.shape, Grid) or not figure.marks or min(figure.marks) < 0:
        return None
    low, high = min(figure.marks), max(figure.marks)
    if low == high:
        return None
    write = number_format(figure.format, [low, high])
    return write(low if low > 0 else 0.0), write(high)


def _cells(table: Table, most: int = PAGE_ROWS) -> _Cells:
    most = min(most, max(1, _PAGE_CELLS // max(len(table.headings), 1)))
    rows = list(table.rows(most))
    columns = list(zip(*rows, strict=True)) or [()] * len(table.headings)
    formats = [number_format(heading.format, column) for heading, column in zip(table.headings, columns, strict=True)]

    def texts(row: tuple[Any, ...], absent: str | None = None) -> list[str]:
        pairs = zip(row, formats, strict=True)
        return [absent if value is None and absent is not None else written(value, form) for value, form in pairs]

    notes = [table.note]
    if len(rows) < table.row_count:
        notes.append(f"{len(rows):,} of {table.row_count:,} rows.")
        if table.totals is not None:
            notes.append("The totals include all rows.")
    return _Cells(
        title=table.title,
        labels=[heading.label for heading in table.headings],
        styles=[_style(heading, column) for heading, column in zip(table.headings, columns, strict=True)],
        rows=[texts(row) for row in rows],
        totals=texts(table.totals, absent="") if table.totals is not None else None,
        note=" ".join(note for note in notes if note),
    )


def _style(heading: Heading, column: tuple[Any, ...]) -> Literal["number", "short", ""]:
    if heading.align_end or any(is_number(value) for value in column):
        return "number"
    return "short" if all(_is_short(str(value)) for value in column) else ""


def _is_short(text: str) -> bool:
    return len(text) <= _SHORT or (len(text) <= _LONGEST_ID and " " not in text)
