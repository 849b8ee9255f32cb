"""A kind that trains with PyTorch: its own tests, its page, and a worker that is killed in mid-training."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.servers.services import Server, gateway_server, wait_for
from tests.support.servers.workers import Crew, Jobs, crew
from tests.support.up import ROOT

EXAMPLE = ROOT / "examples" / "acme_torch"
PAGE = ROOT / "docs" / "authors" / "pytorch.md"
_EPOCHS, _EVERY = 400, 5

with_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed: pip install torch")


def test_the_page_shows_the_example() -> None:
    """Each of its blocks of Python is in the package; what it says of TensorFlow has no example."""
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted((EXAMPLE / "acme_torch").glob("*.py")))
    of_torch, of_tensorflow = PAGE.read_text(encoding="utf-8").split("\n## TensorFlow\n")
    shown = re.findall(r"```python\n(.*?)```", of_torch, re.DOTALL)
    assert len(shown) > 2
    assert [block for block in shown if block not in sources] == []
    for block in re.findall(r"```python\n(.*?)```", of_tensorflow, re.DOTALL):
        assert ast.parse(textwrap.dedent(block)).body


def test_the_contract_needs_no_pytorch(tmp_path: Path) -> None:
    """A gateway has none."""
    code = "import sys; sys.modules['torch'] = None; import acme_torch.contracts"
    environment = {"PYTHONPATH": f"{ROOT}:{EXAMPLE}", "CELERIAC_QUEUES": "torch"}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@with_torch
@pytest.mark.integration
def test_its_own_tests_pass(tmp_path: Path) -> None:
    """In memory: it learns, and an interrupted training ends with the same weights."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    command += ["--basetemp", str(tmp_path / "tests")]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{EXAMPLE}", "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(command, cwd=EXAMPLE, env=environment, capture_output=True, text=True, check=False)
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr


@pytest.fixture
def service(own_valkey: Server, tmp_path: Path) -> Iterator[tuple[Jobs, Crew]]:
    """Run a gateway with the kind, and yield a crew without workers."""
    env = {
        "CELERIAC_QUEUES": "torch",
        "CELERIAC_CONTRACTS": "acme_torch.contracts",
        "CELERIAC_TASKS": "acme_torch.tasks",
        "PYTHONPATH": str(EXAMPLE),
        "CELERY_BROKER_URL": own_valkey.redis_url,
        "CELERIAC_STORE_URL": str(tmp_path / "store"),
        "CELERIAC_LEASE_S": "4",
        "CELERIAC_LOST_MESSAGE_GRACE_S": "4",
    }
    with crew(tmp_path, **env) as workers, gateway_server(tmp_path, **env) as gateway:
        yield Jobs(gateway), workers


@with_torch
@pytest.mark.integration
def test_a_training_goes_on_after_its_worker_was_killed(service: tuple[Jobs, Crew]) -> None:
    """It ends with the very weights of a training that nothing disturbed."""
    jobs, workers = service
    params = {"epochs": _EPOCHS, "checkpoint_every": _EVERY}
    worker = workers.start()
    job_id = jobs.submit("torch.train_network", params)
    wait_for(lambda: ((jobs.get(job_id)["progress"] or {}).get("current") or 0) > 2 * _EVERY, "some epochs")
    worker.kill()
    assert jobs.get(job_id)["state"] == "running"
    workers.start()
    killed = jobs.ended(job_id)
    whole = jobs.ended(jobs.submit("torch.train_network", params))
    assert (killed["state"], killed["attempt"], whole["attempt"]) == ("succeeded", 2, 1)
    assert killed["result"]["resumed_at"] >= _EVERY
    assert whole["result"]["resumed_at"] == 0
    results = [job["result"] for job in (killed, whole)]
    assert [one["loss"] for one in results] == [whole["result"]["loss"]] * 2
    assert len({one["weights"]["sha256"] for one in results}) == 1
    assert killed["result"]["accuracy_ratio"] > 0.9
