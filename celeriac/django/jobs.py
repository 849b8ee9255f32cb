"""Submit, cancel, rerun and look at jobs.

A job is a row first and a request second: the row is part of the transaction that wants the job, and its key is the
request's Idempotency-Key. So a transaction that is rolled back submits nothing, and one that commits submits once: now,
or if the gateway does not answer, at the next `manage.py celeriac refresh`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import Q

from celeriac.client import Refused, Unreachable
from celeriac.client.plans.jobs import submission
from celeriac.django import outcomes
from celeriac.django.models import FORGOTTEN, LIVE, RERUNNABLE, UNSENT, Job, database
from celeriac.django.settings import settings_of_project
from celeriac.django.signals import OF_STATE
from shared.contract.definition import Contract
from shared.ledger.states import State

_log = logging.getLogger(__name__)

_TRANSIENT = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)  # not because of the job
_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_START = ("run_at", "delay_s")  # a rerun starts now
_UNKNOWN = {
    "code": "outcome_unknown",
    "detail": "The gateway did not answer, and no longer remembers the key: it may have accepted the job. Look for it "
    "with `celeriac list`, and rerun this one if it is not there.",
}


class NotPossible(Exception):
    """The state of the job does not allow it; the text says why."""


def submit(job: Contract[Any] | str, params: Mapping[str, Any] | None = None, **options: Any) -> Job:
    """Submit a job when the current transaction commits; at once if there is none. Returns its row.

    It is an instance of a contract, or the name of a kind and its parameters. `options` are those of a submission:
    `priority`, `delay_s`, `tags`, ... What the gateway does not accept becomes `refused`; `job_refused` is sent then.
    """
    body = submission(job, params, {})
    return _written(Job(kind=body["kind"], params=body["params"], options=options))


def rerun(job: Job) -> Job:
    """Run a job that did not succeed again, as a new one, when the transaction commits. Raises `NotPossible`."""
    if job.state not in RERUNNABLE:
        raise NotPossible(f"{job} is {job.state}; only a job that has ended without success is run again.")
    options = {name: value for name, value in job.options.items() if name not in (*_START, "callback_url")}
    return _written(Job(kind=job.kind, params=job.params, options=options, retried_from=job))


def cancel(job: Job) -> None:
    """Cancel a job; its row says `cancelled` when its worker has stopped.

    Raises `NotPossible`, `Unreachable`, `Refused`.
    """
    if job.state == UNSENT and _taken_back(job):
        return
    if job.state not in LIVE or job.job_id is None:
        raise NotPossible(f"{job} is {job.state}; there is nothing to cancel.")
    with settings_of_project().client() as client:
        client.cancel(job.job_id)
    refresh(job)


def refresh(job: Job, *, wait_s: float | None = None) -> bool:
    """Ask the gateway for the state of a job, or send it if it is unsent; return whether the row has changed.

    With `wait_s` (at most 60) it answers when the job has ended, or after this number of seconds.

    Raises `Unreachable`, `Refused`.
    """
    if job.state == UNSENT:
        return send(job)
    asked_at = datetime.now(UTC)
    try:
        with settings_of_project().client() as client:
            told = client.get(str(job.job_id), wait_s=wait_s).document
    except Refused as refused:
        if refused.status not in _GONE:
            raise
        return Job.objects.filter(pk=job.pk, state__in=LIVE).update(state=FORGOTTEN, looked_at=asked_at) == 1
    return outcomes.note(job, told, at=asked_at)


def stale(older_than_s: float) -> Any:
    """Return the jobs that have not ended and were last heard of before this, the oldest first."""
    before = datetime.now(UTC) - timedelta(seconds=older_than_s)
    unheard = Q(state__in=LIVE) & (Q(looked_at=None) | Q(looked_at__lte=before))
    unsent = Q(state=UNSENT, created_at__lte=before)
    return Job.objects.filter(unheard | unsent | Q(is_result_omitted=True)).order_by("created_at")


def send(job: Job) -> bool:
    """Submit an unsent job; return whether the gateway has answered for or against it. Raises `Unreachable`.

    Sent twice it is accepted once, as long as the gateway remembers the key.
    """
    now = datetime.now(UTC)
    Job.objects.filter(pk=job.pk, sent_at=None).update(sent_at=now)
    job.refresh_from_db()
    if job.sent_at and (now - job.sent_at).total_seconds() > settings_of_project().idempotency_s:
        outcomes.refuse(job, _UNKNOWN)
        return True
    try:
        accepted = _accepted(job)
    except Refused as refused:
        if refused.status in _TRANSIENT or refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unreachable(f"The gateway answered {refused.status}: {refused}") from refused
        outcomes.refuse(job, refused.problem)
        return True
    return outcomes.note(job, accepted, at=now)


def _accepted(job: Job) -> Mapping[str, Any]:
    before, key = job.retried_from, str(job.key)
    with settings_of_project().client() as client:
        if before is not None and before.job_id is not None and before.state != FORGOTTEN:
            return client.rerun(before.job_id, idempotency_key=key, options=job.options).document
        return client.submit(job.kind, job.params, idempotency_key=key, **job.options).document


def _written(job: Job) -> Job:
    settings = settings_of_project()
    if settings.callback_url:
        job.options.setdefault("callback_url", settings.callback_url_of(job.key))
    json.dumps([job.params, job.options], cls=DjangoJSONEncoder, allow_nan=False)  # what cannot be sent is not written
    job.save()
    transaction.on_commit(partial(_send_committed, job), using=database())
    return job


def _send_committed(job: Job) -> None:
    """Send it; what is committed is not to fail because the gateway is away."""
    try:
        send(job)
    except Unreachable as away:
        _log.warning("%s is sent by the next `manage.py celeriac refresh`: %s", job, away)


def _taken_back(job: Job) -> bool:
    """End a job that was never sent; return whether that was in time."""
    with transaction.atomic(using=database()):
        rows = Job.objects.filter(pk=job.pk, state=UNSENT, sent_at=None)
        taken = rows.update(state=State.CANCELLED.value, finished_at=datetime.now(UTC)) == 1
        job.refresh_from_db()
        if taken:
            OF_STATE[State.CANCELLED].send(Job, job=job)
    return taken
