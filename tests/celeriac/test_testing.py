"""Authors' tests: a body in memory, Celery's eager mode, a real service."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from celeriac import Contract, Limits, Run, TaskFailure, TransientFailure
from celeriac.testing import Ran, Submitted, read_file, run_task, store_file
from shared.contract.artifacts import Artifact, ArtifactUri
from tests.acme.contracts import TakeNote
from tests.support.servers.cpu_waits import Stopwatch
from tests.support.servers.services import free_port
from tests.support.up import ROOT, write_own_kind


class Copied(BaseModel):
    """What was copied."""

    file: Artifact = Field(description="The copy.")
    resumed_at: int = Field(description="Where the attempt began.")


class CopyFile(
    Contract[Copied],
    kind="testing.copy_file",
    queue="etl",
    limits=Limits(soft_s=50, hard_s=60),
    examples=[{"file": "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/a.txt"}],
):
    """Copy a file."""

    file: ArtifactUri = Field(description="What to copy.")


def copy_file(job: CopyFile, run: Run) -> Copied:
    """Do a little of everything."""
    begun = run.last_checkpoint or 0
    print("printed")  # noqa: T201 - bodies print
    logging.getLogger("acme").info("logged")
    run.log("said", token="hunter2")  # noqa: S106 - it is to be hidden
    for step in range(begun, 3):
        run.checkpoint(step)
        run.progress(step, 3, unit="steps")
    run.submit(TakeNote(notebook="later"), name="later")
    target = run.scratch / "copy.txt"
    target.write_bytes(run.local(job.file).read_bytes().upper())
    return Copied(file=run.publish(target), resumed_at=begun)


def test_a_body_runs_in_memory() -> None:
    """Its result, files, log, progress, checkpoint and children are there; nothing waits for a broker."""
    watch = Stopwatch()
    ran: Ran[Copied] = run_task(copy_file, CopyFile(file=store_file("hello", "a.txt").uri))
    assert watch.own_s < 10
    assert (ran.result.resumed_at, ran.checkpoint) == (0, 2)
    assert [artifact.name for artifact in ran.artifacts] == ["copy.txt"]
    assert read_file(ran.artifacts[0].uri) == b"HELLO"
    assert [(line["level"], line["message"], line["fields"]) for line in ran.logs] == [
        ("info", "printed", {}),
        ("info", "logged", {}),
        ("info", "said", {"token": "***"}),
    ]
    assert [report["current"] for report in ran.progress] == [0, 1, 2]
    assert ran.submitted == [Submitted("acme.take_note", {"notebook": "later"})]


def test_what_one_task_publishes_another_can_read() -> None:
    """A file is there by its uri until the process ends."""
    first = run_task(copy_file, CopyFile(file=store_file(b"hello", "a.txt").uri))
    second = run_task(copy_file, CopyFile(file=first.result.file.uri), last_checkpoint=2)
    assert (read_file(second.result.file.uri), second.result.resumed_at) == (b"HELLO", 2)
    assert [report["current"] for report in second.progress] == [2]


def test_failures_are_raised_as_they_are() -> None:
    """Also those of the service: a file that is not there, a result of another type."""

    def breaks(job: CopyFile, run: Run) -> Copied:
        raise ZeroDivisionError((job, run))

    def lies(job: CopyFile, run: Run) -> Copied:  # noqa: ARG001 - a body takes both
        return TakeNote(notebook="x")  # type: ignore[return-value]  # it is wrong

    missing = CopyFile(file="artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/a.txt")
    with pytest.raises(ZeroDivisionError):
        run_task(breaks, missing)
    for body, code in ((copy_file, "artifact_missing"), (lies, "invalid_result")):
        with pytest.raises(TaskFailure) as raised:
            run_task(body, missing)
        assert raised.value.code == code


def test_what_needs_a_service_says_so() -> None:
    """Instead of a connection that is refused a minute later."""

    def counts(job: CopyFile, run: Run) -> Copied:  # noqa: ARG001 - a body takes both
        raise TransientFailure("counted", str(run.redis.incr("n")))

    with pytest.raises(AttributeError, match=r"there is no client without a ledger.*celeriac_service"):
        run_task(counts, CopyFile(file=store_file("", "a.txt").uri))


_EAGER = """
import json, pathlib, sys
from celery import chain, group
from worker.app import app

app.conf.task_always_eager = True
note, copy = app.tasks["acme.take_note"], app.tasks["acme.copy_note"]
given = {"notebook": "notes.txt"}
note.delay(**given)
groups = group(note.s(**given), note.s(**given))().get()
chained = chain(note.s(**given), copy.s(**given))().get()
mapped = note.map([given, given]).apply().get()
failed = note.delay(**given, behave="badly")
wrong = note.delay(note="book")
print(json.dumps({
    "lines": len(pathlib.Path("notes.txt").read_text().splitlines()),
    "counts": [one["line_count"] for one in (*groups, chained, *next(iter(mapped.values())))],
    "failed": [failed.state, failed.result.code, wrong.state, wrong.result.code],
}))
"""


def test_eager_mode_waits_for_no_broker(tmp_path: Path) -> None:
    """Celery's own calls run our bodies in this process, though nothing is behind the broker's URL."""
    begun = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", _EAGER],
        cwd=tmp_path,
        env={
            "CELERIAC_CONTRACTS": "tests.acme.contracts",
            "CELERIAC_TASKS": "tests.acme.tasks",
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0",
            "CELERIAC_STORE_URL": str(tmp_path / "store"),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "lines": 8,
        "counts": [2, 3, 5, 6, 7],
        "failed": ["FAILURE", "bad_note", "FAILURE", "invalid_parameters"],
    }
    assert time.monotonic() - begun < 20  # one connection that is waited for takes longer


_CONFTEST = """
import pytest

pytest_plugins = ["celeriac.testing.fixtures"]


@pytest.fixture(scope="session")
def celeriac_environment():
    return {"CELERIAC_CONTRACTS": "acme.contracts", "CELERIAC_TASKS": "acme.tasks", "CELERIAC_QUEUES": "acme"}
"""

_TESTS = """
import pytest
from acme.contracts import ShoutText
from celeriac.testing.service import Refused


def test_it_shouts(celeriac_service):
    job = celeriac_service.run(ShoutText(text="hello"), tags=["loud"])
    assert (job["state"], job["result"], job["tags"]) == ("succeeded", {"text": "HELLO"}, ["loud"])


def test_options_are_checked(celeriac_service):
    with pytest.raises(Refused, match="/options/priority"):
        celeriac_service.submit(ShoutText(text="hello"), priority=99)


def test_it_waits_no_longer_than_it_shall(celeriac_service):
    with pytest.raises(TimeoutError, match="did not end within 0.2 s"):
        celeriac_service.run(ShoutText(text="hello"), within_s=0.2, delay_s=3600)


def test_a_plain_celery_client_sees_it(celeriac_service):
    from celery import Celery

    app = Celery(broker=celeriac_service.broker_url, backend=celeriac_service.broker_url)
    job_id = celeriac_service.submit(ShoutText(text="again"))
    assert app.AsyncResult(job_id).get(timeout=60) == {"text": "AGAIN"}


def test_celerys_own_embedded_worker_runs_it(celeriac_service, celeriac_environment, monkeypatch):
    from celery.contrib.testing.worker import start_worker

    variables = {**celeriac_environment, "CELERY_BROKER_URL": celeriac_service.broker_url}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    from worker.app import app

    with start_worker(app, pool="solo", perform_ping_check=False):
        results = [app.tasks["acme.shout_text"].delay(text=f"n{n}").get(timeout=60) for n in range(10)]
    assert [result["text"] for result in results] == [f"N{n}" for n in range(10)]
"""


@pytest.mark.integration
def test_a_fixture_is_a_real_service(tmp_path: Path) -> None:
    """Another package's tests submit jobs to a gateway, and its worker runs them; nothing is left afterwards."""
    write_own_kind(tmp_path)
    (tmp_path / "conftest.py").write_text(_CONFTEST, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(_TESTS, encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CELER", "WORKER_"))}
    inherited["CELERIAC_QUEUES"] = "acme"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    command += ["--rootdir", ".", "--basetemp", "tmp"]
    ran = subprocess.run(
        [*command, "-W", "error"], cwd=tmp_path, env=inherited, capture_output=True, text=True, check=False, timeout=300
    )
    assert "5 passed" in ran.stdout, ran.stdout + ran.stderr
    said = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "tmp").rglob("said.txt"))
    assert "SIGTERM received" in said
    assert "killing it" not in said
