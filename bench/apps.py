"""What is compared: the gateway with a no-op endpoint beside it, and Celery's `task.delay` in an endpoint."""

from __future__ import annotations

import os

from celery import Celery
from fastapi import FastAPI, Request

from api import status
from api.app import create_app
from api.routes.jobs import SUBMISSION
from api.schemas import JobAccepted
from shared.jobs.etl import ExtractData

_NO_JOB = "00000000-0000-7000-8000-000000000000"


def gateway() -> FastAPI:
    """Return the gateway, with `POST /noop`: the same body, the same validation, the same answer, no job."""
    app = create_app()

    @app.post("/noop", status_code=202)
    async def noop(request: Request) -> JobAccepted:
        submission, _ = await SUBMISSION.read(request)
        return JobAccepted(
            id=_NO_JOB,
            kind=submission.kind,
            state="queued",
            created_at=status.at(0),
            links=status.links(_NO_JOB),
        )

    app.router.routes.insert(0, app.router.routes.pop())  # found first, as POST /jobs would be
    return app


def delaying() -> FastAPI:
    """Return the usual way: a synchronous endpoint, which FastAPI runs in a thread, that calls `task.delay`."""
    url = os.environ["BENCH_REDIS_URL"]
    celery = Celery("bench", broker=url, backend=url)
    app = FastAPI()

    @celery.task(name="etl.extract_data")
    def extract_data(**params: object) -> None:
        """Never run; only published."""

    @app.post("/delay", status_code=202)
    def delay(job: ExtractData) -> dict[str, str]:
        return {"id": extract_data.delay(**job.model_dump(mode="json")).id}

    return app
