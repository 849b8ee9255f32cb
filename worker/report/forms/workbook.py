"""Write a report as a workbook: a sheet per table and per chart's figures, row by row, without formulas.

A text that a spreadsheet could interpret as a formula gets a leading apostrophe, which also protects a later export
of the sheet as CSV (OWASP, "CSV Injection").
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import xlsxwriter
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from shared.jobs.charts import NumberFormat
from worker.pages.charts.tabling import description, table_of
from worker.pages.content.document import Document, Row, Table, Text, Tiles
from worker.pages.content.shapes import Figure
from worker.pages.content.texts import plain
from worker.pages.content.values import number_format, printable, written

_STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - full width
_MOST_CHARACTERS = 32_000
_EXACT = 10**15  # a spreadsheet cannot represent larger integers exactly
_FIRST_DATE = date(1900, 3, 1)  # spreadsheets disagree about earlier dates: one has a 29 February 1900
_FORBIDDEN = re.compile(r"[\[\]:*?/\\\x00-\x1f]")
_WIDEST, _NARROWEST = 60, 8
_DATES = {"date": "yyyy-mm-dd", "datetime": "yyyy-mm-dd hh:mm:ss", "time": "hh:mm:ss"}


def neutral(text: str) -> str:
    """Return `text` in a form that no spreadsheet interprets as a formula."""
    return f"'{text}" if text.startswith(_STARTS_FORMULA) else text


def write_workbook(document: Document, target: Path, scratch: Path) -> None:
    """Write `document` to `target`. Rows are streamed; temporary files go to `scratch`."""
    book = xlsxwriter.Workbook(
        str(target),
        {
            "constant_memory": True,
            "tmpdir": str(scratch),
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
        },
    )
    try:
        sheets = _Sheets(book)
        sheets.cover(document)
        for title, table in _tables(document):
            sheets.table(title, table)
    finally:
        book.close()


def write_csv(table: Table, target: Path) -> None:
    """Write one table as CSV (UTF-8 with a byte order mark for spreadsheets), formulas neutralised."""
    with target.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_MINIMAL)
        writer.writerow([neutral(printable(heading.label)) for heading in table.headings])
        for row in table.rows(table.limit):
            writer.writerow([_csv_cell(value) for value in row])


def sheet_name(title: str, taken: set[str]) -> str:
    """Return a valid sheet name that is not in `taken` (case-folded), and add it there."""
    clean = _FORBIDDEN.sub(" ", printable(title)).strip().strip("'").strip()
    base = clean if clean and clean.casefold() != "history" else "Sheet"
    name, number = base[:31].rstrip("' "), 1
    while name.casefold() in taken:
        number += 1
        name = f"{base[: 31 - len(str(number)) - 3].rstrip()} ({number})"
    taken.add(name.casefold())
    return name


def _tables(document: Document) -> Iterator[tuple[str, Table]]:
    for section in document.sections:
        for part in section.parts:
            if isinstance(part, Table):
                yield part.title, part
            elif isinstance(part, Figure):
                yield part.title, table_of(part)


class _Sheets:
    """The sheets of a workbook, written one after the other."""

    def __init__(self, book: xlsxwriter.Workbook) -> None:
        self._book = book
        self._taken: set[str] = set()
        self._formats: dict[tuple[str, bool], Format] = {}
        self._head = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
        self._title = book.add_format({"bold": True, "font_size": 16})
        self._strong = book.add_format({"bold": True})
        self._wrapped = book.add_format({"text_wrap": True, "valign": "top"})

    def cover(self, document: Document) -> None:
        """Write the first sheet: the texts of the report, and its origin."""
        sheet = self._book.add_worksheet(sheet_name("Report", self._taken))
        sheet.set_column(0, 0, 34)
        sheet.set_column(1, 1, 90)
        lines: list[tuple[str, str, Format]] = [
            (document.title, "", self._title),
            (document.subtitle, "", self._wrapped),
        ]
        lines += [("Made at", f"{document.made_at:%Y-%m-%d %H:%M} UTC", self._strong)]
        lines += [(name, value, self._strong) for name, value in document.facts]
        for section in document.sections:
            lines += [("", "", self._wrapped), (section.title, "", self._strong)]
            for part in section.parts:
                lines += list(self._words(part))
        for number, (left, right, style) in enumerate(lines):
            sheet.write_string(number, 0, neutral(left[:_MOST_CHARACTERS]), style)
            sheet.write_string(number, 1, neutral(right[:_MOST_CHARACTERS]), self._wrapped)

    def _words(self, part: Any) -> Iterator[tuple[str, str, Format]]:
        if isinstance(part, Text):
            yield from (("", line, self._wrapped) for paragraph in part.paragraphs for line in plain(paragraph))
        elif isinstance(part, Tiles):
            yield from ((tile.label, f"{tile.value} {tile.change}".strip(), self._wrapped) for tile in part.tiles)
        elif isinstance(part, Table):
            yield part.title, f"{part.shown_count:,} of {part.row_count:,} rows", self._wrapped
        else:
            yield part.title, description(part), self._wrapped

    def table(self, title: str, table: Table) -> None:
        """Write a table to a separate sheet: frozen headings, the rows, the totals."""
        sheet = self._book.add_worksheet(sheet_name(title, self._taken))
        widths = [len(heading.label) for heading in table.headings]
        sheet.freeze_panes(1, 0)
        for column, heading in enumerate(table.headings):
            sheet.write_string(0, column, neutral(printable(heading.label)), self._head)
        number = 0
        for number, row in enumerate(table.rows(table.limit), start=1):
            self._row(sheet, number, row, table, widths)
        if number:
            sheet.autofilter(0, 0, number, len(table.headings) - 1)
        if table.totals is not None:
            self._row(sheet, number + 1, table.totals, table, widths, strong=True)
        for column, width in enumerate(widths):
            sheet.set_column(column, column, min(max(width + 2, _NARROWEST), _WIDEST))

    def _row(
        self, sheet: Worksheet, number: int, row: Row, table: Table, widths: list[int], *, strong: bool = False
    ) -> None:
        for column, (value, heading) in enumerate(zip(row, table.headings, strict=True)):
            text = self._cell(sheet, (number, column), value, heading.format, strong=strong)
            widths[column] = max(widths[column], min(len(text), _WIDEST))

    def _cell(self, sheet: Worksheet, at: tuple[int, int], value: Any, spec: NumberFormat, *, strong: bool) -> str:
        """Write one cell by its type, never by the look of its text. Returns its approximate text."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            sheet.write_blank(*at, None, self._format("", strong=strong))
            return ""
        if isinstance(value, bool):
            sheet.write_boolean(*at, value, self._format("", strong=strong))
            return "FALSE"
        if isinstance(value, int | float | Decimal) and math.isfinite(value) and abs(float(value)) < _EXACT:
            sheet.write_number(*at, float(value), self._format(_number_code(value, spec), strong=strong))
            return f"{float(value):,.2f}"
        if (moment := _moment(value)) is not None:
            kind = type(moment).__name__
            sheet.write_datetime(*at, moment, self._format(_DATES[kind], strong=strong))
            return _DATES[kind]
        text = neutral(printable(written_whole(value), _MOST_CHARACTERS))
        sheet.write_string(*at, text, self._format("@", strong=strong))
        return text

    def _format(self, code: str, *, strong: bool) -> Format:
        if (code, strong) not in self._formats:
            settings: dict[str, Any] = {"num_format": code} if code else {}
            self._formats[code, strong] = self._book.add_format(settings | ({"bold": True, "top": 1} if strong else {}))
        return self._formats[code, strong]


def written_whole(value: Any) -> str:
    """Return a value as text without loss: an integer with all its digits."""
    return str(value) if isinstance(value, int | Decimal | str) else written(value, number_format(NumberFormat()))


def _moment(value: Any) -> date | time | None:
    """Return a date or time in a spreadsheet's range, in UTC; None if it is outside, or `value` is not a date."""
    if isinstance(value, datetime):
        naive = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return naive if naive.date() >= _FIRST_DATE else None
    if isinstance(value, date):
        return value if value >= _FIRST_DATE else None
    return value if isinstance(value, time) and value.tzinfo is None else None


def _number_code(value: Any, spec: NumberFormat) -> str:
    unit = '" ' + re.sub(r'["\\]', "", spec.unit) + '"' if spec.unit else ""
    styles = {"percent": ("0", "0", "%"), "decimal": ("#,##0", "00", ""), "duration": ("#,##0", "000", '" s"')}
    styles |= {"integer": ("#,##0", "", ""), "bytes": ("#,##0", "", '" B"')}
    auto = "" if float(value).is_integer() else "00####"
    whole, digits, suffix = styles.get(spec.style, ("#,##0", auto, ""))
    if spec.decimals is not None and spec.style not in {"integer", "bytes"}:
        digits = "0" * spec.decimals
    return f"{whole}.{digits}{suffix}{unit}" if digits else f"{whole}{suffix}{unit}"


def _csv_cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    return neutral(printable(written(value, str) if not isinstance(value, str) else value, _MOST_CHARACTERS))


def csv_files(tables: Iterable[Table]) -> Iterator[tuple[str, Table]]:
    """Yield a file name for each table, unique and made of safe characters."""
    for number, table in enumerate(tables, start=1):
        word = re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-")[:60]
        yield f"{number:02d}-{word or 'table'}.csv", table
