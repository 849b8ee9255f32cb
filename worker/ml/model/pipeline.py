"""What learns and predicts: recipe and estimator as one pipeline, and the baseline beside it."""

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
    """A fitted pipeline, prepared frame to predictions, and the baseline of the same rows."""

    pipeline: Pipeline
    baseline: Any
    feature_count: int


def unfitted(inputs: Sequence[InputColumn], estimator: AnyEstimator, task: LearningTask, *, seed: int) -> Pipeline:
    """Return the pipeline of recipe and estimator as it is before it has learnt anything."""
    return Pipeline(
        [("recipe", make_recipe(inputs, seed=seed)), ("estimator", make_estimator(estimator, task, seed=seed))]
    )
