"""Restore tables or the files of a store, and verify the result before it is committed."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from shared.errors import TaskFailure
from shared.jobs.data.places import TableDestination
from worker.maintenance.backup.archive import refused, verified
from worker.maintenance.backup.backup import digest_of
from worker.maintenance.backup.digest import rows_digest
from worker.maintenance.backup.files import paths_below, sha256_in, write_file
from worker.tables.databases.plan import Loaded, plan_table
from worker.tables.inference import settle
from worker.tables.load import fitting_target, record, recorded
from worker.tables.parquet.staging import columns_of
from worker.tables.read import read_as_stored, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from worker.maintenance.backup.archive import Archive
    from worker.maintenance.backup.backup import Bounds
    from worker.maintenance.backup.manifest import Manifest, TableContent
    from worker.reach.connections import StoreConnection
    from worker.tables.databases.base import Database, Transaction
    from worker.tables.databases.definitions import Definition
    from worker.tables.databases.plan import TablePlan


@dataclass(frozen=True)
class Restored:
    """What was restored, by the new names of the tables, and what of the tables is missing, for people."""

    manifest: Manifest
    tables: Mapping[str, int] = field(default_factory=dict)
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class _Target:
    """A table to restore: its content, its rows as the target takes them, and the plan of loading them."""

    content: TableContent
    rows: Path
    digest: str
    plan: TablePlan
    definition: Definition | None
    """How the table is made if it does not exist; None: only its columns."""

    @property
    def table(self) -> str:
        return self.plan.table


def restore_table(
    backup: Path, database: Database, table: str, *, replace: bool, load_id: str, bounds: Bounds
) -> Restored:
    """Restore a backup of one table as `table`; see `restore_tables`."""
    with _opened(backup, "table", bounds) as archive:
        names = [content.name for content in archive.manifest.tables]
        if len(names) > 1:
            raise TaskFailure(
                "backup_of_several_tables",
                f"The backup has {len(names)} tables: {', '.join(names[:20])}.",
                remedy="Use a destination of the kind 'tables', which names those to restore.",
            )
        return _restore(archive, database, {names[0]: table}, replace=replace, load_id=load_id, bounds=bounds)


def restore_tables(
    backup: Path, database: Database, names: Mapping[str, str] | None, *, replace: bool, load_id: str, bounds: Bounds
) -> Restored:
    """Restore the tables that are keys of `names` as its values (None: all, with their own names), all or none.

    A table that does not exist is made as the backed up one was; with `replace`, rows of those that do give way. Each
    table is compared with the backup before the commit. Raises `TaskFailure`: ``backup_refused``, ``table_exists``,
    ``table_not_in_backup``, ``restore_not_exact``, and the failures of loading.
    """
    with _opened(backup, "table", bounds) as archive:
        known = [content.name for content in archive.manifest.tables]
        if names is not None and (unknown := [name for name in names if name not in known]):
            raise TaskFailure(
                "table_not_in_backup",
                f"destination.tables: the backup has no table {unknown[0]!r}; it has {', '.join(known[:50])}.",
                remedy="Name tables of the backup.",
            )
        chosen = {name: name for name in known} if names is None else names
        return _restore(archive, database, chosen, replace=replace, load_id=load_id, bounds=bounds)


def _restore(
    archive: Archive, database: Database, names: Mapping[str, str], *, replace: bool, load_id: str, bounds: Bounds
) -> Restored:
    manifest = archive.manifest
    if digest_of(manifest.tables) != manifest.digest:
        raise refused("the digests of its tables do not match its manifest")
    contents = [content for content in manifest.tables if content.name in names]
    targets = [
        _target(
            archive, content, database, names[content.name], load_id=f"{load_id} {at}" if at else load_id, bounds=bounds
        )
        for at, content in enumerate(contents)
    ]
    counts = {target.table: target.content.row_count for target in targets}
    with database.transaction(load_id, **bounds.engine()) as transaction:
        if all(recorded(transaction, target.plan) is not None for target in targets):
            return Restored(manifest, counts)
        new = [target for target in targets if transaction.columns(target.plan) is None]
        _refuse_present(transaction, [target for target in targets if target not in new], replace=replace)
        for target in new:
            if target.definition is not None:
                transaction.create(target.definition, target.table, target.content.name, names)
        _fill(transaction, targets, bounds)
        made = [(target, target.definition) for target in new if target.definition is not None]
        for target, definition in made:
            transaction.complete(definition, target.table, target.content.name)
        for target, definition in made:
            transaction.relate(definition, target.table, target.content.name, names)
        for target in targets:
            transaction.advance_numbers(target.plan)
            _refuse_inexact(transaction, target, bounds)
        transaction.commit()
    return Restored(manifest, counts, _left_out(manifest, new, names))


def restore_store(backup: Path, store: StoreConnection, prefix: str, *, replace: bool, bounds: Bounds) -> Restored:
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
        if (others := [path for path in present if present[path] != expected.get(path)]) and not replace:
            raise TaskFailure(
                "destination_not_empty",
                f"{store.name}:{prefix} has {len(others)} files that are not in the backup, such as {others[0]!r}.",
                remedy="Use an empty folder, or the mode 'replace'.",
            )
        for member in manifest.files:
            if present.get(member.path) != member.sha256:
                with archive.open(member) as content:
                    write_file(store, f"{prefix}/{member.path}", content, on_bytes)
    for path in present.keys() - expected.keys():
        store.fs.rm_file(store.locate(f"{prefix}/{path}"))
    found = {path: sha256_in(store, f"{prefix}/{path}") for path in paths_below(store, prefix)}
    if found != expected:
        raise _not_exact(
            f"{store.name}:{prefix} has {len(found)} files, and some differ", f"{len(expected)} files", manifest.digest
        )
    return Restored(manifest)


@contextmanager
def _opened(backup: Path, kind: str, bounds: Bounds) -> Iterator[Archive]:
    def on_bytes(done: int, total: int) -> None:
        bounds.on_progress(done, total, "bytes")

    with verified(backup, max_bytes=bounds.max_bytes, on_bytes=on_bytes) as archive:
        if archive.manifest.kind != kind:
            raise TaskFailure(
                "backup_of_another_kind",
                f"destination.kind is for a {kind}, but the backup is of a {archive.manifest.kind}.",
                remedy=f"Use a destination of the kind {archive.manifest.kind!r}.",
            )
        yield archive


def _target(
    archive: Archive, content: TableContent, database: Database, table: str, *, load_id: str, bounds: Bounds
) -> _Target:
    """Unpack and verify the rows of a table, spell them for the database, and plan their load."""
    rows = bounds.scratch / f"{len(list(bounds.scratch.glob('*.parquet')))}.parquet"
    member = next(one for one in archive.manifest.files if one.path == content.path)
    with archive.open(member) as packed, rows.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    _refuse_other_rows(rows, content, bounds)
    definition, digest = content.definition, content.digest
    if definition is None or definition.engine != database.dialect.engine:
        definition = None
        if content.times:
            spelled = rows.with_name(f"spelled-{rows.name}")
            settle(rows, spelled, dict.fromkeys(content.times, "temporal"), lambda _: None)
            rows.unlink()
            rows = spelled
            _, digest = _digest(rows, bounds)
    destination = {"kind": "table", "connection": database.name, "table": table, "mode": "replace"}
    plan = plan_table(
        database.name,
        TableDestination.model_validate(destination),
        rows,
        load_id=load_id,
        dialect=database.dialect,
    )
    return _Target(content, rows, digest, plan, definition)


def _fill(transaction: Transaction, targets: Sequence[_Target], bounds: Bounds) -> None:
    """Replace the rows of the tables: those that refer to others go first, and come last."""
    fitting = []
    for target in targets:
        plan, existing = fitting_target(transaction, target.plan)
        transaction.keep_writers_out(plan)
        fitting.append((plan, existing))
    deleted = {
        plan.table: transaction.change(f"DELETE FROM {plan.target}")  # noqa: S608 - a quoted name
        for plan, _ in reversed(fitting)
    }
    for plan, existing in fitting:
        inserted = transaction.insert(plan, existing, lambda done, total: bounds.on_progress(done, total, "rows"))
        transaction.unstage()
        record(transaction, plan, Loaded(plan.destination, plan.mode, inserted, 0, deleted[plan.table]))


def _refuse_present(transaction: Transaction, present: Sequence[_Target], *, replace: bool) -> None:
    if not present:
        return
    if not replace:
        raise TaskFailure(
            "table_exists",
            f"The table {present[0].plan.destination} already exists.",
            remedy="Use a new table name, or the mode 'replace'.",
        )
    if keys := transaction.changed_with([target.table for target in present]):
        raise TaskFailure(
            "restore_changes_others",
            f"Rows of other tables would be deleted or changed with those of {present[0].plan.destination}, by the "
            f"foreign key {', '.join(keys[:20])}.",
            remedy="Back up and restore these tables together, or restore into new tables.",
        )


def _refuse_other_rows(rows: Path, content: TableContent, bounds: Bounds) -> None:
    try:
        columns = columns_of(rows)
        found = _digest(rows, bounds)
    except (pa.ArrowException, OSError, TaskFailure) as unreadable:
        if getattr(unreadable, "code", "") == "out_of_memory" or getattr(unreadable, "errno", None) is not None:
            raise
        raise refused(f"its table is not a valid Parquet file ({unreadable})") from None
    if columns != content.columns or found != (content.row_count, content.digest):
        raise refused("the columns or rows of its table do not match its manifest")


def _refuse_inexact(transaction: Transaction, target: _Target, bounds: Bounds) -> None:
    """Compare the table as the transaction sees it with the backup."""
    there = bounds.scratch / "restored.parquet"
    read = read_table if target.definition is None else read_as_stored
    read(
        transaction,
        target.table,
        there,
        scratch=bounds.scratch,
        memory_limit_bytes=bounds.memory_limit_bytes,
        on_rows=lambda count: bounds.on_progress(count, target.content.row_count, "rows"),
    )
    found = _digest(there, bounds, like=target.rows)
    if found != (target.content.row_count, target.digest):
        raise _not_exact(
            f"{target.content.name} restored as {target.table} has {found[0]} rows, digest {found[1]}",
            f"{target.content.row_count} rows",
            target.digest,
        )


def _digest(rows: Path, bounds: Bounds, like: Path | None = None) -> tuple[int, str]:
    return rows_digest(rows, like=like, **bounds.engine(), on_fraction=lambda _: bounds.on_progress(0, None, "rows"))


def _left_out(manifest: Manifest, new: Sequence[_Target], names: Mapping[str, str]) -> list[str]:
    """Return what the new tables do not have that those of the backup had."""
    if not new:
        return []
    found = list(manifest.left_out)
    for target in new:
        if target.definition is not None:
            keys = getattr(target.definition, "foreign_keys", [])
            found += [
                f"the foreign key {key.name!r} of {target.table} to {key.table}, which is not restored"
                for key in keys
                if key.table not in names
            ]
        elif manifest.version == 1:
            found.append(f"{target.table} has its columns only: the backup is of a time before definitions were kept")
        elif target.content.definition is not None:
            engine = target.content.definition.engine
            found.append(f"{target.table} has its columns only: the backup is of {engine}")
    return found


def _not_exact(found: str, expected: str, digest: str) -> TaskFailure:
    return TaskFailure(
        "restore_not_exact",
        f"{found}; the backup has {expected} with the digest {digest}.",
        remedy="Do not use the restored data. Stop other writers, or choose a destination that stores exact values.",
    )
