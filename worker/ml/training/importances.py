"""The importance of each column: the loss of score when its values are shuffled.

Breiman, "Random Forests", Machine Learning 45, 2001, section 10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.metrics import r2_score

from shared.jobs.ml.results import Importance

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

_MOST_NAMED = 30
_MOST_ROWS = 500
_SHUFFLES = 3
_MANY_COLUMNS = 100  # beyond this number each is shuffled once
_BLOCK_BYTES = 8 * 1024**2


def importances(
    model: Any, frame: pd.DataFrame, target: npt.NDArray[Any], *, classes: bool, seed: int
) -> list[Importance]:
    """Return the most important columns in descending order, computed on the first 500 rows of `frame`.

    The loss is in accuracy (if `classes`) or R². Each column is shuffled up to three times by NumPy's default generator
    of `seed`; shuffled copies are predicted many at a time. With fewer than two rows the list is empty.
    """
    frame, target = frame.iloc[:_MOST_ROWS], target[:_MOST_ROWS]
    row_count, column_count = frame.shape
    if row_count < 2:  # noqa: PLR2004 - see above
        return []
    repeats = _SHUFFLES if column_count <= _MANY_COLUMNS else 1
    whole = _score(target, model.predict(frame), classes=classes)
    losses = np.empty(column_count * repeats)
    for first, answers in _shuffled_answers(model, frame, repeats, seed):
        for index, answer in enumerate(answers):
            losses[first + index] = whole - _score(target, answer, classes=classes)
    by_column = losses.reshape(column_count, repeats)
    order = np.argsort(-by_column.mean(axis=1), kind="stable")[:_MOST_NAMED]
    return [
        Importance(
            column=str(frame.columns[column])[:300],
            importance=float(by_column[column].mean()),
            deviation=float(by_column[column].std()),
        )
        for column in order
    ]


def _shuffled_answers(
    model: Any, frame: pd.DataFrame, repeats: int, seed: int
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield predictions of shuffled copies, ``(n_copies, n_rows)``, with the number of the first copy."""
    random, row_count = np.random.default_rng(seed), len(frame)
    held = {name: frame[name].to_numpy() for name in frame.columns}
    shuffles = [(name, random.permutation(row_count)) for name in frame.columns for _ in range(repeats)]
    at_once = max(1, _BLOCK_BYTES // (8 * frame.size))
    for first in range(0, len(shuffles), at_once):
        block = shuffles[first : first + at_once]
        copies = {name: np.tile(values, len(block)) for name, values in held.items()}
        for index, (name, order) in enumerate(block):
            copies[name][index * row_count : (index + 1) * row_count] = held[name][order]
        shuffled = pd.DataFrame({name: pd.Series(values, dtype=frame[name].dtype) for name, values in copies.items()})
        yield first, np.asarray(model.predict(shuffled)).reshape(len(block), row_count)


def _score(target: npt.NDArray[Any], answers: npt.NDArray[Any], *, classes: bool) -> float:
    return float(np.mean(target == answers) if classes else r2_score(target, answers))
