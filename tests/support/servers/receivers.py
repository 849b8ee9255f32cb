"""An HTTP server on 127.0.0.1 that takes callbacks."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Receiver:
    """Answers what it is told to, in turn, then 204; keeps headers (names in lower case) and bodies that it got."""

    port: int
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    got: list[tuple[dict[str, str], str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens, with a secret in path and query."""
        return f"http://127.0.0.1:{self.port}/hooks/hunter2?key=hunter2"


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Yield a receiver that listens as long as the block lasts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            status, headers = made.answers.pop(0) if made.answers else (204, {})
            made.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Receiver(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()
