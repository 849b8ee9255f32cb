"""HTTP connections to checked addresses only, with a deadline.

The name is resolved once, every address is checked, and the socket connects to a checked address: the name is not
resolved again (DNS rebinding). The Host header has the name, and TLS verifies it.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

from worker.reach.addresses import AllowedHosts, resolve

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable


class PinnedTransport(httpx.HTTPTransport):
    """An httpx transport without proxies, limited to `allowed` addresses and a deadline.

    `deadline_at` is a value of `time.monotonic`. It limits every read and write, so that a server cannot prolong the
    transfer by sending slowly.
    """

    def __init__(self, allowed: AllowedHosts, deadline_at: float) -> None:
        """Create a connection pool; verification uses ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``."""
        tls = _tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        super().__init__(verify=tls, trust_env=False)
        self._pool = httpcore.ConnectionPool(ssl_context=tls, network_backend=_PinnedBackend(allowed, deadline_at))


@cache
def _tls(_cert_file: str | None, _cert_dir: str | None) -> ssl.SSLContext:
    """Return the TLS context, cached because reading the certificates takes 30 ms or more."""
    return httpx.create_ssl_context()


class _PinnedBackend(httpcore.SyncBackend):
    def __init__(self, allowed: AllowedHosts, deadline_at: float) -> None:
        self._allowed = allowed
        self._deadline_at = deadline_at

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in resolve(host, port, self._allowed):
            left_s = _left_s(self._deadline_at, timeout)
            try:
                stream = super().connect_tcp(address, port, left_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                failure = failed
            else:
                return _DeadlineStream(stream, self._deadline_at)
        raise failure or httpcore.ConnectError(f"the host {host} has no address")

    def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.NetworkStream:
        raise NotImplementedError("jobs cannot connect to unix sockets")


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline_at: float) -> None:
        self._stream = stream
        self._deadline_at = deadline_at

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left_s(self._deadline_at, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left_s(self._deadline_at, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = _left_s(self._deadline_at, timeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._deadline_at)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left_s(deadline_at: float, timeout_s: float | None) -> float:
    left_s = deadline_at - time.monotonic()
    if left_s <= 0:
        raise httpcore.ReadTimeout("the whole transfer took too long")
    return left_s if timeout_s is None else min(left_s, timeout_s)
