"""Write what the gateway says of a job into its row: in any order, any number of times, from several processes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q

from celeriac.django.models import ENDED, REFUSED, UNSENT, Job, database
from celeriac.django.signals import OF_STATE, job_refused
from shared.ledger.states import State

_TIMES = ("started_at", "finished_at")


def note(job: Job, told: Mapping[str, Any], *, at: datetime) -> bool:
    """Write a document of the gateway, asked for or received at `at`; return whether the row has changed.

    The end of a job is written once, together with what receivers of its signal write. An older answer changes nothing.
    """
    state = State(told["state"])
    rows = Job.objects.filter(pk=job.pk).exclude(state__in=ENDED)
    if not state.is_final:
        rows = rows.filter(Q(looked_at=None) | Q(looked_at__lte=at))
    fields = {
        "job_id": told["id"],
        "state": state.value,
        "error": told.get("error"),
        "result": told.get("result"),
        "is_result_omitted": told.get("is_result_omitted", False),
        "looked_at": at,
        **{name: _time(told.get(name)) for name in _TIMES},
    }
    with transaction.atomic(using=database()):
        has_changed = rows.update(**fields) == 1
        if has_changed and state.is_final:
            job.refresh_from_db()
            OF_STATE[state].send(Job, job=job)
    if not has_changed:
        _complete(job, told)
    job.refresh_from_db()
    return has_changed


def refuse(job: Job, problem: Mapping[str, Any]) -> None:
    """Note that the gateway does not accept the job, and why."""
    with transaction.atomic(using=database()):
        if Job.objects.filter(pk=job.pk, state=UNSENT).update(state=REFUSED, error=dict(problem)):
            job.refresh_from_db()
            job_refused.send(Job, job=job)


def _complete(job: Job, told: Mapping[str, Any]) -> None:
    """Add the result that a callback had no room for."""
    if told.get("is_result_omitted") is None and "result" in told:
        Job.objects.filter(pk=job.pk, is_result_omitted=True, job_id=told["id"], state=told["state"]).update(
            result=told["result"], is_result_omitted=False
        )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
