"""The script is a library of the server, which may lose it, have it in other versions, and have no room."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from shared.ledger.aclient import AsyncLedger
from shared.ledger.client import Ledger
from shared.ledger.keys import Keys, key
from shared.ledger.records import Record, Submission
from shared.ledger.script import library
from tests.support.ledgers import claimed, entry, lapse, record, tended, with_async
from tests.support.servers.services import Server


@pytest.fixture(scope="module")
def valkey(own_valkey: Server) -> Server:
    """Return a server on which nobody else loads libraries."""
    return own_valkey


def names(client: redis.Redis) -> set[str]:
    listed: Any = client.function_list()
    return {each["library_name"] if isinstance(each, dict) else each[1] for each in listed}


def test_a_server_that_has_lost_the_library_gets_it_again(
    ledger: Ledger, client: redis.Redis, empty_valkey: Server
) -> None:
    """After FUNCTION FLUSH, or a start without the file, both clients go on."""
    job, later = entry(), entry()
    ledger.accept(Submission([job]))
    client.function_flush()
    assert record(ledger, job.id).state == "queued"
    client.function_flush()

    async def accept(gateway: AsyncLedger) -> str:
        return (await gateway.accept(Submission([later]))).outcome

    assert with_async(empty_valkey.redis_url, accept) == "accepted"
    assert names(client) == {library(Keys()).name}


def test_versions_run_side_by_side(ledger: Ledger, client: redis.Redis) -> None:
    """Each has a library of its own, so that gateways and workers can be replaced one after the other."""
    other = Ledger(client, keys=Keys("other:"))
    ledger.accept(Submission([entry()]))
    other.accept(Submission([entry()]))
    assert names(client) >= {library(Keys()).name, library(Keys("other:")).name}
    ledger.accept(Submission([entry()]))
    assert (client.zcard(key("jobs")), client.zcard("other:jobs")) == (2, 1)
    client.flushall()


def test_old_versions_do_not_pile_up(ledger: Ledger, client: redis.Redis) -> None:
    """Libraries outlive their users: where there are many, those of other versions go; nobody else's does."""
    client.function_flush()
    for n in range(16):
        client.function_load(f"#!lua name=celeriac_{n}\nredis.register_function('old{n}', function() end)")
    client.function_load("#!lua name=acme\nredis.register_function('acme', function() end)")
    ledger.accept(Submission([entry()]))
    assert names(client) == {library(Keys()).name, "acme"}


def test_nothing_of_a_call_that_failed_is_left_for_the_next(ledger: Ledger, client: redis.Redis) -> None:
    """The library is set up once and keeps its variables: changes, loaded records, freed places, counters."""
    runs, waits, bad = (entry(concurrency_key="crm") for _ in range(3))
    ledger.accept(Submission([runs, waits]))
    token = claimed(ledger, runs.id).token
    before: dict[str, str] = client.hgetall(key("counters"))  # type: ignore[assignment]  # replies are text
    with pytest.raises(redis.ResponseError, match="REFUSED"):
        ledger.succeed(runs.id, token=token, result=[])  # type: ignore[arg-type]  # it fails after it freed its place
    with pytest.raises(redis.ResponseError, match="REFUSED"):
        ledger.call("accept", [{"jobs": [bad.record(), {}]}])
    assert ledger.renew([runs.id], owner="w1", lease_s=60) == {runs.id: "ok"}
    assert client.hgetall(key("counters")) == before
    assert client.exists(key("job", bad.id)) == 0
    client.hset(key("job", waits.id), "kind", "acme.other")  # behind the back of what was loaded
    assert record(ledger, waits.id).kind == "acme.other"
    lapse(client, runs.id)
    assert tended(ledger) == [("republished", runs.id)]


def test_a_server_without_room_still_answers_reads(ledger: Ledger, client: redis.Redis, empty_valkey: Server) -> None:
    """It refuses a change before it begins, so none is half made."""
    job = entry()
    ledger.accept(Submission([job]))

    async def read(gateway: AsyncLedger) -> Any:
        return await gateway.read(job.id)

    client.config_set("maxmemory", 1)
    try:
        assert record(ledger, job.id).state == "queued"
        assert isinstance(with_async(empty_valkey.redis_url, read), Record)
        with pytest.raises(redis.OutOfMemoryError):
            ledger.call("forget", {"id": job.id})
    finally:
        client.config_set("maxmemory", 0)
