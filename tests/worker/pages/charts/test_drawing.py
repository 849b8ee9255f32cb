"""Charts as SVG that shares a page with others."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import date
from typing import Any

import pytest

from shared.errors import TaskFailure
from shared.jobs.charts import NumberFormat
from worker.pages.charts.drawing import NARROW, WIDE, svg_of
from worker.pages.charts.palette import with_variables
from worker.pages.charts.tabling import description, table_of
from worker.pages.content.shapes import Bars, Bins, Box, Boxes, Cloud, Figure, Grid, Lines, Points, Series, Shape


def bars(*names: str, **more: Any) -> Shape:
    numbers: list[float | None] = [float(number + 1) for number in range(len(names))]
    return Bars(list(names), [Series("n", numbers)], **more)


def svg(shape: Shape, name: str = "a", width: int = NARROW) -> str:
    return with_variables(svg_of(Figure("T", "bar", shape, 3), name=name, width=width))


def texts(drawn: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(drawn).iter() if element.tag.endswith("text")]  # noqa: S314 - ours


def first_bar(drawn: str) -> tuple[float, float]:
    """Return the width and the height of the first bar."""
    path = next(path for path in re.findall(r'd="([^"]+)"[^>]*var\(--c0\)', drawn))
    numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", path)]
    return max(numbers[::2]) - min(numbers[::2]), max(numbers[1::2]) - min(numbers[1::2])


def test_texts_are_texts_and_escaped() -> None:
    """Text can be selected and searched; markup and formulas in it are shown as they are."""
    names = ["<script>", "$x_1$", "a&b", "url(#x)", "#010002 font-family: inherit;"]
    found = texts(svg(bars(*names)))
    assert set(names) - set(found) == {"#010002 font-family: inherit;"}  # cut off on a phone
    assert "#010002 font-family…" in found


def test_two_charts_of_a_page_do_not_share_ids() -> None:
    """Ids begin with the chart's name, and so do references to them; colours are the page's."""
    drawn = svg(bars("a", "b"), "one")
    ids = re.findall(r' id="([^"]+)"', drawn)
    assert all(name.startswith("one-") for name in ids)
    assert set(re.findall(r"url\(#([^)]+)\)", drawn)) <= set(ids)
    assert "<style" not in drawn
    assert re.findall(r"#[0-9a-f]{6}", drawn) == []
    assert "var(--c0)" in drawn


def test_a_chart_is_drawn_the_same_way_each_time() -> None:
    """No date, no random id."""
    assert svg(bars("a", "b", "c")) == svg(bars("a", "b", "c"))


@pytest.mark.parametrize(
    "shape",
    [
        Bars(["a"], [Series("n", [1e308])]),
        Lines([-1e308, 1e308], [Series("n", [1.0, 2.0])]),
        Bins([-1e308, 0.0, 1e308], [1, 2]),
        Boxes([Box("a", 3, -1e308, 0.0, 0.0, 0.0, 1e308)]),
        Points([Cloud("a", [-1e308, 1e308], [0.0, 1.0])]),
    ],
)
def test_numbers_that_no_axis_spans_are_refused(shape: Shape) -> None:
    """The distance of -1e308 and 1e308 is not a float; the failure names the chart."""
    with pytest.raises(TaskFailure, match="The chart 'T' has numbers beyond") as raised:
        svg(shape)
    assert raised.value.code == "not_drawable"


def test_long_names_lie_down_and_moments_do_not() -> None:
    """Bars go across where names have no room; hours go from left to right whatever their number."""
    last = [f"a category with a long name {number}" for number in range(6)]
    width, height = first_bar(svg(bars(*last)))
    assert width > height
    hours = [f"{hour:02d}:00" for hour in range(24)]
    widths = first_bar(svg(bars(*hours, in_time=True)))
    assert widths[0] < 15


def test_one_point_in_time_is_one_day() -> None:
    """Not an axis of years around it: its date and its value are written."""
    shape = Lines([date(2026, 11, 21)], [Series("n", [3.0])])
    assert {"21 Nov", "2026", "3"} <= set(texts(svg(shape)))
    assert [text for text in texts(svg(shape)) if text.startswith("20")] == ["2026"]


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_counts_have_whole_ticks_that_reach_the_largest(width: int) -> None:
    """Three jobs have an axis of 0, 1, 2, 3; eleven end below twenty."""
    cases: list[tuple[list[float | None], list[str]]] = [
        ([3.0, 1.0], ["0", "1", "2", "3"]),
        ([11.0, 2.0], ["0", "5", "10", "15"]),
    ]
    for counts, ticks in cases:
        stacked = Bars(["a" * 9, "b" * 9], [Series("x", counts), Series("y", [0.0, 0.0])], stacked=True)
        assert [text for text in texts(svg(stacked, width=width)) if text.isdigit()] == ticks
    hours = Bars([f"{hour:02d}:00" for hour in range(24)], [Series("n", [1.0, *[0.0] * 23])], in_time=True)
    assert [text for text in texts(svg(hours)) if text.isdigit()] == ["0", "1"]


def test_a_period_that_is_not_whole_looks_different() -> None:
    """A bar is paler; a line is dotted and its mark is a ring."""
    whole, partial = frozenset[int](), frozenset({1})
    hours = ["08:00", "09:00"]
    assert "opacity: 0.4" not in svg(Bars(hours, [Series("n", [1.0, 2.0])], in_time=True, partial=whole))
    assert svg(Bars(hours, [Series("n", [1.0, 2.0])], in_time=True, partial=partial)).count("opacity: 0.4") == 1
    assert "stroke-dasharray" not in svg(Lines([1, 2, 3], [Series("n", [1.0, 2.0, 3.0])], whole))
    assert "stroke-dasharray" in svg(Lines([1, 2, 3], [Series("n", [1.0, 2.0, 3.0])], partial))


def test_few_bars_are_not_boxes() -> None:
    """A bar is at most a tenth of a wide chart, or lies down."""
    for count in (1, 3, 5):
        assert min(first_bar(svg(bars(*"abcde"[:count]), width=WIDE))) <= WIDE / 10


def test_a_value_between_missing_ones_is_seen() -> None:
    """No line leads to it, so it has a mark even where points have none."""
    numbers: list[float | None] = [1.0] * 60
    circle = re.compile(r'd="[^"]* C ')
    assert len(circle.findall(svg(Lines(list(range(60)), [Series("n", numbers)])))) == 0
    numbers[29] = numbers[31] = None
    assert len(circle.findall(svg(Lines(list(range(60)), [Series("n", numbers)])))) == 1


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([1.0, 30.0], "Bar chart of 31 rows. n: largest b with 30, smallest a with 1, of 2 categories."),
        ([None, 2.0], "Bar chart of 31 rows. n: largest b with 2, smallest b with 2, of 2 categories."),
        ([None, None], "Bar chart without data."),
    ],
)
def test_words_for_those_who_do_not_see(numbers: list[float | None], words: str) -> None:
    """A description is computed from the figures, and the table holds all of them."""
    figure = Figure("T", "bar", Bars(["a", "b"], [Series("n", numbers)]), 31, x_label="k")
    assert description(figure) == words
    table = table_of(figure)
    assert [heading.label for heading in table.headings] == ["k", "n"]
    assert list(table.rows(10)) == list(zip(["a", "b"], numbers, strict=True))


def test_names_that_differ_at_their_ends_are_told_apart() -> None:
    """A cut-off name keeps its end if its beginning is that of others, too."""
    names = [f"a rather long name of a column, number {number}" for number in range(4)]
    shown = [text for text in texts(svg(bars(*names), width=WIDE)) if "…" in text]
    assert len(set(shown)) == 4
    assert all(text.endswith(f"number {number}") for number, text in enumerate(sorted(shown)))


def test_labels_of_a_matrix_on_a_phone_do_not_overlap() -> None:
    """The names of the rows take room from those of the columns, of which fewer are written then."""
    names = [f"class with a name {number}" for number in range(10, 30)]
    grid = Grid(names, names, [[1.0 + number for number in range(20)]] * 20)
    assert len([text for text in texts(svg(grid)) if text.startswith("class")]) in {21, 22}


def test_the_number_of_the_longest_bar_is_within_the_picture() -> None:
    """On a phone, too, where it is wider than a tenth of the bar."""
    numbers: list[float | None] = [0.0187, 0.001]
    figure = Figure(
        "T", "bar", Bars(["a" * 30, "b" * 30], [Series("n", numbers)]), 2, format=NumberFormat(style="percent")
    )
    drawn = svg_of(figure, name="a", width=NARROW)
    found = re.search(r"translate\(([\d.]+) [\d.]+\)[^>]*>1\.87", drawn) or re.search(r'x="([\d.]+)"[^>]*>1\.87', drawn)
    assert found is not None
    assert float(found[1]) + len("1.87 %") * 6 <= NARROW
