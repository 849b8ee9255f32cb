"""Reading a job from its rows, once the ledger has forgotten it."""

from __future__ import annotations

import json

import sqlalchemy as sa

from shared.ledger.records import Record
from shared.ledger.states import STEP_STATES
from shared.rows.forms import record_of
from shared.rows.tables import attempts, jobs

_ENDED = frozenset(state for state in STEP_STATES if state.is_final)


def read(engine: sa.Engine, job_id: str) -> Record | None:
    """Return the job or step with this id, a job with its steps; None if it has no row, or had not ended.

    Raises the errors of SQLAlchemy.
    """
    try:
        with engine.connect() as connection:
            return _read(connection.execution_options(reads=True), job_id)
    except sa.exc.DBAPIError:
        if sa.inspect(engine).has_table(jobs.name):
            raise
        return None  # no worker has created the tables yet, so nothing was written


def _read(connection: sa.Connection, job_id: str) -> Record | None:
    found = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).mappings().first()
    if found is None or found["state"] not in _ENDED:
        return None
    steps = connection.execute(sa.select(jobs).where(jobs.c.job_id == job_id)).mappings().all()
    of_job = sa.select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.attempt)
    own = [dict(row) for row in connection.execute(of_job).mappings()]
    order = {step_id: n for n, step_id in enumerate(json.loads(found["step_ids"]))}
    in_order = sorted(steps, key=lambda step: order.get(step["id"], len(order)))
    return record_of(dict(found), own, [record_of(dict(step)) for step in in_order])
