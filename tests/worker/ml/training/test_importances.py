"""What is shuffled is otherwise as it was: a missing category stays one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from tests.support.ml_runs import new_run, stored
from worker.ml import tasks
from worker.ml.training.importances import importances

if TYPE_CHECKING:
    from pathlib import Path

from shared.jobs.ml.kinds import TrainModel


class Recalling:
    """A model of the column `colour`, where it is missing: class 1. It refuses what is missing in another way."""

    def predict(self, frame: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        assert all(value is None or isinstance(value, str) for value in frame["colour"])
        return np.array([value is None for value in frame["colour"]], dtype=np.int64)


def test_a_shuffled_category_is_missing_where_it_was() -> None:
    """The loss is that of the same shuffles by hand; a column that nobody looks at loses nothing."""
    colours = [None, "red", "blue", None] * 10
    frame = pd.DataFrame({"colour": pd.Series(colours, dtype=object), "size": np.arange(40.0)})
    target = np.array([colour is None for colour in colours], dtype=np.int64)
    random = np.random.default_rng(5)
    losses = [np.mean(target != target[random.permutation(40)]) for _ in range(3)]
    found = {one.column: one for one in importances(Recalling(), frame, target, classes=True, seed=5)}
    assert found["colour"].importance == pytest.approx(np.mean(losses))
    assert found["size"].importance == 0


def test_training_takes_categories_that_are_missing_in_held_out_rows(tmp_path: Path) -> None:
    """The only category column has missing values, which tell the class."""
    frame = pd.DataFrame({"colour": ["red", None, "blue", None] * 20, "kind": ["a", "b"] * 40})
    job = {"dataset": stored(tmp_path, frame), "task": "classification", "target": "kind"}
    model = TrainModel.model_validate({**job, "estimator": {"kind": "logistic_regression"}})
    summary = tasks.train_model(model, new_run(tmp_path)).summary
    assert summary.evaluation.scores["accuracy"] == 1
    assert summary.importances[0].importance > 0.2
