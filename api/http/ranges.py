"""Range requests: RFC 9110, section 14."""

from __future__ import annotations

import re

from api.http.problems import Problem

_ONE_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.ASCII)


def requested_range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """Return first and end (exclusive) byte of the requested part; None if the header must be ignored.

    A server may ignore unsupported ranges: other units, several ranges (which could request the same bytes many
    times), or invalid syntax. Raises `Problem` (416) for a range outside the content.
    """
    asked = _ONE_RANGE.fullmatch(header)
    if asked is None or asked.groups() == ("", ""):
        return None
    first, last = asked.groups()
    if not first:
        start, stop = max(0, size_bytes - int(last)), size_bytes
    else:
        start, stop = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise Problem(
            416,
            "range_not_satisfiable",
            f"The file has {size_bytes} bytes; request a range within them.",
            headers={"Content-Range": f"bytes */{size_bytes}", "Accept-Ranges": "bytes"},
        )
    return start, stop
