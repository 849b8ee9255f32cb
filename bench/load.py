"""A small HTTP load generator: the same request over many keep-alive connections, for a limited time."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    """The responses within the time."""

    count: int
    failed: int  # of them, and of those of the warm-up, the ones with another status
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
        if head < 0:
            return
        length = _LENGTH.search(self._received, 0, head)  # an answer without a body has none
        if len(self._received) < head + 4 + (int(length[1]) if length else 0):
            return
        self._waits_s.append(time.perf_counter() - self._sent_at)
        self._statuses[self._received[9:12]] += 1
        self._received = b""
        self._send()


@dataclass(frozen=True)
class Request:
    """What is sent, and the status that has to come back."""

    method: str
    path: str
    body: Any = None  # JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 202

    def text(self) -> bytes:
        """Return it as HTTP/1.1 has it."""
        body = b"" if self.body is None else json.dumps(self.body).encode()
        own = {"Content-Type": "application/json", "Content-Length": str(len(body))} if body else {}
        headers = {"Host": "127.0.0.1", **own, **self.headers}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body


def answer(request: Request, port: int) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of the response to one request."""
    head, _, body = request.text().partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    url = f"http://127.0.0.1:{port}{request.path}"
    with urllib.request.urlopen(
        urllib.request.Request(url, data=body or None, headers=headers, method=request.method)
    ) as response:
        return response.read(), dict(response.headers)


async def load(
    ports: Sequence[int], request: Request, *, connections: int, duration_s: float, begin: Callable[[], None]
) -> Load:
    """Send `request` to these ports in turn, for `duration_s` seconds after a warm-up that ends with `begin()`.

    Raises `RuntimeError` if no response has the right status.
    """
    text = request.text()
    waits_s: list[float] = []
    statuses: Counter[bytes] = Counter()
    loop = asyncio.get_running_loop()
    clients = [
        await loop.create_connection(lambda: _Client(text, waits_s, statuses), "127.0.0.1", ports[n % len(ports)])
        for n in range(connections)
    ]
    await asyncio.sleep(duration_s / 4)  # warm: connections are made, caches filled
    waits_s.clear()
    begin()
    started = time.perf_counter()
    await asyncio.sleep(duration_s)
    while not waits_s:  # noqa: ASYNC110 - large batches on a busy machine; an event would cost each response
        await asyncio.sleep(duration_s / 4)
    elapsed_s = time.perf_counter() - started
    measured = sorted(waits_s)
    for transport, _ in clients:
        transport.abort()
    succeeded = statuses[str(request.status).encode()]
    if not succeeded:
        raise RuntimeError(f"{request.method} {request.path} answered {dict(statuses)}")
    return Load(
        count=len(measured),
        failed=statuses.total() - succeeded,
        requests_per_s=len(measured) / elapsed_s,
        p50_ms=measured[len(measured) // 2] * 1000,
        p99_ms=measured[len(measured) * 99 // 100] * 1000,
    )
