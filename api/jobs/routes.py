"""Jobs: submit, read, list, cancel, rerun, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from api.deps import Ledger, Store
from api.http.bodies import Body
from api.http.direct import DirectRoute
from api.http.idempotency import IdempotencyKey, key_of
from api.http.page_tokens import page_token
from api.http.problems import Problem, problems
from api.jobs import view
from api.jobs.dispatch import dispatch_of
from api.jobs.reruns import RetryRequest, refuse_partial, refuse_unrepeatable, repetition
from api.jobs.schemas import (
    BatchAccepted,
    CancelRequest,
    Job,
    JobAccepted,
    JobPage,
    WouldAccept,
    WouldAcceptBatch,
)
from api.jobs.selection import FoundJob, JobFilter, JobId, canonical, found_job, is_between, ledger_filter
from api.jobs.submissions import BATCH, SUBMISSION
from api.jobs.waiting import IfNoneMatch, Prefer, WaitS, cached, preferred_wait_s, when_ended
from shared.ledger.aclient import AsyncLedger
from shared.ledger.operations import Operations
from shared.ledger.records import Accepted, Entry
from shared.ledger.states import State
from shared.storage import ArtifactStore
from shared.texts import redact
from shared.workflows.planning import Prepared

RETRY: Body[RetryRequest] = Body("RetryRequest", RetryRequest, envelope=1)

ValidateOnly = Annotated[bool, Query(description="Check the request without accepting it.")]
_POLL_AFTER_S = "1"
_REFUSALS = problems(400, 410, 413, 415, 422, 503, 507)
_ACCEPTED: dict[str, Any] = {
    "description": "Accepted: the job is stored and will run.",
    "headers": {
        "Retry-After": {"description": "Recommended seconds before the first poll.", "schema": {"type": "integer"}},
        "Idempotency-Replayed": {
            "description": "`true` if this replays the response to an earlier request.",
            "schema": {"type": "string"},
        },
        "Warning": {
            "description": "`299`, and what to use instead, if the kind is deprecated.",
            "schema": {"type": "string"},
        },
    },
}
_LOCATED = {
    **_ACCEPTED,
    "headers": {
        **_ACCEPTED["headers"],
        "Location": {"description": "The job.", "schema": {"type": "string"}},
    },
}

router = APIRouter(tags=["jobs"])
direct = APIRouter(tags=["jobs"], route_class=DirectRoute)
_log = structlog.get_logger(__name__)


@direct.post(
    "/jobs",
    status_code=202,
    response_model=JobAccepted,
    summary="Submit a job",
    openapi_extra=SUBMISSION.document(),
    responses={
        200: {"description": "Would be accepted (`validate_only`).", "model": WouldAccept},
        202: _LOCATED,
        **_REFUSALS,
    },
)
async def submit_job(
    request: Request, *, validate_only: ValidateOnly = False, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submit one job. 202 means that it is stored and will run; its URL is in `Location`."""
    submission, body = await SUBMISSION.read(request)
    dispatch = dispatch_of(request)
    (prepared,) = await dispatch.prepare([submission])
    if validate_only:
        return _json(await asyncio.to_thread(would_accept, prepared))
    return _one_accepted(*await dispatch.accept([prepared], key_of(request, body, idempotency_key)))


@direct.post(
    "/jobs/batch",
    status_code=202,
    response_model=BatchAccepted,
    summary="Submit up to 1,000 jobs",
    openapi_extra=BATCH.document(),
    responses={
        200: {"description": "Would be accepted (`validate_only`).", "model": WouldAcceptBatch},
        202: _ACCEPTED,
        **_REFUSALS,
    },
)
async def submit_batch(
    request: Request, *, validate_only: ValidateOnly = False, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submit jobs that are accepted all together or not at all. The pointer of an error contains the job's index."""
    batch, body = await BATCH.read(request)
    dispatch = dispatch_of(request)
    prepared = await dispatch.prepare(batch.jobs, at="/jobs")
    if validate_only:
        return _json(WouldAcceptBatch(jobs=await asyncio.to_thread(lambda: [*map(would_accept, prepared)])))
    accepted, entries = await dispatch.accept(prepared, key_of(request, body, idempotency_key))
    return _answer(view.batch_accepted(entries, accepted), accepted, entries)


@direct.get(
    "/jobs/{job_id}",
    response_model=Job,
    summary="Read a job",
    responses={
        200: {"headers": {"ETag": {"description": "For `If-None-Match`.", "schema": {"type": "string"}}}},
        304: {"description": "Not changed since the response with this `ETag`."},
        **problems(404, 410, 422, 503),
    },
)
async def get_job(
    request: Request,
    job_id: JobId,
    *,
    wait_s: WaitS = None,
    prefer: Prefer = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return the job; with `wait_s`, when it has ended. A failed job is a 200 with an `error`."""
    ledger: AsyncLedger = request.app.state.ledger
    record = await found_job(job_id, ledger)
    wished_s = preferred_wait_s(prefer) if wait_s is None else wait_s
    if wished_s:
        record = await when_ended(record, wished_s, ledger, request.app.state.changes, request.receive)
    response = cached(view.job(record), if_none_match)
    if wait_s is None and wished_s:
        response.headers["Preference-Applied"] = f"wait={wished_s:g}"
    return response


@router.get("/jobs", summary="List jobs", responses=problems(422, 503))
async def list_jobs(ledger: Ledger, wanted: Annotated[JobFilter, Query()]) -> JobPage:
    """Return jobs, newest first. A page may be short although more follow: continue while there is a token."""
    records, next_id = await ledger.list(ledger_filter(wanted), limit=wanted.page_size)
    jobs = map(view.summary, records)
    return JobPage(
        jobs=[job for job in jobs if is_between(job.created_at, wanted)],
        next_page_token=next_id and page_token(next_id, canonical(wanted)),
    )


@router.post(
    "/jobs/{job_id}/cancel",  # noqa: FAST003 - FoundJob takes it
    summary="Cancel a job",
    responses={
        200: {"description": "Cancelled: it had not started, or it is a workflow."},
        202: {"description": "Requested: its worker stops it.", "model": CancelRequest},
        **problems(404, 409, 410, 422, 503, 507),
    },
)
async def cancel_job(found: FoundJob, response: Response, ledger: Ledger) -> CancelRequest:
    """Cancel a waiting or running job with all its steps. This is effective even if no worker is up."""
    outcome, ended_as = await ledger.cancel(found.id, reason="Cancelled on request.")
    if outcome == "ended":
        raise Problem(409, "job_ended", f"The job has already ended as {ended_as}; there is nothing to cancel.")
    if outcome == "unknown":
        raise Problem(410, "expired_job", "The job has just passed its retention.")
    if outcome == "requested":
        response.status_code = 202
        return CancelRequest(id=found.id, state="cancel_requested")
    return CancelRequest(id=found.id, state=State.CANCELLED)


@router.post(
    "/jobs/{job_id}/retry",  # noqa: FAST003 - FoundJob takes it
    status_code=202,
    response_model=JobAccepted,
    summary="Rerun a job",
    openapi_extra=RETRY.document(required=False),
    responses={202: _LOCATED, **_REFUSALS, **problems(404, 409, 410)},
)
async def retry_job(found: FoundJob, request: Request, *, idempotency_key: IdempotencyKey = None) -> Response:
    """Run an unsuccessful job again as a new job: unchanged, with other parameters and options, or in part."""
    refuse_unrepeatable(found)
    wanted, body = await RETRY.read_or(RetryRequest(), request)
    refuse_partial(found, wanted)
    submission = repetition(found, wanted)
    dispatch = dispatch_of(request)
    prepared = await dispatch.prepare([submission])
    key = key_of(request, body, idempotency_key)
    reusing = found if wanted.only_failed else None
    return _one_accepted(*await dispatch.accept(prepared, key, retried_from=found.id, reusing=reusing))


@router.delete(
    "/jobs/{job_id}",  # noqa: FAST003 - FoundJob takes it
    status_code=204,
    summary="Delete a job",
    responses=problems(404, 409, 410, 503, 507),
)
async def delete_job(found: FoundJob, ledger: Ledger, store: Store) -> None:
    """Delete an ended job with its result, its events and its files. Afterwards its URL answers 410."""
    what, rest = await Operations(ledger).forget(found.id)
    if what == "live":
        raise Problem(409, "job_live", "The job or a step of it has not ended. Cancel it first, or wait until it has.")
    if what == "referred":
        raise Problem(
            409,
            "job_in_use",
            "A live job, a schedule or a later job that used its steps again needs its files, or its callback is still "
            "to be made. It goes with its retention.",
        )
    if what == "unknown":
        raise Problem(410, "expired_job", "The job has just passed its retention.")
    await asyncio.to_thread(_forget_files, store, rest)


def _forget_files(store: ArtifactStore, file_owners: Sequence[str]) -> None:
    for file_owner in file_owners:
        try:
            store.forget(file_owner)
        except OSError as failure:
            _log.warning("the files of a job stay in the store", job_id=file_owner, cause=redact(repr(failure)))


def would_accept(prepared: Prepared) -> WouldAccept:
    """Return what a submission would become."""
    spec = prepared.job.spec
    return WouldAccept(
        kind=spec.kind,
        queue=prepared.options.queue or spec.queue,
        params=prepared.job.model_dump(mode="json"),
        steps=[step.plan.name for step in prepared.steps],
    )


def _one_accepted(accepted: Accepted, entries: Sequence[Entry]) -> Response:
    body = view.accepted(entries[0], accepted.ids[0], accepted.created_at_ms)
    return _answer(body, accepted, entries, Location=f"/jobs/{accepted.ids[0]}")


def _answer(body: str, accepted: Accepted, entries: Sequence[Entry], **headers: str) -> Response:
    headers["Retry-After"] = _POLL_AFTER_S
    if warning := view.warning({entry.kind for entry in entries}):
        headers["Warning"] = warning
    if accepted.outcome == "replayed":
        headers["Idempotency-Replayed"] = "true"
    return Response(body, 202, headers, "application/json")


def _json(model: BaseModel) -> Response:
    return Response(to_json(model), media_type="application/json")
