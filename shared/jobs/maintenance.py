"""The maintenance family: back up, restore, and clean up after the retention. `syncs` has the synchronisation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.contract.artifacts import ArtifactUri, BackupFile
from shared.contract.definition import Contract, FedFromUpstream, Limits, Retry
from shared.contract.names import OnlyRead, SqlConnectionName, StoreConnectionName, StorePath, TableName
from shared.contract.params import Component, Params

_HOUR_S = 3600.0
_LONGEST_DATED = 480
_NETWORK_RETRY = Retry(max_retries=4, backoff_s=2, backoff_max_s=120)


class TableOf(Params):
    """A table of a named SQL connection."""

    connection: SqlConnectionName = Field(description="Name of a SQL connection, as configured on the workers.")
    table: TableName = Field(description="The table, `name` or `schema.name`.", examples=["sales", "public.sales"])


def _distinct(tables: list[str]) -> list[str]:
    if len({table.lower() for table in tables}) < len(tables):
        raise ValueError("each table can be named only once; names that differ by case are one name")
    return tables


class WholeTable(TableOf):
    """All rows of a table."""

    kind: Literal["table"] = Field(description="Discriminator.")


class Folder(Params):
    """All files of a named store below a prefix."""

    kind: Literal["store"] = Field(description="Discriminator.")
    connection: StoreConnectionName = Field(description="Name of a store, as configured on the workers.")
    prefix: StorePath = Field(description="Folder below the store's root.", examples=["exports/2026"])


class SeveralTables(Params):
    """All rows of several tables, as of one moment."""

    kind: Literal["tables"] = Field(description="Discriminator.")
    connection: SqlConnectionName = Field(description="Name of a SQL connection, as configured on the workers.")
    tables: list[TableName] = Field(
        min_length=1, max_length=100, description="The tables.", examples=[["customers", "orders"]]
    )

    @field_validator("tables")
    @classmethod
    def _once(cls, tables: list[str]) -> list[str]:
        return _distinct(tables)


class TablesOfBackup(Params):
    """Tables of a backup, each under a name."""

    kind: Literal["tables"] = Field(description="Discriminator.")
    connection: SqlConnectionName = Field(description="Name of a SQL connection, as configured on the workers.")
    tables: dict[TableName, TableName] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Name in the backup, and name to restore it as. Default: all tables, with their own names.",
        examples=[{"customers": "customers_before", "orders": "orders_before"}],
    )

    @field_validator("tables")
    @classmethod
    def _once(cls, tables: dict[str, str] | None) -> dict[str, str] | None:
        _distinct([] if tables is None else list(tables.values()))
        return tables


Stored = Annotated[WholeTable | SeveralTables | Folder, Field(discriminator="kind"), Component("Stored")]
Restorable = Annotated[WholeTable | TablesOfBackup | Folder, Field(discriminator="kind"), Component("Restorable")]


class StoreFile(Params):
    """A file of a named store."""

    connection: StoreConnectionName = Field(description="Name of a store, as configured on the workers.")
    path: StorePath = Field(description="Path below the store's root.", examples=["backups/orders.zip"])


class KeptCopies(Params):
    """Which of the dated copies are kept. The newest is, and one that a job restores or waits to restore."""

    count: int | None = Field(default=None, ge=1, le=1_000, description="Keep this many copies; default: any number.")
    max_age_s: float | None = Field(
        default=None, ge=60, le=100 * 366 * 86_400, description="Keep copies that are younger; default: of any age."
    )

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.count is None and self.max_age_s is None:
            raise ValueError("give 'count', 'max_age_s', or both: older copies are removed by them")
        return self


class KeepAt(StoreFile):
    """A place for a copy of a backup, or for dated copies."""

    copies: KeptCopies | None = Field(
        default=None,
        description="Keep dated copies beside each other, `orders.20261127T083000Z-0192f0c1.zip`, and remove old ones. "
        "Default: one copy at `path`, which the next backup replaces.",
    )

    @field_validator("path")
    @classmethod
    def _has_room(cls, path: str) -> str:
        if len(path) > _LONGEST_DATED:
            raise ValueError(f"it must have at most {_LONGEST_DATED} characters, so that a date fits behind it")
        return path


class BackupResult(BaseModel):
    """Result of a backup."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backup: BackupFile = Field(description="The backup; `maintenance.restore_data` takes it.")
    source: str = Field(description="Source of the backup, without credentials.", examples=["warehouse:orders"])
    row_count: int | None = Field(description="Rows of all tables; null for a store.")
    tables: dict[str, int] = Field(description="Rows of each table; empty for a store.")
    left_out: list[str] = Field(description="What of the tables the backup does not have, such as triggers, by name.")
    file_count: int = Field(ge=0, description="Files in the backup.")
    content_bytes: int = Field(ge=0, description="Total size of these files in bytes.")
    digest: str = Field(description="Digest of the content, independent of the order of rows.")
    kept_at: str | None = Field(description="Place of the copy that outlives the job; null if none was requested.")
    removed_copies: list[str] = Field(description="Paths of the older copies that were removed.")
    spared_copies: list[str] = Field(description="Paths of copies that were not removed, because a job restores them.")


class BackupData(
    Contract[BackupResult],
    kind="maintenance.backup_data",
    queue="maintenance",
    limits=Limits(soft_s=3 * _HOUR_S - 60, hard_s=3 * _HOUR_S),
    retry=_NETWORK_RETRY,
    examples=[
        {"source": {"kind": "table", "connection": "warehouse", "table": "orders"}},
        {"source": {"kind": "tables", "connection": "warehouse", "tables": ["customers", "orders"]}},
        {
            "source": {"kind": "store", "connection": "lake", "prefix": "exports/2026"},
            "keep_at": {"connection": "archive", "path": "exports.zip", "copies": {"count": 7}},
        },
    ],
):
    """Back up one or several tables, or a folder of a store, as one file with a checksum per member.

    Tables are read in one transaction, with their types, defaults, keys, indexes and checks; what could not be restored
    is refused by name. The artifact is deleted after the job's retention: set `keep_at` for a permanent copy.
    """

    source: Annotated[Stored, OnlyRead()] = Field(description="Tables or folder to back up.")
    keep_at: KeepAt | None = Field(default=None, description="Place for a copy that outlives the job.")


class RestoreResult(BaseModel):
    """Result of a restoration, with its verification."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    destination: str = Field(
        description="Place of the restored content, without credentials.", examples=["warehouse:old"]
    )
    source: str = Field(description="Source of the backup.", examples=["warehouse:orders"])
    created_at: str = Field(description="Time of the backup, UTC.")
    row_count: int | None = Field(description="Rows counted in the restored tables; null for a store.")
    tables: dict[str, int] = Field(description="Rows of each restored table; empty for a store.")
    left_out: list[str] = Field(description="What new tables do not have that those backed up had, by name.")
    file_count: int = Field(ge=0, description="Files of the backup.")
    content_bytes: int = Field(ge=0, description="Total size of these files in bytes.")
    digest: str = Field(description="Digest of the restored content, read again; equal to the backup's.")
    verified: Literal[True] = Field(description="Always true: count and digest equal those of the backup.")


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
        },
        {
            "backup": {"connection": "archive", "path": "orders.20261127T083000Z-0192f0c1.zip"},
            "destination": {"kind": "tables", "connection": "warehouse"},
        },
    ],
):
    """Restore a backup and verify it: the written content is read again and compared with the backup.

    All checksums are verified before anything is written. Nothing is overwritten unless `mode` is `replace`.
    """

    backup: Annotated[ArtifactUri | StoreFile, FedFromUpstream("backup"), OnlyRead()] = Field(
        description="The backup: a result of `maintenance.backup_data`, an upload, or a copy in a store (`kept_at`)."
    )
    destination: Restorable = Field(description="Destination: tables or a folder, like the source of the backup.")
    mode: Literal["new", "replace"] = Field(
        default="new",
        description="`new` fails if the destination has content; `replace` replaces it.",
    )


class CleanupResult(BaseModel):
    """Removed items; with `dry_run`, those that would be removed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dry_run: bool = Field(description="Whether nothing was removed.")
    job_count: int = Field(ge=0, description="Ended jobs deleted, with their results, events, steps and files.")
    kept_job_count: int = Field(
        ge=0, description="Ended jobs past the age that are kept, because a live job names one of their files."
    )
    artifact_count: int = Field(ge=0, description="Files of deleted jobs removed from the store.")
    artifact_bytes: int = Field(ge=0, description="Total size of these files in bytes.")
    orphan_file_count: int = Field(ge=0, description="Files removed whose job or upload is not in the ledger.")
    orphan_bytes: int = Field(ge=0, description="Total size of these files in bytes.")
    orphan_step_count: int = Field(ge=0, description="Step records removed whose job is deleted.")
    orphan_result_count: int = Field(ge=0, description="Results removed that have no job and no expiry.")
    orphan_events_count: int = Field(ge=0, description="Event streams removed whose job is deleted.")
    orphan_chord_count: int = Field(ge=0, description="Celery's keys removed of chords that never ended.")
    index_entry_count: int = Field(ge=0, description="List entries removed whose job is deleted.")


class CleanupOldData(
    Contract[CleanupResult],
    kind="maintenance.cleanup_old_data",
    queue="maintenance",
    limits=Limits(soft_s=_HOUR_S - 60, hard_s=_HOUR_S),
    retry=_NETWORK_RETRY,
    examples=[{}, {"dry_run": True, "older_than_s": 86_400}],
):
    """Remove old ended jobs with all their data, and orphaned files and keys.

    The service deletes jobs itself after their retention; this job deletes them earlier if requested, and removes
    leftovers of crashes and lost stores. It never touches a live job, a file that a live job names, or an upload in
    progress.
    """

    dry_run: bool = Field(default=False, description="Only count what would be removed.")
    older_than_s: float | None = Field(
        default=None,
        ge=0,
        le=10 * 366 * 86_400,
        description="Delete jobs that ended more than this many seconds ago. Default: the service's retention.",
    )
    orphans_older_than_s: float | None = Field(
        default=None,
        ge=60,
        le=10 * 366 * 86_400,
        description="Remove orphans that have not changed for this many seconds. Default: the service's "
        "retention, so that the files survive for a while if the ledger loses its data.",
    )
