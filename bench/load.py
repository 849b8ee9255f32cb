"""A small HTTP load generator: the same request over many keep-alive connections, for a limited time."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    """The responses within the time."""

    count: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


class _Client(asyncio.Protocol):
    """One connection: the next request is sent after the previous response is complete."""

    def __init__(self, request: bytes, waits_s: list[float], statuses: Counter[bytes]) -> None:
        self._request = request
        self._waits_s = waits_s
        self._statuses = statuses
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        length = _LENGTH.search(self._received, 0, head) if head >= 0 else None
        if length is None or len(self._received) < head + 4 + int(length[1]):
            return
        self._waits_s.append(time.perf_counter() - self._sent_at)
        self._statuses[self._received[9:12]] += 1
        self._received = b""
        self._send()


async def load(
    port: int, path: str, body: bytes, *, connections: int, duration_s: float, begin: Callable[[], None]
) -> Load:
    """Send `body` to `path` for `duration_s` seconds after a warm-up that ends with `begin()`.

    Raises `RuntimeError` if a response is not 202.
    """
    request = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    waits_s: list[float] = []
    statuses: Counter[bytes] = Counter()
    loop = asyncio.get_running_loop()
    clients = [
        await loop.create_connection(lambda: _Client(request, waits_s, statuses), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.sleep(duration_s / 4)  # warm: connections are made, caches filled
    waits_s.clear()
    begin()
    started = time.perf_counter()
    await asyncio.sleep(duration_s)
    elapsed_s = time.perf_counter() - started
    measured = sorted(waits_s)
    for transport, _ in clients:
        transport.abort()
    if set(statuses) != {b"202"}:
        raise RuntimeError(f"{path} answered {dict(statuses)}")
    return Load(
        count=len(measured),
        requests_per_s=len(measured) / elapsed_s,
        p50_ms=measured[len(measured) // 2] * 1000,
        p99_ms=measured[len(measured) * 99 // 100] * 1000,
    )
