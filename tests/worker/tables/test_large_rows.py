"""Memory follows the bytes of the rows, not their number: readers and loaders of rows that become large."""

from __future__ import annotations

import json
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import TaskFailure
from shared.jobs.data.places import FileLayout, SqlSource
from tests.support.engines import Engine, duckdb_at, make_engine, memory_growth_of
from worker.etl.reading.readers import ReadLimits, SourceFile, read_file
from worker.tables.parquet.staging import ParquetSink
from worker.tables.read import read_table, stage_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL_ROWS, LARGE_ROWS, LARGE = 3_000, 400, 200_000  # 80 MB of large rows, and twice that
GROWTH = 64 * 1024**2  # what 80 MB more of large rows may take more: memory is returned in parts
TABLES = ("half", "again", "whole")
LIMITS = ReadLimits(memory_limit_bytes=64 * 1024**2, plain_max_bytes=10**9)


def rows(times: int) -> Iterator[tuple[int, str]]:
    """Yield small rows and then large ones, which no first rows foretell."""
    for number in range(SMALL_ROWS):
        yield number, f"x{number}"
    for number in range(LARGE_ROWS * times):
        yield SMALL_ROWS + number, f"{number}".ljust(LARGE, "x")


def write(path: Path, times: int) -> None:
    """Write rows to a file in the format of its name."""
    if path.suffix == ".parquet":
        schema = pa.schema([("id", pa.int64()), ("v", pa.string())])
        with pq.ParquetWriter(path, schema, write_batch_size=16) as writer:
            ids, values = zip(*rows(times), strict=True)
            writer.write_table(pa.table([pa.array(ids), pa.array(values)], schema=schema))  # one row group
        return
    with path.open("w") as out:
        out.write({".csv": "id,v\n", ".json": "["}.get(path.suffix, ""))
        for at, (number, value) in enumerate(rows(times)):
            if path.suffix == ".csv":
                out.write(f"{number},{value}\n")
            else:
                comma = "," if at and path.suffix == ".json" else ""
                out.write(f"{comma}{json.dumps({'id': number, 'v': value})}\n")
        out.write("]" if path.suffix == ".json" else "")


def read(path: Path) -> None:
    """Read a file as an extraction does."""
    scratch = path.parent / secrets.token_hex(4)
    scratch.mkdir()
    read_file(
        SourceFile(path, path.name), FileLayout(), output=scratch / "out", scratch=scratch, limits=LIMITS,
        on_progress=lambda *_: None,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "json", "ndjson", "parquet"])
def test_files_whose_later_rows_are_large(suffix: str, tmp_path: Path) -> None:
    """Twice as many large rows take no more memory."""
    half, whole = tmp_path / f"half.{suffix}", tmp_path / f"whole.{suffix}"
    write(half, 1)
    write(whole, 2)
    assert more_of(partial(read, half), partial(read, half), partial(read, whole)) < GROWTH


def more_of(once: Callable[[], object], again: Callable[[], object], twice: Callable[[], object]) -> int:
    """Return how much more memory the last call takes: what is kept of the first one differs from run to run."""
    _, before, after = memory_growth_of(once, again, twice)
    return after - before


def staged(folder: Path, times: int) -> Path:
    """Write rows as every reader stages them."""
    path = folder / f"staged-{times}.parquet"
    schema = pa.schema([("id", pa.int64()), ("v", pa.string())])
    with ParquetSink(path, schema) as sink:
        for row in rows(times):
            sink.write(pa.RecordBatch.from_arrays([pa.array([row[0]]), pa.array([row[1]])], schema=schema))
    return path


def take(engine: Engine, table: str, query: str = "") -> None:
    """Read a table as copies do, or a query as extractions do."""
    output, limit = engine.folder / f"{secrets.token_hex(4)}.parquet", 64 * 1024**2
    if not query:
        read_table(
            engine.database, table, output, scratch=engine.folder, memory_limit_bytes=limit, on_rows=lambda _: None
        )
        return
    source = SqlSource(kind="sql", connection="warehouse", query=query)
    stage_sql(engine.database, source, output, memory_limit_bytes=limit, on_rows=lambda _: None)


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_tables_whose_later_rows_are_large(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """They are loaded, and read as a table and by a query, without more memory for twice as many.

    Loading DuckDB is in `test_loading`: it takes what its limit allows.
    """
    engine = make_engine(kind, tmp_path, request)
    half, whole = staged(tmp_path, 1), staged(tmp_path, 2)
    load = partial(engine.load, memory_limit_bytes=64 * 1024**2)
    by_key: dict[str, Any] = {"mode": "upsert", "key": ["id"]}
    more = {
        "append": more_of(
            partial(load, half, into="half", load_id="1"),
            partial(load, half, into="again", load_id="2"),
            partial(load, whole, into="whole", load_id="3"),
        ),
        "table": more_of(*(partial(take, engine, name) for name in TABLES)),
        "query": more_of(*(partial(take, engine, "", f"SELECT * FROM {name}") for name in TABLES)),  # noqa: S608 - ours
    }
    if kind == "sqlite":  # PostgreSQL stages the rows of an upsert as it appends them
        more["upsert"] = more_of(
            partial(load, half, into="half", load_id="4", **by_key),
            partial(load, half, into="again", load_id="5", **by_key),
            partial(load, whole, into="whole", load_id="6", **by_key),
        )
    assert {what: size for what, size in more.items() if size >= GROWTH} == {}


def test_duckdb_says_that_its_limit_is_too_low_for_the_rows(tmp_path: Path) -> None:
    """It is not transient: another attempt would meet it again."""
    engine = duckdb_at(tmp_path / "warehouse.duckdb")
    engine.run("CREATE TABLE sales (id BIGINT)")
    with pytest.raises(TaskFailure) as failure:
        take(engine, "", f"SELECT repeat('x', {LARGE}) || i AS v FROM range(2048) AS r (i)")  # noqa: S608 - a number
    assert failure.value.code == "memory_exhausted"
    assert "CELERIAC_MEMORY_LIMIT_BYTES" in failure.value.remedy
