# ruff: noqa: S608 - this module builds SQL from aliases and numbers
"""Compute the figures of a report's charts with DuckDB: at most a few thousand values, however many the rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import singledispatch
from typing import Any

from shared.errors import TaskFailure
from shared.jobs.charts import BarChart, BoxChart, Chart, HeatMap, Histogram, LineChart, ScatterChart, TimeUnit
from worker.pages.content.shapes import (
    Bars,
    Bins,
    Box,
    Boxes,
    Cloud,
    Figure,
    Grid,
    Lines,
    Points,
    Position,
    Series,
    Shape,
)
from worker.report.charts.periods import covered
from worker.report.data.selection import Selection, category
from worker.report.data.sources import Sources

MOST_POINTS = 1_000  # of a line; with more, x is divided into intervals
INTERVALS = 400
MOST_DOTS = 1_500  # of a scatter chart; with more, a sample is drawn
MOST_SERIES = 8
_OUTLIERS_DRAWN = 30
_SPREAD = 2_654_435_761  # 2**32 / golden ratio: multiples of it, modulo 2**32, are evenly spread (Knuth, TAOCP 3, 6.4)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # timestamps of datasets have no zone


def draw(chart: Chart, sources: Sources, where: str) -> Figure:
    """Return the figures of `chart`; `where` names it in messages.

    Raises `TaskFailure`: ``unknown_column``, ``wrong_type``.
    """
    plan = _Plan(Selection(sources.tables[chart.dataset], f"{where} ({chart.kind} chart {chart.title!r})"), sources)
    shape, x_label, y_label = _shape(chart, plan)
    return Figure(
        title=chart.title,
        kind=chart.kind,
        shape=shape,
        row_count=plan.row_count,
        left_out_count=plan.chosen.table.row_count - plan.row_count,
        note=" ".join(plan.notes),
        caption=chart.caption,
        x_label=chart.x_label or x_label,
        y_label=chart.y_label or y_label,
        format=chart.format,
    )


class _Plan:
    """A chart's query and its notes."""

    def __init__(self, chosen: Selection, sources: Sources) -> None:
        self.chosen = chosen
        self.notes: list[str] = []
        self.row_count = 0
        self._sources = sources

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Run `sql`, in which ``picked`` is the selection."""
        return self._sources.rows(f"WITH picked AS ({self.chosen.sql}) {sql}")

    def count(self, *more: str) -> tuple[Any, ...]:
        """Count the selected rows, and return the figures `more` over them."""
        ((self.row_count, *figures),) = self.rows(f"SELECT {', '.join(('count(*)', *more))} FROM picked")
        return tuple(figures)

    def partial(self, key: str, at: str | None, unit: TimeUnit | None, shown: list[Any]) -> frozenset[int]:
        """Return which of the `shown` periods the data cover in part, and add a note if there are any."""
        cover = covered(self.rows, key, at, unit) if at is not None else None
        found = cover.among(shown) if cover else frozenset()
        if cover and found:
            self.notes.append(cover.note)
        return found

    def most_frequent(self, key: str, limit: int, what: str) -> str:
        """Return SQL for the `limit` values of `key` with most rows, and add a note if there are more."""
        ((count,),) = self.rows(f"SELECT count(*) FROM (SELECT {key} FROM picked GROUP BY 1)")
        if count > limit:
            self.notes.append(f"{limit} of {count:,} values of {what}: those with most rows.")
        return f"SELECT {key} AS k FROM picked GROUP BY 1 ORDER BY count(*) DESC, 1 NULLS LAST LIMIT {limit}"


@singledispatch
def _shape(chart: Any, _: _Plan) -> tuple[Shape, str, str]:
    raise TypeError(f"{type(chart).__name__} is not a chart")


@_shape.register
def _(chart: LineChart, plan: _Plan) -> tuple[Shape, str, str]:
    chosen = plan.chosen
    x = chosen.position(chart.x, chart.x_unit)
    split = chosen.key(chart.split_by) if chart.split_by is not None else None
    measures = [chosen.measure(measure, numeric=True) for measure in chart.y.values()]
    at = chosen.moment(chart.x, chart.x_unit)
    is_time = chosen.table.is_time(chart.x) and chart.x_unit != "hour_of_day"
    number = f"CAST(epoch_us({x}) AS DOUBLE)" if is_time else f"CAST({x} AS DOUBLE)"
    distinct, low, high = plan.count(f"count(DISTINCT {x})", f"min({number})", f"max({number})")
    key, intervals = x, distinct > MOST_POINTS
    if intervals:
        key = _interval(number, low, high, INTERVALS)
        plan.notes.append(
            f"{distinct:,} different values of {chart.x}: each point stands for one of {INTERVALS} equal intervals."
        )
    found = _grouped(plan, chart, key, split, measures)
    ordered = sorted({row[0] for row in found.rows})

    def place(value: Any) -> Position:
        if not intervals:
            return value if is_time else float(value)
        start = low + (high - low) * (value / INTERVALS)
        return _EPOCH + timedelta(microseconds=start) if is_time else float(start)

    partial = plan.partial(x, None if intervals else at, chart.x_unit, ordered)
    return Lines([place(value) for value in ordered], found.series(ordered), partial), chart.x, found.label


@_shape.register
def _(chart: BarChart, plan: _Plan) -> tuple[Shape, str, str]:
    chosen = plan.chosen
    x = chosen.key(chart.x, chart.x_unit)
    split = chosen.key(chart.split_by) if chart.split_by is not None else None
    measures = [chosen.measure(measure, numeric=True) for measure in chart.y.values()]
    at = chosen.moment(chart.x, chart.x_unit)
    (count,) = plan.count(f"count(DISTINCT {x})")
    order = chart.order or ("x" if chosen.table.is_time(chart.x) else "value")
    by = "k NULLS LAST" if order == "x" else "v DESC NULLS LAST, k NULLS LAST"
    top = f"SELECT {x} AS k, {measures[0]} AS v FROM picked GROUP BY 1 ORDER BY {by} LIMIT {chart.limit}"
    if count > chart.limit:
        which = "the first" if order == "x" else "the largest"
        plan.notes.append(f"{chart.limit} of {count:,} values of {chart.x}: {which}.")
    ordered = [key for key, _ in plan.rows(top)]
    found = _grouped(plan, chart, x, split, measures, among=top)
    categories = [category(key, chart.x_unit) for key in ordered]
    in_time = order == "x" and chosen.table.is_time(chart.x)
    partial = plan.partial(x, at, chart.x_unit, ordered)
    return Bars(categories, found.series(ordered), chart.stacked, in_time, partial), chart.x, found.label


@_shape.register
def _(chart: Histogram, plan: _Plan) -> tuple[Shape, str, str]:
    x = plan.chosen.number(chart.x)
    low, high = plan.count(f"min({x})", f"max({x})")
    if plan.row_count == 0:
        return Bins([], []), chart.x, "rows"
    if low == high:
        return Bins([low - 0.5, high + 0.5], [plan.row_count]), chart.x, "rows"
    counted = dict(plan.rows(f"SELECT {_interval(x, low, high, chart.bins)}, count(*) FROM picked GROUP BY 1"))
    edges = [low + (high / 2 - low / 2) * (2 * index / chart.bins) for index in range(chart.bins)] + [high]
    return Bins(edges, [counted.get(index, 0) for index in range(chart.bins)]), chart.x, "rows"


@_shape.register
def _(chart: ScatterChart, plan: _Plan) -> tuple[Shape, str, str]:
    chosen = plan.chosen
    x, y = chosen.position(chart.x), chosen.number(chart.y)
    split = chosen.key(chart.split_by) if chart.split_by is not None else None
    plan.count()
    source = "picked"
    if split is not None:
        top = plan.most_frequent(split, MOST_SERIES, chart.split_by or "")
        source = f"(SELECT picked.* FROM picked JOIN ({top}) AS top ON {split} IS NOT DISTINCT FROM top.k)"
    numbered = f"SELECT {x}, {y}, {split or 'NULL'} AS s, row_number() OVER () - 1 AS n FROM {source}"
    spread = f"((n % 4294967296) * {_SPREAD}) % 4294967296"
    sample = f"SELECT * FROM ({numbered}) ORDER BY {spread} LIMIT {MOST_DOTS}"
    clouds: dict[Any, list[tuple[Any, float]]] = {}
    for across, up, group, _ in plan.rows(f"SELECT * FROM ({sample}) ORDER BY n"):
        clouds.setdefault(group, []).append((across, up))
    if plan.row_count > MOST_DOTS:
        plan.notes.append(f"A sample of {MOST_DOTS:,} of {plan.row_count:,} rows, spread evenly over the dataset.")
    named = sorted(((category(group) if split else "", dots) for group, dots in clouds.items()), key=lambda one: one[0])
    return Points([Cloud(n, [d[0] for d in dots], [d[1] for d in dots]) for n, dots in named]), chart.x, chart.y


@_shape.register
def _(chart: BoxChart, plan: _Plan) -> tuple[Shape, str, str]:
    chosen = plan.chosen
    y = chosen.number(chart.y)
    key = chosen.key(chart.x) if chart.x is not None else "NULL"
    plan.count()
    top = plan.most_frequent(key, chart.limit, chart.x or "")
    quartiles = f"""quarters AS (SELECT {key} AS k, count(*) AS n, quantile_cont({y}, 0.25) AS q1,
        quantile_cont({y}, 0.5) AS q2, quantile_cont({y}, 0.75) AS q3 FROM picked GROUP BY 1),
      fenced AS (SELECT * FROM quarters JOIN ({top}) AS top ON quarters.k IS NOT DISTINCT FROM top.k),
      placed AS (SELECT fenced.*, {y} AS v, v BETWEEN q1 - 1.5 * (q3 - q1) AND q3 + 1.5 * (q3 - q1) AS inside
        FROM picked JOIN fenced ON {key} IS NOT DISTINCT FROM fenced.k)"""
    levels = ", ".join(f"{step / (_OUTLIERS_DRAWN - 1)!r}" for step in range(_OUTLIERS_DRAWN))
    found = plan.rows(f""", {quartiles} SELECT any_value(k), any_value(n), any_value(q1), any_value(q2), any_value(q3),
        min(v) FILTER (WHERE inside), max(v) FILTER (WHERE inside), count(*) FILTER (WHERE NOT inside),
        CASE WHEN count(*) FILTER (WHERE NOT inside) > {_OUTLIERS_DRAWN}
          THEN quantile_disc(v, [{levels}]) FILTER (WHERE NOT inside)
          ELSE list(v ORDER BY v) FILTER (WHERE NOT inside) END
        FROM placed GROUP BY k ORDER BY k NULLS LAST""")
    boxes = [
        Box(category(k) if chart.x is not None else chart.y, n, low, q1, q2, q3, high, outside, list(values or []))
        for k, n, q1, q2, q3, low, high, outside, values in found
    ]
    if any(box.outlier_count > _OUTLIERS_DRAWN for box in boxes):
        plan.notes.append(f"Of the values outside the whiskers, {_OUTLIERS_DRAWN} of a box are drawn, evenly chosen.")
    return Boxes(boxes), chart.x or "", chart.y


@_shape.register
def _(chart: HeatMap, plan: _Plan) -> tuple[Shape, str, str]:
    chosen = plan.chosen
    x, y = chosen.key(chart.x, chart.x_unit), chosen.key(chart.y, chart.y_unit)
    value = chosen.measure(chart.value, numeric=True)
    plan.count()
    tops = [plan.most_frequent(key, chart.limit, name) for key, name in ((x, chart.x), (y, chart.y))]
    columns, lines = ([k for (k,) in plan.rows(f"SELECT k FROM ({top}) ORDER BY 1 NULLS LAST")] for top in tops)
    cells = plan.rows(f"""SELECT {x}, {y}, {value} FROM picked
        JOIN ({tops[0]}) AS across ON {x} IS NOT DISTINCT FROM across.k
        JOIN ({tops[1]}) AS down ON {y} IS NOT DISTINCT FROM down.k GROUP BY 1, 2""")
    found = {(across, down): _number(cell) for across, down, cell in cells}
    values = [[found.get((across, down)) for across in columns] for down in lines]
    across_texts = [category(key, chart.x_unit) for key in columns]
    return Grid(across_texts, [category(key, chart.y_unit) for key in lines], values), chart.x, chart.y


def _interval(value: str, low: float, high: float, count: int) -> str:
    """Return SQL for the number of the interval, of `count` equal ones of `low` .. `high`; `high` is in the last.

    It computes with halves, because the whole range may be too large for a float.
    """
    fraction = f"({value} / 2 - {low / 2!r}) / {high / 2 - low / 2 or 1.0!r}"
    return f"CAST(least(greatest(floor({fraction} * {count}), 0), {count - 1}) AS INTEGER)"


class _Found:
    """Rows ``(key, group, value...)`` of a grouped query as series over ordered keys."""

    def __init__(self, rows: list[tuple[Any, ...]], names: list[str], groups: list[Any] | None) -> None:
        self.rows = rows
        self._names = names
        self._groups = groups

    @property
    def label(self) -> str:
        """The label of the values, if all have the same."""
        return self._names[0] if len(self._names) == 1 else ""

    def series(self, keys: list[Any]) -> list[Series]:
        """Return a series per group, or per measure without groups, with a value or None for each of `keys`."""
        if self._groups is not None:
            found = {(row[0], row[1]): _number(row[2]) for row in self.rows}
            return [Series(category(group), [found.get((key, group)) for key in keys]) for group in self._groups]
        by_key = {row[0]: row[2:] for row in self.rows}
        return [Series(n, [_number(by_key[key][i]) for key in keys]) for i, n in enumerate(self._names)]


def _grouped(
    plan: _Plan,
    chart: LineChart | BarChart,
    key: str,
    split: str | None,
    measures: list[str],
    *,
    among: str = "",
) -> _Found:
    """Aggregate by `key`, and by `split` if given; only for the keys `among`, if given."""
    groups, joins = None, ""
    if split is not None:
        top = plan.most_frequent(split, MOST_SERIES, chart.split_by or "")
        groups = [k for (k,) in plan.rows(f"SELECT k FROM ({top}) ORDER BY 1 NULLS LAST")]
        joins = f" JOIN ({top}) AS split ON {split} IS NOT DISTINCT FROM split.k"
    if among:
        joins += f" JOIN ({among}) AS top ON {key} IS NOT DISTINCT FROM top.k"
    sql = f"SELECT {key}, {split or 'NULL'}, {', '.join(measures)} FROM picked{joins} GROUP BY 1, 2"
    return _Found(plan.rows(sql), list(chart.y), groups)


def _number(value: Any) -> float | None:
    """Return the value of an aggregate as a float; None if it is missing or out of range."""
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TaskFailure(
            "wrong_type",
            f"A measure of a chart gives {value!r}, which is not a number.",
            remedy="Choose another function or column of the measure.",
        ) from None
