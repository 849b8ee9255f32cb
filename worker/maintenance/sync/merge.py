"""Merge staged rows into a table within one transaction: what differs is updated, what is new inserted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shared.errors import TaskFailure
from worker.tables.load import fitting_target, refuse_bad_keys, staged_value
from worker.tables.load_sql import delete_missing, insert_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.tables.load import Database
    from worker.tables.load_plan import TablePlan


class Merged(NamedTuple):
    """Rows of a part, by what became of them."""

    inserted: int
    updated: int
    unchanged: int


def merge(database: Database, plan: TablePlan, on_progress: Callable[[int, int | None], None]) -> Merged:
    """Bring the plan's dataset into its target. Raises `TaskFailure` for keys or columns that do not fit."""
    existing = fitting_target(database, plan)
    database.keep_writers_out(plan)
    database.stage(plan, on_progress)
    value = staged_value(database, existing)
    refuse_bad_keys(database, plan, value)
    differing = database.drop_unchanged(plan, existing, value)
    only_keys = set(plan.columns) == set(plan.key)
    updated = database.update(plan, existing, value) if differing and not only_keys else 0
    inserted = database.change(insert_missing(plan, value)) if differing else 0
    return Merged(inserted, updated, plan.row_count - differing)


def delete_others(
    database: Database, plan: TablePlan, on_progress: Callable[[int, int | None], None], *, most_ratio: float
) -> int:
    """Delete the target's rows whose key is not in the plan's dataset, which has the key only; return how many.

    Raises `TaskFailure` (``too_many_deletions``) if that is more than `most_ratio` (0..1) of the target's rows.
    """
    existing = database.columns(plan) or []
    database.keep_writers_out(plan)
    ((before,),) = database.rows(f"SELECT count(*) FROM {plan.target}")  # noqa: S608 - a quoted name
    database.stage(plan, on_progress)
    deleted = database.change(delete_missing(plan, staged_value(database, existing)))
    if deleted > before * most_ratio:
        raise TaskFailure(
            "too_many_deletions",
            f"{deleted} of the {before} rows of {plan.destination} have no row with their key in the source; "
            f"at most {most_ratio:.0%} may be deleted.",
            remedy="Check the source. If it is right, raise mode.most_deleted_ratio.",
            row_count=deleted,
        )
    return deleted
