"""The file of a backup: a ZIP with its members' checksums in `manifest.json`; untrusted until fully verified."""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Self

from pydantic import ValidationError

from shared.errors import TaskFailure
from worker.maintenance.backup.manifest import Manifest, Member, stays_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MANIFEST = "manifest.json"
_CONTENT = "content/"  # a file of a store may be called manifest.json
_MAX_MANIFEST_BYTES = 64 * 1024**2
_MAX_DIRECTORY_BYTES = 64 * 1024**2
_CHUNK_BYTES = 1024**2
_TAIL_BYTES = 22 + 65_535 + 20 + 56  # end record with the longest comment, ZIP64 locator and record


class ArchiveWriter:
    """Writes a backup; the manifest's `files` are the added ones. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self.files: list[Member] = []

    def add(self, path: str, content: IO[bytes], on_bytes: Callable[[int], None], *, packed: bool = False) -> None:
        """Copy a file into the backup; `packed` means that it is compressed already."""
        digest, size_bytes = hashlib.sha256(), 0
        try:
            stays_inside(path)
        except ValueError as unfit:
            raise TaskFailure(
                "file_name_refused", f"The file {path!r} cannot be backed up: {unfit}.", remedy="Rename the file."
            ) from None
        info = zipfile.ZipInfo(_CONTENT + path)
        info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
        with self._zip.open(info, "w", force_zip64=True) as member:
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
                member.write(chunk)
                size_bytes += len(chunk)
                on_bytes(len(chunk))
        self.files.append(Member(path=path, size_bytes=size_bytes, sha256=digest.hexdigest()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        self._zip.close()

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest: without it the file is not a backup."""
        self._zip.writestr(MANIFEST, manifest.model_dump_json(), zipfile.ZIP_DEFLATED)


class Archive:
    """A backup whose members all match the manifest."""

    def __init__(self, file: zipfile.ZipFile, manifest: Manifest) -> None:
        self._zip = file
        self.manifest = manifest

    def open(self, member: Member) -> IO[bytes]:
        """Open a member for reading."""
        return self._zip.open(_CONTENT + member.path)


@contextmanager
def verified(path: Path, *, max_bytes: int, on_bytes: Callable[[int, int], None]) -> Iterator[Archive]:
    """Yield the backup `path` after every byte of it has been checked against its manifest.

    `on_bytes` takes the bytes verified and in total. Raises `TaskFailure` (``backup_refused``) for a file that is not a
    backup, is damaged, would unpack to more than `max_bytes`, or has paths that lead outside.
    """
    _refuse_large_directory(path)
    try:
        with zipfile.ZipFile(path) as file:
            manifest = _manifest(file)
            _refuse_other_members(file, manifest)
            if manifest.content_bytes > max_bytes:
                raise refused(f"it unpacks to {manifest.content_bytes} bytes; the maximum is {max_bytes}")
            done = 0
            for member in manifest.files:
                _verify(file, member)
                done += member.size_bytes
                on_bytes(done, manifest.content_bytes)
            yield Archive(file, manifest)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error) as broken:
        raise refused(f"it is not a valid ZIP file ({broken})") from None


def _manifest(file: zipfile.ZipFile) -> Manifest:
    try:
        info = file.getinfo(MANIFEST)
    except KeyError:
        raise refused(f"it has no {MANIFEST}") from None
    if info.file_size > _MAX_MANIFEST_BYTES:
        raise refused(f"its {MANIFEST} is too large")
    with file.open(info) as stream:
        text = stream.read(_MAX_MANIFEST_BYTES + 1)
    try:
        return Manifest.model_validate_json(text[:_MAX_MANIFEST_BYTES])
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise refused(f"its {MANIFEST} is not valid: {where}: {first['msg']}") from None


def _refuse_other_members(file: zipfile.ZipFile, manifest: Manifest) -> None:
    expected = {_CONTENT + member.path: member.size_bytes for member in manifest.files}
    found = [info for info in file.infolist() if info.filename != MANIFEST]
    if sorted(expected) != sorted(info.filename for info in found) or len(found) + 1 != len(file.infolist()):
        raise refused("its members do not match its manifest")
    for info in found:
        if info.flag_bits & 1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise refused(f"{info.filename!r} is encrypted or compressed in an unknown way")
        if info.file_size != expected[info.filename]:
            raise refused(f"{info.filename!r} has {info.file_size} bytes, not {expected[info.filename]}")


def _verify(file: zipfile.ZipFile, member: Member) -> None:
    digest, left = hashlib.sha256(), member.size_bytes
    with file.open(_CONTENT + member.path) as stream:
        while chunk := stream.read(min(_CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            digest.update(chunk)
    if left or digest.hexdigest() != member.sha256:
        raise refused(f"the checksum of {member.path!r} does not match the manifest")


def _refuse_large_directory(path: Path) -> None:
    """Refuse a directory that would fill the memory: `zipfile` reads it at once. See APPNOTE.TXT, 4.3.14 to 4.3.16."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL_BYTES))
        tail = stream.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        raise refused("it is not a ZIP file")
    directory_bytes = struct.unpack_from("<L", tail, end + 12)[0]
    locator, wide = end - 20, end - 76  # where `zipfile` looks; the same letters elsewhere are content
    if wide >= 0 and tail[locator : locator + 4] == b"PK\6\7" and tail[wide : wide + 4] == b"PK\6\6":
        directory_bytes = max(struct.unpack_from("<Q", tail, wide + 40)[0], directory_bytes % 0xFFFFFFFF)
    if directory_bytes > _MAX_DIRECTORY_BYTES:
        raise refused("its directory is too large")


def refused(why: str) -> TaskFailure:
    """Return the failure for a file that must not be restored."""
    return TaskFailure(
        "backup_refused",
        f"The backup is refused: {why}.",
        remedy="Use an unchanged file of maintenance.backup_data. Nothing was written.",
    )
