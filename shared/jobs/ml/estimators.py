"""Estimators with typed, bounded hyperparameters, named as in scikit-learn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.contract.params import Component, Params

LearningTask = Literal["classification", "regression"]
Ratio = Annotated[float, Field(gt=0, le=1)]


class RandomForest(Params):
    """Trees on bootstrap samples, averaged."""

    kind: Literal["random_forest"] = Field(description="Discriminator.")
    n_estimators: int = Field(default=100, ge=1, le=2_000, description="Trees.")
    max_depth: int | None = Field(default=None, ge=1, le=200, description="Deepest tree; default: no bound.")
    min_samples_split: int = Field(
        default=2, ge=2, le=100_000, description="Minimum number of rows for splitting a node."
    )
    min_samples_leaf: int = Field(default=1, ge=1, le=100_000, description="Rows of a leaf, at least.")
    max_features: Literal["sqrt", "log2"] | Ratio | None = Field(
        default=None,
        description="Features considered at a split: a ratio, or a function of their number; default: `sqrt` for "
        "classification, all (1.0) for regression.",
    )
    bootstrap: bool = Field(
        default=True, description="Whether each tree is fitted on a sample of the rows instead of all."
    )


class HistGradientBoosting(Params):
    """Trees that each correct the error of the previous ones, on binned features. Accepts missing numbers."""

    kind: Literal["hist_gradient_boosting"] = Field(description="Discriminator.")
    max_iter: int = Field(default=100, ge=1, le=2_000, description="Iterations: trees per class.")
    learning_rate: float = Field(default=0.1, gt=0, le=1, description="Weight of each new tree.")
    max_leaf_nodes: int = Field(default=31, ge=2, le=1_024, description="Leaves of a tree.")
    max_depth: int | None = Field(default=None, ge=1, le=200, description="Deepest tree; default: no bound.")
    min_samples_leaf: int = Field(default=20, ge=1, le=100_000, description="Rows of a leaf, at least.")
    l2_regularization: float = Field(default=0.0, ge=0, le=1e6, description="Penalty on large leaf values.")
    max_bins: int = Field(default=255, ge=2, le=255, description="Bins of a feature.")


class LogisticRegression(Params):
    """A linear classifier with probabilities. It needs scaled features."""

    kind: Literal["logistic_regression"] = Field(description="Discriminator.")
    c: float = Field(default=1.0, ge=1e-8, le=1e8, description="Inverse strength of the penalty.")
    l1_ratio: float = Field(default=0.0, ge=0, le=1, description="0: squared penalty, 1: absolute penalty.")
    max_iter: int = Field(default=1_000, ge=1, le=20_000, description="Iterations of the solver, at most.")


class LinearRegression(Params):
    """A linear model of a number: least squares, with an elastic-net penalty if `alpha` is above 0."""

    kind: Literal["linear_regression"] = Field(description="Discriminator.")
    alpha: float = Field(default=0.0, ge=0, le=1e8, description="Strength of the penalty; 0: none.")
    l1_ratio: float = Field(default=0.0, ge=0, le=1, description="0: squared penalty (ridge), 1: absolute (lasso).")
    max_iter: int = Field(default=1_000, ge=1, le=20_000, description="Iterations of the elastic net, at most.")


class SupportVectors(Params):
    """A support vector machine; it gives no probabilities. Its time grows with the square of the rows."""

    kind: Literal["svm"] = Field(description="Discriminator.")
    c: float = Field(default=1.0, ge=1e-8, le=1e8, description="Inverse strength of the penalty.")
    kernel: Literal["rbf", "linear", "poly", "sigmoid"] = Field(default="rbf", description="Kernel.")
    gamma: Literal["scale", "auto"] | Annotated[float, Field(gt=0, le=1e6)] = Field(
        default="scale", description="Width of the kernel: a number, or a function of the features; default: `scale`."
    )
    degree: int = Field(default=3, ge=1, le=6, description="Degree of `poly`.")
    epsilon: float = Field(default=0.1, ge=0, le=1e9, description="Error that is not penalised; for regression.")
    max_iter: int = Field(default=100_000, ge=1, le=10_000_000, description="Iterations of the solver, at most.")


class KNeighbors(Params):
    """The vote, or mean, of the nearest rows."""

    kind: Literal["k_neighbors"] = Field(description="Discriminator.")
    n_neighbors: int = Field(default=5, ge=1, le=1_000, description="Rows that vote.")
    weights: Literal["uniform", "distance"] = Field(default="uniform", description="Whether nearer rows count more.")
    p: Literal[1, 2] = Field(default=2, description="Distance: 1 is Manhattan, 2 is Euclidean.")


class DummyBaseline(Params):
    """A baseline that ignores the features: it predicts the most frequent class, or the mean."""

    kind: Literal["dummy"] = Field(description="Discriminator.")


AnyEstimator = (
    RandomForest
    | HistGradientBoosting
    | LogisticRegression
    | LinearRegression
    | SupportVectors
    | KNeighbors
    | DummyBaseline
)
Estimator = Annotated[AnyEstimator, Field(discriminator="kind"), Component("Estimator")]

ONLY_FOR: dict[str, LearningTask] = {"logistic_regression": "classification", "linear_regression": "regression"}
UNWEIGHTED = frozenset({"k_neighbors", "dummy"})
"""Estimators that take no weights."""
