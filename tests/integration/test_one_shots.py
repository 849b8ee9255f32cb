"""Jobs for later, by `run_at` and `delay_s`: they wait in the ledger, in nobody's memory, through every restart."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.ledger.keys import key
from tests.support.servers.outages import restartable_valkey
from tests.support.servers.services import BOUND_S, Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME, ACME_ALONE, Crew, Jobs

pytestmark = pytest.mark.integration

MANY = 2_000


def submit_many(gateway: Server, notebook: Path) -> None:
    """Submit two thousand jobs for an hour from now."""
    run_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    job = {"kind": "acme.take_note", "params": {"notebook": str(notebook)}, "options": {"run_at": run_at}}
    for _ in range(2):
        answer = http_client.post(f"{gateway.url}/jobs/batch", json={"jobs": [job] * (MANY // 2)})
        assert answer.status_code == 202, answer.text


def held_by_workers(broker_url: str) -> list[Any]:
    """Return what the workers hold: reserved, running, or with an ETA."""
    app = make_celery(BrokerSettings(broker_url=broker_url), transport="redis")
    inspect = app.control.inspect(timeout=BOUND_S, limit=1)
    answers = [inspect.scheduled(), inspect.reserved(), inspect.active()]
    assert all(answers), "the worker does not answer"
    return [job for answer in answers for jobs in (answer or {}).values() for job in jobs]


def test_later_jobs_wait_in_the_ledger_through_restarts_of_everything(tmp_path: Path) -> None:
    """Accepted, then gateway and Valkey end and start again: what is due runs, and the others sit nowhere else.

    No worker was up when they came; the one that starts later holds none of the two thousand, nor does the broker.
    """
    notebook = tmp_path / "notes.txt"
    with restartable_valkey(tmp_path / "valkey") as valkey, ExitStack() as stack:
        env = {**ACME, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "store")}
        with gateway_server(tmp_path / "before", **env) as gateway:
            submit_many(gateway, notebook)
            soon = Jobs(gateway).submit("acme.take_note", {"notebook": str(notebook)}, delay_s=2)
            run_at = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
            at_once = Jobs(gateway).submit("acme.take_note", {"notebook": str(notebook)}, run_at=run_at)
            assert {Jobs(gateway).get(job_id)["state"] for job_id in (soon, at_once)} == {"scheduled"}
        valkey.stop()
        valkey.start()
        jobs = Jobs(stack.enter_context(gateway_server(tmp_path / "after", **env)))
        workers = Crew(tmp_path, env | ACME_ALONE)
        stack.callback(workers.end)
        workers.start()
        assert [jobs.ended(job_id)["state"] for job_id in (soon, at_once)] == ["succeeded", "succeeded"]
        with redis.Redis(port=valkey.port, decode_responses=True) as client:
            wait_for(lambda: not client.exists("unacked"), "the acknowledgements")
            lists = [key for key in client.scan_iter(_type="list", count=10_000) if key.startswith("etl")]
            assert (client.zcard(key("due")), client.zcard(key("state", "scheduled")), lists) == (MANY, MANY, [])
        assert held_by_workers(valkey.redis_url) == []
    assert len(notebook.read_text().splitlines()) == 2
