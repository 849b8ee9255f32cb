"""The maintenance family over REST on a real worker: in step after a crash, backed up and restored, cleaned up."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.servers.services import Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import Crew, Jobs, crew

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

ROWS = 2_000
SYNC = {
    "source": {"connection": "shop", "table": "orders"},
    "destination": {"connection": "warehouse", "table": "orders"},
    "key": ["id"],
    "mode": {"kind": "watermark", "column": "updated_at"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of everything here."""
    return tmp_path_factory.mktemp("maintenance")


@pytest.fixture(scope="module")
def workers(folder: Path, valkey: Server) -> Iterator[Crew]:
    """Run one maintenance worker of one process, with two SQLite files."""
    connections = folder / "connections.toml"
    connections.write_text(
        "".join(f'[{name}]\nkind = "sqlite"\npath = "{folder / name}.db"\n' for name in ("shop", "warehouse"))
        + f'[lake]\nkind = "store"\nurl = "{folder / "lake"}"\n'
    )
    env = {
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_CONNECTIONS_FILE": str(connections),
    }
    with crew(folder / "workers", **env, WORKER_FAMILIES="maintenance") as workers:
        workers.start()
        yield workers


@pytest.fixture(scope="module")
def jobs(folder: Path, workers: Crew) -> Iterator[Jobs]:
    """Run a gateway, and a shop with some thousand orders."""
    with closing(sqlite3.connect(folder / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE orders (id INTEGER, note TEXT, updated_at INTEGER)")
        shop.executemany("INSERT INTO orders VALUES (?, ?, ?)", ((n, f"note {n}", n) for n in range(ROWS)))
    with gateway_server(folder / "gateway", **workers.env) as gateway:
        yield Jobs(gateway)


def rows(folder: Path, table: str, database: str = "warehouse") -> list[tuple[Any, ...]]:
    """Return the rows of a table; none if it is not there."""
    with closing(sqlite3.connect(folder / f"{database}.db")) as found:
        if not found.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchall():
            return []
        return found.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()  # noqa: S608 - the test's own name


def succeeded(jobs: Jobs, kind: str, params: dict[str, Any]) -> dict[str, Any]:
    """Run a job and return it."""
    job = jobs.ended(jobs.submit(kind, params))
    assert job["state"] == "succeeded", job["error"]
    return job


def test_a_worker_that_dies_costs_no_row_and_no_count(jobs: Jobs, workers: Crew, folder: Path) -> None:
    """The job goes on after the last committed part; its counts are those of both attempts."""
    job_id = jobs.submit("maintenance.sync_data", {**SYNC, "batch_rows": 20})
    wait_for(lambda: len(rows(folder, "orders")) > ROWS // 10, "the first parts")
    (child,) = workers.workers[0].pool
    os.kill(child, signal.SIGKILL)
    job = jobs.ended(job_id)
    assert (job["state"], len(job["attempts"])) == ("succeeded", 2)
    result = job["result"]
    assert (result["inserted_count"], result["updated_count"], result["watermark_to"]) == (ROWS, 0, str(ROWS - 1))
    assert result["read_count"] < ROWS
    assert rows(folder, "orders") == rows(folder, "orders", "shop")


def test_a_backup_feeds_its_restoration(jobs: Jobs, folder: Path) -> None:
    """A chain backs a table up and restores it under another name; the files are those that the results name."""
    source = {"kind": "table", "connection": "shop", "table": "orders"}
    destination = {"kind": "table", "connection": "warehouse", "table": "restored"}
    steps = [
        {"kind": "maintenance.backup_data", "params": {"source": source}},
        {"kind": "maintenance.restore_data", "params": {"destination": destination}},
    ]
    job = succeeded(jobs, "workflow.chain", {"steps": steps})
    backup = job["steps"][0]["result"]
    assert (backup["row_count"], backup["digest"]) == (ROWS, job["result"]["digest"])
    assert rows(folder, "restored") == rows(folder, "orders", "shop")


def test_the_newest_copy_is_kept_and_restored_from_its_store(jobs: Jobs, folder: Path) -> None:
    """A second backup removes the copy of the first, unless a job waits to restore it; no job's file is needed."""
    params = {
        "source": {"kind": "tables", "connection": "shop", "tables": ["orders"]},
        "keep_at": {"connection": "lake", "path": "kept/orders.zip", "copies": {"count": 1}},
    }
    first, second = (succeeded(jobs, "maintenance.backup_data", params)["result"] for _ in range(2))
    path = second["kept_at"].removeprefix("lake:")
    assert (first["removed_copies"], second["removed_copies"]) == ([], [first["kept_at"].removeprefix("lake:")])
    restore = {
        "backup": {"connection": "lake", "path": path},
        "destination": {"kind": "tables", "connection": "warehouse", "tables": {"orders": "from_copy"}},
    }
    waiting = jobs.submit("maintenance.restore_data", restore, delay_s=3_600)
    third = succeeded(jobs, "maintenance.backup_data", params)["result"]
    assert (third["removed_copies"], third["spared_copies"]) == ([], [path])
    assert succeeded(jobs, "maintenance.restore_data", restore)["result"]["tables"] == {"from_copy": ROWS}
    assert rows(folder, "from_copy") == rows(folder, "orders", "shop")
    jobs.cancel(waiting)


def test_a_clean_up_spares_what_a_waiting_job_needs(jobs: Jobs, folder: Path) -> None:
    """Ended jobs go with their files; the backup that a scheduled job is to restore stays, until that is cancelled."""
    source = {"kind": "table", "connection": "shop", "table": "orders"}
    made, other = (succeeded(jobs, "maintenance.backup_data", {"source": source}) for _ in range(2))
    destination = {"kind": "table", "connection": "warehouse", "table": "later"}
    params = {"backup": made["result"]["backup"]["uri"], "destination": destination}
    waiting = jobs.submit("maintenance.restore_data", params, delay_s=3_600)
    would = succeeded(jobs, "maintenance.cleanup_old_data", {"older_than_s": 0, "dry_run": True})["result"]
    assert len(list((folder / "store").iterdir())) >= 2
    did = succeeded(jobs, "maintenance.cleanup_old_data", {"older_than_s": 0})["result"]
    assert did["job_count"] == would["job_count"] + 1  # the one that only counted has ended, too
    assert (did["artifact_count"], did["kept_job_count"]) == (would["artifact_count"], 1)
    assert [path.name for path in (folder / "store").iterdir()] == [made["id"]]
    assert http_client.get(f"{jobs.gateway.url}/jobs/{other['id']}").status_code == 410
    assert jobs.get(made["id"])["state"] == "succeeded"
    jobs.cancel(waiting)
    succeeded(jobs, "maintenance.cleanup_old_data", {"older_than_s": 0})
    assert list((folder / "store").iterdir()) == []
