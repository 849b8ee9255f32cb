"""Scratch folders: one per worker, in it one per attempt. A worker removes the folders of killed ones at start."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "celeriac-worker-"
_VARIABLE = "CELERIAC_SCRATCH"  # inherited by the child processes
_ABANDONED_AFTER_S = 60.0


def make_root() -> Path:
    """Create this worker's folder and remove those of ended workers of this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
    root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    os.environ[_VARIABLE] = str(root)
    return root


@contextmanager
def attempt_folder(job_id: str) -> Iterator[Path]:
    """Yield an empty folder for one attempt at a job; it is removed at the end."""
    root = os.environ.get(_VARIABLE)
    with tempfile.TemporaryDirectory(prefix=f"{_name(job_id)}-", dir=root, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def sweep(root: Path, running: Collection[str]) -> None:
    """Remove the folders of attempts whose child was killed: older than a minute and not of a running job."""
    in_use = {_name(job_id) for job_id in running}
    for folder in root.iterdir():
        if folder.name.rpartition("-")[0] not in in_use and time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(folder, ignore_errors=True)


def _name(job_id: str) -> str:
    """Return a folder's name for a job. Other Celery clients choose ids freely, `../../x` among them."""
    return hashlib.sha256(job_id.encode()).hexdigest()[:32]
