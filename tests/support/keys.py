"""What a test leaves in Redis is what `shared.ledger.keys` lists: no name, type or lifetime of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from shared.ledger.keys import Keys


def stray_keys(client: redis.Redis, *, keys: Sequence[Keys] = ()) -> list[str]:
    """Return what is wrong with the keys of a database, a line each: of no service, of another type, kept for ever."""
    names = sorted(name.decode() if isinstance(name, bytes) else name for name in client.scan_iter(count=1_000))
    pipeline: Any = client.pipeline(transaction=False)
    for name in names:
        pipeline.type(name).pttl(name)
    answers = iter(pipeline.execute())
    wrong = []
    for name, found, lives_ms in zip(names, answers, answers, strict=True):
        kind = found.decode() if isinstance(found, bytes) else found
        entries = [entry for each in keys or [Keys()] for entry in each.entries_of(name)]
        if not entries:
            wrong.append(f"{name!r} is in no entry of shared.ledger.keys")
        elif kind not in {"none", *(entry.type for entry in entries)}:
            wrong.append(f"{name!r} is a {kind}, and not a {entries[0].type}")
        elif lives_ms == -1 and entries[0].lapses:
            wrong.append(f"{name!r} has no time to live")
    return wrong
