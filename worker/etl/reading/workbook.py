"""Stage one sheet of an Excel workbook (.xlsx), row by row.

Dates are written as ISO 8601 text, so that the types of the columns are inferred as for any text. Empty rows are
skipped. Cells with an error (#N/A) are missing values, and counted in a warning; a formula without a stored value is
refused.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow as pa
from openpyxl.cell.cell import ERROR_CODES
from openpyxl.utils.exceptions import InvalidFileException

from shared.errors import TaskFailure
from worker.etl.reading.columnar import duration_text
from worker.tables.parquet.staging import ParquetSink, column_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shared.jobs.data.places import FileLayout

_BATCH_ROWS = 4_096
_BATCH_CHARACTERS = 4 * 1024**2
_SHARED_TEXTS_RATIO = 8  # approximate bytes of memory per byte of XML of the workbook's table of texts
_CHUNK_BYTES = 1024**2
_STRICT = b"http://purl.oclc.org/ooxml/"
_ERRORS = frozenset({*ERROR_CODES, "#GETTING_DATA", "#SPILL!", "#CALC!", "#FIELD!", "#BLOCKED!", "#CONNECT!"})
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_WITHOUT_VALUE = re.compile(
    rb'<c (?![^>]*\bt="str")[^>]*\br="(?P<cell>[A-Z]+[0-9]+)"(?![^>]*\bt="str")[^>]*>\s*<f(?:\s[^>]*)?'
    rb"(?:/>|>[^<]*</f>)\s*(?:<v\s*/>|<v>\s*</v>)?\s*</c>"
)
_LONGEST_CELL = 64 * 1024


@dataclass(frozen=True, slots=True)
class Sheet:
    """What was staged: the names of the columns, and what is to be known about the sheet."""

    names: list[str]
    warnings: list[str]


def stage_workbook(
    path: Path,
    layout: FileLayout,
    staged: Path,
    *,
    max_bytes: int,
    memory_limit_bytes: int,
    on_rows: Callable[[int], None],
) -> Sheet:
    """Write the rows of a sheet to `staged`, all columns as text.

    Raises `TaskFailure`: ``source_malformed``, ``source_too_large`` (unpacked beyond `max_bytes`, or texts that
    would not fit into memory), ``unknown_sheet``, ``source_empty``, ``formula_without_value``.
    """
    _check_size(path, max_bytes, memory_limit_bytes)
    try:
        with path.open("rb") as file:  # given a path, openpyxl would check its suffix
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
            try:
                return _stage(book, layout, staged, on_rows)
            finally:
                book.close()
    except (InvalidFileException, KeyError, ValueError, SyntaxError, zipfile.BadZipFile) as broken:
        raise _malformed(f"it cannot be read as a workbook ({type(broken).__name__})") from None


def _check_size(path: Path, max_bytes: int, memory_limit_bytes: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            strict = "xl/workbook.xml" in sizes and _STRICT in archive.open("xl/workbook.xml").read(_CHUNK_BYTES)
    except zipfile.BadZipFile:
        raise _malformed("it is not a workbook") from None
    if strict:
        raise TaskFailure(
            "source_malformed",
            "The source is a workbook in the format Strict Open XML.",
            remedy="Save it as 'Excel Workbook (.xlsx)'.",
        )
    texts_bytes = sizes.get("xl/sharedStrings.xml", 0)
    for what, needed, limit in (
        ("takes", sum(sizes.values()), max_bytes),
        ("needs memory of", texts_bytes * _SHARED_TEXTS_RATIO, memory_limit_bytes),
    ):
        if needed > limit:
            raise TaskFailure(
                "source_too_large",
                f"The unpacked workbook {what} about {needed} bytes; the maximum is {limit}.",
                remedy="Save the sheet as CSV or Parquet, which are read piece by piece.",
            )


def _stage(book: Any, layout: FileLayout, staged: Path, on_rows: Callable[[int], None]) -> Sheet:
    sheet = _sheet(book, layout.sheet)
    _refuse_formulas_without_value(sheet)
    warnings = []
    if layout.sheet is None and sheet.sheet_state != "visible":
        warnings.append(f"The first sheet, {sheet.title!r}, was read, and it is hidden; layout.sheet can name another.")
    sheet.reset_dimensions()  # the size stated in the file is often wrong
    rows: Iterator[tuple[int, list[Any]]] = (
        row
        for row in enumerate(map(_trimmed, sheet.iter_rows(values_only=True)), start=1)
        if row[1] and row[0] > layout.skip_rows
    )
    first = next(rows, None)
    if first is None:
        raise TaskFailure(
            "source_empty", f"The sheet {sheet.title!r} is empty.", remedy="Name another sheet in 'layout.sheet'."
        )
    nulls = frozenset(layout.null_values)
    if layout.has_header:
        names = column_names(_text(value, frozenset()) or "" for value in first[1])
    else:
        names = column_names("" for _ in first[1])
        rows = _chained(first, rows)
    schema, errors = pa.schema([(name, pa.string()) for name in names]), Counter[tuple[str, str]]()
    with ParquetSink(staged, schema) as sink:
        while batch := list(_batch(rows)):
            errors.update(
                (names[at], value)
                for _, row in batch
                for at, value in enumerate(row[: len(names)])
                if isinstance(value, str) and value in _ERRORS
            )
            texts = [[_text(value, nulls) for value in _padded(row, at, len(names))] for at, row in batch]
            columns = [pa.array(column, pa.string()) for column in zip(*texts, strict=True)]
            sink.write(pa.RecordBatch.from_arrays(columns, schema=schema))
            on_rows(sink.row_count)
    for (name, error), count in errors.items():
        warnings.append(f"{count} cells of column {name!r} have the error {error} and are missing values.")
    return Sheet(names, warnings)


def _batch(rows: Iterator[tuple[int, list[Any]]]) -> Iterator[tuple[int, list[Any]]]:
    length = 0
    for row in islice(rows, _BATCH_ROWS):
        yield row
        length += sum(len(value) for value in row[1] if isinstance(value, str))
        if length > _BATCH_CHARACTERS:
            return


def _refuse_formulas_without_value(sheet: Any) -> None:
    """Raise `TaskFailure` for a formula that no program has computed; openpyxl shows it as an empty cell."""
    rest = b""
    with sheet.parent._archive.open(sheet._worksheet_path) as xml:  # noqa: SLF001 - not told otherwise
        while chunk := xml.read(_CHUNK_BYTES):
            content = rest + chunk
            if b"<f" in content and (found := _WITHOUT_VALUE.search(content)):
                cell = found["cell"].decode()
                raise TaskFailure(
                    "formula_without_value",
                    f"The cell {cell} of the sheet {sheet.title!r} has a formula without a stored value.",
                    remedy="Open the workbook in a spreadsheet program, which computes it, save and submit it again.",
                    cell=cell,
                )
            rest = content[-_LONGEST_CELL:]


def _sheet(book: Any, name: str | None) -> Any:
    titles = [sheet.title for sheet in book.worksheets]
    if name is None and titles:
        return book.worksheets[0]
    if name not in titles:
        raise TaskFailure(
            "unknown_sheet",
            f"layout.sheet: the workbook has no sheet {name!r}; it has {', '.join(titles)[:500]}.",
            remedy="Name one of them, or omit layout.sheet to read the first.",
        )
    return book[name]


def _chained(first: tuple[int, list[Any]], rest: Iterator[tuple[int, list[Any]]]) -> Iterator[tuple[int, list[Any]]]:
    yield first
    yield from rest


def _trimmed(row: tuple[Any, ...]) -> list[Any]:
    values = list(row)
    while values and values[-1] is None:
        values.pop()
    return values


def _padded(row: list[Any], number: int, width: int) -> list[Any]:
    if len(row) > width:
        raise _malformed(f"row {number} has {len(row)} cells, but there are {width} columns")
    return row + [None] * (width - len(row))


def _text(value: Any, nulls: frozenset[str]) -> str | None:
    """Return a cell's value as text; Excel stores a date without a time as 0:00 of that day."""
    if isinstance(value, str):
        if value in nulls or value in _ERRORS:
            return None
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value) if "_x" in value else value
    match value:
        case None:
            text = None
        case bool():
            text = "true" if value else "false"
        case datetime():
            text = value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ")
        case date() | time():
            text = value.isoformat()
        case timedelta():
            text = duration_text(value // timedelta(microseconds=1) * 1_000)
        case _:
            text = repr(value) if isinstance(value, float) else str(value)
    return text


def _malformed(what: str) -> TaskFailure:
    return TaskFailure(
        "source_malformed",
        f"The source is not a well-formed workbook: {what}.",
        remedy="Fix the file, or set layout.format if it was detected wrongly.",
    )
