"""The figures of charts are those that pandas and NumPy compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.errors import TaskFailure
from tests.support.datasets import figure, sales
from worker.pages.content.shapes import Bars, Bins, Boxes, Grid, Lines, Points

SUM = {"function": "sum", "column": "value"}


def finite(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(value=frame["value"].replace(np.inf, np.nan))


def test_a_bar_is_the_sum_of_its_category(tmp_path: Path) -> None:
    """Bars are ordered by value; missing categories have a bar of their own; infinite values are left out."""
    frame = sales()
    drawn = figure(tmp_path, frame, kind="bar", x="category", y={"revenue": SUM})
    expected = finite(frame).groupby("category", dropna=False)["value"].sum().sort_values(ascending=False)
    assert isinstance(drawn.shape, Bars)
    names = ["(missing)" if pd.isna(name) else name for name in expected.index]
    assert names == drawn.shape.categories
    assert drawn.shape.series[0].numbers == pytest.approx(expected.tolist())
    assert drawn.row_count == len(frame)


def test_bars_split_and_cut_off_say_so(tmp_path: Path) -> None:
    """With split_by there is a series a value; categories beyond the limit are counted in the note."""
    frame = sales()
    drawn = figure(tmp_path, frame, kind="bar", x="category", y={"n": {"function": "count"}}, split_by="shop", limit=2)
    assert isinstance(drawn.shape, Bars)
    assert drawn.shape.categories == ["tools", "toys"]
    expected = frame.groupby(["shop", "category"]).size()
    found = {
        (series.name, category): value
        for series in drawn.shape.series
        for category, value in zip(drawn.shape.categories, series.numbers, strict=True)
    }
    assert found == {key: count for key, count in expected.items() if key[1] != "garden"}  # type: ignore[index]
    assert "2 of 3 values of category" in drawn.note


def test_a_line_by_month_is_a_sum_a_month(tmp_path: Path) -> None:
    """Times are cut off to the unit before rows are aggregated."""
    frame = sales()
    drawn = figure(tmp_path, frame, kind="line", x="at", x_unit="month", y={"mean": {**SUM, "function": "mean"}})
    expected = finite(frame).groupby(frame["at"].dt.to_period("M"))["value"].mean()
    assert isinstance(drawn.shape, Lines)
    assert [f"{at:%Y-%m}" for at in drawn.shape.x] == [str(month) for month in expected.index]
    assert drawn.shape.series[0].numbers == pytest.approx(expected.tolist())
    assert drawn.note.endswith("the last month has rows only until 1 Mar 2026.")


def test_a_line_of_many_points_is_cut_into_intervals_and_says_so(tmp_path: Path) -> None:
    """More than 1,000 different x become 400 equal intervals; no row is lost, whatever the times."""
    frame = sales()
    drawn = figure(tmp_path, frame, kind="line", x="at", y={"rows": {"function": "count"}})
    seconds = (frame["at"] - frame["at"].min()).dt.total_seconds()
    expected, _ = np.histogram(seconds, bins=400)
    assert isinstance(drawn.shape, Lines)
    assert drawn.shape.series[0].numbers == expected.tolist()
    assert pd.Timestamp(str(drawn.shape.x[0])) == frame["at"].min()
    assert "5,000 different values of at" in drawn.note
    assert "400 equal intervals" in drawn.note


def test_a_histogram_counts_what_numpy_counts(tmp_path: Path) -> None:
    """Intervals have equal width; missing and infinite values are left out and counted."""
    frame = sales()
    values = finite(frame)["value"].dropna()
    counts, edges = np.histogram(values, bins=25)
    drawn = figure(tmp_path, frame, kind="histogram", x="value", bins=25)
    assert isinstance(drawn.shape, Bins)
    assert drawn.shape.counts == counts.tolist()
    assert drawn.shape.edges == pytest.approx(edges.tolist())
    assert drawn.left_out_count == len(frame) - len(values)


@pytest.mark.parametrize(
    ("values", "counts"), [([], []), ([3.0], [1]), ([3.0, 3.0], [2]), ([-1.7e308, 0.0, 1.7e308], [1, 1, 1])]
)
def test_a_histogram_of_hardly_anything(tmp_path: Path, values: list[float], counts: list[int]) -> None:
    """No row, one row, equal rows, and rows over the whole range of a float all have a histogram."""
    frame = pd.DataFrame({"v": pd.Series(values, dtype="float64")})
    drawn = figure(tmp_path, frame, kind="histogram", x="v", bins=3)
    assert isinstance(drawn.shape, Bins)
    assert counts == drawn.shape.counts


def test_a_scatter_samples_evenly_and_the_same_way_each_time(tmp_path: Path) -> None:
    """Of many rows 1,500 are drawn: each one of the data, from all over the file, and the page says so."""
    frame = sales().assign(number=np.arange(5_000, dtype=float))
    drawn = figure(tmp_path, frame, kind="scatter", x="number", y="weight")
    again = figure(tmp_path, frame, kind="scatter", x="number", y="weight")
    assert drawn == again
    assert isinstance(drawn.shape, Points)
    (cloud,) = drawn.shape.clouds
    assert len(cloud.x) == 1_500
    assert cloud.y == [float(frame["weight"][int(number)]) for number in cloud.x]  # type: ignore[arg-type]
    per_tenth, _ = np.histogram(np.array(cloud.x, dtype=float), bins=10, range=(0, 5_000))
    assert all(145 <= count <= 155 for count in per_tenth)
    assert "A sample of 1,500 of 5,000 rows" in drawn.note


def test_a_box_has_the_quartiles_of_pandas_and_the_whiskers_of_tukey(tmp_path: Path) -> None:
    """Whiskers end at the last value within 1.5 interquartile ranges; the rest is counted as outside."""
    frame = sales()
    drawn = figure(tmp_path, frame, kind="box", x="shop", y="value")
    assert isinstance(drawn.shape, Boxes)
    assert len(drawn.shape.boxes) == 3
    for box in drawn.shape.boxes:
        values = finite(frame)[frame["shop"] == box.name]["value"].dropna()
        q1, median, q3 = values.quantile([0.25, 0.5, 0.75])
        inside = values[values.between(q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1))]
        expected = [len(values), inside.min(), q1, median, q3, inside.max(), len(values) - len(inside)]
        found = [box.count, box.low, box.q1, box.median, box.q3, box.high, box.outlier_count]
        assert found == pytest.approx(expected)
        assert set(box.outliers) <= set(values) - set(inside)


def test_a_heat_map_has_a_cell_for_each_pair(tmp_path: Path) -> None:
    """Weekdays and hours are in their own order; a pair without rows has no value."""
    frame = sales(60)
    value = {"function": "max", "column": "weight"}
    drawn = figure(
        tmp_path, frame, kind="heat_map", x="at", x_unit="hour_of_day", y="at", y_unit="weekday", value=value
    )
    assert isinstance(drawn.shape, Grid)
    expected = frame.groupby([frame["at"].dt.strftime("%a"), frame["at"].dt.strftime("%H:00")])["weight"].max()
    found = {
        (day, hour): cell
        for day, line in zip(drawn.shape.y, drawn.shape.values, strict=True)
        for hour, cell in zip(drawn.shape.x, line, strict=True)
        if cell is not None
    }
    assert found == expected.to_dict()
    assert drawn.shape.x == sorted(drawn.shape.x)


def test_more_than_eight_series_are_cut_off_and_said(tmp_path: Path) -> None:
    """Colours that can be told apart are eight; the values with most rows get them."""
    frame = pd.DataFrame({"x": [0] * 78, "s": [f"s{n:02d}" for n in range(12) for _ in range(n + 1)]})
    drawn = figure(tmp_path, frame, kind="bar", x="x", y={"n": {"function": "count"}}, split_by="s")
    assert isinstance(drawn.shape, Bars)
    assert [series.name for series in drawn.shape.series] == [f"s{n:02d}" for n in range(4, 12)]
    assert "8 of 12 values of s" in drawn.note


@pytest.mark.parametrize(
    ("chart", "code"),
    [
        ({"kind": "bar", "x": "categori", "y": {"n": {"function": "count"}}}, "unknown_column"),
        ({"kind": "bar", "x": "category", "y": {"n": {**SUM, "column": "category"}}}, "wrong_type"),
        ({"kind": "line", "x": "category", "y": {"n": SUM}}, "wrong_type"),
        ({"kind": "heat_map", "x": "category", "y": "shop", "x_unit": "day"}, "wrong_type"),
        ({"kind": "scatter", "x": "value", "y": "shop"}, "wrong_type"),
        ({"kind": "bar", "x": "shop", "y": {"m": {**SUM, "function": "max", "column": "shop"}}}, "wrong_type"),
    ],
)
def test_what_does_not_fit_names_chart_and_column(tmp_path: Path, chart: dict[str, Any], code: str) -> None:
    """The message says which chart, which column, and which there are."""
    with pytest.raises(TaskFailure) as refused:
        figure(tmp_path, sales(20), **chart)
    assert refused.value.code == code
    assert "sections[0].blocks[0]" in refused.value.message
    assert "'A chart'" in refused.value.message
    assert refused.value.remedy
    if code == "unknown_column":
        assert "'category', 'shop'" in refused.value.message
        assert refused.value.remedy == "Did you mean 'category'?"


def test_columns_may_have_any_name_and_any_type(tmp_path: Path) -> None:
    """Names with quotes, dots and SQL, lists, bytes, NaN keys and times with a zone are all just data."""
    name = 'a"; DROP VIEW "dataset'
    frame = pd.DataFrame(
        {
            name: [1.0, 2.0, np.nan],
            "k": [[1], [1], [2]],
            "c0": ["x", "y", "y"],
            "at": pd.date_range("2026-03-29", periods=3, freq="h", tz="Europe/Berlin"),
        }
    )
    drawn = figure(tmp_path, frame, kind="bar", x="k", y={"v": {"function": "sum", "column": name}})
    assert isinstance(drawn.shape, Bars)
    assert dict(zip(drawn.shape.categories, drawn.shape.series[0].numbers, strict=True)) == {"[1]": 3.0, "[2]": None}
    by_float = figure(tmp_path, frame, kind="bar", x=name, y={"n": {"function": "count"}}, split_by="c0")
    assert isinstance(by_float.shape, Bars)
    assert by_float.shape.categories == ["1.0", "2.0", "(missing)"]
    line = figure(tmp_path, frame, kind="line", x="at", y={"n": {"function": "count"}})
    assert isinstance(line.shape, Lines)
    assert [str(at) for at in line.shape.x] == ["2026-03-28 23:00:00", "2026-03-29 00:00:00", "2026-03-29 01:00:00"]


@pytest.mark.parametrize(("days", "points"), [(900, 900), (1_200, 400)])
def test_dates_are_positions(tmp_path: Path, days: int, points: int) -> None:
    """Plain dates make a line, also where there are too many to draw, and they are put into intervals."""
    frame = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=days).date, "n": 1})
    drawn = figure(tmp_path, frame, kind="line", x="day", y={"n": {"function": "sum", "column": "n"}})
    assert isinstance(drawn.shape, Lines)
    assert len(drawn.shape.x) == points
    assert sum(number or 0 for number in drawn.shape.series[0].numbers) == days
    assert str(drawn.shape.x[0]).startswith("2020-01-01")
