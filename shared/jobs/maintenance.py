"""The maintenance family: keep tables in step, back up and restore, and clean up what is past its time."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.contract.artifacts import ArtifactUri, BackupFile
from shared.contract.definition import Contract, FedFromUpstream, Limits, Retry
from shared.contract.names import ColumnName, SqlConnectionName, StoreConnectionName, StorePath, TableName
from shared.contract.params import Params

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


class WholeTable(TableOf):
    """All rows of a table."""

    kind: Literal["table"] = Field(description="Discriminator.")


class Folder(Params):
    """All files of a named store below a prefix."""

    kind: Literal["store"] = Field(description="Discriminator.")
    connection: StoreConnectionName = Field(description="Name of a store, as configured on the workers.")
    prefix: StorePath = Field(description="Folder below the store's root.", examples=["exports/2026"])


Stored = Annotated[WholeTable | Folder, Field(discriminator="kind")]


class StoreFile(Params):
    """A file of a named store."""

    connection: StoreConnectionName = Field(description="Name of a store, as configured on the workers.")
    path: StorePath = Field(description="Path below the store's root.", examples=["backups/orders.zip"])


class BackupResult(BaseModel):
    """What was backed up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backup: BackupFile = Field(description="The backup; `maintenance.restore_data` takes it.")
    source: str = Field(description="What was backed up, without credentials.", examples=["warehouse:orders"])
    row_count: int | None = Field(description="Rows of the table; null for a store.")
    file_count: int = Field(ge=0, description="Files in the backup.")
    content_bytes: int = Field(ge=0, description="Size of these files in bytes.")
    digest: str = Field(description="Digest of the content, in which the order of rows has no part.")
    kept_at: str | None = Field(description="Where the copy that outlives the job is; null if none was asked for.")


class BackupData(
    Contract[BackupResult],
    kind="maintenance.backup_data",
    queue="maintenance",
    limits=Limits(soft_s=3 * _HOUR_S - 60, hard_s=3 * _HOUR_S),
    retry=_NETWORK_RETRY,
    examples=[
        {"source": {"kind": "table", "connection": "warehouse", "table": "orders"}},
        {
            "source": {"kind": "store", "connection": "lake", "prefix": "exports/2026"},
            "keep_at": {"connection": "archive", "path": "exports-2026.zip"},
        },
    ],
):
    """Back up a table, or a folder of a store, as one file with a checksum of everything in it.

    A table is read in one transaction: rows and columns with their types; not its indexes, keys and grants. The
    artifact goes with its job's retention: name `keep_at` for a copy that stays.
    """

    source: Stored = Field(description="What to back up.")
    keep_at: StoreFile | None = Field(default=None, description="Where to put a copy that outlives the job.")


class RestoreResult(BaseModel):
    """What was restored, and the proof of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    destination: str = Field(description="Where the content is now, without credentials.", examples=["warehouse:old"])
    source: str = Field(description="What the backup was made of.", examples=["warehouse:orders"])
    created_at: str = Field(description="When the backup was made, UTC.")
    row_count: int | None = Field(description="Rows of the restored table, counted in it; null for a store.")
    file_count: int = Field(ge=0, description="Files of the backup.")
    content_bytes: int = Field(ge=0, description="Size of these files in bytes.")
    digest: str = Field(description="Digest of what is there now, read again; the same as the backup's.")
    verified: Literal[True] = Field(description="Always true: count and digest are those of the backup.")


class RestoreData(
    Contract[RestoreResult],
    kind="maintenance.restore_data",
    queue="maintenance",
    limits=Limits(soft_s=3 * _HOUR_S - 60, hard_s=3 * _HOUR_S),
    retry=_NETWORK_RETRY,
    examples=[
        {
            "backup": "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/backup.zip",
            "destination": {"kind": "table", "connection": "warehouse", "table": "orders_restored"},
        }
    ],
):
    """Restore a backup, and prove it: what was written is read again and compared with the backup.

    Every checksum is verified before anything is written. Nothing is overwritten unless the mode says so.
    """

    backup: Annotated[ArtifactUri, FedFromUpstream("backup")] = Field(
        description="The backup: a result of `maintenance.backup_data`, or an upload of a copy of one."
    )
    destination: Stored = Field(description="Where the content goes: a table or a folder, as the backup is of one.")
    mode: Literal["new", "replace"] = Field(
        default="new",
        description="`new` fails if there is something already; `replace` puts the content in its place.",
    )


class CleanupResult(BaseModel):
    """What was removed, or with `dry_run` what would be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dry_run: bool = Field(description="Whether nothing was removed.")
    job_count: int = Field(ge=0, description="Ended jobs forgotten, with their results, events, steps and files.")
    kept_job_count: int = Field(
        ge=0, description="Ended jobs old enough that stay, because a live job names one of their files."
    )
    artifact_count: int = Field(ge=0, description="Files of these jobs removed from the store.")
    artifact_bytes: int = Field(ge=0, description="Size of these files in bytes.")
    orphan_file_count: int = Field(ge=0, description="Files removed whose job or upload the ledger does not know.")
    orphan_bytes: int = Field(ge=0, description="Size of these files in bytes.")
    orphan_step_count: int = Field(ge=0, description="Records of steps removed whose job is gone.")
    orphan_result_count: int = Field(ge=0, description="Results removed that have no job and would never expire.")
    orphan_events_count: int = Field(ge=0, description="Event streams removed whose job is gone.")
    orphan_chord_count: int = Field(ge=0, description="Keys removed that Celery left of chords that never ended.")
    index_entry_count: int = Field(ge=0, description="Entries of lists removed whose job is gone.")


class CleanupOldData(
    Contract[CleanupResult],
    kind="maintenance.cleanup_old_data",
    queue="maintenance",
    limits=Limits(soft_s=_HOUR_S - 60, hard_s=_HOUR_S),
    retry=_NETWORK_RETRY,
    examples=[{}, {"dry_run": True, "older_than_s": 86_400}],
):
    """Remove what is past its time: ended jobs with all that is theirs, and what no job owns any more.

    The service forgets jobs by itself when their retention is over; this removes them earlier if asked to, and what
    crashes and lost stores have left behind. A live job is never touched, nor a file that one names, nor an upload
    under way.
    """

    dry_run: bool = Field(default=False, description="Only count; the counts are those that removing would give.")
    older_than_s: float | None = Field(
        default=None,
        ge=0,
        le=10 * 366 * 86_400,
        description="Forget jobs that ended longer ago than this, in seconds. Default: the service's retention.",
    )
    orphans_older_than_s: float | None = Field(
        default=None,
        ge=60,
        le=10 * 366 * 86_400,
        description="Remove what no job owns and nobody has touched for so long, in seconds. Default: the service's "
        "retention, so that a ledger that lost its memory does not cost its files at once.",
    )
