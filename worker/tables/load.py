"""Load a dataset into a table of a database.

    begin (and wait for another delivery of the same load_id)
      -> already in celeriac_loads? return its counts
      -> create the table, or check that the dataset fits it
      -> append, replace or upsert
      -> record the load_id in celeriac_loads
    commit

All of it is one transaction of the target database, so a worker killed at any moment leaves the table untouched or
complete, and a second delivery finds the record of the first.

`replace` deletes and inserts. Readers see the old rows until the commit and never wait (PostgreSQL, SQLite in WAL
mode), and grants, indexes, views and foreign keys stay; TRUNCATE and a swapped table would lock readers out or lose
those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import TaskFailure
from worker.tables.databases.plan import Loaded, adapted, check_fits, plan_table
from worker.tables.databases.statements import (
    RECORD,
    RECORDED,
    add_columns,
    create_table,
    find_duplicate_key,
    find_missing_keys,
    insert_missing,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shared.jobs.data.places import TableDestination
    from worker.tables.databases.base import Database, Transaction
    from worker.tables.databases.plan import Progress, TablePlan
    from worker.tables.databases.types import ExistingColumn

__all__ = ["Loaded", "load_table"]

_DEFAULT_MEMORY_BYTES = 512 * 1024**2


def load_table(
    database: Database,
    destination: TableDestination,
    dataset: Path,
    *,
    load_id: str,
    on_progress: Progress,
    scratch: Path | None = None,
    memory_limit_bytes: int = _DEFAULT_MEMORY_BYTES,
    threads: int = 1,
) -> Loaded:
    """Load the Parquet file `dataset` into a table, all or nothing, and once for each `load_id`.

    `on_progress(rows, total)` is called as rows are loaded; an exception from it rolls the load back. DuckDB spills
    into `scratch` beyond `memory_limit_bytes`; the other engines stream batches of some MiB.
    Raises `TaskFailure` for permanent failures (permissions, types, duplicate keys), `TransientFailure` for transient
    ones (no response, locks, deadlocks, timeouts). An upsert needs unique keys without missing values.
    """
    plan = plan_table(database.name, destination, dataset, load_id=load_id, dialect=database.dialect)
    with database.transaction(
        load_id, scratch=scratch, memory_limit_bytes=memory_limit_bytes, threads=threads
    ) as transaction:
        return _deliver(transaction, plan, on_progress)


def _deliver(transaction: Transaction, plan: TablePlan, on_progress: Progress) -> Loaded:
    earlier = recorded(transaction, plan)
    if earlier is not None:
        return earlier
    on_progress(0, plan.row_count)
    plan, existing = fitting_target(transaction, plan)
    inserted = updated = deleted = 0
    if plan.mode != "append":
        transaction.keep_writers_out(plan)
    if plan.mode == "upsert":
        updated, inserted = _upsert(transaction, plan, existing, on_progress)
        on_progress(plan.row_count, plan.row_count)
    else:
        if plan.mode == "replace":
            deleted = transaction.change(f"DELETE FROM {plan.target}")  # noqa: S608 - a quoted name
        inserted = transaction.insert(plan, existing, on_progress)
    loaded = Loaded(plan.destination, plan.mode, inserted, updated, deleted)
    record(transaction, plan, loaded)
    transaction.commit()
    return loaded


def fitting_target(transaction: Transaction, plan: TablePlan) -> tuple[TablePlan, list[ExistingColumn]]:
    """Create the target if necessary; return the plan for it, without the columns that it generates, and its columns.

    Raises `TaskFailure` if the dataset does not fit.
    """
    if transaction.columns(plan) is None:
        transaction.change(create_table(plan))
    existing = transaction.columns(plan) or []
    if plan.adds_columns:
        fold = plan.dialect.fold
        known = {fold(column.name) for column in existing}
        for statement in add_columns(plan, [name for name in plan.columns if fold(name) not in known]):
            transaction.change(statement)
        existing = transaction.columns(plan) or []
    plan = adapted(plan, existing, transaction.fits)
    check_fits(plan, existing, transaction.fits)
    return plan.without(column.name for column in existing if column.generated), existing


def staged_value(plan: TablePlan, existing: list[ExistingColumn]) -> Callable[[str], str]:
    """Return a function: column name -> expression for the staged column in the type of the target's column."""
    dialect = plan.dialect
    by_name = {dialect.fold(column.name): column for column in existing}
    return lambda name: dialect.cast(by_name[dialect.fold(name)], plan.columns[name])


def record(transaction: Transaction, plan: TablePlan, loaded: Loaded) -> None:
    """Note that the load was made, for another delivery of it."""
    counts = (loaded.inserted_count, loaded.updated_count, loaded.deleted_count)
    transaction.change(RECORD, plan.load_id, plan.destination, plan.mode, *counts)


def recorded(transaction: Transaction, plan: TablePlan) -> Loaded | None:
    """Return what an earlier delivery of the load made, None if there was none."""
    found = transaction.rows(RECORDED, plan.load_id)
    if not found:
        return None
    destination, mode, inserted, updated, deleted = found[0]
    if (destination, mode) != (plan.destination, plan.mode):
        raise TaskFailure(
            "load_id_reused",
            f"The load {plan.load_id} was for {destination} ({mode}), but the request is for {plan.destination} "
            f"({plan.mode}).",
            remedy="Submit it as a new job.",
        )
    return Loaded(destination, mode, inserted, updated, deleted, already_loaded=True)


def _upsert(
    transaction: Transaction,
    plan: TablePlan,
    existing: list[ExistingColumn],
    on_progress: Progress,
) -> tuple[int, int]:
    """Update the rows whose key exists, insert the rest; return how many of each."""
    transaction.stage(plan, on_progress)
    transaction.refuse_inexact(plan, existing)
    value = staged_value(plan, existing)
    refuse_bad_keys(transaction, plan, value)
    only_keys = set(plan.columns) == set(plan.key)  # then an existing row needs no change
    updated = 0 if only_keys else transaction.update(plan, existing, value)
    return updated, transaction.change(insert_missing(plan, value))


def refuse_bad_keys(transaction: Transaction, plan: TablePlan, value: Callable[[str], str]) -> None:
    """Raise `TaskFailure` if a staged row has no complete key, or two rows have the same key."""
    ((missing_count,),) = transaction.rows(find_missing_keys(plan))
    if missing_count:
        raise TaskFailure(
            "key_missing",
            f"{missing_count} rows have no value in the key {list(plan.key)}.",
            remedy="Drop or fill them in a transform step, or choose another key.",
            row_count=missing_count,
        )
    for *texts, count in transaction.rows(find_duplicate_key(plan, value)):
        example = ", ".join(f"{name} = {text}" for name, text in zip(plan.key, texts, strict=True))
        raise TaskFailure(
            "key_not_unique",
            f"The key {list(plan.key)} is not unique in the dataset: {example} occurs {count} times.",
            remedy="Deduplicate in a transform step, or add columns to the key that make it unique.",
        )
