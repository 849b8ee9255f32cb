"""Stage CSV and TSV row by row, unchanged: as text, or with the types that all values have.

Arrow's reader streams and is strict about the number of fields, but it accepts a quote that is never closed, which
puts all later rows into one value. So a last record of random text is added while reading: if it is not read back
as the last row, an open quote contains it. (DuckDB's reader drops such rows silently.) It also accepts what follows a
closing quote: where quotes stand at odd places, the file is checked record by record afterwards.
Blank lines are skipped.

With several threads Arrow splits the fields of some blocks at once, and the values are converted beside it. It then
does not say which row is wrong, so a file that is not well-formed is read again by one thread.
"""

from __future__ import annotations

import io
import itertools
import secrets
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from shared.errors import TaskFailure
from worker.etl.reading.dialect import Dialect, Sample, recognise, separator_line
from worker.etl.reading.encodings import opened_as_utf8, wrong_encoding
from worker.etl.reading.quotes import QuoteWatch, check_records
from worker.etl.reading.records import records
from worker.tables.guess import Guess
from worker.tables.ordered import in_order
from worker.tables.parquet.staging import ParquetSink, column_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shared.jobs.data.places import FileLayout

_SAMPLE_BYTES = 256 * 1024
# Arrow reads 32 blocks ahead; a record longer than a block is tried again with larger ones
_BLOCKS_BYTES = (1024**2, 8 * 1024**2)
_MOST_BAD_ROWS = 100_000
_MOST_BAD_CHARACTERS = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row with too few or too many fields, and the line where it begins."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Delimited:
    """What was staged: the names of the columns, and the rows that were left out."""

    names: list[str]
    bad_rows: list[BadRow]
    row_count: int


def stage_delimited(
    path: Path,
    layout: FileLayout,
    staged: Path,
    *,
    delimiter: str | None,
    on_bytes: Callable[[int], None],
    guess: Guess | None = None,
    threads: int = 1,
) -> Delimited:
    """Write the rows of a plain CSV file to `staged`, with the types of `guess` or all columns as text.

    `delimiter` is that of files with this name. Raises `TaskFailure`: ``source_malformed`` names the row and what is
    wrong; ``source_encoding``; ``source_ambiguous``; ``source_empty`` if there is not even a header.
    """
    text = _recognised(path, layout, delimiter)
    guess = guess or Guess(infers=False)
    ways = [_Way(block_bytes) for block_bytes in _BLOCKS_BYTES]
    if threads > 1:
        pa.set_cpu_count(threads)  # of Arrow's own threads; it would take as many as the machine has cores
        ways = [_Way(_BLOCKS_BYTES[0], threads), *ways]
    for way in ways:
        try:
            found = _stage(text, staged, guess, way, on_bytes)
            if not guess.ends():
                found = _stage(text, staged, guess, way, on_bytes)
        except pa.ArrowInvalid as broken:
            if way.threads == 1 and ("straddling" not in str(broken) or way is ways[-1]):
                raise _failure(broken, layout) from None
        else:
            return found
    raise AssertionError("the last way returns or raises")


@dataclass(frozen=True, slots=True)
class _Way:
    """How a file is read: by how large blocks, and by how many threads."""

    block_bytes: int
    threads: int = 1


@dataclass(frozen=True, slots=True)
class _Text:
    """A file, how it is written, and how many lines are above its header."""

    path: Path
    layout: FileLayout
    dialect: Dialect
    width: int
    skipped: int

    def lines(self, file: IO[bytes]) -> IO[bytes]:
        """Return the open file at its header."""
        for _ in range(self.skipped):
            file.readline()
        return file


def _recognised(path: Path, layout: FileLayout, delimiter: str | None) -> _Text:
    with opened_as_utf8(path, layout.encoding) as (text, _):
        for _ in range(layout.skip_rows):
            text.readline()
        start = text.read(_SAMPLE_BYTES)
        is_whole = not text.read(1)
    if b"\0" in start:
        raise _malformed("it contains NUL bytes, so it is not a text file, or layout.encoding is missing")
    sample = start.decode("utf-8", errors="replace")
    stated, length = separator_line(sample)
    dialect, width = recognise(Sample(sample[length:], is_whole), layout, stated or delimiter)
    if width == 0:
        raise TaskFailure(
            "source_empty", "The source is empty: it has no header row.", remedy="Provide a file with a header row."
        )
    return _Text(path, layout, dialect, width, layout.skip_rows + (length > 0))


def _stage(text: _Text, staged: Path, guess: Guess, way: _Way, on_bytes: Callable[[int], None]) -> Delimited:
    layout, token = text.layout, secrets.token_hex(16)
    sentinel = f"\n{text.dialect.delimiter.join([token] * text.width)}\n".encode()
    with opened_as_utf8(text.path, layout.encoding) as (utf8, file):
        watch = QuoteWatch(text.dialect)
        content = _WithSentinel(_uncommented(text, utf8), sentinel, watch)
        refused = _Refused("fail" if way.threads > 1 else layout.on_bad_rows)
        try:
            reader = _open(content, text, way, refused)
            names = column_names(reader.schema.names if layout.has_header else [""] * text.width)
            schema = pa.schema([(name, pa.string()) for name in names])
            rows = _without_sentinel(_reported(reader, file, on_bytes), schema, token)
            first = next(rows)
            with ParquetSink(staged, guess.begin(first)) as sink:
                for batch in in_order(guess.typed, itertools.chain([first], rows), threads=way.threads):
                    if batch is not None:
                        sink.write(batch)
        except pa.ArrowInvalid:
            if refused.rows and layout.on_bad_rows == "fail" and way.threads == 1:
                raise _ragged(refused.rows[0]) from None
            raise
        except UnicodeDecodeError:  # in the names of columns, which Arrow decodes when they are asked for
            raise wrong_encoding("utf-8") from None
    if refused.too_many:
        raise _malformed(f"more than {_MOST_BAD_ROWS} rows have another number of fields than the header")
    if watch.suspicious:
        with opened_as_utf8(text.path, layout.encoding) as (utf8, _):
            check_records(
                records(text.lines(utf8), text.dialect, layout.comment, first_line=text.skipped + 1), text.dialect
            )
    return Delimited(names, _with_lines(text, refused.rows), sink.row_count)


def _uncommented(text: _Text, utf8: IO[bytes]) -> IO[bytes]:
    lines = text.lines(utf8)
    if text.layout.comment is None:
        return lines
    kept = records(lines, text.dialect, text.layout.comment)
    return io.BufferedReader(_Joined(record.content for record in kept))


@dataclass(slots=True)
class _Refused:
    """The rows with another number of fields, as Arrow's reader shows them."""

    policy: str
    rows: list[Any] = field(default_factory=list)
    too_many: bool = False
    _characters: int = 0

    def __call__(self, row: Any) -> str:
        self.rows.append(row)
        self._characters += len(row.text)
        self.too_many = len(self.rows) > _MOST_BAD_ROWS or self._characters > _MOST_BAD_CHARACTERS
        return "error" if self.policy == "fail" or self.too_many else "skip"


def _open(content: _WithSentinel, text: _Text, way: _Way, refused: _Refused) -> Any:
    """Open a streaming reader of text columns that shows ragged rows to `refused`."""
    layout, dialect = text.layout, text.dialect
    return arrow_csv.open_csv(
        pa.PythonFile(content, mode="r"),
        read_options=arrow_csv.ReadOptions(
            use_threads=way.threads > 1,
            block_size=way.block_bytes,
            autogenerate_column_names=not layout.has_header,
        ),
        parse_options=arrow_csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quote or False,
            escape_char=dialect.escape or False,
            newlines_in_values=dialect.quote is not None or dialect.escape is not None,
            invalid_row_handler=refused,
        ),
        convert_options=arrow_csv.ConvertOptions(
            default_column_type=pa.string(),
            null_values=layout.null_values,
            strings_can_be_null=True,
            quoted_strings_can_be_null=layout.quoted_nulls,
        ),
    )


def _reported(reader: Any, file: IO[bytes], on_bytes: Callable[[int], None]) -> Iterator[pa.RecordBatch]:
    """Pass batches on and report progress here, because Arrow reads the file in its own thread."""
    for batch in reader:
        on_bytes(file.tell())
        yield batch


def _without_sentinel(batches: Iterator[pa.RecordBatch], schema: pa.Schema, token: str) -> Iterator[pa.RecordBatch]:
    """Yield all rows except the last one, which must be the sentinel; at least one batch, which may be empty."""
    held: pa.RecordBatch | None = None
    for batch in batches:
        if batch.num_rows:
            if held is not None:
                yield held
            held = pa.RecordBatch.from_arrays(batch.columns, schema=schema)
    last = held.slice(held.num_rows - 1).to_pylist()[0] if held is not None else {}
    if held is None or set(last.values()) != {token}:
        raise _malformed("a quoted field is never closed")
    yield held.slice(0, held.num_rows - 1)


def _with_lines(text: _Text, rows: list[Any]) -> list[BadRow]:
    """Return refused rows with their line numbers, for which the file is read once more."""
    if not rows:
        return []
    wanted, found = {row.number: row for row in rows}, []
    with opened_as_utf8(text.path, text.layout.encoding) as (utf8, _):
        kept = records(text.lines(utf8), text.dialect, text.layout.comment, first_line=text.skipped + 1)
        for number, record in enumerate(kept, start=1):
            if (row := wanted.pop(number, None)) is not None:
                reason = f"{row.actual_columns} fields, but there are {row.expected_columns} columns"
                found.append(BadRow(record.line, row.text, reason))
            if not wanted:
                break
    return found


class _WithSentinel(io.RawIOBase):
    """The bytes of a file, which are shown to a watch, then the sentinel."""

    def __init__(self, file: IO[bytes], sentinel: bytes, watch: QuoteWatch) -> None:
        super().__init__()
        self._file = file
        self._sentinel = sentinel
        self._watch = watch

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._file.read(size)
        if chunk:
            self._watch.see(chunk)
            return chunk
        chunk, self._sentinel = self._sentinel[:size], self._sentinel[size:]
        return chunk


class _Joined(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: bytearray | memoryview, /) -> int:  # type: ignore[override] # of bytes
        self._ready = self._ready or next(self._pieces, b"")
        count = min(len(target), len(self._ready))
        target[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def _ragged(row: Any) -> TaskFailure:
    return TaskFailure(
        "source_malformed",
        f"The source is not well-formed CSV: row {row.number} has {row.actual_columns} fields, but there are "
        f"{row.expected_columns} columns.",
        remedy="Fix the file, set layout.on_bad_rows to 'skip' or 'reject', layout.skip_rows to the number of lines "
        "above the header, or layout.delimiter if it was detected wrongly.",
    )


def _failure(broken: pa.ArrowInvalid, layout: FileLayout) -> TaskFailure:
    text = str(broken)
    if "UTF8" in text:
        return wrong_encoding(layout.encoding or "utf-8")
    if "straddling" in text:
        return _malformed(f"a row is longer than {_BLOCKS_BYTES[-1]} bytes, or a quote is never closed")
    return _malformed("its rows cannot be told apart; check whether a quoted field lacks its closing quote")


def _malformed(what: str) -> TaskFailure:
    return TaskFailure(
        "source_malformed",
        f"The source is not well-formed CSV: {what}.",
        remedy="Fix the file, or set layout.format and layout.delimiter if they were detected wrongly.",
    )
