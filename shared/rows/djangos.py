"""Rows in the tables of `django-celery-results`, where the database has them, so that Django's admin shows the jobs.

Django creates and migrates these tables; which columns there are depends on the version of that package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from shared.ledger.records import Record
from shared.rows.celerys import at, finished_at, result_of, status_of
from shared.rows.forms import fitted

_TASKS = "django_celery_results_taskresult"
_FORMAT = {"content_type": "application/json", "content_encoding": "utf-8"}


class DjangoTables:
    """The table of task results, if it is there; `look` again from time to time."""

    def __init__(self, tasks: sa.Table | None = None) -> None:
        self.tasks = tasks

    @classmethod
    def look(cls, connection: sa.Connection) -> DjangoTables:
        """Return what the database has."""
        if not sa.inspect(connection).has_table(_TASKS):
            return cls()
        return cls(sa.Table(_TASKS, sa.MetaData(), autoload_with=connection))

    def keys(self) -> Sequence[sa.Column[Any]]:
        """Return the column with the job's id of each table that is there."""
        return [] if self.tasks is None else [self.tasks.c.task_id]


def task_result(table: sa.Table, record: Record) -> dict[str, Any] | None:
    """Return the row in the table of task results; None if there is none."""
    status = status_of(record)
    if status is None or len(record.id) > (getattr(table.c.task_id.type, "length", None) or 0):
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
