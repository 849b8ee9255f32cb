"""Rows in Celery's own tables, as its database backend writes them with `result_extended`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from celery.backends.database.models import TaskExtended, TaskSet
from sqlalchemy.dialects import mysql

from shared.ledger.records import Record
from shared.ledger.states import STEP_STATES, State
from shared.rows import tables
from shared.rows.forms import fitted
from shared.rows.noted import NotedRow

taskmeta: sa.Table = TaskExtended.__table__
tasksetmeta: sa.Table = TaskSet.__table__
for _table in (taskmeta, tasksetmeta):  # where we create them: ids that differ in case are different ids
    _table.dialect_kwargs.update(tables.ON_MYSQL)
    for _column in _table.columns:  # MySQL's BLOB, which Celery declares, has room for 64 kB
        if isinstance(_column.type, sa.LargeBinary):
            _column.type = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
ID_LENGTH = 155  # of Celery's columns; a job with a longer id is only in our tables
_STATES = {str(state): state for state in STEP_STATES}
_SUCCESS, _RETRY, _REVOKED = State.SUCCEEDED.celery, State.RETRYING.celery, State.CANCELLED.celery


def status_of(record: Record) -> str | None:
    """Return Celery's status of a job or step; None for one that Celery's backend would not write."""
    state = _STATES[record.state]
    return state.celery if state.is_final or state == State.RETRYING else None


def result_of(record: Record, status: str) -> str:
    """Return the result as Celery encodes it: the JSON of the result, or of an exception."""
    if status == _SUCCESS:
        return record.result or "null"
    error = json.loads(record.error or "{}")
    kind, module, message = "TaskFailure", "shared.errors", f"{error.get('code', '')}: {error.get('message', '')}"
    if status == _RETRY:
        kind, message = "TransientFailure", str(error.get("message", ""))
    elif status == _REVOKED:
        kind, module = "TaskRevokedError", "celery.exceptions"
    return json.dumps({"exc_type": kind, "exc_module": module, "exc_message": [message]})


def finished_at(record: Record) -> datetime | None:
    """Return when it ended, as a time in UTC."""
    return None if record.finished_at is None else at(record.finished_at)


def at(ms: int) -> datetime:
    """Return the time `ms` milliseconds after 1970, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def task_row(record: Record) -> dict[str, Any] | None:
    """Return the row in `celery_taskmeta`; None if there is none."""
    status = status_of(record)
    if status is None or len(record.id) > ID_LENGTH:
        return None
    ended = finished_at(record)
    values = {
        "task_id": record.id,
        "status": status,
        "result": result_of(record, status).encode(),
        "date_done": ended and ended.replace(tzinfo=None),
        "traceback": None,
        "children": None,
        "name": record.kind,
        "args": b"[]",
        "kwargs": record.params.encode(),
        "worker": record.worker,
        "retries": record.retries,
        "queue": record.queue,
        "stamps": None,
    }
    return fitted(taskmeta, values)


def group_row(noted: NotedRow) -> dict[str, Any] | None:
    """Return the row of a workflow in `celery_tasksetmeta`, from which `GroupResult.restore` gets its steps."""
    record = noted.record
    if not noted.step_ids or len(record.id) > ID_LENGTH or record.finished_at is None:
        return None
    ended = finished_at(record)
    group = [[record.id, None], [[[step_id, None], None] for step_id in noted.step_ids]]
    done = ended and ended.replace(tzinfo=None)
    return {"taskset_id": record.id, "result": json.dumps(group).encode(), "date_done": done}
