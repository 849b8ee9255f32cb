"""The time of the ledger's server, as far as it is known here."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

_FRESH_S = 10.0  # clocks drift apart by less than a millisecond in this time, and may be set at any time


@dataclass
class ServerClock:
    """What the server's clock showed when it was last heard of. Here time is that of `time.monotonic`, in seconds."""

    _server_ms: int = 0
    _heard_at: float = -math.inf

    def heard(self, server_ms: int) -> None:
        """Note what a reply that has just come said of the server's time, in milliseconds since 1970."""
        self._server_ms, self._heard_at = server_ms, time.monotonic()

    @property
    def is_known(self) -> bool:
        """Whether it was heard of lately."""
        return time.monotonic() - self._heard_at < _FRESH_S

    def at(self, moment: float) -> int:
        """Return what the server's clock shows at `moment`, or earlier: a reply is older than its arrival."""
        return self._server_ms + int((moment - self._heard_at) * 1000)


def milliseconds(reply: tuple[int, int]) -> int:
    """Return the reply to the command TIME, seconds and microseconds, in milliseconds."""
    seconds, microseconds = reply
    return seconds * 1000 + microseconds // 1000
