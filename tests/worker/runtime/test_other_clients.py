"""Jobs that another Celery application sends to real workers, under ids of any form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from celery import Celery

from tests.support.servers.services import BOUND_S, Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME, ACME_ALONE, crew

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def gateway(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a gateway and a worker; return the gateway's URL."""
    store = tmp_path_factory.mktemp("store") / "files"
    env = {**ACME, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(store)}
    with crew(tmp_path_factory.mktemp("workers"), **env | ACME_ALONE) as workers:
        workers.start()
        with gateway_server(tmp_path_factory.mktemp("gateway"), **env) as server:
            yield server.url
    assert sorted(path.name for path in store.parent.iterdir()) == ["files"]  # nothing was written outside
    assert all(len(path.name) == 36 for path in store.iterdir())


@pytest.fixture
def celery(valkey: Server) -> Iterator[Celery]:
    app = Celery("somebody", broker=valkey.redis_url, backend=valkey.redis_url)
    yield app
    app.close()


def job(gateway: str, job_id: str, wait_s: float = 20) -> dict[str, Any]:
    answer = http_client.get(f"{gateway}/jobs/{quote(job_id, safe='')}", params={"wait_s": wait_s})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("job_id", ["../../x", "käse/1 🧀", '"half'])
def test_a_job_of_any_id_runs_and_has_files(gateway: str, celery: Celery, tmp_path: Path, job_id: str) -> None:
    """Its caller gets the result, and it is read, downloaded and deleted like any other."""
    params = {"notebook": str(tmp_path / "notes.txt")}
    result = celery.send_task("acme.take_note", kwargs=params, task_id=job_id, queue="etl")
    assert result.get(timeout=BOUND_S)["line_count"] == 1
    found = job(gateway, job_id)
    assert (found["state"], found["id"]) == ("succeeded", job_id)
    (artifact,) = http_client.get(gateway + found["links"]["artifacts"]).json()["artifacts"]
    assert http_client.get(gateway + artifact["href"]).text == (tmp_path / "notes.txt").read_text()
    assert http_client.delete(gateway + found["links"]["self"]).status_code == 204
    assert http_client.get(gateway + artifact["href"]).status_code == 410


@pytest.mark.parametrize("params", [{"notebook": "a", "copybook": "b"}, {"wrong": 1}], ids=["right", "wrong"])
def test_a_workflow_is_refused_with_a_sentence(gateway: str, celery: Celery, params: dict[str, Any]) -> None:
    """Its steps are planned by the gateway: whoever sends it as a task is told so, whatever its parameters are."""
    result = celery.send_task("acme.note_twice", kwargs=params, queue="etl")
    with pytest.raises(Exception, match="is a workflow, and this message is not one of its steps"):
        result.get(timeout=BOUND_S)
    found = job(gateway, str(result.id))
    assert (found["state"], found["error"]["code"]) == ("failed", "workflow_without_steps")
    assert "Submit it to the gateway" in found["error"]["remedy"]
    (worker,) = http_client.get(f"{gateway}/workers").json()["workers"]
    assert "acme.note_twice" not in worker["kinds"]


def test_a_job_with_a_countdown_that_was_cancelled_never_runs(
    gateway: str, celery: Celery, valkey: Server, tmp_path: Path
) -> None:
    """A worker has its message, and finds it cancelled when the time has come."""
    notebook = tmp_path / "notes.txt"
    for job_id in ("cancelled/1", "kept/1"):
        celery.send_task("acme.take_note", kwargs={"notebook": str(notebook)}, task_id=job_id, queue="etl", countdown=6)
    with redis.Redis(port=valkey.port) as client:
        wait_for(lambda: client.hlen("unacked") >= 2, "the worker to have both")
        assert job(gateway, "kept/1", wait_s=0)["state"] == "scheduled"
        answer = http_client.post(f"{gateway}/jobs/cancelled%2F1/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert job(gateway, "kept/1")["state"] == "succeeded"
        wait_for(lambda: client.hlen("unacked") == 0, "both to be acknowledged")
    assert (job(gateway, "cancelled/1")["state"], len(notebook.read_text().splitlines())) == ("cancelled", 1)
