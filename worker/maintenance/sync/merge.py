"""Merge staged rows into a table in one transaction: update rows that differ, insert new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shared.errors import TaskFailure
from worker.tables.databases.statements import delete_missing, insert_missing
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


def merge(transaction: Transaction, plan: TablePlan, on_progress: Callable[[int, int | None], None]) -> Merged:
    """Merge the plan's dataset into its target. Raises `TaskFailure` for keys or columns that do not fit."""
    plan, existing = fitting_target(transaction, plan)
    plan = plan.without(column.name for column in existing if column.generated)
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


def delete_others(
    transaction: Transaction, plan: TablePlan, on_progress: Callable[[int, int | None], None], *, most_ratio: float
) -> int:
    """Delete the target's rows whose key is not in the plan's dataset, which has only keys; return their number.

    Raises `TaskFailure` (``too_many_deletions``) if that is more than `most_ratio` (0..1) of the target's rows.
    """
    existing = transaction.columns(plan) or []
    transaction.keep_writers_out(plan)
    ((before,),) = transaction.rows(f"SELECT count(*) FROM {plan.target}")  # noqa: S608 - a quoted name
    transaction.stage(plan, on_progress)
    deleted = transaction.change(delete_missing(plan, staged_value(plan, existing)))
    if deleted > before * most_ratio:
        raise TaskFailure(
            "too_many_deletions",
            f"{deleted} of the {before} rows of {plan.destination} have no row with their key in the source; "
            f"at most {most_ratio:.0%} may be deleted.",
            remedy="Check the source. If it is correct, raise mode.most_deleted_ratio.",
            row_count=deleted,
        )
    return deleted
