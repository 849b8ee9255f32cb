"""`python -m bench.etl`: extracting, transforming and loading beside the tool that each engine brings, in one run.

Each pair is measured in turn, on the same rows with the same threads, so that another load on the machine slows both.
`--rows` is the size of the CSV part; a database has 2/5 of them, with eight columns.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from bench.report import save
from bench.servers import free_port, valkey
from shared.connections.settings import PostgresqlInfo, SqliteInfo, StoreInfo
from shared.jobs.data.places import FileDestination, Source, TableDestination
from shared.jobs.etl import TransformSpec
from shared.storage import ArtifactStore
from tests.support.servers.postgres import running_postgres
from worker.etl.extract import Extractor
from worker.etl.transform import transform
from worker.etl.writing.load_file import load_file
from worker.reach.connections import WorkerConnections
from worker.settings import WorkerSettings
from worker.tables.databases.registry import database
from worker.tables.load import load_table

ROWS = 1_000_000
SOURCE: TypeAdapter[Source] = TypeAdapter(Source)
STEPS = TransformSpec.model_validate(
    {
        "steps": [
            {"op": "cast", "columns": {"value": "float", "day": "date"}},
            {
                "op": "aggregate",
                "group_by": ["category"],
                "measures": {"total": {"function": "sum", "column": "value"}},
            },
        ]
    }
)
_MARKS = ", ".join("?" * 8)
MOST = {"CSV: extract, cast, group, load": 1.15}
_MOST_OF_OTHERS = 1.3


@dataclass
class Pair:
    """Ours beside the tool of the engine, and what each took in each round."""

    name: str
    ours: Callable[[Path], object]
    theirs: Callable[[Path], object]
    tool: str
    seconds: list[tuple[float, float]] = field(default_factory=list)
    cpu_seconds: list[tuple[float, float]] = field(default_factory=list)
    """Of this process and the tool; not of a server."""

    def measure(self, scratch: Path) -> None:
        ours, theirs = _seconds(self.ours, scratch), _seconds(self.theirs, scratch)
        self.seconds.append((ours[0], theirs[0]))
        self.cpu_seconds.append((ours[1], theirs[1]))

    def line(self) -> str:
        ratios = [ours / theirs for ours, theirs in self.seconds]
        middle, most = statistics.median(ratios), MOST.get(self.name, _MOST_OF_OTHERS)
        ours, theirs = (statistics.median(column) for column in zip(*self.seconds, strict=True))
        verdict = "met" if middle <= most else f"not met, by a factor of {middle / most:.2f}"
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        by_cpu = statistics.median(ours / max(theirs, 0.01) for ours, theirs in self.cpu_seconds)
        figures = f"{middle:7.2f} {spread:16}{by_cpu:7.2f}{ours:8.2f} s{theirs:8.2f} s"
        return f"{self.name:34}{figures}  {self.tool}; at most {most}: {verdict}"


def _seconds(run: Callable[[Path], object], scratch: Path) -> tuple[float, float]:
    """Return the seconds that `run` takes by the clock and of CPU time, programs that it starts included."""
    scratch.mkdir()
    begin, used = time.perf_counter(), sum(os.times()[:4])
    run(scratch)
    taken = time.perf_counter() - begin, sum(os.times()[:4]) - used
    shutil.rmtree(scratch)
    return taken


@dataclass
class Bench:
    """The files, and this service without broker and gateway."""

    folder: Path
    threads: int
    redis_client: Any
    url: str

    def __post_init__(self) -> None:
        self.settings = WorkerSettings(threads=self.threads)
        self.configured: dict[str, Any] = {
            "store": StoreInfo(kind="store", url=str(self.folder)),
            "lite": SqliteInfo(kind="sqlite", path=self.folder / "read.db"),
            "pg": PostgresqlInfo(kind="postgresql", url_env="PG"),
        }
        self.connections = WorkerConnections(self.configured, {"PG": self.url})

    def extract(self, scratch: Path, **source: Any) -> Path:
        """Stage a source and return the Parquet file."""
        output = scratch / "extracted.parquet"
        extractor = Extractor(
            settings=self.settings,
            connections=self.connections,
            store=ArtifactStore(str(self.folder / "artifacts")),
            redis_client=self.redis_client,
            scratch=scratch,
            on_progress=lambda *_: None,
        )
        extractor.extract(SOURCE.validate_python(source), output)
        return output

    def pipeline(self, scratch: Path) -> None:
        """CSV in a store to Parquet, cast and group, to Parquet in a store."""
        staged = self.extract(scratch, kind="store", connection="store", path="rows.csv")
        output = scratch / "out.parquet"
        transform(
            STEPS,
            [staged],
            inputs={},
            output=output,
            rejects=scratch / "rejects.parquet",
            memory_limit_bytes=self.settings.memory_limit_bytes,
            threads=self.threads,
            scratch=scratch,
            on_progress=lambda *_: None,
        )
        destination = FileDestination(kind="file", connection="store", path="loaded.parquet", mode="replace")
        store = self.connections.store("store")
        load_file(store, destination, output, load_id="1", scratch=scratch, on_progress=lambda *_: None)

    def by_duckdb(self, scratch: Path) -> None:
        with closing(duckdb.connect(config={"threads": self.threads})) as engine:
            engine.execute(f"COPY (FROM '{self.folder}/rows.csv') TO '{scratch}/a.parquet'")
            query = f"SELECT category, sum(value::DOUBLE) AS total FROM '{scratch}/a.parquet' GROUP BY category"  # noqa: S608 - of ours
            engine.execute(f"COPY ({query}) TO '{scratch}/b.parquet'")

    def load(self, connection: str, scratch: Path) -> None:
        """Load eight columns into a new table."""
        load_table(
            database(self.connections, connection),
            TableDestination(kind="table", connection=connection, table=f"loaded_{time.time_ns()}", mode="append"),
            self.folder / "wide.parquet",
            load_id=str(time.time_ns()),
            on_progress=lambda *_: None,
            scratch=scratch,
            memory_limit_bytes=self.settings.memory_limit_bytes,
            threads=self.threads,
        )

    def load_sqlite(self, scratch: Path) -> None:
        self.configured["lite"] = SqliteInfo(kind="sqlite", path=scratch / "new.db")
        try:
            self.load("lite", scratch)
        finally:
            self.configured["lite"] = SqliteInfo(kind="sqlite", path=self.folder / "read.db")

    def executemany(self, scratch: Path) -> None:
        with (
            closing(sqlite3.connect(scratch / "new.db")) as session,
            (self.folder / "wide.csv").open(newline="") as file,
        ):
            session.execute(f"CREATE TABLE wide ({_WIDE})")
            rows = csv.reader(file)
            next(rows)
            session.executemany(f"INSERT INTO wide VALUES ({_MARKS})", rows)  # noqa: S608 - of ours
            session.commit()

    def sqlite_tool(self, *commands: str, database: Path) -> None:
        subprocess.run(["sqlite3", str(database), *commands], check=True, stdout=subprocess.DEVNULL)

    def psql(self, command: str) -> None:
        subprocess.run(["psql", "--quiet", self.url, "-c", command], check=True)

    def copy_in(self, _: Path) -> None:
        table = f"copied_{time.time_ns()}"
        with psycopg.connect(self.url, autocommit=True) as link:
            link.execute(f"CREATE TABLE {table} ({_WIDE})")
        self.psql(f"\\copy {table} FROM '{self.folder}/wide.csv' CSV HEADER")

    def pairs(self) -> Iterator[Pair]:
        """Yield what can be measured here."""
        yield Pair("CSV: extract, cast, group, load", self.pipeline, self.by_duckdb, "DuckDB")
        read, wide = self.folder / "read.db", self.folder / "wide.csv"
        imported = (f"CREATE TABLE wide ({_WIDE})", f".import --csv --skip 1 {wide} wide")
        yield Pair("SQLite: load, executemany", self.load_sqlite, self.executemany, "executemany of csv.reader")
        if shutil.which("sqlite3"):
            self.sqlite_tool(*imported, database=read)
            yield Pair(
                "SQLite: load",
                self.load_sqlite,
                lambda scratch: self.sqlite_tool(*imported, database=scratch / "new.db"),
                ".import",
            )
            yield Pair(
                "SQLite: extract",
                lambda scratch: self.extract(scratch, kind="sql", connection="lite", table="wide"),
                lambda scratch: self.sqlite_tool(
                    f".output {scratch}/out.csv", ".mode csv", "SELECT * FROM wide", database=read
                ),
                ".output",
            )
        if self.url and shutil.which("psql"):
            self.copy_in(self.folder)
            with psycopg.connect(self.url, autocommit=True) as link:
                link.execute(f"CREATE TABLE wide ({_WIDE})")
            self.psql(f"\\copy wide FROM '{wide}' CSV HEADER")
            yield Pair("PostgreSQL: load", lambda scratch: self.load("pg", scratch), self.copy_in, "\\copy")
            yield Pair(
                "PostgreSQL: extract",
                lambda scratch: self.extract(scratch, kind="sql", connection="pg", table="wide"),
                lambda scratch: self.psql(f"\\copy wide TO '{scratch}/out.csv' CSV"),
                "\\copy",
            )


_WIDE = (
    "id BIGINT, customer INTEGER, name TEXT, city TEXT, "
    "amount DOUBLE PRECISION, rate DOUBLE PRECISION, day DATE, at TIMESTAMP"
)


def make_files(folder: Path, rows: int) -> None:
    """Write ``rows.csv`` (four columns) and, with 2/5 of the rows, ``wide.csv`` and ``wide.parquet`` (eight)."""
    chance = np.random.default_rng(1)
    names = pa.array([f"name {at}" for at in range(1_000)])

    def days(count: int) -> pa.Array:
        return pa.array((np.datetime64("2024-01-01") + chance.integers(0, 300, count)).astype("datetime64[D]"))

    narrow = pa.table(
        {
            "id": np.arange(rows),
            "category": names.slice(0, 20).take(pa.array(chance.integers(0, 20, rows))),
            "value": np.round(chance.random(rows) * 1_000, 2),
            "day": days(rows),
        }
    )
    pa_csv.write_csv(narrow, folder / "rows.csv")
    count = rows * 2 // 5
    seconds = chance.integers(1_700_000_000, 1_800_000_000, count).astype("datetime64[s]").astype("datetime64[us]")
    wide = pa.table(
        {
            "id": np.arange(count),
            "customer": pa.array(chance.integers(0, 100_000, count), pa.int32()),
            "name": names.take(pa.array(chance.integers(0, 1_000, count))),
            "city": names.take(pa.array(chance.integers(0, 50, count))),
            "amount": np.round(chance.random(count) * 1_000, 2),
            "rate": chance.random(count),
            "day": days(count),
            "at": pa.array(seconds),
        }
    )
    pa_csv.write_csv(wide, folder / "wide.csv")
    pq.write_table(wide, folder / "wide.parquet")


def main() -> None:
    """Measure, print and save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--rows", type=int, default=ROWS, help=f"rows of the CSV (default {ROWS:,}; 5,000,000 are 128 MB)"
    )
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--only", default="", help="only the pairs whose name has this text")
    chosen = options.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "valkey").mkdir()
        client = stack.enter_context(valkey(folder / "valkey", free_port()))
        server = stack.enter_context(running_postgres())
        make_files(folder, chosen.rows)
        bench = Bench(folder, chosen.threads, client, server.url() if server else "")
        pairs = [pair for pair in bench.pairs() if chosen.only in pair.name]
        for _ in range(chosen.rounds):
            for pair in pairs:
                pair.measure(folder / "scratch")
    figures = "ratio (range), ratio by CPU time (without servers), our seconds, the tool's"
    title = f"{chosen.rows:,} rows, {chosen.threads} threads: {figures}"
    text = "\n".join([title, *(pair.line() for pair in pairs)])
    print(text)
    if not chosen.only:
        found = {
            "rows": chosen.rows,
            "threads": chosen.threads,
            "seconds": {pair.name: pair.seconds for pair in pairs},
            "cpu_seconds": {pair.name: pair.cpu_seconds for pair in pairs},
        }
        save("etl", text, ("duckdb", "pyarrow", "adbc-driver-postgresql"), found)


if __name__ == "__main__":
    main()
