"""What the ML family's contracts refuse when a job is submitted, and what their workflows are made of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from shared.contract.catalogue import catalogue
from shared.jobs.ml.kinds import BuildFeatures, TrainModel
from shared.jobs.ml.pipeline import RunMlPipeline
from shared.jobs.ml.tuning import TuneModel
from shared.ledger.ids import uuid7
from shared.workflows.definition import WorkflowContract
from shared.workflows.feeding import feeding_problems
from shared.workflows.nodes import lay_out

URI = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"
LEARN: dict[str, Any] = {"task": "classification", "target": "y", "estimator": {"kind": "random_forest"}}
DEPTH: dict[str, Any] = {"max_depth": {"kind": "int", "low": 1, "high": 9}}
SVM = {"kind": "svm"}


def told(contract: Any, **params: Any) -> str:
    """Return why `params` are refused."""
    with pytest.raises(ValidationError) as refused:
        contract.model_validate_json(json.dumps(params))
    return "; ".join(f"{problem['loc']}: {problem['msg']}" for problem in refused.value.errors())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"estimator": {"kind": "random_forest", "n_estimators": 1_000_000}}, "less than or equal to 2000"),
        ({"estimator": {"kind": "random_forest", "depth": 3}}, "Extra inputs are not permitted"),
        ({"estimator": {"kind": "random_forest", "max_features": "all"}}, "'sqrt' or 'log2'"),
        ({"estimator": {"kind": "svm", "c": 0}}, "greater than or equal to 0.00000001"),
        ({"estimator": {"kind": "xgboost"}}, "does not match any of the expected tags"),
        ({"estimator": {"kind": "linear_regression"}}, "'linear_regression' is for regression"),
        ({"task": "regression", "estimator": {"kind": "logistic_regression"}}, "is for classification"),
        ({"task": "regression", "class_weights": "balanced"}, "'class_weights' require task 'classification'"),
        ({"estimator": {"kind": "k_neighbors"}, "class_weights": "balanced"}, "does not support 'class_weights'"),
        ({"class_weights": {"a": 0.0}}, "greater than 0"),
        ({"features": {"columns": {"y": {"kind": "number"}}}}, "'y' is the target"),
        ({"features": {}, "recipe": URI}, "either 'features' or 'recipe'"),
        ({"features": {"drop": ["a"], "columns": {"a": {"kind": "date"}}}}, "'a' is in 'columns' and in 'drop'"),
        ({"features": {"columns": {"a": {"kind": "ordinal", "order": ["x", "x"]}}}}, "'order' has a value twice"),
        ({"features": {"columns": {"a": {"kind": "date", "parts": ["day", "day"]}}}}, "'parts' has a part twice"),
        ({"features": {"columns": {"a": {"kind": "text", "max_features": 9, "components": 9}}}}, "less than 'max_f"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"validation": {"kind": "cross_validation", "folds": 100}}, "less than or equal to 20"),
    ],
)
def test_what_training_refuses(change: dict[str, Any], reason: str) -> None:
    """Each refusal names the field and why."""
    assert reason in told(TrainModel, dataset=URI, **{**LEARN, **change})


def test_a_recipe_has_its_features() -> None:
    """Both together are refused, also where a table is only made."""
    assert "either" in told(BuildFeatures, dataset=URI, recipe=URI, features={"drop": ["a"]})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"space": {"depth": DEPTH["max_depth"]}}, "'random_forest' has no hyperparameter 'depth'; it has bootstrap"),
        ({"space": {"max_depth": {"kind": "int", "low": 0, "high": 3}}}, "space.max_depth: 'random_forest' does not"),
        ({"space": {"max_depth": {"kind": "float", "low": 1.5, "high": 3}}}, "does not take 1.5"),
        ({"space": {"max_features": {"kind": "categorical", "choices": ["sqrt", "all"]}}}, "does not take 'all'"),
        ({"space": {"max_depth": {"kind": "int", "low": 5, "high": 3}}}, "'low' (5) is above 'high' (3)"),
        ({"space": {"max_depth": {"kind": "int", "low": 1, "high": 3, "log": True, "step": 2}}}, "no meaning with"),
        ({"estimator": SVM, "space": {"epsilon": {"kind": "float", "low": 0, "high": 1, "log": True}}}, "above 0"),
        ({"space": {"max_depth": {"kind": "categorical", "choices": [3, 3]}}}, "twice"),
        ({"space": {}}, "at least 1 item"),
        ({"space": {"n_estimators": {"kind": "int", "low": 1, "high": 999}}, "method": {"kind": "grid"}}, "999 points"),
        (
            {
                "space": {"max_features": {"kind": "float", "low": 0.1, "high": 1}},
                "method": {"kind": "grid"},
            },
            "a grid needs",
        ),
        ({"method": {"kind": "tpe", "rounds": 20, "trials_per_round": 100}}, "more than 200 trials"),
        ({"metric": "mae"}, "'mae' is not for classification"),
        ({"estimator": SVM, "space": {"degree": {"kind": "int", "low": 1, "high": 3}}, "metric": "roc_auc"}, "prob"),
        ({"estimator": {"kind": "dummy"}}, "it has none to search"),
    ],
)
def test_what_a_search_refuses(change: dict[str, Any], reason: str) -> None:
    """A range is held against the estimator's own bounds, at both ends."""
    assert reason in told(TuneModel, dataset=URI, **{**LEARN, "space": DEPTH, **change})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": {}}, "the pipeline's own 'features'"),
        ({"validation": {"kind": "cross_validation"}}, "use 'hold_out'"),
    ],
)
def test_what_a_pipeline_refuses(change: dict[str, Any], reason: str) -> None:
    """What its steps could not feed on is refused before any runs."""
    source = {"kind": "artifact", "uri": URI}
    assert reason in told(RunMlPipeline, source=source, learn={"kind": "train", **LEARN, **change})


def test_every_step_of_the_workflows_is_fed() -> None:
    """In every example each step gets from the steps before it what it takes."""
    workflows = [kind for kind in catalogue().families(["ml"]).values() if issubclass(kind, WorkflowContract)]
    assert sorted(kind.spec.kind for kind in workflows) == ["ml.run_pipeline", "ml.tune_model"]
    for contract in workflows:
        for example in contract.spec.examples:
            job = contract.model_validate_json(json.dumps(example))
            assert isinstance(job, WorkflowContract)
            assert list(feeding_problems(lay_out(job.plan(), uuid7))) == []


def test_only_trials_may_fail() -> None:
    """A trial that is lost is not an end; everything else is."""
    params = {"dataset": URI, **LEARN, "space": DEPTH, "method": {"kind": "random", "trials_per_round": 3}}
    planned = lay_out(TuneModel.model_validate(params).plan(), uuid7)
    assert [one.plan.name for one in planned] == ["start", "hold_0", "trial_0", "trial_1", "trial_2", "refit"]
    assert [one.plan.may_fail for one in planned] == [False, False, True, True, True, False]


def test_given_rows_to_predict_are_not_fed() -> None:
    """A dataset named in `predict` stands in the step; without one the rows held out are fed."""
    source = {"kind": "artifact", "uri": URI}
    for predict, expected in (({}, None), ({"dataset": URI}, URI)):
        job = RunMlPipeline.model_validate({"source": source, "learn": {"kind": "train", **LEARN}, "predict": predict})
        planned = lay_out(job.plan(), uuid7)
        assert planned[-1].plan.params.get("dataset") == expected
        assert list(feeding_problems(planned)) == []
