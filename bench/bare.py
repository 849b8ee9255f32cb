"""The same task on Celery alone, with its defaults: `celery -A bench.bare worker`."""

from __future__ import annotations

import os

from celery import Celery

_URL = os.environ["CELERIAC_BROKER_URL"]
app = Celery("bare", broker=_URL, backend=_URL)
app.conf.task_default_queue = "bare"


@app.task(name="bare.add_numbers")
def add_numbers(first: int, second: int) -> dict[str, int]:
    """Add two numbers."""
    return {"total": first + second}
