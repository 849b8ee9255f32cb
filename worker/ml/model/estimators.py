"""Build scikit-learn estimators from typed hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC, SVR

from shared.jobs.ml import estimators as typed

if TYPE_CHECKING:
    from shared.jobs.ml.estimators import AnyEstimator, LearningTask

_SVM_CACHE_MB = 64
_PARTS = 20


def make_estimator(spec: AnyEstimator, task: LearningTask, *, seed: int) -> Any:
    """Return the unfitted estimator of `spec`, with `seed` for its random draws.

    Forests use a warm start, to be fitted in parts; the model is the same. Boosting keeps it, as stored models have it.
    """
    options = spec.model_dump(exclude={"kind"})
    classifies = task == "classification"
    if isinstance(spec, typed.RandomForest):
        options["max_features"] = spec.max_features or ("sqrt" if classifies else 1.0)
        forest = RandomForestClassifier if classifies else RandomForestRegressor
        return forest(**options, random_state=seed, warm_start=True)
    if isinstance(spec, typed.HistGradientBoosting):
        boosting = HistGradientBoostingClassifier if classifies else HistGradientBoostingRegressor
        return boosting(**options, random_state=seed, warm_start=True, early_stopping=False)
    if isinstance(spec, typed.SupportVectors):
        return _support_vectors(options, classifies=classifies, seed=seed)
    if isinstance(spec, typed.KNeighbors):
        # Brute force, because a stored tree of neighbours would be another compiled type to trust.
        return (KNeighborsClassifier if classifies else KNeighborsRegressor)(**options, algorithm="brute")
    if isinstance(spec, typed.LogisticRegression):
        solver = "saga" if spec.l1_ratio else "lbfgs"
        return LogisticRegression(
            C=spec.c, l1_ratio=spec.l1_ratio, max_iter=spec.max_iter, solver=solver, random_state=seed
        )
    return make_baseline(task) if isinstance(spec, typed.DummyBaseline) else _linear(spec, seed=seed)


def make_baseline(task: LearningTask) -> Any:
    """Return the estimator that predicts the most frequent class with the class ratios, or the mean."""
    return DummyClassifier(strategy="prior") if task == "classification" else DummyRegressor(strategy="mean")


@dataclass(frozen=True)
class Growth:
    """What an estimator grows to while it is fitted: `total` of `unit`, the value of `parameter`."""

    parameter: str
    total: int
    unit: str

    def sizes(self) -> list[int]:
        """Return the size after each of at most twenty parts; the last is `total`."""
        parts = min(_PARTS, self.total)
        return [round(self.total * part / parts) for part in range(1, parts + 1)]


def growth(spec: AnyEstimator) -> Growth | None:
    """Return how `spec` grows; None if nothing is to be seen of it."""
    if isinstance(spec, typed.RandomForest):
        return Growth("n_estimators", spec.n_estimators, "trees")
    if isinstance(spec, typed.HistGradientBoosting):
        return Growth("max_iter", spec.max_iter, "iterations")
    return None


def _support_vectors(options: dict[str, Any], *, classifies: bool, seed: int) -> Any:
    penalty, epsilon = options.pop("c"), options.pop("epsilon")
    if classifies:
        return SVC(C=penalty, cache_size=_SVM_CACHE_MB, random_state=seed, **options)
    return SVR(C=penalty, epsilon=epsilon, cache_size=_SVM_CACHE_MB, **options)


def _linear(spec: typed.LinearRegression, *, seed: int) -> Any:
    if spec.alpha == 0:
        return LinearRegression()
    if spec.l1_ratio == 0:
        return Ridge(alpha=spec.alpha, random_state=seed)
    return ElasticNet(alpha=spec.alpha, l1_ratio=spec.l1_ratio, max_iter=spec.max_iter, random_state=seed)
