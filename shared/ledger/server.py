"""Connection to the Redis of the ledger: the same timeouts for every socket."""

from __future__ import annotations

from typing import Any

from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

SOCKET_TIMEOUT_S = 5.0
_HEALTH_CHECK_EVERY_S = 10


def bounded(timeout_s: float = SOCKET_TIMEOUT_S) -> dict[str, Any]:
    """Return the arguments of a redis-py client whose calls end within `timeout_s`; replies are text.

    Without timeouts, a half-open connection would hang a process for minutes. After a failover, a connection may lead
    to what is a replica now: it is closed at the first write that is refused, and the call is repeated on another one.
    """
    return {
        "decode_responses": True,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": _HEALTH_CHECK_EVERY_S,
        "retry_on_error": [ReadOnlyError],
    }


def is_full(reply: ResponseError) -> bool:
    """Return whether an error reply says that the server refuses all writes because its memory or disk is full."""
    return isinstance(reply, OutOfMemoryError) or any(code in str(reply) for code in ("OOM ", "MISCONF "))
