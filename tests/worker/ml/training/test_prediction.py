"""Predictions and evaluation: with a stored model, on other rows."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn import metrics
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared.errors import TaskFailure
from shared.jobs.ml.kinds import EvaluateModel, PredictBatch, TrainModel
from tests.support.ml_runs import diabetes, fetched, iris, new_run, stored
from worker.ml import tasks
from worker.ml.training import prediction

if TYPE_CHECKING:
    from pathlib import Path

    from shared.jobs.ml.results import PredictionResult, TrainResult

SPECIES = ["setosa", "versicolor", "virginica"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def trained(folder: Path) -> TrainResult:
    """Train a classifier of iris species, once."""
    params = {"task": "classification", "target": "species", "estimator": {"kind": "logistic_regression"}}
    job = {"dataset": stored(folder, iris()), **params, "features": {"drop": ["id"]}}
    return tasks.train_model(TrainModel.model_validate(job), new_run(folder))


@pytest.fixture(scope="module")
def direct() -> Any:
    """Train the same with scikit-learn alone."""
    frame = iris().drop(columns="id")
    x, _, y, _ = train_test_split(
        frame.drop(columns="species"), frame["species"], test_size=0.2, random_state=0, stratify=frame["species"]
    )
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)


def predict(folder: Path, model: str, table: pa.Table | pd.DataFrame, **spec: Any) -> PredictionResult:
    job = PredictBatch.model_validate({"model": model, "dataset": stored(folder, table), **spec})
    return tasks.predict_batch(job, new_run(folder))


def test_predictions_are_those_of_scikit_learn(
    folder: Path, trained: TrainResult, direct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row by row in the dataset's order, with ids and probabilities, whatever the size of the batches."""
    monkeypatch.setattr(prediction, "_BATCH_BYTES", 7 * 4 * 8)  # seven rows
    frame = iris().sample(frac=1, random_state=1, ignore_index=True)
    result = predict(folder, trained.model.uri, frame, keep_columns=["id"])
    found = fetched(folder, result.dataset.uri)
    x = frame.drop(columns=["id", "species"])
    assert found["id"].tolist() == frame["id"].tolist()
    assert found["prediction"].tolist() == direct.predict(x).tolist()
    chances = found[[f"probability_{name}" for name in SPECIES]].to_numpy()
    np.testing.assert_allclose(chances, direct.predict_proba(x))
    assert list(found.columns) == ["id", "prediction", *(f"probability_{name}" for name in SPECIES)]
    assert result.class_counts == found["prediction"].value_counts().to_dict()
    assert (result.dataset.row_count, result.mean) == (150, None)


def test_predicted_numbers_come_with_their_range(folder: Path) -> None:
    """Mean, least and greatest are those of the predictions written."""
    params = {"task": "regression", "target": "target", "estimator": {"kind": "linear_regression"}}
    job = TrainModel.model_validate({"dataset": stored(folder, diabetes()), **params})
    model = tasks.train_model(job, new_run(folder)).model.uri
    result = predict(folder, model, diabetes())
    frame = diabetes()
    train, _ = train_test_split(frame, test_size=0.2, random_state=0)
    expected = LinearRegression().fit(train.drop(columns="target"), train["target"]).predict(frame.iloc[:, :-1])
    found = fetched(folder, result.dataset.uri)
    np.testing.assert_allclose(found["prediction"], expected)
    assert (result.minimum, result.maximum) == pytest.approx((expected.min(), expected.max()))
    assert result.mean == pytest.approx(expected.mean())
    assert list(found.columns) == ["prediction"]


def test_columns_that_do_not_fit_are_named(folder: Path, trained: TrainResult) -> None:
    """The missing ones and the wrongly typed ones, with what they were learnt as."""
    frame = iris().drop(columns="sepal length (cm)").astype({"petal width (cm)": "str"})
    with pytest.raises(TaskFailure) as failure:
        predict(folder, trained.model.uri, frame)
    assert failure.value.code == "columns_do_not_fit"
    assert failure.value.details["missing"] == ["sepal length (cm)"]
    assert failure.value.details["wrong"] == ["'petal width (cm)' is large_string, but was float in training"]
    assert "'sepal length (cm)'" in failure.value.message
    with pytest.raises(TaskFailure, match="keep_columns"):
        predict(folder, trained.model.uri, iris(), keep_columns=["ID"])
    with pytest.raises(TaskFailure, match="prediction"):
        predict(folder, trained.model.uri, iris().rename(columns={"id": "Prediction"}), keep_columns=["Prediction"])


def test_missing_values_and_unknown_categories_are_predicted(folder: Path, trained: TrainResult) -> None:
    """They get what the recipe learnt; integers do where numbers were learnt; no rows make no predictions."""
    frame = iris().drop(columns="species").astype({"petal width (cm)": "int64"})
    frame.loc[3, "sepal width (cm)"] = None
    found = fetched(folder, predict(folder, trained.model.uri, frame, probabilities=False).dataset.uri)
    assert found["prediction"].isin(SPECIES).all()
    assert list(found.columns) == ["prediction"]
    none = predict(folder, trained.model.uri, frame.head(0))
    assert (none.dataset.row_count, none.class_counts) == (0, dict.fromkeys(SPECIES, 0))


def test_evaluation_of_the_held_out_rows_is_that_of_training(folder: Path, trained: TrainResult) -> None:
    """The stored model on the stored rows gives the figures that training reported, baseline's included."""
    assert trained.dataset is not None
    job = EvaluateModel(model=trained.model.uri, dataset=trained.dataset.uri)
    result = tasks.evaluate_model(job, new_run(folder))
    assert result.evaluation.scores == pytest.approx(trained.summary.evaluation.scores)
    assert result.evaluation.baseline == pytest.approx(trained.summary.evaluation.baseline)
    assert result.evaluation.confusion == trained.summary.evaluation.confusion
    assert (result.model.sha256, result.dataset.sha256) == (trained.model.sha256, trained.dataset.sha256)


def test_evaluation_on_other_rows(folder: Path, trained: TrainResult, direct: Any) -> None:
    """Scores are of the rows given; rows without truth are counted, classes that were not learnt are named."""
    frame = iris().iloc[50:].reset_index(drop=True)
    frame.loc[:4, "species"] = None
    job = EvaluateModel(model=trained.model.uri, dataset=stored(folder, frame))
    result = tasks.evaluate_model(job, new_run(folder))
    known = frame.iloc[5:]
    answers = direct.predict(known.drop(columns=["id", "species"]))
    assert result.evaluation.scores["accuracy"] == pytest.approx(metrics.accuracy_score(known["species"], answers))
    assert (result.evaluation.row_count, result.dropped_row_count) == (95, 5)
    assert result.evaluation.scores["roc_auc"] is None
    strange = EvaluateModel(model=trained.model.uri, dataset=stored(folder, frame.assign(species="rose")))
    with pytest.raises(TaskFailure, match="'rose'"):
        tasks.evaluate_model(strange, new_run(folder))


def test_classes_that_differ_by_case_have_probabilities_of_their_own(folder: Path) -> None:
    """Their columns get the class's number, as SQL would take the names for the same."""
    frame = iris().assign(species=lambda flowers: flowers["species"].replace("virginica", "SETOSA"))
    params = {"task": "classification", "target": "species", "estimator": {"kind": "k_neighbors"}}
    job = TrainModel.model_validate({"dataset": stored(folder, frame), **params, "features": {"drop": ["id"]}})
    model = tasks.train_model(job, new_run(folder)).model.uri
    found = fetched(folder, predict(folder, model, frame).dataset.uri)
    chances = ["probability_SETOSA#0", "probability_setosa#1", "probability_versicolor"]
    assert list(found.columns) == ["prediction", *chances]
    likeliest = found[chances].to_numpy().argmax(axis=1)
    assert [["SETOSA", "setosa", "versicolor"][index] for index in likeliest] == list(found["prediction"])


def test_a_number_that_no_tree_takes_is_refused_with_its_remedy(folder: Path) -> None:
    """Trees work with numbers of 32 bits; a larger one in the rows to predict is the rows' fault."""
    estimator = {"kind": "random_forest", "n_estimators": 2}
    params = {"task": "regression", "target": "target", "estimator": estimator}
    job = TrainModel.model_validate({"dataset": stored(folder, diabetes()), **params})
    model = tasks.train_model(job, new_run(folder)).model.uri
    with pytest.raises(TaskFailure) as failure:
        predict(folder, model, diabetes().assign(age=1e300))
    assert failure.value.code == "predict_failed"
    assert "3e38" in failure.value.remedy


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_prediction_beyond_all_numbers_is_refused(folder: Path) -> None:
    """A straight line leads out of what a float holds; the mean of such predictions would be none."""
    frame = pd.DataFrame({"x": [-1.0, 2.0, 3.0, 5.0] * 5})
    features = {"columns": {"x": {"kind": "number", "scale": "none"}}}
    params = {"task": "regression", "target": "y", "estimator": {"kind": "linear_regression"}, "features": features}
    job = TrainModel.model_validate({"dataset": stored(folder, frame.assign(y=frame["x"] * 1e130)), **params})
    model = tasks.train_model(job, new_run(folder)).model.uri
    for x, said in ((1e200, "predicts inf"), (1e20, "predicts 1e+150")):
        with pytest.raises(TaskFailure) as failure:
            predict(folder, model, pd.DataFrame({"x": [1.0, x]}))
        assert failure.value.code == "predict_failed"
        assert said in failure.value.message


INCOMES = pa.table(
    {
        "id": [f"{row}" if row % 3 else f"A{row}" for row in range(60)],
        "code": [["10", "20", "x1"][row % 3] for row in range(60)],
        "area": [[10, 20, 30][row % 3] for row in range(60)],
        "income": [1_000.0 * (row % 7) for row in range(60)],
        "born": [dt.date(1980 + row % 5, 1, 1) for row in range(60)],
        "price": [float([5, 9, 1][row % 3]) for row in range(60)],
    }
)


@pytest.fixture(scope="module")
def priced(folder: Path) -> str:
    """Train a model that knows the price by the code, or by the area, and return its uri."""
    columns = {"code": {"kind": "category"}, "area": {"kind": "category"}, "born": {"kind": "date"}}
    spec = {"task": "regression", "target": "price", "features": {"drop": ["id"], "columns": columns}}
    job = {**spec, "dataset": stored(folder, INCOMES), "estimator": {"kind": "linear_regression", "alpha": 1e-6}}
    return tasks.train_model(TrainModel.model_validate(job), new_run(folder)).model.uri


@pytest.mark.parametrize(
    "changed",
    [
        {"income": pa.nulls(3)},
        {"income": pa.nulls(3, pa.string())},
        {"born": pa.nulls(3)},
        {"born": pa.nulls(3, pa.float64())},
        {"income": pa.array([0, 1_000, 2_000])},
        {"area": pa.array(["10", "20", "30"])},
        {"area": pa.array([10.0, 20.0, 30.0])},
    ],
    ids=[
        "no income",
        "no income, as text",
        "no date",
        "no date, as numbers",
        "whole numbers",
        "codes as text",
        "codes as floats",
    ],
)
def test_a_batch_whose_columns_look_different_is_predicted_as_the_recipe_says(
    folder: Path, priced: str, changed: dict[str, pa.Array]
) -> None:
    """A column without any value is missing values; the reader's type of codes follows from those of the batch."""
    rows = INCOMES.slice(0, 3)
    for name, values in changed.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    found = fetched(folder, predict(folder, priced, rows).dataset.uri)
    assert found["prediction"].tolist() == pytest.approx([5, 9, 1], abs=0.6)


def test_codes_of_digits_only_are_the_categories_of_training(folder: Path, priced: str) -> None:
    """One row of the file, or those with a numeric code, are read as numbers; the categories are the same."""
    everything = fetched(folder, predict(folder, priced, INCOMES).dataset.uri)["prediction"].tolist()
    for rows in ([0], [1], [0, 1, 3, 4]):
        batch = INCOMES.take(rows)
        codes = pa.array([int(code) for code in batch.column("code").to_pylist()])
        batch = batch.set_column(1, "code", codes)
        found = fetched(folder, predict(folder, priced, batch).dataset.uri)
        assert found["prediction"].tolist() == pytest.approx([everything[row] for row in rows])


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("area", [10.5, 20.0, 30.0], "'area' has numbers with a fraction"),
        ("code", [1.5, 2.5, 3.5], "'code' is double, but was string"),
        ("income", ["a", "b", None], "'income' is string, but was float"),
    ],
)
def test_other_types_are_refused_by_name(folder: Path, priced: str, name: str, values: list[Any], said: str) -> None:
    """What was spelled in another way than training saw would be another category, without a word."""
    rows = INCOMES.slice(0, 3)
    with pytest.raises(TaskFailure, match=said):
        predict(folder, priced, rows.set_column(rows.schema.get_field_index(name), name, pa.array(values)))


def test_a_target_of_digits_only_is_evaluated_as_the_classes_that_it_was(folder: Path) -> None:
    """The rows of two classes are read as numbers, though the third is a text."""
    frame = iris().assign(
        species=lambda flowers: flowers["species"].map({"setosa": "1", "versicolor": "2"}).fillna("x")
    )
    params = {"task": "classification", "target": "species", "estimator": {"kind": "k_neighbors"}}
    job = TrainModel.model_validate({"dataset": stored(folder, frame), **params, "features": {"drop": ["id"]}})
    model = tasks.train_model(job, new_run(folder)).model.uri
    digits = frame[frame["species"] != "x"].astype({"species": "int64"})
    judged = tasks.evaluate_model(EvaluateModel(model=model, dataset=stored(folder, digits)), new_run(folder))
    accuracy = judged.evaluation.scores["accuracy"]
    assert accuracy is not None
    assert accuracy > 0.95
