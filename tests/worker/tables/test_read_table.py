"""Tables are read with types that their definition gives, as far as their values agree."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from shared.errors import TaskFailure
from worker.reach.connections import SqliteConnection
from worker.tables.read_table import read_table

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, declared: str, *values: Any, **options: Any) -> tuple[str, list[Any]]:
    """Return type and values of the one column of a SQLite table."""
    path, output = folder / "w.db", folder / "output.parquet"
    with closing(sqlite3.connect(path)) as session, session:
        session.execute("DROP TABLE IF EXISTS t")
        session.execute(f"CREATE TABLE t (x {declared})")
        session.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
    connection = SqliteConnection("warehouse", path)
    count = read_table(
        connection, "t", output, scratch=folder, memory_limit_bytes=2**26, on_rows=lambda _: None, **options
    )
    table = pq.read_table(output)
    assert count == table.num_rows
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


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The database's own words say which."""
    sqlite3.connect(tmp_path / "w.db").close()
    connection = SqliteConnection("warehouse", tmp_path / "w.db")
    with pytest.raises(TaskFailure, match="no such table: nowhere"):
        read_table(
            connection,
            "nowhere",
            tmp_path / "o.parquet",
            scratch=tmp_path,
            memory_limit_bytes=2**26,
            on_rows=lambda _: None,
        )
