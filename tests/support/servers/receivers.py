"""An HTTP server on 127.0.0.1 that takes callbacks."""

from __future__ import annotations

import http.server
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Receiver:
    """Answers what it is told to, in turn, then 204; keeps headers (names in lower case) and bodies that it got.

    It answers nobody while `may_answer` is not set, and counts how many waited for it at most.
    """

    port: int
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    got: list[tuple[dict[str, str], str]] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)
    most_waiting: int = 0
    _asking: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens, with a secret in path and query."""
        return f"http://127.0.0.1:{self.port}/hooks/hunter2?key=hunter2"

    @property
    def waiting(self) -> int:
        """How many wait for an answer now: none of them sends more, so where there is more to read it has gone."""
        gone, _, _ = select.select(self._asking, [], [], 0)
        return len(self._asking) - len(gone)

    def hold(self, client: socket.socket) -> bool:
        """Wait until this client may be answered; return whether it is still there."""
        self._asking.append(client)
        self.most_waiting = max(self.most_waiting, self.waiting)
        gone: list[socket.socket] = []
        while not gone and not self.may_answer.is_set():
            gone, _, _ = select.select([client], [], [], 0.05)
        self._asking.remove(client)
        return not gone


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Yield a receiver that listens as long as the block lasts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            status, headers = made.answers.pop(0) if made.answers else (204, {})
            made.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            if not made.hold(self.connection):
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Receiver(server.server_port)
        made.may_answer.set()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()
