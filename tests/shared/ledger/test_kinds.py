"""Workers say which kinds they run; a job whose kind, or version of it, nobody runs says that and waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from shared.contract.versions import fingerprint
from shared.jobs.report import GenerateReport
from shared.ledger.client import Ledger
from tests.support.ledgers import ERROR, claimed, entry, record


def why(ledger: Ledger, job_id: str) -> tuple[str | None, int | None]:
    found = record(ledger, job_id)
    return found.waiting_reason, found.queue_position


def test_a_job_whose_kind_no_worker_runs_says_so(accept: Any, ledger: Ledger) -> None:
    """The gateway was deployed before the workers; one of a version that does not say what it runs may run it."""
    job = entry()
    accept(job)
    beat = {"about": "{}", "queues": ["etl"], "jobs": [], "lease_ms": 60_000, "keep_ms": 60_000}
    ledger.call("beat", {**beat, "owner": "old", "kinds": ["acme.shout", "acme.shout_text_twice"]})
    assert why(ledger, job.id) == ("no_worker_for_kind", None)
    ledger.call("beat", {**beat, "owner": "elsewhere", "queues": ["ml"], "kinds": [job.kind]})
    assert why(ledger, job.id) == ("no_worker_for_kind", None)
    ledger.call("beat", {**beat, "owner": "new", "kinds": [job.kind]})
    assert why(ledger, job.id) == ("behind", 0)
    ledger.call("leave", {"owner": "new"})
    assert why(ledger, job.id) == ("no_worker_for_kind", None)
    ledger.call("beat", {**beat, "owner": "silent"})
    assert why(ledger, job.id) == ("behind", 0)


def test_a_job_of_another_version_is_left_to_its_workers_without_blame(accept: Any, ledger: Ledger) -> None:
    """It is tried again later, says for what it waits, and nothing counts as its failure."""
    job = entry(contract="new")
    accept(job)
    assert ledger.give_back(job.id, token=claimed(ledger, job.id).token, contract="old", error=ERROR, for_s=60)
    found = record(ledger, job.id)
    assert (found.state, found.retries, found.crashes, found.waiting_reason) == ("retrying", 0, 0, "no_worker_for_kind")
    assert [attempt["outcome"] for attempt in json.loads(found.attempts)] == ["released"]
    assert 2_000 <= (found.due_at or 0) - json.loads(found.attempts)[0]["finished_at_ms"] <= 30_000


def test_what_waits_for_another_version_waits_longer_and_longer_and_not_for_ever(accept: Any, ledger: Ledger) -> None:
    """The wait grows with the time since the first try, whose bound ends it; a retry of its own begins it again."""
    job = entry(contract="new")
    accept(job)

    def given_back(**waits: Any) -> bool:
        claim = claimed(ledger, job.id)
        return ledger.give_back(job.id, token=claim.token, contract="old", error=ERROR, **{"for_s": 60, **waits})

    def first_given_back(ago_ms: int) -> None:
        at_ms = int(ledger.client.hget(ledger.keys("job", job.id), "given_back_at") or 0)
        ledger.client.hset(ledger.keys("job", job.id), mapping={"given_back_at": at_ms - ago_ms, "due_at": 1})

    assert given_back(least_s=0, most_s=0)
    first_given_back(20_000)
    assert given_back(least_s=2, most_s=30)
    found = record(ledger, job.id)
    assert 10_000 <= (found.due_at or 0) - json.loads(found.attempts)[-1]["finished_at_ms"] < 30_000
    first_given_back(60_000)
    claim = claimed(ledger, job.id)
    assert not ledger.give_back(job.id, token=claim.token, contract="old", error=ERROR, for_s=60)
    assert record(ledger, job.id).state == "running"  # its worker fails it
    ledger.retry(job.id, token=claim.token, delay_s=0, error=ERROR)
    assert record(ledger, job.id).waiting_reason == "scheduled"
    assert given_back()


@pytest.mark.parametrize("accepted_by", ["old", None], ids=["the same version", "no version"])
def test_what_no_other_version_accepted_is_not_given_back(accept: Any, ledger: Ledger, accepted_by: str | None) -> None:
    """Its worker fails it at once: other workers would refuse it, too."""
    job = entry(contract=accepted_by)
    accept(job)
    claim = claimed(ledger, job.id)
    assert not ledger.give_back(job.id, token=claim.token, contract="old", error=ERROR, for_s=60)
    assert record(ledger, job.id).state == "running"


def test_a_fingerprint_is_that_of_the_version() -> None:
    """It is the same in every process that has the same contract, and another with another parameter."""

    def elsewhere(module: str, contract: str, seed: str = "1") -> str:
        program = f"from {module} import {contract} as found\n"
        program += "from shared.contract.versions import fingerprint\nprint(fingerprint(found))"
        env = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.check_output([sys.executable, "-c", program], env=env, text=True).strip()

    assert elsewhere("shared.jobs.report", "GenerateReport") == fingerprint(GenerateReport)
    assert elsewhere("shared.jobs.report", "GenerateReport", seed="2") == fingerprint(GenerateReport)
    assert elsewhere("tests.chaos.kinds.older", "LeaveTrace") != elsewhere("tests.chaos.kinds.contracts", "LeaveTrace")
