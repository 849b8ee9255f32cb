"""From a source to predictions in one job."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.contract.artifacts import ArtifactUri
from shared.contract.definition import Limits
from shared.contract.params import Params
from shared.jobs.data.places import Source
from shared.jobs.etl import ExtractData, TransformData, TransformSpec
from shared.jobs.ml.features import FeatureSpec
from shared.jobs.ml.kinds import (
    BuildFeatures,
    BuildSpec,
    EvaluateModel,
    PredictBatch,
    PredictSpec,
    TrainModel,
    TrainSpec,
)
from shared.jobs.ml.results import MlPipelineResult
from shared.jobs.ml.tuning import SearchSpec, StartSearch, search_nodes
from shared.workflows.definition import WorkflowContract
from shared.workflows.nodes import Chain, Node, fed_step, step

_HOUR_S = 3600.0


class TrainPart(TrainSpec):
    """Train one model."""

    kind: Literal["train"] = Field(description="Discriminator.")


class TunePart(SearchSpec):
    """Search hyperparameters."""

    kind: Literal["tune"] = Field(description="Discriminator.")


class PredictPart(PredictSpec):
    """What to predict."""

    dataset: ArtifactUri | None = Field(default=None, description="Rows to predict; default: those held out.")


class RunMlPipeline(
    WorkflowContract[MlPipelineResult],
    kind="ml.run_pipeline",
    queue="ml",
    limits=Limits(soft_s=24 * _HOUR_S - 60, hard_s=24 * _HOUR_S),
    examples=[
        {
            "source": {"kind": "http", "url": "https://example.com/iris.csv"},
            "learn": {
                "kind": "train",
                "task": "classification",
                "target": "species",
                "estimator": {"kind": "random_forest"},
            },
            "predict": {},
        },
        {
            "source": {"kind": "sql", "connection": "warehouse", "table": "houses"},
            "features": {"drop": ["id"]},
            "learn": {
                "kind": "tune",
                "task": "regression",
                "target": "price",
                "estimator": {"kind": "hist_gradient_boosting"},
                "space": {"learning_rate": {"kind": "float", "low": 0.01, "high": 0.3, "log": True}},
            },
        },
    ],
):
    """Extract, make features, train or tune, evaluate on held-out rows, and predict: one job on etl and ml workers.

    A failed step names itself; the steps after it are skipped. The model is that of the step `train` or `refit`.
    """

    source: Source = Field(description="Source of the data.")
    transform: TransformSpec | None = Field(default=None, description="Transformation of the data; default: none.")
    features: FeatureSpec = Field(default=FeatureSpec(), description="Roles of the columns.")
    learn: Annotated[TrainPart | TunePart, Field(discriminator="kind")] = Field(description="What to learn, and how.")
    predict: PredictPart | None = Field(default=None, description="What to predict; default: nothing.")

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.learn.features is not None:
            raise ValueError("learn.features: omit it; the pipeline's own 'features' set the roles of the columns")
        if isinstance(self.learn, TrainPart) and self.learn.validation.kind != "hold_out":
            raise ValueError("learn.validation: the pipeline evaluates on held-out rows; use 'hold_out'")
        return self

    def plan(self) -> Node:
        """Return extract -> transform -> features -> train, or the steps of a search -> evaluate -> predict."""
        build = BuildSpec(target=self.learn.target, features=self.features)
        predict = self.predict
        return Chain(
            step("extract", ExtractData(source=self.source)),
            *([fed_step("transform", TransformData, self.transform)] if self.transform else []),
            fed_step("features", BuildFeatures, build),
            *self._learning(),
            fed_step("evaluate", EvaluateModel, Params()),
            *([fed_step("predict", PredictBatch, _stated(predict))] if predict else []),
        )

    def _learning(self) -> list[Node]:
        spec = self.learn.model_dump(exclude={"kind"}, exclude_unset=True)
        if isinstance(self.learn, TrainPart):
            return [fed_step("train", TrainModel, TrainSpec.model_validate(spec))]
        search = SearchSpec.model_validate(spec)
        return search_nodes(fed_step("start", StartSearch, search), search)


def _stated(predict: PredictPart) -> PredictSpec:
    """Return the parameters of the step, with the dataset only if it is given: otherwise the step before feeds it."""
    if predict.dataset is not None:
        return predict
    return PredictSpec.model_validate(predict.model_dump(exclude={"dataset"}, exclude_unset=True))
