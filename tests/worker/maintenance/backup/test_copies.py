"""Dated copies of a backup: which are kept, which are removed, and how one is found again."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from shared.errors import TaskFailure
from shared.jobs.maintenance import BackupData, KeptCopies, RestoreData
from shared.ledger.records import Submission
from tests.support.ledgers import entry
from tests.worker.maintenance.backup.test_backup import contents, store_in
from worker.maintenance.backup import copies
from worker.maintenance.backup.copies import copies_of, dated, fetched, keep, prune
from worker.maintenance.backup.files import write_file
from worker.maintenance.backup.uses import named_by_live_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from shared.ledger.client import Ledger
    from worker.reach.connections import StoreConnection

PATH = "day/orders.zip"
NOW = datetime(2026, 11, 27, 8, 30, tzinfo=UTC)
DAYS = [NOW - timedelta(days=age) for age in range(5)]
URI = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/backup.zip"


def store_with_copies(folder: Path) -> tuple[StoreConnection, list[str]]:
    """Return a store with a copy of each day, the newest first, and files that are none."""
    store = store_in(folder / "lake", **{"notes.txt": "x", "orders.zip": "x", "orders.2026.zip": "x"})
    paths = [dated(PATH, day, "0123456789abcdef") for day in DAYS]
    for path in paths:
        (folder / "lake" / path).write_text(path)
    return store, paths


def kept(**what: Any) -> KeptCopies:
    """Return what is kept."""
    return KeptCopies.model_validate(what)


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        ({"count": 2}, [2, 3, 4]),
        ({"count": 1}, [1, 2, 3, 4]),
        ({"count": 9}, []),
        ({"max_age_s": 2.5 * 86_400}, [3, 4]),
        ({"max_age_s": 60}, [1, 2, 3, 4]),
        ({"count": 3, "max_age_s": 1.5 * 86_400}, [2, 3, 4]),
    ],
)
def test_copies_beyond_the_number_or_the_age_are_removed(what: dict[str, Any], gone: list[int], tmp_path: Path) -> None:
    """Those and no other file: never the newest, whatever its age, nor one that a job restores."""
    store, paths = store_with_copies(tmp_path)
    spared = {paths[4]}
    pruned = prune(store, PATH, kept(**what), newest=paths[0], now=NOW, restored=lambda found: spared & set(found))
    expected = [paths[at] for at in gone if paths[at] not in spared]
    assert (pruned.removed, pruned.spared) == (expected, [paths[4]] if 4 in gone else [])
    assert list(copies_of(store, PATH)) == [path for path in paths if path not in expected]
    assert {"notes.txt", "orders.zip", "orders.2026.zip"} <= contents(tmp_path / "lake" / "day").keys()


def test_a_copy_is_read_back_before_another_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has other bytes fails the job, which is tried again."""
    store, _ = store_with_copies(tmp_path)
    (file := tmp_path / "backup.zip").write_bytes(b"content")
    keep(store, "day/new.zip", file, hashlib.sha256(b"content").hexdigest(), lambda _: None)
    assert (tmp_path / "lake" / "day" / "new.zip").read_bytes() == b"content"

    def cut(store: StoreConnection, path: str, *rest: Any) -> None:
        write_file(store, path, *rest)
        (tmp_path / "lake" / path).write_bytes(b"con")

    monkeypatch.setattr(copies, "write_file", cut)
    with pytest.raises(TaskFailure) as failure:
        keep(store, "day/new.zip", file, hashlib.sha256(b"content").hexdigest(), lambda _: None)
    assert (failure.value.code, failure.value.retryable) == ("copy_not_exact", True)


def test_a_copy_is_fetched_from_its_store(tmp_path: Path) -> None:
    """A path without a file is refused with the newest copy beside it."""
    store, paths = store_with_copies(tmp_path)
    assert fetched(store, paths[1], tmp_path).read_text() == paths[1]
    (tmp_path / "lake" / PATH).unlink()
    with pytest.raises(TaskFailure) as failure:
        fetched(store, PATH, tmp_path)
    assert (failure.value.code, paths[0] in failure.value.remedy) == ("backup_missing", True)
    with pytest.raises(TaskFailure, match="leaves the store"):
        fetched(store, "../secret", tmp_path)


def test_a_job_that_waits_to_restore_a_copy_is_found(ledger: Ledger) -> None:
    """Also one with the restoration as a step; one that has ended is not."""
    backup = {"connection": "lake", "path": "a.zip"}
    restore = {"backup": backup, "destination": {"kind": "tables", "connection": "warehouse"}}
    jobs = [entry(params=json.dumps(params)) for params in (restore, {"steps": [{"params": restore}]})]
    assert named_by_live_jobs(ledger, "lake", ["a.zip", "b.zip"]) == set()
    for job in jobs:
        ledger.accept(Submission([job]))
        assert named_by_live_jobs(ledger, "lake", ["a.zip", "b.zip"]) == {"a.zip"}
        assert named_by_live_jobs(ledger, "other", ["a.zip"]) == set()
        ledger.cancel(job.id, reason="by hand")
        assert named_by_live_jobs(ledger, "lake", ["a.zip"]) == set()


@pytest.mark.parametrize(
    ("contract", "params", "said"),
    [
        (BackupData, {"keep_at": {"connection": "lake", "path": "a.zip", "copies": {}}}, "'count'"),
        (BackupData, {"keep_at": {"connection": "lake", "path": "a.zip", "copies": {"count": 0}}}, "count"),
        (BackupData, {"keep_at": {"connection": "lake", "path": "a" * 500, "copies": {"count": 1}}}, "480"),
        (BackupData, {"source": {"kind": "tables", "connection": "w", "tables": ["a", "A"]}}, "named only once"),
        (RestoreData, {"backup": {"connection": "lake", "path": "../a.zip"}}, "path"),
        (RestoreData, {"destination": {"kind": "tables", "connection": "w", "tables": {"a": "x", "b": "x"}}}, "once"),
    ],
)
def test_what_makes_no_sense_is_refused(contract: Any, params: dict[str, Any], said: str) -> None:
    """At submission, with the field."""
    source = {"kind": "table", "connection": "w", "table": "a"}
    whole = {"source": source} if contract is BackupData else {"backup": URI, "destination": source}
    with pytest.raises(ValidationError, match=said):
        contract.model_validate({**whole, **params})
