"""The tables of the result database, beside Celery's own: `celeriac_jobs`, `celeriac_attempts`, `celeriac_schema`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

NAME_LENGTH = 255  # of ids, kinds, queues, workers: as in the ledger
_MYSQL = ("mysql", "mariadb")


class Moment(TypeDecorator[int]):
    """A time: milliseconds since 1970 here, a time in UTC in the database."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type that keeps milliseconds and, where there is one, the time zone."""
        if dialect.name in _MYSQL:
            return dialect.type_descriptor(mysql.DATETIME(fsp=3))
        return dialect.type_descriptor(sa.DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Return the time for the database."""
        if value is None:
            return None
        moment = datetime.fromtimestamp(value / 1000, UTC)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's
        """Return the milliseconds of a time of the database."""
        if value is None:
            return None
        return round((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)


class _PostgresqlJson(UserDefinedType[str]):
    """PostgreSQL's type `json`, which keeps a text as it is; SQLAlchemy's would parse it here and write it again."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return its name."""
        return "JSON"

    def column_expression(self, colexpr: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Read it as text."""
        return sa.cast(colexpr, sa.Text)


_LONG = sa.Text().with_variant(mysql.LONGTEXT(), *_MYSQL)
_JSON = _LONG.with_variant(_PostgresqlJson(), "postgresql")
_NAME = sa.String(NAME_LENGTH)
# Ids that differ in case are different ids.
ON_MYSQL: Any = {f"{name}_{option}": value for name in _MYSQL for option, value in (
    ("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"),
)}  # fmt: skip

metadata = sa.MetaData()

schema = sa.Table("celeriac_schema", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))

jobs = sa.Table(
    "celeriac_jobs",
    metadata,
    sa.Column("id", _NAME, primary_key=True),
    sa.Column("place", sa.BigInteger, nullable=False),  # of two states of a row, the one with the higher place is later
    sa.Column("job_id", _NAME, index=True),  # of a step: its job
    sa.Column("step", _LONG),  # of a step: its name
    sa.Column("parent", _NAME),
    sa.Column("kind", _NAME, nullable=False),
    sa.Column("queue", _NAME, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("tags", _JSON, nullable=False),
    sa.Column("schedule", _NAME),
    sa.Column("worker", _NAME),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("due_at", Moment),
    sa.Column("expires_at", Moment),
    sa.Column("queued_at", Moment),
    sa.Column("started_at", Moment),
    sa.Column("cancel_requested_at", Moment),
    sa.Column("finished_at", Moment, index=True),
    sa.Column("error_code", _NAME),
    sa.Column("error_message", _LONG),
    sa.Column("error", _JSON),
    sa.Column("params", _JSON, nullable=False),
    sa.Column("options", _JSON, nullable=False),
    sa.Column("result", _JSON),
    sa.Column("artifacts", _JSON, nullable=False),
    sa.Column("progress", _JSON),
    sa.Column("step_ids", _JSON, nullable=False),  # of a workflow, in order
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("after", _JSON),  # of a step: ids of the steps whose results it needed
    sa.Column("may_fail", sa.Boolean, nullable=False),
    sa.Column("reused_from", _NAME),
    sa.Column("retried_from", _NAME),
    sa.Column("retried_as", _NAME),
    **ON_MYSQL,
)

attempts = sa.Table(
    "celeriac_attempts",
    metadata,
    sa.Column("job_id", _NAME, primary_key=True),  # the id of a job or step
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("worker", _NAME, nullable=False),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("finished_at", Moment, nullable=False),
    sa.Column("outcome", sa.String(20), nullable=False),
    **ON_MYSQL,
)

OURS: Sequence[sa.Table] = (jobs, attempts)
