"""Every format and compression becomes typed Parquet; nothing is lost on the way, and nothing silently."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import random
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from shared.errors import TaskFailure
from shared.jobs.data.places import FileLayout
from tests.support.reading import code_of, types
from worker.etl.reading import delimited
from worker.etl.reading.readers import ReadLimits, SourceFile, read_file
from worker.runtime.scratch import comes_of_full_disk

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = ReadLimits(memory_limit_bytes=128 * 1024**2, plain_max_bytes=256 * 1024**2)
Read = "Callable[..., pa.Table]"


def test_clean_columns_get_the_type_that_all_values_have(read: Callable[..., pa.Table]) -> None:
    """Integers, decimals, dates, moments and booleans are recognised; missing values do not count."""
    table = read(
        b"i,f,d,t,b,s,e\n1,1.5,2024-01-02,2024-01-02T03:04:05,true,x,\n-2,,2024-02-29,2024-01-02 03:04,False,y,\n",
        "a.csv",
    )
    assert types(table) == {
        "i": "int64",
        "f": "double",
        "d": "date32[day]",
        "t": "timestamp[us]",
        "b": "bool",
        "s": "string",
        "e": "null",
    }
    assert table["f"].to_pylist() == [1.5, None]
    assert [date(2024, 1, 2), date(2024, 2, 29)] == table["d"].to_pylist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["007", "12"], "string"),  # leading zeros
        (["1", "abc"], "string"),  # dirty: cast decides later
        (["+1"], "string"),
        (["9223372036854775807"], "int64"),
        (["9223372036854775808"], "string"),  # a float would lose digits
        (["12345678901234567890.5"], "string"),
        (["0.1", "2"], "double"),
        (["1.10", "2.50"], "double"),
        (["1.1", "1.10"], "double"),
        (["1e999"], "string"),
        (["-0"], "double"),
        (["0.30000000000000004"], "double"),
        (["2023-02-29"], "string"),  # no such day
        (["2024-01-01", "2024-01-01 10:00"], "timestamp[us]"),
        (["2024-01-01T00:00:00Z"], "timestamp[us, tz=UTC]"),
        (["2024-01-01T00:00:00Z", "2024-01-01T00:00:00"], "string"),  # not the same kind of time
        (["0999-01-01"], "string"),
        (["12/11/10"], "string"),
        (["1.5", "inf", "nan"], "double"),
        (["nan", "inf"], "string"),
        (["9007199254740993", "1.5"], "string"),  # a float would change the id
        (["0.10000000000000001", "0.2"], "double"),  # the 17 digits of a float
        (["1,5"], "string"),
        (["nan"], "string"),
        (["inf"], "string"),
        (["0x10"], "string"),
        (["1_000"], "string"),
        ([" 1"], "string"),
    ],
)
def test_a_type_that_would_change_a_value_is_not_taken(
    read: Callable[..., pa.Table], values: list[str], expected: str
) -> None:
    """A column keeps its text unless every value survives the conversion."""
    body = "v,w\n" + "".join(f'"{value}",x\n' for value in values)
    assert expected == types(read(body.encode(), "a.csv"))["v"]


def test_a_dirty_value_beyond_the_sample_keeps_the_column_text(read: Callable[..., pa.Table]) -> None:
    """The whole file decides, not its first rows."""
    body = "v\n" + "1\n" * 30_000 + "abc\n"
    table = read(body.encode(), "a.csv")
    assert types(table) == {"v": "string"}
    assert table["v"].to_pylist()[-1] == "abc"


def test_quotes_newlines_and_a_byte_order_mark(read: Callable[..., pa.Table]) -> None:
    """Separators, line ends and quotes inside quoted fields belong to the value."""
    table = read(b'\xef\xbb\xbf"a\nx",b\r\n"1,2","li\nne"\r\n"say ""hi""",3\n', "a.csv")
    assert table.column_names == ["a_x", "b"]
    assert table.to_pylist() == [{"a_x": "1,2", "b": "li\nne"}, {"a_x": 'say "hi"', "b": "3"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_recognised(read: Callable[..., pa.Table], delimiter: str) -> None:
    """The separator with which the records agree is taken."""
    body = "\n".join([delimiter.join(["a", "b", "c"]), delimiter.join(["1", "x y", "2"])])
    assert read(body.encode(), "a.csv").to_pylist() == [{"a": 1, "b": "x y", "c": 2}]


@pytest.mark.parametrize(
    "body",
    [
        b"a,b\n1,2\n3\n",
        b"a,b\n1,2\n3,4,5\n",
        b"a,b\n1,2\n3,4,\n",
        b'a,b\n1,2\n3,"x',
        b'a,b\n1,2\n3,"x\n',
        b'a,b\n1,2\n3,"x\n4,5\n6,7\n',
        b"a,b\n1,\xe9\n",
        b"\xff\xfea\0,\0b\0",
        b"a,b\n" + b"1,2\n" * 50_000 + b"3\n",
        b"\0\1\2\3",
    ],
)
def test_a_malformed_csv_is_refused(read: Callable[..., pa.Table], body: bytes) -> None:
    """Ragged rows, open quotes and other encodings fail instead of losing rows."""
    assert code_of(lambda: read(body, "a.csv")) in {"source_malformed", "source_encoding"}


@pytest.mark.parametrize("body", [b"na\xe4me,b\n1,2\n", b"name,b\n\xe4,2\n"])
def test_text_in_another_encoding_says_so(read: Callable[..., pa.Table], body: bytes) -> None:
    """In the header as in the rows."""
    assert code_of(lambda: read(body, "a.csv")) == "source_encoding"


def test_a_ragged_row_is_named(read: Callable[..., pa.Table]) -> None:
    """The message says which row has how many fields, and shows no data."""
    with pytest.raises(TaskFailure) as raised:
        read(b"a,b\n1,2\nsecret\n", "a.csv")
    assert "row 3 has 1 fields, but there are 2 columns" in raised.value.message
    assert "secret" not in raised.value.message


def test_csv_agrees_with_python_on_random_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is read equals what the csv module reads; what it calls broken is refused or keeps all rows."""
    monkeypatch.setattr(delimited, "_BLOCKS_BYTES", (64, 1_024))  # so that records lie across blocks
    chance = random.Random(5)  # noqa: S311 - a reproducible test
    compared = 0
    for _ in range(120):
        eol = chance.choice(["\n", "\r\n"])
        cells = [
            ["".join(chance.choice('a1",\n é') for _ in range(chance.randint(0, 4))) for _ in range(2)]
            for _ in range(chance.randint(0, 5))
        ]
        out = io.StringIO()
        csv.writer(out, lineterminator=eol, quoting=chance.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])).writerows(cells)
        body = f"h1,h2{eol}{out.getvalue()}"
        expected = [tuple(row) for row in csv.reader(io.StringIO(body, newline=""), strict=True) if row][1:]
        source, staged = tmp_path / "source.csv", tmp_path / "staged.parquet"
        source.write_text(body, newline="")
        layout = FileLayout(null_values=["~"])
        delimited.stage_delimited(source, layout, staged, delimiter=",", on_bytes=lambda _: None)
        table = pq.read_table(staged)
        found = [tuple(row.values()) for row in table.to_pylist()]
        assert expected == found
        compared += len(expected)
    assert compared > 100


def test_null_texts_are_chosen_by_the_layout(read: Callable[..., pa.Table]) -> None:
    """Only the texts that the layout names are missing values."""
    table = read(b"a,b\nNA,x\n,y\n-,z\n", "a.csv", null_values=["-"])
    assert table["a"].to_pylist() == ["NA", "", None]


def test_without_a_header_columns_are_numbered(read: Callable[..., pa.Table]) -> None:
    """The first line is data then."""
    assert read(b"1,x\n", "a.csv", has_header=False).to_pylist() == [{"column_1": 1, "column_2": "x"}]


def test_column_names_become_distinct(read: Callable[..., pa.Table]) -> None:
    """Empty and repeated names (also those that differ by case only) get names of their own."""
    assert read(b"a,A,,a\n1,2,3,4\n", "a.csv").column_names == ["a", "A_2", "column_3", "a_3"]


def test_a_header_alone_is_an_empty_table(read: Callable[..., pa.Table]) -> None:
    """A file with a header and no rows is a day without rows: its columns have no type."""
    table = read(b"a,b\n", "a.csv")
    assert (table.num_rows, types(table)) == (0, {"a": "null", "b": "null"})


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.ndjson", "a.tsv"])
def test_an_empty_file_is_refused(read: Callable[..., pa.Table], name: str) -> None:
    """A file without bytes has no columns, which is said."""
    assert code_of(lambda: read(b"", name)) == "source_empty"


def test_a_huge_line_is_read_or_refused(read: Callable[..., pa.Table]) -> None:
    """A field of 3 MB passes; one beyond the longest record is refused."""
    assert len(read(b"a,b\n1," + b"x" * 3_000_000 + b"\n", "a.csv")["b"][0].as_py()) == 3_000_000
    assert code_of(lambda: read(b"a,b\n1," + b"x" * 20_000_000 + b"\n", "a.csv")) == "source_malformed"


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_compressed_files_are_recognised(read: Callable[..., pa.Table], pack: Callable[[bytes], bytes]) -> None:
    """Gzip and zstd are known by their first bytes, whatever the name says; several members are one file."""
    packed = pack(b"a,b\n1,2\n") + pack(b"3,4\n")
    assert read(packed, "export").to_pylist() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_bombs_and_cut_files_are_refused(read: Callable[..., pa.Table], pack: Callable[[bytes], bytes]) -> None:
    """Decompression ends at the limit; a cut file is malformed."""
    small = ReadLimits(memory_limit_bytes=LIMITS.memory_limit_bytes, plain_max_bytes=1_000_000)
    bomb = pack(b"a,b\n" + b"1,2\n" * 1_000_000)
    assert code_of(lambda: read(bomb, "a.csv", limits=small)) == "source_too_large"
    assert code_of(lambda: read(bomb[: len(bomb) // 2], "a.csv")) == "source_malformed"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.json", b'[{"id": "007", "n": 1, "x": {"k": [1]}}, {"n": 2.5, "z": true, "m": 1}, {"m": "s", "id": null}]'),
        ("a.json", b'{"id": "007", "n": 1, "x": {"k": [1]}}\n{"n": 2.5, "z": true, "m": 1}\n{"m": "s"}'),
        ("a.jsonl", b'{"id": "007", "n": 1, "x": {"k": [1]}}\n{"n": 2.5, "z": true, "m": 1}\n\n{"m": "s"}\n'),
        ("a.ndjson", b'\xef\xbb\xbf{"id": "007", "n": 1, "x": {"k": [1]}}\n{"n": 2.5, "z": true, "m": 1}\n{"m": "s"}'),
    ],
)
def test_json_in_all_its_shapes(read: Callable[..., pa.Table], name: str, body: bytes) -> None:
    """The union of keys makes the columns; nested and mixed values are JSON text; texts stay texts."""
    assert read(body, name).to_pylist() == [
        {"id": "007", "n": 1.0, "x": '{"k":[1]}', "z": None, "m": None},
        {"id": None, "n": 2.5, "x": None, "z": True, "m": "1"},
        {"id": None, "n": None, "x": None, "z": None, "m": "s"},
    ]


def test_json_numbers_that_a_float_cannot_hold_stay_text(read: Callable[..., pa.Table]) -> None:
    """A long id keeps its digits."""
    table = read(b'[{"n": 123456789012345678901234567890, "/~": 1, "*": "w", "0": 2}]', "a.json")
    assert table.to_pylist() == [{"n": "123456789012345678901234567890", "/~": 1, "*": "w", "0": 2}]


@pytest.mark.parametrize(
    "body",
    [
        b"[1, 2]",
        b'{"a": 1}\n{"a":',
        b'[{"a": 1}, {"a": 2}',
        b'{"a": 1}\nx\n',
        b'[{"a": 1},]',
        b'[{"a": 1}] x',
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b"{'a': 1}",
        b'{"a": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
)
def test_malformed_json_is_refused(read: Callable[..., pa.Table], body: bytes) -> None:
    """Cut, mixed and absurdly nested documents are failures of the source."""
    assert code_of(lambda: read(body, "a.json")) == "source_malformed"


def test_a_json_file_cut_anywhere_never_loses_a_row_silently(read: Callable[..., pa.Table]) -> None:
    """Each prefix of an NDJSON file is refused or gives all rows that are whole in it."""
    whole = b"".join(json.dumps({"a": i, "b": "x" * i}).encode() + b"\n" for i in range(3))
    read_count = 0
    for end in range(1, len(whole) + 1):
        complete = [line for line in whole[:end].split(b"\n") if line.endswith(b"}")]
        with contextlib.suppress(TaskFailure):
            assert len(complete) == read(whole[:end], "a.ndjson").num_rows
            read_count += 1
    assert read_count >= 6  # each line, with and without its end


def parquet_bytes(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def test_parquet_keeps_its_types(read: Callable[..., pa.Table]) -> None:
    """A Parquet source comes out with the same rows and types."""
    table = pa.table({"a": pa.array([1, None], pa.int32()), "b": [[1], None], "t": [datetime(2024, 1, 2, 3), None]})  # noqa: DTZ001 - without zone on purpose
    staged = read(parquet_bytes(table), "a.parquet")
    assert table.to_pylist() == staged.to_pylist()
    assert {key: types(staged)[key] for key in ("a", "t")} == {"a": "int32", "t": "timestamp[us]"}


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.json", "a.xlsx"])
def test_a_full_disk_is_not_the_sources_fault(tmp_path: Path, name: str) -> None:
    """Whatever the format, the error of the file that is written comes through."""
    path, table = tmp_path / name, pa.table({"a": list(range(50_000))})
    match path.suffix:
        case ".parquet":
            pq.write_table(table, path)
        case ".xlsx":
            table.slice(0, 100).to_pandas().to_excel(path, index=False)
        case ".csv":
            table.to_pandas().to_csv(path, index=False)
        case ".json":
            path.write_text(json.dumps(table.to_pylist()))
    with pytest.raises(OSError, match="No space left") as raised:
        read_file(
            SourceFile(path, name),
            FileLayout(),
            output=Path("/dev/full"),
            scratch=tmp_path,
            limits=LIMITS,
            on_progress=lambda *_: None,
        )
    assert comes_of_full_disk(raised.value)


def test_a_broken_parquet_is_refused(read: Callable[..., pa.Table]) -> None:
    """A cut file and damaged pages are found here."""
    body = parquet_bytes(pa.table({"a": list(range(10_000))}))
    assert code_of(lambda: read(body[:-20], "a.parquet")) == "source_malformed"
    assert code_of(lambda: read(body[:4] + b"\xff" * 400 + body[404:], "a.parquet")) == "source_malformed"


@pytest.mark.parametrize(
    ("name", "body", "layout"),
    [
        ("a.csv", b"a,b\n1,2\n", {"format": "parquet"}),
        ("a.parquet", b"a,b\n1,2\n", {}),
        ("a.csv", b"PAR1....PAR1", {"format": "csv"}),
        ("a.xlsx", b"PK\x03\x04 no archive", {}),
        ("a.csv", b"<!DOCTYPE html><html>log in</html>", {}),
        ("a.xls", b"\xd0\xcf\x11\xe0 old excel", {}),
        ("a.csv", b"a,b\n", {"compression": "gzip"}),
        ("a.json", b"a,b\n1,2\n", {}),
    ],
)
def test_a_wrong_format_is_refused(
    read: Callable[..., pa.Table], name: str, body: bytes, layout: dict[str, str]
) -> None:
    """What the first bytes contradict is a failure of the source."""
    assert code_of(lambda: read(body, name, **layout)) == "source_malformed"
