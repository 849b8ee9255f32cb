"""Ids of jobs, which are UUID version 7 (RFC 9562) and sort by time of creation, and names of processes."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import threading
import time
from uuid import UUID

_LENGTH = 36  # of a UUID as text
_RANDOM_BITS = 74  # 12 of rand_a and 62 of rand_b
_DRAWN = 4_096  # bytes read from the system at once, because a call per id took most of the time


class _Random:
    """Random bytes of the system, each used once; a forked child reads new ones."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._bytes, self._at = b"", 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._bytes):
            self._bytes, self._at = secrets.token_bytes(_DRAWN), 0
        self._at += count
        return self._bytes[self._at - count : self._at]


_lock = threading.Lock()
_random = _Random()
_last = (0, 0)


def new_owner() -> str:
    """Return a name for this process as the owner of claims or of a lock, which no other process has."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


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
            random = int.from_bytes(_random.take(10)) >> (80 - _RANDOM_BITS + 1)  # the top bit is left for increments
        else:
            now_ms, random = last_ms, last_random + 1 + int.from_bytes(_random.take(4))
        _last = (now_ms, random)
    return _uuid7(now_ms, random)


def random_hex() -> str:
    """Return 32 random hexadecimal digits."""
    with _lock:
        return _random.take(16).hex()


def _uuid7(at_ms: int, bits: int) -> str:
    rand_a, rand_b = bits >> 62, bits & ((1 << 62) - 1)
    digits = f"{at_ms << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def uuid7_of(at_ms: int, seed: str) -> str:
    """Return the id of `seed` at `at_ms` (milliseconds since 1970), the same one in every process."""
    bits = int.from_bytes(hashlib.sha256(f"{at_ms} {seed}".encode()).digest()) >> (256 - _RANDOM_BITS)
    return _uuid7(at_ms, bits)


def id_listed(member: str) -> str:
    """Return the id of a job from its entry in a list.

    Before an id that another Celery client chose, the entry has a UUID of the time of adoption, so that lists are in
    the order of time.
    """
    return member[_LENGTH + 1 :] if member[_LENGTH : _LENGTH + 1] == "/" else member


def time_floor(at_ms: int) -> str:
    """Return the smallest id that a job created at `at_ms` (milliseconds since 1970) can have."""
    return str(UUID(int=at_ms << 80))
