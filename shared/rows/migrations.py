"""The versions of the tables. Any number of workers may start at once, also on a database of a newer version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from shared.rows import tables
from shared.rows.celerys import taskmeta, tasksetmeta

Step = Callable[[sa.Connection], None]
_LOCK = "celeriac_schema"
_LOCK_NUMBER = 0x63656C65  # PostgreSQL's advisory locks are numbers
_LOCK_WITHIN_S = 30


def _create(connection: sa.Connection) -> None:
    tables.metadata.create_all(connection, tables=list(tables.OURS))


#: What leads from each version to the next. A step is never changed; the first creates the tables as they are now, so
#: whoever adds a column adds a step that leaves a table alone which has it. Columns are only ever added: workers of the
#: version before go on writing.
STEPS: Sequence[Step] = (_create,)


def migrate(engine: sa.Engine, steps: Sequence[Step] = STEPS) -> None:
    """Bring the tables to the newest version, and create Celery's own if they are missing.

    Without anything to do, nothing is written, so that a user without the right to create tables may run it.
    """
    with _alone(engine) as connection:
        tables.schema.create(connection, checkfirst=True)
        version = connection.scalar(sa.select(sa.func.max(tables.schema.c.version))) or 0
        for step in steps[version:]:
            step(connection)
        if version < len(steps):
            connection.execute(tables.schema.delete())
            connection.execute(tables.schema.insert().values(version=len(steps)))
        _create_celerys(connection)


def _create_celerys(connection: sa.Connection) -> None:
    """Create Celery's tables, or add the columns that `result_extended` and later versions of Celery have.

    On MySQL also make room for results of more than 64 kB.
    """
    taskmeta.metadata.create_all(connection, tables=[taskmeta, tasksetmeta])
    inspector = sa.inspect(connection)
    is_mysql = connection.dialect.name in {"mysql", "mariadb"}
    for table in (taskmeta, tasksetmeta):
        there = {column["name"]: column["type"] for column in inspector.get_columns(table.name)}
        quoted = connection.dialect.identifier_preparer.quote
        for column in table.columns:
            is_small = is_mysql and type(there.get(column.name)) is mysql.BLOB
            if column.name not in there or is_small:
                kind = column.type.compile(connection.dialect)
                change = f"{'MODIFY' if is_small else 'ADD'} COLUMN {quoted(column.name)} {kind}"
                connection.execute(sa.text(f"ALTER TABLE {quoted(table.name)} {change}"))


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection in a transaction, while no other process migrates this database."""
    with engine.connect() as connection:
        match engine.dialect.name:
            case "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_NUMBER)))
            case "mysql" | "mariadb":  # a lock of the session: a statement that creates a table ends the transaction
                if connection.scalar(sa.select(sa.func.get_lock(_LOCK, _LOCK_WITHIN_S))) != 1:
                    raise TimeoutError(f"another process migrates the result database for over {_LOCK_WITHIN_S} s")
        try:
            yield connection
            connection.commit()
        finally:
            connection.rollback()
            if engine.dialect.name in {"mysql", "mariadb"}:
                connection.execute(sa.select(sa.func.release_lock(_LOCK)))
