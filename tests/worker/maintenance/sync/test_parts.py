"""Staged rows are cut into parts that never split a watermark, and watermarks are asked for without loss."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.jobs.syncs import ByWatermark
from worker.maintenance.sync.copied import Copied
from worker.maintenance.sync.parts import parts_of
from worker.maintenance.sync.watermark import Watermark, kind_of, watermark_in
from worker.tables.databases.postgresql.dialect import PostgresqlDialect
from worker.tables.databases.sqlite.dialect import SqliteDialect

if TYPE_CHECKING:
    from pathlib import Path


def cut(folder: Path, values: list[Any], rows: int, by: str | None = "at") -> list[tuple[list[Any], Any]]:
    """Return the parts' values and last values."""
    staged = folder / "staged.parquet"
    pq.write_table(pa.table({"at": pa.array(values, pa.int64())}), staged, row_group_size=3)
    return [
        (pq.read_table(part)["at"].to_pylist(), last.as_py() if last is not None else None)
        for part, last in parts_of(staged, folder, rows, by, Copied({"at": "at"}, ("at",)))
    ]


def test_rows_that_share_a_watermark_stay_together(tmp_path: Path) -> None:
    """A part goes on beyond its size while the value repeats, also across row groups."""
    assert cut(tmp_path, [1, 2, 2, 2, 2, 3, 4], 2) == [([1, 2, 2, 2, 2], 2), ([3, 4], 4)]


def test_missing_watermarks_may_be_parted(tmp_path: Path) -> None:
    """They come first, and say nothing of what has been copied."""
    assert cut(tmp_path, [None, None, None, 1], 2) == [([None, None], None), ([None, 1], 1)]


def test_without_a_watermark_parts_are_of_equal_size(tmp_path: Path) -> None:
    """Equal values are parted then; no row is lost, and an empty file has no part."""
    assert cut(tmp_path, [1, 1, 1, 1, 1], 2, None) == [([1, 1], None), ([1, 1], None), ([1], None)]
    assert cut(tmp_path, [], 2) == []


@pytest.mark.parametrize(
    ("array", "text", "sql", "sqlite"),
    [
        (pa.array([7]), "7", "7", "7"),
        (pa.array([Decimal("1.50")]), "1.50", "1.50", "1.50"),
        (pa.array([0.1]), "0.1", "0.1", "0.1"),
        (pa.array([date(2026, 1, 2)]), "2026-01-02", "DATE '2026-01-02'", "'2026-01-02'"),
        (
            pa.array([1_767_348_000_000_001_999], pa.timestamp("ns")),
            "2026-01-02T10:00:00.000001",
            "TIMESTAMP '2026-01-02 10:00:00.000001'",
            "'2026-01-02 10:00:00.000001'",
        ),
        (
            pa.array([datetime(2026, 1, 2, 10, 30, tzinfo=UTC)]),
            "2026-01-02T10:30:00+00:00",
            "TIMESTAMPTZ '2026-01-02 10:30:00+00:00'",
            "'2026-01-02 10:30'",
        ),
        (pa.array([0], pa.timestamp("s")), "1970-01-01T00:00:00", "TIMESTAMP '1970-01-01 00:00:00'", "'1970-01-01'"),
    ],
)
def test_a_watermark_keeps_its_value(array: pa.Array, text: str, sql: str, sqlite: str) -> None:
    """As text and back it is the same; SQLite gets the shortest spelling, which no longer one is below."""
    found = watermark_in(kind_of("at", array.type), array[0])
    assert found is not None
    assert found.text() == text
    assert PostgresqlDialect().at_least("at", found.value) == f'"at" >= {sql}'
    assert SqliteDialect().at_least("at", found.value) == f'"at" >= {sqlite}'
    assert Watermark.parse(found.kind, text) == found


@pytest.mark.parametrize(
    "array", [pa.array([float("inf")]), pa.array([2**63 - 1], pa.timestamp("us")), pa.array([None], pa.int64())]
)
def test_infinite_and_missing_values_are_not_watermarks(array: pa.Array) -> None:
    """Else nothing would ever be above them."""
    assert watermark_in(kind_of("at", array.type), array[0]) is None


def test_an_overlap_goes_back_in_the_unit_of_the_column() -> None:
    """Days for a date, rounded up; seconds for a time; a number for a number."""
    hour = ByWatermark(kind="watermark", column="at", overlap_s=3_600)
    assert Watermark("date", date(2026, 1, 2)).before(hour).value == date(2026, 1, 1)
    assert Watermark("timestamp", datetime(2026, 1, 2)).before(hour).value == datetime(2026, 1, 1, 23)  # noqa: DTZ001 - a column without a zone
    three = ByWatermark(kind="watermark", column="at", overlap_count=3)
    assert Watermark("integer", 10).before(three).value == 7
