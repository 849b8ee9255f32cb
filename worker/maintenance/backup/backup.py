"""Back up and restore a table or the files of a store, and verify the result."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from shared.errors import TaskFailure
from shared.jobs.data.places import TableDestination
from worker.maintenance.backup.archive import TABLE, ArchiveWriter, Manifest, refused, verified
from worker.maintenance.backup.digest import files_digest, rows_digest
from worker.maintenance.backup.files import paths_below, sha256_in, unreachable, write_file
from worker.runtime.scratch import comes_of_full_disk
from worker.tables.databases.plan import check_fits, plan_table
from worker.tables.load import load_table
from worker.tables.parquet.staging import columns_of
from worker.tables.read import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from worker.maintenance.backup.archive import Archive
    from worker.reach.connections import StoreConnection
    from worker.tables.databases.base import Database, Transaction
    from worker.tables.databases.plan import TablePlan


@dataclass(frozen=True)
class Bounds:
    """The limits of a backup or a restoration. `on_progress` takes the amount so far, the total, and the unit."""

    scratch: Path
    memory_limit_bytes: int
    threads: int
    max_bytes: int
    on_progress: Callable[[float, float | None, str], None]

    def engine(self) -> dict[str, Any]:
        """Return the limits for DuckDB."""
        return {"scratch": self.scratch, "memory_limit_bytes": self.memory_limit_bytes, "threads": self.threads}


def back_up_table(database: Database, table: str, target: Path, bounds: Bounds) -> Manifest:
    """Write a backup of `table` to the new file `target`. Raises the failures of reading."""
    rows = bounds.scratch / TABLE
    row_count = read_table(
        database,
        table,
        rows,
        scratch=bounds.scratch,
        memory_limit_bytes=bounds.memory_limit_bytes,
        on_rows=lambda count: bounds.on_progress(count, None, "rows"),
    )
    _refuse_unrestorable(database, table, rows)
    _, digest = rows_digest(rows, **bounds.engine(), on_fraction=lambda _: bounds.on_progress(row_count, None, "rows"))
    with ArchiveWriter(target) as writer, rows.open("rb") as content:
        writer.add(TABLE, content, lambda _: bounds.on_progress(row_count, row_count, "rows"), packed=True)
        manifest = Manifest(
            kind="table",
            source=f"{database.name}:{table}",
            created_at=datetime.now(UTC).isoformat(),
            digest=digest,
            row_count=row_count,
            columns=columns_of(rows),
            files=writer.files,
        )
        writer.finish(manifest)
    rows.unlink()
    return manifest


def back_up_store(store: StoreConnection, prefix: str, target: Path, bounds: Bounds) -> Manifest:
    """Write a backup of all files below `prefix` to the new file `target`. Each file is as of its reading time."""
    paths, done = paths_below(store, prefix), 0
    if not paths:
        raise TaskFailure(
            "source_missing",
            f"source.prefix: the store {store.name!r} has no files below {prefix!r}.",
            remedy="Correct the prefix; it is relative to the store's root.",
        )

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        bounds.on_progress(done, None, "bytes")

    with ArchiveWriter(target) as writer:
        for path in paths:
            try:
                with store.fs.open(store.locate(f"{prefix}/{path}"), "rb") as content:
                    writer.add(path, content, on_bytes)
            except OSError as failure:
                if comes_of_full_disk(failure):  # that of the archive
                    raise
                raise unreachable(store, failure) from None
        manifest = Manifest(
            kind="store",
            source=f"{store.name}:{prefix}",
            created_at=datetime.now(UTC).isoformat(),
            digest=files_digest((member.path, member.sha256) for member in writer.files),
            files=writer.files,
        )
        writer.finish(manifest)
    return manifest


def restore_table(
    backup: Path, database: Database, table: str, *, replace: bool, load_id: str, bounds: Bounds
) -> Manifest:
    """Restore a backup into `table` and compare the resulting table with the backup before it is committed.

    Raises `TaskFailure`: ``backup_refused``, ``table_exists``, ``restore_not_exact``, and the failures of loading.
    """
    rows = bounds.scratch / TABLE
    with _opened(backup, "table", bounds) as archive:
        manifest = archive.manifest
        with archive.open(manifest.files[0]) as content, rows.open("wb") as unpacked:
            shutil.copyfileobj(content, unpacked)
    _refuse_other_rows(rows, manifest, bounds)
    mode = "replace" if replace else "append"
    target = {"kind": "table", "connection": database.name, "table": table, "mode": mode}

    def check(transaction: Transaction, plan: TablePlan) -> None:
        transaction.advance_numbers(plan)
        _refuse_inexact(transaction, table, rows, manifest, bounds)

    load_table(
        database,
        TableDestination.model_validate(target),
        rows,
        load_id=load_id,
        on_progress=lambda done, total: bounds.on_progress(done, total, "rows"),
        only_new=not replace,
        before_commit=check,
        **bounds.engine(),
    )
    return manifest


def restore_store(backup: Path, store: StoreConnection, prefix: str, *, replace: bool, bounds: Bounds) -> Manifest:
    """Restore a backup below `prefix` and verify every file.

    An existing file with the backup's content was restored by an earlier attempt. Without `replace`, any other
    existing file is refused before a file is written; with it, other files are removed at the end.
    """
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        bounds.on_progress(done, None, "bytes")

    with _opened(backup, "store", bounds) as archive:
        manifest = archive.manifest
        expected = {member.path: member.sha256 for member in manifest.files}
        present = {path: sha256_in(store, f"{prefix}/{path}") for path in paths_below(store, prefix)}
        if others := [path for path in present if present[path] != expected.get(path)]:
            _refuse_present(store, prefix, others, replace=replace)
        for member in manifest.files:
            if present.get(member.path) != member.sha256:
                with archive.open(member) as content:
                    write_file(store, f"{prefix}/{member.path}", content, on_bytes)
    for path in present.keys() - expected.keys():
        store.fs.rm_file(store.locate(f"{prefix}/{path}"))
    found = {path: sha256_in(store, f"{prefix}/{path}") for path in paths_below(store, prefix)}
    if found != expected:
        raise _not_exact(f"{store.name}:{prefix} has {len(found)} files, and some differ", manifest)
    return manifest


@contextmanager
def _opened(backup: Path, kind: str, bounds: Bounds) -> Iterator[Archive]:
    def on_bytes(done: int, total: int) -> None:
        bounds.on_progress(done, total, "bytes")

    with verified(backup, max_bytes=bounds.max_bytes, on_bytes=on_bytes) as archive:
        if archive.manifest.kind != kind:
            raise TaskFailure(
                "backup_of_another_kind",
                f"destination.kind is {kind!r}, but the backup is of a {archive.manifest.kind}.",
                remedy=f"Use a destination of the kind {archive.manifest.kind!r}.",
            )
        yield archive


def _refuse_other_rows(rows: Path, manifest: Manifest, bounds: Bounds) -> None:
    try:
        columns = columns_of(rows)
        found = rows_digest(rows, **bounds.engine(), on_fraction=lambda _: bounds.on_progress(0, None, "rows"))
    except (pa.ArrowException, OSError, TaskFailure) as unreadable:
        if getattr(unreadable, "code", "") == "out_of_memory" or getattr(unreadable, "errno", None) is not None:
            raise
        raise refused(f"its table is not a valid Parquet file ({unreadable})") from None
    if columns != manifest.columns or found != (manifest.row_count, manifest.digest):
        raise refused("the columns or rows of its table do not match its manifest")


def _refuse_inexact(transaction: Transaction, table: str, rows: Path, manifest: Manifest, bounds: Bounds) -> None:
    """Compare the table as the transaction sees it with the backup."""
    there = bounds.scratch / "restored.parquet"
    read_table(
        transaction,
        table,
        there,
        scratch=bounds.scratch,
        memory_limit_bytes=bounds.memory_limit_bytes,
        on_rows=lambda count: bounds.on_progress(count, manifest.row_count, "rows"),
    )
    found = rows_digest(there, like=rows, **bounds.engine(), on_fraction=lambda _: bounds.on_progress(0, None, "rows"))
    if found != (manifest.row_count, manifest.digest):
        raise _not_exact(f"{manifest.source} restored as {table} has {found[0]} rows, digest {found[1]}", manifest)


def _refuse_unrestorable(database: Database, table: str, rows: Path) -> None:
    """Raise `TaskFailure` (``backup_not_restorable``) if the table itself would not take its rows back."""
    destination = {"kind": "table", "connection": database.name, "table": table}
    try:
        plan = plan_table(
            database.name, TableDestination.model_validate(destination), rows, load_id="", dialect=database.dialect
        )
        with database.looking() as transaction:
            check_fits(plan, transaction.columns(plan) or [], transaction.fits)
    except TaskFailure as unfit:
        raise TaskFailure(
            "backup_not_restorable",
            f"The backup of {database.name}:{table} could not be restored into it: {unfit.message}",
            remedy="Back up a view or a copy of the table without these columns, or with them as text.",
        ) from None


def _refuse_present(store: StoreConnection, prefix: str, others: list[str], *, replace: bool) -> None:
    if not replace:
        raise TaskFailure(
            "destination_not_empty",
            f"{store.name}:{prefix} has {len(others)} files that are not in the backup, such as {others[0]!r}.",
            remedy="Use an empty folder, or the mode 'replace'.",
        )


def _not_exact(found: str, manifest: Manifest) -> TaskFailure:
    expected = f"{manifest.row_count} rows" if manifest.kind == "table" else f"{len(manifest.files)} files"
    return TaskFailure(
        "restore_not_exact",
        f"{found}; the backup has {expected} with the digest {manifest.digest}.",
        remedy="Do not use the restored data. Stop other writers, or choose a destination that stores exact values.",
    )
