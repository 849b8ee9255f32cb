"""The forks of the nursery, which are the suite's gateways and workers, are like processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.contract.families import FAMILIES
from tests.support.servers import nursery
from tests.support.servers.services import wait_for

_LOADS = """
import json, os, sys, threading
from collections import UserDict

read = set()

class Recording(UserDict):
    def __getitem__(self, name):
        read.add(name)
        return super().__getitem__(name)

    def __contains__(self, name):
        read.add(name)
        return super().__contains__(name)

os.environ = Recording(os.environ)
from tests.support.servers import nursery
nursery.load()
print(json.dumps([sorted(read), sorted(sys.modules), threading.active_count()]))
"""


def test_nothing_is_configured_before_the_fork() -> None:
    """No setting is read, neither a family nor a numeric library is loaded, and no thread runs.

    A definition of a kind reads which queues were added; our own kinds use none of those.
    """
    loading = subprocess.run([sys.executable, "-c", _LOADS], cwd=nursery.ROOT, capture_output=True, check=True)
    read, modules, threads = json.loads(loading.stdout)
    ours = ("CELERIAC_", "CELERY_BROKER_", "CELERY_RESULT_", "WORKER_", "OMP_")
    of_tests = {"CELERIAC_MODEL_EXAMPLES"}  # read by tests, where it is set
    assert {name for name in read if name.startswith(ours)} - of_tests == {"CELERIAC_QUEUES"}
    late = {"api.app", "worker.app", "numpy", "pyarrow", "duckdb", *(f"worker.{family}" for family in FAMILIES)}
    assert not late & set(modules)
    assert threads == 1


@pytest.mark.parametrize("programs", [nursery.PROGRAMS, set[str]()], ids=["fork", "process of its own"])
def test_a_fork_is_started_and_ends_like_any_process(
    programs: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own arguments, environment, session and log; its exit code is that of the program, or of the signal."""
    monkeypatch.setattr(nursery, "PROGRAMS", programs)
    log = tmp_path / "log"

    def start(*words: str) -> nursery.Process:
        with log.open("wb") as output:
            return nursery.start([sys.executable, "-m", "celery", *words], output, {"TZ": "Asia/Tokyo"})

    wrong = start("no-such-command")
    assert wrong.wait(60) == 2
    assert (wrong.poll(), wrong.returncode) == (2, 2)
    assert "No such command 'no-such-command'" in log.read_text()
    killed = start("-A", "shared.broker.celery", "events", "--dump", "-b", "redis://127.0.0.1:1")
    with pytest.raises(subprocess.TimeoutExpired):
        killed.wait(0.01)
    wait_for(lambda: os.getsid(killed.pid) == killed.pid, "its session")
    killed.kill()
    assert killed.wait(60) == -signal.SIGKILL
