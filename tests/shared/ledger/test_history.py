"""What the ledger still knows of the jobs of some time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from shared.ledger.history import fields_between
from shared.ledger.ids import time_floor, uuid7
from shared.ledger.keys import key
from tests.support.ledgers import accept, client, entry, workflow

__all__ = ["accept", "client"]


def test_jobs_between_two_moments_page_by_page(accept: Callable[..., Any], client: redis.Redis) -> None:
    """Oldest first, whatever the page; the lower bound is in, the upper one is not; steps are not jobs."""
    ids = [uuid7() for _ in range(7)]
    accept(*(entry(id=job_id, kind="acme.shout_text") for job_id in ids))
    flow = workflow(["one", "two"], {"two": ["one"]})
    accept(flow)
    found = fields_between(client, ["id", "kind", "error"], lower_id=ids[1], upper_id=ids[6], page=2)
    assert list(found) == [[job_id, "acme.shout_text", None] for job_id in ids[1:6]]
    everything = fields_between(client, ["id"], lower_id=time_floor(0), upper_id=time_floor(2**47))
    assert [job_id for (job_id,) in everything] == [*ids, flow.id]


def test_forgotten_jobs_are_left_out(accept: Callable[..., Any], client: redis.Redis) -> None:
    """A record that goes while the list is read is not a job of the day."""
    one, other = entry(), entry()
    accept(one, other)
    client.delete(key("job", one.id))
    found = fields_between(client, ["id"], lower_id=time_floor(0), upper_id=time_floor(2**47))
    assert list(found) == [[other.id]]
