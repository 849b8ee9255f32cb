"""Read text files of any encoding as UTF-8 bytes."""

from __future__ import annotations

import codecs
import io
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from shared.errors import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BUFFER_BYTES = 1024**2
_MARKS = (  # that of UTF-32 first, because it begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_UTF8 = "utf-8"
_MARK = "\ufeff"


@contextmanager
def opened_as_utf8(path: Path, wanted: str | None) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Yield the text of a file as UTF-8 without its byte order mark, and the file itself, whose position is progress.

    `wanted` is the encoding; None: what the byte order mark says, else UTF-8, which is passed on unchecked.
    Reading raises `TaskFailure` (``source_encoding``).
    """
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        mark, found = next(((mark, name) for mark, name in _MARKS if start.startswith(mark)), (b"", _UTF8))
        encoding = codecs.lookup(wanted or found).name
        if encoding in {_UTF8, "utf-8-sig"}:
            file.seek(len(mark) if mark == codecs.BOM_UTF8 else 0)
            yield file, file
        else:
            with io.BufferedReader(_Recoded(file, encoding), _BUFFER_BYTES) as text:
                yield text, file


def wrong_encoding(encoding: str) -> TaskFailure:
    """Return the failure for a file that is not encoded in `encoding`."""
    return TaskFailure(
        "source_encoding",
        f"The source is not encoded in {encoding.upper()}.",
        remedy="Set layout.encoding to its encoding, for example 'cp1252', or convert it to UTF-8.",
    )


class _Recoded(io.RawIOBase):
    """A file in another encoding, as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        super().__init__()
        self._file = file
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._at_start = True
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: bytearray | memoryview, /) -> int:  # type: ignore[override] # of bytes
        while not self._ready:
            chunk = self._file.read(_BUFFER_BYTES)
            try:
                text = self._decoder.decode(chunk, final=not chunk)
            except UnicodeError:
                raise wrong_encoding(self._encoding) from None
            if self._at_start and text:
                text, self._at_start = text.removeprefix(_MARK), False
            try:
                self._ready = text.encode()
            except UnicodeEncodeError:
                raise wrong_encoding(self._encoding) from None
            if not chunk:
                break
        count = min(len(target), len(self._ready))
        target[:count], self._ready = self._ready[:count], self._ready[count:]
        return count
