"""What becomes of a job whose child died, on Celery's word alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.result import AsyncResult

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.errors import TimeLimitReached
from shared.ledger.backend import OWNER_VARIABLE, LedgerBackend
from shared.ledger.client import Ledger
from tests.support.ledgers import claimed, entry, record


@pytest.fixture
def backend(broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the backend of the worker w1, which has killed a child in item 1 because that took too long."""
    monkeypatch.setenv(OWNER_VARIABLE, "w1")
    monkeypatch.setattr(LedgerBackend, "limit_reached", staticmethod(lambda _: TimeLimitReached(2, item=1)))
    return make_celery(broker).backend


def test_a_child_that_was_killed_in_an_item_fails_its_job(accept: Any, ledger: Ledger, backend: Any) -> None:
    """It is not a crash, and Celery's clients see the failure, too."""
    job = entry()
    accept(job)
    claimed(ledger, job.id, owner="w1")
    backend.mark_as_failure(job.id, WorkerLostError("signal 9"))
    ended = record(ledger, job.id)
    assert (ended.state, json.loads(ended.error or "")["details"]) == ("failed", {"limit_s": 2, "item": 1})
    assert AsyncResult(job.id, backend=backend).state == "FAILURE"


@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize("why", [WorkerLostError("signal 9"), TimeLimitExceeded(75)])
def test_a_job_whose_claim_is_lost_is_left_to_others(
    accept: Any, ledger: Ledger, backend: Any, why: Exception, *, elsewhere: bool
) -> None:
    """Whether another worker runs it already or it still waits: its late owner ends nothing, whichever limit it was."""
    job = entry()
    accept(job)
    if elsewhere:
        claimed(ledger, job.id, owner="w2")
    backend.mark_as_failure(job.id, why)
    assert (record(ledger, job.id).state, record(ledger, job.id).error) == ("running" if elsewhere else "queued", None)
