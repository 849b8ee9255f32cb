"""What the main process of a worker keeps until the ledger has taken it."""

from __future__ import annotations

from typing import Any, cast

import pytest
from billiard.exceptions import WorkerLostError
from redis.exceptions import RedisError

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.ledger.backend import OWNER_VARIABLE, LedgerBackend
from shared.ledger.client import Ledger
from tests.support.ledgers import claimed, entry, record
from worker.upkeep.endings import Endings


@pytest.fixture
def endings(broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch) -> Endings:
    """Return the endings of the worker w1, in whose main process Celery's calls go there."""
    monkeypatch.setenv(OWNER_VARIABLE, "w1")
    made = Endings(cast("LedgerBackend", make_celery(broker).backend))
    monkeypatch.setattr(LedgerBackend, "later", made.keep)
    return made


def _state(ledger: Ledger, job_id: str) -> str:
    return str(record(ledger, job_id).state)


def test_an_ending_is_told_once_its_job_does_not_run_here(
    accept: Any, ledger: Ledger, broker: BrokerSettings, endings: Endings
) -> None:
    """Celery's word alone changes nothing; what runs from another message may have the claim."""
    job = entry()
    accept(job)
    claimed(ledger, job.id, owner="w1")
    make_celery(broker).backend.mark_as_failure(job.id, WorkerLostError("signal 9"))
    assert _state(ledger, job.id) == "running"
    endings.settle({job.id})
    assert _state(ledger, job.id) == "running"
    endings.settle(set())
    assert _state(ledger, job.id) == "queued"


def test_what_is_refused_holds_nothing_up(
    accept: Any, ledger: Ledger, broker: BrokerSettings, endings: Endings, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again in each round, after the others; what is a defect is told once and dropped."""
    tried: list[str] = []

    def refused(_: LedgerBackend) -> None:
        tried.append("refused")
        raise RedisError("MISCONF")

    def defective(_: LedgerBackend) -> None:
        tried.append("defective")
        raise ZeroDivisionError

    job = entry()
    accept(job)
    claimed(ledger, job.id, owner="w1")
    endings.keep("defective", defective)
    endings.keep("refused", refused)
    make_celery(broker).backend.mark_as_failure(job.id, WorkerLostError("signal 9"))
    for _ in range(3):
        endings.settle(set())
    assert (tried, _state(ledger, job.id)) == (["defective", "refused", "refused", "refused"], "queued")
    said = [line.getMessage() for line in caplog.records]
    assert sum("is not in the ledger yet" in line for line in said) == 1
    assert sum("cannot be told to the ledger" in line for line in said) == 1
