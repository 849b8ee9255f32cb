"""Names of scores, settings and limits as people say them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from shared.jobs.charts import NumberFormat
from worker.pages.content.values import ABSENT, number_format, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.ml.training.training import Trained

Mood = Literal["good", "bad", ""]

_FEW_ROWS = 100
_FEW_OF_A_CLASS = 10
_UNEQUAL = 10  # the largest class has this multiple of the smallest one's rows
_NAMED = 5
_SIGNS = 3


class Score(NamedTuple):
    """How a score is shown."""

    label: str
    meaning: str
    style: Literal["percent", "index", "amount"]
    more_is_better: bool = True


SCORES = {
    "accuracy": Score("Accuracy", "Share of the rows that are predicted right.", "percent"),
    "balanced_accuracy": Score(
        "Balanced accuracy", "Mean of the shares of each class that are predicted right.", "percent"
    ),
    "f1_macro": Score("F1", "Harmonic mean of precision and recall; mean of the classes.", "percent"),
    "precision_macro": Score("Precision", "Share of the rows predicted as a class that are of it; mean.", "percent"),
    "recall_macro": Score("Recall", "Share of the rows of a class that are predicted as it; mean.", "percent"),
    "log_loss": Score(
        "Log loss", "How far the probabilities are from the truth; 0 is best.", "index", more_is_better=False
    ),
    "roc_auc": Score(
        "Area under the ROC curve",
        "Chance that a row of a class has a higher probability for it than another row.",
        "percent",
    ),
    "r2": Score("R²", "Share of the variance that is explained; 0 is no better than the mean, 1 is perfect.", "index"),
    "mae": Score("Mean absolute error", "In units of the target.", "amount", more_is_better=False),
    "rmse": Score(
        "Root mean squared error", "In units of the target; large errors count more.", "amount", more_is_better=False
    ),
    "median_absolute_error": Score(
        "Median absolute error", "Half of the errors are smaller.", "amount", more_is_better=False
    ),
    "max_error": Score("Largest error", "In units of the target.", "amount", more_is_better=False),
}
_ESTIMATORS = {
    "hist_gradient_boosting": "gradient boosting of trees",
    "svm": "support vector machine",
    "k_neighbors": "vote of the nearest neighbours",
    "dummy": "baseline that looks at no column",
}

_ELSEWHERE = (
    "The scores hold for rows like those judged here. For other places, times or groups of people the model may be "
    "worse; it was not compared between groups."
)


def estimator_words(kind: str) -> str:
    """Return the name of a kind of estimator."""
    return _ESTIMATORS.get(kind, kind.replace("_", " "))


def about_classes(names: Sequence[str]) -> str:
    """Return the classes in words, at most a few of them."""
    more = f" or one of {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def score(name: str, value: float | None) -> str:
    """Return a score, rounded as its kind is read."""
    if value is None:
        return ABSENT
    match SCORES[name].style:
        case "percent":
            return f"{value * 100:.1f}\N{NARROW NO-BREAK SPACE}%"
        case "index":
            return f"{value:.3f}"
        case "amount":
            return written_number(value)


def change(name: str, value: float | None, baseline: float | None) -> tuple[str, Mood]:
    """Return how a score compares with the baseline's, and whether that is good."""
    if value is None or baseline is None:
        return "", ""
    better = value > baseline if SCORES[name].more_is_better else value < baseline
    if score(name, value) == score(name, baseline):
        return "as good as the baseline", "bad"
    said = (
        f"{abs(value - baseline) * 100:.1f} points"
        if SCORES[name].style == "percent"
        else score(name, abs(value - baseline))
    )
    return f"{said} {'better' if better else 'worse'}", "good" if better else "bad"


def written_number(value: float | None) -> str:
    """Return a number with about four significant digits."""
    return ABSENT if value is None else number_format(NumberFormat(), [value])(value)


def setting(value: Any) -> str:
    """Return the value of a setting as people say it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.{_SIGNS}g}" if isinstance(value, float) else f"{value:,}"
    if isinstance(value, dict):
        return printable(", ".join(f"{name}: {setting(one)}" for name, one in value.items()), 300)
    return printable(str(value), 300)


def limits(trained: Trained, names: Sequence[str] | None) -> list[str]:
    """Return what a reader should know before trusting the model, found in its data and scores."""
    summary, judged = trained.summary, trained.summary.evaluation
    said = [_ELSEWHERE]
    if judged.row_count < _FEW_ROWS:
        said.append(f"Only {judged.row_count:,} rows were judged, so the scores may be off by chance.")
    counts = summary.class_counts or {}
    rare = [printable(label, 60) for label, count in counts.items() if count < _FEW_OF_A_CLASS]
    if rare:
        said.append(f"Classes with fewer than {_FEW_OF_A_CLASS} rows, which it can hardly know: {about_classes(rare)}.")
    if counts and max(counts.values()) >= _UNEQUAL * max(1, min(counts.values())):
        said.append(
            "The classes differ much in size: read the balanced accuracy, as the accuracy favours large classes."
        )
    if names is not None and trained.predictions.probabilities is None:
        said.append("It gives no probabilities, so it cannot say how sure it is.")
    if summary.dropped_row_count:
        said.append(f"{summary.dropped_row_count:,} rows without a target were left out; if they are missing for a "
                    "reason, the model does not know it.")  # fmt: skip
    return [*said, *(printable(note, 500) for note in summary.notes)]
