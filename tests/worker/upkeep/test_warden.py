"""What happens to a child whose claim is not renewed in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.ledger.backend import LedgerBackend
from shared.ledger.client import Ledger
from tests.support.ledgers import claimed, entry, record
from tests.support.servers.services import wait_for
from worker.runtime.deadlines import Deadlines, Item, Killed, deadline
from worker.upkeep.custodian import Custodian
from worker.upkeep.endings import Endings
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
    assert deadlines.killed(0) == (1, [Killed(JOB, 7, item=None)])
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


def test_an_item_is_interrupted_once_and_killed_when_the_time_to_clean_up_is_over(
    child: subprocess.Popen[bytes], deadlines: Deadlines
) -> None:
    """That time counts from the interruption. The interruption is for the child, and not for what it has started."""
    (started,) = _below(child)
    deadlines.begin_item(3, Item(0, interrupt_at=5, kill_at=6, limit_s=2))
    tend = partial(look, deadlines, parent=os.getpid())
    tend(4.9)
    assert child.poll() is None
    tend(5.9)  # later than it should
    assert child.wait(10) == -signal.SIGUSR1  # it has no handler
    assert not _is_zombie(started)
    os.kill(started, signal.SIGKILL)
    tend(6.8)
    assert deadlines.killed(0) == (0, [])
    tend(6.9)
    count, (killed,) = deadlines.killed(0)
    assert (count, killed.job_id, killed.token) == (1, JOB, 7)
    assert killed.item is not None
    assert (killed.item.index, killed.item.limit_s) == (0, 2)
    assert deadlines.running() == []


def test_an_item_that_has_ended_is_let_alone(child: subprocess.Popen[bytes], deadlines: Deadlines) -> None:
    """The next one has its own time, and so has the next body."""
    deadlines.begin_item(3, Item(0, interrupt_at=5, kill_at=6, limit_s=2))
    deadlines.end_item(3)
    look(deadlines, 9, parent=os.getpid())
    deadlines.begin_item(3, Item(1, interrupt_at=9.5, kill_at=9.6, limit_s=2))
    (body,) = deadlines.running()
    look(deadlines, 9.1, parent=os.getpid())
    with deadlines.signalling(body) as still_runs:
        assert still_runs
    deadlines.begin(3, JOB, 8, until=20)
    look(deadlines, 12, parent=os.getpid())
    with deadlines.signalling(body) as still_runs:
        assert not still_runs
    assert child.poll() is None
    assert deadlines.killed(0) == (0, [])


class _Silent:
    """Says nothing to nobody."""

    def give(self, _: Any) -> None:
        """Say nothing."""


@pytest.fixture
def custodian_of(ledger: Ledger, broker: BrokerSettings, tmp_path: Path) -> Callable[..., Custodian]:
    return partial(
        Custodian,
        ledger,
        broker,
        owner="w1",
        broker=None,
        scratch=tmp_path,
        heartbeat=_Silent(),  # type: ignore[arg-type]  # the real one needs Celery's consumer
        cancels=None,  # type: ignore[arg-type]  # not asked in a round
        endings=Endings(cast("LedgerBackend", make_celery(broker).backend)),
    )


def test_a_job_whose_child_the_warden_killed_is_given_back_without_blame(
    child: subprocess.Popen[bytes], accept: Any, ledger: Ledger, custodian_of: Callable[..., Custodian]
) -> None:
    """The custodian gives it back, so Celery's news of a lost child is not told to the ledger."""
    job, table = entry(), Deadlines()
    accept(job)
    token = claimed(ledger, job.id).token
    table.enter(0, child.pid)
    table.begin(0, job.id, int(token), until=10)
    custodian = custodian_of(deadlines=table)
    look(table, 10, parent=os.getpid())
    look(table, 11 + KILL_AFTER_S, parent=os.getpid())
    assert custodian.has_stopped(job.id)
    assert not custodian.has_stopped(job.id)
    custodian.round()
    after = record(ledger, job.id)
    assert (after.state, json.loads(after.attempts)[-1]["outcome"]) == ("queued", "released")


def test_a_job_whose_child_was_killed_in_an_item_is_not_given_back(
    child: subprocess.Popen[bytes], deadlines: Deadlines, custodian_of: Callable[..., Custodian]
) -> None:
    """It is told once why it fails; its next death would be another matter."""
    custodian = custodian_of(deadlines=deadlines)
    (body,) = deadlines.running()
    assert custodian.limit_reached(JOB) is None
    deadlines.kill(body, Item(3, interrupt_at=5, kill_at=6, limit_s=2))
    custodian.round()
    assert not custodian.has_stopped(JOB)
    failure = custodian.limit_reached(JOB)
    assert failure is not None
    assert (failure.code, failure.details) == ("time_limit_exceeded", {"limit_s": 2, "item": 3})
    assert custodian.limit_reached(JOB) is None
    assert child.poll() is None
