"""Which tasks and queues a worker has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.broker.settings import BrokerSettings
from shared.contract.catalogue import catalogue
from shared.workflows.definition import WorkflowContract
from tests.support.servers.nursery import ROOT
from tests.support.servers.services import valkey_server
from tests.support.servers.workers import ACME, ACME_ALONE

_SHOW = """
import json
from worker.app import app
from worker.upkeep.presence import is_run
print(json.dumps([sorted(filter(is_run, app.tasks)), sorted(app.amqp.queues.consume_from)]))
"""


def start(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _SHOW], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def test_registered_tasks_are_the_catalogue_of_the_loaded_families() -> None:
    """Every kind of the family that is not a workflow has its task, and there is no other."""
    tasks, queues = json.loads(start(WORKER_FAMILIES="etl").stdout)
    expected = [kind for kind, contract in catalogue().items() if not issubclass(contract, WorkflowContract)]
    assert tasks == sorted(kind for kind in expected if kind.startswith("etl."))
    assert queues == ["etl"]


def test_a_family_runs_what_lies_in_its_queue_of_another() -> None:
    """Maintenance workers have the task of callbacks, which had no queue once; they do not take from the new one."""
    tasks, queues = json.loads(start(WORKER_FAMILIES="maintenance").stdout)
    assert "maintenance.deliver_callback" in tasks
    assert queues == ["maintenance"]
    tasks, queues = json.loads(start(WORKER_FAMILIES="callbacks").stdout)
    assert (tasks, queues) == (["maintenance.deliver_callback"], ["callbacks"])
    tasks, queues = json.loads(start(WORKER_FAMILIES="callbacks,maintenance").stdout)
    assert queues == ["callbacks", "maintenance"]


def test_other_modules_add_tasks_and_their_queues() -> None:
    """CELERIAC_TASKS brings the kinds of a team's own package, without a family of the service."""
    tasks, queues = json.loads(start(**ACME).stdout)
    assert (tasks, queues) == (["acme.bind_notes", "acme.copy_note", "acme.take_note"], ["etl", "report"])


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"WORKER_FAMILIES": "etll"}, "WORKER_FAMILIES names 'etll', whose tasks are not installed here"),
        ({"WORKER_FAMILIES": "acme", "CELERIAC_CONTRACTS": "tests.acme.contracts"}, "WORKER_FAMILIES names 'acme'"),
        ({"CELERIAC_CONTRACTS": "acme.nothing"}, "CELERIAC_CONTRACTS: 'acme.nothing' cannot be imported"),
    ],
)
def test_a_wrong_configuration_is_refused_with_what_to_do(env: dict[str, str], message: str) -> None:
    """At start, not at the first job."""
    outcome = start(**env)
    assert outcome.returncode != 0
    assert message in outcome.stderr


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"WORKER_FAMILIES": "", "CELERIAC_TASKS": ""}, "Set its families in WORKER_FAMILIES"),
        ({**ACME_ALONE, "CELERIAC_STORE_URL": "nosuch://bucket"}, "Protocol not known: nosuch"),
        (ACME, "but has no task for etl."),
        (ACME, "Add etl, report to WORKER_FAMILIES"),
    ],
)
def test_a_worker_is_whole_or_does_not_start(broker: BrokerSettings, env: dict[str, str], message: str) -> None:
    """One that could run nothing, or not all of its queues' kinds, or whose store cannot be reached, takes no job."""
    whole = {**os.environ, "CELERY_BROKER_URL": broker.broker_url, **env}
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker"]
    outcome = subprocess.run(command, cwd=ROOT, env=whole, capture_output=True, text=True, check=False, timeout=300)
    assert outcome.returncode != 0
    assert message in outcome.stderr


def test_a_ledger_that_would_lose_jobs_is_refused(tmp_path: Path) -> None:
    """A worker does not start on a Redis without an append-only file, and says what to do."""
    with valkey_server(tmp_path, append_only=False) as volatile:
        env = {**os.environ, **ACME_ALONE, "CELERY_BROKER_URL": volatile.redis_url}
        command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker"]
        outcome = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert outcome.returncode != 0
    assert "CONFIG SET appendonly yes" in outcome.stderr
