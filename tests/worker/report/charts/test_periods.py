"""A week of three days is not a fall: periods that the data cover in part are marked, and the note says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.datasets import figure
from worker.pages.content.shapes import Bars, Figure, Lines

ROWS = {"rows": {"function": "count"}}


def drawn(folder: Path, times: Any, unit: str, kind: str = "line") -> Figure:
    return figure(folder, pd.DataFrame({"at": times}), kind=kind, x="at", x_unit=unit, y=ROWS)


def partial(found: Figure) -> set[int]:
    assert isinstance(found.shape, Lines | Bars)
    return set(found.shape.partial)


@pytest.mark.parametrize("kind", ["line", "bar"])
def test_the_first_and_the_last_week_are_marked(tmp_path: Path, kind: str) -> None:
    """From Thursday, 1 January to Wednesday, 25 February."""
    found = drawn(tmp_path, pd.date_range("2026-01-01", "2026-02-25 12:00", freq="17min"), "week", kind)
    assert partial(found) == {0, 8}
    assert found.note == (
        "Drawn paler, as the data do not cover them: the first week has rows only from 1 Jan 2026 on, "
        "the last week has rows only until 25 Feb 2026."
    )


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (pd.date_range("2026-01-05", "2026-03-01", freq="D"), "week"),
        (pd.bdate_range("2026-01-05", "2026-02-27"), "week"),  # closed at weekends
        (pd.date_range("2026-01-01", "2026-03-31", freq="D"), "month"),
        (pd.date_range("2026-01-01", periods=40, freq="D"), "day"),
        (pd.date_range("2026-01-01", periods=1, freq="D"), "day"),
        (pd.date_range("2026-01-01", periods=48, freq="h"), "hour"),
        (pd.date_range("2026-01-01", "2026-01-10 23:50", freq="17min"), "day"),
        (pd.date_range("2026-01-01", "2026-01-10", freq="17min"), "hour_of_day"),
        (pd.to_datetime([]), "week"),
        (pd.DatetimeIndex(["NaT", "2026-01-05", "2026-01-11"]), "week"),
    ],
)
def test_whole_periods_are_not_marked(tmp_path: Path, times: Any, unit: str) -> None:
    """Neither are those that end early every time, nor dates, each of which is a whole day."""
    found = drawn(tmp_path, times, unit)
    assert partial(found) == set()
    assert "paler" not in found.note


def test_a_day_that_has_only_begun_is_marked(tmp_path: Path) -> None:
    """The first hour of 1 March is not a day on which nobody bought; one period alone says both its ends."""
    found = drawn(tmp_path, pd.date_range("2026-02-25", "2026-03-01 00:40", freq="17min"), "day")
    assert partial(found) == {4}
    assert "the last day has rows only until 1 Mar 2026, 00:" in found.note
    alone = drawn(tmp_path, pd.to_datetime(["2026-01-01 08:00", "2026-01-02 09:00"]), "week")
    assert partial(alone) == {0}
    assert alone.note == "Drawn paler, as it is not whole: the week has rows from 1 Jan 2026 until 2 Jan 2026."


def test_bars_that_are_cut_off_do_not_speak_of_the_last_week(tmp_path: Path) -> None:
    """Only what is drawn is marked."""
    frame = pd.DataFrame({"at": pd.date_range("2026-01-05", "2026-02-25", freq="D")})
    found = figure(tmp_path, frame, kind="bar", x="at", x_unit="week", y=ROWS, limit=3)
    assert partial(found) == set()
    assert found.note == "3 of 8 values of at: the first."
