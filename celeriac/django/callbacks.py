"""The view that receives outcomes: signed according to Standard Webhooks, and harmless when they come again."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from celeriac.django import outcomes
from celeriac.django.models import Job
from celeriac.django.settings import settings_of_project
from celeriac.webhooks import WRONG_SIGNATURE, outcome_of
from shared.ledger.states import State


@csrf_exempt  # the signature says who sends it
@require_POST
def receive(request: HttpRequest, key: uuid.UUID) -> HttpResponse:
    """Note the outcome of a job: 401 for a wrong signature, 410 for a job that the project has deleted."""
    told = outcome_of(request.body, request.headers, settings_of_project().webhook_secrets)
    if told is None:
        return HttpResponse(WRONG_SIGNATURE, status=HTTPStatus.UNAUTHORIZED)
    jobs = list(Job.objects.filter(job_id=told["id"]))  # several, if submissions of a unique kind were one job
    if not jobs:
        job = Job.objects.filter(pk=key).first()
        if job is None:
            return HttpResponse("The job was deleted here.", status=HTTPStatus.GONE)  # which ends the retries
        jobs = [_told_of(job, told)]
    for job in jobs:
        outcomes.note(job, told, at=datetime.now(UTC))
    return HttpResponse(status=HTTPStatus.NO_CONTENT)


def _told_of(job: Job, told: Mapping[str, Any]) -> Job:
    """Return the row itself, whose submission has not been answered yet, or that of a rerun that was not made here.

    A rerun, such as with the command line, keeps the URL of the callback.
    """
    if job.job_id is None:
        return job
    rerun, _ = Job.objects.get_or_create(
        pk=uuid.uuid5(job.key, told["id"]),  # so that two callbacks at once make one row
        defaults={
            "job_id": told["id"],
            "kind": told["kind"],
            "params": job.params,
            "options": job.options,
            "state": State.QUEUED.value,
            "retried_from": job,
        },
    )
    return rerun
