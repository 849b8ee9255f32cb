"""Read a job: at once, when it has ended, or only if it has changed."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Header, Query, Response
from starlette.types import Receive

from api.jobs.changes import Changes, Watch
from shared import __version__
from shared.errors import LedgerUnavailable
from shared.ledger.aclient import AsyncLedger
from shared.ledger.records import Record
from shared.ledger.states import State

WAIT_MAX_S = 60.0
_LEDGER_PAUSE_S = 1.0  # delay before the next read if the ledger does not respond
_WAITS = frozenset(state for state in State if not (state.is_final or state == State.RUNNING))
_FORM = __version__  # another version of the gateway may show the same job otherwise
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,4})(?=$|[,;\s])", re.IGNORECASE)

WaitS = Annotated[
    float | None,
    Query(ge=0, le=WAIT_MAX_S, description="Respond when the job has ended, or after this many seconds."),
]
Prefer = Annotated[str | None, Header(max_length=1_000, description="`wait=30` is the same as `wait_s=30` (RFC 7240).")]
IfNoneMatch = Annotated[
    str | None, Header(max_length=1_000, description="The `ETag` of the last response: 304 if nothing has changed.")
]


def preferred_wait_s(prefer: str | None) -> float:
    """Return how many seconds a `Prefer` header asks to wait; 0 for none. Preferences not understood are ignored."""
    match = _WAIT.search(prefer or "")
    return min(float(match[1]), WAIT_MAX_S) if match else 0.0


async def when_ended(record: Record, wait_s: float, ledger: AsyncLedger, changes: Changes, receive: Receive) -> Record:
    """Return the job once it has ended, or as it is after `wait_s` seconds, or when the client hangs up."""
    if wait_s <= 0 or State(record.state).is_final:
        return record
    deadline = time.monotonic() + wait_s
    with changes.watch(record.id) as watch, _hearing(receive, watch):
        while not (changes.closing or watch.is_abandoned):
            try:
                if await _goes_on(record, deadline, ledger):
                    await watch.changed(deadline - time.monotonic())
                    continue
                latest = await ledger.read(record.id)
            except LedgerUnavailable:  # it may respond again before the time is up
                if time.monotonic() + _LEDGER_PAUSE_S >= deadline:
                    raise
                await watch.changed(_LEDGER_PAUSE_S)
                continue
            if not isinstance(latest, Record):
                return record  # it was deleted meanwhile; this is the last known record
            record = latest
            left_s = deadline - time.monotonic()
            if State(record.state).is_final or left_s <= 0 or not await watch.changed(left_s):
                break
    return record


@contextmanager
def _hearing(receive: Receive, watch: Watch) -> Iterator[None]:
    """Abandon `watch` as soon as the client hangs up, so that its place is free and nothing more is read for it."""

    async def hear() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        watch.abandon()

    hearing = asyncio.create_task(hear())
    try:
        yield
    finally:
        hearing.cancel()


async def _goes_on(record: Record, deadline: float, ledger: AsyncLedger) -> bool:
    """Return whether a workflow has not ended yet; this avoids reading all its steps at each of its many changes."""
    if not record.total or time.monotonic() >= deadline:
        return False
    state = await ledger.state(record.id)
    return state is not None and not State(state).is_final


def tag_of(record: Record, body: bytes) -> str:
    """Return the `ETag` of a job that is shown as `body`."""
    if record.total and not State(record.state).is_final:
        return _tag(body)
    return revision_tag(record.id, record.state, record.revision) or _tag(body)


def revision_tag(job_id: str, state: str | None, revision: str | None) -> str | None:
    """Return the `ETag` of a job by its revision alone; None if that does not say all.

    Of a job that waits, it does not say why and behind how many; nor of the steps of a workflow that has not ended, for
    which its tags are those of its bodies.
    """
    if state is None or revision is None or state in _WAITS:
        return None
    return _tag(f"{_FORM} {job_id} {state} {revision}".encode())


def _tag(content: bytes) -> str:
    return f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def knows(if_none_match: str, *tags: str) -> bool:
    """Return whether a client has what has one of these tags; `*` stands for whatever there is."""
    return any(item.strip().removeprefix("W/") in tags for item in if_none_match.split(","))


def cached(body: bytes, tag: str, if_none_match: str | None) -> Response:
    """Return `body` with its `ETag`, or 304 without a body where the client has it."""
    if if_none_match and knows(if_none_match, tag, "*"):
        return unchanged(tag)
    return Response(body, headers=_headers(tag), media_type="application/json")


def unchanged(tag: str) -> Response:
    """Return a 304."""
    return Response(status_code=304, headers=_headers(tag))


def _headers(tag: str) -> dict[str, str]:
    return {"ETag": tag, "Cache-Control": "no-cache"}
