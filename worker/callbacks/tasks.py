"""The task that sends the outcome of a job to its callback_url."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shared.connections.callbacks import concurrency_key_of, problem_with_callback
from shared.errors import DamagedRecord, TaskFailure, TransientFailure
from shared.jobs.callbacks import CallbackDelivered, DeliverCallback
from shared.ledger.client import Ledger
from shared.ledger.records import Place, Record
from worker.callbacks.sending import callback_of, deliver, signed_headers
from worker.runtime.places import places
from worker.runtime.task import Run, runs
from worker.settings import worker_settings


@places(DeliverCallback)
def receiver_of(ledger: Ledger, params: Mapping[str, Any]) -> Place | None:
    """Return the limit of the receiver. It holds for callbacks that a client submits, too."""
    job_id = params.get("job_id")
    try:
        told = ledger.read(job_id) if isinstance(job_id, str) else None
    except DamagedRecord:  # the body says so
        return None
    url = json.loads(told.options).get("callback_url") if isinstance(told, Record) else None
    if not url or problem_with_callback(url, worker_settings()):
        return None
    return Place(concurrency_key_of(url), worker_settings().callbacks_per_host)


@runs(DeliverCallback)
def deliver_callback(job: DeliverCallback, run: Run) -> CallbackDelivered:
    """POST the outcome of a job to its callback_url. A rerun sends the same message with the same webhook-id."""
    told = run.ledger.read(job.job_id)
    if not isinstance(told, Record):
        raise TaskFailure(
            "job_gone",
            "The job was deleted from the ledger.",
            remedy="Raise CELERIAC_RETENTION_S, so that a job outlives its callback, or delete jobs later.",
        )
    callback, settings = callback_of(told), worker_settings()
    if not settings.webhook_secrets:
        raise TransientFailure(
            "webhook_secret_missing",
            "This worker has no secret to sign callbacks with.",
            remedy="Set CELERIAC_WEBHOOK_SECRET of the callbacks workers to that of the gateway.",
        )
    if problem := problem_with_callback(callback.url, settings):
        raise TaskFailure("callback_refused", problem, remedy="Rerun the job with another options.callback_url.")
    started = time.monotonic()
    headers = signed_headers(callback, settings.webhook_secrets, datetime.now(UTC))
    status = deliver(callback, headers, allowed=settings.allowed_hosts)
    return CallbackDelivered(
        webhook_id=callback.id,
        host=callback.host,
        http_status=status,
        attempt=run.attempt,
        round_trip_s=time.monotonic() - started,
    )
