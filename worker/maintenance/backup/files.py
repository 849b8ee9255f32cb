"""Find, read and write the files of a store below a prefix, within its root."""

from __future__ import annotations

import hashlib
import secrets
from typing import IO, TYPE_CHECKING

from shared.errors import TaskFailure, TransientFailure
from shared.texts import redact
from worker.maintenance.backup.manifest import MAX_FILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.reach.connections import StoreConnection

_CHUNK_BYTES = 1024**2


def paths_below(store: StoreConnection, prefix: str) -> list[str]:
    """Return the paths of all files below `prefix`, relative to it and sorted; empty if the folder does not exist.

    Raises `TaskFailure` for more than 100,000 files, or for one that leads out of the store.
    """
    root = store.locate(prefix).rstrip("/")
    try:
        found = sorted(store.fs.find(root)) if store.fs.isdir(root) else []
    except OSError as failure:
        raise unreachable(store, failure) from None
    if len(found) > MAX_FILES:
        raise TaskFailure(
            "too_many_files",
            f"{store.name}:{prefix} has {len(found)} files; a backup takes at most {MAX_FILES}.",
            remedy="Back up its folders one by one.",
        )
    paths = [str(path).removeprefix(root).lstrip("/") for path in found]
    for path in paths:
        store.locate(f"{prefix}/{path}")
    return paths


def write_file(store: StoreConnection, path: str, content: IO[bytes], on_bytes: Callable[[int], None]) -> None:
    """Write a file of the store: to a temporary file that is then renamed, so that no reader sees a partial file."""
    full = store.locate(path)
    aside = (
        f"{full}.{secrets.token_hex(4)}.part" if store.is_local else full
    )  # object stores show complete objects only
    try:
        store.fs.makedirs(full.rpartition("/")[0], exist_ok=True)
        with store.fs.open(aside, "wb") as target:
            while chunk := content.read(_CHUNK_BYTES):
                target.write(chunk)
                on_bytes(len(chunk))
        if aside != full:
            store.fs.mv(aside, full)
    except OSError as failure:
        raise unreachable(store, failure) from None
    finally:
        if aside != full and store.fs.exists(aside):
            store.fs.rm_file(aside)


def sha256_in(store: StoreConnection, path: str) -> str:
    """Return the SHA-256 of a file of the store."""
    try:
        with store.fs.open(store.locate(path), "rb") as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as failure:
        raise unreachable(store, failure) from None
    return digest.hexdigest()


def unreachable(store: StoreConnection, failure: OSError) -> TransientFailure:
    """Return the transient failure of a store that cannot be read or written."""
    return TransientFailure(
        "store_unavailable",
        f"The store {store.name!r} failed: {redact(f'{type(failure).__name__}: {failure}')[:500]}",
        remedy="Check the store, its free space, and the permissions of the workers.",
    )
