"""UUID version 7 (RFC 9562): job ids that sort by time of creation."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from uuid import UUID

_RANDOM_BITS = 74  # 12 of rand_a and 62 of rand_b
_lock = threading.Lock()
_last = (0, 0)


def uuid7() -> str:
    """Return a new id: 48 bits of milliseconds since 1970, then 74 random bits.

    Ids of one process ascend strictly, even within a millisecond: the random part is incremented
    from a random start (method 2 of RFC 9562, 6.2).
    """
    global _last  # noqa: PLW0603 - the monotonic counter of this process
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        last_ms, last_random = _last
        if now_ms > last_ms:
            random = secrets.randbits(_RANDOM_BITS - 1)  # the top bit is left for increments
        else:
            now_ms, random = last_ms, last_random + 1 + secrets.randbits(32)
        _last = (now_ms, random)
    return _uuid7(now_ms, random)


def _uuid7(at_ms: int, bits: int) -> str:
    rand_a, rand_b = bits >> 62, bits & ((1 << 62) - 1)
    return str(UUID(int=at_ms << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b))


def uuid7_of(at_ms: int, seed: str) -> str:
    """Return the id of `seed` at `at_ms` (milliseconds since 1970), the same one in every process."""
    bits = int.from_bytes(hashlib.sha256(f"{at_ms} {seed}".encode()).digest()) >> (256 - _RANDOM_BITS)
    return _uuid7(at_ms, bits)


def time_floor(at_ms: int) -> str:
    """Return the smallest id that a job created at `at_ms` (milliseconds since 1970) can have."""
    return str(UUID(int=at_ms << 80))
