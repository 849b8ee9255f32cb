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

    from worker.ml.data.rows import Rows

_MOST_NAMED = 30
_MOST_ROWS = 500
_SHUFFLES = 3
_MANY_COLUMNS = 100  # beyond this number each is shuffled once
_BLOCK_BYTES = 8 * 1024**2


class Shuffling:
    """What models say of rows that they were not trained on, with each column shuffled in turn.

    At most 500 of the judged rows are drawn, at random by the seed, so that the order of a file does not matter. With
    several folds, each row is predicted by the model that has not seen it, and the shuffled values are those of all.
    """

    def __init__(self, rows: Rows, judged: npt.NDArray[np.int64], *, seed: int) -> None:
        """Draw from the rows `judged`. Each column is shuffled up to three times by the default generator of `seed`."""
        if len(judged) > _MOST_ROWS:
            judged = np.random.default_rng([seed, 1]).choice(judged, _MOST_ROWS, replace=False)
        self._drawn = judged
        self._frame, self._target = rows.frame.iloc[judged], rows.target[judged]
        self._classes = rows.labels is not None
        random, names = np.random.default_rng(seed), self._frame.columns
        self._repeats = _SHUFFLES if len(names) <= _MANY_COLUMNS else 1
        self._shuffles = [(name, random.permutation(len(judged))) for name in names for _ in range(self._repeats)]
        self._whole = np.empty_like(self._target)
        self._shuffled = np.empty((len(self._shuffles), len(judged)), dtype=self._target.dtype)

    def predict(self, model: Any, test: npt.NDArray[np.int64]) -> None:
        """Take the predictions of `model` for those of the drawn rows that are among `test`."""
        here = np.flatnonzero(np.isin(self._drawn, test))
        if len(here) == 0:
            return
        self._whole[here] = model.predict(self._frame.iloc[here])
        for first, answers in self._answers(model, here):
            self._shuffled[first : first + len(answers), here] = answers

    def importances(self) -> list[Importance]:
        """Return the most important columns in descending order, once all rows are predicted.

        The loss is in accuracy or R². With fewer than two rows the list is empty.
        """
        if len(self._drawn) < 2:  # noqa: PLR2004 - see above
            return []
        whole = self._score(self._whole)
        losses = np.array([whole - self._score(answers) for answers in self._shuffled])
        by_column = losses.reshape(-1, self._repeats)
        order = np.argsort(-by_column.mean(axis=1), kind="stable")[:_MOST_NAMED]
        return [
            Importance(
                column=str(self._frame.columns[column])[:300],
                importance=float(by_column[column].mean()),
                deviation=float(by_column[column].std()),
            )
            for column in order
        ]

    def _answers(self, model: Any, here: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield predictions of shuffled copies, ``(n_copies, n_rows)``, with the number of the first copy."""
        held = {name: self._frame[name].to_numpy() for name in self._frame.columns}
        row_count, at_once = len(here), max(1, _BLOCK_BYTES // (8 * len(here) * len(held)))
        for first in range(0, len(self._shuffles), at_once):
            block = self._shuffles[first : first + at_once]
            copies = {name: np.tile(values[here], len(block)) for name, values in held.items()}
            for index, (name, order) in enumerate(block):
                copies[name][index * row_count : (index + 1) * row_count] = held[name][order[here]]
            shuffled = pd.DataFrame(
                {name: pd.Series(values, dtype=self._frame[name].dtype) for name, values in copies.items()}
            )
            yield first, np.asarray(model.predict(shuffled)).reshape(len(block), row_count)

    def _score(self, answers: npt.NDArray[Any]) -> float:
        return float(np.mean(self._target == answers) if self._classes else r2_score(self._target, answers))
