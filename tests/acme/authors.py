"""Bodies that use what a run offers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.errors import TransientFailure
from tests.acme.authors_contracts import Done, Use, first_time
from worker.runtime.task import Run, runs

WHAT: dict[str, Callable[[Use, Run], Any]] = {}


@runs(Use)
def use_run(job: Use, run: Run) -> Done:
    """Do what the parameter says; the result is JSON text."""
    told = WHAT[job.what](job, run)
    return told if isinstance(told, Done) else Done(said=json.dumps(told))


def use(body: Callable[[Use, Run], Any]) -> Callable[[Use, Run], Any]:
    """Register `body` under its name."""
    WHAT[body.__name__] = body
    return body


@use
def prints(job: Use, run: Run) -> None:
    """Print in all the ways that there are."""
    del job, run
    print("to standard output", "token=hunter2")  # noqa: T201 - this is what is tested
    print("\r 10%|#  \r 99%|## \r100%|###", file=sys.stderr)  # noqa: T201 - a progress bar
    print("no end of line", end="")  # noqa: T201
    thread = threading.Thread(target=print, args=("\nfrom a thread",))
    thread.start()
    thread.join()


@use
def counts_and_is_killed(job: Use, run: Run) -> list[int]:
    """Go on from the last checkpoint; the process dies at 3, and a transient failure comes at 6."""
    del job
    began = run.last_checkpoint
    for number in range((began or {"done": 0})["done"] + 1, 10):
        run.checkpoint({"done": number})
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 6:
            raise TransientFailure("flaky", "It is transient.")
    return [run.attempt, (began or {"done": 0})["done"]]


@use
def bad_checkpoint(job: Use, run: Run) -> None:
    """Store what JSON cannot give back."""
    del job
    run.checkpoint({"position": (1, 2)})


@use
def large_checkpoint(job: Use, run: Run) -> None:
    """Store more than there is room for."""
    del job
    run.checkpoint("x" * 70_000)


@use
def publishes(job: Use, run: Run) -> list[Any]:
    """Publish with as little as possible."""
    del job
    page = run.scratch / "page.html"
    page.write_text("<p>")
    kept = run.publish(page, copy=True)
    moved = run.publish(str(page), name="second.weird-end")
    link = run.scratch / "link.csv"
    link.symlink_to(run.publish(_written(run, "a.csv"), copy=True).name)
    linked = run.publish(link)
    return [kept.media_type, moved.media_type, moved.role, page.exists(), linked.size_bytes, linked.media_type]


@use
def publishes_dataset(job: Use, run: Run) -> Any:
    """Publish a table, and then what is none."""
    del job
    path = run.scratch / "t.parquet"
    pq.write_table(pa.table({"n": [1, 2], "s": ["a", None]}), path)
    dataset = run.publish_dataset(path)
    run.publish_dataset(_written(run, "b.csv"))
    return dataset


@use
def reads(job: Use, run: Run) -> list[str]:
    """Read a stored file in both ways."""
    with run.open(job.uri) as stream:
        return [stream.read().decode(), run.local(job.uri).read_text()]


@use
def has_children(job: Use, run: Run) -> list[str]:
    """Submit two jobs in each of two attempts, then go on or fail as told."""
    told = ["done in time", "too late"]
    children = [
        run.submit(Use(what="writes_a_line", uri=f"{job.uri} {told[0]}"), name="now", tags=["child"]),
        run.submit(Use(what="writes_a_line", uri=f"{job.uri} {told[1]}"), name="later", delay_s=600),
    ]
    if run.attempt == 1:
        raise TransientFailure("flaky", "It is transient.")
    match job.then:
        case "fail":
            raise ValueError("for good")
        case "wait":
            while True:
                run.progress(1)
                time.sleep(0.05)
    return children


@use
def submits_for_a_workflow(job: Use, run: Run) -> None:
    """Submit two jobs that end after this one; the first attempt dies or fails if told to."""
    run.submit(Use(what="waits_for_a_file", uri=job.uri), name="a")
    if job.then == "is killed" and run.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.then == "is flaky" and run.attempt == 1:
        raise TransientFailure("flaky", "It is transient.")
    run.submit(Use(what="fails_once" if job.then == "a child fails" else "lists", uri=job.uri), name="b")


@use
def waits_for_a_file(job: Use, run: Run) -> Done:
    """Return when somebody has put `.go` into the folder."""
    Path(job.uri, ".waits").touch()
    while not Path(job.uri, ".go").exists():
        run.progress(1)
        time.sleep(0.05)
    return Done(said="went")


@use
def writes_a_line(job: Use, run: Run) -> None:
    """Write a line into the file."""
    del run
    path, _, line = job.uri.partition(" ")
    with Path(path).open("a") as stream:
        stream.write(f"{line}\n")


@use
def lists(job: Use, run: Run) -> Done:
    """Return the names of the files of a folder."""
    del run
    return Done(said=" ".join(sorted(path.name for path in Path(job.uri).iterdir() if path.name[0] != ".")))


@use
def writes_end(job: Use, run: Run) -> list[str]:
    """Return the lines that others have written."""
    del run
    return sorted(Path(job.uri, ".lines").read_text().split())


@use
def waits_for_go(job: Use, run: Run) -> None:
    """Report until it is stopped."""
    Path(job.uri, ".holds").touch()
    while True:
        run.progress(1)
        time.sleep(0.05)


@use
def fails_once(job: Use, run: Run) -> None:
    """Fail the first time."""
    del run
    if first_time(job.uri):
        raise ValueError("the first time")


def _written(run: Run, name: str) -> Any:
    path = run.scratch / name
    path.write_text("a,b\n")
    return path


@use
def computes_in_processes(job: Use, run: Run) -> Any:
    """Say which processes did it, and what an executor of one's own says."""
    del job
    with run.processes(2) as pool:
        found = list(pool.map(_square, range(20)))
    with concurrent.futures.ProcessPoolExecutor(2) as own, contextlib.suppress(AssertionError):
        own.submit(_square, 1)
        found = []
    return [sum(square for square, _ in found), os.getpid() in {pid for _, pid in found}]


@use
def is_cancelled_with_processes(job: Use, run: Run) -> None:
    """Write the ids of the processes into the log, then let them work for a long time."""
    del job
    with run.processes(2) as pool:
        run.log("pids", pids=" ".join(str(pid) for _, pid in pool.map(_square, range(20))))
        run.report()
        pool.submit(time.sleep, 600)
        while True:
            run.progress(1)
            time.sleep(0.05)


def _square(number: int) -> tuple[int, int]:
    return number**2, os.getpid()
