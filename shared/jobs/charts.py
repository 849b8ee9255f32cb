"""The charts of a report: declarative, so that a chart can be checked, described and shown as a table.

All charts aggregate in the worker. A line has a point per value of x, a bar chart a bar per category; a scatter
chart of many rows shows a deterministic sample, which the page states. Rows in which a needed value is missing or
not finite are omitted, and counted on the page.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from shared.contract.names import ColumnName
from shared.contract.params import Params
from shared.jobs.data.steps import Measure

TimeUnit = Literal["year", "quarter", "month", "week", "day", "hour", "minute", "weekday", "hour_of_day"]
LineUnit = Literal["year", "quarter", "month", "week", "day", "hour", "minute", "hour_of_day"]
DatasetName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Heading = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Label = Annotated[str, StringConstraints(max_length=100)]
MeasureName = Annotated[str, StringConstraints(min_length=1, max_length=100)]

MAIN_DATASET = "dataset"


class NumberFormat(Params):
    """Format of numbers."""

    style: Literal["auto", "integer", "decimal", "percent", "bytes", "duration"] = Field(
        default="auto",
        description="`percent` takes a ratio (0.12 is 12 %), `bytes` a size in bytes, `duration` seconds.",
    )
    decimals: int | None = Field(default=None, ge=0, le=10, description="Digits after the point; default: by style.")
    unit: str = Field(default="", max_length=12, description="Unit after the number.", examples=["€", "kg"])


class _Chart(Params):
    title: Heading = Field(description="Title of the chart; also names it in errors.")
    dataset: DatasetName = Field(default=MAIN_DATASET, description="Name of its dataset.")
    caption: str = Field(default="", max_length=1_000, description="Text below the chart.")
    x_label: Label = Field(default="", description="Label of the x axis; default: the column.")
    y_label: Label = Field(default="", description="Label of the y axis; default: the measure or column.")
    format: NumberFormat = Field(default=NumberFormat(), description="Format of the values.")


class _Series(_Chart):
    y: dict[MeasureName, Measure] = Field(
        min_length=1, max_length=8, description="Values to draw, by name: aggregates of the rows with the same x."
    )
    split_by: ColumnName | None = Field(
        default=None, description="A series for each value of this column (the eight with most rows); one measure only."
    )

    @model_validator(mode="after")
    def _one_measure_if_split(self) -> Self:
        if self.split_by is not None and len(self.y) > 1:
            raise ValueError("'split_by' needs exactly one measure in 'y'")
        return self


class LineChart(_Series):
    """Measures along a number or a time. More than 1,000 points are grouped into 400 equal intervals of x."""

    kind: Literal["line"] = Field(description="Discriminator.")
    x: ColumnName = Field(description="Column of numbers, dates or times.")
    x_unit: LineUnit | None = Field(default=None, description="Truncate times to this unit, for example `month`.")


class BarChart(_Series):
    """Measures by category."""

    kind: Literal["bar"] = Field(description="Discriminator.")
    x: ColumnName = Field(description="Column of categories.")
    x_unit: TimeUnit | None = Field(default=None, description="Truncate times to this unit, for example `month`.")
    order: Literal["value", "x"] | None = Field(
        default=None,
        description="Largest first, or in the order of x; default: times in order, other values largest first.",
    )
    stacked: bool = Field(default=False, description="Put series on top of each other instead of side by side.")
    limit: int = Field(default=20, ge=1, le=60, description="Maximum number of categories; the page states the total.")


class Histogram(_Chart):
    """Distribution of a column: rows per interval of equal width; only the last interval includes its upper edge."""

    kind: Literal["histogram"] = Field(description="Discriminator.")
    x: ColumnName = Field(description="Column of numbers.")
    bins: int = Field(default=30, ge=2, le=200, description="Number of intervals.")


class ScatterChart(_Chart):
    """Two columns of numbers against each other; for more than 1,500 rows, a sample spread evenly over the file."""

    kind: Literal["scatter"] = Field(description="Discriminator.")
    x: ColumnName = Field(description="Column of numbers, dates or times.")
    y: ColumnName = Field(description="Column of numbers.")
    split_by: ColumnName | None = Field(
        default=None, description="A colour for each value of this column (the eight with most rows)."
    )


class BoxChart(_Chart):
    """Quartiles, whiskers to the last value within 1.5 interquartile ranges, and values outside (Tukey, 1977)."""

    kind: Literal["box"] = Field(description="Discriminator.")
    y: ColumnName = Field(description="Column of numbers.")
    x: ColumnName | None = Field(default=None, description="A box for each value of this column; default: one box.")
    limit: int = Field(default=20, ge=1, le=60, description="Maximum number of boxes; those with most rows are shown.")


class HeatMap(_Chart):
    """A measure by two categories, as a table of colours."""

    kind: Literal["heat_map"] = Field(description="Discriminator.")
    x: ColumnName = Field(description="Column of the horizontal categories.")
    y: ColumnName = Field(description="Column of the vertical categories.")
    x_unit: TimeUnit | None = Field(default=None, description="Truncate times to this unit, for example `hour_of_day`.")
    y_unit: TimeUnit | None = Field(default=None, description="Truncate times to this unit, for example `weekday`.")
    value: Measure = Field(
        default=Measure(function="count"), description="Value shown by the colour; default: number of rows."
    )
    limit: int = Field(
        default=40, ge=1, le=60, description="Maximum number of categories per axis; those with most rows are shown."
    )


Chart = LineChart | BarChart | Histogram | ScatterChart | BoxChart | HeatMap
