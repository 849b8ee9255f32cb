"""Lists of jobs: what each filter selects, and what one that selects nothing costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product
from typing import Any

import pytest
import redis

from shared.ledger.aclient import AsyncLedger
from shared.ledger.calling.filters import Filter
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.records import Record
from shared.ledger.states import State
from tests.support.ledgers import claimed, entry, record, with_async
from tests.support.servers.services import Server

_STATES = ((), (State.QUEUED,), (State.RUNNING, State.CANCELLED, State.EXPIRED), tuple(State))


async def pages(gateway: AsyncLedger, wanted: Filter, **bounds: int) -> list[list[str]]:
    """Return the ids of each page of a list, up to the last."""
    found: list[list[str]] = []
    next_id: str | None = None
    while next_id is not None or not found:
        records, next_id = await gateway.list(replace(wanted, upper_id=next_id), **bounds)
        found.append([each.id for each in records])
    return found


def paged(valkey: Server, wanted: Filter, **bounds: int) -> list[list[str]]:
    return with_async(valkey.redis_url, lambda gateway: pages(gateway, wanted, **bounds))


@pytest.fixture
def jobs(accept: Any, ledger: Ledger) -> list[Record]:
    """Return sixty jobs of two queues, three tags and three states, the newest first."""
    made = [
        entry(queue=("etl", "ml")[n % 2], tags=tuple({"all", f"t{n % 3}"}), kind=f"acme.k{n % 4}_x") for n in range(60)
    ]
    accept(*made)
    for n, job in enumerate(made):
        if n % 5 == 1:
            claimed(ledger, job.id)
        elif n % 5 > 1:
            ledger.cancel(job.id, reason="r")
    return [record(ledger, job.id) for job in reversed(made)]


def combined() -> Iterator[Filter]:
    kinds, queues, tags = (None, "acme.k1_x", "no.kind"), (None, "ml"), (None, "t1", "all", "other")
    return (Filter(*each) for each in product(_STATES, kinds, queues, tags))


def is_wanted(job: Record, wanted: Filter) -> bool:
    """Return whether a job belongs to a list, by what its record says."""
    return (
        (not wanted.states or job.state in wanted.states)
        and wanted.kind in {None, job.kind}
        and wanted.queue in {None, job.queue}
        and (wanted.tag is None or wanted.tag in job.tags)
    )


def test_a_list_has_what_the_records_say(jobs: list[Record], empty_valkey: Server) -> None:
    """Each combination of filters, in one page and in pages of three: every job once, newest first."""

    async def compare(gateway: AsyncLedger) -> int:
        compared = 0
        for wanted in combined():
            expected = [job.id for job in jobs if is_wanted(job, wanted)]
            assert await pages(gateway, wanted, limit=100) == [expected], wanted
            assert [*chain(*await pages(gateway, wanted, limit=3))] == expected, wanted
            compared += bool(expected)
        return compared

    assert with_async(empty_valkey.redis_url, compare) >= 20


def test_a_page_ends_after_its_look_ups_and_says_where_to_go_on(
    accept: Any, ledger: Ledger, empty_valkey: Server
) -> None:
    """However many jobs lie between two that match, a page may be short, and no job is left out."""
    made = [entry(tags=("t",)) for _ in range(1_000)]
    accept(*made, *(entry() for _ in range(1_100)))
    for job in (made[0], made[500]):
        ledger.cancel(job.id, reason="r")
    found = paged(empty_valkey, Filter((State.QUEUED, State.RUNNING), tag="t"), limit=2_000, scan=1_200)
    assert len(found) > 2
    assert max(map(len, found)) <= 400
    assert [*chain(*found)] == [job.id for job in reversed(made) if job not in (made[0], made[500])]


@pytest.mark.parametrize("where", ["between", "before"])
def test_a_list_without_a_match_reads_no_record(
    accept: Any, ledger: Ledger, client: redis.Redis, empty_valkey: Server, where: str
) -> None:
    """Where two indexes have nothing in common, the ledger needs as few commands with a thousand jobs as with ten."""
    mixed = [entry(tags=("t",) if n % 2 else ()) for n in range(1_000)]
    accept(*(mixed if where == "between" else [job for job in mixed if job.tags]))
    for job in mixed:
        if job.tags:
            ledger.cancel(job.id, reason="r")
    if where == "before":
        accept(*(job for job in mixed if not job.tags))
    client.config_resetstat()
    assert paged(empty_valkey, Filter((State.QUEUED,), tag="t"), limit=20) == [[]]
    commands = {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in client.info("commandstats").items()}
    assert not {"hgetall", "hmget", "hget"} & commands.keys()
    assert sum(commands.get(name, 0) for name in ("zrange", "zmscore", "zintercard", "zcard")) <= 8


def test_a_job_whose_record_is_gone_is_not_listed(accept: Any, client: redis.Redis, empty_valkey: Server) -> None:
    """An index that still names it takes no place of the page from another."""
    first, lost, last = (entry(tags=("t",)) for _ in range(3))
    accept(first, lost, last)
    client.delete(key("job", lost.id))
    assert paged(empty_valkey, Filter(), limit=2)[0] == [last.id, first.id]
    assert [*chain(*paged(empty_valkey, Filter(tag="t"), limit=1))] == [last.id, first.id]
