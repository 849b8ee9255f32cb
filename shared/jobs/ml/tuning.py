"""The search for hyperparameters: a workflow of rounds of trials, and its steps.

start -> (hold_0 | trial_0 | trial_1 ...) -> propose_1 -> (hold_1 | trial_4 ...) -> ... -> refit
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.contract.artifacts import ArtifactUri
from shared.contract.definition import Contract, FedFromUpstream, Limits
from shared.contract.params import Component, Params
from shared.jobs.ml.kinds import ML_LIMITS, ML_RETRY, FedDataset, FedRecipe, HoldOut, LearningSpec
from shared.jobs.ml.results import SearchResult, TrialResult, TuneResult
from shared.jobs.ml.search_space import MAX_TRIALS, Space, grid_size, need_space_fits
from shared.workflows.definition import WorkflowContract
from shared.workflows.nodes import Chain, Chord, Node, StepPlan, fed_step, step

_HOUR_S = 3600.0
_DATASET = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"
_SEARCH = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/search.json"
_TRIAL = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ac/1/trial.json"
_SPEC = {
    "task": "classification",
    "target": "species",
    "estimator": {"kind": "random_forest", "n_estimators": 50},
    "space": {"max_depth": {"kind": "int", "low": 2, "high": 12}},
}

FedSearch = Annotated[ArtifactUri, FedFromUpstream("search")]
FedTrials = Annotated[list[ArtifactUri], FedFromUpstream("trial")]

ClassificationMetric = Literal["accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss"]
RegressionMetric = Literal["r2", "mae", "rmse"]
MINIMISED = frozenset({"log_loss", "mae", "rmse"})
_CLASSIFIES = frozenset({"accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss"})
_OF_PROBABILITIES = frozenset({"roc_auc", "log_loss"})


class GridSearch(Params):
    """Every combination, in one round."""

    kind: Literal["grid"] = Field(description="Discriminator.")


class _Rounds(Params):
    rounds: int = Field(default=1, ge=1, le=20, description="Rounds; later ones know the outcomes of earlier ones.")
    trials_per_round: int = Field(default=5, ge=1, le=100, description="Trials of a round, which run in parallel.")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.rounds * self.trials_per_round > MAX_TRIALS:
            raise ValueError(f"'rounds' times 'trials_per_round' is more than {MAX_TRIALS} trials")
        return self


class RandomSearch(_Rounds):
    """Combinations drawn at random."""

    kind: Literal["random"] = Field(description="Discriminator.")


class TpeSearch(_Rounds):
    """Optuna's tree-structured Parzen estimator: each round draws where earlier trials were good; the first at random.

    Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011.
    """

    kind: Literal["tpe"] = Field(description="Discriminator.")
    rounds: int = Field(default=4, ge=1, le=20, description="Rounds; each learns from those before.")


SearchMethod = Annotated[GridSearch | RandomSearch | TpeSearch, Field(discriminator="kind"), Component("SearchMethod")]


class SearchSpec(LearningSpec):
    """What to search, and how to evaluate trials."""

    space: Space = Field(description="Ranges of hyperparameters; the others are those of `estimator`.")
    method: SearchMethod = Field(default=TpeSearch(kind="tpe"), description="How to choose trials.")
    metric: ClassificationMetric | RegressionMetric | None = Field(
        default=None, description="Score to search for; default: `accuracy` or `r2`."
    )
    folds: int = Field(default=3, ge=2, le=10, description="Folds of the training rows on which a trial is evaluated.")
    prune: bool = Field(
        default=True,
        description="Whether a trial stops after a fold in which its mean so far is worse than the median of the "
        "trials completed in earlier rounds (of three at least).",
    )
    hold_out: HoldOut = Field(
        default=HoldOut(kind="hold_out"), description="Rows that no trial sees, on which the best model is evaluated."
    )

    @property
    def searched_metric(self) -> str:
        return self.metric or ("accuracy" if self.task == "classification" else "r2")

    def round_sizes(self) -> list[int]:
        """Return how many trials each round has."""
        if isinstance(self.method, GridSearch):
            return [grid_size(self.space)]
        return [self.method.trials_per_round] * self.method.rounds

    @model_validator(mode="after")
    def _space_fits(self) -> Self:
        need_space_fits(self.space, self.estimator)
        if isinstance(self.method, GridSearch) and (size := grid_size(self.space)) > MAX_TRIALS:
            raise ValueError(f"space: the grid has {size} points; at most {MAX_TRIALS} are possible")
        return self

    @model_validator(mode="after")
    def _metric_fits(self) -> Self:
        if (self.searched_metric in _CLASSIFIES) != (self.task == "classification"):
            raise ValueError(f"metric: {self.metric!r} is not for {self.task}")
        if self.searched_metric in _OF_PROBABILITIES and self.estimator.kind == "svm":
            raise ValueError(f"metric: {self.metric!r} needs probabilities, which 'svm' does not give")
        return self


class StartSearch(
    SearchSpec,
    Contract[SearchResult],
    kind="ml.start_search",
    internal=True,
    queue="ml",
    limits=ML_LIMITS,
    retry=ML_RETRY,
    examples=[{"dataset": _DATASET, **_SPEC}],
):
    """Check the training rows, and propose the first round of trials. A step of `ml.tune_model`."""

    dataset: FedDataset = Field(description="The rows to learn from; in a workflow the step before gives them.")
    recipe: FedRecipe = Field(default=None, description="Recipe of `build_features` instead of `features`.")

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.recipe is not None and self.features is not None:
            raise ValueError("give either 'features' or 'recipe': a recipe has its features")
        return self


class TrialSpec(Params):
    """The trial to run."""

    number: int = Field(ge=0, lt=MAX_TRIALS, description="Number of the trial, from 0.")


class RunTrial(
    TrialSpec,
    Contract[TrialResult],
    kind="ml.run_trial",
    internal=True,
    queue="ml",
    limits=Limits(soft_s=_HOUR_S - 60, hard_s=_HOUR_S),
    retry=ML_RETRY,
    max_crashes=2,
    examples=[{"search": _SEARCH, "number": 0}],
):
    """Evaluate one combination of hyperparameters by cross-validation on the training rows. A step of `ml.tune_model`.

    If a trial cannot be fitted, its result is the failure; a trial that is worse than the median stops early.
    """

    search: FedSearch = Field(description="The search that proposed it.")


class HoldSearch(
    Contract[SearchResult],
    kind="ml.hold_search",
    internal=True,
    queue="ml",
    limits=Limits(soft_s=300, hard_s=360),
    retry=ML_RETRY,
    examples=[{"search": _SEARCH}],
):
    """Pass the search on to the next round, even if every trial of this one is lost. A step of `ml.tune_model`."""

    search: FedSearch = Field(description="The search.")


class ProposeTrials(
    Contract[SearchResult],
    kind="ml.propose_trials",
    internal=True,
    queue="ml",
    limits=Limits(soft_s=900, hard_s=960),
    retry=ML_RETRY,
    examples=[{"search": _SEARCH, "trials": [_TRIAL]}],
):
    """Learn from a round of trials and propose the next. A step of `ml.tune_model`."""

    search: FedSearch = Field(description="The search before the round.")
    trials: FedTrials = Field(max_length=MAX_TRIALS, description="Outcomes of the round; lost trials have none.")


class RefitBest(
    Contract[TuneResult],
    kind="ml.refit_best",
    internal=True,
    queue="ml",
    limits=ML_LIMITS,
    retry=ML_RETRY,
    examples=[{"search": _SEARCH, "trials": [_TRIAL]}],
):
    """Fit the best trial on all training rows, and evaluate it on rows that no trial saw. A step of `ml.tune_model`."""

    search: FedSearch = Field(description="The search before its last round.")
    trials: FedTrials = Field(max_length=MAX_TRIALS, description="Outcomes of the last round.")


def search_nodes(start: StepPlan, spec: SearchSpec) -> list[Node]:
    """Return the steps of a search in order: `start`, then a chord per round; the last one refits."""
    nodes: list[Node] = [start]
    sizes, nothing = spec.round_sizes(), Params()
    for index, size in enumerate(sizes):
        first = sum(sizes[:index])
        trials = [
            fed_step(f"trial_{number}", RunTrial, TrialSpec(number=number), may_fail=True)
            for number in range(first, first + size)
        ]
        last = index == len(sizes) - 1
        body = (
            fed_step("refit", RefitBest, nothing) if last else fed_step(f"propose_{index + 1}", ProposeTrials, nothing)
        )
        nodes.append(Chord([fed_step(f"hold_{index}", HoldSearch, nothing), *trials], body))
    return nodes


class TuneModel(
    SearchSpec,
    WorkflowContract[TuneResult],
    kind="ml.tune_model",
    queue="ml",
    limits=Limits(soft_s=12 * _HOUR_S - 60, hard_s=12 * _HOUR_S),
    examples=[
        {"dataset": _DATASET, **_SPEC, "method": {"kind": "tpe", "rounds": 4, "trials_per_round": 5}},
        {
            "dataset": _DATASET,
            **_SPEC,
            "method": {"kind": "grid"},
            "space": {"max_depth": {"kind": "categorical", "choices": [2, 4, None]}},
        },
    ],
):
    """Search hyperparameters in parallel, refit the best, and evaluate it on rows that no trial saw.

    Every trial is a step with its score. A trial that fails, crashes its worker or runs out of time does not fail
    the search; the search fails if no trial completes.
    """

    dataset: FedDataset = Field(description="The rows to learn from; in a workflow the step before gives them.")
    recipe: ArtifactUri | None = Field(default=None, description="Recipe of `build_features` instead of `features`.")

    def plan(self) -> Node:
        """Return start -> chord of trials -> propose -> chord of trials -> ... -> refit."""
        given = StartSearch.model_validate(self.model_dump())
        return Chain(*search_nodes(step("start", given), self))
