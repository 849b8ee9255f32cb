"""Describe a chart in words and as a table, for readers who cannot see it or need the figures."""

from __future__ import annotations

from typing import Any

from shared.jobs.charts import NumberFormat
from worker.pages.content.document import Heading, Row, Table
from worker.pages.content.shapes import Bars, Bins, Boxes, Figure, Grid, Lines, Points
from worker.pages.content.values import number_format, written

_KINDS = {
    "line": "Line chart", "bar": "Bar chart", "histogram": "Histogram", "scatter": "Scatter chart",
    "box": "Box chart", "heat_map": "Heat map",
}  # fmt: skip
_PLAIN = NumberFormat()


def table_of(figure: Figure) -> Table:
    """Return the figures of a chart as a table."""
    headings, rows = _table(figure)
    return Table(figure.title, headings, lambda limit: iter(rows[:limit]), len(rows))


def _table(figure: Figure) -> tuple[list[Heading], list[Row]]:
    x, y = figure.x_label or "x", figure.y_label or "value"
    match figure.shape:
        case Lines(x=positions, series=series) | Bars(categories=positions, series=series):
            headings = [Heading(x, figure.x_format), *(Heading(one.name, figure.format) for one in series)]
            return headings, [(at, *(one.numbers[i] for one in series)) for i, at in enumerate(positions)]
        case Bins(edges=edges, counts=counts):
            headings = [Heading("from", figure.format), Heading("to", figure.format), Heading("rows")]
            return headings, list(zip(edges[:-1], edges[1:], counts, strict=True))
        case Points(clouds=clouds):
            named = any(cloud.name for cloud in clouds)
            headings = [*([Heading("group")] if named else []), Heading(x), Heading(y, figure.format)]
            points = [(cloud.name, *at) for cloud in clouds for at in zip(cloud.x, cloud.y, strict=True)]
            return headings, points if named else [point[1:] for point in points]
        case Boxes(boxes=boxes):
            names = ["low whisker", "first quartile", "median", "third quartile", "high whisker"]
            headings = [Heading(x), Heading("rows"), *(Heading(n, figure.format) for n in names), Heading("outside")]
            return headings, [(b.name, b.count, b.low, b.q1, b.median, b.q3, b.high, b.outlier_count) for b in boxes]
        case Grid(x=across, y=down, values=values):
            headings = [Heading(y), *(Heading(name, figure.format) for name in across)]
            return headings, [(name, *line) for name, line in zip(down, values, strict=True)]


def description(figure: Figure) -> str:
    """Return a description of the chart, computed from its figures."""
    kind = _KINDS.get(figure.kind, "Chart")
    if not figure.marks:
        return f"{kind} without data."
    return f"{kind} of {figure.row_count:,} rows. {' '.join(_sentences(figure))}"


def _sentences(figure: Figure) -> list[str]:
    def say(value: Any) -> str:
        return written(value, number_format(figure.format, [value]))

    match figure.shape:
        case Lines(x=x, series=series):
            return [
                f"{_named(one.name)} from {say(known[0][1])} at {_at(known[0][0])} to {say(known[-1][1])} at "
                f"{_at(known[-1][0])}; lowest {say(min(v for _, v in known))}, highest {say(max(v for _, v in known))}."
                for one in series
                if (known := [(at, v) for at, v in zip(x, one.numbers, strict=True) if v is not None])
            ]
        case Bars(categories=names, series=series):
            return [
                f"{_named(one.name)}: largest {_at(max(pairs)[1])} with {say(max(pairs)[0])}, "
                f"smallest {_at(min(pairs)[1])} with {say(min(pairs)[0])}, of {len(names)} categories."
                for one in series
                if (pairs := [(v, name) for name, v in zip(names, one.numbers, strict=True) if v is not None])
            ]
        case Bins(edges=edges, counts=counts):
            peak = counts.index(max(counts))
            where = f"between {say(edges[peak])} and {say(edges[peak + 1])}"
            return [f"Values from {say(edges[0])} to {say(edges[-1])}; most rows, {counts[peak]:,}, {where}."]
        case Points(clouds=clouds):
            ys = [y for cloud in clouds for y in cloud.y]
            xs: list[Any] = [x for cloud in clouds for x in cloud.x]
            return [
                f"{len(ys):,} points; x from {_at(min(xs))} to {_at(max(xs))}, y from {say(min(ys))} to {say(max(ys))}."
            ]
        case Boxes(boxes=boxes):
            return [
                f"{_at(box.name)}: median {say(box.median)}, middle half from {say(box.q1)} to {say(box.q3)}, "
                f"{box.outlier_count:,} outside the whiskers."
                for box in boxes
            ]
        case Grid(x=across, y=down, values=values):
            cells = [
                (v, x, y)
                for y, line in zip(down, values, strict=True)
                for x, v in zip(across, line, strict=True)
                if v is not None
            ]
            high, low = max(cells), min(cells)
            ends = [f"{say(value)} at {x}, {y}" for value, x, y in (high, low)]
            return [f"{len(down)} by {len(across)} cells; highest {ends[0]}; lowest {ends[1]}."]


def _named(name: str) -> str:
    return name or "Values"


def _at(value: Any) -> str:
    return written(value, number_format(_PLAIN, [value]))
