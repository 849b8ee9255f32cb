"""Waiting for changes on a real Valkey."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import redis
import redis.asyncio

from api.http.problems import Problem
from api.jobs.changes import Changes, watching
from shared.ledger.keys import key
from tests.support.servers.outages import restartable_valkey
from tests.support.servers.services import BOUND_S, Server, valkey_server, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def subscriptions(server: Server) -> int:
    with redis.Redis(port=server.port) as client:
        return int(client.pubsub_numsub(key("changes"))[0][1])


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Server]:
    """Run a Valkey that no gateway is subscribed to."""
    with valkey_server(tmp_path) as server:
        yield server


async def settled(changes: Changes, job_id: str) -> None:
    """Return once the subscription is up: its first wake-up has come."""
    with changes.watch(job_id) as watch:
        assert await watch.changed(BOUND_S)


def test_a_change_of_the_job_wakes_its_waiter_and_no_other(empty_valkey: Server) -> None:
    """A published id wakes the waiter for that job only."""

    async def scenario() -> tuple[bool, bool]:
        async with watching(empty_valkey.redis_url) as changes:
            await settled(changes, "a")
            with changes.watch("a") as mine, changes.watch("b") as other:
                async with redis.asyncio.Redis(port=empty_valkey.port) as client:
                    await client.publish(key("changes"), "a")
                return await mine.changed(BOUND_S), await other.changed(0.1)

    assert asyncio.run(scenario()) == (True, False)


def test_many_waiters_share_one_subscription_and_leave_nothing(own_valkey: Server) -> None:
    """500 waiters for one job: one subscription, all woken, none left registered; then it ends when idle."""

    async def scenario() -> None:
        changes = Changes(own_valkey.redis_url, idle_s=0.1, quiet_s=0.1)
        listening = asyncio.create_task(changes.listen())
        await settled(changes, "a")
        with ExitStack() as stack:
            watches = [stack.enter_context(changes.watch("a")) for _ in range(500)]
            assert await asyncio.to_thread(subscriptions, own_valkey) == 1
            async with redis.asyncio.Redis(port=own_valkey.port) as client:
                await client.publish(key("changes"), "a")
            assert all(await asyncio.gather(*(watch.changed(BOUND_S) for watch in watches)))
        assert (len(changes), changes._watches) == (0, {})
        await asyncio.to_thread(wait_for, lambda: subscriptions(own_valkey) == 0, "the idle subscription's end")
        await settled(changes, "a")
        listening.cancel()
        await asyncio.wait([listening])

    asyncio.run(scenario())


def test_a_wait_ends_after_its_time(empty_valkey: Server) -> None:
    """Nothing changes: `changed` says so when its time is up."""

    async def scenario() -> bool:
        async with watching(empty_valkey.redis_url) as changes:
            await settled(changes, "a")
            with changes.watch("a") as watch:
                return await watch.changed(0.05)

    assert not asyncio.run(scenario())


def test_too_many_waiters_are_told_so(empty_valkey: Server) -> None:
    """The number of waiters is bounded; the next one is refused with 503, and a place that is left is free."""

    async def scenario() -> tuple[int, str]:
        changes = Changes(empty_valkey.redis_url, max_watches=1)
        with changes.watch("a"), pytest.raises(Problem) as refused, changes.watch("b"):
            pass
        with changes.watch("b"):
            return refused.value.status, refused.value.code

    assert asyncio.run(scenario()) == (503, "too_many_waiters")


def test_a_restarted_broker_wakes_everyone(tmp_path: Path) -> None:
    """What changed while the subscription was down is not announced, so each waiter looks for itself."""

    async def scenario() -> tuple[bool, bool]:
        with restartable_valkey(tmp_path) as valkey:
            async with watching(valkey.redis_url) as changes:
                await settled(changes, "a")
                with changes.watch("a") as first, changes.watch("b") as second:
                    await asyncio.to_thread(valkey.stop)
                    assert not await first.changed(0.3)
                    await asyncio.to_thread(valkey.start)
                    return await first.changed(BOUND_S), await second.changed(BOUND_S)

    assert asyncio.run(scenario()) == (True, True)


def test_a_silent_connection_is_given_up(empty_valkey: Server) -> None:
    """A server that stops answering is noticed: it is asked, and then connected to again."""

    async def scenario() -> bool:
        changes = Changes(empty_valkey.redis_url, quiet_s=0.1)
        listening = asyncio.create_task(changes.listen())
        await settled(changes, "a")
        with changes.watch("a") as watch:
            empty_valkey.process.send_signal(signal.SIGSTOP)
            try:
                assert not await watch.changed(0.5)
            finally:
                empty_valkey.process.send_signal(signal.SIGCONT)
            woken = await watch.changed(BOUND_S)
        listening.cancel()
        await asyncio.wait([listening])
        return woken

    assert asyncio.run(scenario())


def test_closing_ends_every_wait(empty_valkey: Server) -> None:
    """A gateway that stops ends all waits."""

    async def scenario() -> tuple[bool, bool]:
        async with watching(empty_valkey.redis_url) as changes:
            await settled(changes, "a")
            with changes.watch("a") as watch:
                changes.close()
                return await watch.changed(BOUND_S), changes.closing

    assert asyncio.run(scenario()) == (True, True)
