"""One trial of a search: cross-validation on the training rows, fold by fold, with early stopping."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from shared.errors import TaskFailure, TransientFailure
from shared.jobs.ml.search_space import with_settings
from shared.texts import redact
from worker.ml.data.splits import held_out, trial_folds
from worker.ml.training.fitting import Meter, Notes, fit
from worker.ml.training.scoring import predicted, scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.ml.data.columns import InputColumn
    from worker.ml.data.rows import Rows
    from worker.ml.search.search import Search, Trial
    from worker.ml.training.fitting import Report

_LONGEST_ERROR = 500


def run_trial(search: Search, trial: Trial, rows: Rows, inputs: Sequence[InputColumn], report: Report) -> Trial:
    """Return `trial` with its outcome: completed, pruned, or failed with an error.

    Held-out rows are not used. Errors that would fail every other trial too (cancellation, an unreachable store) are
    raised.
    """
    try:
        fold_scores, pruned = _fold_scores(search, trial, rows, inputs, report)
    except TransientFailure:
        raise
    except (TaskFailure, ValueError, ArithmeticError, MemoryError) as failure:
        error = redact(str(failure) or type(failure).__name__)[:_LONGEST_ERROR]
        return trial.model_copy(update={"state": "failed", "error": error})
    return trial.model_copy(
        update={
            "state": "pruned" if pruned else "completed",
            "score": statistics.fmean(fold_scores),
            "fold_scores": fold_scores,
        }
    )


def _fold_scores(
    search: Search, trial: Trial, rows: Rows, inputs: Sequence[InputColumn], report: Report
) -> tuple[list[float], bool]:
    spec = search.spec
    train, _ = held_out(rows, spec.hold_out, seed=spec.seed)
    seen = rows.take(train)
    learning = spec.model_copy(update={"estimator": with_settings(spec.estimator, trial.params)})
    meter = Meter(learning.estimator, spec.folds, report)
    found: list[float] = []
    with Notes().taken():
        for part, judged in trial_folds(seen, spec):
            fitted = fit(inputs, learning, seen, part, meter)
            answers = predicted(fitted.pipeline, seen.frame.iloc[judged], seen.labels)
            score = scores(seen.target[judged], answers, seen.labels)[spec.searched_metric]
            if score is None:
                raise TaskFailure(
                    "undefined_score",
                    f"{spec.searched_metric} is not defined in fold {len(found)}.",
                    remedy="Choose another 'metric', or use fewer 'folds', so that each has rows of every class.",
                )
            found.append(score)
            if search.is_hopeless(found):
                return found, True
    return found, False
