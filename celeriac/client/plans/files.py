"""Files: upload, list, download with checksum and resumption."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import httpx

from celeriac.client.answers import JobArtifact, artifact_in
from celeriac.client.failures import ClientFailure, Unreachable, WrongChecksum
from celeriac.client.gateway import Gateway, segment
from celeriac.client.plans.asking import Pauses, asked, asked_document, posted, read, unreachable
from celeriac.client.plans.jobs import path_of
from celeriac.client.wire import Answer, Plan, Request, next_part, worked
from shared.contract.artifacts import NAME_PATTERN, Artifact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.client.plans.jobs import Reference

Progress: TypeAlias = Callable[[int, int], object]  # bytes so far, bytes in all

_PART_BYTES = 256 * 1024
_PARTIAL = 206
_STORED_WITHIN_S = 300.0  # the gateway answers when the file is in the store, which may be far away


def upload(
    gateway: Gateway, source: Path | str | bytes, name: str | None, media_type: str | None, progress: Progress | None
) -> Plan[Artifact]:
    """Send a file with its digest, which the gateway verifies."""
    source = Path(source) if isinstance(source, str) else source
    name = name or (source.name if isinstance(source, Path) else None)
    if name is None:
        raise ValueError("bytes have no name: give name=")
    size_bytes, digest = yield from worked(partial(_measured, source))
    headers = {
        "Content-Type": media_type or "application/octet-stream",
        "Content-Length": str(size_bytes),
        "Content-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:",
    }
    request = posted(
        "/uploads",
        query={"name": name},
        repeatable=True,  # an unused copy ends with its retention
        read_timeout_s=_STORED_WITHIN_S,
    )
    request = replace(request, headers=headers, content=partial(_parts, source, size_bytes, progress))
    answer = yield from asked_document(gateway, request)
    return artifact_in(answer.document)


def artifacts(gateway: Gateway, job: Reference) -> Plan[Sequence[JobArtifact]]:
    """Return the files of a job and of its steps."""
    answer = yield from asked_document(gateway, read(f"{path_of(job)}/artifacts"))
    return [JobArtifact(artifact_in(each["artifact"]), each["step"]) for each in answer.document["artifacts"]]


def download(
    gateway: Gateway,
    job: Reference,
    name: str,
    to: Path | str,
    *,
    step: str | None,
    overwrite: bool,
    progress: Progress | None,
) -> Plan[Path]:
    """Fetch a file of a job. What came before a cut, in this call or an earlier one, is not fetched again."""
    target = _target(name, Path(to), overwrite=overwrite)
    path = f"{path_of(job)}/artifacts/{segment(name)}"
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    query = {"step": step}
    request = read(path, query=query, headers=headers, is_streamed=True, part_bytes=_PART_BYTES)
    pauses = Pauses()
    partly: _Partly | None = None
    while True:
        answer = yield from asked(gateway, request if partly is None else partly.rest_of(request))
        if partly is None or answer.status != _PARTIAL:
            whole = _described(gateway, answer)
            partly = yield from worked(partial(_Partly.begin, target, whole, partly))
            if 0 < partly.have_bytes < partly.size_bytes:
                continue
        try:
            while partly.have_bytes < partly.size_bytes and (part := (yield from next_part())) is not None:
                yield from worked(partial(partly.add, part))
                pauses = Pauses()
                if progress is not None:
                    progress(partly.have_bytes, partly.size_bytes)
            break
        except httpx.TransportError as lost:
            yield from pauses.after(unreachable(gateway, lost), gateway.retries.for_s)
    return (yield from worked(partial(partly.finish, overwrite=overwrite)))


def _target(name: str, to: Path, *, overwrite: bool) -> Path:
    """Return where the file goes. What a server calls a file must not lead out of the folder."""
    target = to
    if to.is_dir():
        if not re.fullmatch(NAME_PATTERN, name):
            raise ClientFailure(f"{name!r} cannot be the name of a file in {to}. Give a path for it, not a folder.")
        target = to / name
    if not overwrite and os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    return target


class _Whole(NamedTuple):
    """A file as the answer describes it."""

    sha256: str
    size_bytes: int


def _described(gateway: Gateway, answer: Answer) -> _Whole:
    sha256 = answer.headers.get("etag", "").removeprefix("W/").strip('"')
    size = answer.headers.get("content-length", "")
    if not (re.fullmatch("[0-9a-f]{64}", sha256) and size.isdecimal()):
        raise Unreachable(
            f"{gateway.shown} does not say the SHA-256 and the size of the file, as a Celeriac gateway does. "
            "Is there a proxy that changes its answers?"
        )
    return _Whole(sha256, int(size))


@dataclass
class _Partly:
    """A file that is being downloaded, beside its target until it is complete."""

    target: Path
    sha256: str
    size_bytes: int
    have_bytes: int = 0
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        self.path = self.target.with_name(f".{self.target.name}.{self.sha256[:16]}.part")

    @classmethod
    def begin(cls, target: Path, whole: _Whole, before: _Partly | None) -> _Partly:
        """Return it with what an earlier download has left of it.

        `before` asked for the rest of a file. Nothing of it is kept if that is the same: something on the way does not
        know ranges.
        """
        partly = cls(target, whole.sha256, whole.size_bytes)
        partly.path.touch()
        partly.have_bytes = partly.path.stat().st_size
        if partly.have_bytes > whole.size_bytes or (before is not None and before.sha256 == whole.sha256):
            partly.path.write_bytes(b"")
            partly.have_bytes = 0
        return partly

    def rest_of(self, request: Request) -> Request:
        """Return the request for what is missing, or for the whole file if it is another one by now."""
        headers = {"Range": f"bytes={self.have_bytes}-", "If-Range": f'"{self.sha256}"'}
        return replace(request, headers={**request.headers, **headers})

    def add(self, part: bytes) -> None:
        """Append a part."""
        with self.path.open("ab") as file:
            file.write(part)
        self.have_bytes += len(part)

    def finish(self, *, overwrite: bool) -> Path:
        """Move the file to its target if it is what it shall be. Raises `WrongChecksum`, `FileExistsError`."""
        _, digest = _measured(self.path)
        if digest.hex() != self.sha256:
            self.path.unlink()
            raise WrongChecksum(
                f"{self.target} would have the SHA-256 {digest.hex()}, but the job recorded {self.sha256}. "
                "It was deleted: download it again."
            )
        if not overwrite:
            self.target.open("xb").close()  # what another program has made meanwhile stays
        return self.path.replace(self.target)


def _measured(source: Path | bytes) -> tuple[int, bytes]:
    """Return size and SHA-256."""
    if isinstance(source, bytes):
        return len(source), hashlib.sha256(source).digest()
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        return file.tell(), digest


def _parts(source: Path | bytes, size_bytes: int, progress: Progress | None) -> Iterator[bytes]:
    sent_bytes = 0
    for part in _read(source):
        yield part
        sent_bytes += len(part)
        if progress is not None:
            progress(sent_bytes, size_bytes)


def _read(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while part := file.read(_PART_BYTES):
            yield part
