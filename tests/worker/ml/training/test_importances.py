"""What is shuffled is otherwise as it was: a missing category stays one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from tests.support.ml_runs import iris, new_run, stored
from worker.ml import tasks
from worker.ml.data.rows import Rows
from worker.ml.training.importances import Shuffling

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
    rows = Rows(frame=frame, target=target, labels=["no", "yes"], positions=np.arange(40), dropped_count=0)
    shuffling = Shuffling(rows, np.arange(40), seed=5)
    shuffling.predict(Recalling(), np.arange(40))
    found = {one.column: one for one in shuffling.importances()}
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


@pytest.mark.parametrize("validation", [{"kind": "cross_validation", "folds": 5}, {"kind": "hold_out"}])
def test_the_order_of_a_file_does_not_matter(tmp_path: Path, validation: dict[str, Any]) -> None:
    """The rows that importances are computed on are drawn from all that were judged, over the folds."""
    size = np.sort(np.random.default_rng(1).normal(size=4_000))
    frame = pd.DataFrame({"size": size, "noise": np.random.default_rng(2).normal(size=4_000), "large": size > 0})
    job = {"task": "classification", "target": "large", "estimator": {"kind": "logistic_regression"}}
    found = []
    for rows in (frame, frame.sample(frac=1, random_state=3)):
        model = TrainModel.model_validate({**job, "dataset": stored(tmp_path, rows), "validation": validation})
        found.append({one.column: one for one in tasks.train_model(model, new_run(tmp_path)).summary.importances})
    assert [one["size"].importance for one in found] == pytest.approx([0.5, 0.5], abs=0.06)
    assert [one["noise"].importance for one in found] == pytest.approx([0, 0], abs=0.02)


def test_folds_share_the_shuffled_values(tmp_path: Path) -> None:
    """Twenty folds of three rows: within one fold there would be little to shuffle."""
    frame = iris().drop(columns="id").iloc[::5]
    job = {"task": "classification", "target": "species", "estimator": {"kind": "k_neighbors", "n_neighbors": 3}}
    found = []
    for folds in (2, 10):
        validation = {"kind": "cross_validation", "folds": folds}
        model = TrainModel.model_validate({**job, "dataset": stored(tmp_path, frame), "validation": validation})
        found.append(tasks.train_model(model, new_run(tmp_path)).summary.importances)
    assert [one[0].column.startswith("petal") for one in found] == [True, True]
    assert [one[0].importance > 0.1 for one in found] == [True, True]
