"""The tables of reports are those that pandas computes."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.errors import TaskFailure
from tests.support.datasets import sales, sources, table
from worker.report.data.sources import opened

REVENUE = {"revenue": {"function": "sum", "column": "weight"}, "orders": {"function": "count"}}


def test_groups_are_summed_ordered_and_totalled(tmp_path: Path) -> None:
    """Totals are over all groups, also those that the limit cuts off."""
    frame = sales()
    columns = [{"column": "category"}, {"column": "revenue", "total": "sum"}, {"column": "orders", "total": "mean"}]
    found, rows = table(
        tmp_path,
        frame,
        group_by=["category"],
        measures=REVENUE,
        columns=columns,
        sort=[{"column": "revenue", "order": "desc"}],
        limit=2,
    )
    grouped = frame.groupby("category", dropna=False).agg(revenue=("weight", "sum"), orders=("count", "size"))
    expected = grouped.sort_values("revenue", ascending=False)
    assert [row[0] for row in rows] == expected.index.tolist()[:2]
    assert [row[1] for row in rows] == pytest.approx(expected["revenue"].tolist()[:2])
    assert [row[2] for row in rows] == expected["orders"].tolist()[:2]
    assert found.row_count == len(expected)
    assert found.totals is not None
    assert found.totals[0] is None
    assert found.totals[1:] == pytest.approx((expected["revenue"].sum(), expected["orders"].mean()))


def test_plain_rows_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Without a sort the first rows are the first rows; streaming gives all of them."""
    frame = sales()
    found, rows = table(tmp_path, frame, columns=[{"column": "count"}], limit=4_500)
    assert [row[0] for row in rows] == frame["count"].tolist()[:4_500]
    assert found.row_count == len(frame)
    assert found.shown_count == 4_500


def test_without_columns_all_are_shown_up_to_fifty(tmp_path: Path) -> None:
    """Columns beyond the fiftieth are counted in the note."""
    found, rows = table(tmp_path, pd.DataFrame({f"c{n}": [n] for n in range(60)}))
    assert [heading.label for heading in found.headings] == [f"c{n}" for n in range(50)]
    assert rows == [tuple(range(50))]
    assert found.note == "10 more columns are not shown."


def test_a_table_over_all_rows(tmp_path: Path) -> None:
    """Measures without groups give one row, also of an empty dataset."""
    _, rows = table(tmp_path, sales(0), measures=REVENUE)
    assert rows == [(None, 0)]


def test_values_of_any_type_are_bounded(tmp_path: Path) -> None:
    """A huge text is cut, bytes are counted, lists become text, times that Python has not are missing."""
    frame = pd.DataFrame({"t": ["x" * 1_000_000], "b": [b"\x00\x01"], "l": [[1, 2]], "f": [np.inf]})
    _, [(text, size, items, infinite)] = table(tmp_path, frame)
    assert (len(text), size, items, infinite) == (32_000, "(2 bytes)", "[1, 2]", np.inf)


@pytest.mark.parametrize(
    ("block", "code", "named"),
    [
        ({"columns": [{"column": "nowhere"}]}, "unknown_column", "nowhere"),
        ({"sort": [{"column": "nowhere"}]}, "unknown_column", "nowhere"),
        ({"group_by": ["shop"], "measures": REVENUE, "sort": [{"column": "weight"}]}, "unknown_column", "weight"),
        ({"columns": [{"column": "shop", "total": "sum"}]}, "wrong_type", "shop"),
        ({"measures": {"m": {"function": "sum", "column": "shop"}}}, "wrong_type", "shop"),
        ({"group_by": ["shop"], "measures": {"SHOP": {"function": "count"}}}, "duplicate_column", "SHOP"),
    ],
)
def test_what_does_not_fit_names_table_and_column(tmp_path: Path, block: dict[str, Any], code: str, named: str) -> None:
    """The message says which table and which column."""
    with pytest.raises(TaskFailure) as refused:
        table(tmp_path, sales(20), **block)
    assert refused.value.code == code
    assert repr(named) in refused.value.message
    assert "'A table'" in refused.value.message


def test_only_the_datasets_can_be_read(tmp_path: Path) -> None:
    """The connection reads its files and nothing else, and its settings cannot be changed."""
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with sources(tmp_path, dataset=sales(5)) as made:
        for sql in (f"FROM read_csv('{secret}')", f"COPY (SELECT 1) TO '{secret}'"):
            with pytest.raises(TaskFailure, match="disabled by configuration"):
                made.rows(sql)
        with pytest.raises(TaskFailure, match="locked"):
            made.rows("SET enable_external_access = true")


def test_what_is_not_parquet_is_refused_by_name(tmp_path: Path) -> None:
    """The message names the dataset, not the path."""
    path = tmp_path / "file.parquet"
    path.write_text("no parquet")
    reading = opened({"stock": path}, scratch=tmp_path, memory_limit_bytes=64 * 1024**2, threads=1)
    with pytest.raises(TaskFailure) as refused, reading:
        pass
    assert refused.value.code == "unreadable_dataset"
    assert "'stock'" in refused.value.message
    assert str(tmp_path) not in refused.value.message


class Interrupted(Exception):
    """What a signal handler raises."""


def test_a_query_stops_when_told_to(tmp_path: Path) -> None:
    """An exception from a signal (the soft time limit) ends a long query, and comes out as what it is."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    endless = "SELECT count(*) FROM range(10000000) AS a, range(10000000) AS b WHERE a.range + b.range = 7"
    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    try:
        with sources(tmp_path, dataset=sales(5)) as made:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Interrupted):
                made.rows(endless)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 60
