"""Draw the marks of each kind of chart on matplotlib's axes."""

from __future__ import annotations

import math
from datetime import date
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from shared.jobs.charts import NumberFormat
from worker.pages.charts.axes import PHONE, SIGN_WIDTH, category_axis, number_axis, time_axis, value_axis
from worker.pages.charts.palette import series_colour, stand_in
from worker.pages.content.shapes import Bars, Bins, Boxes, Figure, Grid, Lines, Points, Series, Shape
from worker.pages.content.values import compact, number_format

if TYPE_CHECKING:
    from collections.abc import Callable

_BAR_HEIGHT = 26
_FEW_BARS = 3  # up to this number of categories bars go across, as upright ones would be wide boxes
_WIDEST_BAR = 72
_FEW_DOTS = 50  # up to this number of points they are drawn larger
_LONG = 1_000  # from here on the number of a bar is shortened
_ROOM_FOR_LABELS = 0.12  # share of the largest bar, beyond it
_GAP = 10  # pixels on both sides of a bar's number
_PALE = 0.4  # of a bar whose period is partly in the data
_DOTS = (0, (1, 2))  # of a line to such a period
_SPARSE = 40  # up to this number of positions a line's points are marked
_DASHES = ("solid", "solid", "solid", "solid", (0, (5, 2)), (0, (5, 2)), (0, (1, 1.5)), (0, (1, 1.5)))
_LEAST_LABELLED_CELL = 26  # pixels that a cell needs at least to hold a number
_DARK_CELL = 0.55  # share of full colour from which a cell's number is written in the colour of the page


def height_of(shape: Shape, width: int) -> int:
    """Return the height in pixels that suits `shape` at `width`."""
    match shape:
        case Bars(categories=categories, series=series) if lies_down(shape, width):
            rows = len(categories) * (1 if shape.stacked else max(1, len(series) * 0.7))
            return int(min(rows * _BAR_HEIGHT, 1_600)) + 70
        case Boxes(boxes=boxes):
            return min(max(len(boxes), 2) * 34, 1_600) + 70
        case Grid(y=y):
            return min(max(len(y), 2) * 30, 1_600) + 90
        case _:
            return 320 if width > PHONE else 260


def lies_down(shape: Bars, width: int) -> bool:
    """Return whether bars are horizontal: few, or the names of their categories do not fit side by side."""
    longest, count = max((len(name) for name in shape.categories), default=0), len(shape.categories)
    return not shape.in_time and (count <= _FEW_BARS or count * (longest * SIGN_WIDTH + 10) > width * 0.96)


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
    for index, series in enumerate(shape.series):
        _line(figure, shape, series, axes, colour=series_colour(index), dashes=_DASHES[index % len(_DASHES)])
    if len(shape.series) == 1 and min(figure.marks) >= 0:
        _, numbers = _apart(shape, shape.series[0])
        x: Any = shape.x
        axes.fill_between(x, numbers, color=series_colour(0), alpha=0.08, linewidth=0)
    value_axis(axes.yaxis, figure.marks, figure.format)
    axes.grid(axis="y")
    _position_axis(axes, shape.x, width, figure)


def _line(figure: Figure, shape: Lines, series: Series, axes: Axes, *, colour: str, dashes: Any) -> None:
    x: Any = shape.x  # numbers or dates
    values = [math.nan if value is None else value for value in series.numbers]
    ends, whole = _apart(shape, series)
    style: dict[str, Any] = {"color": colour, "clip_on": False}
    axes.plot(x, whole, linestyle=dashes, color=colour)
    for place in ends:
        part = slice(max(place - 1, 0), place + 2)
        axes.plot(x[part], values[part], linestyle=_DOTS, color=colour)
    marked = range(len(x)) if len(x) <= _SPARSE else [place for place in range(len(x)) if _alone(values, place)]
    for chosen, face in (([p for p in marked if p not in ends], colour), (ends, stand_in("paper"))):
        places = [place for place in chosen if not math.isnan(values[place])]
        if not places:
            continue  # matplotlib would count an empty mark as one at the corner
        at = [x[place] for place in places]
        axes.plot(
            at, [values[p] for p in places], linestyle="", marker="o", markersize=4.5, markerfacecolor=face, **style
        )
    if len(x) == len(shape.series) == 1 and not math.isnan(values[0]):
        text = compact(values[0], spec=figure.format)
        axes.annotate(text, (x[0], values[0]), xytext=(8, 0), textcoords="offset pixels", va="center")


def _apart(shape: Lines, series: Series) -> tuple[list[int], list[float]]:
    """Return the positions that are partly in the data, and the values of `series` without them."""
    ends = sorted(shape.partial)
    return ends, [math.nan if v is None or p in shape.partial else v for p, v in enumerate(series.numbers)]


def _alone(values: list[float], place: int) -> bool:
    """Return whether no line leads to a value, because its neighbours are missing."""
    beside = [values[near] for near in (place - 1, place + 1) if 0 <= near < len(values)]
    return not math.isnan(values[place]) and all(math.isnan(value) for value in beside)


@_mark.register
def _(shape: Bars, axes: Axes, figure: Figure, width: int) -> None:
    across = lies_down(shape, width)
    count = len(shape.categories)
    widest = math.inf if across else _WIDEST_BAR * count / width
    thickness = min(0.66 if shape.stacked or len(shape.series) == 1 else 0.76 / len(shape.series), widest)
    above, below = [0.0] * count, [0.0] * count
    draw: Any = axes.barh if across else axes.bar
    for index, series in enumerate(shape.series):
        values = [value or 0.0 for value in series.numbers]
        shift = 0 if shape.stacked else (index - (len(shape.series) - 1) / 2) * thickness
        edge = {
            "edgecolor": stand_in("paper"),
            "linewidth": (0.5 if shape.stacked else 1.0) if len(shape.series) > 1 else 0.0,
        }
        base = [high if value >= 0 else low for value, high, low in zip(values, above, below, strict=True)]
        offset: dict[str, Any] = {"left" if across else "bottom": base} if shape.stacked else {}
        bars = draw(
            [place + shift for place in range(count)], values, thickness, color=series_colour(index), **edge, **offset
        )
        for place in shape.partial:
            bars[place].set_alpha(_PALE)
        for place, value in enumerate(values):
            side = above if value >= 0 else below
            side[place] = side[place] + value if shape.stacked else max(side[place], value, key=abs)
    _bar_axes(shape, axes, figure, [*above, *below], across=across, width=width)


def _bar_axes(shape: Bars, axes: Axes, figure: Figure, ends: list[float], *, across: bool, width: int) -> None:
    names, values = (axes.yaxis, axes.xaxis) if across else (axes.xaxis, axes.yaxis)
    category_axis(names, shape.categories, width)
    (axes.set_ylim if across else axes.set_xlim)(-0.5, len(shape.categories) - 0.5)
    axes.spines["bottom"].set_visible(not across)
    axes.tick_params(length=0)
    value_axis(values, ends, figure.format, zero=True)
    if across:
        axes.invert_yaxis()
        axes.set_xlabel(axes.get_title(loc="left"))
        axes.set_title("")
    if len(shape.series) > 1 or (shape.in_time and len(shape.categories) * SIGN_WIDTH * 5 > width):
        axes.grid(axis="x" if across else "y")
        return
    values.set_visible(False)  # each bar shows its value
    if across:
        axes.set_title(axes.get_xlabel())
    numbers = shape.series[0].numbers
    write = _label(figure, numbers)
    for place, value in enumerate(numbers):
        if value is not None:
            text = write(value)
            at = (value, place) if across else (place, value)
            offset = ((5 if value >= 0 else -5), 0) if across else (0, 4 if value >= 0 else -4)
            side = {"ha": "left" if value >= 0 else "right", "va": "center"}
            side = side if across else {"ha": "center", "va": "bottom" if value >= 0 else "top"}
            axes.annotate(text, at, xytext=offset, textcoords="offset pixels", fontsize=11, **side)  # type: ignore[arg-type]
    low, high = min(0.0, *ends), max(0.0, *ends) or 1.0
    longest = max(len(write(value)) for value in numbers if value is not None) * SIGN_WIDTH if across else 0.0
    room = (
        (high / 2 - low / 2) * 2 * max(_ROOM_FOR_LABELS, (longest + _GAP) / (width / 2))
    )  # bars have about half of the width
    (axes.set_xlim if across else axes.set_ylim)(low - (room if low < 0 else 0), high + (room if high > 0 else 0))


def _label(figure: Figure, numbers: list[float | None]) -> Callable[[float], str]:
    """Return how the bars' values are written: to the same number of decimals, large ones in the short form of axes."""
    known = [abs(number) for number in numbers if number is not None]
    if figure.format.style == "auto" and max(known, default=0.0) < _LONG:
        return number_format(figure.format, known)
    return lambda number: compact(number, spec=figure.format)


@_mark.register
def _(shape: Bins, axes: Axes, figure: Figure, width: int) -> None:
    widths = [high - low for low, high in zip(shape.edges[:-1], shape.edges[1:], strict=True)]
    axes.bar(
        shape.edges[:-1], shape.counts, widths, align="edge", color=series_colour(0),
        edgecolor=stand_in("paper"), linewidth=1.0 if len(widths) < width / 8 else 0.0,
    )  # fmt: skip
    value_axis(axes.yaxis, shape.counts, NumberFormat(style="integer"), zero=True)
    around = widths[0] * 2 if len(widths) == 1 else 0.0  # one value is a bar, not a box that fills the chart
    number_axis(axes, shape.edges[0] - around, shape.edges[-1] + around, width, figure.format)
    axes.grid(axis="y")


@_mark.register
def _(shape: Points, axes: Axes, figure: Figure, width: int) -> None:
    size = 16 if len(figure.marks) > _FEW_DOTS else 40
    for index, cloud in enumerate(shape.clouds):
        axes.scatter(
            cloud.x, cloud.y, s=size, color=series_colour(index), alpha=0.6, linewidths=0, clip_on=False,  # type: ignore[arg-type]
        )  # fmt: skip
    places = sorted(place for cloud in shape.clouds for place in cloud.x)
    if shape.diagonal:
        ends = [min(places[0], *figure.marks), max(places[-1], *figure.marks)]
        axes.plot(ends, ends, color=stand_in("muted"), linewidth=1.0, linestyle=_DOTS)
        value_axis(axes.yaxis, ends, figure.format)
        number_axis(axes, *axes.get_ylim(), width, figure.format)
    else:
        value_axis(axes.yaxis, figure.marks, figure.format)
        _position_axis(axes, places, width, figure)
    axes.grid(axis="y")


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
    category_axis(axes.yaxis, [box.name for box in shape.boxes], width)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel(axes.get_title(loc="left"))
    axes.set_title("")
    value_axis(axes.xaxis, list(figure.numbers), figure.format)
    axes.grid(axis="x")


@_mark.register
def _(shape: Grid, axes: Axes, figure: Figure, width: int) -> None:
    largest = max(abs(value) for value in figure.marks) or 1.0
    least = min(figure.marks) if min(figure.marks) > 0 else 0.0
    longest = max(len(compact(value, spec=figure.format)) for value in figure.marks)
    labelled = (width - 90) / max(len(shape.x), 1) > max(_LEAST_LABELLED_CELL, longest * SIGN_WIDTH)
    for down, line in enumerate(shape.values):
        for across, value in enumerate(line):
            if value is None:
                continue
            share = min(0.08 + 0.92 * (abs(value) - least) / (largest - least), 1.0) if largest > least else 0.5
            colour = series_colour(0 if value >= 0 else 1)
            axes.add_patch(Rectangle((across - 0.48, down - 0.46), 0.96, 0.92, color=colour, alpha=share, linewidth=0))
            if labelled:
                text = compact(value, spec=figure.format)
                ink = stand_in("paper" if share > _DARK_CELL else "ink")
                axes.text(across, down, text, ha="center", va="center", fontsize=10, color=ink)
    axes.set_xlim(-0.5, len(shape.x) - 0.5)
    axes.set_ylim(len(shape.y) - 0.5, -0.5)
    category_axis(axes.yaxis, shape.y, width)
    beside = max(len(label.get_text()) for label in axes.get_yticklabels()) * SIGN_WIDTH
    category_axis(axes.xaxis, shape.x, width, room=max(width * 0.9 - beside, 1.0))
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _position_axis(axes: Axes, positions: list[Any], width: int, figure: Figure) -> None:
    """Label ascending positions, numbers or times, along the x axis."""
    if isinstance(positions[0], date):
        time_axis(axes, positions, width)
    else:
        number_axis(axes, positions[0], positions[-1], width, figure.x_format)
