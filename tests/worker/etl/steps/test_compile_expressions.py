"""Expressions of filter and derive: each operation, types that do not fit, and names and values that look like SQL."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import TaskFailure
from tests.support.transforming import run

NOON = dt.datetime(2026, 3, 4, 12, 30, 15)  # noqa: DTZ001 - a timestamp without zone, as most files have
FRAME = pd.DataFrame(
    {
        "n": [7, -3, None],
        "x": [2.5, float("nan"), -0.5],
        "t": [" Ab ", "äöü", None],
        "b": [True, False, None],
        "d": [dt.date(2026, 3, 4), dt.date(2024, 2, 29), None],
        "at": [NOON, NOON.replace(year=2025, hour=0), None],
    }
).astype({"n": "Int64", "b": "boolean"})


def col(name: str) -> dict[str, Any]:
    """Return a reference to a column."""
    return {"op": "column", "name": name}


def lit(value: object, /) -> dict[str, Any]:
    """Return a fixed value."""
    return {"op": "literal", "value": value}


TRUE = {"op": "literal", "value": True}


def derived(folder: Path, expression: dict[str, Any], frame: pd.DataFrame = FRAME) -> list[Any]:
    """Return the values that an expression gives for each row."""
    outcome = run(folder, frame, {"steps": [{"op": "derive", "columns": {"new": expression}}]})
    return [row["new"] for row in outcome.records]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lit(5), [5, 5, 5]),
        (lit(None), [None, None, None]),
        (col("n"), [7, -3, None]),
        ({"op": "gt", "left": col("n"), "right": lit(0)}, [True, False, None]),
        ({"op": "eq", "left": col("x"), "right": lit(2.5)}, [True, None, False]),
        ({"op": "ne", "left": col("t"), "right": lit("äöü")}, [True, False, None]),
        ({"op": "le", "left": col("d"), "right": lit("2024-02-29")}, [False, True, None]),
        ({"op": "lt", "left": lit("2025-06-01T00:00:00"), "right": col("at")}, [True, False, None]),
        ({"op": "ge", "left": col("at"), "right": col("d")}, [True, True, None]),
        ({"op": "between", "value": col("n"), "low": lit(-3), "high": lit(6.5)}, [False, True, None]),
        ({"op": "in", "value": col("d"), "options": ["2026-03-04", "2020-01-01"]}, [True, False, None]),
        ({"op": "in", "value": col("n"), "options": [7, 8]}, [True, False, None]),
        ({"op": "is_missing", "value": col("x")}, [False, True, False]),
        ({"op": "and", "conditions": [col("b"), TRUE]}, [True, False, None]),
        ({"op": "or", "conditions": [col("b"), lit(None), TRUE]}, [True, True, True]),
        ({"op": "not", "condition": col("b")}, [False, True, None]),
        ({"op": "contains", "value": col("t"), "text": lit("%")}, [False, False, None]),
        ({"op": "starts_with", "value": col("t"), "text": lit("ä")}, [False, True, None]),
        ({"op": "ends_with", "value": col("t"), "text": lit("b ")}, [True, False, None]),
        ({"op": "add", "left": col("n"), "right": lit(1)}, [8, -2, None]),
        ({"op": "subtract", "left": col("n"), "right": col("x")}, [4.5, None, None]),
        ({"op": "multiply", "left": col("n"), "right": lit(2)}, [14, -6, None]),
        ({"op": "divide", "left": col("n"), "right": lit(2)}, [3.5, -1.5, None]),
        ({"op": "divide", "left": col("n"), "right": lit(0)}, [None, None, None]),
        ({"op": "modulo", "left": col("n"), "right": lit(2)}, [1, -1, None]),
        ({"op": "modulo", "left": col("n"), "right": lit(0)}, [None, None, None]),
        ({"op": "multiply", "left": col("n"), "right": lit(2**62)}, [None, None, None]),
        ({"op": "abs", "value": col("n")}, [7, 3, None]),
        ({"op": "round", "value": col("x")}, [3.0, None, -1.0]),
        (
            {"op": "round", "value": {"op": "divide", "left": col("n"), "right": lit(3)}, "digits": 2},
            [2.33, -1.0, None],
        ),
        ({"op": "upper", "value": col("t")}, [" AB ", "ÄÖÜ", None]),
        ({"op": "lower", "value": col("t")}, [" ab ", "äöü", None]),
        ({"op": "trim", "value": col("t")}, ["Ab", "äöü", None]),
        ({"op": "length", "value": col("t")}, [4, 3, None]),
        ({"op": "substring", "value": col("t"), "start": 2, "length": 2}, ["Ab", "öü", None]),
        ({"op": "substring", "value": col("t"), "start": 3}, ["b ", "ü", None]),
        ({"op": "replace", "value": col("t"), "old": "ö", "new": "'"}, [" Ab ", "ä'ü", None]),
        ({"op": "concat", "values": [col("n"), lit("-"), col("d")]}, ["7-2026-03-04", "-3-2024-02-29", None]),
        ({"op": "coalesce", "values": [col("x"), col("n"), lit(0)]}, [2.5, -3.0, -0.5]),
        ({"op": "coalesce", "values": [{"op": "divide", "left": col("n"), "right": lit(0)}, lit(9)]}, [9.0, 9.0, 9.0]),
        ({"op": "date_part", "part": "year", "value": col("d")}, [2026, 2024, None]),
        ({"op": "date_part", "part": "weekday", "value": col("d")}, [3, 4, None]),
        ({"op": "date_part", "part": "week", "value": col("at")}, [10, 10, None]),
        ({"op": "date_part", "part": "minute", "value": col("at")}, [30, 30, None]),
        ({"op": "date_trunc", "unit": "month", "value": col("d")}, [dt.date(2026, 3, 1), dt.date(2024, 2, 1), None]),
        (
            {"op": "date_trunc", "unit": "hour", "value": col("at")},
            [pd.Timestamp(2026, 3, 4, 12), pd.Timestamp(2025, 3, 4), None],
        ),
        (
            {
                "op": "case",
                "branches": [
                    {"when": {"op": "gt", "left": col("n"), "right": lit(0)}, "then": lit("plus")},
                    {"when": {"op": "lt", "left": col("n"), "right": lit(0)}, "then": lit("minus")},
                ],
                "otherwise": lit("none"),
            },
            ["plus", "minus", "none"],
        ),
        ({"op": "case", "branches": [{"when": col("b"), "then": col("n")}]}, [7, None, None]),
    ],
    ids=lambda value: value.get("op") if isinstance(value, dict) else "",
)
def test_each_operation(tmp_path: Path, expression: dict[str, Any], expected: list[Any]) -> None:
    """An operation gives the documented value, and missing where it cannot be computed."""
    assert derived(tmp_path, expression) == expected


def test_all_columns_of_a_step_see_the_rows_before_it(tmp_path: Path) -> None:
    """Derived columns of one step do not see each other, and replace in place."""
    columns = {"n": col("x"), "x": col("n")}
    outcome = run(tmp_path, FRAME, {"steps": [{"op": "derive", "columns": columns}]})
    assert list(outcome.rows) == list(FRAME)
    assert [(row["n"], row["x"]) for row in outcome.records] == [(2.5, 7), (None, -3), (-0.5, None)]


def test_filter_drops_rows_where_the_condition_is_missing(tmp_path: Path) -> None:
    """A missing condition does not hold; one that cannot be computed neither."""
    overflow = {"op": "multiply", "left": {"op": "add", "left": col("n"), "right": lit(2**61)}, "right": col("n")}
    condition = {"op": "or", "conditions": [{"op": "lt", "left": col("n"), "right": lit(0)}, col("b")]}
    assert run(tmp_path / "a", FRAME, {"steps": [{"op": "filter", "where": condition}]}).rows["n"].tolist() == [7, -3]
    never = {"op": "filter", "where": {"op": "gt", "left": overflow, "right": lit(0)}}
    assert run(tmp_path / "b", FRAME, {"steps": [never]}).transformed.row_count == 0


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ({"op": "add", "left": col("n"), "right": lit("1")}, "'add' takes decimal or float or integer, not string"),
        ({"op": "eq", "left": col("t"), "right": lit(1)}, "'eq' cannot combine integer and string"),
        ({"op": "eq", "left": col("d"), "right": lit("yesterday")}, "'yesterday' is not a date"),
        ({"op": "in", "value": col("n"), "options": [1, "x"]}, "'in' cannot combine integer and string"),
        ({"op": "not", "condition": col("n")}, "'not' takes boolean, not integer"),
        ({"op": "upper", "value": col("n")}, "'upper' takes string, not integer"),
        ({"op": "coalesce", "values": [col("b"), col("t")]}, "cannot combine boolean and string"),
        ({"op": "date_part", "part": "hour", "value": col("d")}, "'date_part hour' takes time or timestamp, not date"),
        ({"op": "date_trunc", "unit": "day", "value": col("t")}, "not string"),
    ],
)
def test_types_are_checked_before_a_row_is_read(tmp_path: Path, expression: dict[str, Any], says: str) -> None:
    """What DuckDB would convert silently, or fail at in the middle, is refused with the place."""
    with pytest.raises(TaskFailure) as failed:
        derived(tmp_path, expression)
    assert (failed.value.code, "steps[0] derive" in failed.value.message) == ("wrong_type", True)
    assert says in failed.value.message


def test_a_filter_is_a_condition(tmp_path: Path) -> None:
    """A number is not a condition."""
    with pytest.raises(TaskFailure, match="takes boolean, not integer"):
        run(tmp_path, FRAME, {"steps": [{"op": "filter", "where": col("n")}]})


HOSTILE = [
    '"',
    'a"b',
    "'; DROP VIEW input; --",
    "select",
    "$1",
    "?",
    "a.b",
    "ünïcødé",
    "/* */",
    "*",
]
NAMES = st.sampled_from(HOSTILE) | st.text(
    st.characters(codec="utf-8").filter(str.isprintable), min_size=1, max_size=20
)


@settings(max_examples=12)
@given(
    name=NAMES,
    value=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
)
@example(name="'; DROP VIEW input; --", value="'; DROP VIEW input; --")
@example(name='"', value='"')
@example(name="$v0", value="$v0")
def test_names_and_values_are_never_sql(name: str, value: str) -> None:
    """Whatever a column is called and a value contains, it goes through every kind of step as it is."""
    other = f"other {name}"
    steps: list[dict[str, Any]] = [
        {"op": "rename", "columns": {"text": name}},
        {"op": "cast", "columns": {name: "string", "n": "integer"}},
        {"op": "filter", "where": {"op": "eq", "left": col(name), "right": lit(value)}},
        {"op": "derive", "columns": {other: {"op": "concat", "values": [col(name), lit(value)]}}},
        {"op": "window", "order_by": [{"column": name}], "columns": {f"w{name}": {"function": "row_number"}}},
        {"op": "deduplicate", "columns": [name]},
        {"op": "join", "input": f"in {name}", "on": {name: name}},
        {"op": "aggregate", "group_by": [name, other], "measures": {f"m{name}": {"function": "sum", "column": "n"}}},
        {"op": "sort", "by": [{"column": name}]},
    ]
    frame = pd.DataFrame({"text": [value, f"{value}x"], "n": ["1", "no"]})
    with tempfile.TemporaryDirectory() as folder:
        joined = {f"in {name}": pd.DataFrame({name: [value]})}
        outcome = run(Path(folder), frame, {"steps": steps, "bad_rows": "reject"}, inputs=joined)
    assert outcome.records == [{name: value, other: value + value, f"m{name}": 1}]
    assert outcome.rejects is not None
    assert outcome.rejects[name].tolist() == [f"{value}x"]
