"""The computed content of a chart: small, plain, and independent of how it is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from shared.jobs.charts import NumberFormat

Position = float | int | date | datetime


@dataclass(frozen=True)
class Series:
    """Named values, one for each position of its chart; None where there is none."""

    name: str
    numbers: list[float | None]


@dataclass(frozen=True)
class Lines:
    """Series along ascending positions. `partial` are the numbers of those that the data cover in part."""

    x: list[Position]
    series: list[Series]
    partial: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Bars:
    """Series by category, side by side or on top of each other; `partial` as with `Lines`."""

    categories: list[str]
    series: list[Series]
    stacked: bool = False
    in_time: bool = False  # the categories are times and run from left to right
    partial: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Bins:
    """Counts per interval: `edges` has one more item than `counts`."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Cloud:
    """Points of one series, drawn in one colour."""

    name: str
    x: list[Position]
    y: list[float]


@dataclass(frozen=True)
class Points:
    """Clouds of points; with `diagonal` the line on which x and y are equal is drawn."""

    clouds: list[Cloud]
    diagonal: bool = False


@dataclass(frozen=True)
class Box:
    """Five figures of a group, and the farthest of the values outside its whiskers."""

    name: str
    count: int
    low: float
    q1: float
    median: float
    q3: float
    high: float
    outlier_count: int = 0
    outliers: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Boxes:
    """Boxes side by side."""

    boxes: list[Box]


@dataclass(frozen=True)
class Grid:
    """A value for each pair of categories: `values[row of y][column of x]`."""

    x: list[str]
    y: list[str]
    values: list[list[float | None]]


Shape = Lines | Bars | Bins | Points | Boxes | Grid


@dataclass(frozen=True)
class Figure:
    """A chart with its figures: the source of picture, table and description."""

    title: str
    kind: str
    shape: Shape
    row_count: int
    left_out_count: int = 0
    note: str = ""
    caption: str = ""
    x_label: str = ""
    y_label: str = ""
    format: NumberFormat = field(default_factory=NumberFormat)
    x_format: NumberFormat = field(default_factory=NumberFormat)  # of numbers along the x axis

    @property
    def drawn_count(self) -> int:
        """The number of marks in the picture."""
        return len(self.marks)

    @property
    def notes(self) -> list[str]:
        """What a reader should know, and how many rows are not in it."""
        rows = (
            "1 row without a finite value is"
            if self.left_out_count == 1
            else f"{self.left_out_count:,} rows without a finite value are"
        )
        left_out = f"{rows} left out." if self.left_out_count else ""
        return [note for note in (self.note, left_out) if note]

    @property
    def marks(self) -> list[Any]:
        """The values in the picture, in order."""
        match self.shape:
            case Lines(series=series) | Bars(series=series):
                return [value for one in series for value in one.numbers if value is not None]
            case Bins(counts=counts):
                return list(counts)
            case Points(clouds=clouds):
                return [value for cloud in clouds for value in cloud.y]
            case Boxes(boxes=boxes):
                return list(boxes)
            case Grid(values=rows):
                return [value for row in rows for value in row if value is not None]

    @property
    def numbers(self) -> Iterator[float]:
        """The numbers that axes and colours must cover."""
        match self.shape:
            case Bins(edges=edges):
                yield from edges
            case Boxes(boxes=boxes):
                for box in boxes:
                    yield from (box.low, box.high, *box.outliers)
            case Points(clouds=clouds):
                yield from (value for cloud in clouds for value in (*cloud.x, *cloud.y) if not isinstance(value, date))
            case Lines(x=x):
                yield from (value for value in (*x, *self.marks) if not isinstance(value, date))
            case _:
                yield from self.marks
