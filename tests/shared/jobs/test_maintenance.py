"""The contracts of the family: what a schedule may leave out, and what is refused at submission."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.connections.settings import check_connections
from shared.contract.definition import Contract
from shared.contract.keys import counts_under
from shared.jobs.maintenance import BackupData, CleanupOldData, RestoreData
from shared.jobs.syncs import SyncData
from worker.maintenance.tasks import backup_data, cleanup_old_data, restore_data, sync_data
from worker.runtime.task import definitions

URI = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/backup.zip"
SHOP = {"connection": "shop", "table": "orders"}
HERE = {"connection": "warehouse", "table": "orders"}
PAIR = {"source": SHOP, "destination": HERE, "key": ["id"]}
FULL: dict[str, Any] = {**PAIR, "mode": {"kind": "full"}}
FOLDER = {"kind": "store", "connection": "lake", "prefix": "exports"}


def test_every_kind_has_a_task() -> None:
    """Each is bound to its contract, and named like it."""
    bound: dict[Any, type[Contract[Any]]] = {
        sync_data: SyncData,
        backup_data: BackupData,
        restore_data: RestoreData,
        cleanup_old_data: CleanupOldData,
    }
    assert [f"maintenance.{task.__name__}" for task in bound] == [contract.spec.kind for contract in bound.values()]
    contracts = {definitions()[kind].contract for kind in definitions() if kind.startswith("maintenance.")}
    assert set(bound.values()) <= contracts


def test_the_weekly_clean_up_needs_no_parameters() -> None:
    """Its bounds are the service's retention then."""
    job = CleanupOldData()
    assert (job.dry_run, job.older_than_s, job.orphans_older_than_s) == (False, None, None)


@pytest.mark.parametrize(
    ("contract", "params", "named"),
    [
        (
            SyncData,
            {"source": SHOP, "destination": HERE, "key": ["id"], "mode": {"kind": "full"}},
            ["shop", "warehouse"],
        ),
        (BackupData, {"source": FOLDER, "keep_at": {"connection": "archive", "path": "a.zip"}}, ["lake", "archive"]),
        (RestoreData, {"backup": URI, "destination": {"kind": "table", **HERE}}, ["warehouse"]),
    ],
)
def test_unknown_connections_are_found_at_submission(
    contract: type[Contract[Any]], params: dict[str, Any], named: list[str]
) -> None:
    """Each field that names one says so."""
    problems = check_connections(contract.model_validate(params), {})
    assert len(problems) == len(named)
    for name, problem in zip(named, problems, strict=True):
        assert name in str(problem)


def test_synchronisations_of_one_pair_count_together() -> None:
    """One runs and the others wait, whatever else they say; another pair, or another query, is apart."""
    key = counts_under(SyncData, FULL)["concurrency_key"]
    by_time = {**PAIR, "key": ["other"], "mode": {"kind": "watermark", "column": "at"}}
    assert counts_under(SyncData, by_time) == {"concurrency_key": key, "concurrency_limit": 1}
    others = [{**FULL, "destination": {**HERE, "table": "copies"}}]
    others += [{**FULL, "source": {"connection": "shop", "query": query}} for query in ("SELECT 1", "SELECT 2")]
    assert len({key, *(counts_under(SyncData, other)["concurrency_key"] for other in others)}) == 4


@pytest.mark.parametrize(
    ("contract", "params", "said"),
    [
        (SyncData, {**PAIR, "destination": SHOP, "mode": {"kind": "full"}}, "same table"),
        (SyncData, {**PAIR, "key": [], "mode": {"kind": "full"}}, "key"),
        (SyncData, {**PAIR, "mode": {"kind": "watermark"}}, "column"),
        (SyncData, {**PAIR, "source": {**SHOP, "table": "a; DROP"}}, "table"),
        (SyncData, {**FULL, "source": {**SHOP, "query": "SELECT 1"}}, "exactly one of 'table' and 'query'"),
        (SyncData, {**FULL, "source": {"connection": "shop"}}, "exactly one of 'table' and 'query'"),
        (SyncData, {**FULL, "columns": {"name": "name"}}, "lacks .'id'. of 'key'"),
        (SyncData, {**FULL, "columns": {"id": "id", "name": "id"}}, "to several columns"),
        (SyncData, {**FULL, "columns": {}}, "columns"),
        (SyncData, {**FULL, "deleted_by": "id"}, "deleted_by"),
        (SyncData, {**FULL, "new_columns": "drop"}, "new_columns"),
        (SyncData, {**PAIR, "mode": {**FULL["mode"], "delete_missing": True, "mark_missing": "gone"}}, "only one of"),
        (SyncData, {**FULL, "columns": {"id": "a"}, "mode": {**FULL["mode"], "mark_missing": "a"}}, "mark_missing"),
        (BackupData, {"source": {**FOLDER, "prefix": "../other"}}, "prefix"),
        (RestoreData, {"backup": "file:///etc/passwd", "destination": FOLDER}, "backup"),
        (CleanupOldData, {"older_than_s": -1}, "older_than_s"),
    ],
)
def test_what_makes_no_sense_is_refused(contract: type[Contract[Any]], params: dict[str, Any], said: str) -> None:
    """The error names the field."""
    with pytest.raises(ValidationError, match=said):
        contract.model_validate(params)
