"""Recipe and estimator as one pipeline, with the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sklearn.pipeline import Pipeline

from worker.ml.features.recipe import make_recipe
from worker.ml.model.estimators import make_estimator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.jobs.ml.estimators import AnyEstimator, LearningTask
    from worker.ml.data.columns import InputColumn


@dataclass(frozen=True)
class Fitted:
    """A fitted pipeline from prepared frame to predictions, and the baseline of the same rows."""

    pipeline: Pipeline
    baseline: Any
    feature_count: int


def unfitted(inputs: Sequence[InputColumn], estimator: AnyEstimator, task: LearningTask, *, seed: int) -> Pipeline:
    """Return the unfitted pipeline of recipe and estimator."""
    return Pipeline(
        [("recipe", make_recipe(inputs, seed=seed)), ("estimator", make_estimator(estimator, task, seed=seed))]
    )
