"""Scratch folders: one a worker process, in it one an attempt. What a killed process leaves is removed by the next."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "celeriac-worker-"
_VARIABLE = "CELERIAC_SCRATCH"  # given to the children by their environment
_ABANDONED_AFTER_S = 60.0


def make_root() -> Path:
    """Make this worker's folder and remove those of workers of this machine that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
    root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    os.environ[_VARIABLE] = str(root)
    return root


@contextmanager
def attempt_folder(job_id: str) -> Iterator[Path]:
    """Yield an empty folder for one attempt at a job; it is gone afterwards."""
    root = os.environ.get(_VARIABLE)
    with tempfile.TemporaryDirectory(prefix=f"{job_id}-", dir=root, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def sweep(root: Path, running: Collection[str]) -> None:
    """Remove the folders of attempts whose child was killed: a minute old, and of no running job."""
    for folder in root.iterdir():
        job_id = folder.name.rsplit("-", 1)[0]
        if job_id not in running and time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(folder, ignore_errors=True)
