"""What learning may need is judged before it is read into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from shared.errors import TaskFailure
from shared.jobs.ml.kinds import TrainModel
from tests.support.ml_runs import new_run, stored
from worker.ml import tasks
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from pathlib import Path


def test_texts_count_as_often_as_they_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text that stands in the file once, and in every row, is 20 MB of text in memory, several times over."""
    monkeypatch.setenv("CELERIAC_MEMORY_LIMIT_BYTES", str(32 * 1024**2))
    monkeypatch.setattr(tasks, "worker_settings", WorkerSettings)
    monkeypatch.setattr(tasks, "read_rows", None)
    repeated = pa.DictionaryArray.from_arrays(
        pa.array([0, 1] * 5_000, pa.int32()), pa.array(["a" * 2_000, "b" * 2_000])
    )
    for texts in (repeated, repeated.cast(pa.string())):
        table = pa.table({"text": texts, "target": pa.array(range(10_000))})
        job = {"task": "regression", "target": "target", "estimator": {"kind": "dummy"}}
        with pytest.raises(TaskFailure) as failure:
            tasks.train_model(TrainModel.model_validate({**job, "dataset": stored(tmp_path, table)}), new_run(tmp_path))
        assert failure.value.code == "dataset_too_large"
        assert failure.value.details["needed_bytes"] > 3 * 20_000_000
