"""Stage CSV and TSV as text, row by row, unchanged.

Arrow's reader streams and is strict about the number of fields, but it accepts a quote that is never closed, which
puts all later rows into one value. So a last record of random text is added while reading: if it is not read back
as the last row, an open quote contains it. (DuckDB's reader drops such rows silently.)
Blank lines are skipped.
"""

from __future__ import annotations

import csv
import io
import secrets
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from shared.errors import TaskFailure
from worker.tables.parquet.staging import ParquetSink, column_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shared.jobs.data.places import FileLayout

_SAMPLE_BYTES = 256 * 1024
_SAMPLE_RECORDS = 50
_DELIMITERS = (",", ";", "\t", "|")
# Arrow reads 32 blocks ahead; a record longer than a block is tried again with larger ones
_BLOCKS_BYTES = (1024**2, 8 * 1024**2)
_BOM = b"\xef\xbb\xbf"


def stage_delimited(
    path: Path, layout: FileLayout, staged: Path, *, delimiter: str | None, on_bytes: Callable[[int], None]
) -> list[str]:
    """Write the rows of a plain CSV file to `staged`, all columns as text; return the column names.

    Raises `TaskFailure`: ``source_malformed`` names the row and what is wrong; ``source_encoding`` if it is not
    UTF-8; ``source_empty`` if there is not even a header.
    """
    sample = _sample(path)
    delimiter = delimiter or _delimiter(sample)
    width = len(next(_records(sample, delimiter), []))
    if width == 0:
        raise TaskFailure(
            "source_empty", "The source is empty: it has no header row.", remedy="Provide a file with a header row."
        )
    token = secrets.token_hex(16)
    sentinel = f"\n{delimiter.join([token] * width)}\n".encode()
    for block_bytes in _BLOCKS_BYTES:
        with path.open("rb") as file:
            content, refused = _WithSentinel(file, sentinel), list[Any]()
            try:
                reader = _open(content, layout, delimiter, block_bytes, refused)
                names = column_names(reader.schema.names if layout.has_header else [""] * width)
                schema = pa.schema([(name, pa.string()) for name in names])
                with ParquetSink(staged, schema) as sink:
                    _copy(_reported(reader, content, on_bytes), sink, schema, token)
            except pa.ArrowInvalid as broken:
                if "straddling" in str(broken) and block_bytes < _BLOCKS_BYTES[-1]:
                    continue
                raise (_ragged(refused[0]) if refused else _failure(broken)) from None
            except UnicodeDecodeError:  # in the names of columns, which Arrow decodes only here
                raise _encoding() from None
            return names
    raise AssertionError("the last block size returns or raises")


def _open(content: _WithSentinel, layout: FileLayout, delimiter: str, block_bytes: int, refused: list[Any]) -> Any:
    """Open a streaming reader of text columns that stops at the first ragged row and puts it into `refused`."""

    def refuse(row: Any) -> str:
        refused.append(row)
        return "error"

    return arrow_csv.open_csv(
        pa.PythonFile(content, mode="r"),
        read_options=arrow_csv.ReadOptions(
            use_threads=False, block_size=block_bytes, autogenerate_column_names=not layout.has_header
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse),
        convert_options=arrow_csv.ConvertOptions(
            default_column_type=pa.string(),
            null_values=layout.null_values,
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )


def _reported(reader: Any, content: _WithSentinel, on_bytes: Callable[[int], None]) -> Iterator[pa.RecordBatch]:
    """Pass batches on and report progress here, because Arrow reads the file in its own thread."""
    for batch in reader:
        on_bytes(content.position)
        yield batch


def _copy(batches: Iterator[pa.RecordBatch], sink: ParquetSink, schema: pa.Schema, token: str) -> None:
    """Write all rows except the last one, which must be the sentinel."""
    held: pa.RecordBatch | None = None
    for batch in batches:
        if batch.num_rows:
            if held is not None:
                sink.write(held)
            held = pa.RecordBatch.from_arrays(batch.columns, schema=schema)
    last = held.slice(held.num_rows - 1).to_pylist()[0] if held is not None else {}
    if held is None or set(last.values()) != {token}:
        raise _malformed("a quoted field is never closed")
    sink.write(held.slice(0, held.num_rows - 1))


class _WithSentinel(io.RawIOBase):
    """The bytes of a file, then the sentinel."""

    def __init__(self, file: IO[bytes], sentinel: bytes) -> None:
        super().__init__()
        self._file = file
        self._sentinel = sentinel
        self.position = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._file.read(size)
        if chunk:
            self.position += len(chunk)
            return chunk
        chunk, self._sentinel = self._sentinel[:size], self._sentinel[size:]
        return chunk


def _sample(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(_SAMPLE_BYTES)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _encoding(" but in UTF-16")
    if b"\0" in start:
        raise _malformed("it contains NUL bytes, so it is not a text file")
    return start.removeprefix(_BOM).decode("utf-8", errors="replace")


def _delimiter(sample: str) -> str:
    """Return the separator with which the first records have the same number of fields, and most of them."""

    def score(delimiter: str) -> tuple[bool, int]:
        widths = [len(record) for record, _ in zip(_records(sample, delimiter), range(_SAMPLE_RECORDS), strict=False)]
        complete = widths[:-1] if len(widths) > 1 and len(sample) >= _SAMPLE_BYTES else widths
        return len(set(complete)) == 1 and complete[0] > 1, complete[0] if complete else 0

    return max(_DELIMITERS, key=score)  # the first of equal scores


def _records(sample: str, delimiter: str) -> Any:
    csv.field_size_limit(max(csv.field_size_limit(), _SAMPLE_BYTES))
    return (record for record in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if record)


def _ragged(row: Any) -> TaskFailure:
    return _malformed(f"row {row.number} has {row.actual_columns} fields, but there are {row.expected_columns} columns")


def _failure(broken: pa.ArrowInvalid) -> TaskFailure:
    text = str(broken)
    if "UTF8" in text:
        return _encoding()
    if "straddling" in text:
        return _malformed(f"a row is longer than {_BLOCKS_BYTES[-1]} bytes, or a quote is never closed")
    return _malformed("its rows cannot be told apart; check whether a quoted field lacks its closing quote")


def _encoding(but: str = "") -> TaskFailure:
    return TaskFailure(
        "source_encoding",
        f"The source is not encoded in UTF-8{but}.",
        remedy="Convert it to UTF-8, for example with iconv.",
    )


def _malformed(what: str) -> TaskFailure:
    return TaskFailure(
        "source_malformed",
        f"The source is not well-formed CSV: {what}.",
        remedy="Fix the file, or set layout.format and layout.delimiter if they were detected wrongly.",
    )
