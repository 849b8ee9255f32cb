"""The charts of a model card, from predictions of rows that the model was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shared.jobs.charts import NumberFormat
from worker.pages.content.shapes import Bars, Bins, Cloud, Figure, Grid, Lines, Points, Series

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from shared.jobs.ml.results import ConfusionMatrix, Importance
    from worker.ml.training.scoring import Predicted

    Numbers = npt.NDArray[np.float64]

MOST_CLASSES = 20  # of a matrix or table
_MOST_DOTS = 1_500
_MOST_COLUMNS = 15
_LEAST_LOSS = 0.0005  # of score; less is hardly seen
_FEW_COLUMNS = 5  # shown even if nothing is lost
_BINS = 30
_LEAST_SPAN = 1e-9  # share of the largest error
_GROUPS = 10
_LEAST_IN_GROUP = 10
_STEPS = 50  # of the curve of found rows
_RATIO = NumberFormat(style="percent")
_SHARE = NumberFormat(style="percent", decimals=0)


def figures_of(truth: npt.NDArray[np.generic], of: Predicted, names: Sequence[str] | None, target: str) -> list[Figure]:
    """Return the charts that suit the task: for classes if there are `names` of them, else for numbers."""
    if names is None:
        numbers = truth.astype(np.float64)
        return [_against(numbers, of.answers, target), _residuals(numbers - of.answers, target)]
    if of.probabilities is None:
        return []
    found = [_calibration(truth, of.probabilities, names)]
    if len(names) == 2:  # noqa: PLR2004 - one class is the other's absence
        found.append(_found(truth == 1, of.probabilities[:, 1], names[1]))
    return [figure for figure in found if figure.marks]


def confusion(matrix: ConfusionMatrix, names: Sequence[str]) -> Figure:
    """Return which classes are taken for which: shares of the true class, of the classes with most rows."""
    counts = np.asarray(matrix.counts, dtype=np.float64)
    rows = counts.sum(axis=1)
    most = np.sort(np.argsort(-rows, kind="stable")[:MOST_CLASSES])
    shown = [names[place] for place in most]
    shares = [[float(counts[i, j] / rows[i]) if rows[i] else None for j in most] for i in most]
    cut = f"{len(most)} of {len(names):,} classes: those with most rows." if len(most) < len(names) else ""
    return Figure(
        "Predicted as", "heat_map", Grid(shown, shown, shares), int(rows.sum()), format=_SHARE, note=cut,
        x_label="predicted class", y_label="true class",
        caption="Each row is a true class, and says how its rows were predicted; the diagonal is right.",
    )  # fmt: skip


def importance(found: Sequence[Importance], *, classes: bool) -> Figure:
    """Return what the score loses without each column, the largest loss first."""
    most = [one for one in found[:_MOST_COLUMNS] if one.importance >= _LEAST_LOSS] or found[:_FEW_COLUMNS]
    lost: list[float | None] = [round(one.importance, 4) + 0.0 for one in most]  # + 0.0: no negative zero
    of_all = "Without any other column it loses less, or nothing." if len(most) < len(found) else ""
    return Figure(
        "Loss without each column", "bar", Bars([one.column for one in most], [Series("loss", lost)]), len(found),
        format=_RATIO if classes else NumberFormat(decimals=3), note=of_all, x_label="column",
        y_label="loss of accuracy" if classes else "loss of R²",
        caption="The loss when the values of a column are shuffled among the rows. Of two columns that say the same, "
        "each may look unimportant, as the model has the other.",
    )  # fmt: skip


def _against(truth: Numbers, answers: Numbers, target: str) -> Figure:
    chosen = np.unique(np.linspace(0, len(truth) - 1, min(len(truth), _MOST_DOTS)).astype(int))
    cut = f"A sample of {len(chosen):,} of {len(truth):,} rows." if len(chosen) < len(truth) else ""
    dots = Cloud("", [float(value) for value in answers[chosen]], [float(value) for value in truth[chosen]])
    return Figure(
        "True against predicted", "scatter", Points([dots], diagonal=True), len(truth), note=cut,
        x_label=f"predicted {target}", y_label=f"true {target}",
        caption="On the dotted line the prediction is right; above it, the true value is larger.",
    )  # fmt: skip


def _residuals(residuals: Numbers, target: str) -> Figure:
    low, high = float(residuals.min()), float(residuals.max())
    room = max(abs(low), abs(high)) * 0.1 or 0.5
    same = high - low <= _LEAST_SPAN * max(abs(low), abs(high))  # NumPy refuses bins that no float separates
    count, span = (1, (low - room, high + room)) if same else (min(_BINS, max(5, len(residuals) // 5)), (low, high))
    counts, edges = np.histogram(residuals, bins=count, range=span)
    bins = Bins([float(edge) for edge in edges], [int(count) for count in counts])
    return Figure(
        "Errors", "histogram", bins, len(residuals), x_label=f"true minus predicted {target}", y_label="rows",
        caption="A good model's errors are narrow, and as often above zero as below.",
    )  # fmt: skip


def _calibration(truth: npt.NDArray[np.generic], probabilities: Numbers, names: Sequence[str]) -> Figure:
    """Return how often the model is right when it says so, in groups of equally many rows.

    Of two classes, the probability is that of the second; of more, that of the predicted class.
    """
    binary = len(names) == 2  # noqa: PLR2004 - see above
    said = probabilities[:, 1] if binary else probabilities.max(axis=1)
    right = truth == 1 if binary else truth == probabilities.argmax(axis=1)
    groups = np.array_split(np.argsort(said, kind="stable"), max(1, min(_GROUPS, len(said) // _LEAST_IN_GROUP)))
    dots = Cloud("", [float(said[rows].mean()) for rows in groups], [float(right[rows].mean()) for rows in groups])
    what = f"of {names[1]}" if binary else "of the predicted class"
    return Figure(
        "Is a probability true?", "scatter", Points([dots], diagonal=True), len(said), format=_SHARE,
        x_label=f"predicted probability {what}", y_label="share of the rows in which it is so",
        caption=f"{len(groups)} groups of equally many rows, by their predicted probability. On the dotted line, a "
        "probability means what it says; below it, the model is too sure.",
    )  # fmt: skip


def _found(positive: npt.NDArray[np.bool_], said: Numbers, name: str) -> Figure:
    """Return the cumulative gains: the share of the positive rows among those with the highest probabilities."""
    total = int(positive.sum())
    if total == 0:
        return Figure("Found first", "line", Lines([], []), len(said))
    hits = np.concatenate([[0], np.cumsum(positive[np.argsort(-said, kind="stable")])])
    ends = np.unique(np.linspace(0, len(said), min(len(said), _STEPS) + 1).astype(int))
    shares = [float(end / len(said)) for end in ends]
    series = [Series("by the model", [float(hits[end] / total) for end in ends]), Series("by chance", list(shares))]
    return Figure(
        f"Found first: {name}", "line", Lines(list(shares), series), len(said), format=_SHARE, x_format=_SHARE,
        x_label="rows looked at, the most probable first", y_label=f"share of {name} found",
        caption="How many rows of this class are found by looking at the most probable rows only.",
    )  # fmt: skip
