"""Schedules: create, read, edit, delete, pause, resume, run now. Changes take effect without a restart of beat."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import ValidationError

from api.access.guard import caller_of
from api.deps import Ledger
from api.http.bodies import Body
from api.http.idempotency import IdempotencyKey, key_of
from api.http.page_tokens import Pages, page_token
from api.http.pointers import pointer
from api.http.problems import FieldError, Problem, problems
from api.jobs.dispatch import dispatch_of
from api.jobs.schemas import JobAccepted
from api.jobs.submissions import LOCATED, Submission, example_of, one_accepted, submission_shape
from api.schedules.schemas import Schedule, SchedulePage, ScheduleRequest, schedule_shape
from api.schedules.view import shown, url_of
from shared.contract.catalogue import catalogue
from shared.contract.options import RunOptions, SubmissionOptions
from shared.ledger.ids import uuid7
from shared.schedules import terms as schedules
from shared.schedules.timetable import AsyncTimetable, Planned
from shared.workflows.planning import Prepared

_EXAMPLE = {"name": "every night", "crontab": {"hour": "3", "minute": "30"}, "time_zone": "Europe/Berlin"}
SCHEDULE: Body[ScheduleRequest] = Body(
    "ScheduleRequest",
    submission_shape(catalogue(), ScheduleRequest),
    envelope=1,
    shown=lambda: schedule_shape(catalogue().submitted()),
    examples={"every night": _EXAMPLE | example_of(next(iter(catalogue().submitted().values())))},
)
_EDITS_TRIED = 5
_PATH = "schedules"
_NO_BODY = b"null"
_REFUSALS = problems(400, 413, 415, 422, 503, 507)
_LOCATION = {"Location": {"description": "The schedule.", "schema": {"type": "string"}}}

router = APIRouter(tags=["schedules"])


async def _timetable(ledger: Ledger) -> AsyncTimetable:
    return AsyncTimetable(ledger)


Timetable = Annotated[AsyncTimetable, Depends(_timetable)]
ScheduleId = Annotated[str, Path(description="The schedule's id.", json_schema_extra={"format": "uuid"})]


async def _found(schedule_id: ScheduleId, timetable: Timetable) -> Planned:
    """Return the schedule. Raises `Problem` (404)."""
    try:
        found = await timetable.get(str(UUID(schedule_id)))
    except ValueError:
        found = None
    if found is None:
        raise _unknown(schedule_id)
    return found


Edit = Callable[[schedules.Schedule], schedules.Schedule]
FoundSchedule = Annotated[Planned, Depends(_found)]


@router.post(
    "/schedules",
    status_code=201,
    response_model=Schedule,
    summary="Create a schedule",
    openapi_extra=SCHEDULE.document(),
    responses={201: {"headers": _LOCATION}, **_REFUSALS, **problems(409)},
)
async def create_schedule(request: Request, response: Response, timetable: Timetable) -> Schedule:
    """Create a schedule. Its parameters and options are checked like those of a job; slots count from now on."""
    wanted, _ = await SCHEDULE.read(request)
    await _prepare(request, wanted.kind, wanted.params, wanted.options)
    now_ms = _now_ms()
    made = _schedule(
        wanted,
        id=uuid7(),
        **_maker(request),
        paused=bool(wanted.paused),
        created_at_ms=now_ms,
        starts_at_ms=now_ms,
    )
    if await timetable.add(made) == "full":
        raise Problem(
            409,
            "too_many_schedules",
            f"There are already {schedules.MAX_SCHEDULES} schedules, the maximum. Delete some first.",
        )
    response.headers["Location"] = url_of(made.id)
    return shown(Planned(made, revision="1", cursor_ms=now_ms))


@router.get("/schedules", summary="List schedules", responses=problems(422, 503))
async def list_schedules(timetable: Timetable, wanted: Annotated[Pages, Query()]) -> SchedulePage:
    """Return schedules, newest first."""
    found = await timetable.list(limit=wanted.page_size + 1, before=wanted.below(_PATH))
    page = found[: wanted.page_size]
    more = len(found) > len(page)
    return SchedulePage(
        schedules=[shown(planned) for planned in page],
        next_page_token=page_token(page[-1].schedule.id, _PATH) if more else None,
    )


@router.get(
    "/schedules/{schedule_id}",  # noqa: FAST003 - FoundSchedule takes it
    summary="Read a schedule",
    responses=problems(404, 503),
)
async def get_schedule(found: FoundSchedule) -> Schedule:
    """Return the schedule, with its next five run times and its last job."""
    return shown(found)


@router.put(
    "/schedules/{schedule_id}",
    response_model=Schedule,
    summary="Edit a schedule",
    openapi_extra=SCHEDULE.document(),
    responses={**_REFUSALS, **problems(404, 409)},
)
async def replace_schedule(schedule_id: ScheduleId, request: Request, timetable: Timetable) -> Schedule:
    """Replace all terms of the schedule. If its slots change, they count from now on."""
    wanted, _ = await SCHEDULE.read(request)
    await _prepare(request, wanted.kind, wanted.params, wanted.options)

    def edited(before: schedules.Schedule) -> schedules.Schedule:
        return _schedule(
            wanted,
            id=before.id,
            **_maker(request),
            paused=before.paused if wanted.paused is None else wanted.paused,
            created_at_ms=before.created_at_ms,
            starts_at_ms=before.starts_at_ms if before.has_rhythm_of(wanted) else _now_ms(),
        )

    return await _edit(timetable, schedule_id, edited)


@router.delete(
    "/schedules/{schedule_id}",  # noqa: FAST003 - FoundSchedule takes it
    status_code=204,
    summary="Delete a schedule",
    responses=problems(404, 503, 507),
)
async def delete_schedule(found: FoundSchedule, timetable: Timetable) -> None:
    """Delete the schedule. Its jobs are kept and continue."""
    if not await timetable.remove(found.schedule.id):
        raise _unknown(found.schedule.id)


@router.post("/schedules/{schedule_id}/pause", summary="Pause a schedule", responses=problems(404, 409, 503, 507))
async def pause_schedule(schedule_id: ScheduleId, timetable: Timetable) -> Schedule:
    """Submit no jobs until it is resumed. Running jobs continue."""
    return await _edit(timetable, schedule_id, lambda before: _changed(before, paused=True))


@router.post(
    "/schedules/{schedule_id}/resume",  # noqa: FAST003 - FoundSchedule takes it
    summary="Resume a schedule",
    responses=problems(404, 409, 422, 503, 507),
)
async def resume_schedule(found: FoundSchedule, request: Request, timetable: Timetable) -> Schedule:
    """Resume from the next slot; slots during the pause are not missed. Refused if its jobs could not run."""
    await _prepare_stored(request, found.schedule)
    maker = _maker(request, found.schedule.key_id)
    return await _edit(timetable, found.schedule.id, lambda before: _changed(before, paused=False, note=None, **maker))


@router.post(
    "/schedules/{schedule_id}/run",  # noqa: FAST003 - FoundSchedule takes it
    status_code=202,
    response_model=JobAccepted,
    summary="Run a schedule now",
    responses={202: LOCATED, **problems(404, 410, 422, 503, 507)},
)
async def run_schedule(found: FoundSchedule, request: Request, *, idempotency_key: IdempotencyKey = None) -> Response:
    """Submit a job of it now, even if it is paused, and regardless of its overlap policy. Its slots do not change."""
    prepared = await _prepare_stored(request, found.schedule)
    key = key_of(request, _NO_BODY, idempotency_key)
    return one_accepted(*await dispatch_of(request).accept([prepared], key, schedule=found.schedule.id))


async def _edit(timetable: AsyncTimetable, schedule_id: str, edited: Edit) -> Schedule:
    """Replace the schedule with the result of `edited`; repeat if another request has changed it meanwhile."""
    for _ in range(_EDITS_TRIED):
        before = await _found(schedule_id, timetable)
        after = edited(before.schedule)
        restart = not after.has_rhythm_of(before.schedule) or after.paused != before.schedule.paused
        if await timetable.replace(before, after, restart=restart) == "ok":
            return shown(await _found(schedule_id, timetable))
    raise Problem(
        409, "schedule_changed", "Other requests edit this schedule at the same time. Read it again and retry."
    )


def _schedule(wanted: ScheduleRequest, **more: Any) -> schedules.Schedule:
    terms = {name: getattr(wanted, name) for name in schedules.Terms.model_fields}
    params = wanted.params.model_dump(mode="json", exclude_unset=True)
    return schedules.Schedule(**terms, kind=wanted.kind, params=params, updated_at_ms=_now_ms(), **more)


def _maker(request: Request, former: str | None = None) -> dict[str, str | None]:
    """Return the field that says by which key a schedule is; a beat of an earlier version does not know it.

    `former` is the key in the field that it replaces.
    """
    key_id = caller_of(request).key_id
    return {"key_id": key_id} if key_id or former else {}


def _changed(schedule: schedules.Schedule, **changes: Any) -> schedules.Schedule:
    return schedule.model_copy(update={**changes, "updated_at_ms": _now_ms()})


async def _prepare(request: Request, kind: str, params: Any, options: RunOptions) -> Prepared:
    """Check what a schema cannot express; return the submission of a tick. Raises `Problem` (422)."""
    given = SubmissionOptions.model_validate(options.model_dump(exclude_unset=True))
    submission = Submission(kind=kind, params=params, options=given)
    (prepared,) = await dispatch_of(request).prepare([submission], caller_of(request))
    return prepared


async def _prepare_stored(request: Request, schedule: schedules.Schedule) -> Prepared:
    """Check a stored schedule again: kinds and connections may have changed."""
    try:
        job = schedule.job()
    except KeyError:
        text = f"The kind {schedule.kind!r} no longer exists. Edit or delete the schedule."
        raise Problem(422, "unknown_kind", text, errors=[FieldError(pointer="/kind", message=text)]) from None
    except ValidationError as changed:
        errors = [
            FieldError(pointer=pointer(("params", *error["loc"])), message=error["msg"])
            for error in changed.errors(include_url=False, include_input=False)
        ]
        text = "The kind no longer takes the schedule's parameters. Edit them."
        raise Problem(422, "invalid_request", text, errors=errors) from None
    return await _prepare(request, schedule.kind, job, schedule.options)


def _unknown(schedule_id: str) -> Problem:
    return Problem(404, "unknown_schedule", f"There is no schedule {schedule_id[:100]}. GET /schedules lists them.")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
