"""Decompress gzip, zstd and zip files, recognised by their first bytes, up to a limit in bytes."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from functools import partial
from typing import IO, TYPE_CHECKING, Literal

import zstandard

from shared.errors import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shared.jobs.data.places import Compression

Kind = Literal["gzip", "zstd", "zip"]
_MAGIC: dict[bytes, Kind] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
_OFFICE = ("[Content_Types].xml", "mimetype")  # a workbook is a zip, too
_NO_CONTENT = "__MACOSX/"
_CHUNK_BYTES = 1024**2
_BITE_BYTES = 1024
_MAX_WINDOW_BYTES = 128 * 1024**2  # zstd's own limit; a hostile frame could ask for much more memory


def compression_of(path: Path, wanted: Compression) -> Literal["none"] | Kind:
    """Return how the file is compressed, by its first bytes; a workbook is not.

    Raises `TaskFailure` (``source_malformed``) if the layout says otherwise.
    """
    with path.open("rb") as file:
        start = file.read(4)
    found: Literal["none"] | Kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "none")
    if found == "zip" and wanted != "zip" and _is_workbook(path):
        found = "none"
    if wanted not in {"auto", "none", found}:
        raise TaskFailure(
            "source_malformed",
            f"layout.compression is {wanted!r}, but the file does not begin with the bytes of {wanted}.",
            remedy="Omit layout.compression; the compression is then detected.",
        )
    return "none" if wanted == "none" else found


def member_of(path: Path, wanted: str | None) -> str:
    """Return the name of the file inside a zip file: `wanted`, or the only one.

    Raises `TaskFailure` (``source_malformed``, ``unknown_member``).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [one.filename for one in archive.infolist() if not one.is_dir()]
    except zipfile.BadZipFile as broken:
        raise _corrupt("zip", broken) from None
    names = [name for name in names if not name.startswith(_NO_CONTENT) and not _base(name).startswith(".")]
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    raise TaskFailure(
        "unknown_member",
        f"layout.member: the zip file has no file {wanted!r}; it has {', '.join(names)[:500] or 'none'}."
        if wanted
        else f"The zip file has {len(names)} files: {', '.join(names)[:500]}.",
        remedy="Name one of them in layout.member.",
    )


def decompress(
    path: Path, target: Path, kind: Kind, max_bytes: int, on_bytes: Callable[[int], None], *, member: str = ""
) -> None:
    """Write the content of `path` to `target`, at most `max_bytes`; `on_bytes` gets the bytes read so far.

    `member` is the file inside a zip file. Raises `TaskFailure`: ``source_too_large`` beyond the limit,
    ``source_malformed`` if the file is broken.
    """
    written = 0
    with path.open("rb") as packed, target.open("xb") as out:
        unpack: dict[Kind, Callable[[IO[bytes]], Iterator[bytes]]] = {
            "gzip": _gzip_chunks, "zstd": _zstd_chunks, "zip": partial(_zip_chunks, member=member),
        }  # fmt: skip
        try:
            for chunk in unpack[kind](packed):
                written += len(chunk)
                if written > max_bytes:
                    raise _too_large(max_bytes)
                out.write(chunk)
                on_bytes(packed.tell())
        except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, zipfile.BadZipFile, EOFError) as broken:
            raise _corrupt(kind, broken) from None
        except (RuntimeError, NotImplementedError) as other:  # of zipfile: encrypted, or packed in a rare way
            raise _corrupt(kind, other) from None


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name in _OFFICE or name.startswith("xl/") for name in archive.namelist())
    except zipfile.BadZipFile:
        return True  # the reader of workbooks says what is wrong


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _corrupt(kind: str, broken: Exception) -> TaskFailure:
    return TaskFailure(
        "source_malformed",
        f"The {kind} file is corrupt, truncated or encrypted: {broken}.",
        remedy="Create the file again and submit it again.",
    )


def _zip_chunks(packed: IO[bytes], member: str) -> Iterator[bytes]:
    with zipfile.ZipFile(packed) as archive, archive.open(member) as plain:
        while chunk := plain.read(_CHUNK_BYTES):
            yield chunk


def _gzip_chunks(packed: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=packed, mode="rb") as plain:
        while chunk := plain.read(_CHUNK_BYTES):
            yield chunk


def _zstd_chunks(packed: IO[bytes]) -> Iterator[bytes]:
    """Decompress frame by frame, in pieces so small that even a decompression bomb fits into memory (32 MB per KiB).

    zstandard's own stream reader does not notice that a file is truncated.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    frame: zstandard.ZstdDecompressionObj | None = None
    while bite := packed.read(_BITE_BYTES):
        while bite:
            frame = frame or decompressor.decompressobj()
            yield frame.decompress(bite)
            bite = b""
            if frame.eof:
                bite, frame = frame.unused_data, None
    if frame is not None:
        raise EOFError("it ends within a frame")


def _too_large(max_bytes: int) -> TaskFailure:
    return TaskFailure(
        "source_too_large",
        f"The decompressed source is larger than {max_bytes} bytes.",
        remedy="Split it, or raise CELERIAC_PLAIN_MAX_BYTES on the workers.",
        max_bytes=max_bytes,
    )
