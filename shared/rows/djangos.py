"""Rows in the tables of `django-celery-results`, where the database has them, so that Django's admin shows the jobs.

Django creates and migrates these tables; which columns there are depends on the version of that package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from shared.ledger.records import Record
from shared.rows.celerys import at, finished_at, result_of, status_of
from shared.rows.forms import fitted
from shared.rows.noted import NotedRow

_TASKS = "django_celery_results_taskresult"
_FORMAT = {"content_type": "application/json", "content_encoding": "utf-8"}


class DjangoTables:
    """The table of task results, if it is there; `look` again from time to time."""

    def __init__(self, tasks: sa.Table | None = None) -> None:
        self._tasks = tasks

    @classmethod
    def look(cls, connection: sa.Connection) -> DjangoTables:
        """Return what the database has."""
        if not sa.inspect(connection).has_table(_TASKS):
            return cls()
        return cls(sa.Table(_TASKS, sa.MetaData(), autoload_with=connection))

    def keys(self) -> Sequence[sa.Column[Any]]:
        """Return the column with the job's id of each table that is there."""
        return [] if self._tasks is None else [self._tasks.c.task_id]

    def write(self, connection: sa.Connection, noted: Sequence[NotedRow]) -> None:
        """Write the rows, of which the database is known to have no later state."""
        if self._tasks is None:
            return
        task_id = self._tasks.c.task_id
        fits = getattr(task_id.type, "length", None) or 0
        rows = [row for one in noted if len(one.record.id) <= fits and (row := self._row(self._tasks, one.record))]
        known = set(connection.scalars(sa.select(task_id).where(task_id.in_([row["task_id"] for row in rows]))))
        for row in rows:
            if row["task_id"] in known:
                connection.execute(self._tasks.update().where(task_id == row["task_id"]).values(row))
            else:
                connection.execute(self._tasks.insert().values(row))

    @staticmethod
    def _row(table: sa.Table, record: Record) -> Mapping[str, Any] | None:
        status = status_of(record)
        if status is None:
            return None
        zoned = getattr(table.c.date_done.type, "timezone", False)
        created = at(record.created_at)
        times: dict[str, datetime | None] = {"date_created": created, "date_done": finished_at(record) or created}
        times["date_started"] = None if record.started_at is None else at(record.started_at)
        values = {
            "task_id": record.id,
            "periodic_task_name": record.schedule,
            "task_name": record.kind,
            "task_args": json.dumps("[]"),  # a text within JSON, as that package writes it
            "task_kwargs": json.dumps(record.params),
            "status": status,
            "worker": record.worker,
            "result": result_of(record, status),
            "traceback": None,
            "meta": json.dumps({"children": []}),
            **_FORMAT,
            **{name: time if time is None or zoned else time.replace(tzinfo=None) for name, time in times.items()},
        }
        return fitted(table, {name: value for name, value in values.items() if name in table.c})
