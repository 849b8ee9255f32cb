"""A TCP proxy that cuts connections: answers get lost though the server has done what it was asked."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_CHUNK_BYTES = 65_536


class Cutter:
    """Forwards connections to its own port of 127.0.0.1 to another one there.

    Each connection takes the next of `cuts_after`: that many bytes of the answer come through, then both sides are
    closed. 0: the answer is lost, once the server has begun with it. Without one, all of it comes. Before that,
    `alters_request` and `alters` change what is asked and answered. `requests` has the parts of all that was asked.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts_after: deque[int] = deque()
        self.alters: Callable[[bytes], bytes] = bytes
        self.alters_request: Callable[[bytes], bytes] = bytes
        self.requests: list[str] = []
        self._sockets: list[socket.socket] = []

    def serve(self) -> None:
        """Take connections until `close`."""
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                left = self.cuts_after.popleft() if self.cuts_after else None
                for forward in ((self._ask, near, far), (self._answer, far, near, left)):
                    threading.Thread(target=forward[0], args=forward[1:], daemon=True).start()

    def close(self) -> None:
        """Close everything."""
        _end(self._listener, *self._sockets)

    def _ask(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            try:
                while part := near.recv(_CHUNK_BYTES):
                    self.requests.append(part.decode("utf-8", "replace"))
                    far.sendall(self.alters_request(part))
            finally:
                far.shutdown(socket.SHUT_WR)  # `_answer` ends both: a server may have answered before it has read all

    def _answer(self, far: socket.socket, near: socket.socket, left: int | None) -> None:
        with suppress(OSError):
            while part := far.recv(_CHUNK_BYTES):
                altered = self.alters(part)
                near.sendall(altered[:left])
                if left is not None and (left := left - len(altered)) <= 0:
                    break
        _end(near, far)


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextmanager
def cutter_to(port: int) -> Iterator[Cutter]:
    """Yield a proxy to a port of 127.0.0.1, closed afterwards."""
    cutter = Cutter(port)
    serving = threading.Thread(target=cutter.serve, daemon=True)
    serving.start()
    try:
        yield cutter
    finally:
        cutter.close()
        serving.join()
