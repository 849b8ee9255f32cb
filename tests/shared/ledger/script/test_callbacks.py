"""The ledger's part of a callback: handed out until it is submitted, submitted once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import redis

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.records import Claim, Place, Refusal
from tests.support.ledgers import RESULT, claim, claimed, entry, record, tended, workflow
from worker.upkeep.keeper import Keeper

OPTIONS = json.dumps({"callback_url": "https://example.com/hook"})


def callbacks(ledger: Ledger) -> list[str]:
    return [job_id for what, job_id in tended(ledger) if what == "callback"]


@pytest.mark.parametrize("how", ["succeeded", "cancelled", "expired"])
def test_every_end_is_handed_out_until_it_is_submitted(accept: Callable[..., Any], ledger: Ledger, how: str) -> None:
    """A keeper that dies between the two leaves it to the next, and a second one submits nothing."""
    job = entry(options=OPTIONS, expires_at=1 if how == "expired" else None)
    accept(job)
    if how == "succeeded":
        ledger.succeed(job.id, token=claimed(ledger, job.id).token, result=RESULT)
    elif how == "cancelled":
        ledger.cancel(job.id, reason="test")
    tended(ledger)
    assert record(ledger, job.id).state == how
    assert [callbacks(ledger), callbacks(ledger)] == [[job.id], [job.id]]
    callback = entry()
    assert [ledger.call_back(job.id, callback), ledger.call_back(job.id, entry())] == [True, False]
    assert callbacks(ledger) == []
    assert record(ledger, callback.id).state == "queued"


@pytest.mark.parametrize("options", ["{}", '{"callback_url":null}', '{"tags":["\\"callback_url\\":\\"x"]}'])
def test_without_a_callback_url_nothing_is_sent(accept: Callable[..., Any], ledger: Ledger, options: str) -> None:
    """Null is not a URL, and neither is text that looks like the option."""
    job = entry(options=options)
    accept(job)
    ledger.cancel(job.id, reason="test")
    assert callbacks(ledger) == []


def test_a_workflow_has_one_callback(accept: Callable[..., Any], ledger: Ledger) -> None:
    """Its steps have none."""
    job = workflow(["a", "b"], {"b": ["a"]})
    accept(replace(job, options=OPTIONS))
    ledger.succeed(job.steps[0].id, token=claimed(ledger, job.steps[0].id).token, result=RESULT)
    assert callbacks(ledger) == []
    ledger.succeed(job.steps[1].id, token=claimed(ledger, job.steps[1].id).token, result=RESULT)
    assert callbacks(ledger) == [job.id]


def test_the_keeper_submits_a_job_of_its_own(
    accept: Callable[..., Any], ledger: Ledger, client: redis.Redis, broker: BrokerSettings
) -> None:
    """It is tagged, names its job and only the host of the URL, and has no callback itself."""
    job = entry(options=OPTIONS)
    accept(job)
    ledger.cancel(job.id, reason="test")
    keeper = Keeper(ledger, broker, owner="keeper", app=make_celery(broker), callbacks_per_host=3)
    keeper.round()
    keeper.round()
    (callback_id,) = cast("list[str]", client.zrange(key("tag", "callback"), 0, -1))
    callback = record(ledger, callback_id)
    assert (callback.kind, callback.queue, callback.state) == ("maintenance.deliver_callback", "callbacks", "queued")
    assert json.loads(callback.params) == {"job_id": job.id}
    assert json.loads(callback.options) == {
        "tags": ["callback"],
        "concurrency_key": "callback:example.com:443",
        "concurrency_limit": 3,
    }


def test_a_callback_whose_job_is_damaged_holds_up_no_other(
    accept: Callable[..., Any], ledger: Ledger, client: redis.Redis, broker: BrokerSettings
) -> None:
    """The job is set aside, and the keeper submits the others."""
    jobs = [entry(options=OPTIONS), entry(options=OPTIONS)]
    for job in jobs:
        accept(job)
        ledger.cancel(job.id, reason="test")
    client.hdel(key("job", jobs[0].id), "kind")
    Keeper(ledger, broker, owner="keeper", app=make_celery(broker), callbacks_per_host=1).round()
    assert client.hkeys(key("set_aside")) == [jobs[0].id]
    (callback_id,) = cast("list[str]", client.zrange(key("tag", "callback"), 0, -1))
    assert json.loads(record(ledger, callback_id).params) == {"job_id": jobs[1].id}


def test_a_worker_may_tell_what_a_job_counts_under(accept: Any, ledger: Ledger, client: Any) -> None:
    """Then that holds, and a key that it was accepted with is free for others."""
    held, crm, erp = Refusal("held", ""), Place("crm", 1), Place("erp", 1)
    first, follower = entry(concurrency_key="crm"), entry(concurrency_key="crm")
    second, third = entry(), entry()
    accept(first, second, third, follower)
    running = claimed(ledger, first.id, place=crm)
    assert [claim(ledger, one.id, place=crm) for one in (second, third)] == [held, held]
    assert claim(ledger, follower.id) == held
    assert isinstance(claim(ledger, third.id, place=erp), Claim)
    assert [client.hget(key("job", one.id), "concurrency_key") for one in (second, third)] == ["crm", "erp"]
    ledger.succeed(first.id, token=running.token, result=RESULT)
    assert claim(ledger, second.id, place=erp) == held
    assert isinstance(claim(ledger, follower.id), Claim)
