"""Train a model and evaluate it on rows that it was not trained on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.jobs.ml.kinds import CrossValidation
from shared.jobs.ml.results import FoldScores, Timings, TrainingSummary
from worker.ml.data.splits import folds, held_out
from worker.ml.training import findings
from worker.ml.training.fitting import Meter, Notes, fit
from worker.ml.training.importances import Shuffling
from worker.ml.training.scoring import Predicted, evaluation, predicted, scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from shared.jobs.ml.kinds import HoldOut, TrainSpec
    from shared.jobs.ml.results import Evaluation, Finding, Importance, Label
    from worker.ml.data.columns import InputColumn
    from worker.ml.data.rows import Rows
    from worker.ml.model.pipeline import Fitted
    from worker.ml.training.fitting import Report

    Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trained:
    """A fitted model, its scores, the rows that it was judged on, and the positions in the file of the held-out rows.

    `truth` is the target of the judged rows as in `Rows`, and `predictions` are what the model says of them.
    """

    fitted: Fitted
    labels: list[Label] | None
    summary: TrainingSummary
    truth: npt.NDArray[Any]
    predictions: Predicted
    held_out: Indices | None


@dataclass
class _Clock:
    """Seconds spent on fitting and on evaluation."""

    fit_s: float = 0
    evaluate_s: float = 0
    _since: float = field(default_factory=time.perf_counter)

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        since, self._since = self._since, time.perf_counter()
        return self._since - since


@dataclass(frozen=True)
class Training:
    """One training: its rows and its spec."""

    rows: Rows
    inputs: Sequence[InputColumn]
    spec: TrainSpec
    report: Report
    load_s: float
    unused: dict[str, str] = field(default_factory=dict)
    """Columns that were left out though nobody asked for it, with their types."""

    def run(self) -> Trained:
        """Fit and evaluate, on held-out rows or by cross-validation. Raises `TaskFailure`."""
        how = self.spec.validation
        return self._crossed(how) if isinstance(how, CrossValidation) else self._held_out(how)

    def _held_out(self, how: HoldOut) -> Trained:
        train, test = held_out(self.rows, how, seed=self.spec.seed)
        notes, clock, parts = Notes(), _Clock(), [(train, test)]
        with notes.taken():
            fitted = fit(self.inputs, self.spec, self.rows, train, Meter(self.spec.estimator, 1, self.report))
            clock.fit_s = clock.lap()
            model, baseline = self._predictions(fitted, test)
            judged = self._evaluation(model, baseline, test)
            shuffling = Shuffling(self.rows, test, seed=self.spec.seed)
            shuffling.predict(fitted.pipeline, test)
        clock.evaluate_s = clock.lap()
        summary = self._summary(
            findings=self._findings(judged, parts),
            fitted=fitted,
            judged=judged,
            per_fold=[],
            importances=shuffling.importances(),
            train_row_count=len(train),
            notes=notes,
            clock=clock,
        )
        truth = self.rows.target[test]
        return Trained(fitted, self.rows.labels, summary, truth, model, held_out=self.rows.positions[test])

    def _crossed(self, how: CrossValidation) -> Trained:
        notes, clock, rows = Notes(), _Clock(), self.rows
        meter = Meter(self.spec.estimator, how.folds + 1, self.report)
        per_fold: list[FoldScores] = []
        parts: list[tuple[Indices, Predicted, Predicted]] = []
        cut = folds(rows, how, seed=self.spec.seed)
        shuffling = Shuffling(rows, np.arange(len(rows.target)), seed=self.spec.seed)
        with notes.taken():
            for train, test in cut:
                fitted = fit(self.inputs, self.spec, rows, train, meter)
                clock.fit_s += clock.lap()
                model, baseline = self._predictions(fitted, test)
                found = scores(rows.target[test], model, rows.labels)
                per_fold.append(FoldScores(fold=len(per_fold), row_count=len(test), scores=found))
                parts.append((test, model, baseline))
                shuffling.predict(fitted.pipeline, test)
                clock.evaluate_s += clock.lap()
            final = fit(self.inputs, self.spec, rows, np.arange(len(rows.target)), meter)
            clock.fit_s += clock.lap()
        order = np.concatenate([test for test, _, _ in parts])
        predictions = _joined([part[1] for part in parts])
        judged = self._evaluation(predictions, _joined([part[2] for part in parts]), order)
        summary = self._summary(
            findings=self._findings(judged, cut),
            fitted=final,
            judged=judged,
            per_fold=per_fold,
            importances=shuffling.importances(),
            train_row_count=len(rows.target),
            notes=notes,
            clock=clock,
        )
        return Trained(final, rows.labels, summary, rows.target[order], predictions, held_out=None)

    def _predictions(self, fitted: Fitted, test: Indices) -> tuple[Predicted, Predicted]:
        frame, labels = self.rows.frame.iloc[test], self.rows.labels
        return predicted(fitted.pipeline, frame, labels), predicted(fitted.baseline, frame, labels)

    def _evaluation(self, model: Predicted, baseline: Predicted, test: Indices) -> Evaluation:
        return evaluation(self.rows.target[test], model, baseline, self.rows.labels)

    def _findings(self, judged: Evaluation, parts: Sequence[tuple[Indices, Indices]]) -> list[Finding]:
        return [
            *findings.of_scores(judged),
            *findings.of_columns(self.rows, self.inputs),
            *findings.of_split(self.rows, parts),
            *findings.of_unused(self.unused),
        ]

    def _summary(
        self,
        *,
        findings: list[Finding],
        fitted: Fitted,
        judged: Evaluation,
        per_fold: list[FoldScores],
        importances: list[Importance],
        train_row_count: int,
        notes: Notes,
        clock: _Clock,
    ) -> TrainingSummary:
        return TrainingSummary(
            task=self.spec.task,
            estimator=self.spec.estimator.kind,
            target=self.spec.target,
            evaluation=judged,
            folds=per_fold,
            importances=importances,
            train_row_count=train_row_count,
            dropped_row_count=self.rows.dropped_count,
            feature_count=fitted.feature_count,
            class_counts=self.rows.class_counts(),
            seed=self.spec.seed,
            notes=notes.texts,
            findings=findings,
            timings=Timings(load_s=self.load_s, fit_s=clock.fit_s, evaluate_s=clock.evaluate_s),
        )


def _joined(parts: list[Predicted]) -> Predicted:
    """Return the predictions of several folds, concatenated."""
    chances = [part.probabilities for part in parts if part.probabilities is not None]
    return Predicted(np.concatenate([part.answers for part in parts]), np.concatenate(chances) if chances else None)
