"""Stage one sheet of an Excel workbook (.xlsx), row by row.

Dates are written as ISO 8601 text, so that the types of the columns are inferred as for any text. Empty rows are
skipped.
"""

from __future__ import annotations

import zipfile
from datetime import date, datetime, time
from itertools import islice
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow as pa
from openpyxl.utils.exceptions import InvalidFileException

from shared.errors import TaskFailure
from worker.tables.parquet.staging import ParquetSink, column_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shared.jobs.data.places import FileLayout

_BATCH_ROWS = 4_096
_SHARED_TEXTS_RATIO = 8  # approximate bytes of memory per byte of XML of the workbook's table of texts


def stage_workbook(
    path: Path,
    layout: FileLayout,
    staged: Path,
    *,
    max_bytes: int,
    memory_limit_bytes: int,
    on_rows: Callable[[int], None],
) -> list[str]:
    """Write the rows of a sheet to `staged`, all columns as text; return the column names.

    Raises `TaskFailure`: ``source_malformed``, ``source_too_large`` (unpacked beyond `max_bytes`, or texts that
    would not fit into memory), ``unknown_sheet``, ``source_empty``.
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
    except zipfile.BadZipFile:
        raise _malformed("it is not a workbook") from None
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


def _stage(book: Any, layout: FileLayout, staged: Path, on_rows: Callable[[int], None]) -> list[str]:
    sheet = _sheet(book, layout.sheet)
    sheet.reset_dimensions()  # the size stated in the file is often wrong
    rows: Iterator[tuple[int, list[Any]]] = (
        row for row in enumerate(map(_trimmed, sheet.iter_rows(values_only=True)), start=1) if row[1]
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
    schema = pa.schema([(name, pa.string()) for name in names])
    with ParquetSink(staged, schema) as sink:
        while batch := list(islice(rows, _BATCH_ROWS)):
            texts = [[_text(value, nulls) for value in _padded(row, at, len(names))] for at, row in batch]
            columns = [pa.array(column, pa.string()) for column in zip(*texts, strict=True)]
            sink.write(pa.RecordBatch.from_arrays(columns, schema=schema))
            on_rows(sink.row_count)
    return names


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
    if value is None or (isinstance(value, str) and value in nulls):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ")
    if isinstance(value, (date, time)):
        return value.isoformat()
    return repr(value) if isinstance(value, float) else str(value)


def _malformed(what: str) -> TaskFailure:
    return TaskFailure(
        "source_malformed",
        f"The source is not a well-formed workbook: {what}.",
        remedy="Fix the file, or set layout.format if it was detected wrongly.",
    )
