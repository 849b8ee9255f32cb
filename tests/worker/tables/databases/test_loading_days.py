"""Files of several days go into one table, whatever each of them shows of its columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from shared.errors import TaskFailure
from tests.support.engines import ENGINES, Engine, make_engine
from tests.support.reading import read

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["read"]
CASES = Path(__file__).parents[2] / "etl" / "reading" / "cases"
DAYS = ("day1", "day2_no_amount", "day3_header_only", "day4_whole_numbers", "day6_trailing_zero")
Read = "Callable[..., pa.Table]"


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    (tmp_path / "database").mkdir()
    return make_engine(request.param, tmp_path / "database", request)


@pytest.fixture
def day(read: Callable[..., pa.Table]) -> Callable[[str], pa.Table]:
    return lambda name: read((CASES / f"{name}.csv").read_bytes(), "day.csv")


def test_the_days_load_into_the_table_of_the_first(engine: Engine, day: Callable[[str], pa.Table]) -> None:
    """No amount at all, a header only, whole numbers, trailing zeros; a new column where the destination says so."""
    for name in DAYS:
        engine.load(day(name), load_id=name)
    with pytest.raises(TaskFailure, match="'channel'") as refused:
        engine.load(day("day5_new_column"), load_id="refused")
    assert refused.value.code == "columns_do_not_fit"
    engine.load(day("day5_new_column"), load_id="added", new_columns="add")
    assert engine.run("SELECT id, amount, note, channel FROM sales ORDER BY id") == [
        (1, 10.5, "a", None), (2, 20.25, "b", None), (3, None, "c", None), (4, None, "d", None), (5, 7.0, "e", None),
        (6, 8.0, "f", None), (7, 1.5, "g", "web"), (9, 12.5, "h", None), (10, 3.5, "i", None), (11, 4.75, "j", None),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_in_every_mode(engine: Engine, day: Callable[[str], pa.Table], mode: str) -> None:
    """A day without amounts makes them missing, whatever the mode is."""
    engine.load(day("day1"), mode=mode, key=["id"] if mode == "upsert" else [])
    for name in DAYS[1:]:
        engine.load(day(name), mode=mode, key=["id"] if mode == "upsert" else [], load_id=name)
    expected: list[tuple[int, float | None]] = [(9, 12.5), (10, 3.5), (11, 4.75)]
    if mode == "upsert":
        expected = [(1, 10.5), (2, 20.25), (3, None), (4, None), (5, 7.0), (6, 8.0), *expected]
    assert engine.run("SELECT id, amount FROM sales ORDER BY id") == expected


@pytest.mark.parametrize("first", DAYS)
def test_whatever_the_first_day_was(engine: Engine, day: Callable[[str], pa.Table], first: str) -> None:
    """The others load, or are refused with what to do; none changes a value."""
    engine.load(day(first), load_id=first)
    loaded = day(first).num_rows
    for name in DAYS:
        if name == first:
            continue
        refused = None
        try:
            engine.load(day(name), load_id=name)
            loaded += day(name).num_rows
        except TaskFailure as failure:
            refused = (failure.code, "layout.types" in (failure.remedy or ""))
        assert refused in {None, ("columns_do_not_fit", True)}
    assert engine.run("SELECT count(*) FROM sales") == [(loaded,)]


def test_a_whole_number_that_a_float_cannot_hold_is_refused(engine: Engine) -> None:
    """2^53 fits, the next one does not."""
    engine.load(pa.table({"x": pa.array([0.5])}))
    engine.load(pa.table({"x": pa.array([2**53])}), load_id="fits")
    with pytest.raises(TaskFailure) as refused:
        engine.load(pa.table({"x": pa.array([2**53 + 1])}), load_id="does not")
    assert refused.value.code == "columns_do_not_fit"
    assert engine.run("SELECT x FROM sales ORDER BY x") == [(0.5,), (float(2**53),)]


def test_instants_load_as_such(engine: Engine, read: Callable[..., pa.Table]) -> None:
    """Into a column of instants."""
    declared = {"postgresql": "timestamptz", "duckdb": "TIMESTAMPTZ", "sqlite": "TIMESTAMPTZ"}[engine.kind]
    engine.run(f'CREATE TABLE sales (id bigint, "at" {declared})')
    engine.load(read((CASES / "zoned_times.csv").read_bytes(), "z.csv"))
    if engine.kind == "sqlite":
        found = [text[:16] for (text,) in engine.run('SELECT "at" FROM sales ORDER BY id')]
    else:
        shown = """SELECT CAST("at" AT TIME ZONE 'UTC' AS VARCHAR) FROM sales ORDER BY id"""
        found = [text[:16] for (text,) in engine.run(shown)]
    assert found == ["2026-03-29 00:30", "2026-03-29 01:30", "2026-10-25 02:30"]
