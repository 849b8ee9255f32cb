"""The tasks of the kinds that tests add."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import time
from pathlib import Path

from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import TaskFailure, TransientFailure
from tests.acme.contracts import BindNotes, CopyNote, Noted, NoteSpec, TakeNote
from worker.runtime.task import Run, runs

_SLEPT = {"quiet", "stubborn", "grateful"}  # these have waited when they have behaved
_HALF = "\ud83d"  # an emoji cut in two


@runs(TakeNote)
def take_note(job: TakeNote, run: Run) -> Noted:
    """Write "job attempt pid" into the notebook, then behave as told."""
    return _note(job, run, f"{run.job_id} {run.attempt} {os.getpid()}\n")


@runs(CopyNote)
def copy_note(job: CopyNote, run: Run) -> Noted:
    """Write the copied line into the notebook."""
    with run.store.open(job.note) as stream:
        return _note(job, run, stream.read().decode())


@runs(BindNotes)
def bind_notes(job: BindNotes, run: Run) -> Noted:
    """Write all the lines into the notebook."""
    texts = []
    for note in job.notes:
        with run.store.open(note) as stream:
            texts.append(stream.read().decode())
    return _note(job, run, "".join(texts))


def _note(job: NoteSpec, run: Run, line: str) -> Noted:
    notebook = Path(job.notebook)
    with notebook.open("a") as stream:
        stream.write(line)
    _leave(job, run)
    _behave(job, run)
    _wait(job)
    ends_at = time.monotonic() + (0 if job.behave in _SLEPT else job.lasts_s)
    while (left_s := ends_at - time.monotonic()) > 0:
        run.progress(job.lasts_s - left_s, job.lasts_s, unit="s")
        time.sleep(min(left_s, 0.05))
    written = run.scratch / "note.txt"
    written.write_text(line)
    note = run.publish(written, name="note.txt", role="file", media_type="text/plain")
    return Noted(line_count=len(notebook.read_text().splitlines()), note=note)


def _leave(job: NoteSpec, run: Run) -> None:
    """Leave the body by what the task's author did not have in mind."""
    match job.behave:
        case "exits":
            sys.exit("usage: a library's command line")
        case "interrupts":
            raise KeyboardInterrupt
        case "closes":
            raise GeneratorExit
        case "babbles":
            run.progress("three", math.inf, message=_HALF)  # type: ignore[arg-type]  # what authors do
            run.log(_HALF, number=math.nan, emoji=_HALF)
            raise TaskFailure("babble", _HALF, remedy=_HALF, ratio=math.nan, cut=_HALF, name=Path("x"))
        case "full":
            try:
                with Path("/dev/full").open("w") as full:
                    full.write("no room")
            except OSError as failure:
                raise ValueError("what a library makes of it") from failure


def _behave(job: NoteSpec, run: Run) -> None:
    match job.behave:
        case "flaky" if run.attempt <= 2:
            raise TransientFailure("flaky", "It is transient.")
        case "badly":
            raise TaskFailure("bad_note", "It will not pass.", remedy="Behave.", tried=run.attempt)
        case "buggy":
            raise ZeroDivisionError("postgresql://user:hunter2@db/x is wrong")
        case "hungry":
            bytearray(1 << 50)
        case "suicidal":
            os.kill(os.getpid(), signal.SIGKILL)
        case "verbose":
            run.log("by run.log", password="hunter2", url="https://u:hunter2@host/")  # noqa: S106 - to be redacted
            logging.getLogger("acme").warning("by logging: token=hunter2")


def _wait(job: NoteSpec) -> None:
    """Wait in a way in which a body hears little or nothing."""
    match job.behave:
        case "deaf":  # C code that never returns to Python's signal handlers looks like this
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
            time.sleep(job.lasts_s)
        case "quiet":  # says nothing while it runs, so an outage is first met by its end
            time.sleep(job.lasts_s)
            with Path(job.notebook).open("a") as stream:
                stream.write("ended while nobody could hear\n")
        case "stubborn":  # what a loop with `except Exception` does
            ends_at = time.monotonic() + job.lasts_s
            while (left_s := ends_at - time.monotonic()) > 0:
                with contextlib.suppress(Exception):
                    time.sleep(left_s)
        case "grateful":  # it uses the time between the limits, and ends well
            with contextlib.suppress(SoftTimeLimitExceeded):
                time.sleep(job.lasts_s)
