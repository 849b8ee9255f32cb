"""Give matplotlib's axes their ends, ticks and labels."""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from matplotlib.axis import XAxis

from worker.pages.charts.palette import stand_in
from worker.pages.charts.scales import Style, inner_ticks, moment, time_ticks, value_ticks
from worker.pages.content.values import compact, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from shared.jobs.charts import NumberFormat

PHONE = 500  # up to this width in pixels a drawing is made for a small screen
SIGN_WIDTH = 6.6  # of a character at 12 pixels, on average
_MARGIN = 0.015  # share of an axis of positions on both sides of the data
_STYLES_OF_COUNTS = {"auto", "integer", "decimal"}


def category_axis(axis: Axis, names: Sequence[str], width: int, *, room: float | None = None) -> None:
    """Label positions 0, 1, ... with `names`; only every n-th if they do not fit side by side.

    `room` are the pixels that an x axis has; default: most of `width`.
    """
    most = 30 if width > PHONE else 20
    short = [printable(name, most).replace("\n", " ") for name in names]
    if len(set(short)) < len(set(names)):  # they differ at their ends
        short = [_without_middle(printable(name).replace("\n", " "), most) for name in names]
    longest = max((len(name) for name in short), default=1)
    every = 1
    if isinstance(axis, XAxis):
        every = max(1, math.ceil(len(short) * (longest * SIGN_WIDTH + 8) / (room or width * 0.88)))
    axis.set_ticks(list(range(0, len(short), every)), short[::every])
    for label in axis.get_ticklabels():
        label.set_color(stand_in("ink"))


def _without_middle(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"


def value_axis(axis: Axis, values: Sequence[float], spec: NumberFormat, *, zero: bool | None = None) -> None:
    """End the axis at the ticks around `values`, and label these; see `value_ticks`."""
    ticks = value_ticks(values, style=spec.style, whole=whole(values, spec.style), zero=zero)
    axis.set_ticks(ticks, [compact(tick, spec=spec) for tick in ticks])
    if isinstance(axis, XAxis):
        axis.axes.set_xlim(ticks[0], ticks[-1])
    else:
        axis.axes.set_ylim(ticks[0], ticks[-1])


def number_axis(axes: Axes, low: float, high: float, width: int, spec: NumberFormat) -> None:
    """Label numbers between `low` and `high` along the x axis, which ends at these."""
    most = 8 if width > PHONE else 4
    ticks = inner_ticks(low, high, style=spec.style, whole=whole([low, high], spec.style), most=most)
    axes.xaxis.set_ticks(ticks, [compact(tick, spec=spec) for tick in ticks])
    margin = _MARGIN * (high / 2 - low / 2) * 2 or max(abs(low) * 0.1, 0.5)
    axes.set_xlim(low - margin, high + margin)


def time_axis(axes: Axes, times: Sequence[date], width: int) -> None:
    """Label ascending `times` along the x axis, which ends at these; a single one is in the middle of a day."""
    ticks = time_ticks(times, 8 if width > PHONE else 4)
    axes.xaxis.set_ticks([tick.at for tick in ticks], [tick.label for tick in ticks])  # type: ignore[arg-type]
    first, last = moment(times[0]), moment(times[-1])
    margin = (last - first) * _MARGIN or timedelta(hours=12)
    ends: list[Any] = [_moved(first, -margin), _moved(last, margin)]
    axes.set_xlim(*ends)


def whole(values: Sequence[float], style: Style) -> bool:
    """Return whether numbers between the whole numbers would say nothing: `values` are counts."""
    return style == "integer" or (style in _STYLES_OF_COUNTS and all(float(value).is_integer() for value in values))


def _moved(at: Any, by: timedelta) -> Any:
    try:
        return at + by
    except OverflowError:  # the calendar's first or last day
        return at
