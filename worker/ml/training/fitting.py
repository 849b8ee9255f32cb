"""Fit recipe and estimator as one pipeline, and report progress."""

from __future__ import annotations

import itertools
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from shared.errors import TaskFailure
from shared.jobs.ml.estimators import HistGradientBoosting
from worker.ml.data.rows import class_name
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
_COUNTED: dict[str, Any] = {"scoring": None, "n_iter_no_change": None, "validation_fraction": None}


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
    names = [class_name(label) for label in labels]
    given = {_known(key, names, labels): weight for key, weight in class_weights.items()}
    if strange := sorted(given.keys() - set(names)):
        raise TaskFailure(
            "unknown_class",
            f"class_weights: the target has no class {strange[0]!r}; it has {', '.join(map(repr, names[:20]))}.",
            remedy="Use class names exactly as in the data.",
        )
    per_class = np.array([given.get(name, 1.0) for name in names], dtype=np.float64)
    return np.asarray(per_class[target])


def _known(key: str, names: list[str], labels: list[Label]) -> str:
    """Return the name of the class that `key` means: `1.0` is the number 1, and `True` the truth value."""
    if key in names or isinstance(labels[0], str):
        return key
    if isinstance(labels[0], bool):
        return key.lower()
    try:
        return f"{float(key):.0f}" if float(key).is_integer() else key
    except ValueError:
        return key


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
    if isinstance(meter.estimator, HistGradientBoosting):
        _boost(estimator, features, target, weighted, meter)
        return
    grown = 0
    for size in grows.sizes():
        estimator.set_params(**{grows.parameter: size}).fit(features, target, **weighted)
        meter.advance(size - grown)
        grown = size


def _boost(
    estimator: Any, features: npt.NDArray[np.float64], target: npt.NDArray[Any], weighted: dict[str, Any], meter: Meter
) -> None:
    """Fit at once: each part would bin all rows again, which with weights takes many times the fitting itself.

    scikit-learn calls the score of early stopping after each iteration, and before the first. The score counts them,
    and never gets worse, so that nothing stops early.
    """
    calls = itertools.count()

    def count(*_: Any, **__: Any) -> float:
        if next(calls):
            meter.advance(1)
        return 0.0

    stated = {name: estimator.get_params()[name] for name in ("early_stopping", *_COUNTED)}
    counted = {**_COUNTED, "scoring": count, "n_iter_no_change": estimator.max_iter + 1}
    estimator.set_params(early_stopping=True, **counted).fit(features, target, **weighted)
    # The model file is the same as without: skops refuses a function.
    estimator.set_params(**stated)._scorer = None  # noqa: SLF001 - there is no other way to forget the function
    estimator.do_early_stopping_, estimator.train_score_ = False, np.array([])
