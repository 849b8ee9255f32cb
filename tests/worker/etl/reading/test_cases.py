"""Files as people have them, after public reports: each value comes out as it is meant, or the job is refused."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import TaskFailure
from tests.support.reading import code_of, types

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = Path(__file__).parent / "cases"
Read = "Callable[..., pa.Table]"


def case(name: str) -> bytes:
    return (CASES / name).read_bytes()


@pytest.mark.parametrize("name", ["prices_mixed.csv", "prices_mixed.json"])
def test_a_trailing_zero_does_not_make_text_of_numbers(read: Callable[..., pa.Table], name: str) -> None:
    """12.50, 3.5 and 7 are prices."""
    table = read(case(name), name)
    assert table["price"].to_pylist()[:3] == [12.5, 3.5, 7.0]
    assert types(table) == {"sku": "string", "price": "double"}


def test_a_float_is_a_float_however_it_is_spelled(read: Callable[..., pa.Table]) -> None:
    """Nine spellings, nine numbers."""
    assert read(case("float_spellings.csv"), "x.csv")["x"].to_pylist() == [
        0.5, 7.913883691088233e-05, 0.5, 1.5, 1.0, 1.0, 2.5, 123456789012.75, 1e16,
    ]  # fmt: skip


def test_what_pandas_and_python_write_is_read_as_the_same_numbers(read: Callable[..., pa.Table]) -> None:
    """Random bits as floats, by `to_csv` and by `repr`, infinities too."""
    values = np.random.default_rng(3).integers(0, 2**64, 3_000, dtype=np.uint64).view(np.float64)
    values = np.concatenate([values[~np.isnan(values)], [np.inf, -np.inf, 5e-324, 1.7976931348623157e308]])
    frame = pd.DataFrame({"id": range(len(values)), "x": values})
    assert read(frame.to_csv(index=False).encode(), "a.csv")["x"].to_pylist() == values.tolist()
    body = "id,x\n" + "".join(f"{at},{value!r}\n" for at, value in enumerate(values.tolist()))
    assert read(body.encode(), "a.csv")["x"].to_pylist() == values.tolist()


def test_only_an_empty_unquoted_field_is_missing(read: Callable[..., pa.Table]) -> None:
    """Namibia keeps its code; the job may name other tokens, and quoted fields."""
    table = read(case("country_codes.csv"), "c.csv")
    assert table["code"].to_pylist() == ["NA", "NC", "NE"]
    body = b'a,b\nNA,"NA"\n,""\nNULL,x\n'
    assert read(body, "a.csv").to_pylist() == [{"a": "NA", "b": "NA"}, {"a": None, "b": ""}, {"a": "NULL", "b": "x"}]
    named = read(body, "a.csv", null_values=["", "NA", "NULL"])
    assert named.to_pylist() == [{"a": None, "b": "NA"}, {"a": None, "b": ""}, {"a": None, "b": "x"}]
    quoted = read(body, "a.csv", null_values=["", "NA"], quoted_nulls=True)
    assert quoted["b"].to_pylist() == [None, None, "x"]


def test_a_delimiter_inside_the_fields_of_another_is_none(read: Callable[..., pa.Table]) -> None:
    """The German export has three columns, and numbers with `layout.decimal`."""
    table = read(case("decimal_comma.csv"), "d.csv")
    assert table.column_names == ["Produkt", "Preis, netto", "Gewicht, kg"]
    assert table["Preis, netto"].to_pylist() == ["1,50", "3,25"]
    numbers = read(case("decimal_comma.csv"), "d.csv", decimal=",")
    assert numbers["Preis, netto"].to_pylist() == [1.5, 3.25]


@pytest.mark.parametrize("body", [b"a;b,c\n1;2,3\n", b"a;b,c\nx;y,z\n", b"a,b|c,d\nx,y|z,w\n"])
def test_two_readings_that_are_as_good_are_refused(read: Callable[..., pa.Table], body: bytes) -> None:
    """The message says what to set, and it then works."""
    with pytest.raises(TaskFailure, match="can be read as CSV with") as refused:
        read(body, "a.csv")
    assert (refused.value.code, "layout.delimiter" in (refused.value.remedy or "")) == ("source_ambiguous", True)
    assert read(body, "a.csv", delimiter=",").num_columns in {2, 3}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'a,b\n"x;y",1\n"z;w",2\n', ["a", "b"]),
        (b"name;text\nx;one, two\ny;three, four\n", ["name", "text"]),
        (b"id|t\n1|a;b\n2|c;d\n", ["id", "t"]),
        (b"text\nhello; world\nagain\n", ["text"]),
    ],
)
def test_delimiters_in_values_do_not_split(read: Callable[..., pa.Table], body: bytes, names: list[str]) -> None:
    """Quoted, in prose, or in some rows only."""
    assert read(body, "a.csv").column_names == names


@pytest.mark.parametrize("body", [case("sep_line.csv"), b'"sep=;"\r\nname;qty\r\ntea;2\r\nbooks;3\r\n'])
def test_a_line_that_states_the_delimiter_is_skipped(read: Callable[..., pa.Table], body: bytes) -> None:
    """Excel writes and reads it."""
    assert read(body, "s.csv").to_pylist() == [{"name": "tea", "qty": 2}, {"name": "books", "qty": 3}]
    assert read(b"sep=|\na,b|c\n1,5|2\n", "s.csv").column_names == ["a,b", "c"]


def test_backslash_escapes_are_recognised(read: Callable[..., pa.Table]) -> None:
    """As `layout.escape` reads them; a backslash that is none stays one."""
    expected = ['She wrote "soon" here', "plain"]
    assert read(case("backslash_quotes.csv"), "b.csv")["comment"].to_pylist() == expected
    assert read(case("backslash_quotes.csv"), "b.csv", escape="\\")["comment"].to_pylist() == expected
    assert read(b'a,b\n"C:\\dir\\",1\n"D:\\",2\n', "p.csv")["a"].to_pylist() == ["C:\\dir\\", "D:\\"]
    assert code_of(lambda: read(b'a,b\n"x \\"y\\" C:\\dir",1\n', "p.csv")) == "source_ambiguous"


@pytest.mark.parametrize("row", ['"a" b,1', '1,"x \\"y\\" z"', '"a"b"c",1'])
def test_no_value_is_mangled_beyond_the_sample(read: Callable[..., pa.Table], row: str) -> None:
    """What follows a closing quote is refused with its line, wherever it is."""
    body = "a,b\n" + '"x, ""quoted""",1\n' * 40_000 + row + "\n"
    with pytest.raises(TaskFailure, match="in line 40002 something follows a closing quote") as refused:
        read(body.encode(), "a.csv")
    assert refused.value.code == "source_malformed"


def test_quotes_inside_of_unquoted_fields_belong_to_the_value(read: Callable[..., pa.Table]) -> None:
    """A disk of 5 inches; and without quotes at all if the job says so."""
    assert read(b'a,b\n5" disk,1\n"say ""hi""",2\n', "a.csv")["a"].to_pylist() == ['5" disk', 'say "hi"']
    assert read(b'a,b\n"x" y,1\n', "a.csv", quote=None)["a"].to_pylist() == ['"x" y']
    assert read(b"a,b\n'x,y',1\n", "a.csv", quote="'")["a"].to_pylist() == ["x,y"]


def test_lines_above_the_header_and_comments(read: Callable[..., pa.Table]) -> None:
    """They are skipped by number, or by their sign; a `#` inside of quotes is part of a value."""
    table = read(case("lines_above_header.csv"), "l.csv", skip_rows=3)
    assert (table.column_names, table["amount"].to_pylist()) == (["date", "amount"], [5, 6])
    body = b'# made by x\na,b\n1,"x\n# y"\n# end\n2,z\n'
    assert read(body, "c.csv", comment="#").to_pylist() == [{"a": 1, "b": "x\n# y"}, {"a": 2, "b": "z"}]


def test_thousands_and_decimal_signs(read: Callable[..., pa.Table]) -> None:
    """As the job names them; a group of two digits is none, and what does not fit keeps the column text."""
    assert read(case("thousands.csv"), "t.csv", thousands=",")["amount"].to_pylist() == [1234.5, 12000.0, 7.25]
    german = read(b"a;b\n1.234,50;1.000\n-7,5;12\n", "t.csv", decimal=",", thousands=".")
    assert german.to_pylist() == [{"a": 1234.5, "b": 1000}, {"a": -7.5, "b": 12}]
    assert types(read(b"a;b\n1.23;x\n4,5;y\n", "t.csv", decimal=",", thousands="."))["a"] == "string"
    assert types(read(b"a;b\n1.5;x\n4,5;y\n", "t.csv", decimal=","))["a"] == "string"


@pytest.mark.parametrize(
    ("encoding", "layout"),
    [
        ("cp1252", {"encoding": "cp1252"}),
        ("latin-1", {"encoding": "latin-1"}),
        ("utf-8", {}),
        ("utf-8-sig", {}),
        ("utf-8-sig", {"encoding": "utf-8"}),
        ("utf-16", {}),
        ("utf-16", {"encoding": "utf-16"}),
        ("utf-16-le", {"encoding": "utf-16-le"}),
        ("utf-32", {}),
        ("mac-roman", {"encoding": "mac-roman"}),
    ],
)
def test_encodings(read: Callable[..., pa.Table], encoding: str, layout: dict[str, Any]) -> None:
    """By name, or by the byte order mark."""
    body = "näme,preis\nBücher,2\n".encode(encoding)
    assert read(body, "e.csv", **layout).to_pylist() == [{"näme": "Bücher", "preis": 2}]


def test_the_case_in_a_western_encoding(read: Callable[..., pa.Table]) -> None:
    """It is refused with what to set, and reads then; a wrong name is refused in the request."""
    with pytest.raises(TaskFailure, match="not encoded in UTF-8") as refused:
        read(case("cp1252.csv"), "cp1252.csv")
    assert "layout.encoding" in (refused.value.remedy or "")
    table = read(case("cp1252.csv"), "cp1252.csv", encoding="cp1252")
    assert table.to_pylist() == [
        {table.column_names[0]: case("cp1252.csv").split(b"\n")[1].split(b",")[0].decode("cp1252"), "preis": 2}
    ]
    assert code_of(lambda: read("a,b\nü,1\n".encode(), "a.csv", encoding="ascii")) == "source_encoding"
    with pytest.raises(ValueError, match="not a known text encoding"):
        read(b"a,b\n", "a.csv", encoding="base64")


def test_times_with_an_offset_are_instants(read: Callable[..., pa.Table]) -> None:
    """In UTC; 02:30 in October is said by its offset."""
    found = read(case("zoned_times.csv"), "z.csv")["at"].to_pylist()
    expected = [(2026, 3, 29, 0, 30), (2026, 3, 29, 1, 30), (2026, 10, 25, 2, 30)]
    assert [one.astimezone(UTC) for one in found] == [datetime(*one, tzinfo=UTC) for one in expected]


@pytest.mark.parametrize("name", ["in.csv", "folder/in.csv"])
def test_one_file_in_a_zip_file(read: Callable[..., pa.Table], name: str) -> None:
    """The only one, or the one that the job names."""
    one, two = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(one, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, "a,b\n1,2\n")
        archive.writestr("__MACOSX/._in.csv", "x")
    assert read(one.getvalue(), "a.zip").to_pylist() == [{"a": 1, "b": 2}]
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr(name, "a,b\n1,2\n")
        archive.writestr("other.json", '[{"x": 1}]')
    assert code_of(lambda: read(two.getvalue(), "a.zip")) == "unknown_member"
    assert code_of(lambda: read(two.getvalue(), "a.zip", member="no.csv")) == "unknown_member"
    assert read(two.getvalue(), "a.zip", member="other.json").to_pylist() == [{"x": 1}]


def test_bad_rows_are_skipped_with_their_lines(read: Callable[..., pa.Table]) -> None:
    """Too few or too many fields; blank lines, comments and values of several lines do not move the line numbers."""
    body = b'top\na,b\n1,"x\ny"\n\n# note\n2\n3,z\n4,5,6\n'
    layout = {"skip_rows": 1, "comment": "#"}
    assert code_of(lambda: read(body, "a.csv", **layout)) == "source_malformed"
    table = read(body, "a.csv", on_bad_rows="reject", **layout)
    assert table["a"].to_pylist() == [1, 3]
    assert [(row.line, row.text) for row in read.bad_rows] == [(7, "2"), (9, "4,5,6")]  # type: ignore[attr-defined]
    headless = read(b"1,2\n3\n", "a.csv", has_header=False, on_bad_rows="skip")
    assert headless.num_rows == 1
    assert [row.line for row in read.bad_rows] == [2]  # type: ignore[attr-defined]


def test_the_job_may_tell_types(read: Callable[..., pa.Table]) -> None:
    """Each value has to be one; and nothing is inferred where the job says so."""
    body = b"a,b,c,d,e\n007,1,1.10,2026-01-01,\n8,2,2,2026-01-02,\n"
    told = {"a": "integer", "b": "float", "c": "decimal", "d": "string", "e": "float"}
    table = read(body, "a.csv", types=told)
    assert table.to_pylist()[0] == {"a": 7, "b": 1.0, "c": Decimal("1.10"), "d": "2026-01-01", "e": None}
    assert types(table)["e"] == "double"
    with pytest.raises(TaskFailure, match="column 'a' has 'x' in row 2, which is not a valid integer"):
        read(b"a,b\n1,2\nx,3\n", "a.csv", types={"a": "integer"})
    assert code_of(lambda: read(body, "a.csv", types={"nope": "integer"})) == "unknown_column"
    assert set(types(read(body, "a.csv", infer_types=False)).values()) == {"string"}


def test_a_formula_without_a_value_is_refused_by_name(read: Callable[..., pa.Table]) -> None:
    """Not a column of NULL."""
    with pytest.raises(TaskFailure, match=r"cell D2 .* has a formula without a stored value") as refused:
        read(case("formulas_without_values.xlsx"), "f.xlsx")
    assert refused.value.code == "formula_without_value"


def test_cells_with_errors_are_missing_and_counted(read: Callable[..., pa.Table]) -> None:
    """The column is one of numbers, and the result says which errors it had."""
    assert read(case("error_cells.xlsx"), "e.xlsx")["ratio"].to_pylist() == [0.25, None, None, 0.5]
    assert sorted(read.warnings) == [  # type: ignore[attr-defined]
        "1 cells of column 'ratio' have the error #DIV/0! and are missing values.",
        "1 cells of column 'ratio' have the error #N/A and are missing values.",
    ]


def test_dates_in_json_are_dates_as_in_csv(read: Callable[..., pa.Table]) -> None:
    """If all of a column are; digits in quotes stay text."""
    table = read(b'[{"d": "2026-01-01", "t": "2026-01-01T10:00:00Z", "s": "12"}, {"d": null, "s": "13"}]', "a.json")
    assert types(table) == {"d": "date32[day]", "t": "timestamp[us, tz=UTC]", "s": "string"}


def test_a_parquet_file_gets_the_types_that_the_job_names(read: Callable[..., pa.Table]) -> None:
    """What no transformation holds becomes a text or a smaller decimal with every digit; lists are refused."""
    table = pa.table(
        {
            "total": pa.array([Decimal("12.5"), Decimal("0.0000001")], pa.decimal256(76, 38)),
            "spent": pa.array([93_784_000_000_001, -1], pa.duration("ns")),
            "at": pa.array([0, None], pa.timestamp("us", "Europe/Berlin")),
            "tags": [[1], [2]],
        }
    )
    content = io.BytesIO()
    pq.write_table(table, content)
    told = {"total": "decimal", "spent": "string", "at": "timestamptz"}
    assert read(content.getvalue(), "t.parquet", types=told).to_pylist() == [
        {"total": Decimal("12.5"), "spent": "26:03:04.000000001", "at": datetime(1970, 1, 1, tzinfo=UTC), "tags": [1]},
        {"total": Decimal("0.0000001"), "spent": "-00:00:00.000000001", "at": None, "tags": [2]},
    ]
    assert code_of(lambda: read(content.getvalue(), "t.parquet", types={"tags": "string"})) == "wrong_type"
    assert code_of(lambda: read(content.getvalue(), "t.parquet", types={"total": "integer"})) == "wrong_type"


NESTED = b"""{"meta": {"n": [1, {"items": "\\"{"}]}, "data": {"skipped": "x\\\\", "items": [
  {"id": 9007199254740993, "price": {"net": 1.10, "tags": ["a", 2.50]}, "at": "2026-01-31"},
  {"id": 2, "price": {"net": 2}, "note": {}, "at": "2026-02-01"}
], "more": {"items": []}}, "next": null}"""


@pytest.mark.parametrize("path", ["data.items", "/data/items"])
def test_objects_within_a_document_are_read_by_a_path(read: Callable[..., pa.Table], path: str) -> None:
    """Nested objects become columns where the job wants it; dates get a type, and no digit is lost."""
    table = read(NESTED, "a.json", record_path=path, flatten=".")
    assert table.to_pylist() == [
        {"id": 9007199254740993, "price.net": 1.1, "price.tags": '["a",2.5]', "at": date(2026, 1, 31), "note": None},
        {"id": 2, "price.net": 2.0, "price.tags": None, "at": date(2026, 2, 1), "note": "{}"},
    ]
    assert read(NESTED, "a.json", record_path=path)["price"].to_pylist()[1] == '{"net":2}'
    assert read(NESTED, "a.json", record_path="data.more", types={"items": "string"})["items"].to_pylist() == ["[]"]


@pytest.mark.parametrize(
    ("path", "code"),
    [("data.rows", "record_path_missing"), ("meta.n.items", "record_path_missing"), ("next", "source_malformed"),
     ("meta.n", "source_malformed")],
)  # fmt: skip
def test_a_path_that_leads_nowhere_says_which_keys_there_are(
    read: Callable[..., pa.Table], path: str, code: str
) -> None:
    """Not to objects, or not to anything."""
    with pytest.raises(TaskFailure) as failed:
        read(NESTED, "a.json", record_path=path)
    assert failed.value.code == code
    assert path != "data.rows" or "'skipped', 'items', 'more'" in failed.value.message


def test_a_document_cut_anywhere_is_refused(read: Callable[..., pa.Table]) -> None:
    """Also behind the objects of the path."""
    for end in range(1, len(NESTED) - 1):
        assert code_of(partial(read, NESTED[:end], "a.json", record_path="data.items")) in {
            "source_malformed", "record_path_missing",
        }  # fmt: skip
    assert code_of(lambda: read(NESTED + b"x", "a.json", record_path="data.items")) == "source_malformed"


def test_flattened_names_that_meet_are_refused(read: Callable[..., pa.Table]) -> None:
    """In one row, or in two."""
    for body in (b'{"a": {"b": 1}, "a.b": 2}', b'{"a": {"b": 1}}\n{"a.b": 2}'):
        assert code_of(partial(read, body, "a.json", flatten=".")) == "duplicate_column"
        assert read(body, "a.json", flatten="_").column_names == ["a_b", "a.b"]


def test_numbers_that_json_does_not_have_are_kept_missing_or_refused(read: Callable[..., pa.Table]) -> None:
    """What pandas and Python write by default."""
    body = b'[{"x": NaN, "y": [NaN]}, {"x": -Infinity, "y": [1]}, {"x": 1.5, "y": []}]'
    with pytest.raises(TaskFailure, match="non_finite"):
        read(body, "a.json")
    assert read(body, "a.json", non_finite="null").to_pylist()[0] == {"x": None, "y": "[null]"}
    assert str(read(body, "a.json", non_finite="keep")["x"].to_pylist()) == "[nan, -inf, 1.5]"


def test_what_is_before_the_objects_takes_no_memory(read: Callable[..., pa.Table]) -> None:
    """A large list or text that the path passes by may be larger than an object."""
    large = b'{"log": ["' + b"x" * 9 * 1024**2 + b'"], "rows": [{"a": 1}], "after": "' + b"y" * 9 * 1024**2 + b'"}'
    assert read(large, "a.json", record_path="rows").to_pylist() == [{"a": 1}]


def test_a_column_may_have_dots_in_its_name(read: Callable[..., pa.Table]) -> None:
    """`Nr.` is not a part of another column, and keeps its values."""
    assert read(b'[{"Nr.": 1, "a.b": "x", "Nr": null}]', "a.json").to_pylist() == [{"Nr.": 1, "a.b": "x", "Nr": None}]
    book = openpyxl.Workbook()
    for row in (["Nr.", "v1.0"], [1, "x"]):
        book.worksheets[0].append(row)
    content = io.BytesIO()
    book.save(content)
    assert read(content.getvalue(), "a.xlsx").to_pylist() == [{"Nr.": 1, "v1.0": "x"}]
