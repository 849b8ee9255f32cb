"""The broker goes away while jobs wait and run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers.outages import RestartableValkey, restartable_valkey
from tests.support.servers.services import gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME_ALONE, Crew, Jobs, crew

pytestmark = pytest.mark.chaos


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[RestartableValkey, Jobs, Crew]]:
    with restartable_valkey(tmp_path / "valkey") as valkey:
        env = {**ACME_ALONE, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "store")}
        with gateway_server(tmp_path, **env) as gateway, crew(tmp_path, **env) as workers:
            yield valkey, Jobs(gateway), workers


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
    answer = http_client.get(f"{jobs.gateway.url}/jobs/{running}", timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
    assert answer.elapsed.total_seconds() < 3
    wait_for(lambda: "ended while nobody could hear" in notebook.read_text(), "the end of the body")
    valkey.start()
    ended = [jobs.ended(job_id) for job_id in (running, *waiting)]
    assert [job["state"] for job in ended] == ["succeeded"] * 6
    assert [job["attempt"] for job in ended] == [1] * 6
