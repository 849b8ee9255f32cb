"""Runs of ML tasks without a worker, and datasets for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.storage import ArtifactStore
from worker.runtime.run import Run

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Unreported(Run):
    """A run of a job that no ledger knows: what it reports stays in `told`."""

    told: list[tuple[float, float | None, str]] = field(default_factory=list)

    def progress(self, current: float, total: float | None = None, *, unit: str = "rows", message: str = "") -> None:
        """Keep it."""
        assert message == ""
        self.told.append((current, total, unit))

    def report(self) -> None:
        """Tell nobody."""


def new_run(folder: Path) -> Unreported:
    """Return a run with a scratch folder of its own; runs of one folder share its store."""
    job_id = uuid7()
    scratch = folder / "scratch" / job_id
    scratch.mkdir(parents=True)
    return Unreported(
        job_id=job_id,
        kind="ml.train_model",
        attempt=1,
        token="1",  # noqa: S106 - a fencing token is not a secret
        idempotency_key=job_id,
        scratch=scratch,
        store=ArtifactStore(str(folder / "store")),
        ledger=Ledger(redis.Redis(port=1)),  # nothing listens there, and nobody asks
    )


def stored(folder: Path, table: pa.Table | pd.DataFrame) -> str:
    """Store a table as a dataset and return its uri."""
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False)
    run = new_run(folder)
    local = run.scratch / "table"
    pq.write_table(table, local)
    return run.publish(local, name="data.parquet", role="dataset", media_type="application/vnd.apache.parquet").uri


def fetched(folder: Path, uri: str) -> pd.DataFrame:
    """Return a stored dataset."""
    table: pd.DataFrame = pq.read_table(ArtifactStore(str(folder / "store")).path(uri)).to_pandas()
    return table


def iris() -> pd.DataFrame:
    """Return 150 flowers: four numbers, a name of the species, and an id."""
    bunch: Any = load_iris(as_frame=True)
    frame: pd.DataFrame = bunch.frame.drop(columns="target")
    return frame.assign(species=[str(bunch.target_names[code]) for code in bunch.target], id=range(len(frame)))


def diabetes() -> pd.DataFrame:
    """Return 442 patients: ten numbers and a progression to learn."""
    bunch: Any = load_diabetes(as_frame=True)
    return pd.DataFrame(bunch.frame)


def cancer() -> pd.DataFrame:
    """Return 569 samples: five numbers and whether they are benign."""
    bunch: Any = load_breast_cancer(as_frame=True)
    frame: pd.DataFrame = bunch.frame.iloc[:, :5]
    return frame.assign(benign=bunch.target.astype(bool))
