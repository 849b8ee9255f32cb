"""Each step, against figures computed with pandas."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from shared.errors import TaskFailure
from tests.support.transforming import Outcome, records, run

if TYPE_CHECKING:
    from pathlib import Path

SALES = pd.DataFrame(
    {
        "id": [1, 2, 3, 4, 5, 6, 7, 8],
        "category": ["a", "b", "a", "c", "b", "a", None, "b"],
        "value": [1.5, 2.0, None, 4.0, 2.0, 0.5, 3.0, float("nan")],
        "count": pd.array([1, 2, 3, None, 5, 6, 7, 8], dtype="Int64"),
        "day": [dt.date(2026, 1, day) for day in (3, 1, 2, 2, 5, 9, 7, 1)],
    }
)


def after(folder: Path, *steps: dict[str, Any], frame: pd.DataFrame = SALES, **inputs: pd.DataFrame) -> Outcome:
    """Return the outcome of steps."""
    return run(folder, frame, {"steps": list(steps)}, inputs=inputs)


def sorted_by(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Return rows in an order in which missing values come last."""
    return sorted(rows, key=lambda row: [(row[name] is None, row[name]) for name in names])


def failure(folder: Path, *steps: dict[str, Any], frame: pd.DataFrame = SALES, **inputs: pd.DataFrame) -> TaskFailure:
    """Return the failure of steps."""
    with pytest.raises(TaskFailure) as failed:
        after(folder, *steps, frame=frame, **inputs)
    return failed.value


def test_the_mission(tmp_path: Path) -> None:
    """Drop missing, parse `date`, group by `category`, sum `value` and `count`: as pandas does it."""
    frame = pd.DataFrame(
        {
            "date": ["2026-01-01", "2026-01-02", None, "2026-02-03", "2026-02-04"],
            "category": ["a", "b", "a", "b", None],
            "value": [1.25, 2.5, 3.0, 4.75, 5.0],
            "count": [1, 2, 3, 4, 5],
        }
    )
    outcome = after(
        tmp_path,
        {"op": "drop_missing"},
        {"op": "cast", "columns": {"date": "date"}},
        {
            "op": "aggregate",
            "group_by": ["category"],
            "measures": {
                "value": {"function": "sum", "column": "value"},
                "count": {"function": "sum", "column": "count"},
            },
        },
        {"op": "sort", "by": [{"column": "category"}]},
        frame=frame,
    )
    clean = frame.dropna()
    pd.to_datetime(clean["date"])
    assert outcome.records == records(clean.groupby("category", as_index=False)[["value", "count"]].sum())
    assert [(c.name, c.type) for c in outcome.transformed.columns] == [
        ("category", "string"),
        ("value", "double"),
        ("count", "int64"),
    ]
    assert outcome.transformed.input_row_count == 5
    assert outcome.transformed.row_count == 2
    assert outcome.rejects is None


def test_select_keeps_columns_in_the_given_order(tmp_path: Path) -> None:
    """Columns come as they are named."""
    assert list(after(tmp_path, {"op": "select", "columns": ["value", "id"]}).rows) == ["value", "id"]


def test_rename_can_swap_names(tmp_path: Path) -> None:
    """Two columns may trade names in one step."""
    rows = after(tmp_path, {"op": "rename", "columns": {"id": "count", "count": "id"}}).rows
    assert rows["count"].tolist() == SALES["id"].tolist()


@pytest.mark.parametrize(("columns", "subset"), [(None, None), (["value"], ["value"])])
def test_drop_missing_counts_nan_as_missing(
    tmp_path: Path, columns: list[str] | None, subset: list[str] | None
) -> None:
    """Rows with null or not-a-number go, as with pandas."""
    step = {"op": "drop_missing"} | ({"columns": columns} if columns else {})
    assert after(tmp_path, step).rows["id"].tolist() == SALES.dropna(subset=subset)["id"].tolist()


def test_fill_missing_keeps_the_type_of_the_column(tmp_path: Path) -> None:
    """Values of each type fill gaps, NaN included; dates are ISO text."""
    frame = SALES.assign(day=SALES["day"].where(SALES["id"] > 1, None))
    fill = {"category": "none", "value": 0, "count": -1, "day": "2020-02-29"}
    outcome = after(tmp_path, {"op": "fill_missing", "columns": fill}, frame=frame)
    expected = frame.fillna({"category": "none", "value": 0.0, "count": -1, "day": dt.date(2020, 2, 29)})
    assert outcome.records == records(expected)
    types = {column.name: column.type for column in outcome.transformed.columns}
    assert (types["count"], types["value"], types["day"]) == ("int64", "double", "date32[day]")


@pytest.mark.parametrize(("column", "value"), [("count", 1.5), ("count", "x"), ("day", "soon"), ("category", True)])
def test_fill_missing_refuses_a_value_of_another_type(tmp_path: Path, column: str, value: object) -> None:
    """A number with decimals does not go into integers, a word not into dates."""
    failed = failure(tmp_path, {"op": "fill_missing", "columns": {column: value}})
    assert (failed.code, "steps[0] fill_missing" in failed.message) == ("wrong_type", True)


@pytest.mark.parametrize("keep", ["first", "last"])
def test_deduplicate_in_the_order_of_the_rows(tmp_path: Path, keep: Any) -> None:
    """Without an order, first and last are meant as the rows stand; missing values agree."""
    outcome = after(tmp_path, {"op": "deduplicate", "columns": ["category"], "keep": keep})
    assert sorted(outcome.rows["id"]) == sorted(SALES.drop_duplicates("category", keep=keep)["id"])


@pytest.mark.parametrize("keep", ["first", "last"])
def test_deduplicate_by_an_order(tmp_path: Path, keep: Any) -> None:
    """The row that is first, or last, in the order stays."""
    order = [{"column": "day", "order": "desc"}, {"column": "id"}]
    step = {"op": "deduplicate", "columns": ["category"], "keep": keep, "order_by": order}
    ordered = SALES.sort_values(["day", "id"], ascending=[False, True]).drop_duplicates("category", keep=keep)
    assert sorted(after(tmp_path, step).rows["id"]) == sorted(ordered["id"])


def test_deduplicate_whole_rows(tmp_path: Path) -> None:
    """Rows that agree in everything become one."""
    outcome = after(tmp_path, {"op": "deduplicate"}, frame=pd.concat([SALES, SALES, SALES[:3]]))
    assert sorted_by(outcome.records, "id") == records(SALES)


CUSTOMERS = pd.DataFrame({"code": ["a", "a", "c", "d", None], "id": [10, 11, 12, 13, 14], "city": list("PQRST")})


@pytest.mark.parametrize(
    ("how", "merge"), [("inner", "inner"), ("left", "left"), ("right", "right"), ("full", "outer")]
)
def test_join_adds_columns(tmp_path: Path, how: str, merge: Any) -> None:
    """Rows are those that pandas gives (where missing keys match nothing), the key comes once, a clash has a suffix."""
    step = {"op": "join", "input": "customers", "how": how, "on": {"category": "code"}}
    outcome = after(tmp_path, {"op": "select", "columns": ["id", "category"]}, step, customers=CUSTOMERS)
    left = SALES[["id", "category"]].assign(key=SALES["category"].fillna("left missing"))
    right = CUSTOMERS.assign(key=CUSTOMERS["code"].fillna("right missing"))
    expected = left.merge(right, how=merge, on="key", suffixes=("", "_right"))
    expected["category"] = expected["category"].fillna(expected["code"])
    expected = expected[["id", "category", "id_right", "city"]]
    assert list(outcome.rows) == ["id", "category", "id_right", "city"]
    assert sorted_by(outcome.records, "id", "id_right") == sorted_by(records(expected), "id", "id_right")


@pytest.mark.parametrize(("how", "matched"), [("semi", True), ("anti", False)])
def test_join_can_only_choose_rows(tmp_path: Path, how: str, *, matched: bool) -> None:
    """`semi` keeps the left rows with a match once, `anti` those without; no column is added."""
    outcome = after(
        tmp_path, {"op": "join", "input": "customers", "how": how, "on": {"category": "code"}}, customers=CUSTOMERS
    )
    has_match = SALES["category"].isin(CUSTOMERS["code"].dropna())
    assert sorted(outcome.rows["id"]) == sorted(SALES["id"][has_match == matched])
    assert list(outcome.rows) == list(SALES)


def test_join_refuses_keys_that_cannot_be_equal(tmp_path: Path) -> None:
    """A number is not compared with text, which DuckDB would try and fail half-way."""
    failed = failure(tmp_path, {"op": "join", "input": "other", "on": {"id": "code"}}, other=CUSTOMERS)
    assert (failed.code, "'id' (integer) and 'code' (string)" in failed.message) == ("wrong_type", True)


def test_join_names_the_columns_of_the_second_dataset(tmp_path: Path) -> None:
    """A key that the second dataset has not is looked up among its columns."""
    failed = failure(tmp_path, {"op": "join", "input": "other", "on": {"category": "cod"}}, other=CUSTOMERS)
    assert (failed.code, failed.remedy) == ("unknown_column", "Did you mean 'code'?")


def test_aggregate_computes_each_measure(tmp_path: Path) -> None:
    """All functions agree with pandas; missing values are left out and missing keys are a group."""
    measures: dict[str, Any] = {
        name: {"function": name, "column": "value"}
        for name in ("sum", "mean", "min", "max", "median", "stddev", "count", "count_distinct")
    }
    measures["rows"] = {"function": "count"}
    measures["p90"] = {"function": "quantile", "column": "value", "quantile": 0.9}
    measures["earliest"] = {"function": "first", "column": "value", "order_by": [{"column": "day"}]}
    measures["latest"] = {"function": "last", "column": "value", "order_by": [{"column": "day"}]}
    outcome = after(tmp_path, {"op": "aggregate", "group_by": ["category"], "measures": measures})
    rows = {row["category"]: row for row in outcome.records}
    assert set(rows) == {"a", "b", "c", None}
    for category, group in SALES.sort_values("day").groupby("category", dropna=False):
        values, row = group["value"].dropna(), rows[category if isinstance(category, str) else None]
        expected = {
            "sum": values.sum(), "mean": values.mean(), "min": values.min(), "max": values.max(),
            "median": values.median(), "count": len(values), "count_distinct": values.nunique(),
            "rows": len(group), "p90": values.quantile(0.9), "earliest": values.iloc[0], "latest": values.iloc[-1],
        }  # fmt: skip
        assert {name: row[name] for name in expected} == pytest.approx(expected)
        deviation = values.std()
        assert row["stddev"] == (None if math.isnan(deviation) else pytest.approx(deviation))


def test_aggregate_without_groups_gives_one_row(tmp_path: Path) -> None:
    """No rows at all still give one row: counts are 0, the rest is missing."""
    step = {
        "op": "aggregate",
        "group_by": [],
        "measures": {"n": {"function": "count"}, "s": {"function": "sum", "column": "id"}},
    }
    assert after(tmp_path, step, frame=SALES[:0]).records == [{"n": 0, "s": None}]


def test_sums_of_integers_stay_exact(tmp_path: Path) -> None:
    """DuckDB adds in 128 bits, which Parquet has not; a sum beyond 2**53 is not rounded."""
    frame = pd.DataFrame({"n": [2**60, 1, 1]})
    step = {"op": "aggregate", "group_by": [], "measures": {"n": {"function": "sum", "column": "n"}}}
    assert after(tmp_path, step, frame=frame).records == [{"n": 2**60 + 2}]


def test_a_sum_that_does_not_fit_fails(tmp_path: Path) -> None:
    """A sum beyond 64 bits is a failure, not a wrong number."""
    frame = pd.DataFrame({"n": [2**62] * 3})
    step = {"op": "aggregate", "group_by": [], "measures": {"n": {"function": "sum", "column": "n"}}}
    assert failure(tmp_path, step, frame=frame).code == "value_out_of_range"


def test_sort_places_missing_values(tmp_path: Path) -> None:
    """Each key has its direction and its place for missing values."""
    outcome = after(
        tmp_path,
        {"op": "sort", "by": [{"column": "category", "order": "desc", "missing": "first"}, {"column": "count"}]},
    )
    assert outcome.rows["id"].tolist() == [7, 4, 2, 5, 8, 1, 3, 6]


def test_limit_keeps_the_order(tmp_path: Path) -> None:
    """Offset and count cut rows out of the order."""
    backwards = {"op": "sort", "by": [{"column": "id", "order": "desc"}]}
    assert after(tmp_path, backwards, {"op": "limit", "count": 3, "offset": 2}).rows["id"].tolist() == [6, 5, 4]


def test_window_functions(tmp_path: Path) -> None:
    """Ranks, neighbours, cumulative and moving figures agree with pandas."""
    names = {
        "row": {"function": "row_number"},
        "rank": {"function": "rank"},
        "dense": {"function": "dense_rank"},
        "before": {"function": "lag", "column": "n"},
        "after": {"function": "lead", "column": "n", "offset": 2},
        "running": {"function": "cumulative_sum", "column": "n"},
        "so_far": {"function": "cumulative_max", "column": "n"},
        "moving": {"function": "moving_mean", "column": "n", "rows": 3},
        "lowest": {"function": "moving_min", "column": "n", "rows": 2},
    }
    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {"g": random.integers(0, 4, 200), "t": random.permutation(200), "n": random.integers(0, 50, 200)}
    )
    step = {"op": "window", "partition_by": ["g"], "order_by": [{"column": "t"}], "columns": names}
    outcome = after(tmp_path, step, {"op": "sort", "by": [{"column": "t"}]}, frame=frame)
    expected = frame.sort_values("t").reset_index(drop=True)
    groups = expected.groupby("g")["n"]
    expected["row"] = groups.cumcount() + 1
    expected["rank"] = expected["dense"] = expected["row"]  # `t` has no ties
    expected["before"], expected["after"] = groups.shift(1), groups.shift(-2)
    expected["running"], expected["so_far"] = groups.cumsum(), groups.cummax()
    expected["moving"] = groups.transform(lambda n: n.rolling(3, min_periods=1).mean())
    expected["lowest"] = groups.transform(lambda n: n.rolling(2, min_periods=1).min())
    assert list(outcome.rows) == list(expected)
    pd.testing.assert_frame_equal(outcome.rows, expected, check_dtype=False)


def test_ranks_of_ties(tmp_path: Path) -> None:
    """Equal rows share a rank; `rank` then leaves a gap, `dense_rank` does not."""
    step = {
        "op": "window",
        "order_by": [{"column": "n"}],
        "columns": {"rank": {"function": "rank"}, "dense": {"function": "dense_rank"}},
    }
    frame = pd.DataFrame({"n": [5, 5, 7]})
    rows = after(tmp_path, step, {"op": "sort", "by": [{"column": "n"}]}, frame=frame).rows
    assert (rows["rank"].tolist(), rows["dense"].tolist()) == ([1, 1, 3], [1, 1, 2])


@pytest.mark.parametrize(
    "step",
    [
        {"op": "select", "columns": ["id", "valeu"]},
        {"op": "rename", "columns": {"valeu": "v"}},
        {"op": "cast", "columns": {"valeu": "integer"}},
        {"op": "filter", "where": {"op": "is_missing", "value": {"op": "column", "name": "valeu"}}},
        {"op": "drop_missing", "columns": ["valeu"]},
        {"op": "fill_missing", "columns": {"valeu": 1}},
        {"op": "deduplicate", "columns": ["valeu"]},
        {"op": "deduplicate", "columns": ["id"], "order_by": [{"column": "valeu"}]},
        {"op": "derive", "columns": {"x": {"op": "abs", "value": {"op": "column", "name": "valeu"}}}},
        {"op": "join", "input": "other", "on": {"valeu": "code"}},
        {"op": "aggregate", "group_by": ["valeu"], "measures": {"n": {"function": "count"}}},
        {"op": "aggregate", "group_by": [], "measures": {"n": {"function": "sum", "column": "valeu"}}},
        {"op": "sort", "by": [{"column": "valeu"}]},
        {"op": "window", "order_by": [{"column": "valeu"}], "columns": {"r": {"function": "rank"}}},
        {
            "op": "window",
            "order_by": [{"column": "id"}],
            "columns": {"r": {"function": "cumulative_sum", "column": "valeu"}},
        },
    ],
    ids=lambda step: step["op"],
)
def test_an_unknown_column_is_named_with_the_nearest(tmp_path: Path, step: dict[str, Any]) -> None:
    """Every step that names a column refuses one that is not there, before any row is read."""
    failed = failure(tmp_path, {"op": "limit", "count": 3}, step, other=CUSTOMERS)
    assert failed.code == "unknown_column"
    assert f"steps[1] {step['op']}: there is no column 'valeu'; the columns are 'id', 'category'" in failed.message
    assert failed.remedy == "Did you mean 'value'?"
    assert not (tmp_path / "output.parquet").exists()


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ({"op": "rename", "columns": {"id": "value"}}, "value"),
        ({"op": "derive", "columns": {"ID": {"op": "literal", "value": 1}}}, "ID"),
        ({"op": "aggregate", "group_by": ["id"], "measures": {"id": {"function": "count"}}}, "id"),
        ({"op": "window", "order_by": [{"column": "id"}], "columns": {"Day": {"function": "rank"}}}, "Day"),
        ({"op": "join", "input": "other", "on": {"category": "code"}, "suffix": "_x"}, "id_x"),
    ],
)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, step: dict[str, Any], name: str) -> None:
    """Names differ by more than case, as SQL reads them."""
    failed = failure(tmp_path, step, other=CUSTOMERS.assign(id_x=1))
    assert (failed.code, failed.details["column"]) == ("duplicate_column", name)


@pytest.mark.parametrize("function", ["sum", "mean", "median", "stddev"])
def test_numbers_are_computed_from_numbers(tmp_path: Path, function: str) -> None:
    """Text is not added up; DuckDB would convert it half-way and fail at a row."""
    step = {"op": "aggregate", "group_by": [], "measures": {"x": {"function": function, "column": "category"}}}
    assert failure(tmp_path, step).code == "wrong_type"


def test_a_hundred_steps_compile(tmp_path: Path) -> None:
    """The longest list of steps runs."""
    add = {"op": "add", "left": {"op": "column", "name": "id"}, "right": {"op": "literal", "value": 1}}
    outcome = after(tmp_path, *[{"op": "derive", "columns": {"id": add}}] * 100)
    assert outcome.rows["id"].tolist() == [value + 100 for value in SALES["id"]]
