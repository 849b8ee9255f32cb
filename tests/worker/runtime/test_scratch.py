"""Scratch folders end with what made them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from worker.runtime import scratch


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CELERIAC_SCRATCH", "")
    return scratch.make_root()


def test_an_attempts_folder_is_gone_afterwards(root: Path) -> None:
    """With whatever the attempt left in it."""
    with scratch.attempt_folder("job") as folder:
        folder.mkdir()
        (folder / "left.parquet").write_bytes(b"x")
        assert folder.parent == root
    assert list(root.iterdir()) == []


def test_a_dead_workers_folder_is_removed_by_the_next(root: Path) -> None:
    """A worker that was killed removes nothing; the living keep theirs."""
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    dead = root.parent / f"celeriac-worker-{ended.pid}-abc"
    dead.mkdir()
    scratch.make_root()
    assert (dead.exists(), root.exists()) == (False, True)


def test_what_a_killed_child_left_is_swept_after_a_minute(root: Path) -> None:
    """Neither a running job's folder nor a fresh one is touched."""
    with ExitStack() as attempts:
        old, running, fresh = (
            attempts.enter_context(scratch.attempt_folder(name)) for name in ("old", "running", "fresh")
        )
        for folder in (old, running, fresh):
            folder.mkdir()
        for folder in (old, running):
            os.utime(folder, (1, 1))
        scratch.sweep(root, {"running"})
        assert sorted(root.iterdir()) == sorted([running, fresh])


@pytest.mark.parametrize("job_id", ["../../x", "/etc", "a/b", "", "x" * 300, "\N{PILE OF POO}"])
def test_a_jobs_id_is_never_a_path(root: Path, job_id: str) -> None:
    """Other Celery clients choose ids of any form; the folder is inside the worker's own nevertheless."""
    with scratch.attempt_folder(job_id) as folder:
        assert folder.parent == root
