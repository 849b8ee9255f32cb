"""What has been: the events of a job, and some fields of the jobs of a period, for statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import redis

from shared.ledger.ids import id_listed
from shared.ledger.keys import key


class Event(NamedTuple):
    """One entry of a job's stream. `data` is JSON text; `step` is the name of its step, if any."""

    id: str
    event: str
    at_ms: int
    data: str
    step: str | None


def first_event(created_at_ms: int, state: str) -> Event:
    """Return the first event of a job, which is not in its stream: see `events.lua` of the script."""
    return Event(f"{created_at_ms}-0", "state", created_at_ms, f'{{"state": "{state}", "attempt": 0}}', None)


def event_place(event_id: str) -> tuple[int, int]:
    """Return what event ids sort by: time in milliseconds, and a number within it."""
    at_ms, _, number = event_id.partition("-")
    return int(at_ms), int(number or 0)


def parse_event(event_id: str, values: Mapping[str, str]) -> Event:
    """Return one entry of the stream of a job, `damaged` if it cannot be read."""
    try:
        json.loads(values["data"])
        return Event(event_id, values["event"], int(values["at"]), values["data"], values.get("step"))
    except (KeyError, ValueError):
        return Event(event_id, "damaged", int(event_id.partition("-")[0]), "{}", values.get("step"))


def fields_between(
    client: redis.Redis, fields: Sequence[str], *, lower_id: str, upper_id: str, page: int = 500
) -> Iterator[list[str | None]]:
    """Yield the record's `fields` of each job with `lower_id` <= id < `upper_id`, oldest first; steps are not jobs.

    Ids sort by the time of submission, see `shared.ledger.ids.time_floor`. Only one `page` and only these
    fields are in memory, because parameters and results can be large. Jobs deleted meanwhile are skipped.
    """
    start = f"[{lower_id}"
    while ids := cast("list[str]", client.zrange(key("jobs"), start, f"({upper_id}", bylex=True, offset=0, num=page)):
        with client.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.hmget(key("job", id_listed(job_id)), ["id", *fields])
            read: list[Any] = pipeline.execute(raise_on_error=False)
        records = [each for each in read if not isinstance(each, redis.ResponseError)]  # damaged ones are left out, too
        yield from (values for job_id, *values in records if job_id is not None)
        start = f"({ids[-1]}"
