"""DuckDB as a database: what only it has."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import TaskFailure, TransientFailure
from tests.support.engines import Engine, duckdb_at
from tests.support.servers.disks import small_disk

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def duck(tmp_path: Path) -> Engine:
    """Return a DuckDB file with a table."""
    engine = duckdb_at(tmp_path / "w.duckdb")
    engine.run("CREATE TABLE sales AS SELECT range AS id, 'n' || range AS name FROM range(25000)")
    return engine


def test_a_query_in_the_engines_own_dialect(duck: Engine) -> None:
    """It is read in several batches, with its types."""
    rows, candidates = duck.stage(query="FROM sales ORDER BY id")
    assert (len(rows), rows[-1], candidates) == (25_000, {"id": 24_999, "name": "n24999"}, {})


def test_types_that_arrow_would_change_keep_their_values(duck: Engine) -> None:
    """An offset, a large number, bits and intervals; what has no type is refused by name, also within a list."""
    rows, _ = duck.stage(
        query="SELECT '10:00:00.25+02:30'::TIMETZ AS a, '10101'::BIT AS b, 12::BIGNUM AS c, "
        "'1 month -3 days'::INTERVAL AS d, 99999999999999999999999999999999999999::HUGEINT AS e, "
        "7::UHUGEINT AS f, 1 AS f, NULL::BIT AS g"
    )
    (row,) = rows
    texts = {"a": "10:00:00.25+02:30", "b": "10101", "c": "12", "d": "1 month -3 days"}
    assert row == {**texts, "e": Decimal("9" * 38), "f": Decimal(7), "f_2": 1, "g": None}
    for column, value in (("x", "340282366920938463463374607431768211455::UHUGEINT"), ("y", "['101'::BIT]")):
        with pytest.raises(TaskFailure, match=repr(column)):
            duck.stage(query=f"SELECT {value} AS {column}")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT 1; DELETE FROM sales",
        "WITH x AS (SELECT 1) DELETE FROM sales",
        "FROM duckdb_secrets(), no_such",
    ],
)
def test_a_query_reaches_nothing_else(duck: Engine, query: str) -> None:
    """Neither files nor writes are within a query's reach."""
    with pytest.raises(TaskFailure) as raised:
        duck.stage(query=query)
    assert raised.value.code in {"query_refused", "query_failed"}


def test_a_file_that_another_process_has_open_can_come_free(tmp_path: Path) -> None:
    """The failure says that one process at a time can have it open."""
    path, table = tmp_path / "w.duckdb", pa.table({"id": [1, 2, 3]})
    holder = f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        engine = duckdb_at(path, lock_timeout_s=0.3)
        with pytest.raises(TransientFailure, match="lock") as caught:
            engine.load(table)
        assert "Only one process at a time" in caught.value.remedy
        process.communicate()
    assert engine.load(table).inserted_count == 3


def test_a_full_disk_of_the_file_can_come_free(tmp_path: Path) -> None:
    """Loading is tried again, and the failure names the connection and not the worker's scratch."""
    dataset = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": np.random.default_rng(7).random(1_000_000)}), dataset)
    with small_disk(tmp_path / "disk", 3 * 2**20) as disk:
        with pytest.raises(TransientFailure) as caught:
            duckdb_at(disk / "w.duckdb").load(dataset)
        assert caught.value.code == "database_full"
