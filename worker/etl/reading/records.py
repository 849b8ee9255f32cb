"""Split CSV into records line by line, strictly: for comments, for line numbers, and to find mangled values.

This is slower than Arrow's reader, which keeps neither line numbers nor comments, and takes what follows a closing
quote for a part of the value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker.etl.reading.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Record:
    """The bytes of a record, the line where it begins, and whether its quotes are as they should be."""

    line: int
    content: bytes
    whole: bool


def records(lines: Iterable[bytes], dialect: Dialect, comment: str | None, *, first_line: int = 1) -> Iterator[Record]:
    """Yield the records; blank lines and comments are none. The first line has the number `first_line`."""
    whole, open_ = _patterns(dialect)
    quote, remark = (dialect.quote or "").encode(), (comment or "").encode()
    simple = not dialect.escape
    pending, start = b"", first_line
    for number, line in enumerate(lines, first_line):
        if not pending:
            if not line.strip(b"\r\n") or (remark and line.startswith(remark)):
                continue
            if simple and (not quote or quote not in line):
                yield Record(number, line, whole=True)
                continue
            start = number
        pending += line
        if pending != line and simple and quote not in line:
            continue  # still inside of the quotes
        if whole.fullmatch(pending):
            yield Record(start, pending, whole=True)
        elif open_.fullmatch(pending):
            continue
        else:
            yield Record(start, pending, whole=False)
        pending = b""
    if pending:
        yield Record(start, pending, whole=False)


def stray_quotes(dialect: Dialect) -> re.Pattern[bytes]:
    """Return the pattern of quotes that a value may have lost its form by; in most files it occurs nowhere."""
    quote, sign = re.escape(dialect.quote or "").encode(), re.escape(dialect.delimiter).encode()
    parts = {b"Q": quote, b"D": sign}
    pattern = rb"Q(?:(?<=[^QD\r\n]Q)(?:QQ)*+|(?<=[D\r\n]Q)Q(?:QQ)*+)(?=[^QD\r\n])"
    return re.compile(re.sub(rb"[QD]", lambda found: parts[found[0]], pattern))


def _patterns(dialect: Dialect) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return the patterns of a whole record and of one with an open quote."""
    sign = re.escape(dialect.delimiter).encode()
    escape = re.escape(dialect.escape).encode() if dialect.escape else b""
    escaped = escape + b".|" if escape else b""
    plain = b"(?:" + escaped + b"[^" + sign + rb"\r\n" + escape + b"])*+"
    if not dialect.quote:
        whole = plain + b"(?:" + sign + plain + b")*+" + rb"(?:\r\n|\n|\r)?"
        return re.compile(whole, re.DOTALL), re.compile(b"(?!)")
    quote = re.escape(dialect.quote).encode()
    inside = quote + b"(?:" + escaped + quote + quote + b"|[^" + quote + escape + b"])*+"
    field = b"(?:" + inside + quote + b"|(?!" + quote + b")" + plain + b")"
    # Not possessive over fields: Python 3.11.2 matches wrongly where what is repeated fails half way. As each field can
    # be read in one way only, nothing else changes.
    whole = field + b"(?:" + sign + field + b")*" + rb"(?:\r\n|\n|\r)?"
    return re.compile(whole, re.DOTALL), re.compile(b"(?:" + field + sign + b")*" + inside, re.DOTALL)
