"""SQLite: what only it has. Tables are read with types that their definition gives, as far as their values agree."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from shared.errors import TaskFailure, TransientFailure
from tests.support.engines import Engine, sqlite_at

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, declared: str, *values: Any, **options: Any) -> tuple[str, list[Any]]:
    """Return type and values of the one column of a SQLite table."""
    path = folder / "w.db"
    with closing(sqlite3.connect(path)) as session, session:
        session.execute("DROP TABLE IF EXISTS t")
        session.execute(f"CREATE TABLE t (x {declared})")
        session.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
    table = sqlite_at(path).read("t", **options)
    assert table.num_rows == len(values) or options
    return str(table.schema.field("x").type), table["x"].to_pylist()


@pytest.mark.parametrize(
    ("declared", "values", "found"),
    [
        ("INTEGER", [1, None, -(2**63)], ("int64", [1, None, -(2**63)])),
        ("BOOLEAN", [1, 0, None], ("bool", [True, False, None])),
        ("BOOLEAN", [1, 2], ("double", [1.0, 2.0])),
        ("REAL", [1, 0.5], ("double", [1.0, 0.5])),
        ("NUMERIC", [1, 2], ("double", [1.0, 2.0])),
        ("NUMERIC", [2**60], ("int64", [2**60])),
        ("NUMERIC", [2**60, 0.5], ("string", [str(2**60), "0.5"])),
        ("TEXT", ["007", None], ("string", ["007", None])),
        ("INTEGER", [1, "x"], ("string", ["1", "x"])),
        ("BLOB", [b"\0\xff", None], ("binary", [b"\0\xff", None])),
        ("DATE", ["2026-01-02", None], ("date32[day]", [date(2026, 1, 2), None])),
        ("DATE", ["2026-01-02", "soon"], ("string", ["2026-01-02", "soon"])),
        ("TIMESTAMP", ["2026-01-02T10:00:00.5"], ("timestamp[us]", [datetime(2026, 1, 2, 10, 0, 0, 500_000)])),  # noqa: DTZ001 - it has no zone
        (
            "TIMESTAMPTZ",
            ["2026-01-02 10:00:00.000001Z"],
            ("timestamp[us, tz=UTC]", [datetime(2026, 1, 2, 10, 0, 0, 1, tzinfo=UTC)]),
        ),
        ("", [b"x"], ("binary", [b"x"])),
    ],
)
def test_a_column_has_the_type_that_fits_all_of_its_values(
    declared: str, values: list[Any], found: tuple[str, list[Any]], tmp_path: Path
) -> None:
    """The declared type where the values are of it; else one that holds them all, and text at last."""
    assert read(tmp_path, declared, *values) == found


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ("INTEGER", "int64"),
        ("BOOLEAN", "bool"),
        ("DECIMAL(10, 2)", "double"),
        ("DATE", "date32[day]"),
        ("TIMESTAMP", "timestamp[us]"),
        ("TIMESTAMPTZ", "timestamp[us, tz=UTC]"),
        ("BLOB", "binary"),
        ("TEXT", "string"),
    ],
)
def test_a_column_without_a_value_has_its_declared_type(declared: str, found: str, tmp_path: Path) -> None:
    """So a later run with values finds the same type."""
    assert read(tmp_path, declared, None)[0] == found


def test_bytes_beside_other_values_are_refused(tmp_path: Path) -> None:
    """They would not come back as they were."""
    with pytest.raises(TaskFailure) as failure:
        read(tmp_path, "BLOB", b"x", "text")
    assert (failure.value.code, failure.value.details) == ("unsupported_type", {"column": "x"})


def test_a_condition_narrows_both_rows_and_types(tmp_path: Path) -> None:
    """What is left out has no say in the types; a text column that is asked for as a time becomes one."""
    kind, values = read(tmp_path, "TEXT", "never", "2026-01-02", condition="x >= '2' AND x < 'a'", temporal=["x"])
    assert (kind, values) == ("date32[day]", [date(2026, 1, 2)])


@pytest.fixture
def sqlite(tmp_path: Path) -> Engine:
    """Return a SQLite file with columns of several kinds."""
    engine = sqlite_at(tmp_path / "w.db", lock_timeout_s=0.1)
    engine.run(
        "CREATE TABLE sales (id TEXT, n INTEGER, r REAL, mixed, blob BLOB)",
        "INSERT INTO sales VALUES ('007', 1, 1e300, 'x', x'00ff'), ('8', NULL, 0.5, 2, NULL)",
    )
    return engine


def test_values_of_any_type_are_staged_as_text(sqlite: Engine) -> None:
    """Values of any type survive as text; columns of numbers alone are to become numbers, and bytes stay bytes."""
    rows, candidates = sqlite.stage(table="sales")
    assert rows == [
        {"id": "007", "n": "1", "r": "1e+300", "mixed": "x", "blob": b"\x00\xff"},
        {"id": "8", "n": None, "r": "0.5", "mixed": "2", "blob": None},
    ]
    assert candidates == {"id": "text", "n": "number", "r": "number", "mixed": "text"}
    with pytest.raises(TaskFailure) as failure:
        sqlite.stage(query="SELECT mixed AS x FROM sales UNION ALL SELECT blob FROM sales")
    assert (failure.value.code, failure.value.details) == ("unsupported_type", {"column": "x"})


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM sales",
        "SELECT 1; DELETE FROM sales",
        "WITH x AS (SELECT 1) DELETE FROM sales",
        "SELECT load_extension('x')",
    ],
)
def test_nothing_can_be_written(sqlite: Engine, query: str) -> None:
    """Only reading is authorized."""
    with pytest.raises(TaskFailure) as raised:
        sqlite.stage(query=query)
    assert raised.value.code in {"query_refused", "query_failed"}
    assert len(sqlite.stage(table="sales")[0]) == 2


def test_a_lock_of_another_is_transient(sqlite: Engine, tmp_path: Path) -> None:
    """Another's exclusive lock is waited for, then tried again later."""
    with closing(sqlite3.connect(tmp_path / "w.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientFailure) as raised:
            sqlite.stage(table="sales")
        other.rollback()
    assert raised.value.code == "database_unavailable"


def test_readers_go_on_and_writers_wait_with_a_bound(tmp_path: Path) -> None:
    """A file that a load made is in WAL mode. A second writer gives up after its bound, and can try again."""
    engine = sqlite_at(tmp_path / "w.db", lock_timeout_s=0.1)
    engine.load(pa.table({"id": [7]}), load_id="old")
    seen: list[object] = []

    def look(_done: int, _total: int | None) -> None:
        seen.append(engine.run("SELECT * FROM sales"))
        with pytest.raises(TransientFailure) as caught:
            engine.load(pa.table({"id": [1, 2, 3]}), load_id="another")
        assert caught.value.code == "database_busy"

    engine.load(pa.table({"id": [1, 2, 3]}), mode="replace", on_progress=look)
    assert seen
    assert all(rows == [(7,)] for rows in seen)
