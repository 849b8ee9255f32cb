"""Bulk calls: cancel jobs, or rerun those that did not succeed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import APIRouter, Request

from api.access.guard import caller_of
from api.deps import Ledger, Settings
from api.http.bodies import Body
from api.http.idempotency import Key
from api.http.models import at
from api.http.problems import Problem, problems, wrong_field
from api.jobs.dispatch import Dispatch, dispatch_of
from api.jobs.reruns import REPEATABLE, RerunRequest, refuse_unrepeatable, repetition
from api.jobs.schemas import BulkCancelled, BulkReruns, Refused, Rerun
from api.jobs.selection import (
    BULK_MAX,
    CANCEL_REASON,
    BulkRequest,
    adopt_missing,
    is_between,
    job_among,
    selected,
    unknown_job,
)
from api.jobs.view import links
from shared.access.callers import Caller
from shared.broker.settings import BrokerSettings
from shared.broker.unclaimed import NotThere
from shared.errors import DamagedRecord
from shared.ledger.aclient import AsyncLedger
from shared.ledger.records import Record, Unknown
from shared.ledger.states import State

BULK: Body[BulkRequest] = Body("BulkRequest", BulkRequest, envelope=3)
_LIVE = tuple(state for state in State if not state.is_final)
_AT_ONCE = 50  # concurrent calls of the ledger
_ONCE = "\x01repeat "  # no client's Idempotency-Key can begin with it
_REFUSALS = problems(400, 413, 415, 422, 503, 507)

T = TypeVar("T")
Answer = TypeVar("Answer")
router = APIRouter(tags=["jobs"])


@router.post(
    "/jobs/cancel",
    response_model=BulkCancelled,
    summary="Cancel many jobs",
    openapi_extra=BULK.document(),
    responses=_REFUSALS,
)
async def cancel_jobs(request: Request, ledger: Ledger, settings: Settings) -> BulkCancelled:
    """Cancel jobs by their ids, or the matching jobs of a filter that have not ended.

    After a 503 some may be cancelled: repeat the call.
    """
    wanted, _ = await BULK.read(request)
    chosen = await _chosen(ledger, settings, wanted, _LIVE)
    noted = [job_id for job_id, missing in chosen.missing.items() if missing.may_wait]
    if noted and not wanted.dry_run:
        known = await ledger.cancel_ahead(noted, reason=CANCEL_REASON, keep_s=settings.retention_s)
        claimed = [job_id for job_id in noted if job_id in known]  # since they were looked for
        noted = [job_id for job_id in noted if job_id not in known]
        await _read(ledger, claimed, chosen)

    async def cancel(record: Record) -> str | Refused:
        outcome, state = _foreseen(record), record.state
        if not wanted.dry_run:
            outcome, ended_as = await ledger.cancel(record.id, reason=CANCEL_REASON)
            state = ended_as or "forgotten"
        if outcome in {State.CANCELLED, "requested"}:
            return outcome
        return Refused(id=record.id, code="job_ended", message=f"The job has already ended: {state}.")

    outcomes = await _each(chosen.records, cancel)
    done = list(zip(chosen.records, outcomes, strict=True))
    return BulkCancelled(
        dry_run=wanted.dry_run,
        cancelled=[record.id for record, outcome in done if outcome == State.CANCELLED],
        requested=[record.id for record, outcome in done if outcome == "requested"],
        noted=noted,
        refused=[
            *chosen.refused,
            *(_unknown(job_id, missing) for job_id, missing in chosen.missing.items() if not missing.may_wait),
            *(outcome for outcome in outcomes if isinstance(outcome, Refused)),
        ],
        next_page_token=chosen.next_page_token,
    )


@router.post("/jobs/retry", response_model=BulkReruns, include_in_schema=False)  # the old name
@router.post(
    "/jobs/rerun",
    response_model=BulkReruns,
    summary="Rerun many jobs",
    openapi_extra=BULK.document(),
    responses=_REFUSALS,
)
async def rerun_jobs(request: Request, ledger: Ledger, settings: Settings) -> BulkReruns:
    """Run jobs that did not succeed again, each as a new job, by their ids or by a filter.

    A job that was rerun before is skipped, so the call can safely be repeated.
    """
    wanted, _ = await BULK.read(request)
    chosen = await _chosen(ledger, settings, wanted, REPEATABLE)
    records = [record for record in chosen.records if wanted.filter is None or record.retried_as is None]

    async def repeat(record: Record) -> Rerun | Refused:
        try:
            return await _repeat(record, dispatch_of(request), caller_of(request), dry_run=wanted.dry_run)
        except Problem as problem:
            return Refused(id=record.id, code=problem.code, message=problem.detail)

    outcomes = await _each(records, repeat)
    return BulkReruns(
        dry_run=wanted.dry_run,
        retried=[outcome for outcome in outcomes if isinstance(outcome, Rerun)],
        refused=[
            *chosen.refused,
            *(_unknown(job_id, missing) for job_id, missing in chosen.missing.items()),
            *(outcome for outcome in outcomes if isinstance(outcome, Refused)),
        ],
        next_page_token=chosen.next_page_token,
    )


@dataclass
class _Chosen:
    """The jobs of a bulk call."""

    records: list[Record] = field(default_factory=list)
    missing: dict[str, NotThere] = field(default_factory=dict)  # ids without a job
    refused: list[Refused] = field(default_factory=list)
    next_page_token: str | None = None


async def _chosen(
    ledger: AsyncLedger, settings: BrokerSettings, wanted: BulkRequest, states: Collection[State]
) -> _Chosen:
    """Raise `Problem` (422) for a filter without jobs that the call changes."""
    if wanted.filter is None:
        chosen = _Chosen()
        place = {job_id: n for n, job_id in enumerate(dict.fromkeys(wanted.ids or ()))}
        if unknown := await _read(ledger, list(place), chosen):
            missing = await adopt_missing(ledger, settings, unknown)
            await _read(ledger, [job_id for job_id in unknown if job_id not in missing], chosen)
            chosen.missing = {job_id: missing[job_id] for job_id in unknown if job_id in missing}
            chosen.records.sort(key=lambda record: place[record.id])
        return chosen
    selection = wanted.filter
    narrowed = [state for state in states if not selection.state or state in selection.state]
    if not narrowed:
        states_meant = ", ".join(states)
        message = f"This call does not change jobs in these states. Use some of {states_meant}, or omit 'state'."
        raise wrong_field("/filter/state", message)
    records, next_page_token = await selected(ledger, selection, narrowed, most=BULK_MAX)
    meant = [record for record in records if is_between(at(record.created_at), selection)]
    return _Chosen(meant, next_page_token=next_page_token)


async def _read(ledger: AsyncLedger, ids: Sequence[str], chosen: _Chosen) -> list[str]:
    """Add the jobs with these ids to the chosen, or to the refused; return the ids that the ledger does not know."""

    async def read(job_id: str) -> Record | Refused | None:
        try:
            found = await ledger.read(job_id)
            return None if isinstance(found, Unknown) else job_among(found, job_id)
        except Problem as problem:
            return Refused(id=job_id, code=problem.code, message=problem.detail)
        except DamagedRecord as damaged:
            return Refused(id=job_id, code="damaged_record", message=str(damaged))

    found = await _each(ids, read)
    chosen.records += [item for item in found if isinstance(item, Record)]
    chosen.refused += [item for item in found if isinstance(item, Refused)]
    return [job_id for job_id, item in zip(ids, found, strict=True) if item is None]


def _unknown(job_id: str, missing: NotThere) -> Refused:
    problem = unknown_job(job_id, missing)
    return Refused(id=job_id, code=problem.code, message=problem.detail)


async def _each(items: Sequence[T], call: Callable[[T], Awaitable[Answer]]) -> list[Answer]:
    """Return what `call` answers to each item, in order; only some run at once, so that other requests are served too.

    If one fails, the others that have begun end first, so that nothing is changed after the response.
    """
    answers: list[Answer] = []
    for start in range(0, len(items), _AT_ONCE):
        calls = [asyncio.ensure_future(call(item)) for item in items[start : start + _AT_ONCE]]
        try:
            answers += await asyncio.gather(*calls)
        finally:
            for under_way in calls:
                under_way.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
    return answers


def _foreseen(record: Record) -> str:
    """Return what cancelling would do; see `AsyncLedger.cancel`."""
    if State(record.state).is_final:
        return "ended"
    return "requested" if record.state == State.RUNNING and not record.total else State.CANCELLED


async def _repeat(record: Record, dispatch: Dispatch, caller: Caller, *, dry_run: bool) -> Rerun:
    """Make a new job of this one, once. Raises `Problem`."""
    refuse_unrepeatable(record)
    if record.retried_as is not None:
        raise _repeated_already(record.retried_as)
    submission = repetition(record, RerunRequest())
    prepared = await dispatch.prepare([submission], caller)
    if dry_run:
        return Rerun(retried_from=record.id, id=None, links=None)
    once = Key(_ONCE + record.id, "")
    accepted, _ = await dispatch.accept(prepared, once, retried_from=record.id)
    (job_id,) = accepted.ids
    if accepted.outcome == "replayed":  # another such call came first
        raise _repeated_already(job_id)
    if accepted.outcome == "taken":
        raise Problem(409, "job_live", f"Its kind is unique, and job {job_id} has not ended. Rerun it when that has.")
    return Rerun(retried_from=record.id, id=job_id, links=links(job_id))


def _repeated_already(job_id: str) -> Problem:
    return Problem(
        409, "already_retried", f"The job was already rerun as {job_id}. To run it again, rerun this job alone."
    )
