"""A peer, celery-fastapi, with the same task: `uvicorn bench.peer:app` in an environment of its own, see `servers`."""

from __future__ import annotations

import os
from typing import Any

import celery_fastapi  # type: ignore[import-not-found]  # installed in the peers' environment only
from celery import Celery

_URL = os.environ["CELERIAC_BROKER_URL"]
_celery = Celery("bench", broker=_URL, backend=_URL)


@_celery.task(name="extract_data")
def extract_data(source: dict[str, Any]) -> None:
    """Never run; only published."""


app = celery_fastapi.create_app(_celery)
