"""A circuit is shared by all who use its Redis, opens on transient failures only, and closes by a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from shared.errors import TaskFailure, TransientFailure
from tests.support.servers.services import Server
from worker.reach.breaker import Breaker

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[False, True], ids=["bytes", "decoded"])
def client(empty_valkey: Server, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """Return a client of an empty Valkey, one that decodes answers and one that does not."""
    with redis.Redis(port=empty_valkey.port, decode_responses=request.param) as connected:
        yield connected


RESET_S = 60


def breaker(client: redis.Redis, *, name: str = "http://a.example") -> Breaker:
    return Breaker(name, client, fail_max=3, reset_s=RESET_S)


def down() -> None:
    raise TransientFailure("source_http_503", "down")


def missing() -> None:
    raise TaskFailure("source_http_404", "not there")


def fail(one: Breaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(TransientFailure, match="down"):
            one.call(down)


def code_when_called(one: Breaker) -> str:
    try:
        one.call(lambda: None)
    except TransientFailure as failure:
        return failure.code
    return "called"


def test_it_opens_for_all_workers(client: redis.Redis) -> None:
    """Failures that different workers see add up; then none of them calls, and each is told how long."""
    fail(breaker(client), 2)
    fail(breaker(client), 1)
    with pytest.raises(TransientFailure) as raised:
        breaker(client).call(lambda: pytest.fail("called"))
    assert raised.value.code == "circuit_open"
    assert 50 < (raised.value.retry_after_s or 0) <= 60
    assert code_when_called(breaker(client, name="http://b.example")) == "called"


def test_other_failures_do_not_count(client: redis.Redis) -> None:
    """A 404 shows that the host is up: it starts the count again."""
    one = breaker(client)
    fail(one, 2)
    with pytest.raises(TaskFailure, match="not there"):
        one.call(missing)
    fail(one, 2)
    assert one.call(lambda: 7) == 7


def test_a_trial_closes_or_opens_it_again(client: redis.Redis) -> None:
    """After the reset time one call is let through; its outcome decides."""
    one = breaker(client)
    opened_at = one._storage.key("opened_at")
    fail(one, 3)
    assert code_when_called(one) == "circuit_open"
    client.decrby(opened_at, RESET_S)
    with pytest.raises(TransientFailure, match="down"):
        one.call(down)
    assert code_when_called(one) == "circuit_open"
    client.decrby(opened_at, RESET_S)
    assert code_when_called(one) == "called"
    fail(one, 2)
    assert code_when_called(one) == "called"


def test_its_keys_expire(client: redis.Redis) -> None:
    """Clients can name any number of hosts; nothing of them stays for ever."""
    fail(breaker(client), 3)
    keys = list(client.scan_iter("*"))
    assert len(keys) == 4
    assert all(0 < client.ttl(key) <= 3_600 for key in keys)
