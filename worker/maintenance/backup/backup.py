"""Back up tables of a database, or the files of a store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shared.errors import TaskFailure
from shared.jobs.data.places import TableDestination
from worker.maintenance.backup.archive import ArchiveWriter
from worker.maintenance.backup.digest import files_digest, rows_digest
from worker.maintenance.backup.files import paths_below, unreachable
from worker.maintenance.backup.manifest import TABLE, Manifest, TableContent
from worker.runtime.scratch import comes_of_full_disk
from worker.tables.databases.plan import check_fits, plan_table
from worker.tables.parquet.staging import columns_of
from worker.tables.read import read_as_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from worker.reach.connections import StoreConnection
    from worker.tables.databases.base import Database, Transaction
    from worker.tables.databases.definitions import Defined


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


def back_up_tables(database: Database, tables: Sequence[str], target: Path, bounds: Bounds) -> Manifest:
    """Write a backup of `tables`, all as of one moment, to the new file `target`. Raises the failures of reading."""
    with database.looking(memory_limit_bytes=bounds.memory_limit_bytes) as transaction, ArchiveWriter(target) as writer:
        found = {table: _defined(transaction, database, table, tables) for table in tables}
        contents: list[TableContent] = []
        for table in _parents_first(found):
            rows = bounds.scratch / TABLE
            path = TABLE if len(tables) == 1 else f"tables/{len(contents)}.parquet"
            contents.append(_content(transaction, database, table, found[table], rows, path, bounds))
            with rows.open("rb") as content:
                writer.add(path, content, lambda _: bounds.on_progress(_rows(contents), None, "rows"), packed=True)
            rows.unlink()
        manifest = Manifest(
            kind="table",
            source=f"{database.name}:{', '.join(tables)}",
            created_at=datetime.now(UTC).isoformat(),
            digest=digest_of(contents),
            tables=contents,
            left_out=[one for table in tables for one in found[table].left_out],
            files=writer.files,
        )
        writer.finish(manifest)
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


def digest_of(contents: Sequence[TableContent]) -> str:
    """Return the digest of one table, or that of the names and digests of several."""
    if len(contents) == 1:
        return contents[0].digest
    return files_digest((content.name, content.digest) for content in contents)


def _rows(contents: Sequence[TableContent]) -> int:
    return sum(content.row_count for content in contents)


def _content(  # noqa: PLR0917 - the parts of one table
    transaction: Transaction, database: Database, table: str, found: Defined, rows: Path, path: str, bounds: Bounds
) -> TableContent:
    row_count, times = read_as_stored(
        transaction,
        table,
        rows,
        scratch=bounds.scratch,
        memory_limit_bytes=bounds.memory_limit_bytes,
        on_rows=lambda count: bounds.on_progress(count, None, "rows"),
    )
    _refuse_unrestorable(transaction, database, table, rows)
    _, digest = rows_digest(rows, **bounds.engine(), on_fraction=lambda _: bounds.on_progress(row_count, None, "rows"))
    return TableContent(
        name=table,
        path=path,
        row_count=row_count,
        digest=digest,
        columns=columns_of(rows),
        times=times,
        definition=found.definition,
    )


def _defined(transaction: Transaction, database: Database, table: str, tables: Sequence[str]) -> Defined:
    try:
        return transaction.define(table, tables)
    except TaskFailure as unfit:
        raise _unrestorable(database, table, unfit) from None


def _refuse_unrestorable(transaction: Transaction, database: Database, table: str, rows: Path) -> None:
    """Raise `TaskFailure` (``backup_not_restorable``) if the table itself would not take its rows back."""
    destination = {"kind": "table", "connection": database.name, "table": table}
    try:
        plan = plan_table(
            database.name, TableDestination.model_validate(destination), rows, load_id="", dialect=database.dialect
        )
        check_fits(plan, transaction.columns(plan) or [], transaction.fits)
    except TaskFailure as unfit:
        raise _unrestorable(database, table, unfit) from None


def _unrestorable(database: Database, table: str, unfit: TaskFailure) -> TaskFailure:
    return TaskFailure(
        "backup_not_restorable",
        f"The backup of {database.name}:{table} could not be restored into it: {unfit.message}",
        remedy="Back up a view or a copy of the table without these columns, or with them as text.",
    )


def _parents_first(found: Mapping[str, Defined]) -> Iterator[str]:
    """Yield the tables, those that others have foreign keys to before these, where they do not form a circle."""
    left = dict.fromkeys(found)
    while left:
        ready = [table for table in left if not any(parent in left for parent in found[table].parents)]
        for table in ready or list(left)[:1]:
            del left[table]
            yield table
