"""Draw the marks of each kind of chart on matplotlib's axes."""

from __future__ import annotations

import math
from datetime import date
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from worker.report.charts.palette import series_colour, stand_in
from worker.report.content.shapes import Bars, Bins, Boxes, Figure, Grid, Lines, Points, Shape
from worker.report.content.values import compact, printable

if TYPE_CHECKING:
    from collections.abc import Sequence


PHONE = 500  # up to this width in pixels a drawing is made for a small screen
_SIGN_WIDTH = 6.6  # of a character at 12 pixels, on average
_BAR_HEIGHT = 26
_DATES: dict[str, Any] = {  # of ticks by year, month, day, hour, minute, second; at their zeros; beside the axis
    "formats": ["%Y", "%b", "%d", "%H:%M", "%H:%M", "%S.%f"],
    "zero_formats": ["", "%Y", "%b", "%d %b", "%H:%M", "%H:%M"],
    "offset_formats": ["", "%Y", "%b %Y", "%d %b %Y", "%d %b %Y", "%d %b %Y %H:%M"],
}
_SPARSE = 40  # up to this number of positions a line's points are marked
_DASHES = ("solid", "solid", "solid", "solid", (0, (5, 2)), (0, (5, 2)), (0, (1, 1.5)), (0, (1, 1.5)))
_LEAST_LABELLED_CELL = 26  # pixels that a cell needs at least to hold a number
_DARK_CELL = 0.55  # share of full colour from which a cell's number is written in the colour of the page


def height_of(shape: Shape, width: int) -> int:
    """Return the height in pixels that suits `shape` at `width`."""
    match shape:
        case Bars(categories=categories, series=series) if lies_down(shape, width):
            rows = len(categories) * (1 if shape.stacked else max(1, len(series) * 0.7))
            return int(min(max(rows, 2) * _BAR_HEIGHT, 1_600)) + 70
        case Boxes(boxes=boxes):
            return min(max(len(boxes), 2) * 34, 1_600) + 70
        case Grid(y=y):
            return min(max(len(y), 2) * 30, 1_600) + 90
        case _:
            return 320 if width > PHONE else 260


def lies_down(shape: Bars, width: int) -> bool:
    """Return whether bars are horizontal: the names of their categories do not fit side by side."""
    longest = max((len(name) for name in shape.categories), default=0)
    return not shape.in_time and len(shape.categories) * (longest * _SIGN_WIDTH + 10) > width * 0.96


def mark(figure: Figure, axes: Axes, width: int) -> None:
    """Draw `figure` on `axes`, or a message if there is nothing to draw."""
    if not figure.marks:
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "No rows to draw", ha="center", va="center", transform=axes.transAxes, color=stand_in("muted")
        )
        return
    _mark(figure.shape, axes, figure, width)


@singledispatch
def _mark(shape: Any, _axes: Axes, _figure: Figure, _width: int) -> None:
    raise TypeError(f"{type(shape).__name__} is not a shape")


@_mark.register
def _(shape: Lines, axes: Axes, figure: Figure, width: int) -> None:
    x: Any = shape.x  # numbers or dates
    for index, series in enumerate(shape.series):
        values = [math.nan if value is None else value for value in series.numbers]
        marker = "o" if len(shape.x) <= _SPARSE else ""
        axes.plot(x, values, color=series_colour(index), linestyle=_DASHES[index % 8], marker=marker, markersize=4.5)
        if len(shape.series) == 1 and min(figure.marks) >= 0:
            axes.fill_between(x, values, color=series_colour(index), alpha=0.08, linewidth=0)
    _number_axis(axes.yaxis, figure)
    axes.grid(axis="y")
    _from_zero(axes, figure.marks)
    _position_axis(axes, shape.x, width)
    if len(shape.x) > 1:
        axes.margins(x=0.015)


@_mark.register
def _(shape: Bars, axes: Axes, figure: Figure, width: int) -> None:
    across = lies_down(shape, width)
    places = range(len(shape.categories))
    thickness = 0.66 if shape.stacked or len(shape.series) == 1 else 0.76 / len(shape.series)
    base = [0.0] * len(shape.categories)
    for index, series in enumerate(shape.series):
        values = [value or 0.0 for value in series.numbers]
        shift = 0 if shape.stacked else (index - (len(shape.series) - 1) / 2) * thickness
        at = [place + shift for place in places]
        draw: Any = axes.barh if across else axes.bar
        edge = {
            "edgecolor": stand_in("paper"),
            "linewidth": (0.5 if shape.stacked else 1.0) if len(shape.series) > 1 else 0.0,
        }
        offset: dict[str, Any] = {"left" if across else "bottom": base} if shape.stacked else {}
        draw(at, values, thickness, color=series_colour(index), **edge, **offset)
        base = [low + value for low, value in zip(base, values, strict=True)] if shape.stacked else base
    _bar_axes(shape, axes, figure, across=across, width=width)


def _bar_axes(shape: Bars, axes: Axes, figure: Figure, *, across: bool, width: int) -> None:
    names, values = (axes.yaxis, axes.xaxis) if across else (axes.xaxis, axes.yaxis)
    _category_axis(names, shape.categories, width)
    axes.spines["bottom"].set_visible(not across)
    axes.tick_params(length=0)
    if across:
        axes.invert_yaxis()
        axes.set_xlabel(figure.y_label)
        axes.set_title("")
    if len(shape.series) > 1:
        _number_axis(values, figure)
        axes.grid(axis="x" if across else "y")
        return
    if shape.in_time and len(shape.categories) * _SIGN_WIDTH * 5 > width:
        _number_axis(values, figure)
        axes.grid(axis="y")
        return
    values.set_visible(False)  # each bar shows its value
    if across:
        axes.set_title(printable(figure.y_label, 80))
    for place, value in enumerate(shape.series[0].numbers):
        if value is not None:
            text = compact(value, spec=figure.format)
            at = (value, place) if across else (place, value)
            offset = ((5 if value >= 0 else -5), 0) if across else (0, 4 if value >= 0 else -4)
            side = {"ha": "left" if value >= 0 else "right", "va": "center"}
            side = side if across else {"ha": "center", "va": "bottom" if value >= 0 else "top"}
            axes.annotate(text, at, xytext=offset, textcoords="offset pixels", fontsize=11, **side)  # type: ignore[arg-type]
    if across:
        axes.margins(x=0.12)
    else:
        axes.margins(y=0.12)


@_mark.register
def _(shape: Bins, axes: Axes, figure: Figure, width: int) -> None:
    widths = [high - low for low, high in zip(shape.edges[:-1], shape.edges[1:], strict=True)]
    axes.bar(
        shape.edges[:-1], shape.counts, widths, align="edge", color=series_colour(0),
        edgecolor=stand_in("paper"), linewidth=1.0,
    )  # fmt: skip
    _number_axis(axes.yaxis, None, whole=True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value, spec=figure.format)))
    axes.xaxis.set_major_locator(MaxNLocator(8 if width > PHONE else 4))
    axes.grid(axis="y")
    axes.margins(x=0.01)


@_mark.register
def _(shape: Points, axes: Axes, figure: Figure, width: int) -> None:
    for index, cloud in enumerate(shape.clouds):
        axes.scatter(cloud.x, cloud.y, s=16, color=series_colour(index), alpha=0.6, linewidths=0)  # type: ignore[arg-type]
    _number_axis(axes.yaxis, figure)
    axes.grid(axis="y")
    _position_axis(axes, [place for cloud in shape.clouds for place in cloud.x], width)


@_mark.register
def _(shape: Boxes, axes: Axes, figure: Figure, width: int) -> None:
    colour, ink = series_colour(0), stand_in("ink")
    for place, box in enumerate(shape.boxes):
        axes.hlines([place] * 2, [box.low, box.q3], [box.q1, box.high], color=colour, linewidth=1.5)
        axes.vlines([box.low, box.high], place - 0.14, place + 0.14, color=colour, linewidth=1.5)
        axes.add_patch(
            Rectangle((box.q1, place - 0.32), box.q3 - box.q1, 0.64, facecolor=colour, edgecolor="none", alpha=0.35)
        )
        axes.vlines(box.median, place - 0.32, place + 0.32, color=ink, linewidth=2.5)
        axes.scatter(box.outliers, [place] * len(box.outliers), s=10, color=colour, alpha=0.55, linewidths=0)
    _category_axis(axes.yaxis, [box.name for box in shape.boxes], width)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    axes.set_title("")
    axes.set_xlabel(printable(figure.y_label, 80))
    _number_axis(axes.xaxis, figure)
    axes.grid(axis="x")


@_mark.register
def _(shape: Grid, axes: Axes, figure: Figure, width: int) -> None:
    largest = max(abs(value) for value in figure.marks) or 1.0
    least = min(figure.marks) if min(figure.marks) > 0 else 0.0
    longest = max(len(compact(value, spec=figure.format)) for value in figure.marks)
    labelled = (width - 90) / max(len(shape.x), 1) > max(_LEAST_LABELLED_CELL, longest * _SIGN_WIDTH)
    for down, line in enumerate(shape.values):
        for across, value in enumerate(line):
            if value is None:
                continue
            share = 0.08 + 0.92 * (abs(value) - least) / ((largest - least) or 1.0)
            colour = series_colour(0 if value >= 0 else 1)
            axes.add_patch(Rectangle((across - 0.48, down - 0.46), 0.96, 0.92, color=colour, alpha=share, linewidth=0))
            if labelled:
                text = compact(value, spec=figure.format)
                ink = stand_in("paper" if share > _DARK_CELL else "ink")
                axes.text(across, down, text, ha="center", va="center", fontsize=10, color=ink)
    axes.set_xlim(-0.5, len(shape.x) - 0.5)
    axes.set_ylim(len(shape.y) - 0.5, -0.5)
    _category_axis(axes.yaxis, shape.y, width)
    _category_axis(axes.xaxis, shape.x, width)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _category_axis(axis: Axis, names: Sequence[str], width: int) -> None:
    """Label positions 0, 1, ... with `names`; only every n-th if they do not fit side by side."""
    most = 30 if width > PHONE else 20
    short = [printable(name, most).replace("\n", " ") for name in names]
    longest = max((len(name) for name in short), default=1)
    every = 1
    if isinstance(axis, XAxis):
        every = max(1, math.ceil(len(short) * (longest * _SIGN_WIDTH + 8) / (width * 0.88)))
    axis.set_ticks(list(range(0, len(short), every)), short[::every])
    for label in axis.get_ticklabels():
        label.set_color(stand_in("ink"))


def _number_axis(axis: Axis, figure: Figure | None, *, whole: bool = False) -> None:
    spec = figure.format if figure else None
    axis.set_major_locator(MaxNLocator(5, integer=whole))
    axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value, spec=spec)))


def _position_axis(axes: Axes, positions: Sequence[Any], width: int) -> None:
    few = width <= PHONE
    if positions and isinstance(positions[0], date):
        locator: Any = AutoDateLocator(minticks=3, maxticks=5 if few else 9)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, **_DATES))  # type: ignore[no-untyped-call]
    else:
        whole = all(float(place).is_integer() for place in positions)
        axes.xaxis.set_major_locator(MaxNLocator(4 if few else 8, integer=whole))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def _from_zero(axes: Axes, values: Sequence[float]) -> None:
    """Start the axis at zero, unless that would flatten the data."""
    if 0 <= min(values) < 0.6 * max(values) or min(values) == max(values) >= 0:
        axes.set_ylim(bottom=0)
