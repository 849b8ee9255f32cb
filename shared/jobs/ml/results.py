"""Results of the ML family."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.contract.artifacts import Artifact, Dataset, ModelFile, RecipeFile, ReportFile, SearchFile, TrialFile
from shared.jobs.ml.estimators import LearningTask

Label = bool | int | str
Scores = dict[str, float | None]
Setting = bool | int | float | str | None


class Measured(BaseModel):
    """Base of results: no extra fields, and no number that JSON cannot represent."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FeatureResult(Measured):
    """A table of features, and the recipe that made it."""

    dataset: Dataset = Field(description="The features as numbers, and the target, if one is named.")
    recipe: RecipeFile = Field(description="The fitted recipe that makes the features.")
    recipe_version: int = Field(description="Version of the recipe's format.")
    feature_count: int = Field(ge=0, description="Features.")
    roles: dict[str, str] = Field(description="Role of each column that became features.")
    dropped: list[str] = Field(description="Columns of which no feature was made.")


class ConfusionMatrix(Measured):
    """Number of rows per true and predicted class."""

    labels: list[Label] = Field(description="Classes, in order.")
    counts: list[list[int]] = Field(description="`counts[i][j]`: rows of class i that were predicted as class j.")


class ResidualSummary(Measured):
    """Distribution of true value minus predicted value, in units of the target."""

    mean: float | None = Field(description="Mean; far from 0 it shows a bias.")
    standard_deviation: float | None = Field(description="Standard deviation of the residuals.")
    quantiles: dict[str, float | None] = Field(description="Quantiles, by their ratio.", examples=[{"0.5": 0.1}])


class FoldScores(Measured):
    """Scores of one fold."""

    fold: int = Field(ge=0, description="Number of the fold, from 0.")
    row_count: int = Field(ge=1, description="Test rows of the fold.")
    scores: Scores = Field(description="Scores on those rows.")


class Importance(Measured):
    """How much a column matters to the model."""

    column: str = Field(description="Column, or part of a date (`column: part`).")
    importance: float = Field(description="Mean loss of the score when the column is shuffled.")
    deviation: float = Field(description="Standard deviation of that loss over the shuffles.")


class Evaluation(Measured):
    """Scores of predictions on rows that were not trained on, compared with the baseline."""

    scores: Scores = Field(description="Scores of the model; null where one is not defined.")
    baseline: Scores = Field(description="Scores of the dummy baseline (most frequent class, mean) on the same rows.")
    row_count: int = Field(ge=1, description="Rows evaluated on.")
    confusion: ConfusionMatrix | None = Field(description="For classification.")
    residuals: ResidualSummary | None = Field(description="For regression.")


class Finding(Measured):
    """Something about data or model that makes scores deceptive."""

    code: Literal[
        "target_copy",
        "id_column",
        "constant_column",
        "unused_column",
        "duplicate_rows",
        "no_better_than_baseline",
    ] = Field(description="What was found.")
    column: str | None = Field(default=None, description="Column concerned.")
    message: str = Field(description="What it means, and what to do.")


class Timings(Measured):
    """Durations in seconds."""

    load_s: float = Field(ge=0, description="Reading the rows.")
    fit_s: float = Field(ge=0, description="Fitting features and estimator, in all folds.")
    evaluate_s: float = Field(ge=0, description="Predicting, scoring, importances.")


class TrainingSummary(Measured):
    """The training, its data and its scores, as in the model card."""

    task: LearningTask = Field(description="Learning task.")
    estimator: str = Field(description="Kind of estimator.")
    target: str = Field(description="Target column.")
    evaluation: Evaluation = Field(
        description="Scores on rows not trained on: held-out rows, or with cross-validation all rows."
    )
    folds: list[FoldScores] = Field(description="Scores per fold; empty without cross-validation.")
    importances: list[Importance] = Field(
        description="The 30 columns that matter most, on at most 500 rows not trained on, drawn at random."
    )
    train_row_count: int = Field(ge=1, description="Rows that the final model was fitted on.")
    dropped_row_count: int = Field(ge=0, description="Rows left out because their target is missing.")
    feature_count: int = Field(ge=0, description="Number of features.")
    class_counts: dict[str, int] | None = Field(description="Rows per class, for classification.")
    seed: int = Field(description="Seed of split, folds and estimator.")
    notes: list[str] = Field(description="Warnings, such as a solver that did not converge.")
    findings: list[Finding] = Field(default=[], description="Reasons to doubt scores or columns, the gravest first.")
    timings: Timings = Field(description="Durations.")


class TrainResult(Measured):
    """A trained model and its scores."""

    model: ModelFile = Field(description="The model: recipe and estimator.")
    card: ReportFile = Field(description="Model card for people: one HTML file.")
    card_json: Artifact = Field(description="Model card for programs.")
    dataset: Dataset | None = Field(description="The held-out rows, unchanged; null with cross-validation.")
    summary: TrainingSummary = Field(description="The training and its scores.")


class EvaluationResult(Measured):
    """A model evaluated on a dataset."""

    model: ModelFile = Field(description="The evaluated model.")
    dataset: Dataset = Field(description="The rows that it was evaluated on.")
    evaluation: Evaluation = Field(description="The scores.")
    dropped_row_count: int = Field(ge=0, description="Rows left out because their target is missing.")


class PredictionResult(Measured):
    """Predictions for a dataset."""

    dataset: Dataset = Field(description="Chosen columns, `prediction`, and probabilities, row by row.")
    class_counts: dict[str, int] | None = Field(description="Rows per predicted class, for classification.")
    probabilities: dict[str, str] | None = Field(
        default=None, description="Column of the probability of each class, by class; null if there are none."
    )
    mean: float | None = Field(description="Mean prediction, for regression.")
    minimum: float | None = Field(description="Smallest prediction, for regression.")
    maximum: float | None = Field(description="Largest prediction, for regression.")
    rows_per_s: float = Field(ge=0, description="Rows per second, reading and writing included.")


TrialState = Literal["completed", "pruned", "failed"]


class TrialResult(Measured):
    """One trial of a search."""

    trial: TrialFile = Field(description="The outcome, for the steps that follow.")
    number: int = Field(ge=0, description="Number of the trial.")
    state: TrialState = Field(description="`pruned`: stopped early because it was worse than the median so far.")
    params: dict[str, Setting] = Field(description="The hyperparameters that were tried.")
    score: float | None = Field(description="Mean score of the folds; of those that were run, if pruned.")
    fold_scores: list[float] = Field(description="Score per fold.")
    error: str | None = Field(description="Why it failed.")
    fit_s: float = Field(ge=0, description="Seconds spent on fitting, in all folds.")


class TrialSummary(Measured):
    """A trial in a list."""

    number: int = Field(ge=0, description="Number of the trial.")
    state: Literal["completed", "pruned", "failed", "lost", "proposed"] = Field(
        description="`lost`: its step crashed its worker or ran out of time; `proposed`: not run yet."
    )
    params: dict[str, Setting] = Field(description="The hyperparameters that were tried.")
    score: float | None = Field(description="Its score, if it has one.")


class SearchResult(Measured):
    """A search: its outcomes so far and its next trials."""

    search: SearchFile = Field(description="The search, for the steps that follow.")
    round: int = Field(ge=0, description="Number of the round that comes next.")
    proposed: list[TrialSummary] = Field(description="The trials of that round.")
    best_score: float | None = Field(description="Best score so far.")


class TuneResult(TrainResult):
    """The best model of a search, refitted on all training rows and evaluated on rows that no trial saw."""

    metric: str = Field(description="Score that was searched for.")
    best: TrialSummary = Field(description="The best trial.")
    trials: list[TrialSummary] = Field(description="All trials, in their order.")
    search: SearchFile = Field(description="The complete search, for programs.")


class MlPipelineResult(BaseModel):
    """The output of the pipeline's last step: predictions, or the evaluation if none were requested."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dataset: Dataset = Field(description="Predictions; without predictions, the rows that the model was evaluated on.")
    model: ModelFile | None = Field(default=None, description="The model, if the pipeline ends with its evaluation.")
    evaluation: Evaluation | None = Field(default=None, description="Likewise.")
