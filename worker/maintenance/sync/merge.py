"""Merge staged rows into a table in one transaction: update rows that differ, insert new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shared.errors import TaskFailure
from worker.tables.databases.statements import (
    delete_missing,
    delete_staged,
    insert_missing,
    mark_missing,
    unmark_staged,
)
from worker.tables.load import fitting_target, refuse_bad_keys, staged_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.tables.databases.base import Transaction
    from worker.tables.databases.plan import TablePlan


class Merged(NamedTuple):
    """Counts of the rows of a part, by outcome."""

    inserted: int
    updated: int
    unchanged: int


class Others(NamedTuple):
    """Counts of rows that the source no longer has, and of marked ones that it has again."""

    gone: int
    returned: int


def merge(transaction: Transaction, plan: TablePlan, on_progress: Callable[[int, int | None], None]) -> Merged:
    """Merge the plan's dataset into its target. Raises `TaskFailure` for keys or columns that do not fit."""
    plan, existing = fitting_target(transaction, plan)
    transaction.keep_writers_out(plan)
    transaction.stage(plan, on_progress)
    transaction.refuse_inexact(plan, existing)
    value = staged_value(plan, existing)
    refuse_bad_keys(transaction, plan, value)
    transaction.drop_unchanged(plan, existing, value)
    differing = transaction.staged_count()
    only_keys = set(plan.columns) == set(plan.key)
    updated = transaction.update(plan, existing, value) if differing and not only_keys else 0
    inserted = transaction.change(insert_missing(plan, value)) if differing else 0
    return Merged(inserted, updated, plan.row_count - differing)


def delete_marked(transaction: Transaction, plan: TablePlan, on_progress: Callable[[int, int | None], None]) -> int:
    """Delete the target's rows whose key is in the plan's dataset, which has only keys; return their number."""
    existing = transaction.columns(plan) or []
    transaction.keep_writers_out(plan)
    transaction.stage(plan, on_progress)
    return transaction.change(delete_staged(plan, staged_value(plan, existing)))


def delete_others(
    transaction: Transaction,
    plan: TablePlan,
    on_progress: Callable[[int, int | None], None],
    *,
    most_ratio: float,
    mark: str | None = None,
) -> Others:
    """Delete the target's rows whose key is not in the plan's dataset, which has only keys, or mark them.

    Raises `TaskFailure`: ``too_many_deletions`` if those are more than `most_ratio` (0..1) of the target's rows,
    ``columns_do_not_fit`` for a mark that holds no time.
    """
    transaction.keep_writers_out(plan)
    if mark is not None:
        _make_ready(transaction, plan, mark)
    value = staged_value(plan, transaction.columns(plan) or [])
    ((before,),) = transaction.rows(f"SELECT count(*) FROM {plan.target}")  # noqa: S608 - a quoted name
    transaction.stage(plan, on_progress)
    returned = 0 if mark is None else transaction.change(unmark_staged(plan, value, mark))
    gone = transaction.change(delete_missing(plan, value) if mark is None else mark_missing(plan, value, mark))
    if gone > before * most_ratio:
        raise TaskFailure(
            "too_many_deletions",
            f"{gone} of the {before} rows of {plan.destination} have no row with their key in the source; "
            f"at most {most_ratio:.0%} may be deleted or marked.",
            remedy="Check the source. If it is correct, raise mode.most_deleted_ratio.",
            row_count=gone,
        )
    return Others(gone, returned)


def has_rows(transaction: Transaction, plan: TablePlan) -> bool:
    """Return whether the target has any row."""
    return bool(transaction.rows(f"SELECT 1 FROM {plan.target} LIMIT 1"))  # noqa: S608 - a quoted name


def _make_ready(transaction: Transaction, plan: TablePlan, mark: str) -> None:
    """Add the column `mark` if the target lacks it."""
    dialect = plan.dialect
    found = next((one for one in transaction.columns(plan) or [] if dialect.fold(one.name) == dialect.fold(mark)), None)
    if found is None:
        transaction.change(f"ALTER TABLE {plan.target} ADD COLUMN {dialect.quoted(mark)} {dialect.instant}")
    elif not dialect.times_are_texts and found.shape.family != "timestamptz":
        raise TaskFailure(
            "columns_do_not_fit",
            f"mode.mark_missing: the column {mark!r} of {plan.destination} is {found.declared}, not {dialect.instant}.",
            remedy="Choose the name of another column, or of a new one.",
            column=mark,
        )
