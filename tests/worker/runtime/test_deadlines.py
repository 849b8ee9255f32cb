"""How a body meets the time limit of an item: this process is the child, beside a real warden."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from shared.contract.definition import Contract, Limits
from shared.errors import TaskFailure, TimeLimitReached
from shared.storage import ArtifactStore
from tests.acme.contracts import NoteSpec, TakeNote
from tests.support.servers.services import wait_for
from worker.runtime import deadlines
from worker.runtime.alone import Notes, alone
from worker.runtime.deadlines import Deadlines, Item
from worker.runtime.perform import perform_each
from worker.runtime.run import Run

AT_ONCE = Limits(soft_s=0.01, hard_s=600)  # interrupted at once, and never killed here
BOUND_S = 60


WARDEN = """
import sys, time
from worker.runtime.deadlines import Deadlines
from worker.upkeep.warden import look
table, parent = Deadlines(int(sys.argv[1])), int(sys.argv[2])
while True:
    look(table, time.monotonic(), parent=parent)
"""


@pytest.fixture(scope="module")
def table() -> Iterator[Deadlines]:
    """Return a table that a warden looks at all the time, instead of ten times a second."""
    made = Deadlines()
    assert made.descriptor is not None
    command = [sys.executable, "-c", WARDEN, str(made.descriptor), str(os.getppid())]
    with subprocess.Popen(command, pass_fds=[made.descriptor], stderr=subprocess.DEVNULL) as warden:
        yield made
        warden.kill()


@pytest.fixture(autouse=True)
def _as_child(table: Deadlines, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make this process a child that runs a body."""

    def interrupt(*_: Any) -> None:  # as billiard does
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(deadlines, "_own", deadlines._OwnRow())
    before = signal.signal(signal.SIGUSR1, interrupt)
    deadlines.join(table, 0)
    table.begin(0, "job", 1, until=time.monotonic() + 600)
    yield
    table.end(0)
    signal.signal(signal.SIGUSR1, before)


def sleep_long() -> None:
    ends_at = time.monotonic() + BOUND_S
    while time.monotonic() < ends_at:
        time.sleep(0.01)
    raise TimeoutError("it was not interrupted")


def run_each(tmp_path: Path, behaviours: list[str], limits: Limits | None) -> str:
    """Run a body for each item that sleeps in the way that it is told."""

    def body(job: NoteSpec, run: Run) -> Any:
        match job.behave:
            case "stubborn":
                sleep_long()
            case "grateful":
                with suppress(SoftTimeLimitExceeded):
                    sleep_long()
            case "badly":
                with suppress(SoftTimeLimitExceeded):
                    sleep_long()
                raise TaskFailure("cleaned_up", "It says what it was doing.")
        written = run.scratch / "note.txt"
        written.write_text(job.behave)
        return {"line_count": 1, "note": run.publish(written)}

    contract: type[Contract[Any]] = TakeNote
    result = contract.spec.result
    items = [{"notebook": "n", "behave": behave} for behave in behaviours]
    with alone(contract, "job", ArtifactStore(str(tmp_path / "store")), Notes()) as run:
        return perform_each(contract, lambda job, item: result(**body(job, item)), run, items, limits)


def test_an_item_is_interrupted_after_its_soft_limit(tmp_path: Path) -> None:
    """The failure is that of a time limit, and names the item."""
    with pytest.raises(TimeLimitReached) as failed:
        run_each(tmp_path, ["grateful", "stubborn"], AT_ONCE)
    assert failed.value.message == (
        "item 1: The item needs longer than its time limit of 600 s; it was interrupted after 0.01 s."
    )
    assert failed.value.details == {"limit_s": 600, "item": 1}


def test_an_item_that_ends_well_after_its_interruption_has_a_result(tmp_path: Path) -> None:
    """As with a whole job: it may use the time between the limits, and the next item has its own."""
    assert run_each(tmp_path, ["grateful", "grateful"], AT_ONCE).count('"line_count":1') == 2


def test_an_item_may_say_itself_how_it_ended(tmp_path: Path) -> None:
    """What it raises after the interruption is its failure."""
    with pytest.raises(TaskFailure) as failed:
        run_each(tmp_path, ["badly"], AT_ONCE)
    assert (failed.value.code, failed.value.details) == ("cleaned_up", {"item": 0})


def test_an_interruption_that_is_not_the_items_is_not_its_failure(tmp_path: Path) -> None:
    """The limit of the whole job, or a stop, comes by the same signal."""
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    with pytest.raises(SoftTimeLimitExceeded):
        run_each(tmp_path, ["stubborn"], Limits(soft_s=500, hard_s=600))
    timer.join()


def test_an_item_ends_after_the_interruption_that_is_sent_for_it(table: Deadlines) -> None:
    """Otherwise the next item would get it. Here its body has ended already when the signal is sent."""
    now = time.monotonic()
    begun = threading.Event()

    def send() -> None:
        wait_for(lambda: table.running()[0].item, "the begin of the item")
        (body,) = table.running()
        with table.signalling(body) as still_runs:
            begun.set()
            wait_for(lambda: table.running()[0].item is None, "the end of the item")
            assert still_runs
            os.kill(os.getpid(), signal.SIGUSR1)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(SoftTimeLimitExceeded), deadlines.entered(Item(0, now + 500, now + 600, limit_s=600)):
        begun.wait(BOUND_S)
    sender.join()
    (body,) = table.running()
    assert body.item is None
