"""A search for hyperparameters: its outcomes so far and its next trials, kept in a file that steps pass on."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from shared.contract.artifacts import ArtifactUri
from shared.contract.params import Params
from shared.errors import TaskFailure
from shared.jobs.ml.results import Setting, TrialSummary
from shared.jobs.ml.search_space import Choices, FloatRange, with_settings
from shared.jobs.ml.tuning import MINIMISED, GridSearch, SearchSpec, TpeSearch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from shared.jobs.ml.search_space import IntRange

_LEAST_COMPLETED = 3  # completed trials before one can be stopped for being worse than the median


class Trial(Params):
    """One combination of hyperparameters, and its outcome."""

    number: int = Field(ge=0, description="Its number, from 0.")
    params: dict[str, Setting] = Field(description="The hyperparameters.")
    state: Literal["proposed", "completed", "pruned", "failed", "lost"] = Field(
        default="proposed", description="Outcome."
    )
    score: float | None = Field(default=None, description="Mean of the fold scores.")
    fold_scores: list[float] = Field(default=[], description="Score of each fold that was run.")
    error: str | None = Field(default=None, description="Why it failed.")

    @model_validator(mode="after")
    def _scored(self) -> Self:
        if self.state in {"completed", "pruned"} and self.score is None:
            raise ValueError(f"a trial with state {self.state} needs a score")
        return self

    def summary(self) -> TrialSummary:
        """Return the trial in the form that results show."""
        return TrialSummary(number=self.number, state=self.state, params=self.params, score=self.score)


class Search(Params):
    """The complete state of a search."""

    format: Literal["celeriac-search-1"] = Field(default="celeriac-search-1", description="File format and version.")
    spec: SearchSpec = Field(description="Search parameters.")
    dataset: ArtifactUri = Field(description="Training rows.")
    recipe: ArtifactUri | None = Field(description="Recipe of the features.")
    round: int = Field(default=0, ge=0, description="Number of the proposed round.")
    trials: list[Trial] = Field(default=[], description="Trials, in the order of their numbers.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.round >= len(self.spec.round_sizes()):
            raise ValueError(f"the search has no round {self.round}")
        if [trial.number for trial in self.trials] != list(range(len(self.trials))):
            raise ValueError("the trials are not numbered from 0")
        for trial in self.trials:
            with_settings(self.spec.estimator, trial.params)
        return self

    def proposed(self) -> list[Trial]:
        """Return the trials of the next round."""
        return [trial for trial in self.trials if trial.state == "proposed"]

    def trial(self, number: int) -> Trial:
        """Return a trial by its number. Raises `TaskFailure` (``no_such_trial``)."""
        if number >= len(self.trials):
            raise TaskFailure(
                "no_such_trial",
                f"The search has no trial {number}.",
                remedy="Submit ml.tune_model, which orders the steps.",
            )
        return self.trials[number]

    def best(self) -> Trial | None:
        """Return the completed trial with the best score, the first of equal ones; None if none is completed."""
        completed = [trial for trial in self.trials if trial.state == "completed"]
        return min(completed, key=lambda trial: self._loss(trial.score or 0.0), default=None)

    def is_hopeless(self, fold_scores: Sequence[float]) -> bool:
        """Return whether a trial with these scores is worse than the median of completed trials after as many folds.

        The rule is from Golovin et al., "Google Vizier", KDD 2017. It applies once three trials are completed, and not
        after the last fold.
        """
        count = len(fold_scores)
        completed = [trial.fold_scores for trial in self.trials if trial.state == "completed"]
        if not self.spec.prune or count >= self.spec.folds or len(completed) < _LEAST_COMPLETED:
            return False
        median = statistics.median(self._loss(statistics.fmean(scores[:count])) for scores in completed)
        return self._loss(statistics.fmean(fold_scores)) > median

    def next_round(self, outcomes: Sequence[Trial]) -> Search:
        """Return the search with the outcomes of its round, lost trials marked, and the next round proposed.

        Raises `TaskFailure` (``search_ended``) if this was the last round.
        """
        if self.round + 1 >= len(self.spec.round_sizes()):
            raise TaskFailure(
                "search_ended",
                f"The search ended with round {self.round}.",
                remedy="Submit ml.tune_model to start another search.",
            )
        known = self.learnt(outcomes)
        return known.model_copy(update={"round": self.round + 1}).with_proposals()

    def learnt(self, outcomes: Sequence[Trial]) -> Search:
        """Return the search with the outcomes of its round; a trial without an outcome is marked as lost."""
        by_number = {trial.number: trial for trial in outcomes}
        trials = []
        for trial in self.trials:
            outcome = by_number.get(trial.number, trial)
            if outcome.params != trial.params or outcome.state == "proposed":
                outcome = trial.model_copy(update={"state": "lost"})
            trials.append(outcome if trial.state == "proposed" else trial)
        return self.model_copy(update={"trials": trials})

    def with_proposals(self) -> Search:
        """Return the search with the trials of round `round` added. The same search proposes the same trials."""
        size = self.spec.round_sizes()[self.round]
        combinations = _grid(self.spec) if isinstance(self.spec.method, GridSearch) else self._drawn(size)
        first = len(self.trials)
        added = [Trial(number=first + index, params=params) for index, params in enumerate(combinations)]
        return self.model_copy(update={"trials": [*self.trials, *added]})

    def _loss(self, score: float) -> float:
        return score if self.spec.searched_metric in MINIMISED else -score

    def _drawn(self, size: int) -> list[dict[str, Setting]]:
        study, space = self._study(), {name: _distribution(one) for name, one in self.spec.space.items()}
        for trial in self.trials:
            if trial.state in {"completed", "pruned"}:
                study.add_trial(_frozen(trial, self.spec, space))
        return [
            {name: _setting(self.spec.space[name], value) for name, value in study.ask(space).params.items()}
            for _ in range(size)
        ]

    def _study(self) -> Study:
        """Return an in-memory study whose random draws depend on this round only."""
        import optuna  # noqa: PLC0415 - a second of imports, which only a search needs

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = (self.spec.seed + 7919 * self.round) % 2**32
        sampler: optuna.samplers.BaseSampler = (
            optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.spec.round_sizes()[0])
            if isinstance(self.spec.method, TpeSearch)
            else optuna.samplers.RandomSampler(seed=seed)
        )
        minimised = self.spec.searched_metric in MINIMISED
        return optuna.create_study(direction="minimize" if minimised else "maximize", sampler=sampler)


def _grid(spec: SearchSpec) -> list[dict[str, Setting]]:
    axes: list[list[Setting]] = []
    for dimension in spec.space.values():
        if isinstance(dimension, Choices):
            axes.append(list(dimension.choices))
        elif not isinstance(dimension, FloatRange):  # the contract allows no float range in a grid
            axes.append(list(dimension.values()))
    return [dict(zip(spec.space, point, strict=True)) for point in itertools.product(*axes)]


def _distribution(dimension: IntRange | FloatRange | Choices) -> BaseDistribution:
    from optuna import distributions  # noqa: PLC0415 - see above

    if isinstance(dimension, Choices):  # by position: Optuna considers 1, 1.0 and True the same choice
        return distributions.CategoricalDistribution(tuple(range(len(dimension.choices))))
    if isinstance(dimension, FloatRange):
        return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return distributions.IntDistribution(dimension.low, dimension.values()[-1], log=dimension.log, step=dimension.step)


def _setting(dimension: IntRange | FloatRange | Choices, value: float) -> Setting:
    return dimension.choices[int(value)] if isinstance(dimension, Choices) else value


def _drawn_value(dimension: IntRange | FloatRange | Choices, setting: Setting) -> Any:
    if not isinstance(dimension, Choices):
        return setting
    return next(
        index for index, choice in enumerate(dimension.choices) if type(choice) is type(setting) and choice == setting
    )


def _frozen(trial: Trial, spec: SearchSpec, space: dict[str, BaseDistribution]) -> FrozenTrial:
    """Return a trial in Optuna's form; a pruned one carries its intermediate scores."""
    from optuna.trial import TrialState, create_trial  # noqa: PLC0415 - see above

    so_far = itertools.accumulate(trial.fold_scores)
    return create_trial(
        state=TrialState.COMPLETE if trial.state == "completed" else TrialState.PRUNED,
        value=trial.score,
        params={name: _drawn_value(spec.space[name], value) for name, value in trial.params.items()},
        distributions=space,
        intermediate_values={index: total / (index + 1) for index, total in enumerate(so_far)},
    )
