"""The estimated time of the ledger's server."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

_FRESH_S = 10.0  # in this time clocks drift apart by less than a millisecond; but they can be set at any time


@dataclass
class ServerClock:
    """The server's clock as of its last reply. Local times are those of `time.monotonic`, in seconds."""

    _server_ms: int = 0
    _heard_at: float = -math.inf

    def heard(self, server_ms: int) -> None:
        """Record the server's time in a reply that has just arrived, in milliseconds since 1970."""
        self._server_ms, self._heard_at = server_ms, time.monotonic()

    @property
    def is_known(self) -> bool:
        """Whether the last reply is recent."""
        return time.monotonic() - self._heard_at < _FRESH_S

    def at(self, moment: float) -> int:
        """Return the server's time at `moment`, or somewhat less, because a reply takes time to arrive."""
        return self._server_ms + int((moment - self._heard_at) * 1000)


def milliseconds(reply: tuple[int, int]) -> int:
    """Return the reply to the command TIME, seconds and microseconds, in milliseconds."""
    seconds, microseconds = reply
    return seconds * 1000 + microseconds // 1000
