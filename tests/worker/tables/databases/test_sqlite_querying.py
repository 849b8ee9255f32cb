"""The types of a query of SQLite: the outcome is that of staging all values as text first."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import TaskFailure
from worker.tables.databases.sqlite import batches, querying
from worker.tables.inference import settle

VALUES: list[Any] = [
    None, 0, 1, -7, 2**53, 2**53 + 1, 2**53 + 2, -(2**63), 1.0, 0.1, -2.5, 1e300, float("inf"), 12345678901234567.0,
    "", "7", "x", "1.5", b"", b"\x00\xff",
]  # fmt: skip
COLUMN = st.tuples(*[st.lists(st.sampled_from(VALUES), min_size=1, max_size=3)] * 2, st.integers(0, 30))


def _typed_first(session: sqlite3.Connection, folder: Path) -> tuple[object, ...]:
    staged, output = folder / "staged", folder / "output"
    try:
        candidates = querying.stage_rows(session, "SELECT * FROM t", staged, lambda _: None)
    except TaskFailure as refused:
        return refused.code, refused.details
    if candidates:
        settle(staged, output, candidates, lambda _: None)
    else:
        staged.rename(output)
    staged.unlink(missing_ok=True)
    assert list(folder.iterdir()) == [output]
    return repr(pq.read_table(output).to_pydict()), pq.read_schema(output)


def _text_first(session: sqlite3.Connection, folder: Path) -> tuple[object, ...]:
    staged, output = folder / "staged", folder / "output"
    cursor = session.execute("SELECT * FROM t")
    names = [column[0] for column in cursor.description]
    rows = cursor.fetchall()
    kinds = [{type(row[at]) for row in rows} for at in range(len(names))]
    pieces = [list(zip(*rows, strict=True))] if rows else []
    try:
        candidates = querying._stage_as_text(names, kinds, pieces, staged, lambda _: None)
    except TaskFailure as refused:
        return refused.code, refused.details
    settle(staged, output, candidates, lambda _: None)
    return repr(pq.read_table(output).to_pydict()), pq.read_schema(output)


@settings(max_examples=60, deadline=None)
@given(columns=st.lists(COLUMN, min_size=1, max_size=4), count=st.integers(0, 40))
def test_the_outcome_is_that_of_text_first(columns: list[tuple[list[Any], list[Any], int]], count: int) -> None:
    """Values and types, wherever in the result a column begins to have others."""
    made = [(first * 40)[:change] + later * 40 for first, later, change in columns]
    names = [f"c{at}" for at in range(len(made))]
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(":memory:")) as session:
        session.execute(f"CREATE TABLE t ({', '.join(names)})")
        marks = ", ".join("?" * len(names))
        session.executemany(f"INSERT INTO t VALUES ({marks})", [[column[at] for column in made] for at in range(count)])  # noqa: S608
        (one := Path(folder, "one")).mkdir()
        (two := Path(folder, "two")).mkdir()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(batches, "_TAKEN_ROWS", 3)
            patched.setattr(batches, "_MOST_ROWS", 3)
            assert _typed_first(session, one) == _text_first(session, two)


def test_numbers_that_become_floats_do_not_make_the_query_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do columns that begin without values."""
    monkeypatch.delattr(querying, "_stage_as_text")
    with closing(sqlite3.connect(":memory:")) as session:
        session.execute("CREATE TABLE t (a, b, c)")
        session.executemany(
            "INSERT INTO t VALUES (?, ?, ?)", [(at, None, "x") for at in range(5_000)] + [(0.5, "y", None)]
        )
        querying.stage_rows(session, "SELECT * FROM t", tmp_path / "staged", lambda _: None)
    table = pq.read_table(tmp_path / "staged")
    assert table.schema.types == [pa.float64(), pa.string(), pa.string()]
    assert table.slice(4_999).to_pylist() == [{"a": 4_999.0, "b": None, "c": "x"}, {"a": 0.5, "b": "y", "c": None}]


def test_batches_follow_the_size_of_the_rows() -> None:
    """Rows of 200 kB come some at a time, behind small ones too; small ones come by the thousand."""
    with closing(sqlite3.connect(":memory:")) as session:
        query = "WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
        query += " SELECT i, zeroblob(CASE WHEN i > 1500 THEN ? ELSE 1 END) FROM n"
        large = [sum(map(len, columns[1])) for columns in batches.batches_of(session.execute(query, [200_000]))]
        assert (sum(large), max(large) < 12 * 1024**2) == (500 * 200_000 + 1_500, True)
        assert len(list(batches.batches_of(session.execute(query, [1])))) < 5
