"""Jobs: submit, read, list, cancel, rerun, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from api.access.guard import caller_of
from api.deps import Ledger, Settings, Store
from api.http.bodies import Body
from api.http.direct import DirectRoute
from api.http.idempotency import IdempotencyKey, key_of
from api.http.page_tokens import page_token
from api.http.problems import Problem, problems
from api.jobs import view
from api.jobs.changes import Waiters
from api.jobs.dispatch import dispatch_of
from api.jobs.reruns import RerunRequest, refuse_partial, refuse_unrepeatable, repetition
from api.jobs.schemas import (
    BatchAccepted,
    CancelRequest,
    DamagedJob,
    Job,
    JobAccepted,
    JobPage,
    JobSummary,
    WouldAccept,
    WouldAcceptBatch,
)
from api.jobs.selection import (
    CANCEL_REASON,
    FoundJob,
    JobFilter,
    JobId,
    PathId,
    canonical,
    find,
    id_in,
    is_between,
    job_of,
    job_or_row,
    ledger_filter,
    unknown_job,
)
from api.jobs.submissions import ACCEPTED, BATCH, LOCATED, SUBMISSION, batch_accepted, one_accepted
from api.jobs.waiting import (
    WAIT_MAX_S,
    IfNoneMatch,
    Prefer,
    WaitS,
    cached,
    knows,
    preferred_wait_s,
    revision_tag,
    tag_of,
    unchanged,
    when_ended,
)
from shared.broker.unclaimed import NotThere
from shared.errors import DamagedRecord
from shared.ledger.aclient import AsyncLedger
from shared.ledger.operations import Operations
from shared.ledger.states import State
from shared.storage import ArtifactStore
from shared.texts import redact
from shared.workflows.planning import Prepared

RERUN: Body[RerunRequest] = Body("RerunRequest", RerunRequest, envelope=1)

CancelWaitS = Annotated[
    float,
    Query(ge=0, le=WAIT_MAX_S, description="If it is running: answer when it has ended, or after this many seconds."),
]
# Not in the document: of a 200 beside the 202, some generated clients make the only answer, which has no id.
ValidateOnly = Annotated[bool, Query(include_in_schema=False)]
_REFUSALS = problems(400, 410, 413, 415, 422, 503, 507)

router = APIRouter(tags=["jobs"])
direct = APIRouter(tags=["jobs"], route_class=DirectRoute)
_log = structlog.get_logger(__name__)


@direct.post(
    "/jobs",
    status_code=202,
    response_model=JobAccepted,
    summary="Submit a job",
    openapi_extra=SUBMISSION.document(),
    responses={202: LOCATED, **_REFUSALS},
)
async def submit_job(
    request: Request, *, validate_only: ValidateOnly = False, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submit one job. 202 means that it is stored and will run; its URL is in `Location`."""
    submission, body = await SUBMISSION.read(request)
    dispatch = dispatch_of(request)
    (prepared,) = await dispatch.prepare([submission], caller_of(request))
    if validate_only:
        return await _would_accept(prepared)
    return one_accepted(*await dispatch.accept([prepared], key_of(request, body, idempotency_key)))


@direct.post(
    "/jobs/batch",
    status_code=202,
    response_model=BatchAccepted,
    summary="Submit up to 1,000 jobs",
    openapi_extra=BATCH.document(),
    responses={202: ACCEPTED, **_REFUSALS, **problems(409)},
)
async def submit_batch(
    request: Request, *, validate_only: ValidateOnly = False, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submit jobs that are accepted all together or not at all. The pointer of an error contains the job's index."""
    batch, body = await BATCH.read(request)
    dispatch = dispatch_of(request)
    prepared = await dispatch.prepare(batch.jobs, caller_of(request), at="/jobs")
    if validate_only:
        return await _would_accept_all(prepared)
    accepted, entries = await dispatch.accept(prepared, key_of(request, body, idempotency_key))
    return batch_accepted(accepted, entries)


@router.post(
    "/jobs/validate",
    response_model=WouldAccept,
    summary="Check a job without accepting it",
    openapi_extra=SUBMISSION.document(examples=False),
    responses=_REFUSALS,
)
async def validate_job(request: Request) -> Response:
    """Refuse what `POST /jobs` would refuse, or say what it would accept. Nothing is stored."""
    submission, _ = await SUBMISSION.read(request)
    (prepared,) = await dispatch_of(request).prepare([submission], caller_of(request))
    return await _would_accept(prepared)


@router.post(
    "/jobs/batch/validate",
    response_model=WouldAcceptBatch,
    summary="Check a batch without accepting it",
    openapi_extra=BATCH.document(examples=False),
    responses=_REFUSALS,
)
async def validate_batch(request: Request) -> Response:
    """Refuse what `POST /jobs/batch` would refuse, or say what it would accept. Nothing is stored."""
    batch, _ = await BATCH.read(request)
    return await _would_accept_all(await dispatch_of(request).prepare(batch.jobs, caller_of(request), at="/jobs"))


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
    job_id: PathId,
    *,
    wait_s: WaitS = None,
    prefer: Prefer = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return the job; with `wait_s`, when it has ended. A failed job is a 200 with an `error`.

    With a result database, a job is returned from there once the ledger has forgotten it.
    """
    state = request.app.state
    ledger: AsyncLedger = state.ledger
    asked_for = id_in(job_id)
    wished_s = preferred_wait_s(prefer) if wait_s is None else wait_s
    if if_none_match and not wished_s:
        tag = revision_tag(asked_for, *await ledger.revision(asked_for))
        if tag and knows(if_none_match, tag):
            return unchanged(tag)
    record = await job_or_row(ledger, state.settings, asked_for, state.forgotten)
    if wished_s:
        record = await when_ended(record, wished_s, ledger, state.changes, request.receive)
    body = view.job(record)
    response = cached(body, tag_of(record, body), if_none_match)
    if wait_s is None and wished_s:
        response.headers["Preference-Applied"] = f"wait={wished_s:g}"
    return response


@router.get("/jobs", summary="List jobs", responses=problems(422, 503))
async def list_jobs(ledger: Ledger, wanted: Annotated[JobFilter, Query()]) -> JobPage:
    """Return jobs, newest first. A page may be short although more follow: continue while there is a token."""
    records, next_id = await ledger.list(ledger_filter(wanted), limit=wanted.page_size)
    shown = [view.listed(record) for record in records]
    return JobPage(
        jobs=[job for job in shown if isinstance(job, JobSummary) and is_between(job.created_at, wanted)],
        damaged=[job for job in shown if isinstance(job, DamagedJob)],
        next_page_token=next_id and page_token(next_id, canonical(wanted)),
    )


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a job",
    responses={
        200: {"description": "Cancelled: it had not started, or it is a workflow."},
        202: {
            "description": "Requested: its worker stops it. Or noted, for when its message comes.",
            "model": CancelRequest,
        },
        **problems(404, 409, 410, 422, 503, 507),
    },
)
async def cancel_job(
    *,
    job_id: JobId,
    request: Request,
    response: Response,
    ledger: Ledger,
    settings: Settings,
    changes: Waiters,
    wait_s: CancelWaitS = 0.0,
) -> CancelRequest:
    """Cancel a waiting or running job with all its steps. This is effective even if no worker is up.

    409 says that the job had ended before; with `wait_s`, also that it ended before its worker could stop it.
    """
    found = await find(ledger, settings, job_id)
    if isinstance(found, NotThere):
        keep_s = settings.retention_s
        if not found.may_wait or await ledger.cancel_ahead([job_id], reason=CANCEL_REASON, keep_s=keep_s):
            raise unknown_job(job_id, found)
        response.status_code = 202
        return CancelRequest(id=job_id, state="cancel_noted", has_started=False)
    outcome, more = await ledger.cancel(found.id, reason=CANCEL_REASON)
    if outcome == "ended":
        raise Problem(409, "job_ended", f"The job has already ended as {more}; there is nothing to cancel.")
    if outcome == "unknown":
        raise Problem(410, "expired_job", "The job has just passed its retention.")
    has_started = more == "started"
    if outcome == "requested":
        ended = await when_ended(found, wait_s, ledger, changes, request.receive)
        if not State(ended.state).is_final:
            response.status_code = 202
            return CancelRequest(id=found.id, state="cancel_requested", has_started=has_started)
        if ended.state != State.CANCELLED:
            what = f"The request came too late: the job has ended as {ended.state} before its worker could stop it."
            raise Problem(409, "job_ended", what)
    return CancelRequest(id=found.id, state=State.CANCELLED, has_started=has_started)


@router.post("/jobs/{job_id}/retry", status_code=202, include_in_schema=False)  # noqa: FAST003 - FoundJob takes it; the old name
@router.post(
    "/jobs/{job_id}/rerun",
    status_code=202,
    response_model=JobAccepted,
    summary="Rerun a job",
    openapi_extra=RERUN.document(required=False),
    responses={202: LOCATED, **_REFUSALS, **problems(404, 409, 410)},
)
async def rerun_job(found: FoundJob, request: Request, *, idempotency_key: IdempotencyKey = None) -> Response:
    """Run an unsuccessful job again as a new job: unchanged, with other parameters and options, or in part."""
    refuse_unrepeatable(found)
    wanted, body = await RERUN.read_or(RerunRequest(), request)
    refuse_partial(found, wanted)
    submission = repetition(found, wanted)
    dispatch = dispatch_of(request)
    prepared = await dispatch.prepare([submission], caller_of(request))
    old_path = request.url.path.rpartition("/")[0] + "/retry"  # one key is one rerun, by either path and either version
    key = key_of(request, body, idempotency_key, path=old_path)
    reusing = found if wanted.only_failed else None
    return one_accepted(*await dispatch.accept(prepared, key, retried_from=found.id, reusing=reusing))


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    summary="Delete a job",
    responses=problems(404, 409, 410, 503, 507),
)
async def delete_job(job_id: JobId, ledger: Ledger, settings: Settings, store: Store) -> None:
    """Delete an ended job with its result, its events and its files. Afterwards its URL answers 410.

    A job whose record is damaged is deleted in any state.
    """
    operations = Operations(ledger)
    try:
        view.job(await job_of(ledger, settings, job_id))
        what, rest = await operations.forget(job_id)
    except DamagedRecord:
        await operations.discard(job_id)
        return
    if what == "live":
        raise Problem(409, "job_live", "The job or a step of it has not ended. Cancel it first, or wait until it has.")
    if what == "referred":
        raise Problem(
            409,
            "job_in_use",
            "A live job, a schedule or a rerun of its steps still needs its files, or its callback is not sent yet. "
            "Delete it later, or wait for the end of its retention.",
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


async def _would_accept(prepared: Prepared) -> Response:
    return _json(await asyncio.to_thread(would_accept, prepared))


async def _would_accept_all(prepared: Sequence[Prepared]) -> Response:
    return _json(WouldAcceptBatch(jobs=await asyncio.to_thread(lambda: [*map(would_accept, prepared)])))


def _json(model: BaseModel) -> Response:
    return Response(to_json(model), media_type="application/json")
