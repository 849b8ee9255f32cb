"""The health checks of containers say something: they fail before there is life and pass while there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers.services import Server, running, wait_for
from worker.upkeep.alive import FILE_VARIABLE, STALE_S, worker_trouble


def test_a_worker_that_never_consumed_is_in_trouble(tmp_path: Path) -> None:
    """Without the file there is no life, and the text names it."""
    file = tmp_path / "alive"
    assert worker_trouble(str(file), now=0.0) == f"no worker has touched {file} yet"


def test_an_old_heartbeat_is_trouble_and_a_fresh_one_is_not(tmp_path: Path) -> None:
    """Up to four missed beats are forgiven."""
    file = tmp_path / "alive"
    file.touch()
    touched_at = file.stat().st_mtime
    assert worker_trouble(str(file), now=touched_at + STALE_S - 1) is None
    assert worker_trouble(str(file), now=touched_at + 95) == "the worker's main loop has hung for 95 s"


def _check(role: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker.upkeep.alive", role]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.integration
def test_a_consuming_worker_touches_its_file_again_and_again(empty_valkey: Server, tmp_path: Path) -> None:
    """The health check fails before the worker is up, passes then, and the pulse goes on."""
    file = tmp_path / "alive"
    env = {
        "CELERY_BROKER_URL": empty_valkey.redis_url,
        "CELERIAC_STORE_URL": str(tmp_path / "artifacts"),
        "WORKER_FAMILIES": "etl",
        FILE_VARIABLE: str(file),
    }
    assert _check("worker", env).returncode == 1
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--concurrency=1", "--loglevel=WARNING"]
    with running(command, tmp_path, port=0, ready=file.exists, env=env):
        assert _check("worker", env).returncode == 0
        first = file.stat().st_mtime
        wait_for(lambda: file.stat().st_mtime > first, "a second beat")


@pytest.mark.integration
def test_beat_is_alive_while_it_holds_its_lock(empty_valkey: Server, tmp_path: Path) -> None:
    """The health check of beat asks for the lock that beat renews with every tick."""
    env = {"CELERY_BROKER_URL": empty_valkey.redis_url, "WORKER_FAMILIES": ""}
    before = _check("beat", env)
    assert (before.returncode, before.stderr) == (1, "beat does not hold its lock, so it has stopped ticking\n")
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "beat", "--loglevel=WARNING", "--pidfile="]
    with running(command, tmp_path, port=0, ready=lambda: _check("beat", env).returncode == 0, env=env):
        pass  # `running` waited until the check passed
