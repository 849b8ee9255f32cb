"""Fit recipe and estimator as one pipeline, and report progress."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from shared.errors import TaskFailure
from worker.ml.features.recipe import fit_failed, fit_recipe
from worker.ml.model.estimators import growth, make_baseline
from worker.ml.model.pipeline import Fitted, unfitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from shared.jobs.ml.estimators import AnyEstimator
    from shared.jobs.ml.kinds import LearningSpec
    from shared.jobs.ml.results import Label
    from worker.ml.data.columns import InputColumn
    from worker.ml.data.rows import Rows

    Report = Callable[[float, float, str], None]

_MOST_NOTES = 20


@dataclass
class Meter:
    """The progress of a job: `current` of `total`, in the unit in which the estimator grows, or in fits."""

    estimator: AnyEstimator
    fits: int
    report: Report
    current: float = 0

    def advance(self, by: float) -> None:
        """Add trees, iterations or fits, and report."""
        grows = growth(self.estimator)
        total, unit = (1, "fits") if grows is None else (grows.total, grows.unit)
        self.current += by
        self.report(self.current, total * self.fits, unit)


@dataclass
class Notes:
    """The distinct warnings of scikit-learn."""

    texts: list[str] = field(default_factory=list)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Collect the warnings of the block."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            text = f"{warning.category.__name__}: {warning.message}".partition("\n")[0][:300]
            if text not in self.texts and len(self.texts) < _MOST_NOTES:
                self.texts.append(text)


def fit(
    inputs: Sequence[InputColumn], spec: LearningSpec, rows: Rows, train: npt.NDArray[np.int64], meter: Meter
) -> Fitted:
    """Fit on the rows `train` only. Raises `TaskFailure`: ``too_many_features``, ``fit_failed``."""
    pipeline = unfitted(inputs, spec.estimator, spec.task, seed=spec.seed)
    target = rows.target[train]
    weights = sample_weights(spec.class_weights, target, rows.labels)
    features = fit_recipe(pipeline["recipe"], rows.frame.iloc[train])
    try:
        _grow(pipeline["estimator"], features, target, weights, meter)
    except ValueError as refused:
        raise fit_failed(refused) from refused
    baseline = make_baseline(spec.task).fit(features, target)
    return Fitted(pipeline, baseline, features.shape[1])


def sample_weights(
    class_weights: str | dict[str, float] | None, target: npt.NDArray[Any], labels: list[Label] | None
) -> npt.NDArray[np.float64] | None:
    """Return a weight per row, float64 ``(n_rows,)``, or None for equal ones.

    Raises `TaskFailure` (``unknown_class``) if a weight is for a class that does not occur.
    """
    if class_weights is None or labels is None:
        return None
    if isinstance(class_weights, str):
        return np.asarray(compute_sample_weight(class_weights, target), dtype=np.float64)
    names = [str(label) for label in labels]
    if strange := sorted(set(class_weights) - set(names)):
        raise TaskFailure(
            "unknown_class",
            f"class_weights: the target has no class {strange[0]!r}; it has {', '.join(map(repr, names[:20]))}.",
            remedy="Use class names exactly as in the data.",
        )
    per_class = np.array([class_weights.get(name, 1.0) for name in names], dtype=np.float64)
    return np.asarray(per_class[target])


def _grow(
    estimator: Any,
    features: npt.NDArray[np.float64],
    target: npt.NDArray[Any],
    weights: npt.NDArray[np.float64] | None,
    meter: Meter,
) -> None:
    weighted = {} if weights is None else {"sample_weight": weights}
    grows = growth(meter.estimator)
    if grows is None:
        estimator.fit(features, target, **weighted)
        meter.advance(1)
        return
    grown = 0
    for size in grows.sizes():
        estimator.set_params(**{grows.parameter: size}).fit(features, target, **weighted)
        meter.advance(size - grown)
        grown = size
