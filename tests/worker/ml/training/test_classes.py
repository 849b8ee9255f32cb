"""Classes of any type, and a model of classes whose rows have weights."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from sklearn import metrics
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared.jobs.ml.kinds import EvaluateModel, PredictBatch, TrainModel
from tests.support.ml_runs import cancer, new_run, stored
from worker.ml import tasks

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("weights", [None, "balanced", {"true": 3.0}])
def test_boosting_is_fitted_once_whatever_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    """Rows are binned once, which takes most of the time with weights, and the model is scikit-learn's."""
    frame, fits = cancer(), []
    fit = HistGradientBoostingClassifier.fit

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        fits.append(self)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", counted)
    spec = {"estimator": {"kind": "hist_gradient_boosting", "max_iter": 80}, "class_weights": weights}
    job = {"task": "classification", "target": "benign", "dataset": stored(tmp_path, frame), **spec}
    result = tasks.train_model(TrainModel.model_validate(job), new_run(tmp_path))
    assert len(fits) == 1
    x_train, x_test, y_train, y_test = train_test_split(
        frame.drop(columns="benign"), frame["benign"], test_size=0.2, random_state=0, stratify=frame["benign"]
    )
    own = {False: 1.0, True: 3.0} if isinstance(weights, dict) else weights
    direct = HistGradientBoostingClassifier(max_iter=80, early_stopping=False, random_state=0, class_weight=own)
    chances = make_pipeline(StandardScaler(), direct).fit(x_train, y_train).predict_proba(x_test)
    assert result.summary.evaluation.scores["log_loss"] == pytest.approx(metrics.log_loss(y_test, chances))


@pytest.mark.parametrize(
    ("target", "weights", "counts"),
    [
        ([0.0, 1.0, None], {"1.0": 2.0}, {"0": 30, "1": 30}),
        ([0.0, 1.0, float("nan")], {"1": 2.0}, {"0": 30, "1": 30}),
        ([True, False, None], {"true": 2.0}, {"false": 30, "true": 30}),
        ([Decimal("0.00"), Decimal("1.00"), None], {"1": 2.0}, {"0": 30, "1": 30}),
        (["true", "True", None], {"True": 2.0}, {"True": 30, "true": 30}),
    ],
)
def test_classes_are_what_they_mean(
    tmp_path: Path, target: list[Any], weights: dict[str, float], counts: dict[str, int]
) -> None:
    """Whole numbers and truth values are classes, however they are stored, and go by the same name everywhere."""
    table = pa.table({"x": pa.array(range(90)), "y": pa.array(target * 30)})
    job = {"task": "classification", "target": "y", "estimator": {"kind": "random_forest", "n_estimators": 2}}
    spec = TrainModel.model_validate({**job, "dataset": stored(tmp_path, table), "class_weights": weights})
    result = tasks.train_model(spec, new_run(tmp_path))
    assert (result.summary.class_counts, result.summary.dropped_row_count) == (counts, 30)
    predict = PredictBatch(model=result.model.uri, dataset=stored(tmp_path, table.select(["x"])))
    predicted = tasks.predict_batch(predict, new_run(tmp_path))
    assert predicted.class_counts is not None
    assert predicted.class_counts.keys() == counts.keys()
    assert predicted.probabilities is not None
    assert predicted.probabilities.keys() == counts.keys()
    columns = [one.name for one in predicted.dataset.columns]
    assert columns == ["prediction", *predicted.probabilities.values()]
    tasks.evaluate_model(EvaluateModel(model=result.model.uri, dataset=stored(tmp_path, table)), new_run(tmp_path))
