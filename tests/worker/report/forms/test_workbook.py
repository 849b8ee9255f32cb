"""The workbook, read back with openpyxl."""

from __future__ import annotations

import csv
import math
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest

from shared.jobs.charts import NumberFormat
from tests.support.datasets import document, sales
from worker.pages.content.document import Document, Heading, Section, Table
from worker.report.forms.workbook import csv_files, neutral, sheet_name, write_csv, write_workbook

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://127.0.0.1")', "＝1"]  # noqa: RUF001


def table(rows: list[tuple[Any, ...]], *headings: str, totals: tuple[Any, ...] | None = None) -> Table:
    made = [Heading(heading) for heading in headings or ("value",)]
    return Table("T", made, lambda limit: iter(rows[:limit]), len(rows), totals=totals)


def written(folder: Path, *tables: Table) -> openpyxl.Workbook:
    report = Document("=Title", [Section("Section", list(tables))], datetime(2026, 11, 22, tzinfo=UTC))
    write_workbook(report, folder / "report.xlsx", folder)
    return openpyxl.load_workbook(folder / "report.xlsx")


def test_texts_never_become_formulas_or_links(tmp_path: Path) -> None:
    """Every text that a spreadsheet could run has an apostrophe before it, is stored as text, and links nowhere."""
    texts = [*FORMULAS, "http://127.0.0.1/x", "mailto:a@b", "12", "plain"]
    book = written(tmp_path, table([(text,) for text in texts], "=cmd|'/c calc'!A1"))
    sheet = book["T"]
    assert sheet["A1"].value == "'=cmd|'/c calc'!A1"
    cells = [sheet.cell(row, 1) for row in range(2, len(texts) + 2)]
    assert {cell.data_type for cell in cells} == {"s"}
    assert [cell.hyperlink for cell in cells] == [None] * len(texts)
    assert cells[0].value == "'=1+1"
    assert [cell.value for cell in cells[-4:]] == texts[-4:]
    assert book["Report"]["A1"].value == "'=Title"
    with zipfile.ZipFile(tmp_path / "report.xlsx") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist() if name.startswith("xl/"))
    assert b"<f>" not in content
    assert b"<hyperlink" not in content


@pytest.mark.parametrize("text", FORMULAS)
def test_what_starts_a_formula_is_neutralised(text: str) -> None:
    """By the list of OWASP, and the full-width forms that some spreadsheets take for the same."""
    assert neutral(text) == f"'{text}"


def test_cells_have_the_type_of_their_values(tmp_path: Path) -> None:
    """Numbers, booleans and times are cells of their types; what a spreadsheet cannot hold exactly is text."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).replace(tzinfo=None)
    values = [
        1, 1.5, Decimal("2.25"), True, None, math.nan, math.inf, date(2026, 1, 2), moment, date(1850, 1, 1),
        2**60, b"ab",
    ]  # fmt: skip
    sheet = written(tmp_path, table([(value,) for value in values]))["T"]
    found = [sheet.cell(row, 1).value for row in range(2, len(values) + 2)]
    assert found == [
        1, 1.5, 2.25, True, None, None, "∞", datetime.combine(date(2026, 1, 2), datetime.min.time()), moment,
        "1850-01-01", str(2**60), "(2 bytes)",
    ]  # fmt: skip
    assert sheet["A2"].number_format == "#,##0"


def test_formats_totals_and_layout(tmp_path: Path) -> None:
    """Headings stay in sight, numbers have the format asked for, totals stand below."""
    headings = [Heading("name"), Heading("share", NumberFormat(style="percent", decimals=2))]
    rows = [("a", 0.25), ("b", 0.5)]
    made = Table("Shares", headings, lambda limit: iter(rows[:limit]), 2, totals=(None, 0.75))
    sheet = written(tmp_path, made)["Shares"]
    assert sheet.freeze_panes == "A2"
    assert sheet["B2"].number_format == "0.00%"
    assert [cell.value for cell in sheet[4]] == [None, 0.75]
    assert sheet["B4"].font.bold
    assert sheet.auto_filter.ref == "A1:B3"
    assert sheet.column_dimensions["A"].width >= 8


def test_sheet_names_are_clean_and_unique() -> None:
    """At most 31 characters, none of those forbidden, unique without regard to case, never the reserved one."""
    taken: set[str] = set()
    titles = ["a/b:c*?[d]\\", "A B C   D", "x" * 50, "X" * 50, "History", "'quoted'", "", " ", "\x00"]
    names = [sheet_name(title, taken) for title in titles]
    assert len({name.casefold() for name in names}) == len(titles)
    assert all(1 <= len(name) <= 31 and not set(name) & set("[]:*?/\\'") for name in names)
    assert "history" not in taken


def test_a_report_has_a_sheet_for_each_table_and_chart(tmp_path: Path) -> None:
    """The figures of a chart are those behind the picture."""
    frame = sales(200)
    bar = {"kind": "bar", "title": "By shop", "x": "shop", "y": {"n": {"function": "count"}}}
    listing = {"kind": "table", "title": "By shop", "columns": [{"column": "count"}], "limit": 150}
    with document(tmp_path, frame, bar, listing, {"kind": "text", "text": "- one\n- two"}) as made:
        write_workbook(made, tmp_path / "report.xlsx", tmp_path)
    book = openpyxl.load_workbook(tmp_path / "report.xlsx")
    assert book.sheetnames == ["Report", "By shop", "By shop (2)"]
    counts = {row[0].value: row[1].value for row in book["By shop"].iter_rows(min_row=2)}
    assert counts == frame["shop"].value_counts().to_dict()
    assert [row[0].value for row in book["By shop (2)"].iter_rows(min_row=2)] == frame["count"].tolist()[:150]
    words = [cell.value for row in book["Report"].iter_rows() for cell in row]
    assert {"two", "150 of 200 rows"} <= set(words)


def test_csv_is_neutralised_and_read_back(tmp_path: Path) -> None:
    """Texts keep their commas and line breaks; formulas do not stay formulas; missing values are empty."""
    rows = [("=1+1", 1.5, None), ('a, "b"\nc', 2, True)]
    write_csv(table(rows, "t", "n", "x"), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as stream:
        assert list(csv.reader(stream)) == [["t", "n", "x"], ["'=1+1", "1.5", ""], ['a, "b"\nc', "2", "true"]]
    assert pd.read_csv(tmp_path / "t.csv")["n"].tolist() == [1.5, 2.0]


def test_csv_files_have_safe_names() -> None:
    """Whatever the title, the name has letters, digits and dashes."""
    titles = ["Sales / Q1", "../../etc", "東京"]
    named = csv_files(Table(title, [], lambda _: iter(()), 0) for title in titles)
    assert [name for name, _ in named] == ["01-sales-q1.csv", "02-etc.csv", "03-table.csv"]
