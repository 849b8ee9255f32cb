"""Queues of a team's own: how many processes their workers have, as the contracts say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.servers.services import http_client
from tests.support.up import running_up

_CONTRACT = """
from celeriac import Contract, Limits
from pydantic import BaseModel


class Done(BaseModel):
    '''Nothing to say.'''


class RunModel(
    Contract[Done], kind="sim.run_model", queue="sim", processes=3, limits=Limits(soft_s=5, hard_s=6), examples=[{}]
):
    '''Run a model.'''


class DrawModel(Contract[Done], kind="sim.draw_model", queue="sim", limits=Limits(soft_s=5, hard_s=6), examples=[{}]):
    '''Draw a model, in the same queue.'''


class ListModels(
    Contract[Done], kind="sim.list_models", queue="quick", limits=Limits(soft_s=5, hard_s=6), examples=[{}]
):
    '''List the models.'''
"""
_TASKS = """
from celeriac import Run

from sim.contracts import Done, DrawModel, ListModels, RunModel


@RunModel.task
def run_model(job: RunModel, run: Run) -> Done:
    return Done()


@DrawModel.task
def draw_model(job: DrawModel, run: Run) -> Done:
    return Done()


@ListModels.task
def list_models(job: ListModels, run: Run) -> Done:
    return Done()
"""


@pytest.mark.integration
def test_a_queue_has_the_processes_that_its_contracts_say(tmp_path: Path) -> None:
    """In a worker of its own, beside that of the other queues. Jobs of each are run."""
    for name, text in {"__init__": "", "contracts": _CONTRACT, "tasks": _TASKS}.items():
        path = tmp_path / "sim" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    environment = {
        "PYTHONPATH": str(tmp_path),
        "CELERIAC_CONTRACTS": "sim.contracts",
        "CELERIAC_TASKS": "sim.tasks",
        "CELERIAC_QUEUES": "sim,quick",
    }
    with running_up(tmp_path / "data", environment) as up:
        workers = http_client.get(f"{up.url}/workers").json()["workers"]
        processes = {tuple(worker["queues"]): worker["concurrency"] for worker in workers}
        assert processes.keys() == {("sim",), ("quick",)}
        assert processes["sim",] == 3
        for kind in ("sim.run_model", "sim.draw_model", "sim.list_models"):
            job = http_client.post(f"{up.url}/jobs", json={"kind": kind, "params": {}}).json()
            ended = http_client.get(f"{up.url}/jobs/{job['id']}", params={"wait_s": 30}).json()
            assert (kind, ended["state"]) == (kind, "succeeded")
