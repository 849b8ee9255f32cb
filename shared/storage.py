"""The artifact store: files under one root, local or any that fsspec reaches."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import fsspec

from shared.contract.artifacts import ARTIFACT_URI_PATTERN, FILE_OWNER_PATTERN, Artifact
from shared.errors import TaskFailure, TransientFailure

_URI = re.compile(ARTIFACT_URI_PATTERN)


class Usage(NamedTuple):
    """The files of a job or upload in the store."""

    file_count: int
    size_bytes: int
    written_at: float  # seconds since 1970; 0 if there are no files


def artifact_uri(file_owner: str, attempt: int, name: str) -> str:
    """Return the uri of the file `name` that attempt `attempt` of `file_owner` (a job or upload id) wrote.

    The attempt is part of it, so that a late attempt can never overwrite what its successor wrote.
    """
    uri = f"artifact://{file_owner}/{attempt}/{name}"
    if not _URI.fullmatch(uri):
        raise ValueError(
            f"{name!r} cannot name an artifact of {file_owner!r}: use letters, digits, '.', '_' and '-', "
            "at most 128 of them, the first a letter or digit."
        )
    return uri


class ArtifactStore:
    """Files under one root: a local folder (`file:///data/artifacts`, a plain path) or any fsspec URL.

    A file is written under a temporary name and renamed, so a reader never sees a partial file.
    """

    def __init__(self, root: str) -> None:
        self.fs, base = fsspec.core.url_to_fs(root)
        self.root = str(base).rstrip("/")
        self.is_local = "file" in _protocols(self.fs)

    def path(self, uri: str) -> str:
        """Return the path of `uri` in the store's file system. Raises `ValueError` if it is not an artifact uri."""
        if not _URI.fullmatch(uri):
            raise ValueError(f"{uri!r} is not an artifact uri (artifact://<id>/<attempt>/<name>).")
        return f"{self.root}/{uri.removeprefix('artifact://')}"

    def size_bytes(self, uri: str) -> int:
        """Return the size of a file in bytes. Raises `TaskFailure` (``artifact_missing``) if it does not exist."""
        try:
            return int(self.fs.size(self.path(uri)) or 0)
        except FileNotFoundError:
            raise TaskFailure(
                "artifact_missing",
                f"{uri} is not in the store.",
                remedy="Correct the uri. If the retention of its job has passed, stage the data again.",
            ) from None

    def open(self, uri: str) -> IO[bytes]:
        """Open a file for reading. Raises `TaskFailure` (``artifact_missing``) if it does not exist."""
        self.size_bytes(uri)
        stream: IO[bytes] = self.fs.open(self.path(uri), "rb")
        return stream

    @contextmanager
    def local_copy(self, uri: str, scratch: Path) -> Iterator[Path]:
        """Yield a local path with the content of `uri`: the file itself in a local store, else a download."""
        copy = self.fetched(uri, scratch)
        try:
            yield copy
        finally:
            if not self.is_local:
                copy.unlink(missing_ok=True)

    def fetched(self, uri: str, scratch: Path) -> Path:
        """Return a local path with the content of `uri`: the file itself in a local store, else a copy in `scratch`."""
        self.size_bytes(uri)
        if self.is_local:
            return Path(self.path(uri))
        target = scratch / f"{secrets.token_hex(8)}-{uri.rsplit('/', 1)[1]}"
        self.fs.get_file(self.path(uri), str(target))
        return target

    def put(self, local: Path, *, file_owner: str, attempt: int, name: str, role: str, media_type: str) -> Artifact:
        """Move the finished local file `local` into the store and return its reference.

        Raises `TransientFailure` (``store_full``) where it has no room, and leaves nothing there then.
        """
        uri = artifact_uri(file_owner, attempt, name)
        target = self.path(uri)
        artifact = Artifact(
            uri=uri,
            name=name,
            role=role,
            media_type=media_type,
            size_bytes=local.stat().st_size,
            sha256=sha256_of(local),
        )
        try:
            self._move_in(local, target)
        except OSError as failure:
            if not is_full(failure):
                raise
            raise TransientFailure(
                "store_full",
                f"The artifact store has no room for {name} ({artifact.size_bytes} bytes).",
                remedy="Free space in the store or enlarge it; the job is tried again until its retries are used up.",
            ) from failure
        return artifact

    def _move_in(self, local: Path, target: str) -> None:
        if not self.is_local:  # object stores make a whole object visible at once
            self.fs.put_file(str(local), target)
            local.unlink()
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        aside = Path(f"{target}.{secrets.token_hex(4)}.part")  # on the store's own disk, so that the rename is atomic
        try:
            shutil.move(local, aside)
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)  # half a file would take the room that others need

    def file_owners(self) -> Iterator[str]:
        """Yield the ids of jobs and uploads that have files."""
        if self.is_local:
            root = Path(self.root)
            found: Iterator[str] = (entry.name for entry in os.scandir(root)) if root.is_dir() else iter(())
        else:
            found = (str(path).rsplit("/", 1)[-1] for path in self.fs.ls(self.root, detail=False))
        return (name for name in found if re.fullmatch(FILE_OWNER_PATTERN, name))

    def usage(self, file_owner: str) -> Usage:
        """Return the number of files of a job or upload, their size, and the time of the newest."""
        files = self.fs.find(f"{self.root}/{file_owner}", withdirs=self.is_local, detail=True)
        sizes = [int(info["size"] or 0) for info in files.values() if info["type"] == "file"]
        written = [self.fs.modified(path).timestamp() for path in files]
        return Usage(len(sizes), sum(sizes), max(written, default=0.0))

    def forget(self, file_owner: str) -> None:
        """Remove all files of a job or upload, if it has any.

        Only a UUID can own files: see `shared.contract.artifacts.file_owner_of`.
        """
        if not re.fullmatch(FILE_OWNER_PATTERN, file_owner):
            return
        folder = f"{self.root}/{file_owner}"
        if self.fs.exists(folder):
            self.fs.rm(folder, recursive=True)


def is_full(failure: OSError) -> bool:
    """Return whether a file system, or its quota, has no room left."""
    return failure.errno in {errno.ENOSPC, errno.EDQUOT}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content as lower-case hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _protocols(fs: Any) -> tuple[str, ...]:
    protocol = fs.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
