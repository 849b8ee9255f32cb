"""The ML family: features, training, evaluation, predictions. The search for hyperparameters is in `tuning`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.contract.artifacts import ArtifactUri
from shared.contract.definition import Contract, FedFromUpstream, Limits, Retry
from shared.contract.names import ColumnName
from shared.contract.params import Params
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

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class BuildSpec(Params):
    """How a table of features is made."""

    target: ColumnName | None = Field(
        default=None, description="Column that is to be learnt: it is kept as it is and never becomes a feature."
    )
    features: FeatureSpec = Field(default=FeatureSpec(), description="Roles of the columns.")
    recipe: ArtifactUri | None = Field(
        default=None, description="Apply this recipe as it was learnt, and learn nothing; instead of `features`."
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
    """Turn a dataset into numbers, and keep how: the recipe.

    The recipe learns means, categories and vocabularies from all rows of this dataset. Training takes from it what
    becomes of which column, and learns the rest from its own training rows, so nothing of held-out rows leaks.
    """

    dataset: FedDataset = Field(description="The table; in a workflow the step before gives it.")


class HoldOut(Params):
    """Judge on rows that are set aside."""

    kind: Literal["hold_out"] = Field(description="Discriminator.")
    test_ratio: float = Field(default=0.2, ge=0.01, le=0.9, description="Ratio of rows that are set aside.")
    stratified: bool = Field(default=True, description="Whether classes keep their ratios; for classification.")


class CrossValidation(Params):
    """Judge every row by a model that did not see it; the final model is then fitted on all rows."""

    kind: Literal["cross_validation"] = Field(description="Discriminator.")
    folds: int = Field(default=5, ge=2, le=20, description="Folds.")
    stratified: bool = Field(default=True, description="Whether classes keep their ratios; for classification.")


class LearningSpec(Params):
    """What is learnt from which columns."""

    task: LearningTask = Field(description="Classes (strings, integers, truth values), or a number.")
    target: ColumnName = Field(description="Column to learn. Rows where it is missing are left out.")
    estimator: Estimator = Field(description="What is trained, with its hyperparameters.")
    features: FeatureSpec | None = Field(default=None, description="Roles of the columns; default: by their types.")
    class_weights: Literal["balanced"] | dict[CategoryText, Annotated[float, Field(gt=0, le=1e6)]] | None = Field(
        default=None,
        description="Weight per class (1 for those not named), or `balanced`: inverse to their numbers of rows.",
    )
    seed: Seed = Field(default=0, description="Seed of split, folds and estimator.")

    @model_validator(mode="after")
    def _estimator_fits(self) -> Self:
        kind = self.estimator.kind
        if ONLY_FOR.get(kind, self.task) != self.task:
            raise ValueError(f"estimator: {kind!r} is for {ONLY_FOR[kind]}, not for {self.task}")
        if self.class_weights is not None and self.task != "classification":
            raise ValueError("'class_weights' are for classification")
        if self.class_weights is not None and kind in UNWEIGHTED:
            raise ValueError(f"estimator: {kind!r} takes no 'class_weights'")
        return self

    @model_validator(mode="after")
    def _target_is_no_feature(self) -> Self:
        if self.features is not None and self.target in self.features.columns:
            raise ValueError(f"features: {self.target!r} is the target, which cannot be a feature")
        return self


class TrainSpec(LearningSpec):
    """What is trained, and how it is judged."""

    validation: Annotated[HoldOut | CrossValidation, Field(discriminator="kind")] = Field(
        default=HoldOut(kind="hold_out"), description="How the model is judged."
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
    """Train a model, judge it on rows that it did not see beside the dummy baseline, and write its card.

    Features and estimator are one pipeline, fitted on training rows only, in each fold again. With a `recipe`, its
    roles of the columns are used; a table of features made by it leads back to the rows that it was made from.
    Progress counts trees, iterations, or folds.
    """

    dataset: FedDataset = Field(description="The rows to learn from; in a workflow the step before gives them.")
    recipe: FedRecipe = Field(default=None, description="Recipe of `build_features` instead of `features`.")

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
    """Judge a model on a dataset that has its target, beside the baseline of its training rows."""

    model: FedModel = Field(description="The model; in a workflow the step before gives it.")
    dataset: FedDataset = Field(description="Rows with the true target; in a workflow those held out in training.")


class PredictSpec(Params):
    """What predictions are to hold."""

    keep_columns: list[ColumnName] = Field(
        default=[], max_length=100, description="Columns of the dataset to keep beside the predictions, such as ids."
    )
    probabilities: bool = Field(
        default=True,
        description="Whether to add a column `probability_<class>` per class, where the model has them. Classes that "
        "differ by case alone get `#<number>` appended.",
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
    """Predict every row of a dataset, in batches: memory stays bounded whatever its size.

    A dataset without the columns that the model learnt from, or with others of their names, is refused.
    """

    model: FedModel = Field(description="The model; in a workflow the step before gives it.")
    dataset: FedDataset = Field(description="The rows; in a workflow the step before gives them.")
