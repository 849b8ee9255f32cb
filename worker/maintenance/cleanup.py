"""Remove ended jobs and orphans from the ledger, from Celery's keys, and from the store.

Whether something may go is decided by the ledger's script (`forgetting.lua`) in the step that removes
it, so a job that is accepted meanwhile keeps what it names. Everything is walked in batches.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import redis

from shared.errors import TransientFailure
from shared.jobs.maintenance import CleanupResult
from shared.ledger.ids import id_listed, time_floor
from shared.ledger.states import State
from shared.texts import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from shared.ledger.client import Ledger
    from shared.storage import ArtifactStore

logger = logging.getLogger(__name__)

_BATCH = 200
_STRAYS = {
    "events": "events",
    "result": "results",
    "chord": "chords",
    "job": "steps",
}  # kinds of keys, and how those without a job are counted
_INDEXES = ("kind", "queue", "state", "tag", "schedule")
_WHOLE_INDEXES = ("jobs", "ended", "open_steps")


@dataclass
class Cleanup:
    """One clean-up. `on_progress` takes the number of keys and folders visited."""

    ledger: Ledger
    store: ArtifactStore
    older_than_s: float
    orphans_older_than_s: float
    dry_run: bool
    on_progress: Callable[[int], None]
    _counts: Counter[str] = field(default_factory=Counter, init=False)
    _strays: dict[str, set[str]] = field(
        default_factory=dict, init=False
    )  # already counted: a scan may return a key twice
    _looked_at: int = field(default=0, init=False)

    def run(self) -> CleanupResult:
        """Clean up. Raises `TransientFailure` (``store_unavailable``)."""
        try:
            self._ended_jobs()
            self._keys()
            self._files()
        except OSError as failure:
            raise TransientFailure(
                "store_unavailable",
                f"The artifact store failed: {redact(f'{type(failure).__name__}: {failure}')[:500]}",
                remedy="Check the store and the permissions of the workers, then run the job again.",
            ) from failure
        found = {name: len(ids) for name, ids in self._strays.items()}
        return CleanupResult(
            dry_run=self.dry_run,
            job_count=self._counts["forgotten"],
            kept_job_count=self._counts["referred"],
            artifact_count=self._counts["files"],
            artifact_bytes=self._counts["bytes"],
            orphan_file_count=self._counts["orphan_files"],
            orphan_bytes=self._counts["orphan_bytes"],
            orphan_step_count=found.get("steps", 0),
            orphan_result_count=found.get("results", 0),
            orphan_events_count=found.get("events", 0),
            orphan_chord_count=found.get("chords", 0),
            index_entry_count=self._counts["entries"],
        )

    @property
    def _redis(self) -> redis.Redis:
        return self.ledger.client

    def _ended_jobs(self) -> None:
        youngest = time_floor(int((time.time() - self.older_than_s) * 1000))
        for ids in _batches(self._jobs_before(youngest)):
            replies = self._call("clean", ids=ids, older_than_ms=int(self.older_than_s * 1000))
            for what, *file_owners in replies:
                self._counts[what] += 1
                for file_owner in file_owners:
                    self._remove(file_owner, "files", "bytes")
            self._tell(len(ids))

    def _jobs_before(self, youngest: str) -> Iterator[str]:
        """Yield the ids of jobs that were accepted before `youngest`; ids sort by time."""
        after = "-"
        while members := self._listed_between(after, f"({youngest}"):
            yield from map(id_listed, members)
            after = f"({members[-1]}"

    def _listed_between(self, lower: str, upper: str) -> list[str]:
        found = self._redis.zrange(self.ledger.keys("jobs"), lower, upper, bylex=True, offset=0, num=_BATCH)
        return cast("list[str]", found)

    def _keys(self) -> None:
        """Check every key and its job, and the lists that may name deleted jobs."""
        chords: set[str] = set()
        names = self.ledger.keys
        strays = {names(name): what for name, what in _STRAYS.items()}
        indexes, whole_indexes = tuple(map(names, _INDEXES)), set(map(names, _WHOLE_INDEXES))
        for keys in _batches(self._redis.scan_iter(count=_BATCH)):
            by_prefix: dict[str, list[str]] = {}
            for key in keys:
                prefix = next((known for known in strays if key.startswith(known)), None)
                if prefix is not None:
                    by_prefix.setdefault(prefix, []).append(key.removeprefix(prefix))
                elif key.startswith(indexes) or key in whole_indexes:
                    self._index(key)
            chords.update(by_prefix.pop(names("chord"), []))
            for prefix, ids in by_prefix.items():
                self._stray(strays[prefix], ids)
            self._tell(len(keys))
        if chords:
            live = self._live_groups()
            self._stray("chords", [name for name in chords if name.partition(".")[0] not in live])

    def _stray(self, what: str, ids: list[str]) -> None:
        found = self._call("stray", what=what, ids=ids, age_ms=int(self.orphans_older_than_s * 1000))
        self._strays.setdefault(what, set()).update(found)

    def _index(self, key: str) -> None:
        for ids in _batches(name for name, _ in self._redis.zscan_iter(key, count=_BATCH)):
            self._counts["entries"] += self._call("unindex", index=key, ids=ids)
            self._tell(len(ids))

    def _live_groups(self) -> set[str]:
        """Return the ids of Celery's groups that contain steps of live jobs."""
        groups: set[str] = set()
        for state in State:
            if state.is_final:
                continue
            for job_id, _ in self._redis.zscan_iter(self.ledger.keys("state", state), count=_BATCH):
                groups.update(self._groups_of(id_listed(job_id)))
        return groups

    def _groups_of(self, job_id: str) -> Iterator[str]:
        try:
            for step in json.loads(self._redis.hget(self.ledger.keys("job", job_id), "steps") or "[]"):
                message = self._redis.hget(self.ledger.keys("job", step), "message")
                yield str(json.loads(message)["headers"].get("group")) if message else ""
        except (ValueError, LookupError, TypeError, redis.ResponseError) as damage:
            logger.warning("the record of %s is damaged: %r", job_id, damage)

    def _files(self) -> None:
        before = time.time() - self.orphans_older_than_s
        for file_owners in _batches(self.store.file_owners()):
            gone = {
                file_owner for file_owner in file_owners if file_owner in self._strays.get("steps", ())
            }  # in a dry run they are still there
            for file_owner in gone.union(self._call("stray", what="files", ids=file_owners, age_ms=0)):
                if self.store.usage(file_owner).written_at <= before:
                    self._remove(file_owner, "orphan_files", "orphan_bytes")
            self._tell(len(file_owners))

    def _remove(self, file_owner: str, files: str, size: str) -> None:
        usage = self.store.usage(file_owner)
        if not self.dry_run:
            self.store.forget(file_owner)
        self._counts[files] += usage.file_count
        self._counts[size] += usage.size_bytes

    def _call(self, transition: str, **arguments: Any) -> Any:
        return self.ledger.call(transition, {**arguments, "dry_run": self.dry_run})

    def _tell(self, count: int) -> None:
        self._looked_at += count
        self.on_progress(self._looked_at)


def _batches(items: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
