"""Load into a file of a store: Parquet unchanged, or CSV.

A reader never sees a partial file: in a folder it is written to a temporary file and renamed, and an object store
makes an object visible only when it is complete. `replace` writes one file, the same one at every delivery. `append`
adds a part named after the load_id to a folder; if the part exists, it was delivered before.

CSV is for programs and therefore exact: a cell that begins with `=`, `+`, `-` or `@` is not changed. For spreadsheets
that people open, use the report kinds. A missing value is an empty cell, an empty text is `""`.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from shared.errors import TaskFailure, TransientFailure
from shared.texts import redact
from worker.tables.databases.plan import Loaded
from worker.tables.databases.types import plain, shape_of
from worker.tables.parquet.staging import batches_of, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.jobs.data.places import FileDestination
    from worker.reach.connections import StoreConnection

_WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2", "memory"}
_CHUNK_BYTES = 4 * 1024 * 1024
_NAME_SAFE = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def load_file(
    store: StoreConnection,
    destination: FileDestination,
    dataset: Path,
    *,
    load_id: str,
    scratch: Path,
    on_progress: Callable[[int, int | None], None],
) -> Loaded:
    """Write the Parquet file `dataset` to a store and return the counts.

    CSV is written to `scratch` first. `deleted_count` is 0: the rows of a replaced file are not counted.
    Raises `TaskFailure` for a path outside the store or one that is taken, and `TransientFailure` for a store that
    does not respond.
    """
    appends = destination.mode == "append"
    path = f"{destination.path}/{_part_name(load_id, destination.format)}" if appends else destination.path
    with pq.ParquetFile(dataset) as file:
        row_count = file.metadata.num_rows
    loaded = Loaded(f"{store.name}:{path}", destination.mode, row_count, 0, 0)
    try:
        target = store.locate(path)
        _refuse_taken(store, destination, target)
        if appends and store.fs.exists(target):
            return Loaded(loaded.destination, loaded.mode, row_count, 0, 0, already_loaded=True)
        on_progress(0, row_count)
        source = _csv(dataset, scratch, on_progress) if destination.format == "csv" else dataset
        _publish(store, source, target)
    except OSError as error:
        raise _failure_of(error, store) from error
    on_progress(row_count, row_count)
    return loaded


def _part_name(load_id: str, file_format: str) -> str:
    name = load_id if _NAME_SAFE.fullmatch(load_id) else hashlib.sha256(load_id.encode()).hexdigest()
    return f"part-{name}.{file_format}"


def _refuse_taken(store: StoreConnection, destination: FileDestination, target: str) -> None:
    if destination.mode == "replace" and store.fs.isdir(target):
        what, remedy = "is a folder", "Use mode 'append', or the path of a file."
    elif destination.mode == "append" and store.fs.isfile(store.locate(destination.path)):
        what, remedy = "is a file", "Use mode 'replace', or the path of a folder."
    else:
        return
    raise TaskFailure("path_taken", f"destination.path: {destination.path!r} of {store.name!r} {what}.", remedy=remedy)


def _csv(dataset: Path, scratch: Path, on_progress: Callable[[int, int | None], None]) -> Path:
    """Write the dataset as CSV (RFC 4180, UTF-8, with a header) and return the file."""
    target = scratch / f"{secrets.token_hex(8)}.csv"
    schema = pa.schema([(field.name, _writable(field)) for field in schema_of(dataset)])
    done, row_count = 0, pq.read_metadata(dataset).num_rows
    with pa_csv.CSVWriter(target, schema) as writer:
        for batch in batches_of(dataset):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            done += batch.num_rows
            on_progress(done, row_count)
    return target


def _writable(field: pa.Field) -> pa.DataType:
    kind = plain(field.type)
    if shape_of(kind).family in {"other", "binary"}:
        raise TaskFailure(
            "type_not_loadable",
            f"The column {field.name!r} of type {field.type} cannot be written as CSV.",
            remedy="Cast it to a string in a transform step, omit it, or write Parquet.",
            column=field.name,
        )
    return kind


def _publish(store: StoreConnection, source: Path, target: str) -> None:
    """Make the complete content of `source` visible at `target` at once."""
    folder, _, name = target.rpartition("/")
    store.fs.makedirs(folder, exist_ok=True)
    if _protocols(store.fs) & _WHOLE_OBJECTS:
        store.fs.put_file(str(source), target)
        return
    aside = f"{folder}/.{name}.{secrets.token_hex(4)}.part"
    try:
        if store.is_local:
            _copy(source, Path(aside))
            Path(aside).replace(target)
        else:
            store.fs.put_file(str(source), aside)
            store.fs.mv(aside, target)
    finally:
        if store.fs.exists(aside):
            store.fs.rm(aside)


def _copy(source: Path, target: Path) -> None:
    """Copy to a file that must not exist yet, and sync it to the disk."""
    with source.open("rb") as reading, target.open("xb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def _failure_of(error: OSError, store: StoreConnection) -> TaskFailure:
    text = f"The store {store.name!r} cannot be written: {redact(error.strerror or type(error).__name__)}."
    if isinstance(error, _PERMANENT):
        return TaskFailure(
            "store_refused", text, remedy="Check that the store's root exists and that the workers may write to it."
        )
    return TransientFailure("store_unavailable", text, remedy="Check that the store is reachable and has free space.")
