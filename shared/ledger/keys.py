"""Every Redis key of the service: its name, its type, its writers, and when it is deleted.

Python and the script of the ledger take the names from here. After each test a fixture checks that the database has no
other keys. A name that ends in a separator is a family of keys; `of` describes the part after it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.environment import read

DEFAULT_PREFIX = "celeriac:"
Type = Literal["hash", "list", "set", "stream", "string", "zset", "channel"]


class KeySettings(BaseSettings):
    """Settings of the names of Redis keys."""

    model_config = SettingsConfigDict(env_prefix="CELERIAC_", populate_by_name=True, extra="ignore")

    prefix: str = Field(
        default=DEFAULT_PREFIX,
        pattern=r"^[A-Za-z0-9_.:-]{0,63}[:_.-]$",
        description="Prefix of the Redis keys of the service, so that two services can share one database. Any other "
        "than the default also applies to Celery's keys (results, queues). Use the same for all processes.",
    )


class Key(NamedTuple):
    """One key, or one family of keys."""

    name: str  # after the prefix
    type: Type
    written_by: str
    goes: str  # when it is deleted
    of: str = ""  # of a family: regular expression of the part after the name
    lapses: bool = False  # it always has a time to live
    is_celerys: bool = False  # Celery chose its name, so it does not have our default prefix

    @property
    def is_family(self) -> bool:
        """Whether it is a family of keys."""
        return bool(self.of)


_ID = r"[0-9A-Za-z_.:-]+"
_ANY = r".+"
_NEVER = "never"
_EMPTY = "with its last member"
_WITH_ITS_JOB = "with the job: the keeper deletes it; a time to live, set at the end of the job, is the fallback"
_SCRIPT = "the ledger's script"

KEYS: dict[str, Key] = {
    # records and indexes
    "job": Key("job:", "hash", _SCRIPT, _WITH_ITS_JOB, _ANY),
    "events": Key("events:", "stream", _SCRIPT, _WITH_ITS_JOB, _ANY),
    "checkpoint": Key("checkpoint:", "string", _SCRIPT, "with the end of its job or step", _ANY),
    "children": Key("children:", "set", _SCRIPT, "with the end of its job or step", _ANY),
    "jobs": Key("jobs", "zset", _SCRIPT, _EMPTY),
    "kind": Key("kind:", "zset", _SCRIPT, _EMPTY, _ANY),
    "queue": Key("queue:", "zset", _SCRIPT, _EMPTY, _ANY),
    "state": Key("state:", "zset", _SCRIPT, _EMPTY, r"[a-z]+"),
    "tag": Key("tag:", "zset", _SCRIPT, _EMPTY, _ANY),
    "schedule": Key("schedule:", "zset", _SCRIPT, _EMPTY, _ID),
    "references": Key("references:", "set", _SCRIPT, _EMPTY, _ID),
    "file_owner": Key("file_owner:", "string", _SCRIPT, _WITH_ITS_JOB, _ID),
    "cancelled_ahead": Key(
        "cancelled_ahead:", "string", _SCRIPT, "when its message comes, or after the retention", _ANY, lapses=True
    ),
    "idempotency": Key("idempotency:", "string", _SCRIPT, "after CELERIAC_IDEMPOTENCY_S", _ANY, lapses=True),
    "unique": Key("unique:", "string", _SCRIPT, "with the end of its job", _ANY),
    "gone": Key("gone", "zset", _SCRIPT, _EMPTY),
    "uploads": Key("uploads", "zset", _SCRIPT, _EMPTY),
    # work lists
    "due": Key("due", "zset", _SCRIPT, _EMPTY),
    "expiring": Key("expiring", "zset", _SCRIPT, _EMPTY),
    "claims": Key("claims", "zset", _SCRIPT, _EMPTY),
    "open_steps": Key("open_steps", "zset", _SCRIPT, _EMPTY),
    "outbox": Key("outbox", "zset", _SCRIPT, _EMPTY),
    "callbacks": Key("callbacks", "zset", _SCRIPT, _EMPTY),
    "ended": Key("ended", "zset", _SCRIPT, _EMPTY),
    "rows": Key("rows", "zset", _SCRIPT, _EMPTY),
    "rows_deleted": Key("rows_deleted", "zset", _SCRIPT, _EMPTY),
    "rows_wanted": Key("rows_wanted", "string", _SCRIPT, "a week after the last writer of rows", lapses=True),
    "row_writer": Key("row_writer", "string", _SCRIPT, "when no worker writes rows", lapses=True),
    "set_aside": Key("set_aside", "hash", _SCRIPT, "when an operator removes it"),
    "dead_letters": Key("dead_letters", "zset", "workers", "when an operator removes it, or after the retention"),
    "dead_letter": Key("dead_letter:", "hash", "workers", "after the retention", _ID, lapses=True),
    # queues, concurrency keys and rate keys
    "lists": Key("lists", "set", _SCRIPT, _NEVER),
    "published": Key("published:", "zset", _SCRIPT, _EMPTY, _ANY),
    "backlog": Key("backlog:", "zset", _SCRIPT, _EMPTY, _ANY),
    "held": Key("held:", "zset", _SCRIPT, _EMPTY, _ANY),
    "limited": Key("limited:", "zset", _SCRIPT, _EMPTY, _ANY),
    "running": Key("running:", "zset", _SCRIPT, _EMPTY, _ANY),
    "held_queues": Key("held-queues", "set", _SCRIPT, _EMPTY),
    "limited_keys": Key("limited-keys", "set", _SCRIPT, _EMPTY),
    "limited_key": Key("limited-key:", "zset", _SCRIPT, _EMPTY, _ANY),
    "admitted_key": Key("admitted-key:", "zset", _SCRIPT, _EMPTY, _ANY),
    "running_key": Key("running-key:", "set", _SCRIPT, _EMPTY, _ANY),
    "rated": Key("rated:", "zset", _SCRIPT, _EMPTY, _ANY),
    "rated_key": Key("rated-key:", "zset", _SCRIPT, _EMPTY, _ANY),
    "offered_key": Key("offered-key:", "zset", _SCRIPT, _EMPTY, _ANY),
    "turn": Key("turn:", "string", _SCRIPT, "when it has come", _ANY, lapses=True),
    "turns": Key("turns", "zset", _SCRIPT, _EMPTY),
    "paused": Key("paused", "hash", _SCRIPT, _EMPTY),
    # workers and the keeper
    "workers": Key("workers", "zset", _SCRIPT, _EMPTY),
    "worker": Key("worker:", "hash", _SCRIPT, "an hour after its last heartbeat", _ANY, lapses=True),
    "consumers": Key("consumers:", "zset", _SCRIPT, _EMPTY, _ANY),
    "keeper": Key("keeper", "string", _SCRIPT, "when no worker is the keeper", lapses=True),
    "amnesty": Key("amnesty", "string", _SCRIPT, "after a lease", lapses=True),
    "tended_at": Key("tended_at", "string", _SCRIPT, _NEVER),
    "token": Key("token", "string", _SCRIPT, _NEVER),
    # schedules: RedBeat's names
    "redbeat_schedule": Key("redbeat::schedule", "zset", "the ledger's script, RedBeat", _EMPTY),
    "redbeat_defaults": Key("redbeat::defaults", "set", _SCRIPT, _NEVER),
    "redbeat_statics": Key("redbeat::statics", "set", "RedBeat", _NEVER),
    "redbeat_lock": Key("redbeat::lock", "string", "beat", "25 s after the last tick of its beat", lapses=True),
    "redbeat": Key("redbeat:", "hash", "the ledger's script, RedBeat", "when the schedule is deleted", _ID),
    # access
    "access_key": Key("access_key:", "hash", _SCRIPT, _NEVER, r"[0-9A-Za-z]+"),
    "access_keys": Key("access_keys", "zset", _SCRIPT, _NEVER),
    # metrics
    "counters": Key("counters", "hash", "the ledger's script, workers", _NEVER),
    "event_counters": Key("event_counters", "hash", "the elected consumer of events", _NEVER),
    "event_hosts": Key("event_hosts", "hash", "the elected consumer of events", _NEVER),
    "event_consumer": Key("event_consumer", "string", "the consumer of events", "after 10 s", lapses=True),
    # circuits
    "breaker": Key("breaker:", "string", "workers, by pybreaker", "an hour without use", _ANY, lapses=True),
    # channels
    "access": Key("access", "channel", "the ledger's script: the id of an API key that was made or changed", ""),
    "changes": Key("changes", "channel", "the ledger's script: the id of a job with a new event", ""),
    "cancels": Key("cancels", "channel", "the ledger's script: the id of a job or step that must stop", ""),
    # Celery's and kombu's, in the ledger's Redis or the broker's
    "result": Key("celery-task-meta-", "string", "the script, Celery", "after the retention", _ANY, is_celerys=True),
    "chord_results": Key("celery-taskset-meta-", "zset", "Celery", "with its chord", r".+\.j", is_celerys=True),
    "chord_members": Key("celery-taskset-meta-", "set", "Celery", "with its chord", r".+\.d", is_celerys=True),
    "chord": Key("celery-taskset-meta-", "string", "Celery", "with its end, or by clean-up", _ANY, is_celerys=True),
    "unacked": Key("unacked", "hash", "kombu", _EMPTY, is_celerys=True),
    "unacked_index": Key("unacked_index", "zset", "kombu", _EMPTY, is_celerys=True),
    "unacked_mutex": Key("unacked_mutex", "string", "kombu", "after 5 minutes", lapses=True, is_celerys=True),
    "binding_deadlines": Key("_kombu.binding_deadlines", "zset", "kombu", _EMPTY, is_celerys=True),
    "binding_permanent": Key("_kombu.binding_permanent.", "set", "kombu", _EMPTY, _ANY, is_celerys=True),
    "binding": Key("_kombu.binding.", "set", "kombu", _EMPTY, _ANY, is_celerys=True),
    "list": Key("", "list", "the ledger's script, kombu", _EMPTY, _ANY, is_celerys=True),
}  # fmt: skip


@lru_cache
def _process_prefix() -> str:
    return read(KeySettings).prefix


@dataclass(frozen=True)
class Keys:
    """The names of all keys with one prefix, by default that of the settings of this process."""

    prefix: str = field(default_factory=_process_prefix)

    def __call__(self, name: str, part: str = "") -> str:
        """Return the key of the entry `name` of `KEYS`; for a family, the key of `part`."""
        return self._start(KEYS[name]) + part

    @property
    def celery_prefix(self) -> str:
        """The prefix of the keys of Celery and kombu: empty for our default prefix."""
        return "" if self.prefix == DEFAULT_PREFIX else self.prefix

    def entries_of(self, key: str) -> list[Key]:
        """Return the entries of `KEYS` that match a key, the most specific first; none for a key of another service.

        The last entry is that of broker lists, which are named like their queues.
        """
        return [entry for entry in KEYS.values() if entry.type != "channel" and self._fits(entry, key)]

    def written_into(self, lua: str) -> str:
        """Return script text in which each `KEY.name` is replaced by the name. A table would be built at each call.

        The name of a family is the part before that of its members.
        """
        return re.sub(r"\bKEY\.(\w+)", lambda found: f"'{self(found[1])}'", lua)

    def _start(self, entry: Key) -> str:
        return (self.celery_prefix if entry.is_celerys else self.prefix) + entry.name

    def _fits(self, entry: Key, key: str) -> bool:
        return re.fullmatch(re.escape(self._start(entry)) + entry.of, key, re.DOTALL) is not None


def key(name: str, part: str = "") -> str:
    """Return a key with the prefix of the settings of this process."""
    return Keys()(name, part)
