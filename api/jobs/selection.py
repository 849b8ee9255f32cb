"""From the filter of a request to that of the ledger, and to the jobs that it selects."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from api.http.page_tokens import next_id_of, page_token
from api.jobs.schemas import JobFilter
from api.operations.schemas import JobSelection
from shared.ledger.client import AsyncLedger
from shared.ledger.filters import EXACT, Filter
from shared.ledger.ids import time_floor
from shared.ledger.records import Record
from shared.ledger.states import State

_CLOCK_SLACK_S = 60.0  # an id has the gateway's time, `created_at` the ledger's


def canonical(wanted: JobFilter | JobSelection) -> str:
    """Return the text that binds a page token to its filter."""
    return wanted.model_dump_json(exclude={"page_token", "page_size"})


def ledger_filter(wanted: JobFilter | JobSelection) -> Filter:
    """Return the filter as the ledger takes it. Raises `Problem` (422) for a page token of another list."""
    return Filter(
        states=tuple(wanted.state),
        **wanted.model_dump(mode="json", include=set(EXACT)),
        lower_id=_first_id(wanted.created_after, -_CLOCK_SLACK_S),
        upper_id=next_id_of(wanted.page_token, canonical(wanted))
        if wanted.page_token
        else _first_id(wanted.created_before, _CLOCK_SLACK_S),
    )


def is_between(created_at: datetime, wanted: JobFilter | JobSelection) -> bool:
    """Return whether a job was created within the filter's times: ids alone tell it to about a minute."""
    after, before = wanted.created_after, wanted.created_before
    return (after is None or after <= created_at) and (before is None or created_at < before)


async def selected(
    ledger: AsyncLedger, wanted: JobSelection, states: Collection[State], *, most: int
) -> tuple[Sequence[Record], str | None]:
    """Return up to `most` jobs of `wanted` in one of `states`, newest first, and the token to go on with."""
    everywhere = ledger_filter(wanted)
    found: dict[str, Record] = {}
    looked_at: list[str] = []  # down to which id each state was searched, where that is not the end
    for state in states:  # each by itself: then its own index is walked, however many jobs are in other states
        records, next_id = await ledger.list(replace(everywhere, states=(state,)), limit=most)
        found |= {record.id: record for record in records}
        looked_at += [next_id] if next_id else []
    floor = max(looked_at, default="")
    newest_first = sorted((job_id for job_id in found if job_id >= floor), reverse=True)
    if len(newest_first) > most:
        newest_first = newest_first[:most]
        floor = newest_first[-1]
    return [found[job_id] for job_id in newest_first], page_token(floor, canonical(wanted)) if floor else None


def _first_id(moment: datetime | None, slack_s: float) -> str | None:
    return None if moment is None else time_floor(max(0, int((moment.timestamp() + slack_s) * 1000)))
