"""Notice CSV whose quotes would mangle values, while it is read, and say where they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import TaskFailure
from worker.etl.reading.records import stray_quotes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.etl.reading.dialect import Dialect
    from worker.etl.reading.records import Record

_OTHER_ESCAPES = re.compile(rb'\\(?:["\\]|(?P<other>.|\Z))', re.DOTALL)


class QuoteWatch:
    """Looks at the bytes of a file as they pass. In most files it only counts quotes."""

    def __init__(self, dialect: Dialect) -> None:
        """Watch for the quotes of `dialect`; with escapes, every record has to be looked at afterwards."""
        self.suspicious = dialect.escape is not None
        self._quote = (dialect.quote or "").encode()
        self._ends = (dialect.delimiter.encode(), b"\n", b"\r")
        self._pattern = stray_quotes(dialect) if dialect.quote else None
        self._rest = b"\n"

    def see(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        if self.suspicious or self._pattern is None:
            return
        if self._quote not in chunk and not self._rest.endswith(self._quote):
            self._rest = chunk[-1:]
            return
        content = self._rest + chunk
        self.suspicious = not self._are_edges(content) and self._pattern.search(content) is not None
        quotes = len(content) - len(content.rstrip(self._quote))
        self._rest = content[-quotes - 1 :]

    def _are_edges(self, content: bytes) -> bool:
        """Return whether each quote begins or ends a field: an end of fields is on one side of it, not on both."""
        signs = pa.Array.from_buffers(pa.uint8(), len(content), [None, pa.py_buffer(content)])
        quotes = pc.equal(signs, _byte(self._quote))
        ends = pc.equal(signs, _byte(self._ends[0]))
        for other in self._ends[1:]:
            if other in content:
                ends = pc.or_(ends, pc.equal(signs, _byte(other)))
        inner = len(content) - 2
        if inner < 0 or content[:1] == self._quote or (content[-1:] == self._quote and not ends[inner].as_py()):
            return False
        one_sided = pc.xor(ends.slice(0, inner), ends.slice(2))
        return not pc.any(pc.and_not(quotes.slice(1, inner), one_sided), min_count=0).as_py()


def _byte(sign: bytes) -> pa.Scalar:
    return pa.scalar(sign[0], pa.uint8())  # a plain number would be one of 64 bits, and all signs with it


def check_records(found: Iterable[Record], dialect: Dialect) -> None:
    """Raise `TaskFailure` (``source_malformed``) for the first record whose values the quotes would mangle."""
    for record in found:
        if not record.whole:
            raise TaskFailure(
                "source_malformed",
                f"The source is not well-formed CSV: in line {record.line} something follows a closing quote.",
                remedy="Double the quotes inside of quoted fields, or set layout.escape (for example to a backslash) "
                "or layout.quote.",
            )
        if dialect.recognised_escape and any(
            one["other"] is not None for one in _OTHER_ESCAPES.finditer(record.content)
        ):
            raise TaskFailure(
                "source_ambiguous",
                f"Backslashes stand before quotes, and in line {record.line} before something else.",
                remedy="Set layout.escape to a backslash if it makes the next sign part of the value, or double the "
                "quotes inside of quoted fields.",
            )
