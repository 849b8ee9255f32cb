"""The time limits of the items of maps, starmaps and chunks: on a real worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers.services import Server, gateway_server, http_client
from tests.support.servers.workers import ACME, ACME_ALONE, Jobs, Worker, crew

pytestmark = pytest.mark.integration

Job = dict[str, Any]


@pytest.fixture(scope="module")
def service(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Jobs, Worker]]:
    folder = tmp_path_factory.mktemp("service")
    env = {**ACME, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    with crew(folder, **env | ACME_ALONE) as workers, gateway_server(folder, **env) as gateway:
        yield Jobs(gateway), workers.start(concurrency=3)


@pytest.fixture
def jobs(service: tuple[Jobs, Worker]) -> Jobs:
    return service[0]


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return tmp_path / "notes.txt"


def starmap(notebook: Path, *items: tuple[float, str]) -> dict[str, Any]:
    """Return the parameters of a starmap whose items last this number of seconds and behave like this."""
    return {
        "kind": "acme.take_note",
        "params": {"notebook": str(notebook)},
        "parameters": ["lasts_s", "behave"],
        "items": items,
        "item_time_limit_s": 2,
    }


def seconds(job: Job) -> float:
    return (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])).total_seconds()


def test_each_item_has_the_whole_limit(jobs: Jobs, notebook: Path) -> None:
    """Together they may need longer."""
    job = jobs.ended(jobs.submit("workflow.starmap", starmap(notebook, *[(0.7, "well")] * 3)))
    assert (job["state"], job["error"]) == ("succeeded", None)
    assert len(job["result"]["results"]) == 3
    assert seconds(job) > 2


def over_limit(notebook: Path, how: str) -> dict[str, Any]:
    return starmap(notebook, (0, "well"), (60, how), (0, "well"))


def mapped(notebook: Path) -> dict[str, Any]:
    shared, items = {"notebook": str(notebook)}, [0, 60, 0]
    return {"kind": "acme.take_note", "params": shared, "parameter": "lasts_s", "items": items, "item_time_limit_s": 2}


def in_code(notebook: Path) -> dict[str, Any]:
    return {"notebook": str(notebook), "lasts_s": [0, 60, 0], "item_time_limit_s": 2}


OVER: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "map": ("workflow.map", mapped),
    "starmap": ("workflow.starmap", partial(over_limit, how="well")),
    "chunks": ("workflow.chunks", lambda notebook: {**over_limit(notebook, "well"), "chunk_size": 3}),
    "in code": ("acme.note_each", in_code),
    "catches the interruption": ("workflow.starmap", partial(over_limit, how="stubborn")),
    "does not hear it": ("workflow.starmap", partial(over_limit, how="deaf")),
}


@pytest.fixture(scope="module")
def submitted(service: tuple[Jobs, Worker], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """Return the id and the notebook of a job for each case; they run side by side."""
    folder = tmp_path_factory.mktemp("notes")
    notebooks = {case: folder / case for case in OVER}
    return {
        case: (service[0].submit(kind, params(notebooks[case])), notebooks[case])
        for case, (kind, params) in OVER.items()
    }


@pytest.mark.parametrize("case", OVER)
def test_an_item_over_its_limit_fails_like_a_job_over_its_own(
    service: tuple[Jobs, Worker], submitted: dict[str, tuple[str, Path]], case: str
) -> None:
    """It is named; the items before it have run, those after it do not; nothing is tried again, the worker goes on."""
    jobs, worker = service
    job_id, notebook = submitted[case]
    job = jobs.ended(job_id)
    error = job["error"]
    assert (job["state"], error["code"]) == ("failed", "time_limit_exceeded")
    assert error["message"].startswith("item 1: The item needs longer than its time limit of 2 s")
    assert (error["details"], error["retryable"]) == ({"limit_s": 2, "item": 1}, False)
    assert "item_time_limit_s" in error["remedy"]
    assert [step["attempt"] for step in job["steps"]] == [1]
    assert len(notebook.read_text().splitlines()) == 2
    assert seconds(job) < 30
    assert jobs.ended(jobs.submit("acme.take_note", {"notebook": str(notebook)}))["state"] == "succeeded"
    assert worker.process.poll() is None


def test_a_limit_that_cannot_hold_is_refused(jobs: Jobs, notebook: Path) -> None:
    """Where it stands: below a second, above the limit of the kind, or above that of the job."""

    def problems(kind: str = "workflow.starmap", **given: Any) -> list[tuple[str, str]]:
        body = {"kind": kind, "params": {**starmap(notebook, (0, "well")), **given}}
        answer = http_client.post(f"{jobs.gateway.url}/jobs", json=body | {"options": {"time_limit_s": 5}})
        return [(error["pointer"], error["message"]) for error in answer.json().get("errors", [])]

    limit = "/params/item_time_limit_s"
    for kind in ("workflow.starmap", "workflow.chunks"):
        size = {"chunk_size": 1} if kind == "workflow.chunks" else {}
        assert [pointer for pointer, _ in problems(kind, item_time_limit_s=0.5, **size)] == [limit]
        assert [pointer for pointer, _ in problems(kind, item_time_limit_s="1", **size)] == [limit]
        most = "Use more than 0 and at most 90 s: the limit of acme.take_note bounds all items together."
        assert problems(kind, item_time_limit_s=91, **size) == [(limit, most)]
        whole = "It bounds all items of a step together: use at least 6 s, or a lower item_time_limit_s."
        assert problems(kind, item_time_limit_s=6, **size) == [("/options/time_limit_s", whole)]
        assert problems(kind, item_time_limit_s=5, **size) == []
    code = {"kind": "acme.note_each", "params": {"notebook": str(notebook), "lasts_s": [0], "item_time_limit_s": -1}}
    refused = http_client.post(f"{jobs.gateway.url}/jobs", json=code)
    assert (refused.status_code, "a time limit of -1 s" in refused.text) == (422, True)
