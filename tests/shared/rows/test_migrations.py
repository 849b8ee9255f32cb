"""The tables come to their newest version, whoever comes first."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from celery.backends.database.models import TaskExtended

from shared.rows import tables
from shared.rows.migrations import STEPS, migrate


def version(engine: sa.Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(tables.schema.c.version)))


def test_workers_that_start_at_once_create_the_tables_once(engine: sa.Engine) -> None:
    failures: list[Exception] = []
    start = threading.Barrier(4)

    def worker() -> None:
        start.wait()
        try:
            migrate(engine)
        except sa.exc.SQLAlchemyError as failure:
            failures.append(failure)

    workers = [threading.Thread(target=worker) for _ in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join(60)
    assert failures == []
    assert version(engine) == [len(STEPS)]
    names = set(sa.inspect(engine).get_table_names())
    assert names == {"celeriac_schema", "celeriac_jobs", "celeriac_attempts", "celery_taskmeta", "celery_tasksetmeta"}


def test_a_later_version_takes_only_its_own_steps(engine: sa.Engine) -> None:
    """And the version before goes on with its tables."""
    migrate(engine)

    def add_column(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE celeriac_jobs ADD COLUMN tenant VARCHAR(20)"))

    for _ in range(2):
        migrate(engine, [*STEPS, add_column])
    migrate(engine)
    assert version(engine) == [len(STEPS) + 1]
    assert "tenant" in {column["name"] for column in sa.inspect(engine).get_columns("celeriac_jobs")}


def test_a_step_that_fails_is_taken_again(engine: sa.Engine) -> None:
    def fails(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT nothing FROM nowhere"))

    with pytest.raises(sa.exc.DBAPIError):
        migrate(engine, [*STEPS, fails])
    migrate(engine)
    assert version(engine) == [len(STEPS)]


def test_a_table_of_celery_gets_the_columns_that_it_lacks(engine: sa.Engine) -> None:
    """An application without `result_extended` has created it, and has rows in it."""
    extended = {"name", "args", "kwargs", "worker", "retries", "queue", "stamps"}
    plain = sa.MetaData()
    columns = [column._copy() for column in TaskExtended.__table__.columns if column.name not in extended]
    table = sa.Table("celery_taskmeta", plain, *columns)
    plain.create_all(engine)
    with engine.begin() as connection:
        connection.execute(table.insert().values(task_id="theirs", status="SUCCESS"))
    migrate(engine)
    names = {column["name"] for column in sa.inspect(engine).get_columns("celery_taskmeta")}
    assert names >= extended
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT task_id FROM celery_taskmeta")) == "theirs"
