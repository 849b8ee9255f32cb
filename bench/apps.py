"""The compared endpoints in one application: accepting a job, a no-op, and Celery's `task.delay`."""

from __future__ import annotations

from celery import Celery
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute

from api.app import create_app
from api.http.models import at
from api.jobs import view
from api.jobs.schemas import JobAccepted
from api.jobs.submissions import SUBMISSION
from api.settings import gateway_settings
from shared.jobs.etl import ExtractData
from shared.ledger.states import State

_NO_JOB = "00000000-0000-7000-8000-000000000000"


def gateway() -> FastAPI:
    """Return the gateway with two more endpoints, under the same middleware and found first.

    `POST /noop`: the same body, validation and response without a job. `POST /delay`: the usual way, a synchronous
    endpoint, which FastAPI runs in a thread, that calls Celery's `task.delay` on the same Valkey.
    """
    app = create_app()
    url = gateway_settings().broker_url
    celery = Celery("bench", broker=url, backend=url)

    @celery.task(name="etl.extract_data")
    def extract_data(**params: object) -> None:
        """Never run; only published."""

    async def noop(request: Request) -> JobAccepted:
        submission, _ = await SUBMISSION.read(request)
        return JobAccepted(
            id=_NO_JOB,
            kind=submission.kind,
            state=State.QUEUED,
            created_at=at(0),
            links=view.links(_NO_JOB),
        )

    def delay(job: ExtractData) -> dict[str, str]:
        return {"id": extract_data.delay(**job.model_dump(mode="json")).id}

    for path, endpoint in (("/noop", noop), ("/delay", delay)):
        route = APIRoute(path, endpoint, methods=["POST"], status_code=202, include_in_schema=False)
        app.router.routes.insert(0, route)
    return app
