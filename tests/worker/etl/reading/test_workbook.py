"""Excel workbooks."""

from __future__ import annotations

import io
import zipfile
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow as pa
from openpyxl.worksheet.worksheet import Worksheet

from tests.support.reading import code_of
from worker.etl.reading.readers import ReadLimits

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = ReadLimits(memory_limit_bytes=128 * 1024**2, plain_max_bytes=256 * 1024**2)
Read = "Callable[..., pa.Table]"


def workbook(rows: list[list[Any]], title: str = "Data") -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    sheet.title = title
    for row in rows:
        sheet.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def test_excel_dates_numbers_and_texts(read: Callable[..., pa.Table]) -> None:
    """Dates are dates, ids with leading zeros stay text, empty rows are none."""
    moment = datetime(2024, 1, 2, 3, 4, 5)  # noqa: DTZ001 - Excel knows no zones
    body = workbook(
        [["id", "d", "t", "n", "ok"], ["007", date(2024, 1, 2), moment, 1.5, True], [], ["8", None, None, ""]]
    )
    table = read(body, "a.xlsx")
    assert [
        {"id": "007", "d": date(2024, 1, 2), "t": moment, "n": 1.5, "ok": True},
        {"id": "8", "d": None, "t": None, "n": None, "ok": None},
    ] == table.to_pylist()


def test_excel_sheets(read: Callable[..., pa.Table]) -> None:
    """A sheet is found by name; another name is refused with those that are there; an extra cell is an error."""
    body = workbook([["a"], [1]], "Sales")
    assert read(body, "a.xlsx", sheet="Sales").to_pylist() == [{"a": 1}]
    assert read(body, "a.xlsx", has_header=False).to_pylist() == [{"column_1": "a"}, {"column_1": "1"}]
    assert code_of(lambda: read(body, "a.xlsx", sheet="Nope")) == "unknown_sheet"
    assert code_of(lambda: read(workbook([["a"], [1, 2]]), "a.xlsx")) == "source_malformed"
    assert code_of(lambda: read(workbook([]), "a.xlsx")) == "source_empty"


def test_an_excel_bomb_is_refused(read: Callable[..., pa.Table]) -> None:
    """A workbook that unpacks beyond the limit is not opened."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", b" " * 20_000_000)
    assert code_of(lambda: read(out.getvalue(), "a.xlsx")) == "source_too_large"


def test_excel_escapes_durations_and_rows_above_the_header(read: Callable[..., pa.Table]) -> None:
    """`_x000D_` is a carriage return; 26 hours are not a time of the day."""
    body = workbook([["Report"], [], ["t", "d"], ["a_x000D_\nb_x005F_x000D_", timedelta(hours=26, minutes=1)]])
    assert read(body, "a.xlsx", skip_rows=2).to_pylist() == [{"t": "a\r\nb_x000D_", "d": "26:01:00"}]


def test_a_hidden_first_sheet_is_said(read: Callable[..., pa.Table]) -> None:
    """It is read, as before, with a warning."""
    book = openpyxl.load_workbook(io.BytesIO(workbook([["a"], [1]], "Secret")))
    book.create_sheet("Shown").append(["b"])
    book["Secret"].sheet_state = "hidden"
    book.active = 1
    out = io.BytesIO()
    book.save(out)
    read(out.getvalue(), "a.xlsx")
    assert "'Secret'" in read.warnings[0]  # type: ignore[attr-defined]
