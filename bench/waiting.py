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
from pathlib import Path
from typing import NamedTuple

from bench import servers
from bench.load import Request, answer

CLIENTS = int(os.environ.get("CLIENTS", "5000"))
QUIET_S = 10.0
_WAVE = 100  # connections that are made at a time
_BUSY_S = 0.1  # of CPU time in a second
_MIB = 2**20
_MOST_BYTES = 50 * _MIB
_JOB = {"kind": "etl.extract_data", "params": {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}}
WAYS = {"wait_s": "/jobs/{id}?wait_s=60", "events": "/jobs/{id}/events"}


class Waiting(NamedTuple):
    """What was seen of the gateway."""

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
    await _quiet(pid)
    return Waiting(before, meanwhile, _resident_bytes(pid), idle_s, waiting_s, connected_s)


def lines(way: str, count: int, seen: Waiting) -> list[str]:
    """Return what was seen, as text."""
    more = seen.meanwhile_bytes - seen.before_bytes
    kept = seen.after_bytes - seen.before_bytes
    verdict = "met" if more <= _MOST_BYTES else f"not met, by a factor of {more / _MOST_BYTES:.2f}"
    goal = f"goal at most {_MOST_BYTES / _MIB:.0f} MiB: {verdict}"
    idle = f"without clients {seen.idle_cpu_s:.2f} s"
    return [
        f"{count:,} clients with {way}: {more / _MIB:.0f} MiB more, {more / count / 1024:.1f} KiB each; {goal}",
        f"  kept afterwards: {kept / _MIB:.0f} MiB; all were quiet after {seen.connected_s:.0f} s",
        f"  CPU time in {QUIET_S:.0f} s: {seen.waiting_cpu_s:.2f} s, {idle}",
    ]


def main() -> None:
    """Measure and print."""
    count = _raise_limit()
    with tempfile.TemporaryDirectory() as folder:
        port = servers.free_port()
        with servers.valkey(Path(folder), port):
            for way, path in WAYS.items():
                serving = servers.free_port()
                with servers.gateway(serving, f"redis://127.0.0.1:{port}/0") as pid:
                    ids = _submitted(serving, count)
                    seen = asyncio.run(_measured(serving, pid, path, ids))
                print("\n".join(lines(way, count, seen)), flush=True)


if __name__ == "__main__":
    main()
