"""The events of a job (server-sent events), and its log lines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from fastapi.exceptions import HTTPException
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from api.deps import Ledger
from api.http.problems import problems
from api.jobs.changes import Waiters, Watch
from api.jobs.selection import FoundJob
from shared.errors import LedgerUnavailable
from shared.ledger.aclient import AsyncLedger
from shared.ledger.history import Event
from shared.ledger.records import Record
from shared.ledger.states import FINAL_STATES, State

# A stream keeps EVENTS_KEPT (shared/ledger/records.py) events or more, so what follows a gap always fills a page.
_PAGE = 500
_LEDGER_PAUSE_S = 1.0  # before a stream reads again from a ledger that does not answer although the subscription works
_EVENT_ID = r"^[0-9]{1,15}(-[0-9]{1,15})?$"
_DESCRIPTION = """Each event has a name and JSON data `{at, step, ...}`:

- `state`: `{state, attempt, ...}`; with `step`, of that step of a workflow
- `progress`: `{current, total, unit, message}`
- `log`: `{level, message, fields}`
- `cancel_requested`
- `damaged`: an event that cannot be read
- `trimmed`: events are missing here; a job keeps about its last 2000 events

The stream ends after the final `state` of the job. Send the last received id as `Last-Event-ID` to continue after
it, as browsers do automatically; 204 means that the job has ended and nothing follows.
"""

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])


class LogLine(BaseModel):
    """A line of a job's log."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Send it as `after` to continue after this line.")
    at: AwareDatetime = Field(description="Time of the line.")
    step: str | None = Field(description="The step that logged it, if the job is a workflow.")
    level: str = Field(description="Log level.", examples=["info"])
    message: str = Field(description="The text.")
    fields: dict[str, Any] = Field(description="Structured fields.")


class LogPage(BaseModel):
    """A page of a job's log, oldest lines first."""

    model_config = ConfigDict(frozen=True)

    lines: list[LogLine] = Field(description="The lines.")
    next_after: str | None = Field(
        description="Send it as `after` for the next page; null if there are no more lines now."
    )
    is_trimmed: bool = Field(description="Whether earlier lines were dropped: a job keeps about 2000 events.")


async def _last_seen(
    job: FoundJob,
    ledger: Ledger,
    last_event_id: Annotated[
        str | None, Header(pattern=_EVENT_ID, description="Id of the last received event.")
    ] = None,
) -> str:
    """Return the id to continue after. Responds 204, which stops a browser from reconnecting, if nothing can follow."""
    if last_event_id is None:
        return "-"
    if State(job.state).is_final and not await ledger.events(job.id, after=last_event_id, count=1):
        raise HTTPException(204)
    return last_event_id


async def _watch(job: FoundJob, changes: Waiters) -> AsyncIterator[Watch]:
    with changes.watch(job.id) as watch:  # registered here, so that a refusal comes before the stream begins
        yield watch


@router.get(
    "/events",
    summary="Follow a job's events",
    description=_DESCRIPTION,
    response_class=EventSourceResponse,
    responses={204: {"description": "The job has ended and nothing follows."}, **problems(404, 410, 422, 503)},
)
async def follow_events(
    job: FoundJob,
    ledger: Ledger,
    changes: Waiters,
    watch: Annotated[Watch, Depends(_watch)],
    after: Annotated[str, Depends(_last_seen)],
) -> AsyncIterator[ServerSentEvent]:
    """Send the stored events, then new ones, until the job has ended."""
    has_ended = State(job.state).is_final
    while not changes.closing:
        try:
            page = await ledger.events(job.id, after=after, count=_PAGE)
            is_trimmed = len(page) == _PAGE and await _is_trimmed(ledger, job, page)
            ends = not page and await _has_ended(ledger, job)  # an id from the future hides even the final event
        except LedgerUnavailable:
            await watch.changed(_LEDGER_PAUSE_S)
            continue
        if is_trimmed:
            yield _sent(Event("", "trimmed", page[0].at_ms, "{}", None))
        for event in page:
            yield _sent(event)
            after = event.id
            has_ended |= _ends_job(event)
        if len(page) < _PAGE:
            if has_ended:
                return
            has_ended = ends
            if not ends:  # otherwise read once more: the last events may have come since
                await watch.changed()


@router.get("/logs", summary="Read a job's log", responses=problems(404, 410, 422, 503))
async def read_logs(
    job: FoundJob,
    ledger: Ledger,
    step: Annotated[str | None, Query(max_length=128, description="Only lines of this step.")] = None,
    after: Annotated[str | None, Query(pattern=_EVENT_ID, description="Only lines after this one's id.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of lines.")] = 200,
) -> LogPage:
    """Return a job's log lines, oldest first."""
    lines: list[LogLine] = []
    cursor, is_trimmed = after or "-", False
    while True:
        page = await ledger.events(job.id, after=cursor, count=_PAGE)
        is_trimmed |= not lines and len(page) == _PAGE and await _is_trimmed(ledger, job, page)
        for event in page:
            if event.event == "log" and step in (None, event.step):
                if len(lines) == limit:
                    return LogPage(lines=lines, next_after=lines[-1].id, is_trimmed=is_trimmed)
                lines.append(_line(event))
        if len(page) < _PAGE:
            return LogPage(lines=lines, next_after=None, is_trimmed=is_trimmed)
        cursor = page[-1].id


async def _has_ended(ledger: AsyncLedger, job: Record) -> bool:
    state = await ledger.state(job.id)
    return state is None or State(state).is_final


async def _is_trimmed(ledger: AsyncLedger, job: Record, page: Sequence[Event]) -> bool:
    """Return whether events before `page` were dropped: it starts the stream, yet not with the job's acceptance."""
    first = await ledger.events(job.id, count=1)
    return bool(first) and first[0].id == page[0].id and first[0].at_ms > job.created_at


def _ends_job(event: Event) -> bool:
    return event.event == "state" and event.step is None and _object(event.data).get("state") in FINAL_STATES


def _sent(event: Event) -> ServerSentEvent:
    data = {"at": _iso(event.at_ms), "step": event.step} | _object(event.data)
    return ServerSentEvent(event=event.event, id=event.id or None, raw_data=json.dumps(data))


def _line(event: Event) -> LogLine:
    logged = {"at": _iso(event.at_ms), "level": "info", "message": "", "fields": {}} | _object(event.data)
    try:
        return LogLine.model_validate({**logged, "id": event.id, "step": event.step})
    except ValidationError:
        at = datetime.fromtimestamp(event.at_ms / 1000, UTC)
        return LogLine(id=event.id, at=at, step=event.step, level="error", message="Unreadable line.", fields={})


def _object(text: str) -> dict[str, Any]:
    """Return the event's JSON object."""
    value = json.loads(text)
    return value if isinstance(value, dict) else {"message": str(value)}


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
