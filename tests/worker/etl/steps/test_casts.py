"""Casts: what converts, and what becomes of a value that does not, counted exactly."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from shared.errors import TaskFailure
from tests.support.transforming import records, run

if TYPE_CHECKING:
    from pathlib import Path

STAMP = pd.Timestamp


@pytest.mark.parametrize(
    ("values", "to", "expected"),
    [
        (["1", " -2 ", "3.0", "1.5", "x", "", None], "integer", [1, -2, 3, None, None, None, None]),
        (["9223372036854775807", "9223372036854775808"], "integer", [2**63 - 1, None]),
        ([1.0, 2.5, float("inf"), 1e300], "integer", [1, None, None, None]),
        (["1.5", "1e3", "nan", "abc"], "float", [1.5, 1000.0, None, None]),
        (["1.2345", "1000000000000000"], "decimal", [decimal.Decimal("1.235"), None]),
        (["1.2345", "99999"], {"type": "decimal", "precision": 5, "scale": 1}, [decimal.Decimal("1.2"), None]),
        ([1, 2], "string", ["1", "2"]),
        (["true", "no", "maybe"], "boolean", [True, False, None]),
        ([1, 0], "boolean", [True, False]),
        (["2026-01-31", "2026-02-30", "31.01.2026"], "date", [dt.date(2026, 1, 31), None, None]),
        (["31.01.2026", "2026-01-31"], {"type": "date", "format": "%d.%m.%Y"}, [dt.date(2026, 1, 31), None]),
        (
            ["2026-01-31T10:00:00", "2026-01-31", "soon"],
            "timestamp",
            [STAMP("2026-01-31T10:00"), STAMP("2026-01-31"), None],
        ),
        (["2026-01-31T10:00:00+02:00", "2026-01-31T10:00Z"], "timestamp", [None, None]),
        (
            ["2026-01-31T10:00:00+02:00", "2026-01-31 10:00"],
            {"type": "timestamp", "drop_offset": True},
            [STAMP("2026-01-31T08:00:00"), STAMP("2026-01-31T10:00:00")],
        ),
        (
            ["2026-01-31T10:00:00+02:00", "2026-01-31T10:00Z", "soon"],
            "timestamptz",
            [STAMP("2026-01-31T08:00:00Z"), STAMP("2026-01-31T10:00:00Z"), None],
        ),
        (["12/11/10", "15/01/24", "24-01-15", "0024-01-15", "2024-1-5", "10:00"], "timestamp", [None] * 6),
        (["2024-01-15", "15/01/2024", "15/01/24", "03/04/24", "12-11-10"], "date", [dt.date(2024, 1, 15)] + [None] * 4),
        (
            ["2024-01-15T10:00:00", "2024-01-15T00:00:00", "2024-01-15T00:00:00Z"],
            "date",
            [None, dt.date(2024, 1, 15), None],
        ),
        (["2024-01-15T10:00:00"], {"type": "date", "drop_time": True}, [dt.date(2024, 1, 15)]),
        (["15/01/24", "15/01/2024"], {"type": "date", "format": "%d/%m/%Y"}, [None, dt.date(2024, 1, 15)]),
        (["0x10", "0b11", "1_000", "1e3", "+5", "0010"], "integer", [None, None, None, None, 5, 10]),
        (["0x10", "1_000", "1_0.5", "+.5", "1."], "float", [None, None, None, 0.5, 1.0]),
        (["0x10", "1_000", "+.5"], "decimal", [None, None, decimal.Decimal("0.500")]),
        (["10:30:00+02", "10:30"], "time", [None, dt.time(10, 30)]),
        (["31/01/26 10h", "x"], {"type": "timestamp", "format": "%d/%m/%y %Hh"}, [STAMP("2026-01-31T10:00:00"), None]),
        (["10:30:00", "25:00:00"], "time", [dt.time(10, 30), None]),
        ([dt.date(2026, 1, 31)], "timestamp", [STAMP("2026-01-31")]),
        ([STAMP("2026-01-31T10:00:00"), STAMP("2026-01-31")], "date", [None, dt.date(2026, 1, 31)]),
        ([STAMP("2026-01-31T10:00:00")], {"type": "date", "drop_time": True}, [dt.date(2026, 1, 31)]),
        ([STAMP("2026-01-31T10:00:00")], "timestamptz", [STAMP("2026-01-31T10:00:00Z")]),
        ([STAMP("2026-01-31T10:00:00+02:00")], {"type": "timestamp", "drop_offset": True}, [STAMP("2026-01-31T08:00")]),
        ([True, False], "integer", [1, 0]),
    ],
)
def test_what_converts(tmp_path: Path, values: list[Any], to: Any, expected: list[Any]) -> None:
    """A value converts exactly or not at all; text with decimals is not a valid integer, a far number no decimal."""
    outcome = run(
        tmp_path, pd.DataFrame({"v": values}), {"steps": [{"op": "cast", "columns": {"v": to}}], "bad_rows": "null"}
    )
    assert [row["v"] for row in outcome.records] == expected
    missing = sum(value is None for value in expected) - sum(value is None for value in values)
    assert outcome.transformed.nulled_count == missing


def test_instants_lose_no_offset_unless_asked(tmp_path: Path) -> None:
    """The remedy says how to ask."""
    frame = pd.DataFrame({"v": [STAMP("2026-01-31T10:00:00Z")]})
    with pytest.raises(TaskFailure, match="lose their offset") as failed:
        run(tmp_path, frame, {"steps": [{"op": "cast", "columns": {"v": "timestamp"}}]})
    assert "'drop_offset'" in (failed.value.remedy or "")


@pytest.mark.parametrize(("values", "to"), [([1], "date"), ([dt.date(2026, 1, 1)], "integer"), ([True], "timestamp")])
def test_types_that_never_convert_are_refused(tmp_path: Path, values: list[Any], to: str) -> None:
    """No row is read where no value of a type can become the other."""
    with pytest.raises(TaskFailure, match=f"which cannot become {to}") as failed:
        run(tmp_path, pd.DataFrame({"v": values}), {"steps": [{"op": "cast", "columns": {"v": to}}]})
    assert failed.value.code == "wrong_type"


DIRTY = pd.DataFrame(
    {
        "id": [1, 2, 3, 4, 5],
        "n": ["1", "x", "3", "y", None],
        "d": ["2026-01-01", "2026-01-02", "bad", "worse", "2026-01-05"],
    }
)
CAST = {"op": "cast", "columns": {"n": "integer", "d": "date"}}


def test_policy_fail_names_step_column_example_and_count(tmp_path: Path) -> None:
    """The job fails before anything is written, and the message helps to find the rows."""
    with pytest.raises(TaskFailure) as failed:
        run(tmp_path, DIRTY, {"steps": [{"op": "limit", "count": 10}, CAST]})
    assert failed.value.document() == {
        "code": "bad_row",
        "message": "steps[1] cast: 'x' in column 'n' is not a valid integer (3 rows cannot be converted).",
        "remedy": "Set 'bad_rows' to 'reject' or 'null', or drop or fix such rows before this step.",
        "retryable": False,
        "details": {"step": 1, "column": "n", "example": "x", "count": 3},
    }
    assert not (tmp_path / "output.parquet").exists()


def test_policy_null_counts_values(tmp_path: Path) -> None:
    """All rows pass; each value that could not be converted is counted under its reason."""
    outcome = run(tmp_path, DIRTY, {"steps": [CAST], "bad_rows": "null"})
    assert [row["n"] for row in outcome.records] == [1, None, 3, None, None]
    assert outcome.transformed.row_count == outcome.transformed.input_row_count == 5
    assert outcome.transformed.nulled_count == 4
    assert outcome.transformed.by_reason == {"cast n to integer": 2, "cast d to date": 2}
    assert (outcome.transformed.rejected_count, outcome.rejects) == (0, None)


def test_policy_reject_keeps_the_rows_as_they_were(tmp_path: Path) -> None:
    """Refused rows go aside whole, with the value, the column and the step; a row is counted once."""
    outcome = run(tmp_path, DIRTY, {"steps": [CAST], "bad_rows": "reject"})
    assert [row["id"] for row in outcome.records] == [1, 5]
    assert outcome.rejects is not None
    assert records(outcome.rejects) == [
        {
            "id": 2,
            "n": "x",
            "d": "2026-01-02",
            "reject_reason": "steps[0] cast: 'x' in column 'n' is not a valid integer",
        },
        {"id": 3, "n": "3", "d": "bad", "reject_reason": "steps[0] cast: 'bad' in column 'd' is not a valid date"},
        {"id": 4, "n": "y", "d": "worse", "reject_reason": "steps[0] cast: 'y' in column 'n' is not a valid integer"},
    ]
    assert outcome.transformed.by_reason == {"cast n to integer": 2, "cast d to date": 1}
    assert outcome.transformed.rejected_count == 3


def test_rejects_of_several_casts_come_into_one_file(tmp_path: Path) -> None:
    """Each row has the columns of its step; a column of two types there is text."""
    steps = [
        {"op": "cast", "columns": {"n": "float"}},
        {"op": "derive", "columns": {"extra": {"op": "literal", "value": 1}}},
        {"op": "cast", "columns": {"d": "date"}},
    ]
    outcome = run(tmp_path, DIRTY, {"steps": steps, "bad_rows": "reject"})
    assert outcome.rejects is not None
    assert sorted((row["id"], row["n"], row["extra"]) for row in records(outcome.rejects)) == [
        (2, "x", None),
        (3, "3.0", 1),
        (4, "y", None),
    ]
    assert [row["id"] for row in outcome.records] == [1, 5]


def test_a_column_called_reject_reason_stays(tmp_path: Path) -> None:
    """The reason gets another name where the data have a column of that name."""
    frame = DIRTY.assign(reject_reason="mine")
    outcome = run(tmp_path, frame, {"steps": [CAST], "bad_rows": "reject"})
    assert outcome.rejects is not None
    assert outcome.rejects["reject_reason"].tolist() == ["mine"] * 3
    assert "'x' in column 'n'" in outcome.rejects["_reject_reason"][0]


def test_long_values_are_cut_in_the_reason(tmp_path: Path) -> None:
    """A reason is bounded whatever the value."""
    outcome = run(
        tmp_path,
        pd.DataFrame({"n": ["z" * 100_000]}),
        {"steps": [{"op": "cast", "columns": {"n": "integer"}}], "bad_rows": "reject"},
    )
    assert outcome.rejects is not None
    assert len(outcome.rejects["reject_reason"][0]) < 300
    assert outcome.rejects["n"][0] == "z" * 100_000


@pytest.mark.parametrize("threads", [1, 2])
def test_no_row_is_lost_or_counted_twice(tmp_path: Path, threads: int) -> None:
    """Passed and rejected rows together are the input, row by row, also behind a step that loses the order."""
    random = np.random.default_rng(11)
    size = 200_000
    numbers = pd.Series(random.integers(0, 10**6, size).astype(str))
    bad = random.random(size) < 0.1
    frame = pd.DataFrame({"id": np.arange(size), "n": numbers.where(~bad, "n/a"), "g": random.integers(0, 50, size)})
    steps = [
        {
            "op": "window",
            "partition_by": ["g"],
            "order_by": [{"column": "g"}],
            "columns": {"r": {"function": "row_number"}},
        },
        {"op": "cast", "columns": {"n": "integer"}},
        {"op": "deduplicate", "columns": ["id"]},
        {"op": "cast", "columns": {"id": "string"}},
    ]
    outcome = run(tmp_path, frame, {"steps": steps, "bad_rows": "reject"}, threads=threads)
    assert outcome.rejects is not None
    assert outcome.transformed.input_row_count == size
    assert outcome.transformed.rejected_count == len(outcome.rejects) == int(bad.sum())
    assert sorted(outcome.rejects["id"]) == frame["id"][bad].tolist()
    assert sorted(outcome.rows["id"].astype(int)) == frame["id"][~bad].tolist()
    assert int(outcome.rows["n"].sum()) == int(numbers[~bad].astype(int).sum())
    # The row numbers of ties are arbitrary, but passed and rejected rows come from the same reading.
    both = pd.concat([outcome.rows[["g", "r"]], outcome.rejects[["g", "r"]]])
    assert not both.duplicated().any()


def test_files_of_the_way_are_inside_scratch(tmp_path: Path) -> None:
    """Nothing is left beside output and rejects but in the scratch folder."""
    run(tmp_path, DIRTY, {"steps": [{"op": "sort", "by": [{"column": "id"}]}, CAST], "bad_rows": "reject"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "output.parquet", "rejects.parquet", "scratch"]
