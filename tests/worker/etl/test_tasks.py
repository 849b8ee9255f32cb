"""The ETL tasks pass what the pure modules make from one to the next, as artifacts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import redis

from shared.connections.settings import SqliteInfo
from shared.contract.artifacts import Artifact, Dataset
from shared.jobs.etl import CombineDatasets, ExtractData, LoadData, TransformData
from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.storage import ArtifactStore
from worker.etl import tasks
from worker.reach.connections import WorkerConnections
from worker.runtime.run import Run
from worker.runtime.task import definitions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers.services import Server


class Unreported(Run):
    """A run of a job that no ledger knows: what it reports goes nowhere. Several tasks can share it."""

    def report(self) -> None:
        """Tell nobody."""

    def publish(self, local: Path | str, **how: Any) -> Artifact:
        """Publish the file; one whose name is taken is the first of the next task, which is another job."""
        if any(artifact.name == how.get("name") for artifact in self._artifacts):
            self.job_id = uuid7()
            self._artifacts.clear()
        return super().publish(local, **how)


@pytest.fixture
def run(tmp_path: Path, empty_valkey: Server) -> Run:
    """Return a run with a store and a scratch folder of its own."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Unreported(
        job_id=uuid7(),
        kind="etl.extract_data",
        attempt=1,
        token="1",  # noqa: S106 - a fencing token is not a secret
        idempotency_key="job",
        scratch=scratch,
        store=ArtifactStore(str(tmp_path / "store")),
        ledger=Ledger(redis.Redis(port=empty_valkey.port)),
    )


def staged(run: Run, content: bytes) -> Dataset:
    """Return the dataset of an extracted CSV."""
    upload = run.scratch.parent / uuid7()
    upload.write_bytes(content)
    file = run.store.put(upload, file_owner=uuid7(), attempt=1, name="a.csv", role="file", media_type="text/csv")
    run.job_id = uuid7()
    for left in run.scratch.glob("*.parquet"):
        left.unlink()
    job = ExtractData.model_validate({"source": {"kind": "artifact", "uri": file.uri}})
    return tasks.extract_data(job, run).dataset


def test_every_kind_with_a_task_has_one() -> None:
    """The tasks of the family are those of its contracts that are not workflows."""
    kinds = {"etl.extract_data", "etl.transform_data", "etl.load_data", "etl.combine_datasets"}
    assert kinds == {kind for kind in definitions() if kind.startswith("etl.")}


def test_extract_transform_load(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dirty CSV becomes a typed dataset, rejects with their count, and rows of a table, once."""
    dataset = staged(run, b"category,value\na,1\na,2\nb,abc\n")
    assert (dataset.row_count, dataset.name, dataset.role) == (3, "data.parquet", "dataset")
    assert [(c.name, c.type) for c in dataset.columns] == [("category", "string"), ("value", "string")]
    transformed = tasks.transform_data(
        TransformData.model_validate(
            {
                "dataset": dataset.uri,
                "bad_rows": "reject",
                "steps": [{"op": "cast", "columns": {"value": "integer"}}],
            }
        ),
        _next(run),
    )
    assert (
        transformed.dataset.row_count,
        transformed.input_row_count,
        transformed.rejected.row_count,
    ) == (2, 3, 1)
    rejects = transformed.rejected.artifact
    assert rejects is not None
    assert (rejects.row_count, rejects.role) == (1, "rejects")
    path = tmp_path / "w.db"
    known = WorkerConnections({"warehouse": SqliteInfo(kind="sqlite", path=path)}, {})
    monkeypatch.setattr(tasks, "connections", lambda: known)
    job = LoadData.model_validate(
        {
            "dataset": transformed.dataset.uri,
            "destination": {"kind": "table", "connection": "warehouse", "table": "sales"},
        }
    )
    first, second = tasks.load_data(job, _next(run)), tasks.load_data(job, _next(run))
    assert (first.inserted_count, first.already_loaded, second.already_loaded) == (2, False, True)
    with closing(sqlite3.connect(path)) as session:
        assert session.execute("SELECT * FROM sales ORDER BY value").fetchall() == [("a", 1), ("a", 2)]


def test_combine(run: Run) -> None:
    """Datasets with the same columns are put one after another."""
    parts = [staged(run, b"a,b\n1,x\n"), staged(run, b"b,a\ny,2\nz,3\n")]
    combined = tasks.combine_datasets(
        CombineDatasets.model_validate({"datasets": [part.uri for part in parts]}), _next(run)
    )
    assert (
        combined.dataset.row_count,
        combined.input_row_count,
        [column.name for column in combined.dataset.columns],
    ) == (3, 3, ["a", "b"])


def _next(run: Run) -> Run:
    """Return the run as that of another job, with an empty scratch folder."""
    run.job_id = uuid7()
    for left in run.scratch.glob("*.parquet"):
        left.unlink()
    return run
