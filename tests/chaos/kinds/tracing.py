"""The body of the traced kinds, and what it writes down: one line an event, in one write, so that lines never mix."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.signals import task_success

from shared.errors import TaskFailure, TransientFailure
from tests.chaos.kinds.specs import Traced, TraceSpec
from worker.runtime.run import Run

TICK_S = 0.1  # between two ticks of a run


def leave_trace(job: TraceSpec, run: Run) -> Traced:
    """Write `began`, `alive` every `TICK_S`, and `ended`, or `failed` where the body says that it failed."""
    tell = _teller(job.journal, run.job_id, run.attempt, job.label)
    tell("began")
    ends_at = time.monotonic() + job.lasts_s
    while (left_s := ends_at - time.monotonic()) > 0:
        if not job.is_quiet:
            run.progress(job.lasts_s - left_s, job.lasts_s, unit="s")
        time.sleep(min(left_s, TICK_S))
        tell("alive")
    try:
        _finish(job, run)
    except (TaskFailure, TransientFailure):
        tell("failed")
        raise
    tell("ended")
    return Traced(attempt=run.attempt)


def _finish(job: TraceSpec, run: Run) -> None:
    if run.attempt <= job.fails_first:
        raise TransientFailure("told_to_fail", "It was told to fail this time.")
    if job.fails:
        raise TaskFailure("told_to_fail", "It was told to fail.")
    if job.published_bytes:
        written = run.scratch / "trace.bin"
        written.write_bytes(bytes(job.published_bytes))
        run.publish(written, name="trace.bin", role="file", media_type="application/octet-stream")


def _teller(journal: str, job_id: str, attempt: int, label: str) -> Callable[[str], None]:
    who = f"{job_id} {attempt} {os.getpid()} {os.getppid()} {label}"

    def tell(what: str) -> None:
        with Path(journal).open("a") as stream:
            stream.write(f"{time.monotonic():.3f} {what} {who}\n")

    return tell


@task_success.connect(weak=False)
def _settled(sender: Any, **_: Any) -> None:
    """Write that the success is written down: what begins after this must not have begun."""
    request = sender.request
    if isinstance(request.kwargs, dict) and "journal" in request.kwargs:
        _teller(request.kwargs["journal"], request.id, 0, request.kwargs["label"])("settled")
