"""What learning may need is judged before it is read into memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

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


CASES: list[dict[str, Any]] = [
    {"rows": 12_000, "numbers": 150, "spec": {"estimator": {"kind": "dummy"}}},
    {
        "rows": 15_000,
        "numbers": 4,
        "classes": 60,
        "spec": {"estimator": {"kind": "dummy"}, "validation": {"kind": "cross_validation", "folds": 2}},
    },
    {"rows": 20_000, "numbers": 4, "texts": 4, "spec": {"estimator": {"kind": "linear_regression"}}},
    {"rows": 20_000, "numbers": 8, "spec": {"estimator": {"kind": "random_forest", "n_estimators": 8}}},
    {
        "rows": 20_000,
        "numbers": 8,
        "classes": 10,
        "spec": {"estimator": {"kind": "hist_gradient_boosting", "max_iter": 2}},
    },
    {"rows": 2_000, "numbers": 6, "spec": {"estimator": {"kind": "svm", "max_iter": 200}}},
]


@pytest.mark.parametrize("cases", [CASES[::3], pytest.param(CASES, marks=pytest.mark.journey)], ids=["two", "all"])
def test_what_is_judged_is_not_less_than_what_is_taken(tmp_path: Path, cases: list[dict[str, Any]]) -> None:
    """Measured in a process of its own, for each way to need memory: columns, classes, texts, trees, kernels."""
    child = [sys.executable, "-m", "tests.worker.ml.peaks", str(tmp_path), json.dumps(cases)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(child, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    measured = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(measured) == len(cases)
    for case, (needed, taken) in zip(cases, measured, strict=True):
        assert taken <= needed, case
        assert needed <= 3 * taken + 96 * 1024**2, case  # the cache of a kernel, and what any job needs
