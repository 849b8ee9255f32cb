"""Scratch folders: one per worker, in it one per attempt. A worker removes the folders of killed ones at start."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import TransientFailure
from shared.storage import is_full

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
    """Yield the path of a folder for one attempt at a job, which the caller makes; it is removed at the end."""
    folder = Path(os.environ.get(_VARIABLE) or tempfile.gettempdir(), f"{_name(job_id)}-{secrets.token_hex(4)}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def scratch_full() -> TransientFailure:
    """Return the failure of a job that found no room for its temporary files."""
    return TransientFailure(
        "scratch_full",
        "The worker's disk has no room for the job's temporary files.",
        remedy="Free space in the worker's temporary folder or enlarge it, or give the job less data.",
    )


def comes_of_full_disk(failure: BaseException | None) -> bool:
    """Return whether an error is that of a full disk, or was raised because of one: libraries wrap it in their own."""
    while failure is not None:
        if isinstance(failure, OSError) and is_full(failure):
            return True
        failure = failure.__cause__ or (None if failure.__suppress_context__ else failure.__context__)
    return False


def sweep(root: Path, running: Collection[str]) -> None:
    """Remove the folders of attempts whose child was killed: older than a minute and not of a running job."""
    in_use = {_name(job_id) for job_id in running}
    for folder in root.iterdir():
        if folder.name.rpartition("-")[0] not in in_use and time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(folder, ignore_errors=True)


def _name(job_id: str) -> str:
    """Return a folder's name for a job. Other Celery clients choose ids freely, `../../x` among them."""
    return hashlib.sha256(job_id.encode()).hexdigest()[:32]
