# ruff: noqa: S608 - constants and the paths of tmp_path
"""Transformations as a whole: united datasets, progress, interruption, memory."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import ClaimLost, TaskFailure
from tests.support.transforming import MIB, URI, run, spec
from worker.etl.transform import transform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENDLESS = {"sql": "SELECT sum(hash(a.range + b.range)) AS s FROM range(10000000) a, range(10000000) b"}


def test_datasets_are_united_by_name(tmp_path: Path) -> None:
    """The order of columns may differ; numbers unite with numbers, dates with timestamps; no row is lost."""
    day = pd.Timestamp("2026-01-31")
    parts = [
        pd.DataFrame({"n": [1, 2], "t": ["a", None], "d": [day.date(), day.date()]}),
        pd.DataFrame({"t": ["c"], "d": [day + pd.Timedelta(hours=1)], "n": [2.5]}),
    ]
    outcome = run(tmp_path, parts, None)
    assert [(row["n"], row["t"], row["d"]) for row in outcome.records] == [
        (1.0, "a", day),
        (2.0, None, day),
        (2.5, "c", day + pd.Timedelta(hours=1)),
    ]
    assert (outcome.transformed.input_row_count, outcome.transformed.row_count) == (3, 3)


def test_united_datasets_can_be_transformed(tmp_path: Path) -> None:
    """The steps see all parts as one table."""
    parts = [pd.DataFrame({"g": ["a", "b"], "n": [part, 1]}) for part in range(5)]
    step = {"op": "aggregate", "group_by": ["g"], "measures": {"n": {"function": "sum", "column": "n"}}}
    outcome = run(tmp_path, parts, {"steps": [step, {"op": "sort", "by": [{"column": "g"}]}]})
    assert outcome.records == [{"g": "a", "n": 10}, {"g": "b", "n": 5}]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (pd.DataFrame({"a": [1]}), "dataset 2 of 2 lacks column 'b' of dataset 1"),
        (pd.DataFrame({"a": [1], "b": ["x"], "c": [1]}), "dataset 2 of 2 has column 'c', which dataset 1 lacks"),
        (pd.DataFrame({"a": ["1"], "b": ["x"]}), "column 'a' is BIGINT in dataset 1 and VARCHAR in dataset 2 of 2"),
    ],
)
def test_datasets_that_cannot_be_united_are_refused(tmp_path: Path, second: pd.DataFrame, says: str) -> None:
    """The message names the dataset and the column."""
    with pytest.raises(TaskFailure) as failed:
        run(tmp_path, [pd.DataFrame({"a": [1], "b": ["x"]}), second], None)
    assert (failed.value.code, says in failed.value.message) == ("columns_differ", True)


SOME_ID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
NUMBERS = pa.table({"n": [1.0, math.nan, 3.0], "x": pa.array([math.nan, 2.0, None], pa.float32()), "k": [1, 2, 3]})


def test_not_a_number_is_missing_for_steps_and_stays_where_none_looks(tmp_path: Path) -> None:
    """A filter, a total and a filled column take NaN as missing; the column that is only passed on keeps it."""
    above = {"op": "gt", "left": {"op": "column", "name": "n"}, "right": {"op": "literal", "value": 0}}
    kept = run(tmp_path / "filtered", NUMBERS, {"steps": [{"op": "filter", "where": above}]}).table
    assert (kept["n"].to_pylist(), str(kept["x"].to_pylist())) == ([1.0, 3.0], "[nan, None]")
    assert str(run(tmp_path / "whole", NUMBERS, None).table["n"].to_pylist()) == "[1.0, nan, 3.0]"
    total = {"op": "aggregate", "group_by": [], "measures": {"s": {"function": "sum", "column": "n"}}}
    assert run(tmp_path / "summed", NUMBERS, {"steps": [total]}).records == [{"s": 4.0}]
    filled = run(tmp_path / "filled", NUMBERS, {"steps": [{"op": "fill_missing", "columns": {"n": 0}}]}).table
    assert filled["n"].to_pylist() == [1.0, 0.0, 3.0]
    cast = run(tmp_path / "cast", NUMBERS, {"steps": [{"op": "cast", "columns": {"n": "integer"}}]}).table
    assert cast["n"].to_pylist() == [1, None, 3]


@pytest.mark.parametrize(
    ("first", "second", "united"),
    [
        (pa.array([2**53], pa.int64()), pa.array([0.5]), [2.0**53, 0.5]),
        (pa.array([2**53 + 1], pa.int64()), pa.array([0.5]), None),
        (pa.array([2**24 + 1], pa.int32()), pa.array([0.5], pa.float32()), [2.0**24 + 1, 0.5]),
        (pa.array([Decimal("1.23")], pa.decimal128(38, 2)), pa.array([Decimal("0.0000000001")], pa.decimal128(38, 10)),
         [Decimal("1.23"), Decimal("0.0000000001")]),
        (pa.array([Decimal("1.23")]), pa.array([7], pa.int64()), [Decimal("1.23"), Decimal(7)]),
        (pa.array([Decimal("0.10")]), pa.array([0.5]), [0.1, 0.5]),
        (pa.array([2**64 - 1], pa.uint64()), pa.array([-1], pa.int64()), None),
        (pa.array([2**63 - 1], pa.uint64()), pa.array([-1], pa.int64()), [2**63 - 1, -1]),
    ],
)  # fmt: skip
def test_numbers_of_several_types_unite_exactly_or_are_refused(
    tmp_path: Path, first: pa.Array, second: pa.Array, united: list[Any] | None
) -> None:
    """An integer that a float cannot hold, or more digits than there are, fail with the column's name."""
    parts = [pa.table({"amount": first}), pa.table({"amount": second})]
    if united is not None:
        assert run(tmp_path, parts, None).table["amount"].to_pylist() == united
        return
    with pytest.raises(TaskFailure, match="'amount'") as failed:
        run(tmp_path, parts, None)
    assert failed.value.code == "value_out_of_range"


@pytest.mark.parametrize(
    ("sql", "kind", "value"),
    [
        ("SELECT TIMESTAMP '2026-03-01' - TIMESTAMP '2026-01-01' AS x", pa.duration("us"), timedelta(days=59)),
        ("SELECT '6f9619ff-8b86-d011-b42d-00cf4fc964ff'::UUID AS x", pa.string(), SOME_ID),
        ("SELECT [1::HUGEINT] AS x", pa.list_(pa.int64()), [1]),
        ("SELECT TIMETZ '12:00:00+02' AS x", pa.string(), "12:00:00+02"),
        ("SELECT INTERVAL 1 MONTH AS x", None, "value_out_of_range"),
        ("SELECT sum(18446744073709551615::UBIGINT) AS x FROM input", None, "value_out_of_range"),
        ("SELECT [INTERVAL 1 DAY] AS x", None, "type_not_exact"),
        ("SELECT union_value(num := 1) AS x", None, "type_not_exact"),
    ],
)  # fmt: skip
def test_types_that_parquet_lacks_keep_their_value_or_are_refused(
    tmp_path: Path, sql: str, kind: pa.DataType | None, value: Any
) -> None:
    """DuckDB would write floats for wide integers, and bytes for intervals."""
    if kind is not None:
        found = run(tmp_path, NUMBERS, {"sql": sql}).table["x"]
        assert (found.type.id, found.to_pylist()[0]) == (kind.id, value)
        return
    with pytest.raises(TaskFailure, match="'x'") as failed:
        run(tmp_path, NUMBERS, {"sql": sql})
    assert failed.value.code == value


def test_a_sum_that_64_bits_do_not_hold_names_its_column(tmp_path: Path) -> None:
    """The total of a step is exact or refused."""
    table = pa.table({"big": pa.array([2**64 - 1], pa.uint64())})
    total = {"op": "aggregate", "group_by": [], "measures": {"s": {"function": "sum", "column": "big"}}}
    with pytest.raises(TaskFailure, match="sum of big"):
        run(tmp_path, table, {"steps": [total]})


@pytest.mark.parametrize("content", [b"", b"PAR1", b"date,category\n1,a\n"])
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    """A broken dataset is named by its number; the worker's path stays out of the message."""
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(content)
    with pytest.raises(TaskFailure) as failed:
        transform_file(tmp_path, broken, {"sql": "SELECT * FROM input"})
    assert (failed.value.code, "dataset 1" in failed.value.message) == ("unreadable_dataset", True)
    assert str(tmp_path) not in str(failed.value.document())


def test_an_empty_dataset_passes(tmp_path: Path) -> None:
    """No rows in, no rows out, the columns stay."""
    outcome = run(tmp_path, pd.DataFrame({"a": [1]})[:0], {"steps": [{"op": "drop_missing"}]})
    assert (outcome.records, outcome.table.column_names) == ([], ["a"])


def test_progress_grows_to_the_number_of_rows(tmp_path: Path) -> None:
    """Progress never goes back and ends at the whole."""
    frame = pd.DataFrame({"n": [str(number) for number in range(100_000)]})
    casts = [{"op": "cast", "columns": {"n": "integer"}}, {"op": "cast", "columns": {"n": "string"}}]
    progress = run(tmp_path, frame, {"steps": [*casts, *casts]}).progress
    assert progress == sorted(progress)
    assert progress[-1] == (100_000, 100_000)


def transform_file(
    folder: Path,
    dataset: Path,
    params: dict[str, Any],
    *,
    memory_limit_bytes: int = 64 * MIB,
    on_progress: Callable[[int, int | None], None] = lambda *_: None,
) -> int:
    """Transform one file and return the number of rows written."""
    return transform(
        spec(params),
        [dataset],
        inputs={name: dataset.with_name(f"{name}.parquet") for name in params.get("inputs", {})},
        output=folder / "output.parquet",
        rejects=folder / "rejects.parquet",
        memory_limit_bytes=memory_limit_bytes,
        threads=1,
        scratch=folder,
        on_progress=on_progress,
    ).row_count


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return a small dataset."""
    path = tmp_path / "dataset.parquet"
    pd.DataFrame({"a": [1, 2]}).to_parquet(path, index=False)
    return path


def queries() -> list[str]:
    """Return the names of threads that run a query."""
    return [thread.name for thread in threading.enumerate() if thread.name == "duckdb-query"]


def test_a_lost_claim_stops_the_query(tmp_path: Path, dataset: Path) -> None:
    """What `on_progress` raises comes out as it is, soon, and the query is over by then."""

    def lost(_current: int, _total: int | None) -> None:
        raise ClaimLost("another worker has it")

    begun = time.monotonic()
    with pytest.raises(ClaimLost, match="another worker has it"):
        transform_file(tmp_path, dataset, ENDLESS, on_progress=lost)
    assert time.monotonic() - begun < 60
    assert queries() == []


def test_a_soft_time_limit_stops_the_query(tmp_path: Path, dataset: Path) -> None:
    """What a signal handler raises comes out as it is: DuckDB alone would turn it into a bare RuntimeError."""

    class SoftLimit(Exception):
        """Stands for celery's SoftTimeLimitExceeded."""

    def handler(_number: int, _frame: object) -> None:
        raise SoftLimit

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(SoftLimit):
            transform_file(tmp_path, dataset, ENDLESS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert queries() == []
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_process_can_transform_after_a_fork(tmp_path: Path, dataset: Path) -> None:
    """A worker's child transforms, whatever its parent did before: no connection outlives a transformation."""
    transform_file(tmp_path, dataset, {"steps": [{"op": "drop_missing"}]})
    code = f"""
        import os, sys
        from pathlib import Path
        from tests.worker.etl.test_transform import transform_file
        folder = Path({str(tmp_path)!r})
        run = lambda: transform_file(folder, folder / "dataset.parquet", {{"steps": [{{"op": "drop_missing"}}]}})
        run()
        child = os.fork()
        if child == 0:
            os._exit(run())
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    assert subprocess.run(command, check=False, timeout=300).returncode == 2


def test_no_connection_is_opened_at_import_or_left_open(tmp_path: Path, dataset: Path) -> None:
    """Workers fork after import; and a connection left open would keep its threads and its rights."""
    code = f"""
        import os
        from pathlib import Path
        from tests.worker.etl.test_transform import transform_file
        before = len(os.listdir("/proc/self/task"))
        transform_file(Path({str(tmp_path)!r}), Path({str(dataset)!r}), {{"sql": "SELECT * FROM input"}})
        print(before, len(os.listdir("/proc/self/task")))
    """
    shown = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, stdout=subprocess.PIPE, text=True, timeout=300
    )
    before, after = shown.stdout.split()
    assert after == before


LIMIT_BYTES = 32 * MIB
BIG_ROWS = 2_850_000
BIG: list[dict[str, Any]] = [
    {"op": "join", "input": "other", "how": "inner", "on": {"id": "id"}},
    {"op": "cast", "columns": {"code": "integer"}},
    {"op": "aggregate", "group_by": ["k"], "measures": {"v": {"function": "sum", "column": "v_right"}}},
]


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of ten times the memory limit, as it is in memory."""
    path = tmp_path_factory.mktemp("big") / "big.parquet"
    rows = (  # a column of each kind, and most of the bytes in text
        "SELECT i AS id, CAST(hash(i) % 1000000 AS BIGINT) AS k, CAST(hash(i + 7) % 100 AS BIGINT) AS v, "
        f"repeat(md5(CAST(i AS VARCHAR)), 3) AS s, CASE WHEN i % 10 = 3 THEN 'n/a' ELSE '1' END AS code "
        f"FROM range({BIG_ROWS}) t(i)"
    )
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({rows}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 8192)")
        connection.execute(f"COPY (SELECT id, v FROM '{path}') TO '{path.with_name('other.parquet')}' (FORMAT parquet)")
        (size,) = connection.execute(f"SELECT sum(3 * 8 + strlen(s) + strlen(code)) FROM '{path}'").fetchone() or [0]
    assert size > 10 * LIMIT_BYTES
    return path


@pytest.mark.integration
def test_data_ten_times_larger_than_the_memory_limit_pass(tmp_path: Path, dataset: Path, big: Path) -> None:
    """A join, rejects and an aggregation spill to scratch; the process keeps to the limit and what Python needs."""
    params = {"steps": BIG, "bad_rows": "reject", "inputs": {"other": URI}}
    code = f"""
        import json, sys
        from pathlib import Path
        from tests.worker.etl import test_transform as t
        def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        folder = Path({str(tmp_path)!r})
        (folder / "first").mkdir()
        t.transform_file(folder / "first", Path({str(dataset)!r}), {{"steps": [{{"op": "drop_missing"}}]}})  # libraries
        before = peak()
        rows = t.transform_file(
            folder, Path({str(big)!r}), json.loads(sys.argv[1]), memory_limit_bytes=t.LIMIT_BYTES
        )
        print(json.dumps([rows, before, peak()]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), json.dumps(params)]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=500, env=os.environ)
    rows, before_bytes, peak_bytes = json.loads(shown.stdout)
    assert peak_bytes - before_bytes < 2.5 * LIMIT_BYTES
    source = pq.read_table(big, columns=["k", "v", "code"]).to_pandas()
    assert rows == source.loc[source["code"] == "1", "k"].nunique()
    written = pq.read_table(tmp_path / "output.parquet", columns=["k", "v"]).to_pandas()
    good = source[source["code"] == "1"]
    assert written.set_index("k")["v"].sort_index().equals(good.groupby("k")["v"].sum())
    assert pq.read_metadata(tmp_path / "rejects.parquet").num_rows == BIG_ROWS - len(good)
