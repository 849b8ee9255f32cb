"""The TCP connections of a process on this machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_ESTABLISHED = "01"


def connections(pid: int) -> list[tuple[int, int]]:
    """Return its own and the other port of each connection that a process has open over IPv4."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        (int(row[1].rpartition(":")[2], 16), int(row[2].rpartition(":")[2], 16))
        for row in rows
        if row[3] == _ESTABLISHED and row[9] in inodes
    ]
