"""What clients cost that wait for jobs: `python -m bench.waiting`, a minute for each way of waiting.

Many connections wait, each for a job of its own that nobody runs. Shown is the memory of the gateway before, meanwhile
and after, and its CPU time in some quiet seconds, beside that of the same seconds without any client. A request waits
for a minute at most, so on a busy machine set CLIENTS to fewer than 5,000.

Seen on a busy machine: 33 KiB for a client that waits with `wait_s`, 63 KiB for a stream of events. Of these, uvicorn
with an application that only waits takes 11 KiB, and it does not give them back to the system either.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench import servers
from bench.load import Request, answer
from bench.report import Reached

CLIENTS = int(os.environ.get("CLIENTS", "5000"))
QUIET_S = 5.0
_GIVEN_BACK_S = 12.0  # by when a gateway without waiters has returned its memory
_WAVE = 100  # connections that are made at a time
_BUSY_S = 0.1  # of CPU time in a second
_MIB = 2**20
_LEFT = "11 KiB each are uvicorn's connection, the others the request's tasks and its watch"
_MOST_BYTES = 50 * _MIB
_JOB = {"kind": "etl.extract_data", "params": {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}}
WAYS = {"wait_s": "/jobs/{id}?wait_s=60", "events": "/jobs/{id}/events"}


class Waiting(NamedTuple):
    """What was seen of the gateway."""

    clients: int
    before_bytes: int
    meanwhile_bytes: int
    after_bytes: int
    idle_cpu_s: float  # in `QUIET_S` without clients
    waiting_cpu_s: float  # in `QUIET_S` with them
    connected_s: float  # from the first connection to the last answer or silence


def _raise_limit() -> int:
    """Allow as many open files as the machine does; return for how many clients that is enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(CLIENTS, hard - 200)


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _submitted(port: int, count: int) -> list[str]:
    ids: list[str] = []
    while len(ids) < count:
        request = Request("POST", "/jobs/batch", {"jobs": [_JOB] * min(1_000, count - len(ids))})
        ids += [job["id"] for job in json.loads(answer(request, port)[0])["jobs"]]
    return ids


async def _quiet(pid: int) -> float:
    """Return the CPU seconds of the process within `QUIET_S`, after it has become quiet."""
    for _ in range(30):
        used_s = servers.cpu_s(pid)
        await asyncio.sleep(1)
        if servers.cpu_s(pid) - used_s < _BUSY_S:
            break
    used_s = servers.cpu_s(pid)
    await asyncio.sleep(QUIET_S)
    return servers.cpu_s(pid) - used_s


async def _measured(port: int, pid: int, path: str, ids: list[str]) -> Waiting:
    before, idle_s = _resident_bytes(pid), await _quiet(pid)
    began = time.monotonic()
    writers: list[asyncio.StreamWriter] = []
    for first in range(0, len(ids), _WAVE):
        opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in ids[first : first + _WAVE]))
        for (_, writer), job_id in zip(opened, ids[first : first + _WAVE], strict=True):
            writer.write(Request("GET", path.format(id=job_id)).text())
            writers.append(writer)
    waiting_s = await _quiet(pid)
    connected_s = time.monotonic() - began - QUIET_S
    meanwhile = _resident_bytes(pid)
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(_GIVEN_BACK_S)
    await _quiet(pid)
    return Waiting(len(ids), before, meanwhile, _resident_bytes(pid), idle_s, waiting_s, connected_s)


def measured() -> dict[str, Waiting]:
    """Return what was seen of each way of waiting, each with a gateway of its own."""
    count = _raise_limit()
    found: dict[str, Waiting] = {}
    with tempfile.TemporaryDirectory() as folder:
        port = servers.free_port()
        with servers.valkey(Path(folder), port):
            for way, path in WAYS.items():
                serving = servers.free_port()
                with servers.gateway(serving, f"redis://127.0.0.1:{port}/0") as pid:
                    ids = _submitted(serving, count)
                    found[way] = asyncio.run(_measured(serving, pid, path, ids))
    return found


def reached(found: Mapping[str, Waiting]) -> list[Reached]:
    """Return what was seen, beside the goal."""
    return [
        Reached(
            f"MiB more in the gateway for {seen.clients:,} clients with {way}",
            [max((seen.meanwhile_bytes - seen.before_bytes) / _MIB, 0.1)],
            most=_MOST_BYTES / _MIB,
            left=_LEFT,
        )
        for way, seen in found.items()
    ]


def lines(found: Mapping[str, Waiting]) -> Iterator[str]:
    """Yield what was seen."""
    for way, seen in found.items():
        before, more, kept = (
            size / _MIB
            for size in (
                seen.before_bytes,
                seen.meanwhile_bytes - seen.before_bytes,
                seen.after_bytes - seen.before_bytes,
            )
        )
        yield (
            f"{seen.clients:,} clients with {way}: {before:.0f} MiB before, {more:.0f} more meanwhile "
            f"({1024 * more / seen.clients:.1f} KiB each), {kept:.0f} more afterwards; CPU in {QUIET_S:.0f} s: "
            f"{seen.waiting_cpu_s:.2f} s, {seen.idle_cpu_s:.2f} s without; quiet after {seen.connected_s:.0f} s"
        )


def main() -> None:
    """Measure and print."""
    found = measured()
    print("\n".join([*(one.line() for one in reached(found)), *lines(found)]))


if __name__ == "__main__":
    main()
