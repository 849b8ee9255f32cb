"""The declarative steps of a transformation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared.jobs.names import ColumnName

BadRows = Literal["fail", "null", "reject"]
SqlText = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DropMissing(_Step):
    """Drop rows with a missing value."""

    op: Literal["drop_missing"] = Field(description="Discriminator.")
    columns: list[ColumnName] | None = Field(
        default=None, min_length=1, max_length=1_000, description="Columns to look at; default: all."
    )


class Cast(_Step):
    """Convert columns to another type."""

    op: Literal["cast"] = Field(description="Discriminator.")
    columns: dict[ColumnName, str] = Field(description="New type per column.", min_length=1, max_length=1_000)


class Measure(_Step):
    """One aggregated column."""

    function: Literal["sum", "count"] = Field(description="Aggregate function.")
    column: ColumnName | None = Field(default=None, description="Column to aggregate; none only for `count`.")


class Aggregate(_Step):
    """Group rows and aggregate columns."""

    op: Literal["aggregate"] = Field(description="Discriminator.")
    group_by: list[ColumnName] = Field(max_length=100, description="Columns to group by; empty: one row for all.")
    measures: dict[ColumnName, Measure] = Field(min_length=1, max_length=1_000, description="New columns.")


Step = Annotated[DropMissing | Cast | Aggregate, Field(discriminator="op")]
