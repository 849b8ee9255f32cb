"""What is past its time goes, what nobody owns goes, and nothing goes that a live job refers to."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from shared.ledger.ids import uuid7, uuid7_of
from shared.ledger.keys import key
from shared.storage import ArtifactStore
from tests.support.ledgers import RESULT, claimed, entry, tended, with_async, workflow
from worker.maintenance.cleanup import Cleanup

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.jobs.maintenance import CleanupResult
    from shared.ledger.client import Ledger
    from shared.ledger.records import Entry
    from tests.support.servers.services import Server

DAY_S = 86_400
DAY_MS = DAY_S * 1_000


@pytest.fixture(scope="module")
def valkey(own_valkey: Server) -> Server:
    """Return a database into which nothing else writes: these tests compare it as a whole."""
    return own_valkey


@dataclass(frozen=True)
class House:
    """A ledger and a store, and how things in them come to be and grow old."""

    ledger: Ledger
    store: ArtifactStore
    accept: Callable[..., Any]
    folder: Path

    @property
    def client(self) -> redis.Redis:
        """The ledger's Redis."""
        return self.ledger.client

    def clean(self) -> CleanupResult:
        """Clean up what is older than a day, first without doing it: the counts must be the same."""
        before = sorted(self.client.scan_iter()), sorted(self.store.file_owners())
        would = self._clean(dry_run=True)
        assert (sorted(self.client.scan_iter()), sorted(self.store.file_owners())) == before
        did = self._clean(dry_run=False)
        assert did == would.model_copy(update={"dry_run": False})
        again = self._clean(dry_run=True)
        assert (again.job_count, again.orphan_file_count, again.index_entry_count) == (0, 0, 0)
        return did

    def _clean(self, *, dry_run: bool) -> CleanupResult:
        return Cleanup(
            self.ledger,
            self.store,
            older_than_s=DAY_S,
            orphans_older_than_s=DAY_S,
            dry_run=dry_run,
            on_progress=lambda _: None,
        ).run()

    def put(self, owner: str, *, days: float = 0) -> str:
        """Store a file of five bytes, written so long ago, and return its uri."""
        local = self.folder / uuid7()
        local.write_bytes(b"12345")
        uri = self.store.put(local, file_owner=owner, attempt=1, name="a.bin", role="file", media_type="x/y").uri
        path, written = Path(self.store.path(uri)), time.time() - days * DAY_S
        for touched in (path, path.parent, path.parent.parent):
            os.utime(touched, (written, written))
        return uri

    def end(self, job_id: str, *, days: float = 0) -> None:
        """Let the job succeed, as if it had been so long ago."""
        self.ledger.succeed(job_id, token=claimed(self.ledger, job_id).token, result=RESULT)
        self.client.zincrby(key("ended"), -days * DAY_S * 1000, job_id)


@pytest.fixture
def house(ledger: Ledger, accept: Callable[..., Any], tmp_path: Path) -> House:
    """Return an empty ledger and an empty store."""
    return House(ledger, ArtifactStore(str(tmp_path / "store")), accept, tmp_path)


def old_id(days: float) -> str:
    """Return the id of a job that was submitted so long ago."""
    return uuid7_of(int((time.time() - days * DAY_S) * 1000), uuid7())


def job(days: float = 0, **changes: Any) -> Entry:
    """Return a job that was submitted so long ago, with a retention of 30 days."""
    return replace(entry(id=old_id(days)), retention_ms=30 * DAY_MS, **changes)


def test_jobs_that_ended_long_ago_go_with_all_that_is_theirs(house: House) -> None:
    """Record, events, result, lists and files; younger ones and live ones stay as they are."""
    old, young, live = job(5, tags=("a",)), job(5), job(5)
    house.accept(old, young, live)
    house.end(old.id, days=2)
    house.end(young.id, days=0.5)
    for one in (old, young, live):
        house.put(one.id, days=9)
    result = house.clean()
    assert (result.job_count, result.artifact_count, result.artifact_bytes) == (1, 1, 5)
    assert (result.orphan_file_count, result.orphan_events_count, result.kept_job_count) == (0, 0, 0)
    assert list(house.client.scan_iter(f"*{old.id}*")) == []
    assert house.client.exists(key("tag", "a")) == 0
    assert type(house.ledger.read(old.id)).__name__ == "Gone"
    assert sorted(house.store.file_owners()) == sorted([young.id, live.id])


def test_a_file_that_a_live_job_names_stays(house: House) -> None:
    """The job that made it stays too, until the one that names it has ended; also files that the ledger forgot."""
    made, lost = job(5), uuid7()
    house.accept(made)
    house.end(made.id, days=3)
    uris = [house.put(owner, days=9) for owner in (made.id, lost)]
    naming = job(1, params=json.dumps({"datasets": uris}))
    house.accept(naming)
    result = house.clean()
    assert (result.job_count, result.kept_job_count, result.orphan_file_count) == (0, 1, 0)
    assert sorted(house.store.file_owners()) == sorted([made.id, lost])
    house.end(naming.id)
    result = house.clean()
    assert (result.job_count, result.kept_job_count, result.orphan_file_count, result.orphan_bytes) == (1, 0, 1, 5)
    assert list(house.store.file_owners()) == []


def test_the_keeper_spares_what_a_live_job_names(house: House, empty_valkey: Server) -> None:
    """A job or upload past its retention is forgotten only when no live job names its files."""
    made, upload = job(40), uuid7()
    house.accept(made)
    with_async(empty_valkey.redis_url, lambda gateway: gateway.upload(upload, retention_s=0))
    naming = job(params=json.dumps({"a": f"artifact://{made.id}/1/a.bin", "b": f"artifact://{upload}/0/b.bin"}))
    house.accept(naming)
    house.end(made.id, days=31)
    assert tended(house.ledger) == []
    assert (house.client.zscore(key("ended"), made.id) or 0) > time.time() * 1000
    house.end(naming.id)
    for index in ("ended", "uploads"):
        house.client.zincrby(f"celeriac:{index}", -2 * 3_600_000, made.id if index == "ended" else upload)
    assert tended(house.ledger) == [("forgotten", made.id), ("forgotten", upload)]


def test_a_file_that_a_schedule_names_stays(house: House) -> None:
    """Until the schedule names another one, or is deleted."""
    made, other = job(5), job(5)
    house.accept(made, other)
    for one in (made, other):
        house.end(one.id, days=3)

    def put(*uris: str) -> None:
        schedule = {"id": "weekly", "document": json.dumps({"params": uris}), "definition": "{}", "most": 9}
        revision = house.client.hget(key("redbeat", "weekly"), "revision")
        house.ledger.call("schedule_put", schedule | ({"revision": revision} if revision else {}))

    first, second = (house.put(one.id) for one in (made, other))
    put(first, second)
    assert (house.clean().job_count, sorted(house.store.file_owners())) == (0, sorted([made.id, other.id]))
    put(second)
    assert (house.clean().job_count, list(house.store.file_owners())) == (1, [other.id])
    house.ledger.call("schedule_delete", {"id": "weekly"})
    assert (house.clean().job_count, list(house.store.file_owners())) == (1, [])


def test_steps_of_a_workflow_go_with_it_and_are_named_like_jobs(house: House) -> None:
    """A step's file keeps the whole job while a live job names it."""
    made = workflow(["one", "two"], {"two": ["one"]})
    made = replace(made, retention_ms=30 * DAY_MS, id=old_id(5))
    made = replace(made, steps=tuple(replace(step, job_id=made.id, retention_ms=30 * DAY_MS) for step in made.steps))
    house.accept(made)
    for step in made.steps:
        house.ledger.succeed(step.id, token=claimed(house.ledger, step.id).token, result=RESULT)
    house.client.zincrby(key("ended"), -3 * DAY_S * 1000, made.id)
    uris = [house.put(step.id) for step in made.steps]
    naming = job(params=json.dumps({"dataset": uris[0]}))
    house.accept(naming)
    assert house.clean().kept_job_count == 1
    house.end(naming.id)
    result = house.clean()
    assert (result.job_count, result.artifact_count) == (1, 2)
    assert house.client.exists(*(key("job", step.id) for step in made.steps)) == 0


def test_files_that_nobody_knows_go_when_they_are_old(house: House, empty_valkey: Server) -> None:
    """Not those written lately, not those of an upload under way, and nothing that is not an artifact."""
    old, young, upload = uuid7(), uuid7(), uuid7()
    for owner, days in ((old, 2), (young, 0), (upload, 2)):
        house.put(owner, days=days)
    with_async(empty_valkey.redis_url, lambda gateway: gateway.upload(upload, retention_s=60))
    (house.folder / "store" / "readme").write_text("no artifact")
    result = house.clean()
    assert (result.orphan_file_count, result.orphan_bytes) == (1, 5)
    assert sorted(path.name for path in (house.folder / "store").iterdir()) == sorted([young, upload, "readme"])


def idle(client: redis.Redis, key: str, value: str, days: float) -> None:
    """Write a key that nobody has touched for so long."""
    client.set(key, value)
    with redis.Redis(port=client.connection_pool.connection_kwargs["port"]) as raw:  # what is dumped is not text
        raw.restore(key, 0, raw.dump(key), replace=True, idletime=int(days * DAY_S))


def test_stray_keys_go(house: House) -> None:
    """Events, results, chords, steps and entries of lists whose job is gone; not those of live or foreign tasks."""
    group, foreign = uuid7(), "celery-task-meta-foreign"
    step_message = json.dumps({"headers": {"id": "x", "group": group}})
    live = workflow(["one", "two"], {"two": ["one"]})
    live = replace(live, steps=tuple(replace(step, message=step_message) for step in live.steps))
    gone = workflow(["one"], {})
    house.accept(live, gone, job())
    house.client.delete(key("job", gone.id))
    step = gone.steps[0]
    house.client.hset(key("job", step.id), "created_at", "1000")
    house.put(step.id, days=2)
    house.client.xadd(key("events", "lost"), {"event": "log"}, id="1000-0")
    house.client.xadd(key("events", "late"), {"event": "log"})
    house.client.delete(key("events", gone.id))
    idle(house.client, "celery-task-meta-lost", "{}", 2)
    idle(house.client, f"celery-taskset-meta-{group}.s", "2", 2)
    idle(house.client, "celery-taskset-meta-lost.s", "2", 2)
    house.client.set("celery-taskset-meta-recent.s", "2")
    house.client.set(foreign, "{}", ex=60)
    result = house.clean()
    assert (result.orphan_step_count, result.orphan_events_count, result.orphan_result_count) == (1, 1, 1)
    assert (result.orphan_chord_count, result.orphan_file_count, result.job_count) == (1, 1, 0)
    assert result.index_entry_count == 4  # jobs, and its kind's, its queue's and its state's
    assert house.client.exists(foreign, f"celery-taskset-meta-{group}.s", "celery-taskset-meta-recent.s") == 3
    assert house.client.exists(key("events", "late"), key("job", live.steps[1].id)) == 2
