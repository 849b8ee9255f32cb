"""Writing rows: the latest state of each job and step, in one transaction; and deleting them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from shared.rows.celerys import group_row, task_row, taskmeta, tasksetmeta
from shared.rows.djangos import DjangoTables, task_result
from shared.rows.forms import attempt_rows, job_row
from shared.rows.noted import NotedRow
from shared.rows.tables import attempts, jobs

_IDS_AT_ONCE = 1_000  # that one statement names


def write(connection: sa.Connection, noted: Sequence[NotedRow], django: DjangoTables) -> None:
    """Write these rows, except those of which the database has the same or a later state.

    The rows in `celeriac_jobs` are locked until the end of the transaction, so of two writers the one with the later
    state wins, in all tables. `IntegrityError`: another writer has just written one of them for the first time.
    """
    places = _places(connection, [row.record.id for row in noted])
    later = sorted(
        (row for row in noted if row.place > places.get(row.record.id, -1)),
        key=lambda row: row.record.id,  # two writers lock rows in the same order
    )
    if not later:
        return
    put(connection, jobs, "id", [job_row(row) for row in later], known=places.keys())
    _replace_attempts(connection, later)
    put(connection, taskmeta, "task_id", [row for one in later if (row := task_row(one.record))])
    put(connection, tasksetmeta, "taskset_id", [row for one in later if (row := group_row(one))])
    if django.tasks is not None:
        rows = [row for one in later if (row := task_result(django.tasks, one.record))]
        put(connection, django.tasks, "task_id", rows)


def _places(connection: sa.Connection, ids: Sequence[str]) -> dict[str, int]:
    wanted = sa.select(jobs.c.id, jobs.c.place).where(jobs.c.id.in_(ids)).order_by(jobs.c.id).with_for_update()
    return {row.id: row.place for row in connection.execute(wanted)}


def put(
    connection: sa.Connection,
    table: sa.Table,
    key: str,
    rows: Sequence[Mapping[str, Any]],
    known: Collection[str] | None = None,
) -> None:
    """Insert rows, or update those that the table has: `known` are the values of their key, if they are known."""
    if not rows:
        return
    column = table.c[key]
    if known is None:
        known = set(connection.scalars(sa.select(column).where(column.in_([row[key] for row in rows]))))
    if new := [dict(row) for row in rows if row[key] not in known]:
        connection.execute(table.insert(), new)
    if old := [{**row, "its_key": row[key]} for row in rows if row[key] in known]:
        names = [name for name in rows[0] if name != key]
        changed = table.update().where(column == sa.bindparam("its_key")).values({n: sa.bindparam(n) for n in names})
        connection.execute(changed, [{name: row[name] for name in (*names, "its_key")} for row in old])


def _replace_attempts(connection: sa.Connection, later: Sequence[NotedRow]) -> None:
    """Write the attempts again as a whole: of an id that is used again, earlier ones may be there."""
    ids = [row.record.id for row in later]
    connection.execute(attempts.delete().where(attempts.c.job_id.in_(ids)))
    if rows := [row for one in later for row in attempt_rows(one.record)]:
        connection.execute(attempts.insert(), rows)


def delete(connection: sa.Connection, ids: Sequence[str], django: DjangoTables) -> None:
    """Delete the rows of these jobs and of their steps."""
    steps = connection.scalars(sa.select(jobs.c.id).where(jobs.c.job_id.in_(ids)))
    _delete_rows(connection, [*ids, *steps], django)


def delete_older(connection: sa.Connection, than_ms: int, *, most: int, django: DjangoTables) -> int:
    """Delete at most `most` rows of jobs that ended before this time, and of their steps; return their number.

    The jobs come first: a job whose steps are half deleted would be shown so.
    """
    is_old = jobs.c.finished_at < sa.bindparam("than", than_ms, type_=jobs.c.finished_at.type)
    old_jobs = sa.select(jobs.c.id).where(jobs.c.job_id.is_(None), is_old).order_by(jobs.c.finished_at).limit(most)
    found = list(connection.scalars(old_jobs))
    if len(found) < most:
        whole = jobs.alias("whole")
        has_job = sa.exists().where(whole.c.id == jobs.c.job_id)
        alone = sa.select(jobs.c.id).where(jobs.c.job_id.is_not(None), is_old, ~has_job).order_by(jobs.c.finished_at)
        found += connection.scalars(alone.limit(most - len(found)))
    _delete_rows(connection, found, django)
    return len(found)


def _delete_rows(connection: sa.Connection, ids: Sequence[str], django: DjangoTables) -> None:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        some = ids[start : start + _IDS_AT_ONCE]
        keys = (jobs.c.id, attempts.c.job_id, taskmeta.c.task_id, tasksetmeta.c.taskset_id, *django.keys())
        for column in keys:
            connection.execute(column.table.delete().where(column.in_(some)))
