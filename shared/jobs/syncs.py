"""The maintenance family: keep a table in step with a table or a query of another connection."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.contract.definition import Concurrency, Contract, Limits, Retry
from shared.contract.names import ColumnName
from shared.contract.params import Component, Params
from shared.jobs.data.places import TableOrQuery
from shared.jobs.maintenance import TableOf

_HOUR_S = 3600.0


class ByWatermark(Params):
    """Copy the rows whose watermark is at least the highest one copied so far."""

    kind: Literal["watermark"] = Field(description="Discriminator.")
    column: ColumnName = Field(
        description="Column that grows with every insert and update: a number, a date or a time. Rows without a "
        "value in it are read every time."
    )
    overlap_s: float = Field(
        default=0.0,
        ge=0,
        le=366 * 86_400,
        description="Overlap before the highest watermark that is read again, in seconds, if the column is a "
        "date or a time: for rows that were committed late.",
    )
    overlap_count: int = Field(
        default=0,
        ge=0,
        le=10**15,
        description="The same overlap if the column is a number, in its unit: for numbers that were committed late.",
    )
    when_emptied: Literal["fail", "refill"] = Field(
        default="fail",
        description="If the destination has no row although rows were copied before (truncated): `fail` the job, or "
        "`refill` it with all rows of the source. A destination that was dropped is always filled again.",
    )


class ByComparison(Params):
    """Read every row of the source, and copy those that differ."""

    kind: Literal["full"] = Field(description="Discriminator.")
    delete_missing: bool = Field(
        default=False, description="Whether rows of the destination whose key is missing in the source are deleted."
    )
    mark_missing: ColumnName | None = Field(
        default=None,
        description="Column of the destination that gets the time where the row's key is missing in the source, "
        "instead of a deletion, and NULL when it is back. Added if the table lacks it.",
    )
    most_deleted_ratio: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Maximum ratio of the destination's rows, 0 to 1, that may be deleted or marked as missing; beyond "
        "it the job fails and changes none, so that an accidentally emptied source does not empty its copy.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.delete_missing and self.mark_missing is not None:
            raise ValueError("set only one of 'delete_missing' and 'mark_missing'")
        return self


SyncMode = Annotated[ByWatermark | ByComparison, Field(discriminator="kind"), Component("SyncMode")]


class SyncResult(BaseModel):
    """Result of a synchronisation. Inserted, updated and deleted rows include those of earlier attempts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="Origin of the rows, without credentials.", examples=["shop:orders"])
    destination: str = Field(description="Place of the rows, without credentials.", examples=["warehouse:orders"])
    read_count: int = Field(ge=0, description="Rows read from the source.")
    inserted_count: int = Field(ge=0, description="Rows added.")
    updated_count: int = Field(ge=0, description="Rows updated because their values differed.")
    deleted_count: int = Field(
        ge=0, description="Rows deleted, or marked as missing, because the source no longer has them or marks them."
    )
    unchanged_count: int = Field(ge=0, description="Rows read that were equal already.")
    watermark_from: str | None = Field(description="Highest watermark before; null if there was none.")
    watermark_to: str | None = Field(description="Highest watermark now; null if there is none.")
    added_columns: list[str] = Field(default=[], description="Columns added to the destination.")
    ignored_columns: list[str] = Field(
        default=[], description="Columns of the source that the destination lacks and that were left out."
    )


class SyncData(
    Contract[SyncResult],
    kind="maintenance.sync_data",
    queue="maintenance",
    limits=Limits(soft_s=3 * _HOUR_S - 60, hard_s=3 * _HOUR_S),
    retry=Retry(max_retries=4, backoff_s=2, backoff_max_s=120),
    concurrency=Concurrency(limit=1, by=["source", "destination"]),
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
        {
            "source": {"connection": "shop", "query": "SELECT id, name, changed_at, deleted_at FROM customers"},
            "destination": {"connection": "warehouse", "table": "people"},
            "columns": {"id": "id", "name": "full_name"},
            "key": ["id"],
            "mode": {"kind": "watermark", "column": "changed_at"},
            "deleted_by": "deleted_at",
        },
    ],
):
    """Copy new and changed rows of a table, or of a query, to a table of another connection, by key.

    Rows are copied in batches; each is one transaction of the destination that includes the watermark, so
    an interrupted job continues from its last batch. It is safe to run twice; of two jobs with the same source and
    destination the second one waits.
    """

    source: TableOrQuery = Field(description="The table or query to read.")
    destination: TableOf = Field(description="The table to update; created if it does not exist.")
    key: list[ColumnName] = Field(
        min_length=1,
        max_length=16,
        description="Columns of the source that identify a row, unique in it.",
    )
    mode: SyncMode = Field(description="Method of finding changed rows.")
    columns: dict[ColumnName, ColumnName] | None = Field(
        default=None,
        min_length=1,
        max_length=2_000,
        description="Columns to copy: name in the source to name in the destination; default: all, by their names.",
    )
    deleted_by: ColumnName | None = Field(
        default=None,
        description="Column of the source that marks deleted rows: true, a number other than 0, or a date or time. "
        "Rows with a mark are deleted in the destination and not copied.",
    )
    new_columns: Literal["refuse", "add", "ignore"] = Field(
        default="refuse",
        description="Policy for columns of the source that the destination lacks: `refuse` the job, `add` them and "
        "read all rows once, or `ignore` them.",
    )
    reset: bool = Field(
        default=False, description="Whether the watermark is forgotten first, so that every row is read again."
    )
    batch_rows: int = Field(
        default=50_000, ge=1, le=10_000_000, description="Rows per transaction; more if rows share a watermark."
    )

    @model_validator(mode="after")
    def _two_tables(self) -> Self:
        source, destination = self.source, self.destination
        if (source.connection, source.table) == (destination.connection, destination.table):
            raise ValueError("'source' and 'destination' are the same table")
        return self

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        if self.columns is None:
            return self
        if missing := [name for name in self.key if name not in self.columns]:
            raise ValueError(f"'columns' lacks {missing} of 'key'; add them")
        targets = list(self.columns.values())
        if twice := sorted({name for name in targets if targets.count(name) > 1}):
            raise ValueError(f"'columns' gives the name {twice} to several columns; choose different ones")
        return self

    @model_validator(mode="after")
    def _missing_mark_is_apart(self) -> Self:
        mark = self.mode.mark_missing if isinstance(self.mode, ByComparison) else None
        if mark is not None and self.columns is not None and mark in self.columns.values():
            raise ValueError("'mode.mark_missing' is also a column of 'columns'; choose another name")
        if self.deleted_by is not None and self.deleted_by in self.key:
            raise ValueError("'deleted_by' is also in 'key'; the key does not mark deleted rows")
        return self
