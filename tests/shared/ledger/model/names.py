"""The names of Redis keys that the model looks at, in one place."""

from __future__ import annotations

from shared.ledger import keys

RESULT = keys.key("result")
CHORD_SIZE = keys.key("chord") + "{}.s"
HELD_BY_PAUSE, HELD_BY_KEY = "queue_paused", "concurrency_limited"


def key(name: str, of: str = "") -> str:
    """Return the key of what the ledger calls `name`, of a job, queue, state, concurrency key or the like."""
    return keys.key(name.replace("-", "_"), of)


def list_of(queue: str, priority: int) -> str:
    """Return the broker's list: kombu has one a priority, and on Redis 0 is the most urgent."""
    return f"{queue}\x06\x16{9 - priority}" if priority < 9 else queue
