"""The artifact store: files can be written, read and deleted."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cli.doctor.findings import Finding, fail, ok, said, warn
from shared.broker.safety import safe_url
from shared.broker.settings import BrokerSettings
from shared.errors import TaskFailure, TransientFailure
from shared.ledger.ids import uuid7
from shared.storage import ArtifactStore

_NAME, _CONTENT = "doctor.txt", b"celeriac doctor"
_ROOM_BYTES = 2**30


def of_store(settings: BrokerSettings) -> Iterator[Finding]:
    """Yield whether a file can be written, read and deleted; nothing is left of it."""
    url = settings.store_url
    shown = safe_url(url)
    try:
        store = ArtifactStore(url)
    except (ImportError, ValueError) as wrong:
        yield fail("store", f"{shown}: {said(wrong)}.", "Fix CELERIAC_STORE_URL, or install its driver (s3: s3fs).")
        return
    root = Path(store.root)
    if store.is_local and not root.is_dir():
        yield _not_there_yet(root)
    else:
        yield _tried(store, shown)
        if store.is_local and (free := shutil.disk_usage(root).free) < _ROOM_BYTES:
            yield warn("store", f"{free / 2**20:,.0f} MiB are free on its disk.", "Free space, or enlarge it.")
    if store.is_local and "://" not in url and not Path(url).is_absolute():
        yield warn(
            "store",
            f"CELERIAC_STORE_URL is {url!r}: for each program below the folder in which it is started.",
            "Set an absolute path, the same for gateway and workers.",
        )


def _not_there_yet(root: Path) -> Finding:
    above = next(folder for folder in root.absolute().parents if folder.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return ok("store", f"{root} is not there yet; the first file makes it")
    return fail("store", f"{root} is not there, and cannot be made in {above}.", _REMEDY)


def _tried(store: ArtifactStore, shown: str) -> Finding:
    file_owner = uuid7()
    try:
        with tempfile.TemporaryDirectory(prefix="celeriac-") as folder:
            file = Path(folder) / _NAME
            file.write_bytes(_CONTENT)
            try:
                written = store.put(
                    file, file_owner=file_owner, attempt=0, name=_NAME, role="file", media_type="text/plain"
                )
                with store.open(written.uri) as stream:
                    read = stream.read()
            finally:
                store.forget(file_owner)
    except TransientFailure as full:
        return fail("store", f"{shown}: {full.message}", full.remedy)
    except TaskFailure as lost:
        return fail("store", f"{shown}: a file that was written is not there: {lost.message}", _REMEDY)
    except Exception as failure:  # noqa: BLE001 - each file system of fsspec has its own
        return fail("store", f"{shown} cannot be written: {said(failure)}.", _REMEDY)
    if read != _CONTENT:
        return fail("store", f"{shown} gives back other bytes than were written.", _REMEDY)
    return ok("store", f"{shown} can be written and read")


_REMEDY = "Let gateway and workers write there, or fix CELERIAC_STORE_URL."
