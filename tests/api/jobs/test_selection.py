"""Which jobs a filter of a call for many selects, a part at a time."""

from __future__ import annotations

from typing import Any

import redis

from api.jobs.selection import JobSelection, selected
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.states import State
from tests.support.ledgers import entry, with_async
from tests.support.servers.services import Server

LIVE = (State.SCHEDULED, State.QUEUED, State.RUNNING)


def part(valkey: Server, wanted: JobSelection, most: int) -> tuple[list[str], str | None]:
    records, token = with_async(valkey.redis_url, lambda ledger: selected(ledger, wanted, LIVE, most=most))
    return [record.id for record in records], token


def test_a_selection_goes_on_with_its_token_over_all_states(accept: Any, ledger: Ledger, empty_valkey: Server) -> None:
    """Every job once, newest first, whichever state it is in; also where what was selected has changed meanwhile."""
    jobs = [entry(due_at=9_999_999_999_999 if n % 3 == 0 else None) for n in range(11)]
    for job in jobs:
        accept(job)
    seen, token = part(empty_valkey, JobSelection(), 4)
    while token is not None:
        ledger.cancel(seen[-1], reason="r")
        more, token = part(empty_valkey, JobSelection(page_token=token), 4)
        assert len(more) <= 4
        seen += more
    assert seen == [job.id for job in reversed(jobs)]


def test_jobs_in_other_states_cost_nothing(accept: Any, client: redis.Redis, empty_valkey: Server) -> None:
    """The indexes of the states that are meant are walked, not that of all jobs."""
    accept(*(entry() for _ in range(3)))
    client.delete(key("jobs"))
    assert len(part(empty_valkey, JobSelection(), 10)[0]) == 3
