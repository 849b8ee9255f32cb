"""Task events are on: a real Flower finds the worker and the task."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.servers.nursery import ROOT
from tests.support.servers.services import Server, answers, free_port, gateway_server, http_client, running, wait_for
from tests.support.servers.workers import ACME_ALONE, Jobs, crew

pytestmark = pytest.mark.integration


def test_flower_shows_worker_and_task(valkey: Server, tmp_path: Path) -> None:
    """Behind its password it lists the worker and the job that ran, under the job's id and without credentials."""
    env = {**ACME_ALONE, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "store")}
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    login = ("operator", "let-me-in")
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "flower", "--address=127.0.0.1", f"--port={port}"]
    command += [f"--basic-auth={':'.join(login)}"]
    flower_env = {**env, "PYTHONPATH": str(ROOT), "FLOWER_UNAUTHENTICATED_API": ""}
    with (
        running(command, tmp_path, port=port, ready=answers(url, 401), env=flower_env),
        gateway_server(tmp_path, **env) as gateway,
        crew(tmp_path, **env) as workers,
    ):
        workers.start()
        jobs = Jobs(gateway)
        job_id = jobs.submit("acme.take_note", {"notebook": str(tmp_path / "n")})
        jobs.ended(job_id)

        def seen() -> dict[str, str] | None:
            answer = http_client.get(f"{url}/api/task/info/{job_id}", auth=login)
            task = dict(answer.json()) if answer.status_code == 200 else {}
            return task if task.get("state") == "SUCCESS" else None

        task = wait_for(seen, "the task in Flower")
        assert (task["name"], http_client.get(f"{url}/api/workers").status_code) == ("acme.take_note", 401)

        def known() -> dict[str, dict[str, object]]:  # Flower shows the workers that answer within a second
            return dict(http_client.get(f"{url}/api/workers?refresh=1", auth=login).json())

        assert list(wait_for(known, "the worker in Flower")) == ["w0@test"]
