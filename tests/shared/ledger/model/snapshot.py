"""All that is in the ledger's Redis at one moment, read in one call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import redis

from tests.shared.ledger.model.names import key

_READ_ALL = """
local read = {
  hash = function(key) return redis.call('HGETALL', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
  string = function(key) return redis.call('GET', key) end,
}
local found = {}
for i, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  found[i] = { key, kind, redis.call('PTTL', key), read[kind](key) }
end
return found
"""


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


@dataclass
class Snapshot:
    """The keys, by type."""

    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    zsets: dict[str, dict[str, float]] = field(default_factory=dict)
    sets: dict[str, set[str]] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    streams: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    strings: dict[str, str] = field(default_factory=dict)
    ttl_ms: dict[str, int] = field(default_factory=dict)  # of each key; -1 where it has none

    @property
    def records(self) -> dict[str, dict[str, str]]:
        """Return the record of every job and step by its id."""
        return self.having(self.hashes, "job")

    def having(self, of: dict[str, Any], name: str) -> dict[str, Any]:
        """Return those of the ledger's keys that are called `name`, by what they are of."""
        prefix = key(name)
        return {found.removeprefix(prefix): value for found, value in of.items() if found.startswith(prefix)}


def snapshot(client: redis.Redis) -> Snapshot:
    """Read everything."""
    found = Snapshot()
    for name, kind, ttl_ms, value in client.eval(_READ_ALL, 0):
        found.ttl_ms[name] = ttl_ms
        if kind == "hash":
            found.hashes[name] = _pairs(value)
        elif kind == "zset":
            found.zsets[name] = {member: float(score) for member, score in _pairs(value).items()}
        elif kind == "set":
            found.sets[name] = set(value)
        elif kind == "list":
            found.lists[name] = value
        elif kind == "stream":
            found.streams[name] = [_pairs(flat) for _, flat in value]
        else:
            found.strings[name] = value
    return found
