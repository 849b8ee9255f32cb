"""Rows from records, and records from rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from shared.ledger.records import Record
from shared.rows import tables
from shared.rows.noted import NotedRow
from shared.texts import valid

_TUPLES = ("tags", "after")
_SHARED = tuple(field.name for field in fields(Record) if field.name in tables.jobs.c)
_NOT_KEPT = {"retention_ms": 0, "max_crashes": 0, "max_retries": 0}  # how it was run, and not what came of it


def job_row(noted: NotedRow) -> dict[str, Any]:
    """Return the row of a job or step in `celeriac_jobs`."""
    record = noted.record
    values = {name: getattr(record, name) for name in _SHARED}
    values |= {name: None if values[name] is None else json.dumps(values[name]) for name in _TUPLES}
    error = json.loads(record.error) if record.error else {}
    values |= {
        "place": noted.place,
        "step_ids": json.dumps(noted.step_ids),
        "error_code": error.get("code"),
        "error_message": error.get("message"),
    }
    return fitted(tables.jobs, values)


def attempt_rows(record: Record) -> list[dict[str, Any]]:
    """Return the rows of the ended attempts of a job or step in `celeriac_attempts`."""
    return [
        fitted(
            tables.attempts,
            {
                "job_id": record.id,
                "attempt": item["attempt"],
                "worker": item["worker"],
                "started_at": item["started_at_ms"],
                "finished_at": item["finished_at_ms"],
                "outcome": item["outcome"],
            },
        )
        for item in json.loads(record.attempts)
        if "outcome" in item
    ]


def record_of(
    row: Mapping[str, Any], attempts: Iterable[Mapping[str, Any]] = (), steps: Sequence[Record] = ()
) -> Record:
    """Return the record of a job or step from its rows."""
    values: dict[str, Any] = {name: row[name] for name in _SHARED if row[name] is not None}
    values |= {name: tuple(json.loads(values[name])) for name in _TUPLES if name in values}
    values["attempts"] = json.dumps([_attempt(item) for item in attempts])
    return Record(**{**_NOT_KEPT, **values}, steps=tuple(steps))


def _attempt(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "attempt": row["attempt"],
        "worker": row["worker"],
        "started_at_ms": row["started_at"],
        "finished_at_ms": row["finished_at"],
        "outcome": row["outcome"],
    }


def fitted(table: sa.Table, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values as every database takes them: text in valid UTF-8 without NUL, and names not too long."""
    return {name: _fitting(table.c[name], value) for name, value in values.items()}


def _fitting(column: sa.Column[Any], value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return valid(value).replace("\0", "\N{REPLACEMENT CHARACTER}")[: getattr(column.type, "length", None)]
