"""Sums of Celery's events, with bounded label values: known kinds and queues, and recently seen workers."""

from __future__ import annotations

import builtins
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, cast

import billiard.exceptions
import celery.exceptions
import redis

import shared.errors
from shared.contract.definition import known_queues
from shared.ledger.counters import OTHER, SEPARATOR, bucket
from shared.ledger.keys import key

OUTCOMES = ("received", "started", "succeeded", "failed", "retried", "revoked", "rejected")
MAX_HOSTS = 200  # each may add a dozen series per kind
FORGET_AFTER_S = 86_400.0  # a worker without events for this long is forgotten with its counters
_MAX_WAITING = 2_000  # events per batch
_MAX_TASKS = 20_000  # tasks whose kind and queue are cached
_FORGET_EVERY_S = 60.0
_CLASS_NAME = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*)")
_UNFIT = re.compile(r"[^\w.@:+-]")

EXCEPTIONS = frozenset(
    name
    for module in (builtins, shared.errors, celery.exceptions, billiard.exceptions)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, BaseException)
)


class Batch(NamedTuple):
    """A batch to write: additions by field, times at which hosts were seen, hosts and fields to forget."""

    additions: Mapping[str, int]
    seen_ms: Mapping[str, int]
    gone_hosts: list[str]
    gone_fields: list[str]


class _TaskEvent(NamedTuple):
    what: str
    task_id: str
    host: str
    extra: str | float | None  # the exception of a failure, the seconds of a success


class EventTally:
    """Collects events and returns them in batches."""

    def __init__(self, client: redis.Redis, *, kinds: Collection[str]) -> None:
        """Take the ledger's Redis, which knows a task's kind and queue; most events lack them.

        Tasks of none of the `kinds` are counted together.
        """
        self._client = client
        self._kinds = frozenset(kinds)
        self._events: list[_TaskEvent] = []
        self._tasks: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._names: dict[str, str] = {}  # of tasks that were received since the last batch
        self._seen_ms: dict[str, int] = {}  # time of each host's last event
        self._seen_now: set[str] = set()  # since the last batch
        self._forgot_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether the waiting events fill a batch."""
        return len(self._events) >= _MAX_WAITING

    def restart(self) -> None:
        """Drop unwritten events, and read the known hosts again, because another consumer may have written."""
        self._events.clear()
        self._names.clear()
        self._seen_now.clear()
        stored = cast("dict[str, str]", self._client.hgetall(key("event_hosts")))
        self._seen_ms = {host: int(seen_ms) for host, seen_ms in stored.items()}

    def take(self, event: Mapping[str, Any]) -> None:
        """Add an event; irrelevant ones are ignored."""
        source, _, what = str(event.get("type", "")).partition("-")
        host = _UNFIT.sub("_", str(event.get("hostname", "")))[:100]
        if source not in {"worker", "task"} or not host:
            return
        self._saw(host)
        if source == "task" and what in OUTCOMES:
            task_id = str(event.get("uuid", ""))
            if what == "received":
                self._names[task_id] = str(event.get("name", ""))
            self._events.append(_TaskEvent(what, task_id, host, event.get("exception") or event.get("runtime")))

    def batch(self) -> Batch:
        """Return the batch and start a new one. Reads new tasks from Redis in one call. Raises `RedisError`."""
        events, self._events = self._events, []
        self._look_up(dict.fromkeys(event.task_id for event in events))
        additions: Counter[str] = Counter()
        for event in events:
            additions.update(self._additions(event))
        seen_now, self._seen_now = self._seen_now, set()
        gone_hosts, gone_fields = self._forget()
        return Batch(additions, {host: self._seen_ms[host] for host in seen_now}, gone_hosts, gone_fields)

    def _saw(self, host: str) -> None:
        if host in self._seen_ms or len(self._seen_ms) < MAX_HOSTS:
            self._seen_ms[host] = time.time_ns() // 1_000_000
            self._seen_now.add(host)

    def _look_up(self, task_ids: Iterable[str]) -> None:
        unknown = [task_id for task_id in task_ids if task_id not in self._tasks]
        names, self._names = self._names, {}
        if not unknown:
            return
        pipeline = self._client.pipeline(transaction=False)
        for task_id in unknown:
            pipeline.hmget(key("job", task_id), ["kind", "queue"])
        queues = known_queues()
        for task_id, (kind, queue) in zip(unknown, pipeline.execute(), strict=True):
            name = kind or names.get(task_id, "")
            self._tasks[task_id] = (name if name in self._kinds else OTHER, queue if queue in queues else OTHER)
        while len(self._tasks) > _MAX_TASKS:
            self._tasks.popitem(last=False)

    def _additions(self, event: _TaskEvent) -> dict[str, int]:
        host = event.host if event.host in self._seen_ms else OTHER
        labels = SEPARATOR.join((host, *self._tasks.get(event.task_id, (OTHER, OTHER))))
        if event.what == "failed":
            return {SEPARATOR.join(("failed", exception_class(str(event.extra)), labels)): 1}
        additions = {SEPARATOR.join((event.what, labels)): 1}
        if event.what == "succeeded" and isinstance(event.extra, (int, float)):
            additions[SEPARATOR.join(("ran", bucket(event.extra), labels))] = 1
            additions[SEPARATOR.join(("ran_us", labels))] = round(event.extra * 1_000_000)
        return additions

    def _forget(self) -> tuple[list[str], list[str]]:
        """Return hosts without recent events, and their counters; else each new container would add more forever."""
        if time.monotonic() - self._forgot_at < _FORGET_EVERY_S:
            return [], []
        self._forgot_at = time.monotonic()
        bound_ms = (time.time() - FORGET_AFTER_S) * 1000
        gone = [host for host, seen_ms in self._seen_ms.items() if seen_ms < bound_ms]
        for host in gone:
            del self._seen_ms[host]
        marks = {f"{SEPARATOR}{host}{SEPARATOR}" for host in gone}
        fields = cast("list[str]", self._client.hkeys(key("event_counters"))) if gone else []
        return gone, [field for field in fields if any(mark in field for mark in marks)]


def exception_class(representation: str) -> str:
    """Return the class in an exception's `repr`, or `other` for an unknown one."""
    found = _CLASS_NAME.match(representation)
    name = found[1] if found else OTHER
    return name if name in EXCEPTIONS else OTHER
