"""Scores of predictions. An undefined score (one class only, one row) is None, never NaN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import metrics

from shared.errors import TaskFailure
from shared.jobs.ml.results import ConfusionMatrix, Evaluation, ResidualSummary
from worker.ml.data.rows import LARGEST_NUMBER

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from shared.jobs.ml.results import Label, Scores

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_LEAST_FOR_R2 = 2


@dataclass(frozen=True)
class Predicted:
    """The output of a model.

    `answers` is ``(n_rows,)``, numbers or positions of classes; `probabilities` is ``(n_rows, n_classes)``.
    """

    answers: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None


def predicted(model: Any, frame: pd.DataFrame, labels: list[Label] | None) -> Predicted:
    """Return the output of `model` for `frame`. A class that was absent in training has probability 0.

    Raises `TaskFailure` (``predict_failed``) for values that the estimator does not take.
    """
    try:
        with np.errstate(over="ignore"):  # numbers too large for 32 bits are refused below
            return _predicted(model, frame, labels)
    except ValueError as refused:
        raise TaskFailure(
            "predict_failed",
            f"The rows cannot be predicted: {str(refused).partition(chr(10))[0][:500]}",
            remedy="Use numbers similar to those of training: within 3e38 for trees and, for this "
            "estimator, not missing; 'n_neighbors' must not exceed the number of training rows.",
        ) from refused


def _predicted(model: Any, frame: pd.DataFrame, labels: list[Label] | None) -> Predicted:
    values = np.asarray(model.predict(frame))
    if labels is None:
        largest = float(np.abs(values).max(initial=0))
        if not largest <= LARGEST_NUMBER:
            raise ValueError(
                f"the model predicts {largest:g} for a row; the largest supported number is {LARGEST_NUMBER:g}"
            )
        return Predicted(values.astype(np.float64), None)
    if not hasattr(model, "predict_proba"):
        return Predicted(values.astype(np.int64), None)
    probabilities = np.zeros((len(values), len(labels)))
    probabilities[:, model.classes_] = model.predict_proba(frame)
    return Predicted(values.astype(np.int64), probabilities)


def scores(truth: npt.NDArray[Any], of: Predicted, labels: list[Label] | None) -> Scores:
    """Return the scores of predictions: for classes if there are `labels`, else for numbers."""
    found = _regression(truth, of.answers) if labels is None else _classification(truth, of, len(labels))
    return {name: float(value) if value is not None and np.isfinite(value) else None for name, value in found.items()}


def evaluation(truth: npt.NDArray[Any], of: Predicted, baseline: Predicted, labels: list[Label] | None) -> Evaluation:
    """Return the scores of a model and of its baseline on the same rows, with the errors by class or quantile."""
    return Evaluation(
        scores=scores(truth, of, labels),
        baseline=scores(truth, baseline, labels),
        row_count=len(truth),
        confusion=None if labels is None else _confusion(truth, of, labels),
        residuals=_residuals(truth - of.answers) if labels is None else None,
    )


def _classification(truth: npt.NDArray[Any], of: Predicted, class_count: int) -> dict[str, Any]:
    """Return the scores; averages are over the classes that occur in truth or prediction."""
    average = {"average": "macro", "zero_division": 0}
    found = {
        "accuracy": metrics.accuracy_score(truth, of.answers),
        "balanced_accuracy": _recall_of_present(truth, of.answers),
        "f1_macro": metrics.f1_score(truth, of.answers, **average),
        "precision_macro": metrics.precision_score(truth, of.answers, **average),
        "recall_macro": metrics.recall_score(truth, of.answers, **average),
        "log_loss": None,
        "roc_auc": None,
    }
    if of.probabilities is not None:
        found["log_loss"] = metrics.log_loss(truth, of.probabilities, labels=range(class_count))
        if len(np.unique(truth)) == class_count:  # undefined if a class is absent
            found["roc_auc"] = _roc_auc(truth, of.probabilities)
    return found


def _recall_of_present(truth: npt.NDArray[Any], values: npt.NDArray[Any]) -> float:
    """Return the balanced accuracy: the mean recall of the classes that occur in `truth`."""
    return float(np.mean([np.mean(values[truth == label] == label) for label in np.unique(truth)]))


def _roc_auc(truth: npt.NDArray[Any], probabilities: npt.NDArray[np.float64]) -> float:
    binary = probabilities.shape[1] == 2  # noqa: PLR2004 - two classes: one curve
    judged = probabilities[:, 1] if binary else probabilities
    return float(metrics.roc_auc_score(truth, judged, multi_class="ovr", average="macro"))


def _regression(truth: npt.NDArray[Any], values: npt.NDArray[Any]) -> dict[str, Any]:
    return {
        "r2": metrics.r2_score(truth, values) if len(truth) >= _LEAST_FOR_R2 else None,
        "mae": metrics.mean_absolute_error(truth, values),
        "rmse": metrics.root_mean_squared_error(truth, values),
        "median_absolute_error": metrics.median_absolute_error(truth, values),
        "max_error": metrics.max_error(truth, values),
    }


def _confusion(truth: npt.NDArray[Any], of: Predicted, labels: list[Label]) -> ConfusionMatrix:
    counts = metrics.confusion_matrix(truth, of.answers, labels=range(len(labels)))
    short = [label[:100] if isinstance(label, str) else label for label in labels]
    return ConfusionMatrix(labels=short, counts=counts.tolist())


def _residuals(residuals: npt.NDArray[np.float64]) -> ResidualSummary:
    return ResidualSummary(
        mean=float(residuals.mean()),
        standard_deviation=float(residuals.std(ddof=1)) if len(residuals) > 1 else None,
        quantiles={f"{ratio:g}": float(np.quantile(residuals, ratio)) for ratio in _QUANTILES},
    )
