"""A worker's main loop stands while its other threads go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.servers.services import BOUND_S, Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME_ALONE, Jobs, crew
from worker.upkeep.watchdog import EXIT_CODE

pytestmark = pytest.mark.chaos


def test_a_worker_whose_loop_stands_is_not_counted_and_ends_itself(empty_valkey: Server, tmp_path: Path) -> None:
    """It is listed as lost after a lease, gives its running job back without blame, and another worker runs that."""
    stall, notebook = tmp_path / "stall", tmp_path / "notes.txt"
    env = {
        **ACME_ALONE,
        "CELERY_BROKER_URL": empty_valkey.redis_url,
        "CELERIAC_STORE_URL": str(tmp_path / "store"),
        "CELERIAC_LEASE_S": "2",
        "CELERIAC_STALLED_AFTER_S": "14",
    }
    tasks = f"{ACME_ALONE['CELERIAC_TASKS']},tests.acme.stalling"
    with gateway_server(tmp_path, **env) as gateway, crew(tmp_path, **env) as workers:
        jobs = Jobs(gateway)
        standing = workers.start(CELERIAC_TASKS=tasks, ACME_STALL=str(stall))
        job_id = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 60})
        jobs.in_state(job_id, "running")
        stall.touch()

        def states() -> list[str]:
            return [worker["state"] for worker in http_client.get(f"{gateway.url}/workers").json()["workers"]]

        assert states() == ["online"]
        wait_for(lambda: states() == ["lost"], "the worker is listed as lost")
        assert standing.process.poll() is None
        assert standing.process.wait(BOUND_S) == EXIT_CODE
        assert jobs.get(job_id)["state"] == "queued"
        workers.start()
        job = jobs.in_state(job_id, "running")
        assert [attempt["outcome"] for attempt in job["attempts"]] == ["released", None]
        jobs.cancel(job_id)
        assert jobs.ended(job_id)["state"] == "cancelled"
