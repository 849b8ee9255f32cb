"""Workers say which kinds they run, and a job whose kind nobody runs says that."""

from __future__ import annotations

from typing import Any

from shared.ledger.client import Ledger
from tests.support.ledgers import entry, record


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
