"""The maintenance family: keep tables in step, back up and restore, and clean up what is past its time."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.contract import Contract, Limits, Retry
from shared.jobs.names import ColumnName, SqlConnectionName, TableName
from shared.jobs.places import Params

_HOUR_S = 3600.0
_NETWORK_RETRY = Retry(max_retries=4, backoff_s=2, backoff_max_s=120)


class TableOf(Params):
    """A table of a named SQL connection."""

    connection: SqlConnectionName = Field(description="Name of a SQL connection, as configured on the workers.")
    table: TableName = Field(description="The table, `name` or `schema.name`.", examples=["sales", "public.sales"])


class ByWatermark(Params):
    """Copy the rows whose watermark is not below the highest one copied so far."""

    kind: Literal["watermark"] = Field(description="Discriminator.")
    column: ColumnName = Field(
        description="Column that grows with every insert and update: a number, a date or a time. Rows without a "
        "value in it are looked at every time."
    )
    overlap_s: float = Field(
        default=0.0,
        ge=0,
        le=366 * 86_400,
        description="How far before the highest watermark rows are looked at again, in seconds, where the column is a "
        "date or a time: for rows that were committed late.",
    )
    overlap_count: int = Field(
        default=0,
        ge=0,
        le=10**15,
        description="The same where the column is a number, in its own unit: for numbers given out and committed late.",
    )


class ByComparison(Params):
    """Look at every row of the source, and copy those that differ."""

    kind: Literal["full"] = Field(description="Discriminator.")
    delete_missing: bool = Field(
        default=False, description="Whether rows of the destination whose key the source has not are deleted."
    )
    most_deleted_ratio: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Largest part of the destination's rows, 0 to 1, that `delete_missing` may delete; beyond it the "
        "job fails and deletes nothing: a source that was emptied by mistake must not empty its copy.",
    )


SyncMode = Annotated[ByWatermark | ByComparison, Field(discriminator="kind")]


class SyncResult(BaseModel):
    """What a synchronisation changed. Insertions, updates and deletions include those of attempts before the last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="Where the rows came from, without credentials.", examples=["shop:orders"])
    destination: str = Field(description="Where the rows are now, without credentials.", examples=["warehouse:orders"])
    read_count: int = Field(ge=0, description="Rows of the source that were looked at.")
    inserted_count: int = Field(ge=0, description="Rows added.")
    updated_count: int = Field(ge=0, description="Rows whose values differed and were set.")
    deleted_count: int = Field(ge=0, description="Rows deleted because the source has them no more.")
    unchanged_count: int = Field(ge=0, description="Rows looked at that were the same already.")
    watermark_from: str | None = Field(description="Highest watermark before; null if there was none.")
    watermark_to: str | None = Field(description="Highest watermark now; null if there is none.")


class SyncData(
    Contract[SyncResult],
    kind="maintenance.sync_data",
    queue="maintenance",
    limits=Limits(soft_s=3 * _HOUR_S - 60, hard_s=3 * _HOUR_S),
    retry=_NETWORK_RETRY,
    examples=[
        {
            "source": {"connection": "shop", "table": "orders"},
            "destination": {"connection": "warehouse", "table": "orders"},
            "key": ["id"],
            "mode": {"kind": "watermark", "column": "updated_at", "overlap_s": 3600},
        },
        {
            "source": {"connection": "shop", "table": "customers"},
            "destination": {"connection": "warehouse", "table": "customers"},
            "key": ["id"],
            "mode": {"kind": "full", "delete_missing": True},
        },
    ],
):
    """Copy what is new and changed in a table to a table of another connection, by key.

    Rows go in batches; each is one transaction of the destination, and the watermark is part of it, so that a job that
    was interrupted goes on where it was. Safe to run twice, and at the same time as another one of the same tables.
    """

    source: TableOf = Field(description="The table to read.")
    destination: TableOf = Field(description="The table to bring up to date; made if it is not there.")
    key: list[ColumnName] = Field(
        min_length=1, max_length=16, description="Columns that identify a row, unique in the source."
    )
    mode: SyncMode = Field(description="How changed rows are found.")
    batch_rows: int = Field(
        default=50_000, ge=1, le=10_000_000, description="Rows a transaction; more where rows share a watermark."
    )

    @model_validator(mode="after")
    def _two_tables(self) -> Self:
        if self.source == self.destination:
            raise ValueError("'source' and 'destination' are the same table")
        return self
