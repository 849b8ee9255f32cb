"""A cancel reaches the worker that runs the job at once, not with the next renewal."""

from __future__ import annotations

import threading
import time
from typing import Any

import redis

from shared.ledger.client import Ledger
from shared.ledger.keys import key
from tests.support.ledgers import claimed, entry
from tests.support.servers.services import wait_for
from worker.upkeep.cancels import Cancels

LONG_S = 120.0  # far longer than anything here takes


def listening(cancels: Cancels, heard: list[bool], job_id: str) -> threading.Thread:
    thread = threading.Thread(target=lambda: heard.append(cancels.wait(LONG_S, concerns=job_id.__eq__)))
    thread.start()
    return thread


def subscribers(client: redis.Redis) -> int:
    return int(client.pubsub_numsub(key("cancels"))[0][1])


def test_the_wait_ends_with_the_cancel_of_a_job_of_ours(accept: Any, ledger: Ledger, client: redis.Redis) -> None:
    """Of another's job it goes on, and of a connection that was cut it is begun again."""
    ours, other = entry(), entry()
    accept(ours, other)
    for job in (ours, other):
        claimed(ledger, job.id)
    cancels, heard = Cancels(client), list[bool]()
    began = time.monotonic()
    for _ in range(2):  # the second time after the connection was cut between two waits
        thread = listening(cancels, heard, ours.id)
        wait_for(lambda: subscribers(client), "the subscription")
        assert ledger.cancel(other.id, reason="no more") == "requested"
        assert ledger.cancel(ours.id, reason="no more") == "requested"
        thread.join()
        client.client_kill_filter(_type="pubsub")
        wait_for(lambda: not subscribers(client), "the cut")
    assert heard == [True, True]
    assert time.monotonic() - began < LONG_S


def test_a_ledger_that_is_away_is_waited_for(client: redis.Redis) -> None:
    """The wait takes its time, so that the custodian's rounds do not spin, and raises nothing."""
    with redis.Redis(port=1, decode_responses=True) as nobody:
        began = time.monotonic()
        assert Cancels(nobody).wait(0.2, concerns=lambda _: True) is False
        assert time.monotonic() - began >= 0.2
    assert subscribers(client) == 0
