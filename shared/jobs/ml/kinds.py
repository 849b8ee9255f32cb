"""The ML family: features, training, evaluation, predictions. Hyperparameter search is in `tuning`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.contract.artifacts import ArtifactUri
from shared.contract.definition import Contract, FedFromUpstream, Limits, Retry
from shared.contract.names import ColumnName
from shared.contract.params import Component, Params
from shared.jobs.ml.estimators import ONLY_FOR, UNWEIGHTED, Estimator, LearningTask
from shared.jobs.ml.features import CategoryText, FeatureSpec
from shared.jobs.ml.results import EvaluationResult, FeatureResult, PredictionResult, TrainResult

_HOUR_S = 3600.0
ML_LIMITS = Limits(soft_s=2 * _HOUR_S - 60, hard_s=2 * _HOUR_S)
ML_RETRY = Retry(max_retries=2, backoff_s=2, backoff_max_s=60)
_DATASET = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"
_MODEL = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/model.skops"

FedDataset = Annotated[ArtifactUri, FedFromUpstream("dataset")]
FedModel = Annotated[ArtifactUri, FedFromUpstream("model")]
FedRecipe = Annotated[ArtifactUri | None, FedFromUpstream("recipe")]

ClassWeights = Annotated[
    Literal["balanced"] | dict[CategoryText, Annotated[float, Field(gt=0, le=1e6)]], Component("ClassWeights")
]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class BuildSpec(Params):
    """How to build a table of features."""

    target: ColumnName | None = Field(default=None, description="Target column: kept unchanged, and never a feature.")
    features: FeatureSpec = Field(default=FeatureSpec(), description="Roles of the columns.")
    recipe: ArtifactUri | None = Field(
        default=None, description="Apply this fitted recipe instead of fitting `features`."
    )

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.recipe is not None and "features" in self.model_fields_set and self.features != FeatureSpec():
            raise ValueError("give either 'features' or 'recipe': a recipe has its features")
        return self


class BuildFeatures(
    BuildSpec,
    Contract[FeatureResult],
    kind="ml.build_features",
    queue="ml",
    limits=ML_LIMITS,
    retry=ML_RETRY,
    examples=[
        {
            "dataset": _DATASET,
            "target": "price",
            "features": {"columns": {"comment": {"kind": "text"}}, "drop": ["id"]},
        },
        {"dataset": _DATASET, "recipe": "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/recipe.skops"},
    ],
):
    """Turn a dataset into numeric features, and store the recipe for them.

    The recipe is fitted on all rows of the dataset: means, categories, vocabularies. Training uses only its roles of
    the columns and fits the rest again on its training rows, so nothing leaks from held-out rows.
    """

    dataset: FedDataset = Field(description="The table; in a workflow, the output of the previous step.")


class HoldOut(Params):
    """Evaluate on held-out rows."""

    kind: Literal["hold_out"] = Field(description="Discriminator.")
    test_ratio: float = Field(default=0.2, ge=0.01, le=0.9, description="Ratio of rows that are held out.")
    stratified: bool = Field(
        default=True, description="Whether the split keeps the ratios of the classes; for classification."
    )


class CrossValidation(Params):
    """Evaluate each row with a model not fitted on it; the final model is fitted on all rows."""

    kind: Literal["cross_validation"] = Field(description="Discriminator.")
    folds: int = Field(default=5, ge=2, le=20, description="Number of folds.")
    stratified: bool = Field(
        default=True, description="Whether the split keeps the ratios of the classes; for classification."
    )


class LearningSpec(Params):
    """What to learn, from which columns."""

    task: LearningTask = Field(
        description="`classification` (strings, integers, booleans), or `regression` (a number)."
    )
    target: ColumnName = Field(description="Target column. Rows without a value in it are dropped.")
    estimator: Estimator = Field(description="Estimator to train, with its hyperparameters.")
    features: FeatureSpec | None = Field(default=None, description="Roles of the columns; by default from their types.")
    class_weights: ClassWeights | None = Field(
        default=None,
        description="Weight per class (1 by default), or `balanced`: inverse to the number of rows of the class.",
    )
    seed: Seed = Field(default=0, description="Random seed of split, folds and estimator.")

    @model_validator(mode="after")
    def _estimator_fits(self) -> Self:
        kind = self.estimator.kind
        if ONLY_FOR.get(kind, self.task) != self.task:
            raise ValueError(f"estimator: {kind!r} is for {ONLY_FOR[kind]}, not for {self.task}")
        if self.class_weights is not None and self.task != "classification":
            raise ValueError("'class_weights' require task 'classification'")
        if self.class_weights is not None and kind in UNWEIGHTED:
            raise ValueError(f"estimator: {kind!r} does not support 'class_weights'")
        return self

    @model_validator(mode="after")
    def _target_is_not_a_feature(self) -> Self:
        if self.features is not None and self.target in self.features.columns:
            raise ValueError(f"features: {self.target!r} is the target, which cannot be a feature")
        return self


class TrainSpec(LearningSpec):
    """What to train, and how to evaluate it."""

    validation: Annotated[HoldOut | CrossValidation, Field(discriminator="kind"), Component("Validation")] = Field(
        default=HoldOut(kind="hold_out"), description="How to evaluate the model."
    )


class TrainModel(
    TrainSpec,
    Contract[TrainResult],
    kind="ml.train_model",
    queue="ml",
    limits=ML_LIMITS,
    retry=ML_RETRY,
    examples=[
        {
            "dataset": _DATASET,
            "task": "classification",
            "target": "species",
            "estimator": {"kind": "random_forest", "n_estimators": 200},
        },
        {
            "dataset": _DATASET,
            "task": "regression",
            "target": "price",
            "estimator": {"kind": "hist_gradient_boosting"},
            "validation": {"kind": "cross_validation", "folds": 5},
        },
    ],
):
    """Train a model, evaluate it on unseen rows against a dummy baseline, and write its model card.

    Features and estimator are one pipeline, fitted on training rows only, in each fold again. A `recipe` sets the
    roles of the columns; if `dataset` was built by it, the model learns from the rows that it was built from.
    Progress counts trees, iterations, or folds.
    """

    dataset: FedDataset = Field(description="The rows to learn from; in a workflow, the output of the previous step.")
    recipe: FedRecipe = Field(default=None, description="Recipe of `build_features` to use instead of `features`.")

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.recipe is not None and self.features is not None:
            raise ValueError("give either 'features' or 'recipe': a recipe has its features")
        return self


class EvaluateModel(
    Contract[EvaluationResult],
    kind="ml.evaluate_model",
    queue="ml",
    limits=ML_LIMITS,
    retry=ML_RETRY,
    examples=[{"model": _MODEL, "dataset": _DATASET}],
):
    """Evaluate a model on a dataset with its target, against the baseline of its training rows."""

    model: FedModel = Field(description="The model; in a workflow, the output of the previous step.")
    dataset: FedDataset = Field(description="Rows with the true target; in a workflow, the rows held out in training.")


class PredictSpec(Params):
    """What the predictions contain."""

    keep_columns: list[ColumnName] = Field(
        default=[], max_length=100, description="Columns of the dataset to keep with the predictions, such as ids."
    )
    probabilities: bool = Field(
        default=True,
        description="Whether to add a column `probability_<class>` per class, if the model has probabilities. "
        "Names that differ only in case get the suffix `#<number>`.",
    )


class PredictBatch(
    PredictSpec,
    Contract[PredictionResult],
    kind="ml.predict_batch",
    queue="ml",
    limits=ML_LIMITS,
    retry=ML_RETRY,
    examples=[{"model": _MODEL, "dataset": _DATASET, "keep_columns": ["id"]}],
):
    """Predict every row of a dataset in batches, with bounded memory.

    A dataset is refused if it lacks a column of the model, or has it with another type.
    """

    model: FedModel = Field(description="The model; in a workflow, the output of the previous step.")
    dataset: FedDataset = Field(description="The rows; in a workflow, the output of the previous step.")
