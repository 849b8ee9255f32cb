"""Read some fields of the jobs of a period, for statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import redis

from shared.ledger.ids import id_listed
from shared.ledger.keys import key


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
