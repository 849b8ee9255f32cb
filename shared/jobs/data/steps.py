"""The declarative steps of a transformation.

Rows keep their order through `select`, `rename`, `cast`, `filter`, `drop_missing`, `fill_missing`, `derive`
and `limit`; after any other step their order is undefined until the next `sort`. In a float column,
not-a-number counts as missing.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.contract.names import ColumnName
from shared.contract.params import Component
from shared.jobs.data.expressions import BoundedExpression, Scalar

_SPECIFIER = re.compile(r"%(?:[aAbBcdfgGHIjmMnpSuUVwWxXyYzZT%]|-[dHIjmMSy])")  # of DuckDB's strptime

BadRows = Literal["fail", "null", "reject"]
SqlText = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
CastType = Literal["integer", "float", "decimal", "string", "boolean", "date", "timestamp", "timestamptz", "time"]
MeasureFunction = Literal[
    "sum", "mean", "min", "max", "count", "count_distinct", "median", "quantile", "stddev", "first", "last"
]
WindowFunction = Literal[
    "row_number", "rank", "dense_rank", "lag", "lead",
    "cumulative_sum", "cumulative_mean", "cumulative_min", "cumulative_max", "cumulative_count",
    "moving_sum", "moving_mean", "moving_min", "moving_max",
]  # fmt: skip


def _distinct(names: list[str]) -> list[str]:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{repeated[0]!r} is named more than once")
    return names


def _strptime(text: str) -> str:
    if "%" in (rest := _SPECIFIER.sub("", text)):
        unknown = rest[rest.index("%") :][:2]
        raise ValueError(f"{unknown!r} is not a supported strptime specifier; write a percent sign as '%%'")
    return text


Columns = Annotated[list[ColumnName], AfterValidator(_distinct)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SortKey(_Part):
    """One column of a sort order."""

    column: ColumnName = Field(description="Column to order by.")
    order: Literal["asc", "desc"] = Field(default="asc", description="Ascending or descending.")
    missing: Literal["first", "last"] = Field(default="last", description="Position of missing values.")


class SelectStep(_Part):
    """Keep some columns, in this order."""

    op: Literal["select"] = Field(description="Discriminator.")
    columns: Columns = Field(min_length=1, max_length=1_000, description="Columns to keep.")


class RenameStep(_Part):
    """Rename columns."""

    op: Literal["rename"] = Field(description="Discriminator.")
    columns: dict[ColumnName, ColumnName] = Field(min_length=1, max_length=1_000, description="New name per old name.")


class CastTo(_Part):
    """A type to convert to, with its format."""

    type: CastType = Field(description="The new type.")
    format: Annotated[str, AfterValidator(_strptime)] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Format of a `date` or `timestamp` (strptime); default: ISO 8601 with a year of four digits.",
        examples=["%d.%m.%Y"],
    )
    precision: int | None = Field(default=None, ge=1, le=38, description="Digits of a `decimal`; default: 18.")
    scale: int | None = Field(
        default=None,
        ge=0,
        le=38,
        description="Digits of a `decimal` after the point; it is rounded to them; default: 3.",
    )

    drop_time: bool = Field(
        default=False,
        description="Whether a `date` is made of values with a time, too (of instants: the day in UTC); default: only "
        "of midnights.",
    )
    drop_offset: bool = Field(
        default=False,
        description="Whether a `timestamp` is made of instants and texts with an offset, too: their time in UTC.",
    )

    @property
    def digits(self) -> tuple[int, int]:
        """Precision and scale of a `decimal`."""
        return (18 if self.precision is None else self.precision), (3 if self.scale is None else self.scale)

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        if self.format and self.type not in {"date", "timestamp"}:
            raise ValueError(f"'format' has no meaning for type {self.type!r}; it is for 'date' and 'timestamp'")
        if self.type != "decimal" and (self.precision, self.scale) != (None, None):
            raise ValueError(f"'precision' and 'scale' have no meaning for type {self.type!r}; they are for 'decimal'")
        for name, kind in (("drop_time", "date"), ("drop_offset", "timestamp")):
            if getattr(self, name) and self.type != kind:
                raise ValueError(f"{name!r} has no meaning for type {self.type!r}; it is for {kind!r}")
        precision, scale = self.digits
        if scale > precision:
            raise ValueError(f"'scale' ({scale}) is larger than 'precision' ({precision})")
        return self


class CastStep(_Part):
    """Convert columns to another type; `bad_rows` decides about values that cannot be converted.

    A number with decimals is not an integer and is not rounded.
    """

    op: Literal["cast"] = Field(description="Discriminator.")
    columns: dict[ColumnName, CastType | CastTo] = Field(
        min_length=1, max_length=1_000, description="New type per column, or the type with its format."
    )


class FilterStep(_Part):
    """Keep the rows where a condition is true; a missing condition counts as false."""

    op: Literal["filter"] = Field(description="Discriminator.")
    where: BoundedExpression = Field(description="Boolean expression.")


class DropMissingStep(_Part):
    """Drop rows with a missing value."""

    op: Literal["drop_missing"] = Field(description="Discriminator.")
    columns: Columns | None = Field(
        default=None, min_length=1, max_length=1_000, description="Columns to check; default: all."
    )


class FillMissingStep(_Part):
    """Replace missing values."""

    op: Literal["fill_missing"] = Field(description="Discriminator.")
    columns: dict[ColumnName, Scalar] = Field(
        min_length=1,
        max_length=1_000,
        description="Value per column, of the column's type (dates as ISO 8601 text).",
    )


class DeduplicateStep(_Part):
    """Keep one of the rows that have equal values in some columns."""

    op: Literal["deduplicate"] = Field(description="Discriminator.")
    columns: Columns | None = Field(
        default=None, min_length=1, max_length=1_000, description="Columns that must be equal; default: all."
    )
    keep: Literal["first", "last"] = Field(default="first", description="Which row to keep.")
    order_by: list[SortKey] = Field(
        default=[], max_length=100, description="Order that defines first and last; default: the order of the rows."
    )


class DeriveStep(_Part):
    """Add or replace columns; every expression sees the columns as they were before the step."""

    op: Literal["derive"] = Field(description="Discriminator.")
    columns: dict[ColumnName, BoundedExpression] = Field(
        min_length=1, max_length=100, description="Expression per new column."
    )


class JoinStep(_Part):
    """Join with a second dataset on equal keys; missing keys match nothing. The key columns occur once."""

    op: Literal["join"] = Field(description="Discriminator.")
    input: ColumnName = Field(description="Name of the second dataset in `inputs`.")
    how: Literal["inner", "left", "right", "full", "semi", "anti"] = Field(
        default="inner",
        description="Rows to keep: those with a match, all left, all right, all; `semi` and `anti` keep left "
        "rows with and without a match and add no column.",
    )
    on: dict[ColumnName, ColumnName] = Field(
        min_length=1, max_length=100, description="Column of the second dataset per column of the first."
    )
    suffix: str = Field(
        default="_right",
        min_length=1,
        max_length=32,
        pattern=r"^[A-Za-z0-9_]+$",
        description="Added to a column of the second dataset whose name is taken.",
    )


class Measure(_Part):
    """One aggregated column. Missing values are ignored; if all are missing, so is the result (a count is 0)."""

    function: MeasureFunction = Field(
        description="Aggregate function. `stddev` is that of a sample; `quantile` interpolates linearly."
    )
    column: ColumnName | None = Field(
        default=None, description="Column to aggregate; optional only for `count`, which then counts rows."
    )
    quantile: float | None = Field(default=None, ge=0, le=1, description="The quantile; 0.5 is the median.")
    order_by: list[SortKey] = Field(default=[], max_length=100, description="Order for `first` and `last`.")

    @model_validator(mode="after")
    def _fits_function(self) -> Self:
        if self.column is None and self.function != "count":
            raise ValueError(f"{self.function!r} needs 'column'")
        if (self.quantile is None) == (self.function == "quantile"):
            raise ValueError("set 'quantile' (0 to 1) for the function 'quantile' and for no other")
        if bool(self.order_by) != (self.function in {"first", "last"}):
            raise ValueError("set 'order_by' only for the functions 'first' and 'last'")
        return self


class AggregateStep(_Part):
    """Group rows and aggregate columns. Missing values form a separate group."""

    op: Literal["aggregate"] = Field(description="Discriminator.")
    group_by: Columns = Field(max_length=100, description="Columns to group by; empty: one row for all.")
    measures: dict[ColumnName, Measure] = Field(min_length=1, max_length=1_000, description="New columns.")


class SortStep(_Part):
    """Order the rows."""

    op: Literal["sort"] = Field(description="Discriminator.")
    by: list[SortKey] = Field(min_length=1, max_length=100, description="Columns to sort by, most significant first.")


class LimitStep(_Part):
    """Keep a range of rows, in their order."""

    op: Literal["limit"] = Field(description="Discriminator.")
    count: int = Field(ge=0, le=2**53, description="Rows to keep.")
    offset: int = Field(default=0, ge=0, le=2**53, description="Rows to skip before them.")


class WindowColumn(_Part):
    """One column computed over neighbouring rows."""

    function: WindowFunction = Field(
        description="`cumulative_*` use all rows up to this one, `moving_*` only the last `rows` of them."
    )
    column: ColumnName | None = Field(default=None, description="Input column; none for the rank functions.")
    offset: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Distance in rows of `lag` and `lead`; default: 1."
    )
    rows: int | None = Field(default=None, ge=1, le=1_000_000, description="Number of rows that `moving_*` use.")

    @model_validator(mode="after")
    def _fits_function(self) -> Self:
        ranks = self.function in {"row_number", "rank", "dense_rank"}
        if ranks == (self.column is not None):
            raise ValueError(f"{self.function!r} {'takes no' if ranks else 'needs'} 'column'")
        if self.function.startswith("moving_") == (self.rows is None):
            raise ValueError("set 'rows' for the functions 'moving_*' and for no other")
        if self.offset is not None and self.function not in {"lag", "lead"}:
            raise ValueError("set 'offset' only for the functions 'lag' and 'lead'")
        return self


class WindowStep(_Part):
    """Add columns computed over the sorted rows of a partition."""

    op: Literal["window"] = Field(description="Discriminator.")
    partition_by: Columns = Field(
        default=[], max_length=100, description="Columns that split the rows; empty: one partition."
    )
    order_by: list[SortKey] = Field(min_length=1, max_length=100, description="Order within a partition.")
    columns: dict[ColumnName, WindowColumn] = Field(min_length=1, max_length=100, description="New columns.")


Step = Annotated[
    SelectStep
    | RenameStep
    | CastStep
    | FilterStep
    | DropMissingStep
    | FillMissingStep
    | DeduplicateStep
    | DeriveStep
    | JoinStep
    | AggregateStep
    | SortStep
    | LimitStep
    | WindowStep,
    Field(discriminator="op"),
    Component("TransformStep"),
]
