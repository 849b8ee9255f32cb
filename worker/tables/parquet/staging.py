"""Staged tables: Parquet files with clean column names, written batch by batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq

from shared.contract.artifacts import Column
from shared.errors import TaskFailure
from worker.tables.parquet.calendar import within_calendar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from worker.tables.parquet.calendar import OutOfRange

MAX_COLUMNS = 2_000
_MAX_NAME = 255
_GROUP_BYTES = 16 * 1024**2  # of memory: a reader has to hold a whole row group
_BATCH_BYTES = 4 * 1024**2
_BATCH_ROWS = 32_768
_PAGE_BYTES = 1024**2
_DECODED_ROWS = 64  # at a time: few enough for large rows, and many enough for the time that small ones take
_GROUP_ROWS = 122_880  # DuckDB's own row group


def column_names(raw: Iterable[str]) -> list[str]:
    """Return names that are printable, not empty, at most 255 long, and differ by more than case.

    An empty one becomes ``column_3`` after its position; a repeated one gets ``_2``, ``_3`` and so on.
    Raises `TaskFailure` (``too_many_columns``) beyond 2,000 columns.
    """
    names: list[str] = []
    taken: set[str] = set()
    for position, text in enumerate(raw, start=1):
        if position > MAX_COLUMNS:
            raise TaskFailure(
                "too_many_columns",
                f"The source has more than {MAX_COLUMNS} columns.",
                remedy="Select fewer columns in the source, or correct the delimiter.",
            )
        printable = "".join(sign if sign.isprintable() else "_" for sign in text.strip())
        wanted = printable[:_MAX_NAME] or f"column_{position}"
        name, repeat = wanted, 1
        while name.casefold() in taken:
            repeat += 1
            name = f"{wanted[: _MAX_NAME - 8]}_{repeat}"
        taken.add(name.casefold())
        names.append(name)
    return names


class ParquetSink:
    """Write record batches to a Parquet file in row groups of bounded size. Use it as a context manager.

    A thread compresses one row group while the rows of the next are gathered, so an error of writing may come later.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Open `path` for rows of `schema`."""
        texts = [field.name for field in schema if _may_repeat(field.type)]
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=1, use_dictionary=texts or False
        )
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self._waiting_rows = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parquet")
        self._writing: Future[None] | None = None
        #: Rows written so far.
        self.row_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        """Write the remaining rows, unless something failed, and close the file."""
        try:
            if failure[0] is None:
                self._flush()
                self._wait()
        finally:
            self._thread.shutdown()
            self._writer.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add the rows of `batch`; one that is too large for a row group is split."""
        limit = max(1, int(batch.num_rows * _GROUP_BYTES / max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, limit):
            part = batch.slice(start, limit)
            self._waiting.append(part)
            self._waiting_rows += part.num_rows
            self._waiting_bytes += part.nbytes
            self.row_count += part.num_rows
            if self._waiting_bytes >= _GROUP_BYTES or self._waiting_rows >= _GROUP_ROWS:
                self._flush()

    def _flush(self) -> None:
        if self._waiting_rows:
            group = pa.Table.from_batches(self._waiting, self._schema)
            self._wait()
            self._writing = self._thread.submit(self._writer.write_table, group)
        self._waiting, self._waiting_bytes, self._waiting_rows = [], 0, 0

    def _wait(self) -> None:
        """Wait for the row group that is written, and raise its error."""
        if self._writing is not None:
            self._writing.result()


def _may_repeat(kind: pa.DataType) -> bool:
    """Return whether a dictionary is worth its time: looking up each number costs more than to compress it."""
    return kind.num_fields > 0 or not pa.types.is_primitive(kind)


def write_batches(
    batches: Iterable[pa.RecordBatch],
    found: pa.Schema,
    path: Path,
    on_rows: Callable[[int], None],
    *,
    out_of_range: OutOfRange = "fail",
) -> list[str]:
    """Write batches of the schema `found` to a Parquet file and return its clean column names.

    What an extension adds to a type is left out. `out_of_range` says what becomes of dates beyond the years 1 to 9999.
    `on_rows` gets the number of rows so far. Raises `TaskFailure` (``unsupported_type``) that names the columns.
    """
    names = column_names(found.names)
    kinds = [kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind for kind in found.types]
    schema = pa.schema(zip(names, kinds, strict=True))
    _refuse_unstorable(schema)
    with ParquetSink(path, schema) as sink:
        for batch in batches:
            columns = [column.storage if isinstance(column, pa.ExtensionArray) else column for column in batch.columns]
            sink.write(within_calendar(pa.RecordBatch.from_arrays(columns, schema=schema), out_of_range))
            on_rows(sink.row_count)
    return names


def _refuse_unstorable(schema: pa.Schema) -> None:
    refused = [f"{field.name!r} ({field.type})" for field in schema if not _is_storable(field)]
    if refused:
        raise TaskFailure(
            "unsupported_type",
            f"Parquet has no place for the types of the columns {', '.join(refused)}.",
            remedy="Cast them to text in 'query', or leave them out.",
        )


def _is_storable(field: pa.Field) -> bool:
    try:
        pq.write_metadata(pa.schema([field]), pa.BufferOutputStream())
    except pa.ArrowNotImplementedError:
        return False
    return True


def batches_of(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file, or some of its columns, in pieces of a few MB, whatever its rows are.

    They are decoded some at a time and put together: neither the sizes in the file, which count a repeated text once,
    nor the first rows say how large the others are.
    """
    waiting: list[pa.RecordBatch] = []
    size = rows = 0
    with pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=_PAGE_BYTES) as file:
        for batch in file.iter_batches(_DECODED_ROWS, columns=columns, use_threads=False):
            waiting.append(batch)
            size += batch.nbytes
            rows += batch.num_rows
            if size >= _BATCH_BYTES or rows >= _BATCH_ROWS:
                yield _united(waiting)
                waiting, size, rows = [], 0, 0
    if waiting:
        yield _united(waiting)


def _united(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def empty_columns(path: Path) -> set[str]:
    """Return the columns of a Parquet file that have no values, according to its statistics."""
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    schema = metadata.schema.to_arrow_schema()
    tops = [field.name for field in schema for _ in range(_leaves(field.type))]  # a path is not: names may have dots
    empty = set(schema.names)
    typeless = {one.name for one in schema if pa.types.is_null(one.type)}
    for group in groups:
        for name, column in zip(tops, map(group.column, range(group.num_columns)), strict=True):
            if name in typeless:
                continue
            if column.statistics is None or column.statistics.null_count < group.num_rows:
                empty.discard(name)
    return empty


def _leaves(kind: pa.DataType) -> int:
    """Return how many columns of Parquet a column takes."""
    if pa.types.is_dictionary(kind) or not kind.num_fields:
        return 1
    return sum(_leaves(kind.field(at).type) for at in range(kind.num_fields))


def missing_in(path: Path) -> dict[str, int]:
    """Return how many values are missing (NULL), for the columns of a Parquet file that miss any."""
    with pq.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
    counts = {field.name: metadata.num_rows for field in schema if pa.types.is_null(field.type)}
    flat = {name for name, kind in zip(schema.names, schema.types, strict=True) if kind.num_fields == 0} - counts.keys()
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema in flat and column.statistics is not None:
                counts[column.path_in_schema] = counts.get(column.path_in_schema, 0) + column.statistics.null_count
    return {name: counts[name] for name in schema.names if counts.get(name)}


def schema_of(path: Path) -> pa.Schema:
    """Return the Arrow schema of a Parquet file."""
    return pq.read_schema(path).remove_metadata()


def columns_of(path: Path) -> list[Column]:
    """Return the columns of a Parquet file with their Arrow types."""
    return [Column(name=field.name, type=str(field.type)) for field in schema_of(path)]
