"""Decompress gzip and zstd files, recognised by their first bytes, up to a limit in bytes."""

from __future__ import annotations

import gzip
import zlib
from typing import IO, TYPE_CHECKING, Literal

import zstandard

from shared.errors import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shared.jobs.data.places import Compression

_MAGIC: dict[bytes, Literal["gzip", "zstd"]] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_CHUNK_BYTES = 1024**2
_BITE_BYTES = 1024
_MAX_WINDOW_BYTES = 128 * 1024**2  # zstd's own limit; a hostile frame could ask for much more memory


def compression_of(path: Path, wanted: Compression) -> Literal["none", "gzip", "zstd"]:
    """Return how the file is compressed, by its first bytes.

    Raises `TaskFailure` (``source_malformed``) if the layout says otherwise.
    """
    with path.open("rb") as file:
        start = file.read(4)
    found: Literal["none", "gzip", "zstd"] = next(
        (name for magic, name in _MAGIC.items() if start.startswith(magic)), "none"
    )
    if wanted not in {"auto", "none", found}:
        raise TaskFailure(
            "source_malformed",
            f"layout.compression is {wanted!r}, but the file does not begin with the bytes of {wanted}.",
            remedy="Omit layout.compression; the compression is then detected.",
        )
    return "none" if wanted == "none" else found


def decompress(
    path: Path, target: Path, kind: Literal["gzip", "zstd"], max_bytes: int, on_bytes: Callable[[int], None]
) -> None:
    """Write the content of `path` to `target`, at most `max_bytes`; `on_bytes` gets the bytes read so far.

    Raises `TaskFailure`: ``source_too_large`` beyond the limit, ``source_malformed`` if the file is broken.
    """
    chunks = _gzip_chunks if kind == "gzip" else _zstd_chunks
    written = 0
    with path.open("rb") as packed, target.open("xb") as out:
        try:
            for chunk in chunks(packed):
                written += len(chunk)
                if written > max_bytes:
                    raise _too_large(max_bytes)
                out.write(chunk)
                on_bytes(packed.tell())
        except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError) as broken:
            raise TaskFailure(
                "source_malformed",
                f"The {kind} file is corrupt or truncated: {broken}.",
                remedy="Create the file again and submit it again.",
            ) from None


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
