"""The broker goes away while jobs wait and run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.servers.cpu_waits import Stopwatch
from tests.support.servers.outages import RestartableValkey
from tests.support.servers.services import http_client, wait_for
from tests.support.servers.workers import Crew, Jobs

pytestmark = pytest.mark.chaos


def test_a_restart_of_the_broker_loses_no_job_and_repeats_none(
    service: tuple[RestartableValkey, Jobs, Crew], tmp_path: Path
) -> None:
    """One job ends while the broker is away, others wait in it: each runs once, and the gateway says 503 meanwhile."""
    valkey, jobs, workers = service
    workers.start()
    notebook = tmp_path / "notes.txt"
    running = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 6, "behave": "quiet"})
    waiting = [jobs.submit("acme.take_note", {"notebook": str(notebook)}) for _ in range(5)]
    jobs.in_state(running, "running")
    valkey.stop()
    watch = Stopwatch(jobs.gateway.process.pid)
    answer = http_client.get(f"{jobs.gateway.url}/jobs/{running}")
    assert watch.own_s < 3
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
    wait_for(lambda: "ended while nobody could hear" in notebook.read_text(), "the end of the body")
    valkey.start()
    ended = [jobs.ended(job_id) for job_id in (running, *waiting)]
    assert [job["state"] for job in ended] == ["succeeded"] * 6
    assert [job["attempt"] for job in ended] == [1] * 6
