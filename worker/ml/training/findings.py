"""What a reader should know of the training rows before trusting a score: leaks, ids, and columns that say nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from shared.jobs.ml.results import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from shared.jobs.ml.results import Evaluation
    from worker.ml.data.columns import InputColumn
    from worker.ml.data.rows import Rows

    Values = pd.Series[Any]

_MOST_FINDINGS = 30
_LEAST_ROWS = 20  # fewer agree by chance
_REPEATS = 5  # rows per value, at least, for a value to decide the target and not to be a name of its row
_MISSED = 0.005  # share of the rows of other classes than the most frequent one that do not follow from the column
_SEPARATED = 200  # rows that a threshold separates by chance, at most
_LEAST_OTHERS = 5
_LINE = 0.99995  # correlation of a number with the target that no measurement has
_DISTINCT = 0.95  # share of rows with a text of their own
_DENSE = 1.1  # span of the numbers of rows, of which some were dropped
_TWINS = 0.05  # share of judged rows that are trained on, too
_ERRORS = 2  # standard errors of more than chance
_VARIED = 50  # values of a column with which rows are hardly equal by chance


def of_columns(rows: Rows, inputs: Sequence[InputColumn]) -> list[Finding]:
    """Return what is strange about single columns of the training rows."""
    found = []
    for column in inputs:
        if column.feature.kind in {"date", "text"} or column.name not in rows.frame.columns:
            continue
        values = rows.frame[column.name]
        if finding := _of_column(values, column, rows):
            found.append(finding)
    gravest = ["target_copy", "id_column", "constant_column"]
    return sorted(found, key=lambda finding: gravest.index(finding.code))[:_MOST_FINDINGS]


def of_unused(unused: dict[str, str]) -> list[Finding]:
    """Return that columns were left out though the job did not drop them: those of `unused`, with their Arrow types."""
    found = []
    for name, kind in list(unused.items())[:_MOST_FINDINGS]:
        why = "has no values" if kind == "null" else f"has the type {kind}, of which no feature is made"
        found.append(Finding(code="unused_column", column=name, message=f"{name!r} {why}: it was left out."))
    return found


def of_split(rows: Rows, parts: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]) -> list[Finding]:
    """Return whether judged rows have twins among those trained on, in `parts` of training and judged rows."""
    varied = any(rows.frame[name].nunique() >= _VARIED for name in rows.frame.columns)
    judged = sum(len(test) for _, test in parts)
    if not varied or judged == 0:
        return []
    marks = pd.util.hash_pandas_object(rows.frame.assign(**{"": rows.target}), index=False).to_numpy()
    twins = sum(int(np.isin(marks[test], marks[train]).sum()) for train, test in parts)
    if twins < _TWINS * judged:
        return []
    message = (
        f"{twins:,} of {judged:,} judged rows are equal to a row trained on, target included: the scores are too good "
        "if these are copies. Remove them with etl.transform_data (deduplicate)."
    )
    return [Finding(code="duplicate_rows", message=message)]


def of_scores(judged: Evaluation) -> list[Finding]:
    """Return whether the model is worth nothing: no score is better than the baseline's by more than chance."""
    for name, chance in _chances(judged).items():
        model, baseline = judged.scores.get(name), judged.baseline.get(name)
        if model is None or baseline is None or model > baseline + chance:
            return []
    message = (
        "The model is not better than the baseline, which looks at no column, by more than chance: do not use it. Give "
        "it other columns or more rows."
    )
    return [Finding(code="no_better_than_baseline", message=message)]


def _chances(judged: Evaluation) -> dict[str, float]:
    """Return the scores to compare, each with the lead over the baseline that chance may give."""
    if judged.confusion is None:
        return {"r2": _ERRORS**2 / judged.row_count}
    rows = [sum(row) for row in judged.confusion.counts if sum(row)]
    right, guess = max(rows) / judged.row_count, 1 / len(rows)
    return {
        "accuracy": _ERRORS * math.sqrt(right * (1 - right) / judged.row_count),
        "balanced_accuracy": _ERRORS * guess * math.sqrt(sum(guess * (1 - guess) / count for count in rows)),
    }


def _of_column(values: Values, column: InputColumn, rows: Rows) -> Finding | None:
    name, present = column.name, values.notna().to_numpy()
    count = int(values.nunique())
    if count + (not present.all()) <= 1:
        said = f"{name!r} has the same value in all rows: it says nothing."
        return Finding(code="constant_column", column=name, message=said)
    if len(values) < _LEAST_ROWS:
        return None
    decides = _decides_class(values, rows) if rows.labels is not None else _decides_number(values, rows)
    if decides:
        said = (
            f"{name!r} alone decides the target: it is a copy of it, or was made from it. If it is not known before "
            "the target, add it to 'features.drop'; the scores are worth nothing with it."
        )
        return Finding(code="target_copy", column=name, message=said)
    if _is_id(values, column, count):
        said = (
            f"{name!r} looks like an id, with another value in each row: a model learns nothing from it that holds "
            "for other rows. Add it to 'features.drop'."
        )
        return Finding(code="id_column", column=name, message=said)
    return None


def _decides_class(values: Values, rows: Rows) -> bool:
    """Return whether values that repeat have one class each, or thresholds of a number separate all classes."""
    codes, distinct = pd.factorize(values, use_na_sentinel=False)
    others = len(codes) - int(np.bincount(rows.target).max())
    if others < _LEAST_OTHERS:
        return False
    if len(distinct) * _REPEATS > len(codes):
        present = values.notna().to_numpy()
        if values.dtype != np.float64 or present.sum() < _SEPARATED:
            return False
        ordered = rows.target[present][np.argsort(values.to_numpy()[present], kind="stable")]
        return bool(np.count_nonzero(np.diff(ordered)) == len(np.unique(ordered)) - 1 > 0)
    table = np.zeros((len(distinct), int(rows.target.max()) + 1), dtype=np.int64)
    np.add.at(table, (codes, rows.target), 1)
    return bool(len(codes) - table.max(axis=1).sum() <= _MISSED * others)


def _decides_number(values: Values, rows: Rows) -> bool:
    """Return whether the target is a number of the column, in another unit or on another scale."""
    if values.dtype != np.float64:
        return False
    present = values.notna().to_numpy()
    x, y = values.to_numpy()[present], rows.target[present]
    if len(x) < max(_LEAST_ROWS, len(values) / 2) or len(np.unique(x)) < _LEAST_ROWS or np.ptp(y) == 0:
        return False
    ranks = pd.Series(x).rank().to_numpy(), pd.Series(y).rank().to_numpy()
    return any(abs(float(np.corrcoef(*pair)[0, 1])) >= _LINE for pair in (ranks, (x, y)))


def _is_id(values: Values, column: InputColumn, count: int) -> bool:
    """Return whether nearly each row has a text, or each a whole number in a row of numbers, of its own."""
    if values.dtype != np.float64:
        return count >= _DISTINCT * len(values)
    if column.family != "integer" or count < len(values):
        return False
    span = float(values.max() - values.min()) + 1
    return span <= _DENSE * count or bool(values.is_monotonic_increasing)
