"""A column without any value fits every step: a day without amounts is summed, filtered, filled and combined."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.jobs.etl import TransformSpec
from worker.etl.transform import transform

if TYPE_CHECKING:
    from collections.abc import Sequence

TYPED = pa.table({"id": [1, 2], "amount": [10.5, 20.25], "note": ["a", "b"]})
TYPELESS = pa.table({"id": [3, 4], "amount": pa.nulls(2), "note": ["c", None]})
NO_ROWS = pa.table({name: pa.nulls(0) for name in ("id", "amount", "note")})
AMOUNT = {"op": "column", "name": "amount"}


def run(folder: Path, tables: Sequence[pa.Table], spec: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    paths = [folder / f"{index}.parquet" for index in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table, path)
    (folder / "scratch").mkdir()
    transform(
        TransformSpec.model_validate(spec) if spec else None, paths, inputs={}, output=folder / "out.parquet",
        rejects=folder / "rejects.parquet", memory_limit_bytes=128 * 1024**2, threads=1, scratch=folder / "scratch",
        on_progress=lambda *_: None,
    )  # fmt: skip
    rows: list[dict[str, Any]] = pq.read_table(folder / "out.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_days_are_combined_in_any_order(tmp_path: Path, order: list[int]) -> None:
    """The type is that of the days that have one."""
    rows = run(tmp_path, [(TYPED, TYPELESS, NO_ROWS)[at] for at in order])
    assert sorted((row["id"], row["amount"], row["note"] or "") for row in rows if row["id"] < 3) == [
        (1, 10.5, "a"), (2, 20.25, "b"),
    ]  # fmt: skip
    assert [row["amount"] for row in rows if row["id"] > 2] == [None, None]


@pytest.mark.parametrize("table", [TYPELESS, NO_ROWS])
@pytest.mark.parametrize(
    "step",
    [
        {"op": "aggregate", "group_by": [], "measures": {"x": {"function": "sum", "column": "amount"}}},
        {"op": "aggregate", "group_by": ["note"], "measures": {"x": {"function": "mean", "column": "amount"}}},
        {"op": "filter", "where": {"op": "gt", "left": AMOUNT, "right": {"op": "literal", "value": 5}}},
        {"op": "filter", "where": {"op": "starts_with", "value": AMOUNT, "text": {"op": "literal", "value": "x"}}},
        {"op": "derive", "columns": {"x": {"op": "add", "left": AMOUNT, "right": {"op": "literal", "value": 1}}}},
        {"op": "derive", "columns": {"x": {"op": "date_part", "part": "year", "value": AMOUNT}}},
        {"op": "cast", "columns": {"amount": "float", "id": "string"}},
        {"op": "cast", "columns": {"amount": {"type": "date", "format": "%d.%m.%Y"}}},
        {"op": "sort", "by": [{"column": "amount"}]},
        {"op": "deduplicate", "columns": ["amount"]},
    ],
)
def test_every_step_takes_it(tmp_path: Path, table: pa.Table, step: dict[str, Any]) -> None:
    """What is computed of nothing is missing."""
    for row in run(tmp_path, [table], {"steps": [step]}):
        assert row.get("x") is None
        assert row.get("amount") is None


def test_it_is_filled_with_any_value(tmp_path: Path) -> None:
    """The column then has the type of the value."""
    rows = run(tmp_path, [TYPELESS], {"steps": [{"op": "fill_missing", "columns": {"amount": 1.5, "note": "-"}}]})
    assert [(row["amount"], row["note"]) for row in rows] == [(1.5, "c"), (1.5, "-")]
