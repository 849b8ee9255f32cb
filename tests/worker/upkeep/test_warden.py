"""What happens to a child whose claim is not renewed in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shared.broker.settings import BrokerSettings
from shared.ledger.client import Ledger
from tests.support.ledgers import claimed, entry, record
from tests.support.servers.services import wait_for
from worker.runtime.deadlines import Deadlines, deadline
from worker.upkeep.custodian import Custodian
from worker.upkeep.warden import KILL_AFTER_S, look

JOB = "a job of any id: ../../x"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as child:
        wait_for(lambda: _below(child), "a process of the child")
        yield child
        for pid in (child.pid, *_below(child)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def deadlines(child: subprocess.Popen[bytes]) -> Deadlines:
    """Return a table in which the child runs the body of a claim with the token 7 until 10."""
    made = Deadlines()
    made.enter(3, child.pid)
    made.begin(3, JOB, 7, until=10)
    return made


def _below(child: subprocess.Popen[bytes]) -> list[int]:
    with suppress(FileNotFoundError):  # it has ended
        return [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
    return []


def _is_stopped(child: subprocess.Popen[bytes]) -> bool:
    """Return whether the child is stopped, and what it has started, too."""
    stats = [Path(f"/proc/{pid}/stat").read_text() for pid in (child.pid, *_below(child))]
    return {stat.rpartition(")")[2].split()[0] for stat in stats} == {"T"}


def _runs(child: subprocess.Popen[bytes]) -> bool:
    """Return whether neither the child nor what it has started is stopped.

    Both sleep, once they have come to it; a process that is to stop never sleeps again.
    """
    stats = [Path(f"/proc/{pid}/stat").read_text() for pid in (child.pid, *_below(child))]
    return {stat.rpartition(")")[2].split()[0] for stat in stats} == {"S"}


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_body_stands_still_after_its_deadline_and_goes_on_with_a_new_one(
    child: subprocess.Popen[bytes], deadlines: Deadlines
) -> None:
    """Another process opens the same table, as the warden does."""
    assert deadlines.descriptor is not None
    table, tend = Deadlines(deadlines.descriptor), partial(look, parent=os.getpid())
    tend(table, 9.9)
    wait_for(lambda: _runs(child), "the child is not stopped")
    tend(table, 10)
    wait_for(lambda: _is_stopped(child), "the child is stopped")
    (body,) = deadlines.running()
    assert (body.job_id, body.token, body.is_suspended) == (JOB, 7, True)
    deadlines.put_off(body, until=20)
    tend(table, 11)
    wait_for(lambda: _runs(child), "the child goes on")
    deadlines.end(3)
    tend(table, 30)
    wait_for(lambda: _runs(child), "the child is not stopped")
    assert deadlines.running() == []


def test_a_body_that_stands_still_for_long_is_killed(child: subprocess.Popen[bytes], deadlines: Deadlines) -> None:
    """The main process is told once which job it was."""
    look(deadlines, 10, parent=os.getpid())
    look(deadlines, 10 + KILL_AFTER_S, parent=os.getpid())
    assert child.poll() is None
    (started,) = _below(child)
    look(deadlines, 10.1 + KILL_AFTER_S, parent=os.getpid())
    assert child.wait(10) == -signal.SIGKILL
    wait_for(lambda: not Path(f"/proc/{started}").exists() or _is_zombie(started), "the end of what it has started")
    assert deadlines.killed(0) == (1, [(JOB, 7)])
    assert deadlines.killed(1) == (1, [])
    assert deadlines.running() == []


def test_a_process_that_is_not_a_child_is_let_alone(child: subprocess.Popen[bytes], deadlines: Deadlines) -> None:
    """The number of a child that has ended may be that of another process by now."""
    for now in (10, 11 + KILL_AFTER_S):
        look(deadlines, now, parent=1)
    assert child.poll() is None
    wait_for(lambda: _runs(child), "the child is not stopped")


def test_a_deadline_is_before_the_end_of_the_lease() -> None:
    """By a tenth, and by at least half a second."""
    assert (deadline(100, 20), deadline(100, 2)) == (118, 101.5)


class _Silent:
    """Says nothing to nobody."""

    def give(self, _: Any) -> None:
        """Say nothing."""


def test_a_job_whose_child_the_warden_killed_is_given_back_without_blame(
    child: subprocess.Popen[bytes], accept: Any, ledger: Ledger, broker: BrokerSettings, tmp_path: Path
) -> None:
    """The custodian gives it back, so Celery's news of a lost child is not told to the ledger."""
    job, table = entry(), Deadlines()
    accept(job)
    token = claimed(ledger, job.id).token
    table.enter(0, child.pid)
    table.begin(0, job.id, int(token), until=10)
    custodian = Custodian(
        ledger,
        broker,
        owner="w1",
        broker=None,
        scratch=tmp_path,
        heartbeat=_Silent(),  # type: ignore[arg-type]  # the real one needs Celery's consumer
        cancels=None,  # type: ignore[arg-type]  # not asked in a round
        deadlines=table,
    )
    look(table, 10, parent=os.getpid())
    look(table, 11 + KILL_AFTER_S, parent=os.getpid())
    assert custodian.has_stopped(job.id)
    assert not custodian.has_stopped(job.id)
    custodian.round()
    after = record(ledger, job.id)
    assert (after.state, json.loads(after.attempts)[-1]["outcome"]) == ("queued", "released")
